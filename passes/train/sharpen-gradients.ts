import type { Graph, Value } from '../../ir/graph.ts';
import { cloneDependents } from './clone.ts';
import { extend, parametersOf } from './extend.ts';
import { sumOfSquares } from './per-unit.ts';

/**
 * Sharpness-aware minimisation (Foret et al., arXiv 2010.01412): takes each direction from the gradient at w + radius · g / |g|, the norm being that of all gradients together.
 * Forward and backward pass run a second time; loss, outputs, gradients and running statistics are those of the first.
 */
export function sharpenGradients(graph: Graph, radius: number | undefined): Graph {
  if (radius === undefined) return graph;
  return extend(graph, (x) => {
    const { b } = x;
    const parameters = parametersOf(graph);
    const total = b.unary('sqrt', parameters.map((p) => b.cast(sumOfSquares(b, p.gradient), 'f32')).reduce((sum, s) => b.add(sum, s)));
    const scale = b.div(radius, b.add(total, 1e-12));
    const map = new Map<Value, Value>(parameters.map(({ state: { value }, gradient }) => [value, b.add(value, b.mul(gradient, b.cast(scale, value.type.dtype)))]));
    cloneDependents(b, graph.ops, map);
    for (const p of parameters) x.direct(p, map.get(p.gradient) ?? p.gradient);
  });
}
