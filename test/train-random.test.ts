/** Random numbers of training steps, and what is declared to be trained. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Graph } from '../ir/graph.ts';
import { declareParameters } from '../passes/train/declare-parameters.ts';
import { seedName } from '../passes/train/seed-random-ops.ts';
import { uniformElement } from './philox.ts';
import { linear, model, tensor, train } from './train-harness.ts';

/** A mask of 8 numbers as the output, times a weight of ones. */
const masked = (stream = 5): Graph => model((b, weight) => b.mul(b.cast(b.one('randomUniform', [b.scalar(3n, 'i64')], { shape: [8], stream }), 'f64'), weight('w', [8], new Array<number>(8).fill(1))));
const loss = { kind: 'mse' } as const;
const target = (): { y: ReturnType<typeof tensor> } => ({ y: tensor([8], new Array<number>(8).fill(0)) });
const drawn = (graph: Graph, steps: number): readonly (readonly number[])[] => train(graph, { optimizer: { kind: 'sgd' }, loss }, steps, 0, target).outputs.map((o) => o.get('out')!);

describe('random numbers', () => {
  it('differ from step to step and from op to op, and are the same in every run', () => {
    const [first, second] = drawn(masked(), 2);
    expect(second).not.toEqual(first);
    expect(drawn(masked(6), 1)[0]).not.toEqual(first);
    expect(drawn(masked(), 2)).toEqual([first, second]);
  });
  it('are those of Philox with the key (seed, step)', () => {
    drawn(masked(), 3).forEach((row, step) => row.forEach((x, e) => expect(x).toBe(uniformElement((BigInt(step) << 32n) + 3n, 5, e))));
  });
  it('have a seed of the run as state, which a step keeps', () => {
    const { step } = train(masked(), { optimizer: { kind: 'sgd' }, loss }, 1, 0, target);
    expect(step.graph.state.map((s) => s.name)).toContain(seedName);
    expect(step.graph.updates.find((u) => u.state.name === seedName)?.value.name).toBe(seedName);
  });
  it('of a model without random ops need no seed', () => {
    const { step } = train(linear([2], [1, 2]), { optimizer: { kind: 'sgd' } }, 1, 0, () => ({ x: tensor([2], [1, 1]) }));
    expect(step.graph.state.map((s) => s.name)).not.toContain(seedName);
  });
});

describe('running statistics', () => {
  it('are state that the step updates, and no parameters; one that two norms share is an error', () => {
    const b = new Builder('norm');
    const x = b.input({ dtype: 'f32', shape: [2] }, 'x');
    const running = b.state('running', { dtype: 'f32', shape: [2] }, 'zero');
    const w = b.state('w', { dtype: 'f32', shape: [2] }, 'zero');
    const next = [b.add(running, x), b.sub(running, x)];
    const graph = b.finish([{ name: 'out', value: b.mul(x, w) }]);
    expect(declareParameters(graph, [{ state: running, next: next[0] }], {}).updates).toEqual([{ state: w, value: w }, { state: running, value: next[0] }]);
    expect(declareParameters(graph, [{ state: running, next: undefined }], {}).updates).toEqual([{ state: w, value: w }]);
    expect(() => declareParameters(graph, next.map((n) => ({ state: running, next: n })), {})).toThrow(/"running" is updated by several normalizations/);
  });
});
