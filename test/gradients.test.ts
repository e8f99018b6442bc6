/** Every gradient against central differences of the reference. An op's cases stand in test/gradient-cases/. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import { opDef, ops } from '../ir/ops/index.ts';
import { checkGradient, tensor, type GradientCase } from './gradient-harness.ts';
import { contractionGradients } from './gradient-cases/contraction.ts';
import { elementwiseGradients } from './gradient-cases/elementwise.ts';
import { indexingGradients } from './gradient-cases/indexing.ts';
import { movementGradients } from './gradient-cases/movement.ts';
import { reductionGradients } from './gradient-cases/reduction.ts';
import { sequenceGradients } from './gradient-cases/sequence.ts';
import { windowGradients } from './gradient-cases/window.ts';

const cases: readonly GradientCase[] = [...elementwiseGradients, ...movementGradients, ...reductionGradients, ...contractionGradients, ...windowGradients, ...indexingGradients, ...sequenceGradients];

describe('gradients equal central differences', () => {
  for (const c of cases) it(c.note ? `${c.op}, ${c.note}` : c.op, () => checkGradient(c));
});

it('every op with a gradient has a case', () => {
  const covered = new Set(cases.map((c) => c.op));
  expect([...ops.values()].filter((d) => 'build' in d.grad && !covered.has(d.name)).map((d) => d.name)).toEqual([]);
});

describe('gradients where the function has ties, zeros or no slope', () => {
  /** The gradients of an op for a cotangent of ones. */
  function gradients(op: string, operands: readonly (readonly number[])[], attrs = {}): number[][] {
    const b = new Builder('ties');
    const inputs = operands.map((x) => b.constant(tensor('f64', [x.length], x)));
    const [y] = b.op(op, inputs, attrs);
    const { grad } = opDef(op);
    if ('none' in grad) throw new Error(grad.none);
    const ones = b.broadcast(b.scalar(1, 'f64'), y!.type.shape);
    const built = grad.build(b, b.ops.find((o) => o.results[0] === y)!, [ones]);
    const { outputs } = evaluate(b.finish(built.map((value, i) => ({ name: String(i), value: value! }))), {});
    return built.map((_, i) => [...(outputs.get(String(i))!.data as Float64Array)]);
  }

  it('max gives half to each of two equal operands', () => expect(gradients('max', [[1, 2], [1, 3]])).toEqual([[0.5, 0], [0.5, 1]]));
  it('reduceMax divides equally among ties', () => expect(gradients('reduceMax', [[3, 1, 3, 3]], { axes: [0] })).toEqual([[1 / 3, 0, 1 / 3, 1 / 3]]));
  it('reduceProd is right with one zero and with two', () => {
    expect(gradients('reduceProd', [[2, 0, 3]], { axes: [0] })).toEqual([[0, 6, 0]]);
    expect(gradients('reduceProd', [[2, 0, 0]], { axes: [0] })).toEqual([[0, 0, 0]]);
  });
  it('pow has slopes at base 0', () => expect(gradients('pow', [[0, 0, 0], [2, 1, 0]])).toEqual([[0, 1, 0], [0, 0, 0]]));
  it('clamp passes at its bounds, to exactly one operand', () => expect(gradients('clamp', [[0, 1, 2], [0, 0, 3], [1, 1, 1]])).toEqual([[1, 1, 0], [0, 0, 0], [0, 0, 1]]));
  it('relu is flat at 0', () => expect(gradients('relu', [[-1, 0, 1]])).toEqual([[0, 0, 1]]));
  it('abs is flat at 0', () => expect(gradients('abs', [[-1, 0, 1]])).toEqual([[-1, 0, 1]]));
});
