/** Runs one case of the matrix: a plan in the least memory, executed and compared. */
import { runTiled } from '../../cli/driver/simulate.ts';
import { Unsupported } from '../../ir/diagnostic.ts';
import { withConstants, type TileTarget } from '../../passes/tile/target.ts';
import { compare, type TileCase } from './case.ts';
import { leastMemory } from './least.ts';

/** A case passes within this many times the least memory that is thinkable. */
export const within = 1.5;

/** What came of a case on so many tiles. */
export interface Outcome {
  readonly facts: Readonly<Record<string, string | number>>;
  readonly problems: readonly string[];
  /** All numbers are right and no byte lies over the limit, whatever that is. */
  readonly executed: boolean;
  readonly seconds: number;
}

/** Plans a case in the least memory and runs it. An error in place of the case is a problem, as are refusals. */
export function runCase(c: TileCase | Error, target: TileTarget, tiles: number): Outcome {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const problems: string[] = [];
  let executed = false;
  let facts: Record<string, string | number> = {};
  try {
    if (c instanceof Error) throw c;
    const least = leastMemory(c.graph, withConstants(target, { tiles }));
    const { plan, bytes, bound } = least;
    const floor = Math.max(bound.always, bound.vertex);
    facts = { bytes, ratio: (bytes / floor).toFixed(2), 'of their sum': (bytes / (bound.always + bound.vertex)).toFixed(2), always: bound.always, vertex: bound.vertex, 'largest vertex': bound.op, code: plan.memory.code, peak: plan.memory.peak, recompute: least.recompute, parts: least.parts, steps: plan.steps.length, plans: least.tried };
    facts['planning'] = `${seconds().toFixed(1)} s`;
    const run = runTiled({ graph: least.graph, planned: { plan } }, c.inputs);
    const { problem, compared } = compare(c, run.outputs, run.named);
    if (problem !== undefined) problems.push(problem);
    facts['tensors compared'] = compared;
    const over = run.used.findIndex((used) => used + plan.memory.code > bytes);
    if (over >= 0) problems.push(`tile ${over} uses ${run.used[over]! + plan.memory.code} of ${bytes} bytes`);
    executed = problems.length === 0;
    if (bytes > within * floor) problems.push(`${(bytes / floor).toFixed(2)} times the least that is thinkable`);
  } catch (e) {
    problems.push(e instanceof Unsupported ? `refused: ${e.message}` : e instanceof Error ? e.message : String(e));
  }
  return { facts, problems, executed, seconds: seconds() };
}
