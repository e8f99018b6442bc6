/** The bytes that kernels say their vertices take, against those that they touch. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Attrs, Op } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { broughtLines, touchedBytes, tracedKernel } from './kernel-trace.ts';
import { random } from './wasm-harness.ts';

const kib = 1024;

function opOf(name: string, operands: readonly Tensor[], attrs: Attrs = {}): Op {
  const b = new Builder('op');
  b.op(name, operands.map((t) => b.input({ dtype: t.dtype, shape: t.shape })), attrs);
  return b.ops.at(-1)!;
}

const f32 = (...shape: number[]): Tensor => random(shape, shape.length);
const indices = (count: number, below: number): Tensor => ({ dtype: 'i64', shape: [count], data: BigInt64Array.from({ length: count }, (_, i) => BigInt((i * 7919) % below)) });

describe('a chunk touches no more bytes than its kernel says, which are no more than a tile has', () => {
  const cases: readonly (readonly [name: string, op: string, operands: readonly Tensor[], attrs: Attrs])[] = [
    ['an elementwise op', 'add', [f32(60, 700), f32(60, 700)], {}],
    ['an operand that repeats', 'mul', [f32(60, 700), f32(700)], {}],
    ['a conversion', 'cast', [f32(60, 700)], { to: 'f64' }],
    ['a transpose', 'transpose', [f32(160, 300)], { perm: [1, 0] }],
    ['padding', 'pad', [f32(40, 50, 20)], { lo: [1, 2, 0], hi: [0, 1, 3], mode: 'constant', value: 0 }],
    ['sums along rows', 'reduceSum', [f32(200, 300)], { axes: [1] }],
    ['sums down columns', 'reduceSum', [f32(100, 500)], { axes: [0] }],
    ['rows that are chosen', 'gather', [f32(300, 70), indices(400, 300)], { axis: 0 }],
    ['the place of the largest', 'argMax', [f32(200, 300)], { axis: 1, last: false }],
    ['running sums', 'cumSum', [f32(200, 300)], { axis: 1, exclusive: false, reverse: false }],
    ['the largest of each row', 'topK', [f32(200, 300)], { axis: 1, k: 20, largest: true }],
  ];
  it.each(cases)('%s', (_, name, operands, attrs) => {
    const limit = 16 * kib;
    const kernel = tracedKernel(opOf(name, operands, attrs), operands, { tiles: 16, bytesPerTile: limit });
    const { chunks, vertexBytes } = kernel.code;
    expect(chunks).toBeGreaterThan(3);
    expect(vertexBytes).toBeLessThanOrEqual(limit);
    const touched = Array.from({ length: chunks }, (__, chunk) => touchedBytes(kernel, chunk));
    expect(Math.max(...touched)).toBeLessThanOrEqual(vertexBytes!);
    // Not a bound that holds of everything: the largest chunk takes a good part of it.
    expect(Math.max(...touched)).toBeGreaterThan(vertexBytes! / 3);
  });
});

describe('products', () => {
  /** A product of constant weights, packed. */
  function product(rows: number, k: number, columns: number): { op: Op; operands: Tensor[] } {
    const operands = [f32(rows, k), f32(Math.ceil(columns / 8) * 8 * k)];
    const b = new Builder('op');
    const [x, w] = operands.map((t) => b.input({ dtype: 'f32', shape: t.shape }));
    b.op('contractPacked', [x!, w!], { spec: 'mk,kn->mn', bShape: [k, columns] });
    return { op: b.ops.at(-1)!, operands };
  }

  it.each([[96, 64, 512, 32 * kib], [300, 32, 256, 16 * kib], [40, 128, 384, 64 * kib]])('of %i rows, a sum of %i and %i columns bring each weight into a tile of %i bytes once a chunk', (rows, k, columns, bytesPerTile) => {
    const { op, operands } = product(rows, k, columns);
    const kernel = tracedKernel(op, operands, { tiles: 1, bytesPerTile });
    const { chunks, vertexBytes } = kernel.code;
    expect(vertexBytes).toBeLessThanOrEqual(bytesPerTile);
    const weights = [kernel.pointers[1]!, kernel.pointers[2]!] as const;
    for (let chunk = 0; chunk < chunks; chunk++) {
      const { brought, distinct } = broughtLines(kernel, chunk, bytesPerTile, weights);
      expect(brought).toBe(distinct);
      // A tile that is too small for a vertex brings them again.
      expect(broughtLines(kernel, chunk, vertexBytes! / 4, weights).brought).toBeGreaterThan(2 * distinct);
    }
  });
});
