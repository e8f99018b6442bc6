/** Every op's axes: running the op from them alone gives what its reference gives. Cases stand in test/axes-cases/. */
import { describe, expect, it } from 'vitest';
import { opDef, ops } from '../ir/ops/index.ts';
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
const withoutAxes = ['constant', 'if', 'loop', 'fused', 'scatterElements', 'scatterNd'];

it.each(withoutAxes)('%s says why it has no axes', (name) => {
  const axes = opDef(name).axes([], {}, []);
  expect('none' in axes && axes.none).toMatch(/\w/);
});

it('every op outside [map] has a case, or no axes', () => {
  const covered = new Set([...cases.map((c) => c.op), ...withoutAxes]);
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
