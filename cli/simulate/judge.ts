/** Inputs to try a tile program on, and how far its results are from the interpreter's. */
import { UserError } from '../../ir/diagnostic.ts';
import { generator } from '../../ir/generator.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { encodeFloat } from '../../ir/number.ts';
import { dtypes, isFloat, sameShape, showType, sizeOf, type Tensor, type TensorType } from '../../ir/type.ts';
import { numbersOf } from '../print.ts';

/** The largest difference of two elements, and that over the largest magnitude of the reference; infinite where one of the two is NaN. */
export interface Difference { readonly largest: number; readonly relative: number }

/** How far a tensor is from the reference. */
export function differenceOf(got: Tensor, want: Tensor): Difference {
  const [a, b] = [numbersOf(got), numbersOf(want)];
  let [largest, magnitude] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (Object.is(x, y) || x === y) continue;
    const d = Math.abs(x - y);
    largest = Math.max(largest, Number.isNaN(d) ? Infinity : d);
  }
  for (const y of b) if (Number.isFinite(y)) magnitude = Math.max(magnitude, Math.abs(y));
  return { largest, relative: largest === 0 ? 0 : largest / Math.max(magnitude, Number.MIN_VALUE) };
}

const rate = 0.01;

/** The inputs of a graph: those that are given, in the dtype that the graph stores them in, and made-up ones: floats in -1 to 1, integers 0 and 1, a learning rate of 0.01. */
export function madeUp(graph: Graph, given: Readonly<Record<string, Tensor>>, seed: number): Record<string, Tensor> {
  const random = generator(seed);
  return Object.fromEntries(graph.inputs.map((v) => {
    const name = v.name ?? '';
    const tensor = given[name];
    if (!tensor) return [name, name === 'lr' && sizeOf(v.type.shape) === 1 ? filled(v.type, () => rate) : filled(v.type, () => (isFloat(v.type.dtype) ? 2 * random() - 1 : Math.floor(2 * random())))];
    return [name, asInput(tensor, v)];
  }));
}

/** A tensor that is given for an input, in the dtype that the graph stores it in. Another shape is a UserError. */
export function asInput(tensor: Tensor, { name = '', type }: Value): Tensor {
  if (!sameShape(tensor.shape, type.shape)) throw new UserError(`input ${name} is ${showType(tensor)}, the program takes ${showType(type)}; give --batch or --dim for it`);
  if (tensor.dtype === type.dtype) return tensor;
  const numbers = numbersOf(tensor);
  return filled(type, (i) => numbers[i]!);
}

function filled(type: TensorType, at: (i: number) => number): Tensor {
  const data = new dtypes[type.dtype].array(sizeOf(type.shape));
  for (let i = 0; i < data.length; i++) {
    const x = at(i);
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[i] = BigInt(x);
    else data[i] = isFloat(type.dtype) && dtypes[type.dtype].bytes < 4 ? encodeFloat(type.dtype, x) : x;
  }
  return { ...type, data };
}
