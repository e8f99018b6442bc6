/** Checks an op's gradient against central differences of its reference, on random operands. */
import fc from 'fast-check';
import { expect } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Attrs, Graph, Op, Value } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { dtypes, isFloat, showType, sizeOf, type DType, type Tensor } from '../ir/type.ts';

/** One application of an op. Float operands are f64, so that differences of 1e-5 mean something. */
export interface Instance {
  readonly operands: readonly Tensor[];
  readonly attrs?: Attrs;
}

export interface GradientCase {
  readonly op: string;
  /** Says which case it is, where an op has several. */
  readonly note?: string;
  /** Random operands, away from kinks and poles. */
  readonly instance: fc.Arbitrary<Instance>;
  /** Operands that have no gradient by definition though they are floats. */
  readonly constant?: readonly number[];
  readonly runs?: number;
}

/** Throws where a gradient differs from central differences, or has another type than its operand. */
export function checkGradient(c: GradientCase): void {
  fc.assert(fc.property(c.instance, fc.infiniteStream(between(-1, 1)), (instance, stream) => compare(c, instance, stream)), { numRuns: c.runs ?? 25, seed: 7 });
}

/** A random shape of up to `rank` axes, each of `min` to `max` elements. */
export const shapes = (rank = 3, max = 3, min = 1): fc.Arbitrary<number[]> => fc.array(fc.integer({ min, max }), { maxLength: rank });

/** A tensor with values from a generator. */
export function tensors(shape: readonly number[], value: fc.Arbitrary<number>, dtype: DType = 'f64'): fc.Arbitrary<Tensor> {
  const n = sizeOf(shape);
  return fc.array(value, { minLength: n, maxLength: n }).map((xs) => tensor(dtype, shape, xs));
}

/** A tensor whose values all differ by at least 0.05, in random order, between -span and span: no ties near a maximum. */
export function distinct(shape: readonly number[]): fc.Arbitrary<Tensor> {
  const n = sizeOf(shape);
  return fc.shuffledSubarray([...new Array<number>(n).keys()], { minLength: n, maxLength: n }).map((order) => tensor('f64', shape, order.map((k) => (k - n / 2) * 0.1 + 0.03)));
}

/** A tensor of numbers, in any dtype that stores them as they are. */
export function tensor(dtype: DType, shape: readonly number[], xs: readonly number[]): Tensor {
  const data = new dtypes[dtype].array(xs.length);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) xs.forEach((x, i) => (data[i] = BigInt(x)));
  else data.set(xs);
  return { dtype, shape, data };
}

/** Numbers spread evenly over [lo, hi] (fast-check's doubles are mostly tiny, and tiny operands hide wrong gradients). */
export const between = (lo: number, hi: number): fc.Arbitrary<number> => fc.integer({ min: 0, max: 10_000 }).map((k) => lo + ((hi - lo) * k) / 10_000);

function compare(c: GradientCase, instance: Instance, stream: Iterator<number>): void {
  const { graph, results } = application(c.op, instance);
  // A cotangent for every subset of float results that an op may see: all, and each one alone.
  const float = results.flatMap((r, i) => (isFloat(r.type.dtype) ? [i] : []));
  const subsets = float.length > 1 ? [float, ...float.map((i) => [i])] : [float];
  for (const subset of subsets) {
    const weights = results.map((r, i) => (subset.includes(i) ? tensor('f64', r.type.shape, Array.from({ length: sizeOf(r.type.shape) }, () => stream.next().value as number)) : undefined));
    const loss = (operands: readonly Tensor[]): number => {
      const { outputs } = evaluate(graph, new Map(graph.inputs.map((v, i) => [v, operands[i]!])));
      return weights.reduce((sum, w, i) => sum + (w ? dot(w, outputs.get(`r${i}`)!) : 0), 0);
    };
    const gradients = backward(c.op, instance, weights);
    instance.operands.forEach((x, k) => {
      const found = gradients[k];
      if (!isFloat(x.dtype) || c.constant?.includes(k)) {
        expect(found, `${c.op}: operand ${k} has no gradient`).toBeUndefined();
        return;
      }
      x.data.forEach((value, i) => {
        const at = value as number;
        const h = 1e-5 * Math.max(1, Math.abs(at));
        const shifted = (d: number): number => loss(instance.operands.map((y, j) => (j === k ? { ...y, data: (y.data as Float64Array).with(i, at + d) } : y)));
        const expected = (shifted(h) - shifted(-h)) / (2 * h);
        const got = found ? (found.data[i] as number) : 0;
        // Truncation is h² · f'''/6 and rounding 2^-53 · |f| / h: both far below for the values that cases use.
        const tolerance = 2e-6 * Math.max(1, Math.abs(expected));
        if (!(Math.abs(got - expected) <= tolerance)) {
          throw new Error(`${c.op} ${JSON.stringify(instance.attrs ?? {})} operand ${k} ${showType(x)} element ${i}: gradient ${got}, central difference ${expected}`);
        }
      });
    });
  }
}

function application(name: string, { operands, attrs = {} }: Instance): { graph: Graph; results: readonly Value[]; op: Op } {
  const b = new Builder('forward');
  const inputs = operands.map((x, i) => b.input({ dtype: x.dtype, shape: x.shape }, `x${i}`));
  const results = b.op(name, inputs, attrs);
  return { graph: b.finish(results.map((value, i) => ({ name: `r${i}`, value }))), results, op: b.ops[0]! };
}

/** The gradient of Σ weights · results for each operand. */
function backward(name: string, { operands, attrs = {} }: Instance, weights: readonly (Tensor | undefined)[]): (Tensor | undefined)[] {
  const b = new Builder('backward');
  const inputs = operands.map((x, i) => b.input({ dtype: x.dtype, shape: x.shape }, `x${i}`));
  b.op(name, inputs, attrs);
  const op = b.ops[0]!;
  const cotangents = weights.map((w) => w && b.constant({ dtype: 'f64', shape: w.shape, data: w.data }));
  const { grad } = opDef(name);
  if ('none' in grad) throw new Error(`${name} declares no gradient: ${grad.none}`);
  const gradients = grad.build(b, op, cotangents);
  expect(gradients.length, `${name}: one gradient slot an operand`).toBe(operands.length);
  gradients.forEach((g, i) => g && expect(showType(g.type), `${name}: type of the gradient of operand ${i}`).toBe(showType(inputs[i]!.type)));
  const graph = b.finish(gradients.flatMap((value, i) => (value ? [{ name: `g${i}`, value }] : [])));
  const { outputs } = evaluate(graph, new Map(inputs.map((v, i) => [v, operands[i]!])));
  return gradients.map((_, i) => outputs.get(`g${i}`));
}

function dot(a: Tensor, b: Tensor): number {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) sum += (a.data[i] as number) * (b.data[i] as number);
  return sum;
}
