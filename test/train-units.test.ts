/** Units of weights: which axes make one output feature, by how the graph uses the weight. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Value } from '../ir/graph.ts';
import { inferUnits, sameUnit } from '../passes/train/units.ts';

interface Case {
  readonly name: string;
  readonly shape: readonly number[];
  /** Uses the weight; x makes inputs. */
  readonly use: (b: Builder, w: Value, x: (...shape: number[]) => Value) => Value | readonly Value[];
  /** undefined: the weight has no unit. */
  readonly unit: { readonly shape?: readonly number[]; readonly axes: readonly number[] } | undefined;
}

const plainConv = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1] };
const cases: readonly Case[] = [
  { name: 'convolution: the output channel', shape: [6, 4, 3, 3], use: (b, w, x) => b.one('conv', [x(2, 4, 8, 8), w], plainConv), unit: { axes: [1, 2, 3] } },
  { name: 'grouped convolution', shape: [6, 2, 3, 3], use: (b, w, x) => b.one('conv', [x(2, 4, 8, 8), w], { ...plainConv, groups: 2 }), unit: { axes: [1, 2, 3] } },
  { name: 'depthwise convolution', shape: [5, 1, 3, 3], use: (b, w, x) => b.one('conv', [x(2, 5, 8, 8), w], { ...plainConv, groups: 5 }), unit: { axes: [1, 2, 3] } },
  { name: 'one-dimensional convolution', shape: [6, 4, 3], use: (b, w, x) => b.one('conv', [x(2, 4, 9), w], { strides: [2], pads: [1, 1], dilations: [1] }), unit: { axes: [1, 2] } },
  { name: 'transposed convolution: axis 1', shape: [6, 4, 2, 2], use: (b, w, x) => b.one('convData', [x(2, 6, 5, 5), w], { ...plainConv, strides: [2, 2], size: [10, 10] }), unit: { axes: [0, 2, 3] } },
  { name: 'transposed convolution with groups: group and axis 1', shape: [6, 4, 3, 3], use: (b, w, x) => b.one('convData', [x(2, 6, 5, 5), w], { strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 2, size: [9, 9] }), unit: { shape: [2, 3, 4, 3, 3], axes: [1, 3, 4] } },
  { name: 'Gemm with transB', shape: [7, 3], use: (b, w, x) => b.contract('mk,nk->mn', x(2, 3), w), unit: { axes: [1] } },
  { name: 'Gemm without transB', shape: [3, 7], use: (b, w, x) => b.contract('mk,kn->mn', x(2, 3), w), unit: { axes: [0] } },
  { name: 'MatMul with the weight on the left', shape: [7, 3], use: (b, w, x) => b.contract('mk,kn->mn', w, x(3, 2)), unit: { axes: [1] } },
  { name: 'batched experts', shape: [4, 3, 7], use: (b, w, x) => b.contract('bmk,bkn->bmn', x(4, 2, 3), w), unit: { axes: [1] } },
  { name: 'through a transpose', shape: [3, 7], use: (b, w, x) => b.contract('mk,nk->mn', x(2, 3), b.transpose(w, [1, 0])), unit: { axes: [0] } },
  { name: 'a flat weight: a factor of its axis', shape: [30], use: (b, w, x) => b.contract('mk,nk->mn', x(2, 6), b.reshape(w, [5, 6])), unit: { shape: [5, 6], axes: [1] } },
  { name: 'a weight stored by heads', shape: [12, 2, 3], use: (b, w, x) => b.contract('mk,kn->mn', x(5, 12), b.reshape(w, [12, 6])), unit: { axes: [0] } },
  { name: 'slices that are used apart', shape: [9, 4], use: (b, w, x) => [0, 3, 6].map((s) => b.contract('mk,nk->mn', x(2, 4), b.slice(w, [s, 0], [3, 4]))), unit: { axes: [1] } },
  { name: 'a standardized weight', shape: [7, 3], use: (b, w, x) => b.contract('mk,nk->mn', x(2, 3), b.sub(w, b.reshape(b.op('moments', [w], { axes: [1] })[0]!, [7, 1]))), unit: { axes: [1] } },
  { name: 'a gain on a weight: units of one element', shape: [7, 1], use: (b, w, x) => b.contract('mk,nk->mn', x(2, 3), b.mul(w, b.constant({ dtype: 'f32', shape: [7, 3], data: new Float32Array(21).fill(1) }))), unit: { axes: [1] } },
  { name: 'two uses that agree', shape: [3, 3], use: (b, w, x) => b.contract('mk,nk->mn', b.contract('mk,nk->mn', x(2, 3), w), w), unit: { axes: [1] } },
  { name: 'two uses that disagree', shape: [3, 3], use: (b, w, x) => b.contract('mk,kn->mn', b.contract('mk,nk->mn', x(2, 3), w), w), unit: undefined },
  { name: 'a bias', shape: [3], use: (b, w, x) => b.add(x(2, 3), w), unit: undefined },
  { name: 'a scale of activations', shape: [3], use: (b, w, x) => b.mul(x(2, 3), w), unit: undefined },
  { name: 'an embedding table', shape: [10, 3], use: (b, w) => b.one('gather', [w, b.input({ dtype: 'i64', shape: [4] }, 'ids')], { axis: 0 }), unit: undefined },
  { name: 'an embedding tied to the head', shape: [10, 3], use: (b, w) => b.contract('mk,nk->mn', b.one('gather', [w, b.input({ dtype: 'i64', shape: [4] }, 'ids')], { axis: 0 }), w), unit: { axes: [1] } },
];

function infer({ shape, use }: Case): ReturnType<typeof inferUnits> {
  const b = new Builder('units');
  const w = b.state('w', { dtype: 'f32', shape: [...shape] }, 'zero');
  let inputs = 0;
  const out = use(b, w, (...s) => b.input({ dtype: 'f32', shape: s }, `x${inputs++}`));
  const values = Array.isArray(out) ? (out as readonly Value[]) : [out as Value];
  return inferUnits(b.finish(values.map((value, i) => ({ name: `o${i}`, value }))));
}

describe('units', () => {
  it.each(cases)('$name', (c) => {
    const { units, conflicts } = infer(c);
    const got = units.get('w');
    if (!c.unit) return expect(got).toBeUndefined();
    expect(conflicts).toEqual([]);
    expect({ shape: got?.shape, axes: got?.axes }).toEqual({ shape: c.unit.shape ?? c.shape, axes: c.unit.axes });
  });
  it('a disagreement is reported', () => expect(infer(cases.find((c) => c.name === 'two uses that disagree')!).conflicts).toEqual(['w']));
  it('a weight that a loop captures is used inside', () => {
    const body = new Builder('body');
    body.input({ dtype: 'i64', shape: [] }, 'i');
    const h = body.input({ dtype: 'f32', shape: [2, 3] }, 'h');
    const w = body.input({ dtype: 'f32', shape: [3, 3] }, 'w');
    const region = body.finish([{ name: 'go', value: body.scalar(1, 'bool') }, { name: 'h', value: body.contract('mk,kn->mn', h, w) }]);
    const b = new Builder('loop');
    const weight = b.state('w', { dtype: 'f32', shape: [3, 3] }, 'zero');
    const [out] = b.op('loop', [b.scalar(4, 'i64'), b.scalar(1, 'bool'), b.input({ dtype: 'f32', shape: [2, 3] }, 'x'), weight], { trips: 4, carried: 1, scans: 0 }, [region]);
    expect(inferUnits(b.finish([{ name: 'out', value: out! }])).units.get('w')?.axes).toEqual([0]);
  });
  it('partitions are equal whatever axes of size 1 are counted to', () => {
    expect(sameUnit({ shape: [8, 4, 1, 1], axes: [1, 2, 3] }, { shape: [8, 4, 1, 1], axes: [1] })).toBe(true);
    expect(sameUnit({ shape: [8, 4], axes: [1] }, { shape: [8, 4], axes: [0] })).toBe(false);
  });
});
