/** Finds (x - mean) / sqrt(variance + ε) over all axes but the first two, which ONNX has as one node. */
import { definitions, type Graph, type Op, type Value } from '../../../ir/graph.ts';
import { nums, tensorAttr } from '../../../ir/op.ts';
import { sameShape, sizeOf } from '../../../ir/type.ts';

export interface InstanceNorm {
  /** What is normalized, before it was split into groups. */
  readonly x: Value;
  readonly groups: number;
  readonly epsilon: number;
}

/** The norms of a graph, by the multiplication that ends them. */
export function instanceNorms(graph: Graph): ReadonlyMap<Op, InstanceNorm> {
  const defs = definitions(graph);
  const peel = (v: Value): Value => (defs.get(v)?.name === 'reshape' ? peel(defs.get(v)!.operands[0]!) : v);
  const named = (v: Value, name: string): Op | undefined => (defs.get(v)?.name === name ? defs.get(v) : undefined);
  const number = (v: Value): number | undefined => {
    const op = named(v, 'constant');
    return op && sizeOf(v.type.shape) === 1 ? Number(tensorAttr(op.attrs, 'value').data[0]) : undefined;
  };
  const match = (centred: Op | undefined, inverse: Op | undefined): InstanceNorm | undefined => {
    const moments = centred && named(peel(centred.operands[1]!), 'moments');
    const sum = inverse && named(inverse.operands[0]!, 'add');
    const variance = sum && named(peel(sum.operands[0]!), 'div');
    const epsilon = sum && number(sum.operands[1]!);
    if (!moments || !variance || epsilon === undefined) return undefined;
    const [x] = centred.operands as [Value];
    const { shape, dtype } = x.type;
    const axes = nums(moments.attrs, 'axes');
    const aligned = (v: Value): boolean => sameShape(v.type.shape, shape.map((d, i) => (i < 2 ? d : 1)));
    const fits = dtype === 'f32' && shape.length > 2 && axes.length === shape.length - 2 && axes.every((a, i) => a === i + 2) && number(variance.operands[1]!) === sizeOf(shape.slice(2))
      && moments.operands[0] === x && peel(centred.operands[1]!) === moments.results[0] && peel(variance.operands[0]!) === moments.results[1] && aligned(centred.operands[1]!) && aligned(inverse.results[0]!);
    return fits ? { x: splitFrom(defs, x), groups: shape[1]!, epsilon } : undefined;
  };
  return new Map(graph.ops.flatMap((op): (readonly [Op, InstanceNorm])[] => {
    if (op.name !== 'mul') return [];
    const [a, b] = op.operands as [Value, Value];
    const found = match(named(a, 'sub'), named(b, 'rsqrt')) ?? match(named(b, 'sub'), named(a, 'rsqrt'));
    return found ? [[op, found]] : [];
  }));
}

/** The value whose channels a reshape split into groups. */
function splitFrom(defs: ReadonlyMap<Value, Op>, x: Value): Value {
  const op = defs.get(x);
  const from = op?.name === 'reshape' ? op.operands[0] : undefined;
  return from && from.type.shape.length >= 3 && from.type.shape[0] === x.type.shape[0] ? from : x;
}

/** The ops that a graph's outputs need, where a norm needs nothing but its input. */
export function neededOps(graph: Graph, norms: ReadonlyMap<Op, InstanceNorm>): Op[] {
  const needed = new Set<Value>(graph.outputs.map((o) => o.value));
  return graph.ops.toReversed().filter((op) => {
    if (!op.results.some((r) => needed.has(r))) return false;
    const norm = norms.get(op);
    (norm ? [norm.x] : op.operands).forEach((v) => needed.add(v));
    return true;
  }).reverse();
}
