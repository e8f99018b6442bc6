/** Gradients of several micro-batches that add up on tiles: the step is that of the whole batch. */
import { describe, expect, it } from 'vitest';
import { wasmTarget } from '../cli/driver/target.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { accumulatedStep, firstName } from '../passes/tile/accumulate.ts';
import { planAccumulated } from '../passes/tile/plan.ts';
import { prepare, simplified } from '../passes/tile/prepare.ts';
import { withConstants } from '../passes/tile/target.ts';
import type { LossSpec, OptimizerSpec } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { difference } from './ir/tensors.ts';
import { runPlan, tensorOf } from './tiles-harness.ts';

const weights = (shape: readonly number[], seed: number): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(i * 12.9898 + seed) / 3) });

/** Two convolutions with relu, and a linear layer. */
function model(batch: number): Graph {
  const b = new Builder('model');
  const x = b.input({ dtype: 'f32', shape: [batch, 3, 8, 8] }, 'x');
  const conv = (v: typeof x, name: string, i: number, o: number): typeof x => b.one('relu', [b.one('conv', [v, b.state(name, { dtype: 'f32', shape: [o, i, 3, 3] }, weights([o, i, 3, 3], o))], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 })]);
  const y = b.one('reduceSum', [conv(conv(x, 'a', 3, 8), 'b', 8, 8)], { axes: [2, 3] });
  return b.finish([{ name: 'y', value: b.one('contract', [y, b.state('head', { dtype: 'f32', shape: [8, 4] }, weights([8, 4], 1))], { spec: 'mk,kn->mn' }) }]);
}

const step = (batch: number, optimizer: OptimizerSpec, gradients: boolean, loss: LossSpec = { kind: 'crossEntropy' }): Graph => trainingStep(model(batch), [], { loss, optimizer, gradients }, wasmTarget).graph;
const sgd: OptimizerSpec = { kind: 'sgd', momentum: 0.9 };
const target = withConstants(readTarget('mk2'), { tiles: 7, bytesPerTile: 1 << 20 });

/** Both programs, planned as they stand in f32. */
function split(optimizer: OptimizerSpec, batch: number, count: number): { readonly accumulate: Graph; readonly update: Graph; readonly plans: ReturnType<typeof planAccumulated> } {
  const parts = accumulatedStep(step(batch / count, optimizer, true), { loss: { kind: 'crossEntropy' }, optimizer }, count);
  verify(parts.accumulate);
  verify(parts.update);
  const ready = (g: Graph): Graph => prepare(simplified(g, wasmTarget, { dtype: 'f32' }), wasmTarget, { recompute: 'none' });
  const [accumulate, update] = [ready(parts.accumulate), ready(parts.update)];
  return { accumulate, update, plans: planAccumulated(accumulate, update, target, { samples: batch / count }, count) };
}

const scalar = (dtype: 'f32' | 'bool', x: number): Tensor => ({ dtype, shape: [], data: dtype === 'f32' ? Float32Array.of(x) : Uint8Array.of(x) });

describe('gradients of micro-batches that add up', { timeout: 60_000 }, () => {
  for (const optimizer of [sgd, { kind: 'adam' }, { kind: 'sgd', clipNorm: 0.1 }] as const satisfies readonly OptimizerSpec[]) {
    it(`${optimizer.kind}${'clipNorm' in optimizer ? ' with clipped gradients' : ''}: two steps of three micro-batches are two of the whole batch`, () => {
      const [batch, count] = [6, 3];
      const { accumulate, update, plans } = split(optimizer, batch, count);
      const whole = step(batch, optimizer, false);
      let own = new Map<string, Tensor>();
      let state = new Map<string, Tensor>();
      for (let s = 0; s < 2; s++) {
        const x = tensorOf({ dtype: 'f32', shape: [batch, 3, 8, 8] }, (i) => Math.sin(i * 0.7 + s));
        const y = tensorOf({ dtype: 'i64', shape: [batch] }, (i) => (i + s) % 4);
        const at = (t: Tensor, i: number): Tensor => ({ ...t, shape: [batch / count, ...t.shape.slice(1)], data: t.data.slice((i * t.data.length) / count, ((i + 1) * t.data.length) / count) });
        for (let i = 0; i < count; i++) own = new Map(runPlan({ graph: accumulate, planned: plans }, plans.plan, { x: at(x, i), y: at(y, i), [firstName]: scalar('bool', i === 0 ? 1 : 0) }, own).named);
        own = new Map(runPlan({ graph: update, planned: plans }, plans.update.plan, { lr: scalar('f32', 0.1) }, own).named);
        const values = new Map(whole.state.flatMap((v) => (state.has(v.name) ? [[v.value, state.get(v.name)!]] : [])));
        const done = evaluate(whole, { x, y, lr: scalar('f32', 0.1) }, { state: values });
        state = new Map(whole.state.map((v) => [v.name, done.state.get(v.value)!]));
        expect(difference(own.get('loss.sum')!, done.outputs.get('loss')!, 1e-5, 1e-5)).toBeUndefined();
      }
      for (const [name, want] of state) expect(difference(own.get(name)!, want, 1e-5, 1e-5), name).toBeUndefined();
    });
  }

  it('state lies alike for both programs, and each leaves room for the other’s code', () => {
    const { plans } = split(sgd, 6, 3);
    const states = (p: typeof plans.plan): unknown => p.buffers.filter((b) => b.kind === 'state').map((b) => [b.value, b.offset, b.bytes, b.spread]);
    expect(states(plans.plan)).toEqual(states(plans.update.plan));
    expect(plans.plan.buffers.filter((b) => b.kind === 'state').map((b) => b.value)).toEqual(expect.arrayContaining(['a', 'a.momentum', 'a.grad.sum', 'loss.sum']));
    expect(plans.plan.memory.limit).toBe(plans.update.plan.memory.limit - plans.update.plan.memory.code + plans.plan.memory.code);
  });

  it.each<[string, OptimizerSpec, LossSpec, RegExp]>([
    ['a loss whose divisor depends on the targets', sgd, { kind: 'crossEntropy', ignoreIndex: 0 }, /share of a micro-batch in the loss is not known/],
    ['sharpness-aware minimisation', { kind: 'sgd', sam: 0.05 }, { kind: 'crossEntropy' }, /taken where those of the whole batch lead/],
  ])('%s is refused', (_, optimizer, loss, message) => expect(() => accumulatedStep(step(2, optimizer, true, loss), { loss, optimizer }, 2)).toThrow(message));
});
