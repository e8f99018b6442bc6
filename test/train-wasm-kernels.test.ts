/** Kernels of backward passes against plain loops. */
import { describe, expect, test } from 'vitest';
import { emitOp } from '../backends/wasm/emitters.ts';
import { channelsLast, instantiate, rows, type Slot } from '../bench/kernel.ts';
import type { Attrs, Op } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { sizeOf, tensorType } from '../ir/type.ts';
import { eachIndex, expectKernel, featureSets, randomArray, randomNumbers } from './contract-harness.ts';

const plainOp = (name: string, slots: readonly Slot[], attrs: Attrs): Op => {
  const operands = slots.map((s) => ({ type: s.type, name: undefined }));
  return { name, operands, attrs, results: opDef(name).infer(operands.map((v) => v.type), attrs, []).map((type) => ({ type, name: undefined })), regions: [], source: [] };
};

interface Case { readonly x: readonly number[]; readonly out: number; readonly kernel: readonly number[]; readonly strides: readonly number[]; readonly pads: readonly number[]; readonly dilations: readonly number[]; readonly parts: number; readonly groups?: number; readonly algorithm?: 'winograd2' | 'winograd4' }
const plain = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1] };
const weightGradients: readonly Case[] = [
  { x: [4, 8, 6, 7], out: 12, kernel: [3, 3], ...plain, parts: 2 },
  { x: [3, 3, 9, 8], out: 5, kernel: [3, 3], ...plain, parts: 3 },
  { x: [2, 1, 5, 5], out: 8, kernel: [3, 3], strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], parts: 1 },
  { x: [4, 16, 8, 9], out: 9, kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], parts: 4 },
  { x: [2, 5, 8, 9], out: 16, kernel: [1, 1], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1], parts: 2 },
  { x: [2, 4, 11, 10], out: 8, kernel: [2, 3], strides: [1, 2], pads: [1, 0, 0, 2], dilations: [2, 3], parts: 2 },
  { x: [2, 6, 40], out: 8, kernel: [4], strides: [3], pads: [2, 1], dilations: [1], parts: 2 },
  { x: [2, 8, 20, 40], out: 16, kernel: [5, 5], strides: [1, 1], pads: [2, 2, 2, 2], dilations: [1, 1], parts: 1 },
  { x: [2, 4, 4, 4], out: 4, kernel: [3, 3], strides: [1, 1], pads: [3, 3, 3, 3], dilations: [1, 1], parts: 1 },
  { x: [4, 24, 6, 7], out: 48, kernel: [3, 3], ...plain, parts: 2, groups: 3 },
  { x: [2, 6, 9, 8], out: 10, kernel: [3, 2], strides: [2, 1], pads: [1, 0, 1, 1], dilations: [1, 2], parts: 2, groups: 2 },
  { x: [2, 5, 7, 6], out: 10, kernel: [3, 3], ...plain, parts: 1, groups: 5 },
  // In groups of few channels.
  { x: [4, 32, 6, 7], out: 32, kernel: [3, 3], ...plain, parts: 2, groups: 8 },
  { x: [2, 24, 13, 30], out: 48, kernel: [3, 3], ...plain, parts: 1, groups: 3 },
  { x: [2, 30, 9, 10], out: 20, kernel: [5, 5], strides: [2, 2], pads: [2, 2, 2, 2], dilations: [1, 1], parts: 1, groups: 5 },
  { x: [3, 12, 8, 7], out: 24, kernel: [3, 4], strides: [1, 3], pads: [4, 0, 0, 5], dilations: [2, 1], parts: 3, groups: 6 },
  { x: [2, 14, 14, 14], out: 56, kernel: [7, 7], strides: [1, 1], pads: [3, 3, 3, 3], dilations: [1, 1], parts: 2, groups: 7 },
  { x: [2, 16, 40], out: 32, kernel: [4], strides: [3], pads: [2, 1], dilations: [1], parts: 2, groups: 4 },
  { x: [2, 8, 60, 60], out: 8, kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], parts: 1, groups: 2 },
  // Depthwise.
  { x: [4, 8, 6, 7], out: 8, kernel: [3, 3], ...plain, parts: 2, groups: 8 },
  { x: [2, 7, 13, 30], out: 7, kernel: [3, 3], ...plain, parts: 1, groups: 7 },
  { x: [2, 70, 9, 10], out: 70, kernel: [5, 5], strides: [2, 2], pads: [2, 2, 2, 2], dilations: [1, 1], parts: 1, groups: 70 },
  { x: [3, 6, 8, 7], out: 6, kernel: [3, 4], strides: [1, 3], pads: [4, 0, 0, 5], dilations: [2, 1], parts: 3, groups: 6 },
  { x: [2, 12, 14, 14], out: 12, kernel: [7, 7], strides: [1, 1], pads: [3, 3, 3, 3], dilations: [1, 1], parts: 2, groups: 12 },
  { x: [2, 6, 40], out: 6, kernel: [4], strides: [3], pads: [2, 1], dilations: [1], parts: 2, groups: 6 },
  ...(['winograd2', 'winograd4'] as const).flatMap((algorithm) => [
    { x: [4, 8, 8, 8], out: 16, kernel: [3, 3], ...plain, parts: 2, algorithm },
    { x: [4, 12, 9, 6], out: 20, kernel: [3, 3], ...plain, parts: 4, algorithm },
    // Channels in blocks.
    { x: [2, 32, 5, 3], out: 24, kernel: [3, 3], strides: [1, 1], pads: [0, 2, 2, 0], dilations: [1, 1], parts: 1, algorithm },
    // More tiles than are transformed at a time.
    { x: [1, 4, 90, 92], out: 4, kernel: [3, 3], strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], parts: 1, algorithm },
  ]),
];

describe.each(featureSets)('partial sums of weight gradients, %s', (features) => {
  test.each(weightGradients)('of $x to $out channels, kernel $kernel, strides $strides, dilations $dilations, $groups groups, $parts parts, by $algorithm', (c) => {
    const { strides, pads, dilations, parts, groups = 1 } = c;
    const [batch, channels, ...size] = c.x as [number, number, ...number[]];
    const w = [c.out, channels / groups, ...c.kernel];
    const y = opDef('conv').infer([tensorType('f32', c.x), tensorType('f32', w)], { strides, pads, dilations, groups }, [])[0]!.shape;
    const next = randomNumbers(sizeOf(c.x));
    const [x, dy] = [randomArray(sizeOf(c.x), next), randomArray(sizeOf(y), next)];
    const want = new Float64Array(parts * sizeOf(w));
    eachIndex(y, ([n, o, ...h], at) => eachIndex(w.slice(1), ([i, ...t], tap) => {
      const read = h.map((v, d) => v * strides[d]! + t[d]! * dilations[d]! - pads[d]!);
      if (read.some((v, d) => v < 0 || v >= size[d]!)) return;
      const part = Math.floor(n! / (batch / parts));
      want[part * sizeOf(w) + o! * sizeOf(w.slice(1)) + tap]! += x[read.reduce((s, v, d) => s * size[d]! + v, n! * channels + Math.floor(o! / (c.out / groups)) * w[1]! + i!)]! * dy[at]!;
    }));
    const slots = [channelsLast(tensorType('f32', c.x), channels + 3, 2), channelsLast(tensorType('f32', y))];
    const op = plainOp('convWeight', slots, { strides, pads, dilations, groups, kernel: c.kernel, parts, algorithm: c.algorithm ?? 'direct' });
    expectKernel(features, op, slots, [x, dy], rows(tensorType('f32', [parts, ...w])), want, c.algorithm ? 2e-5 : 4e-6);
  });
});

const pools = [
  { x: [2, 8, 6, 4], kernel: [2, 2], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1] },
  { x: [2, 4, 7, 9], kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1] },
  { x: [1, 4, 9, 8], kernel: [3, 2], strides: [1, 3], pads: [2, 1, 2, 1], dilations: [2, 1] },
  { x: [2, 3, 5, 5], kernel: [2, 2], strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1] },
] as const;

/** The definition: NaN above all, the first of equals, a window in the padding alone gives the padding and position 0. */
function maxPool(x: Float64Array, shape: readonly number[], y: readonly number[], c: (typeof pools)[number]): { values: Float64Array; positions: Int32Array; from: Int32Array } {
  const [values, positions, from] = [new Float64Array(sizeOf(y)), new Int32Array(sizeOf(y)), new Int32Array(sizeOf(y)).fill(-1)];
  eachIndex(y, ([n, ch, oh, ow], at) => {
    values[at] = -Infinity;
    eachIndex(c.kernel, ([ky, kx], tap) => {
      const [h, v] = [oh! * c.strides[0] + ky! * c.dilations[0] - c.pads[0], ow! * c.strides[1] + kx! * c.dilations[1] - c.pads[1]];
      if (h < 0 || v < 0 || h >= shape[2]! || v >= shape[3]!) return;
      const p = ((n! * shape[1]! + ch!) * shape[2]! + h) * shape[3]! + v;
      const [a, b] = [x[p]!, values[at]!];
      if (from[at]! >= 0 && !(a > b || (Number.isNaN(a) && !Number.isNaN(b)))) return;
      [values[at], positions[at], from[at]] = [a, tap, p];
    });
  });
  return { values, positions, from };
}

describe.each(featureSets)('pools with positions over channels side by side, %s', (features) => {
  test.each(pools)('$x, kernel $kernel, strides $strides, pads $pads, dilations $dilations', (c) => {
    const attrs = { kernel: c.kernel, strides: c.strides, pads: c.pads, dilations: c.dilations };
    const type = tensorType('f32', c.x);
    const y = opDef('maxPool').infer([type], attrs, [])[0]!.shape;
    const next = randomNumbers(7);
    // Few values, so that many are equal; some are NaN or the lowest of all.
    const x = Float64Array.from({ length: sizeOf(c.x) }, (_, i) => (i % 23 === 5 ? NaN : i % 7 === 3 ? -Infinity : Math.round(3 * next())));
    const want = maxPool(x, c.x, y, c);
    const slots = [channelsLast(type), channelsLast(tensorType('f32', y)), channelsLast(tensorType('i32', y))] as const;
    const run = (op: Op, operands: readonly Slot[], results: readonly Slot[], data: readonly ArrayLike<number>[]): Float32Array[] => {
      const kernel = instantiate(features, emitOp, op, operands, results);
      operands.forEach((s, i) => {
        const memory = kernel.memory(i);
        const view = s.type.dtype === 'i32' ? new Int32Array(memory.buffer, memory.byteOffset, memory.length) : memory;
        eachIndex(s.type.shape, (index, at) => (view[index.reduce((n, v, k) => n + v * s.strides[k]!, 0)] = data[i]![at]!));
      });
      for (let chunk = kernel.code.chunks - 1; chunk >= 0; chunk--) kernel.run(chunk, chunk + 1);
      return results.map((s, i) => {
        const memory = kernel.memory(operands.length + i);
        const out = new Float32Array(sizeOf(s.type.shape));
        const view = s.type.dtype === 'i32' ? new Int32Array(memory.buffer, memory.byteOffset, memory.length) : memory;
        eachIndex(s.type.shape, (index, at) => (out[at] = view[index.reduce((n, v, k) => n + v * s.strides[k]!, 0)]!));
        return out;
      });
    };
    const [values, positions] = run(plainOp('maxPool', [slots[0]], attrs), [slots[0]], [slots[1], slots[2]], [x]);
    expect([...values!]).toEqual([...want.values]);
    expect([...positions!]).toEqual([...want.positions]);

    const dy = randomArray(sizeOf(y), next);
    const dx = new Float64Array(sizeOf(c.x));
    want.from.forEach((p, i) => p >= 0 && (dx[p]! += dy[i]!));
    const [got] = run(plainOp('maxPoolGrad', [slots[1], slots[2]], { ...attrs, size: c.x.slice(2) }), [slots[1], slots[2]], [slots[0]], [dy, want.positions]);
    got!.forEach((v, i) => expect(v).toBeCloseTo(dx[i]!, 5));
  });
});
