/** Moments as sums. */
import type { Attrs, Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import type { DType } from '../../ir/type.ts';
import type { Body } from './kernel.ts';

/** A body whose moments are spelled out in f32 as the kernel of moments computes them: the sum over the count, then the sum of squared distances from it. */
export function withoutMoments(body: Body): Body {
  return { ...body, ops: body.ops.flatMap((op) => (op.name === 'moments' ? spelledOut(op) : [op])) };
}

function spelledOut(op: Op): Op[] {
  const [x] = op.operands as [Value];
  const axes = nums(op.attrs, 'axes');
  const { shape } = x.type;
  const kept = shape.map((d, i) => (axes.includes(i) ? 1 : d));
  const dropped = shape.filter((_, i) => !axes.includes(i));
  const ops: Op[] = [];
  const made = (name: string, operands: readonly Value[], to: readonly number[], attrs: Attrs = {}, dtype: DType = 'f32', result: Value = { type: { dtype, shape: to }, name: undefined }): Value => {
    ops.push({ name, operands, results: [result], attrs, regions: [], source: op.source });
    return result;
  };
  /** Makes a result of the op from a value in f32. */
  const narrowed = (v: Value, result: Value | undefined): void => void (result && made('cast', [v], dropped, { to: result.type.dtype, saturate: false }, result.type.dtype, result));
  const wide = x.type.dtype === 'f32' ? x : made('cast', [x], shape, { to: 'f32', saturate: false });
  const count = made('constant', [], [], { value: { dtype: 'f32', shape: [], data: Float32Array.of(axes.reduce((n, a) => n * shape[a]!, 1)) } });
  const mean = made('div', [made('reduceSum', [wide], dropped, { axes }), count], dropped);
  narrowed(mean, op.results[0]);
  if (op.results[1]) {
    const d = made('sub', [wide, made('reshape', [mean], kept, { shape: kept })], shape);
    narrowed(made('reduceSum', [made('mul', [d, d], shape)], dropped, { axes }), op.results[1]);
  }
  return ops;
}
