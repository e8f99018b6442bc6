/** Training steps under a limit of memory. */
import { describe, expect, it } from 'vitest';
import { compile } from '../cli/driver/compile.ts';
import { fitMemory } from '../cli/driver/fit-memory.ts';
import { OverLimit, UserError } from '../ir/diagnostic.ts';
import type { Graph, Op } from '../ir/graph.ts';
import { loadTrainer } from '../runtime/index.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';
import { spread } from './trainer-harness.ts';

const opsWithin = (graph: Graph): Op[] => graph.ops.flatMap((op) => [op, ...op.regions.flatMap(opsWithin)]);

describe('samples at a time', () => {
  const bytesOf = (samples: number): number => 100 + 10 * samples;
  it('are all where they fit', () => expect(fitMemory(220, 12, bytesOf)).toMatchObject({ samples: 12, bytes: 220 }));
  it.each([[219, 6], [160, 6], [159, 4], [130, 3], [129, 2], [119, 1], [110, 1]])('within %i bytes are %i of 12', (limit, samples) => expect(fitMemory(limit, 12, bytesOf)).toMatchObject({ samples, bytes: bytesOf(samples) }));
  it('say by how much the least is over', () => expect(() => fitMemory(109, 12, bytesOf)).toThrow(/whole batch of 12 takes 220 B, and one sample at a time 110 B, which is 1 B over the limit of 109 B/));
  it('are all where a batch has no parts, and the first level of recomputation that fits is taken', () => {
    const again = (samples: number, recompute?: string): number => {
      if (samples < 12) throw new UserError('batch norm "b" joins samples');
      return recompute === undefined ? 220 : recompute === 'norms' ? 201 : 150;
    };
    expect(fitMemory(200, 12, again)).toMatchObject({ samples: 12, bytes: 150, recompute: 'blocks' });
    expect(() => fitMemory(100, 12, again)).toThrow(/it takes 150 B, 50 B over the limit/);
  });
  it('pass on why a batch has no parts', () => {
    const whole = (samples: number): number => {
      if (samples < 12) throw new UserError('batch norm "b" joins samples');
      return 220;
    };
    expect(() => fitMemory(200, 12, whole)).toThrow(OverLimit);
    expect(() => fitMemory(200, 12, whole)).toThrow(/20 B over the limit of 200 B, and cannot compute fewer at a time: batch norm "b" joins samples/);
  });
});

describe('a step under a limit', () => {
  const size = 8;
  const pictures = (norm: boolean): Uint8Array => encodeModel({
    name: 'pictures',
    nodes: [
      node('Conv', ['x', 'k'], ['c'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
      ...(norm ? [node('BatchNormalization', ['c', 'g', 'b', 'm', 'v'], ['n', 'm1', 'v1'], { training_mode: 1 })] : []),
      node('Relu', [norm ? 'n' : 'c'], ['r']), node('GlobalAveragePool', ['r'], ['p']), node('Flatten', ['p'], ['f']), node('Gemm', ['f', 'w'], ['logits'], { transB: 1 }),
    ],
    inputs: [value('x', 'f32', [size, 1, 16, 16])],
    outputs: [value('logits', 'f32', [size, 2])],
    initializers: [
      floats('k', [8, 1, 3, 3], spread(72)), floats('w', [2, 8], spread(16)),
      ...(norm ? [floats('g', [8], spread(8)), floats('b', [8], spread(8)), floats('m', [8], spread(8)), floats('v', [8], spread(8).map(Math.abs))] : []),
    ],
  } satisfies TestModel);
  const train = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } } as const;
  const inputs = { x: { dtype: 'f32' as const, shape: [size, 1, 16, 16], data: Float32Array.from(spread(size * 256)) }, y: BigInt64Array.from({ length: size }, (_, i) => BigInt(i % 2)), lr: 0.1 };

  it('keeps its arena under it, and trains and evaluates as without one', async () => {
    const free = await compile(pictures(false), { train });
    const limit = Math.floor(free.program.memory.temps / 3);
    const bounded = await compile(pictures(false), { train, memory: limit });
    const { samples, trials } = bounded.fit!;
    expect(samples).toBeLessThan(size);
    expect(trials.find((t) => t.samples === 2 * samples)!.bytes).toBeGreaterThan(limit);
    expect(bounded.program.memory.temps).toBeLessThanOrEqual(limit);
    await using a = await loadTrainer(free, { threads: 1 });
    await using b = await loadTrainer(bounded, { threads: 2 });
    for (let k = 0; k < 3; k++) {
      const [p, q] = [await a.trainStep(inputs), await b.trainStep(inputs)];
      expect(Math.abs(q.loss - p.loss)).toBeLessThanOrEqual(1e-6 * Math.abs(p.loss));
    }
    const [p, q] = await Promise.all([a.evaluate({ x: inputs.x }), b.evaluate({ x: inputs.x })]);
    [...q.logits!.data].forEach((v, i) => expect(Number(v)).toBeCloseTo(Number(p.logits!.data[i]), 5));
  });
  it('computes in parts by the algorithms of the whole', async () => {
    const stack = encodeModel({
      name: 'stack',
      nodes: [
        node('Conv', ['x', 'k'], ['c'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), node('Relu', ['c'], ['r']),
        node('Conv', ['r', 'l'], ['d'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), node('GlobalAveragePool', ['d'], ['p']), node('Flatten', ['p'], ['logits']),
      ],
      inputs: [value('x', 'f32', [size, 16, 16, 16])],
      outputs: [value('logits', 'f32', [size, 16])],
      initializers: [floats('k', [16, 16, 3, 3], spread(2304)), floats('l', [16, 16, 3, 3], spread(2304))],
    } satisfies TestModel);
    const [whole, parts] = [await compile(stack, { train }), await compile(stack, { train: { ...train, microBatch: 4 } })].map(({ program }) => {
      const ops = opsWithin(program.graph).filter((op) => op.name === 'convPacked');
      return ops.map((op) => op.attrs['algorithm']).sort();
    });
    expect(whole).toContain('winograd4');
    expect(parts).toEqual(whole);
  });
  it('is refused by name where a norm joins samples', async () => expect(compile(pictures(true), { train, memory: 30_000 })).rejects.toThrow(/over the limit of 29.3 KiB, and cannot compute fewer at a time: .*BatchNormalization.* joins the samples/));
  it('computes values again in the backward pass where a norm joins samples', async () => {
    const channels = 8;
    const blocks = [0, 1, 2, 3];
    const names = ['g', 'b', 'm', 'v'];
    const residual = encodeModel({
      name: 'residual',
      nodes: [
        node('Conv', ['x', 'stem'], ['y0'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
        ...blocks.flatMap((i) => [
          node('Conv', [`y${i}`, `k${i}`], [`c${i}`], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
          node('BatchNormalization', [`c${i}`, ...names.map((n) => `${n}${i}`)], [`n${i}`, `nm${i}`, `nv${i}`], { training_mode: 1 }),
          node('Relu', [`n${i}`], [`r${i}`]),
          node('Conv', [`r${i}`, `l${i}`], [`d${i}`], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
          node('Add', [`y${i}`, `d${i}`], [`y${i + 1}`]),
        ]),
        node('GlobalAveragePool', [`y${blocks.length}`], ['p']), node('Flatten', ['p'], ['f']), node('Gemm', ['f', 'w'], ['logits'], { transB: 1 }),
      ],
      inputs: [value('x', 'f32', [size, 1, 16, 16])],
      outputs: [value('logits', 'f32', [size, 2])],
      initializers: [
        floats('stem', [channels, 1, 3, 3], spread(9 * channels)), floats('w', [2, channels], spread(2 * channels)),
        ...blocks.flatMap((i) => [
          ...['k', 'l'].map((n) => floats(`${n}${i}`, [channels, channels, 3, 3], spread(9 * channels * channels).map((v) => v / 4))),
          ...names.map((n) => floats(`${n}${i}`, [channels], spread(channels).map((v) => (n === 'v' || n === 'g' ? 1 + Math.abs(v) : v)))),
        ]),
      ],
    } satisfies TestModel);
    const free = await compile(residual, { train });
    const limit = Math.floor(free.program.memory.temps * 0.7);
    const bounded = await compile(residual, { train, memory: limit });
    expect(bounded.fit).toMatchObject({ samples: size, recompute: expect.stringMatching(/norms|blocks|all/) as string });
    expect(bounded.program.memory.temps).toBeLessThanOrEqual(limit);
    const convolutions = (a: typeof free): number => a.manifest.steps.filter((s) => s.name.includes('convPacked')).length;
    expect(convolutions(bounded)).toBeGreaterThan(convolutions(free));
    await using a = await loadTrainer(free, { threads: 1 });
    await using b = await loadTrainer(bounded, { threads: 2 });
    for (let k = 0; k < 3; k++) {
      const [p, q] = [await a.trainStep(inputs), await b.trainStep(inputs)];
      expect(Math.abs(q.loss - p.loss)).toBeLessThanOrEqual(1e-6 * Math.abs(p.loss));
    }
    const [p, q] = [await a.parameters(), await b.parameters()];
    expect(p.size).toBe(18);
    for (const [name, t] of p) [...t.data].forEach((v, i) => expect(Math.abs(Number(q.get(name)!.data[i]) - Number(v)), name).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(Number(v)))));
  });
  it('goes without a micro-batch of its own', async () => expect(compile(pictures(false), { train: { ...train, microBatch: 2 }, memory: 30_000 })).rejects.toThrow(/give either the limit or the micro-batch/));
});
