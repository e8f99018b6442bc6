/** Runs one contraction kernel on random data and compares it with plain float64 loops. */
import { expect } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { contraction } from '../backends/wasm/contract/index.ts';
import { instantiate, type Slot } from '../bench/kernel.ts';
import { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { rowMajor, sizeOf, type TensorType } from '../ir/type.ts';

export const featureSets: readonly Features[] = ['plain', 'simd', 'relaxed', 'wide'];

/** A seeded generator of numbers in (-1, 1), rounded to float32. */
export function randomNumbers(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return Math.fround(s / 2147483648 - 1);
  };
}
export const randomArray = (n: number, next: () => number): Float64Array => Float64Array.from({ length: n }, next);

/** Calls `visit` with every index of a shape, row-major. */
export function eachIndex(shape: readonly number[], visit: (index: readonly number[], at: number) => void): void {
  const index = shape.map(() => 0);
  for (let at = 0; at < sizeOf(shape); at++) {
    visit(index, at);
    for (let i = shape.length - 1; i >= 0 && ++index[i]! === shape[i]; i--) index[i] = 0;
  }
}

const place = (slot: Slot, index: readonly number[]): number => slot.offset + index.reduce((n, v, i) => n + v * slot.strides[i]!, 0);

/** The elements of a row-major array at an index that broadcasts to its shape. */
export function broadcastAt(shape: readonly number[], index: readonly number[]): number {
  const strides = rowMajor(shape);
  const skip = index.length - shape.length;
  return shape.reduce((n, d, i) => n + (d === 1 ? 0 : index[i + skip]! * strides[i]!), 0);
}

/** Packs a weight through the op's own reference. */
export function pack(name: 'packConv' | 'packMatmul', type: TensorType, data: Float64Array, attrs: Record<string, string | number>): { readonly type: TensorType; readonly data: Float64Array } {
  const def = opDef(name);
  const results = def.infer([type], attrs, []);
  const [packed] = def.reference([{ ...type, data }], attrs, results, [], () => []);
  return { type: results[0]!, data: Float64Array.from(packed!.data as Float64Array, Math.fround) };
}

/** A fused contraction: the root's op over its operands, then `epilogue` on further operands. */
export function fuse(root: { readonly name: string; readonly attrs: Op['attrs']; readonly operands: readonly TensorType[] }, extra: readonly TensorType[], epilogue: (b: Builder, y: Value, extra: readonly Value[]) => Value): Op {
  const inner = new Builder('body');
  const inputs = [...root.operands, ...extra].map((t) => inner.input(t));
  const y = inner.one(root.name, inputs.slice(0, root.operands.length), root.attrs);
  const out = epilogue(inner, y, inputs.slice(root.operands.length));
  const region: Graph = inner.finish([{ name: 'y', value: out }]);
  return { name: 'fused', operands: [...root.operands, ...extra].map((type) => ({ type, name: undefined })), attrs: { kind: 'contract' }, results: [{ type: out.type, name: undefined }], regions: [region], source: [] };
}

/**
 * Runs the kernel and compares every element with `want`, within `tolerance` of the largest magnitude of it and of the sums before the epilogue: rounding
 * errors of k terms grow as √k · 2⁻²⁴ of that, and k is at most 300 here. Memory that the result does not own must stay as it
 * was. Chunks run backwards.
 */
export function expectKernel(features: Features, op: Op, operands: readonly Slot[], data: readonly Float64Array[], result: Slot, want: Float64Array, tolerance = 2e-6, sums: Float64Array = want): void {
  const kernel = instantiate(features, contraction, op, operands, [result]);
  operands.forEach((slot, i) => {
    const memory = kernel.memory(i);
    memory.fill(NaN);
    eachIndex(slot.type.shape, (index, at) => (memory[place(slot, index)] = data[i]![at]!));
  });
  const memory = kernel.memory(operands.length);
  memory.fill(777);
  for (let chunk = kernel.code.chunks - 1; chunk >= 0; chunk--) kernel.run(chunk, chunk + 1);
  const scale = [...want, ...sums].reduce((m, v) => Math.max(m, Math.abs(v)), 1e-3);
  let worst = 0;
  const owned = new Set<number>();
  eachIndex(result.type.shape, (index, at) => {
    const p = place(result, index);
    owned.add(p);
    const error = Math.abs(memory[p]! - want[at]!);
    worst = Math.max(worst, Number.isNaN(error) ? Infinity : error);
  });
  expect(worst / scale).toBeLessThanOrEqual(tolerance);
  memory.forEach((v, i) => {
    if (!owned.has(i) && v !== 777) throw new Error(`element ${i} is not part of the result and was overwritten with ${v}`);
  });
}
