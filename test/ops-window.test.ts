/** Values of pools and resampling: official cases, the definition as plain loops, ties and NaN. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import type { Attrs } from '../ir/graph.ts';
import { rowMajor, sizeOf, tensorType, type Tensor } from '../ir/type.ts';
import { geometries, type Geometry } from './gradient-cases/spatial.ts';
import { planes, tables } from './gradient-cases/window.ts';
import { tensor, tensors } from './gradient-harness.ts';
import { official, type OfficialCase } from './official.ts';
import { inferred, run, values } from './run-op.ts';

const window = (kernel: number[], strides = kernel.map(() => 1), pads = [...kernel, ...kernel].map(() => 0), dilations = kernel.map(() => 1)): Attrs => ({ kernel, strides, pads, dilations });
const max = (name: string, attrs: Attrs): OfficialCase => ({ name: `maxpool_${name}`, op: 'maxPool', attrs });
/** An average pool divides the sum over a window by the number of taps that it counts: all of them, or those that are not padding. */
const average = (name: string, attrs: Attrs, countPadding = true): OfficialCase => ({
  name: `averagepool_${name}`,
  op: 'sumPool',
  attrs,
  results([sums], [x]) {
    const [counts] = run('sumPool', [tensor('f32', x!.shape, new Array<number>(x!.data.length).fill(1))], attrs);
    const taps = sizeOf(attrs['kernel'] as number[]);
    return [tensor('f32', sums!.shape, Array.from(sums!.data as Float32Array, (s, i) => s / (countPadding ? taps : (counts!.data[i] as number))))];
  },
});

/** How Resize weighs the elements around a coordinate: offsets of the taps from its floor, and weights by its fraction. */
const kernels: Readonly<Record<string, { readonly from: number; readonly weights: (fraction: number) => number[] }>> = {
  linear: { from: 0, weights: (t) => [1 - t, t] },
  // Keys' cubic convolution with a = -0.75.
  cubic: { from: -1, weights: (t) => [1 + t, t, 1 - t, 2 - t].map((d) => (d <= 1 ? (1.25 * d - 2.25) * d * d + 1 : ((-0.75 * d + 3.75) * d - 6) * d + 3)) },
};

/** Resize in half_pixel coordinates, each axis by its own scale; elements beyond an edge are the edge's. */
function resize(name: string, kind: 'linear' | 'cubic', input: readonly [number, number], scale: number): OfficialCase {
  const table = (axis: number): Attrs => {
    const length = input[axis]!;
    const size = Math.floor(length * scale);
    const { from, weights } = kernels[kind]!;
    const at = Array.from({ length: size }, (_, h) => (h + 0.5) / scale - 0.5);
    const list = at.map((c) => weights(c - Math.floor(c)));
    const indices = at.flatMap((c, h) => list[h]!.map((_, t) => Math.min(Math.max(Math.floor(c) + from + t, 0), length - 1)));
    return { axis: axis + 2, size, taps: list[0]!.length, indices, weights: list.flat() };
  };
  return { name: `resize_${name}`, op: 'resample', attrs: table(0), operands: ([x]) => [x!], results: ([rows]) => run('resample', [rows!], table(1)) };
}

official([
  resize('upsample_scales_linear', 'linear', [2, 2], 2),
  resize('downsample_scales_linear', 'linear', [2, 4], 0.6),
  resize('upsample_scales_cubic', 'cubic', [4, 4], 2),
  resize('downsample_scales_cubic', 'cubic', [4, 4], 0.8),
  max('1d_default', window([2])),
  // Where ceil_mode adds a window, the padding behind the input grows.
  max('2d_ceil', window([3, 3], [2, 2], [0, 0, 1, 1])),
  max('2d_default', window([2, 2])),
  max('2d_dilations', window([2, 2], [1, 1], [0, 0, 0, 0], [2, 2])),
  max('2d_pads', window([3, 3], [1, 1], [2, 2, 2, 2])),
  max('2d_precomputed_pads', window([5, 5], [1, 1], [2, 2, 2, 2])),
  max('2d_precomputed_same_upper', window([3, 3], [2, 2], [1, 1, 1, 1])),
  max('2d_precomputed_strides', window([2, 2], [2, 2])),
  max('2d_same_lower', window([2, 2], [1, 1], [1, 1, 0, 0])),
  max('2d_same_upper', window([2, 2], [1, 1], [0, 0, 1, 1])),
  max('2d_strides', window([5, 5], [3, 3])),
  max('2d_uint8', window([5, 5], [1, 1], [2, 2, 2, 2])),
  max('3d_default', window([2, 2, 2])),
  max('3d_dilations', window([2, 2, 2], [1, 1, 1], [0, 0, 0, 0, 0, 0], [2, 2, 2])),
  max('3d_dilations_use_ref_impl_large', window([5, 5, 5], [3, 3, 3], [0, 0, 0, 1, 1, 1], [2, 2, 2])),
  average('1d_default', window([2])),
  average('2d_ceil', window([3, 3], [2, 2], [0, 0, 1, 1]), false),
  average('2d_default', window([2, 2])),
  average('2d_dilations', window([2, 2], [1, 1], [0, 0, 0, 0], [2, 2])),
  average('2d_pads', window([3, 3], [1, 1], [2, 2, 2, 2]), false),
  average('2d_pads_count_include_pad', window([3, 3], [1, 1], [2, 2, 2, 2])),
  average('2d_precomputed_pads', window([5, 5], [1, 1], [2, 2, 2, 2]), false),
  average('2d_precomputed_strides', window([2, 2], [2, 2])),
  average('2d_same_lower', window([2, 2], [1, 1], [1, 1, 0, 0]), false),
  average('2d_strides', window([5, 5], [3, 3])),
  average('3d_dilations_small', window([2, 2, 2], [1, 1, 1], [0, 0, 0, 0, 0, 0], [2, 2, 2])),
]);

function* places(shape: readonly number[]): Generator<number[]> {
  for (let i = 0; i < sizeOf(shape); i++) yield rowMajor(shape).map((s, d) => Math.floor(i / s) % shape[d]!);
}

/** For each window of a plane its taps: number within the window, and element of the input (undefined in the padding). */
function taps(g: Geometry): { tap: number; at: number | undefined }[][] {
  return [...places(g.out)].map((h) => [...places(g.kernel)].map((y, tap) => {
    const p = h.map((v, d) => v * g.sweep.strides[d]! + y[d]! * g.sweep.dilations[d]! - g.sweep.pads[d]!);
    const inside = p.every((v, d) => v >= 0 && v < g.input[d]!);
    return { tap, at: inside ? p.reduce((n, v, d) => n * g.input[d]! + v, 0) : undefined };
  }));
}

describe('pools equal their definition', () => {
  const instance = fc.tuple(geometries, planes).chain(([g, p]) => tensors([...p, ...g.input], fc.integer({ min: -4, max: 4 })).map((x) => ({ g, p, x })));
  const attrsOf = (g: Geometry): Attrs => ({ kernel: g.kernel, ...g.sweep });
  const plane = (t: Tensor, i: number, size: number): number[] => values([t]).slice(i * size, (i + 1) * size);

  it('maxPool, the first of equal elements', () => fc.assert(fc.property(instance, ({ g, p, x }) => {
    const [best, where] = run('maxPool', [x], attrsOf(g));
    for (let i = 0; i < sizeOf(p); i++) {
      const input = plane(x, i, sizeOf(g.input));
      const found = taps(g).map((ts) => ts.filter((t) => t.at !== undefined).reduce((b, t) => (input[t.at!]! > b.v ? { v: input[t.at!]!, tap: t.tap } : b), { v: -Infinity, tap: 0 }));
      expect(plane(best!, i, found.length)).toEqual(found.map((f) => f.v));
      expect(plane(where!, i, found.length)).toEqual(found.map((f) => f.tap));
    }
  }), { numRuns: 80, seed: 1 }));

  it('maxPoolGrad gives each window\'s cotangent to the element it kept', () => fc.assert(fc.property(instance, ({ g, p, x }) => {
    const where = run('maxPool', [x], attrsOf(g))[1]!;
    const dy = tensor('f64', where.shape, Array.from({ length: where.data.length }, (_, i) => i + 1));
    const dx = run('maxPoolGrad', [dy, where], { ...attrsOf(g), size: g.input });
    for (let i = 0; i < sizeOf(p); i++) {
      const want = new Array<number>(sizeOf(g.input)).fill(0);
      taps(g).forEach((ts, o) => {
        const { at } = ts[plane(where, i, sizeOf(g.out))[o]!]!;
        if (at !== undefined) want[at]! += plane(dy, i, sizeOf(g.out))[o]!;
      });
      expect(plane(dx[0]!, i, want.length)).toEqual(want);
    }
  }), { numRuns: 60, seed: 1 }));

  it('sumPool and its transpose', () => fc.assert(fc.property(instance, ({ g, p, x }) => {
    const [y] = run('sumPool', [x], attrsOf(g));
    const [back] = run('sumPoolGrad', [y!], { ...attrsOf(g), size: g.input });
    for (let i = 0; i < sizeOf(p); i++) {
      const input = plane(x, i, sizeOf(g.input));
      const sums = taps(g).map((ts) => ts.reduce((s, t) => s + (t.at === undefined ? 0 : input[t.at]!), 0));
      expect(plane(y!, i, sums.length)).toEqual(sums);
      const want = new Array<number>(input.length).fill(0);
      taps(g).forEach((ts, o) => ts.forEach((t) => t.at !== undefined && (want[t.at]! += sums[o]!)));
      expect(plane(back!, i, want.length)).toEqual(want);
    }
  }), { numRuns: 60, seed: 1 }));

  it('maxPool keeps NaN, finds -Infinity before padding, and gives the lowest value where there is padding alone', () => {
    const [best, where] = run('maxPool', [tensor('f32', [1, 1, 4], [1, NaN, 3, -Infinity])], window([2], [2], [2, 2]));
    expect([...best!.data]).toEqual([-Infinity, NaN, 3, -Infinity]);
    expect([...where!.data]).toEqual([0, 1, 0, 0]);
    const lone = run('maxPool', [tensor('f32', [1, 1, 1], [-Infinity])], window([3], [1], [2, 0]));
    expect([...lone[1]!.data]).toEqual([2]);
    expect(values(run('maxPool', [tensor('i8', [1, 1, 1], [-5])], window([1], [1], [1, 1])))).toEqual([-128, -5, -128]);
  });
});

describe('resample', () => {
  it('equals its definition', () => fc.assert(fc.property(tables.chain(({ shape, attrs }) => tensors(shape, fc.integer({ min: -4, max: 4 })).map((x) => ({ x, attrs }))), ({ x, attrs }) => {
    const [y] = run('resample', [x], attrs);
    const strides = rowMajor(x.shape);
    const want = [...places(y!.shape)].map((at) => Array.from({ length: attrs.taps }, (_, t) => at[attrs.axis]! * attrs.taps + t)
      .reduce((sum, e) => sum + attrs.weights[e]! * (x.data[strides.reduce((n, s, d) => n + s * (d === attrs.axis ? attrs.indices[e]! : at[d]!), 0)] as number), 0));
    values([y!]).forEach((v, i) => expect(v).toBeCloseTo(want[i]!, 12));
  }), { numRuns: 80, seed: 1 }));

  it('moves elements of every type, large integers and NaN too, and does not read a tap of weight 0', () => {
    const attrs = { axis: 0, size: 3, taps: 1, indices: [1, 1, 0], weights: [1, 1, 1] };
    expect([...run('resample', [{ dtype: 'i64', shape: [2], data: BigInt64Array.of(2n ** 62n + 1n, -1n) }], attrs)[0]!.data]).toEqual([-1n, -1n, 2n ** 62n + 1n]);
    expect(values(run('resample', [tensor('f32', [2], [NaN, 2])], attrs))).toEqual([2, 2, NaN]);
    expect(values(run('resample', [tensor('f32', [2], [Infinity, 2])], { axis: 0, size: 1, taps: 2, indices: [0, 1], weights: [0, 0.5] }))).toEqual([1]);
  });
});

describe('what does not fit is refused with the reason', () => {
  const f = (...shape: number[]) => tensorType('f32', shape);
  const table = { axis: 0, size: 2, taps: 1, indices: [0, 1], weights: [1, 1] };
  it.each([
    ['maxPool', [f(1, 1, 2)], window([3]), 'a window that reaches over 3 elements does not fit into 2 with padding 0 and 0'],
    ['maxPool', [f(2, 2)], window([1]), 'must have rank 3 to 5'],
    ['maxPool', [f(1, 1, 4)], window([2, 2]), 'kernel=[2,2] must hold a positive integer for each of 1'],
    ['maxPool', [tensorType('bool', [1, 1, 4])], window([2]), 'is not of a float or integer type'],
    ['maxPoolGrad', [f(1, 1, 3), tensorType('i32', [1, 1, 2])], { ...window([2]), size: [4] }, 'positions are i32[1,1,2], expected i32[1,1,3]'],
    ['maxPoolGrad', [f(1, 1, 3), tensorType('i32', [1, 1, 3])], { ...window([2]), size: [5] }, 'the windows give spatial sizes [4], but the operand has [3]'],
    ['sumPoolGrad', [f(1, 1, 3)], { ...window([2]), size: [4, 4] }, 'size=[4,4] must hold a positive integer for each of 1'],
    ['resample', [f(2)], { ...table, indices: [0, 2] }, 'index 2 is outside axis 0 of f32[2]'],
    ['resample', [f(2)], { ...table, weights: [1] }, 'weights has 1 entries, expected 2 · 1'],
    ['resample', [tensorType('i32', [2])], { ...table, weights: [1, 2] }, 'is not of a float type'],
    ['resample', [f(2)], { ...table, axis: 1 }, 'axis 1 is not an axis of f32[2]'],
  ] as const)('%s %j %j', (op, types, attrs, message) => {
    expect(() => inferred(op, types, attrs)).toThrow(IllTyped);
    expect(() => inferred(op, types, attrs)).toThrow(message);
  });
});
