import type { Graph } from '../../ir/graph.ts';
import type { ImportedModel } from '../../frontend/index.ts';
import { averageName } from '../../passes/train/average-weights.ts';
import { stepName } from '../../passes/train/count-steps.ts';
import { goodStepsName, scaleName } from '../../passes/train/scale-loss.ts';
import { seedName } from '../../passes/train/seed-random-ops.ts';
import type { StateEntry } from '../../runtime/manifest.ts';

/** What each state of a training step is for, by its name: what the model brought is a parameter or a statistic, the rest was added by training. */
export function stateRoles(step: Graph, { graph, statistics }: Pick<ImportedModel, 'graph' | 'statistics'>): ReadonlyMap<string, StateEntry['role']> {
  const running = new Set(statistics.map((s) => s.state));
  const brought = new Map(graph.state.map((s) => [s.name, s]));
  const averages = new Set([...brought.keys()].map(averageName));
  return new Map(step.state.map(({ name }): [string, StateEntry['role']] => {
    const own = brought.get(name);
    if (own) return [name, running.has(own.value) ? 'statistic' : 'parameter'];
    return [name, name === stepName ? 'counter' : name === seedName ? 'seed' : name === scaleName || name === goodStepsName ? 'scale' : averages.has(name) ? 'average' : 'moment'];
  }));
}
