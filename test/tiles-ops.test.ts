/** Single ops on a few tiles: the slices that the planner cuts and the vertices that read them give what the interpreter gives. */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import { difference } from './ir/tensors.ts';
import type { AxesCase } from './axes-harness.ts';
import { contractionAxesCases } from './axes-cases/contraction.ts';
import { elementwiseAxesCases } from './axes-cases/elementwise.ts';
import { indexingAxesCases } from './axes-cases/indexing.ts';
import { movementAxesCases } from './axes-cases/movement.ts';
import { reductionAxesCases } from './axes-cases/reduction.ts';
import { sequenceAxesCases } from './axes-cases/sequence.ts';
import { windowAxesCases } from './axes-cases/window.ts';
import { planned, runPlan } from './tiles-harness.ts';

/** Ops that stand for others on targets with packed weights; tiles have none. */
const packed: ReadonlySet<string> = new Set(['packMatmul', 'packConv', 'contractPacked', 'convPacked']);
const cases: readonly AxesCase[] = [...elementwiseAxesCases.slice(0, 8), ...movementAxesCases, ...reductionAxesCases, ...contractionAxesCases, ...windowAxesCases, ...indexingAxesCases, ...sequenceAxesCases].filter((c) => !packed.has(c.op));

describe('on tiles', () => {
  for (const c of cases) {
    it(c.note ? `${c.op}, ${c.note}` : c.op, () => {
      fc.assert(fc.property(c.instance, fc.integer({ min: 1, max: 9 }), ({ operands, attrs = {} }, tiles) => {
        const b = new Builder('op');
        const results = b.op(c.op, operands.map((x, i) => b.input({ dtype: x.dtype, shape: x.shape }, `x${i}`)), attrs);
        const graph = b.finish(results.map((value, i) => ({ name: `y${i}`, value })));
        const inputs = Object.fromEntries(operands.map((x, i) => [`x${i}`, x]));
        const t = planned(graph, tiles);
        const found = runPlan(t, t.planned.plan, inputs);
        for (const [name, want] of evaluate(graph, inputs).outputs) {
          const problem = difference(found.outputs.get(name)!, want, 1e-12, 1e-9);
          if (problem !== undefined) throw new Error(`${c.op} ${JSON.stringify(attrs)} of ${operands.map((x) => x.shape.join('x')).join(', ')} on ${tiles} tiles: ${name} ${problem}`);
        }
      }), { numRuns: 12, seed: 5 });
    });
  }
});
