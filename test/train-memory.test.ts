/** Training steps under a limit of memory. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compile, type Artifact } from '../cli/driver/compile.ts';
import { fitMemory, type StepFacts } from '../cli/driver/fit-memory.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { Builder } from '../ir/builder.ts';
import { OverLimit, UserError } from '../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Step } from '../ir/tile.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { stepTime } from '../passes/step-time.ts';
import type { Recompute } from '../passes/tile/recompute.ts';
import { loadTrainer } from '../runtime/index.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';
import { spread } from './trainer-harness.ts';

const opsWithin = (graph: Graph): Op[] => graph.ops.flatMap((op) => [op, ...op.regions.flatMap(opsWithin)]);

/** A model whose steps take bytes and time by formulas: `kept` bytes a sample and `extra` time for each level, and time that an iteration takes whatever its samples. */
interface Formula { readonly limit: number; readonly fixed: number; readonly batch: number; readonly kept: readonly number[]; readonly extra: readonly number[]; readonly iteration: number }
const levels = [undefined, 'norms', 'blocks', 'all'] as const;
const planned = ({ fixed, kept, extra, iteration, batch }: Formula) => (samples: number, recompute?: Recompute): StepFacts => {
  const level = levels.indexOf(recompute as 'norms');
  return { bytes: fixed + kept[level]! * samples, time: extra[level]! + (iteration * batch) / samples };
};
const divisors = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);

describe('samples at a time and recomputation', () => {
  const plain = planned({ limit: 0, fixed: 100, batch: 12, kept: [10, 10, 10, 10], extra: [1, 2, 3, 4], iteration: 1 });
  it('are all where they fit', () => expect(fitMemory(220, 12, plain)).toMatchObject({ samples: 12, bytes: 220 }));
  it.each([[219, 6], [160, 6], [159, 4], [130, 3], [129, 2], [119, 1], [110, 1]])('within %i bytes are %i of 12', (limit, samples) => expect(fitMemory(limit, 12, plain)).toMatchObject({ samples, bytes: 100 + 10 * samples }));
  it('say by how much the least is over', () => expect(() => fitMemory(109, 12, plain)).toThrow(/whole batch of 12 takes 220 B, and least is one sample at a time: 110 B, 1 B over the limit of 109 B/));
  it('meet a limit together that neither meets alone', () => {
    const both = planned({ limit: 0, fixed: 100, batch: 12, kept: [10, 8, 2, 1], extra: [1, 2, 3, 4], iteration: 0.1 });
    expect(fitMemory(105, 12, both)).toMatchObject({ samples: 2, bytes: 104, recompute: 'blocks' });
    expect(() => fitMemory(100, 12, both)).toThrow(/one sample at a time, its backward pass computing all between a few residual additions again: 101 B, 1 B over the limit of 100 B/);
  });
  it('are the fastest that fit, and where nothing fits the smallest is named', () => {
    const level = fc.tuple(fc.integer({ min: 1, max: 100 }), ...[0, 1, 2].map(() => fc.integer({ min: 1, max: 99 })));
    const formulas = fc.record({ limit: fc.integer({ min: 50, max: 6000 }), fixed: fc.integer({ min: 1, max: 400 }), batch: fc.integer({ min: 1, max: 64 }), kept: level, extra: level, iteration: fc.integer({ min: 1, max: 50 }) });
    fc.assert(fc.property(formulas, ({ kept: [a, b, c, d], extra: [e, f, g, h], ...m }) => {
      const formula: Formula = { ...m, kept: [a, (a * b!) / 100, (a * b! * c!) / 10_000, (a * b! * c! * d!) / 1_000_000], extra: [e, e + f!, e + f! + g!, e + f! + g! + h!] };
      const planAt = planned(formula);
      const all = divisors(m.batch).flatMap((samples) => levels.map((l) => planAt(samples, l)));
      const fitting = all.filter((t) => t.bytes <= m.limit);
      if (fitting.length > 0) expect(fitMemory(m.limit, m.batch, planAt).time).toBeCloseTo(Math.min(...fitting.map((t) => t.time)), 9);
      else {
        const seen: number[] = [];
        expect(() => fitMemory(m.limit, m.batch, (...s) => (seen.push(planAt(...s).bytes), planAt(...s)))).toThrow(OverLimit);
        expect(Math.min(...seen)).toBeCloseTo(Math.min(...all.map((t) => t.bytes)), 9);
      }
    }), { numRuns: 1000, seed: 7 });
  });
  it('are all where a batch has no parts, with the first level of recomputation that fits', () => {
    const again = (samples: number, recompute?: string): StepFacts => {
      if (samples < 12) throw new UserError('batch norm "b" joins samples');
      return { bytes: recompute === undefined ? 220 : recompute === 'norms' ? 201 : 150, time: 1 };
    };
    expect(fitMemory(200, 12, again)).toMatchObject({ samples: 12, bytes: 150, recompute: 'blocks' });
    expect(() => fitMemory(100, 12, again)).toThrow(/cannot compute fewer at a time: batch norm "b" joins samples.*all between residual additions again: 150 B, 50 B over the limit of 100 B/);
  });
});

it('the time of steps counts work and memory of each kernel, and trips of loops', () => {
  const tensor = (...shape: number[]): Value => ({ type: { dtype: 'f32', shape }, name: undefined });
  const kernel = (name: string, operands: Value[], result: Value, attrs: Op['attrs'] = {}): Step => ({ kind: 'kernel', op: { name, operands, attrs, results: [result], regions: [], source: [] } });
  const small = kernel('exp', [tensor(64, 1024)], tensor(64, 1024));
  const large = kernel('exp', [tensor(4096, 1024)], tensor(4096, 1024));
  const product = kernel('contract', [tensor(512, 1024), tensor(1024, 256)], tensor(512, 256), { spec: 'mk,kn->mn' });
  const loop = { kind: 'loop', op: { name: 'loop', operands: [], attrs: { trips: 5 }, results: [], regions: [], source: [] }, body: [small, product] } as unknown as Step;
  // 6 µs a kernel; 2 · 256 KiB at 24 bytes a nanosecond, 2 · 16 MiB at 8; 512 · 1024 · 256 multiply-adds at 27.
  const [a, b, c] = [6000 + (2 * 262_144) / 24, 6000 + (2 * 16_777_216) / 8, 6000 + 134_217_728 / 27];
  expect(stepTime([small])).toBeCloseTo(a, 6);
  expect(stepTime([large])).toBeCloseTo(b, 6);
  expect(stepTime([large, loop])).toBeCloseTo(b + 5 * (a + c), 3);
});

it('the time of a convolution that takes moments along is that of its algorithm', () => {
  const b = new Builder('moments');
  const x = b.input({ dtype: 'f32', shape: [8, 64, 32, 32] }, 'x');
  const y = b.one('conv', [x, b.constant({ dtype: 'f32', shape: [64, 64, 3, 3], data: Float32Array.from({ length: 36_864 }, (_, i) => Math.sin(i)) })], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 });
  const [mean] = b.op('moments', [b.reshape(y, [8, 4, 16, 32, 32])], { axes: [2, 3, 4] }) as [Value, Value];
  const { ops } = runPipeline(b.finish([{ name: 'mean', value: mean }, { name: 'y', value: y }]), wasmTarget);
  const op = ops.find((o) => o.name === 'momentBlocks')!;
  const [conv] = op.regions[0]!.ops as [Op];
  expect(conv.attrs['algorithm']).toMatch(/^winograd/);
  const time = (o: Op): number => stepTime([{ kind: 'kernel', op: o }]);
  // Moments read what the core has at hand; their results are small.
  expect(time(op) / time(conv)).toBeCloseTo(1, 1);
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
  const channels = 8;
  const blocks = [0, 1, 2, 3];
  const names = ['g', 'b', 'm', 'v'];
  /** Four residual blocks, each with a norm over the batch or over the samples' channels. */
  const residual = (norm: 'batch' | 'instance'): Uint8Array => encodeModel({
    name: 'residual',
    nodes: [
      node('Conv', ['x', 'stem'], ['y0'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
      ...blocks.flatMap((i) => [
        node('Conv', [`y${i}`, `k${i}`], [`c${i}`], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
        norm === 'batch' ? node('BatchNormalization', [`c${i}`, ...names.map((n) => `${n}${i}`)], [`n${i}`, `nm${i}`, `nv${i}`], { training_mode: 1 }) : node('InstanceNormalization', [`c${i}`, `g${i}`, `b${i}`], [`n${i}`]),
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
        ...names.filter((n) => norm === 'batch' || n === 'g' || n === 'b').map((n) => floats(`${n}${i}`, [channels], spread(channels).map((v) => (n === 'v' || n === 'g' ? 1 + Math.abs(v) : v)))),
      ]),
    ],
  } satisfies TestModel);
  const convolutions = (a: Artifact): number => a.manifest.steps.filter((s) => s.name.includes('convPacked')).length;
  /** Three steps of both give the same losses and parameters. */
  const expectEqualSteps = async (free: Artifact, bounded: Artifact, parameters: number): Promise<void> => {
    await using a = await loadTrainer(free, { threads: 1 });
    await using b = await loadTrainer(bounded, { threads: 2 });
    for (let k = 0; k < 3; k++) {
      const [p, q] = [await a.trainStep(inputs), await b.trainStep(inputs)];
      expect(Math.abs(q.loss - p.loss)).toBeLessThanOrEqual(1e-6 * Math.abs(p.loss));
    }
    const [p, q] = [await a.parameters(), await b.parameters()];
    expect(p.size).toBe(parameters);
    for (const [name, t] of p) [...t.data].forEach((v, i) => expect(Math.abs(Number(q.get(name)!.data[i]) - Number(v)), name).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(Number(v)))));
  };
  it('computes values again in the backward pass where a norm joins samples', async () => {
    const free = await compile(residual('batch'), { train });
    const limit = Math.floor(free.program.memory.temps * 0.7);
    const bounded = await compile(residual('batch'), { train, memory: limit });
    expect(bounded.fit).toMatchObject({ samples: size, recompute: expect.stringMatching(/norms|blocks|all/) as string });
    expect(bounded.program.memory.temps).toBeLessThanOrEqual(limit);
    expect(convolutions(bounded)).toBeGreaterThan(convolutions(free));
    await expectEqualSteps(free, bounded, 18);
  });
  it('computes few samples at a time and values of theirs again where one alone is not enough', async () => {
    const free = await compile(residual('instance'), { train });
    const single = await compile(residual('instance'), { train: { ...train, microBatch: 1 } });
    const limit = single.program.memory.temps - 1;
    const bounded = await compile(residual('instance'), { train, memory: limit });
    const whole = bounded.fit!.trials.filter((t) => t.samples === size);
    expect(bounded.fit).toMatchObject({ recompute: expect.stringMatching(/norms|blocks|all/) as string });
    expect(Math.min(...whole.map((t) => t.bytes))).toBeGreaterThan(limit);
    expect(bounded.program.memory.temps).toBeLessThanOrEqual(limit);
    expect(convolutions(bounded)).toBeGreaterThan(convolutions(single));
    await expectEqualSteps(free, bounded, 18);
  });
  it('goes without a micro-batch of its own', async () => expect(compile(pictures(false), { train: { ...train, microBatch: 2 }, memory: 30_000 })).rejects.toThrow(/give either the limit or the micro-batch/));
});
