import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluateOp } from '../ir/evaluate.ts';
import type { Op } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { foldDense } from '../passes/fold-dense.ts';
import { generator } from '../ir/generator.ts';
import { randomTensor } from './ir/tensors.ts';

/** An op over constants. */
function op(name: string, operands: readonly Tensor[], attrs: Op['attrs'] = {}): Op {
  const b = new Builder('g');
  b.op(name, operands.map((t) => b.constant(t)), attrs);
  return b.ops.at(-1)!;
}

const random = generator(5);
const f32 = (...shape: number[]): Tensor => randomTensor({ dtype: 'f32', shape }, random, true);

describe('fast folding gives the bits of the interpreter', () => {
  it.each([
    ['add', [f32(2, 3, 4), f32(2, 3, 4)]],
    ['sub', [f32(2, 3, 4), f32(4)]],
    ['mul', [f32(5, 3, 2, 2), f32(5, 1, 1, 1)]],
    ['mul', [f32(2, 1, 4), f32(3, 1)]],
    ['div', [f32(), f32(2, 3)]],
    ['mul', [f32(1, 1), f32(1)]],
    ['add', [f32(0, 3), f32(3)]],
  ] as const)('%s', (name, operands) => {
    const o = op(name, operands);
    expect(foldDense(o, operands)).toEqual(evaluateOp(o, operands)[0]);
  });

  it.each([
    ['transpose', f32(2, 3, 4), { perm: [2, 0, 1] }],
    ['transpose', f32(2, 3, 4), { perm: [0, 2, 1] }],
    ['transpose', f32(), { perm: [] }],
    ['transpose', randomTensor({ dtype: 'i64', shape: [3, 2] }, random), { perm: [1, 0] }],
    ['transpose', randomTensor({ dtype: 'f16', shape: [3, 2] }, random), { perm: [1, 0] }],
    ['broadcast', f32(3, 1), { shape: [2, 3, 4] }],
    ['broadcast', f32(), { shape: [2, 3] }],
    ['broadcast', randomTensor({ dtype: 'bool', shape: [2] }, random), { shape: [3, 2] }],
    ['reshape', f32(2, 6), { shape: [3, 4] }],
    ['packConv', f32(6, 2, 3, 3), { algorithm: 'direct', groups: 2 }],
    ['packConv', f32(13, 5, 1, 2), { algorithm: 'direct', groups: 1 }],
    ['packConv', f32(6, 1, 3, 3), { algorithm: 'depthwise', groups: 6 }],
    ['packConv', f32(12, 4, 3, 3), { algorithm: 'winograd4', groups: 1 }],
    ['packMatmul', f32(6, 13), { spec: 'mk,kn->mn' }],
    ['packMatmul', f32(4, 3, 5), { spec: 'mkj,jnk->mn' }],
  ] as const)('%s', (name, x, attrs) => {
    const o = op(name, [x], attrs);
    expect(foldDense(o, [x])).toEqual(evaluateOp(o, [x])[0]);
  });

  it('leaves other ops and types to the interpreter', () => {
    const x = f32(2);
    const i = randomTensor({ dtype: 'i32', shape: [2] }, random);
    expect(foldDense(op('exp', [x]), [x])).toBeUndefined();
    expect(foldDense(op('add', [i, i]), [i, i])).toBeUndefined();
  });
});
