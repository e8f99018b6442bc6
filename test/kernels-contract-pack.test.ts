import { describe, expect, test } from 'vitest';
import { contraction } from '../backends/wasm/contract/index.ts';
import { instantiate, rows } from '../bench/kernel.ts';
import { Builder } from '../ir/builder.ts';
import { sizeOf, tensorType } from '../ir/type.ts';
import { featureSets, pack, randomArray, randomNumbers } from './contract-harness.ts';

// The reference of a packing op is checked where convolutions and products over what it packed are compared with plain loops.
const cases: readonly (readonly ['packConv' | 'packMatmul', readonly number[], Record<string, string | number>])[] = [
  ['packMatmul', [17, 21], { spec: 'mk,kn->mn' }],
  ['packMatmul', [21, 17], { spec: 'mk,nk->mn' }],
  ['packMatmul', [5, 3, 7, 4], { spec: 'mab,baxy->mxy' }],
  ['packMatmul', [9, 1], { spec: 'mk,kn->mn' }],
  ['packConv', [10, 3, 3, 3], { algorithm: 'direct', groups: 1 }],
  ['packConv', [12, 5, 2, 3], { algorithm: 'direct', groups: 2 }],
  ['packConv', [16, 4, 5], { algorithm: 'direct', groups: 1 }],
  ['packConv', [10, 1, 5, 5], { algorithm: 'depthwise', groups: 10 }],
  ['packConv', [12, 8, 3, 3], { algorithm: 'winograd2', groups: 1 }],
  ['packConv', [20, 4, 3, 3], { algorithm: 'winograd4', groups: 1 }],
];

describe.each(featureSets)('packing at run time, %s', (features) => {
  test.each(cases)('%s of %s, %o', (name, shape, attrs) => {
    const type = tensorType('f32', shape);
    const data = randomArray(sizeOf(shape), randomNumbers(sizeOf(shape)));
    const want = pack(name, type, data, attrs);
    const b = new Builder('pack');
    b.one(name, [b.input(type)], attrs);
    const kernel = instantiate(features, contraction, b.ops[0]!, [rows(type)], [rows(want.type)]);
    kernel.memory(0).set(data);
    kernel.memory(1).fill(NaN);
    kernel.run();
    // Transforms of Winograd weights add 9 rounded terms; all else is a copy.
    const tolerance = String(attrs['algorithm']).startsWith('winograd') ? 9 * 2 ** -24 : 0;
    const worst = want.data.reduce((w, v, i) => Math.max(w, Math.abs(kernel.memory(1)[i]! - v)), 0);
    expect(worst).toBeLessThanOrEqual(tolerance);
    expect(kernel.memory(1).every((v) => !Number.isNaN(v))).toBe(true);
  });
});
