/** Seeded tensors and comparisons for tests of the IR and its passes. */
import { decodeFloat, encodeFloat, intRange } from '../../ir/number.ts';
import { dtypes, isFloat, showType, sizeOf, type Tensor, type TensorType } from '../../ir/type.ts';
import type { Graph } from '../../ir/graph.ts';

const special = [0, -0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, Infinity, -Infinity, NaN];

/** Values in about -4..4; with `specials`, every third is a zero, a tie, an infinity or a NaN. */
export function randomTensor(type: TensorType, random: () => number, specials = false): Tensor {
  const { dtype, shape } = type;
  const data = new dtypes[dtype].array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    const x = specials && random() < 0.33 ? special[Math.floor(random() * special.length)]! : (random() - 0.5) * 8;
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[i] = BigInt(Math.floor(random() * 9)) - (dtype === 'i64' ? 4n : 0n);
    else if (dtype === 'bool') data[i] = random() < 0.5 ? 1 : 0;
    else if (!isFloat(dtype)) data[i] = Math.floor(random() * 9) - (intRange(dtype).lo < 0n ? 4 : 0);
    else data[i] = dtypes[dtype].bytes < 4 ? encodeFloat(dtype, x) : x;
  }
  return { dtype, shape, data };
}

/** Random values for all inputs of a graph. */
export function randomInputs(graph: Graph, random: () => number, specials = false): Map<Graph['inputs'][number], Tensor> {
  return new Map(graph.inputs.map((v) => [v, randomTensor(v.type, random, specials)]));
}

/** The elements as numbers. */
export function numbersOf(t: Tensor): number[] {
  const small = isFloat(t.dtype) && dtypes[t.dtype].bytes < 4;
  return Array.from(t.data as ArrayLike<number | bigint>, (x) => (small ? decodeFloat(t.dtype, Number(x)) : Number(x)));
}

/**
 * The first place where two tensors differ, or undefined. NaN equals NaN and 0 equals -0; floats may differ by `relative` of the larger, or by `absolute`.
 */
export function difference(got: Tensor, want: Tensor, relative = 0, absolute = 0): string | undefined {
  if (showType(got) !== showType(want)) return `${showType(got)}, expected ${showType(want)}`;
  const [p, q] = [numbersOf(got), numbersOf(want)];
  const at = q.findIndex((w, i) => {
    const g = p[i]!;
    if (g === w || (Number.isNaN(g) && Number.isNaN(w))) return false;
    return !isFloat(want.dtype) || !(Math.abs(g - w) <= Math.max(absolute, relative * Math.max(Math.abs(g), Math.abs(w))));
  });
  return at < 0 ? undefined : `element ${at} is ${p[at]}, expected ${q[at]}`;
}
