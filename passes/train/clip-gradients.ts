import type { Graph } from '../../ir/graph.ts';
import { extend, parametersOf, redirect } from './extend.ts';
import { matches, type OptimizerSpec } from './options.ts';
import { clipUnits, sumOfSquares } from './per-unit.ts';
import type { Units } from './units.ts';

/**
 * Clips gradients, each as the whole batch gives it: by value, by the norm of all of them together (as PyTorch does: with 1e-6 added to the norm), and adaptively, unit by unit
 * (Brock et al., arXiv 2102.06171). A parameter without a unit is clipped as a whole.
 */
export function clipGradients(graph: Graph, spec: OptimizerSpec, units: Units): Graph {
  const { clipValue, clipNorm, agc } = spec;
  let current = graph;
  if (clipValue !== undefined) current = redirect(current, ({ b }, { direction }) => b.min(b.max(direction, -clipValue), clipValue));
  if (clipNorm !== undefined) current = clipTogether(current, clipNorm);
  if (agc) {
    const exclude = agc.exclude ?? units.lastLinear;
    current = redirect(current, ({ b }, { state, direction }) => {
      if (matches(state.name, exclude)) return undefined;
      return clipUnits(b, direction, state.value, units.units.get(state.name), (norm) => b.mul(b.max(norm, agc.eps ?? 1e-3), agc.lambda));
    });
  }
  return current;
}

function clipTogether(graph: Graph, most: number): Graph {
  return extend(graph, (x) => {
    const { b } = x;
    const total = b.unary('sqrt', parametersOf(graph).map((p) => b.cast(sumOfSquares(b, p.direction), 'f32')).reduce((sum, s) => b.add(sum, s)));
    const factor = b.min(b.div(most, b.add(total, 1e-6)), 1);
    for (const p of parametersOf(graph)) x.direct(p, b.mul(p.direction, b.cast(factor, p.direction.type.dtype)));
  });
}
