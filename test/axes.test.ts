/** Every op's axes: running the op from them alone gives what its reference gives. Cases stand in test/axes-cases/. */
import { describe, expect, it } from 'vitest';
import { opDef, ops } from '../ir/ops/index.ts';
import type { TensorType } from '../ir/type.ts';
import { checkAxes, type AxesCase } from './axes-harness.ts';
import { contractionAxesCases } from './axes-cases/contraction.ts';
import { elementwiseAxesCases } from './axes-cases/elementwise.ts';
import { indexingAxesCases } from './axes-cases/indexing.ts';
import { movementAxesCases } from './axes-cases/movement.ts';
import { reductionAxesCases } from './axes-cases/reduction.ts';
import { sequenceAxesCases } from './axes-cases/sequence.ts';
import { windowAxesCases } from './axes-cases/window.ts';

const cases: readonly AxesCase[] = [...elementwiseAxesCases, ...movementAxesCases, ...reductionAxesCases, ...contractionAxesCases, ...windowAxesCases, ...indexingAxesCases, ...sequenceAxesCases];

describe('axes give what the reference gives', () => {
  for (const c of cases) it(c.note ? `${c.op}, ${c.note}` : c.op, () => checkAxes(c));
});

/** Ops that have no such description, whatever their operands. */
const withoutAxes = ['constant', 'if', 'loop', 'fused', 'bands', 'slabs', 'momentBlocks', 'scatterElements', 'scatterNd'];

it.each(withoutAxes)('%s says why it has no axes', (name) => {
  const axes = opDef(name).axes([], {}, []);
  expect('none' in axes && axes.none).toMatch(/\w/);
});

/** Ops over a packed operand: any part of the result may read any of it; the rest of the walk is that of the op they stand for. */
const packed = [
  { op: 'convPacked', pack: 'packConv', plain: 'conv', weight: [6, 2, 3, 3], x: [2, 4, 7, 6], packAttrs: { algorithm: 'direct', groups: 2 }, attrs: { strides: [2, 1], pads: [1, 0, 1, 2], dilations: [1, 2], groups: 2 } },
  { op: 'contractPacked', pack: 'packMatmul', plain: 'contract', weight: [5, 6], x: [2, 3, 5], packAttrs: { spec: 'bmk,kn->bmn' }, attrs: { spec: 'bmk,kn->bmn', algorithm: 'direct' } },
];

it.each(packed)('$op walks as $plain does, but for its packed operand', ({ op, pack, plain, weight, x, packAttrs, attrs }) => {
  const type = (shape: readonly number[]): TensorType => ({ dtype: 'f32', shape });
  const [packedType] = opDef(pack).infer([type(weight)], packAttrs, []);
  const shapeAttr = op === 'convPacked' ? { algorithm: 'direct', weightShape: weight } : { bShape: weight };
  const want = opDef(plain).axes([type(x), type(weight)], attrs, opDef(plain).infer([type(x), type(weight)], attrs, []));
  const results = opDef(op).infer([type(x), packedType!], { ...attrs, ...shapeAttr }, []);
  const got = opDef(op).axes([type(x), packedType!], { ...attrs, ...shapeAttr }, results);
  if ('none' in want || 'none' in got) throw new Error('no axes');
  const whole = got.space.find((d) => !want.space.some((w) => w.name === d.name));
  expect(whole).toMatchObject({ role: 'whole', size: packedType!.shape[0] });
  expect(got.space.filter((d) => d !== whole)).toEqual(want.space);
  got.stages.forEach((stage, i) =>
    stage.pieces.forEach((piece, k) => {
      const p = want.stages[i]!.pieces[k]!;
      expect(piece.reads).toEqual([p.reads[0], [{ kind: 'whole', dim: whole!.name }]]);
      expect(piece.writes).toEqual(p.writes);
    }),
  );
});

it.each(packed)('$pack reads its operand whole', ({ pack, weight, packAttrs }) => {
  const operand: TensorType = { dtype: 'f32', shape: weight };
  const axes = opDef(pack).axes([operand], packAttrs, opDef(pack).infer([operand], packAttrs, []));
  if ('none' in axes) throw new Error(axes.none);
  expect(axes.stages[0]!.pieces[0]!.reads[0]!.map((r) => r.kind)).toEqual(weight.map(() => 'whole'));
});

it("any part of a product by Strassen's algorithm may read any of the sums, and those any of their operand", () => {
  const type = (shape: readonly number[]): TensorType => ({ dtype: 'f32', shape });
  const attrs = { spec: 'mk,kn->mn', bShape: [8, 16], algorithm: 'strassen' };
  const [sums] = opDef('strassenSums').infer([type([6, 8])], { rowAxes: 1 }, []);
  const whole = opDef('strassenSums').axes([type([6, 8])], { rowAxes: 1 }, [sums!]);
  const operands = [type([6, 8]), type([128]), sums!];
  const product = opDef('contractPacked').axes(operands, attrs, opDef('contractPacked').infer(operands, attrs, []));
  if ('none' in whole || 'none' in product) throw new Error('no axes');
  expect(whole.stages[0]!.pieces[0]!.reads[0]!.map((r) => r.kind)).toEqual(['whole', 'whole']);
  expect(product.stages[0]!.pieces[0]!.reads.slice(1)).toEqual([[{ kind: 'whole', dim: 'packed' }], [{ kind: 'whole', dim: 'sums' }]]);
  expect(product.space.filter((d) => d.role === 'whole').map((d) => d.size)).toEqual([128, sums!.shape[0]]);
});

it('every op outside [map] has a case, or no axes', () => {
  const covered = new Set([...cases.map((c) => c.op), ...withoutAxes, 'strassenSums', ...packed.flatMap((p) => [p.op, p.pack])]);
  expect([...ops.values()].filter((d) => d.family !== 'map' && !covered.has(d.name)).map((d) => d.name)).toEqual([]);
});

describe('axes of reshape', () => {
  const kinds = (from: readonly number[], to: readonly number[]): string[] => {
    const axes = opDef('reshape').axes([{ dtype: 'f32', shape: from }], {}, [{ dtype: 'f32', shape: to }]);
    if ('none' in axes) throw new Error(axes.none);
    return axes.stages[0]!.pieces[0]!.reads[0]!.map((r) => r.kind);
  };
  it('refine where sizes divide', () => expect(kinds([6, 4, 5], [2, 12, 5])).toEqual(['affine', 'affine', 'affine']));
  it('span only the group that has no refinement', () => expect(kinds([6, 4, 5], [4, 6, 5])).toEqual(['span', 'span', 'affine']));
});
