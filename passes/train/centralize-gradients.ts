import type { Graph, State } from '../../ir/graph.ts';
import { redirect } from './extend.ts';
import type { CentralizationSpec } from './options.ts';
import { centred } from './per-unit.ts';
import { unitSize, type Unit, type Units } from './units.ts';

/** Subtracts from each direction its mean over every unit (Yong et al., arXiv 2004.01461), where that is done before the moments. */
export function centralizeGradients(graph: Graph, gc: CentralizationSpec | undefined, units: Units): Graph {
  if (!gc || gc.before === false) return graph;
  return redirect(graph, ({ b }, { state, direction }) => {
    const unit = centralizedUnit(gc, units, state);
    return unit && centred(b, direction, unit);
  });
}

/** The unit by which a parameter is centralized. Units of one element are left out: centralizing would erase their gradient. */
export function centralizedUnit(gc: CentralizationSpec, units: Units, state: State): Unit | undefined {
  const unit = units.units.get(state.name);
  if (!unit || unitSize(unit) === 1) return undefined;
  if (gc.convOnly && unit.kind !== 'convolution') return undefined;
  return state.value.type.shape.length >= (gc.minRank ?? 0) ? unit : undefined;
}
