/** Moments that the kernels of convolutions take along: when they are joined, and that they are the moments of the result. */
import { describe, expect, it } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { emitWasm } from '../backends/wasm/module.ts';
import { artifactOf } from '../cli/driver/compile.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { momentBlocksProblem } from '../ir/moment-blocks.ts';
import { parseGraph } from '../ir/parse.ts';
import { graphText, printGraph } from '../ir/text.ts';
import type { Tensor } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { plan } from '../passes/plan.ts';
import { loadSession } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { byName, difference, memoryFor, random, runHere } from './wasm-harness.ts';

const features: readonly Features[] = ['plain', 'simd', 'relaxed', 'wide'];

interface Shape {
  readonly batch?: number;
  readonly from: number;
  readonly channels: number;
  readonly size: readonly number[];
  readonly kernel: number;
  readonly stride?: number;
  readonly groups?: number;
  /** Where the passes do not choose it. */
  readonly algorithm?: 'winograd4';
  /** Groups of channels that the moments are of; channels without pixels where it is left out. */
  readonly over: number;
  /** Added to the result, as a number of standard deviations of it. */
  readonly offset?: number;
  readonly after?: (b: Builder, v: Value, x: Value) => Value;
}

/** The mean and m2 of a convolution with a bias, and what else reads its result. */
function network(s: Shape): { graph: Graph; inputs: Record<string, Tensor> } {
  const b = new Builder('network');
  const batch = s.batch ?? 2;
  const groups = s.groups ?? 1;
  const rank = s.size.length;
  const each = <T>(v: T): T[] => s.size.map(() => v);
  const x = b.input({ dtype: 'f32', shape: [batch, s.from, ...s.size] }, 'x');
  const pad = (s.kernel - 1) / 2;
  const w = b.constant(random([s.channels, s.from / groups, ...each(s.kernel)], 1));
  const attrs = { strides: each(s.stride ?? 1), pads: [...each(pad), ...each(pad)], dilations: each(1), groups };
  const { algorithm } = s;
  const conv = algorithm ? b.one('convPacked', [x, b.one('packConv', [w], { algorithm, groups })], { ...attrs, algorithm, weightShape: w.type.shape }) : b.one('conv', [x, w], attrs);
  const biased = b.add(conv, b.constant(random([s.channels, ...each(1)], 2)));
  const y = (s.after ?? ((_, v) => v))(b, s.offset === undefined ? biased : b.add(biased, s.offset), x);
  const { shape } = y.type;
  const grouped = b.reshape(y, [batch, s.over, s.channels / s.over, ...shape.slice(2)]);
  const [mean, m2] = b.op('moments', [grouped], { axes: Array.from({ length: rank + 1 }, (_, i) => i + 2) }) as [Value, Value];
  return { graph: b.finish([{ name: 'mean', value: mean }, { name: 'm2', value: m2 }, { name: 'z', value: b.unary('abs', y) }]), inputs: { x: random(x.type.shape, 3) } };
}

const joinedIn = (graph: Graph): Op[] => graph.ops.filter((op) => op.name === 'momentBlocks');

const cases: readonly (Shape & { readonly name: string; readonly blocks: number })[] = [
  { name: '1x1, groups of one channel', from: 8, channels: 24, size: [24, 10], kernel: 1, over: 24, blocks: 8 },
  { name: '1x1, channels that fill no vector, one group', from: 5, channels: 23, size: [16, 16], kernel: 1, over: 1, blocks: 8 },
  { name: '1x1, one channel', from: 5, channels: 1, size: [64, 64], kernel: 1, over: 1, blocks: 64 },
  { name: '1x1, many channels on few pixels', from: 32, channels: 264, size: [7, 7], kernel: 1, over: 4, blocks: 1 },
  { name: '3x3 of few channels, strided', from: 3, channels: 36, size: [32, 28], kernel: 3, stride: 2, over: 9, blocks: 8 },
  { name: '3x3 in tiles of 2x2', batch: 3, from: 16, channels: 24, size: [16, 12], kernel: 3, over: 4, blocks: 8 },
  { name: '3x3 in tiles of 4x4', batch: 3, from: 8, channels: 24, size: [24, 20], kernel: 3, algorithm: 'winograd4', over: 4, blocks: 6 },
  { name: '3x3 in tiles that reach over the border', from: 64, channels: 64, size: [14, 14], kernel: 3, over: 4, blocks: 7 },
  { name: '3x3 in groups', from: 32, channels: 48, size: [16, 16], kernel: 3, groups: 2, over: 8, blocks: 8 },
  { name: 'depthwise 3x3', from: 10, channels: 10, size: [28, 28], kernel: 3, groups: 10, over: 5, blocks: 14 },
  { name: 'depthwise 5x5, strided, channels in fours', batch: 5, from: 24, channels: 24, size: [29, 40], kernel: 5, stride: 2, groups: 24, over: 4, blocks: 5 },
  { name: 'over one axis', from: 8, channels: 48, size: [240], kernel: 3, over: 3, blocks: 8 },
  { name: 'over three axes', from: 4, channels: 16, size: [6, 6, 10], kernel: 1, over: 4, blocks: 6 },
  { name: 'after an activation', from: 8, channels: 24, size: [24, 10], kernel: 1, over: 6, after: (b, v) => b.mul(v, b.unary('sigmoid', v)), blocks: 8 },
  { name: 'beside a turned operand', batch: 1, from: 24, channels: 24, size: [16, 16], kernel: 1, over: 6, after: (b, v, x) => b.add(v, b.transpose(b.reshape(x, [24, 16, 16]), [0, 2, 1])), blocks: 8 },
  { name: 'in tiles, an operand of rows', from: 16, channels: 24, size: [16, 12], kernel: 3, over: 4, after: (b, v) => b.add(v, b.constant(random([24, 16, 1], 5))), blocks: 8 },
];

describe('a convolution that takes moments of its result along', () => {
  it.each(cases)('gives what the ops give: $name', ({ blocks, ...s }) => {
    const { graph, inputs } = network(s);
    const want = evaluate(graph, inputs).outputs;
    const fused = runPipeline(graph, wasmTarget, { verify: true });
    expect(joinedIn(fused).map((op) => op.attrs['momentBlocks'])).toEqual([blocks]);
    const program = plan(fused, { ...wasmTarget, sharedIo: false });
    for (const set of features) {
      const module = emitWasm(program, set, { validate: true });
      // 0xff everywhere is NaN, which no sum hides.
      const { memory, cells } = memoryFor(program, module, byName(program, inputs), { fill: 0xff });
      runHere(module.binary, memory);
      for (const o of program.graph.outputs) expect(difference(cells.read(o.value), want.get(o.name)!, 40), `${set} ${o.name}`).toBeUndefined();
    }
  });

  it('loses no digits of m2 to a mean of a thousand deviations', () => {
    const { graph, inputs } = network({ from: 8, channels: 32, size: [32, 32], kernel: 1, over: 8, offset: 3000 });
    const want = evaluate(graph, inputs).outputs.get('m2')!;
    const program = plan(runPipeline(graph, wasmTarget), { ...wasmTarget, sharedIo: false });
    const module = emitWasm(program, 'relaxed');
    const { memory, cells } = memoryFor(program, module, byName(program, inputs), { fill: 0xff });
    runHere(module.binary, memory);
    const found = cells.read(program.graph.outputs.find((o) => o.name === 'm2')!.value).data as Float32Array;
    // The results themselves are rounded to 2⁻¹² of their deviation; sums of squares would be off by 2⁻²⁴ · 10⁶.
    want.data.forEach((v, i) => expect(Math.abs(found[i]! / Number(v) - 1)).toBeLessThan(2 ** -10));
  });

  it('gives a sample the same bits on any number of threads and beside any others', async () => {
    const shape: Shape = { from: 16, channels: 64, size: [28, 28], kernel: 1, over: 32 };
    const run = async (batch: number, threads: number): Promise<{ mean: Float32Array; m2: Float32Array }> => {
      const { graph } = network({ ...shape, batch });
      const x = random([5, 16, 28, 28], 3);
      const artifact = await artifactOf({ graph: runPipeline(graph, wasmTarget), imported: { bound: {}, dims: {}, warnings: [] } });
      expect(artifact.manifest.steps.some((step) => step.name.startsWith('momentBlocks('))).toBe(true);
      await using session = await loadSession(artifact, { threads });
      const found = await session.run({ x: x.data.slice(0, batch * 16 * 28 * 28) });
      return { mean: (found['mean']!.data as Float32Array).slice(0, 32), m2: (found['m2']!.data as Float32Array).slice(0, 32) };
    };
    const first = await run(1, 1);
    for (const [batch, threads] of [[1, 2], [1, 3], [5, 1], [5, 2]] as const) expect(await run(batch, threads), `batch ${batch} on ${threads}`).toEqual(first);
  });
});

describe('fuse-moments', () => {
  const shape: Shape = { from: 8, channels: 24, size: [24, 10], kernel: 1, over: 6 };

  it('leaves moments alone where nothing says how kernels are cut, and those of small results', () => {
    expect(joinedIn(runPipeline(network(shape).graph, testTarget))).toEqual([]);
    expect(joinedIn(runPipeline(network({ ...shape, size: [12, 10] }).graph, wasmTarget))).toEqual([]);
  });
  it('takes moments of narrow groups in blocks behind other ops, too, and leaves groups that fill a cache line', () => {
    const turned = (groups: number, channels: number): Graph => {
      const b = new Builder('turned');
      const y = b.transpose(b.input({ dtype: 'f32', shape: [2, 24, 20, groups * channels] }, 'x'), [0, 3, 1, 2]);
      const [mean, m2] = b.op('moments', [b.reshape(y, [2, groups, channels, 24, 20])], { axes: [2, 3, 4] }) as [Value, Value];
      return b.finish([{ name: 'mean', value: mean }, { name: 'm2', value: m2 }]);
    };
    const graph = turned(4, 3);
    const [fused, lines] = [graph, turned(1, 16)].map((g) => runPipeline(g, wasmTarget, { verify: true })) as [Graph, Graph];
    expect(fused.ops.filter((op) => op.name === 'moments').map((op) => op.operands[0]!.type.shape)).toEqual([[2, 12, 8, 60]]);
    expect(lines.ops.filter((op) => op.name === 'moments').map((op) => op.operands[0]!.type.shape)).toEqual([[2, 1, 16, 24, 20]]);
    const inputs = { x: random([2, 24, 20, 12], 1) };
    const [want, found] = [evaluate(graph, inputs).outputs, evaluate(fused, inputs).outputs];
    for (const [name, tensor] of want) expect(difference(found.get(name)!, tensor, 40), name).toBeUndefined();
  });
  it('gives a graph that prints and parses back', () => {
    const printed = printGraph(runPipeline(network(shape).graph, wasmTarget));
    expect(graphText(parseGraph(printed.text, printed.tensors))).toBe(printed.text);
  });
  it('leaves convolutions alone whose kernel walks no whole blocks', () => {
    const within = { from: 8, channels: 24, size: [24, 10], kernel: 1, over: 6 };
    const rows = network({ ...within, after: (b, v) => b.add(v, b.constant(random([24, 24, 1], 5))) });
    const b = new Builder('blocks of an image');
    const x = b.input({ dtype: 'f32', shape: [2, 3, 96, 10] }, 'x');
    const y = b.one('conv', [x, b.constant(random([64, 3, 3, 3], 1))], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 });
    const [mean] = b.op('moments', [b.reshape(y, [2, 64, 20, 48])], { axes: [3] }) as [Value, Value];
    const across = { graph: b.finish([{ name: 'mean', value: mean }, { name: 'z', value: b.unary('abs', y) }]), inputs: { x: random(x.type.shape, 3) } };
    for (const { graph, inputs } of [rows, across]) {
      const fused = runPipeline(graph, wasmTarget, { verify: true });
      expect(joinedIn(fused)).toEqual([]);
      const program = plan(fused, { ...wasmTarget, sharedIo: false });
      const module = emitWasm(program, 'simd');
      const { memory, cells } = memoryFor(program, module, byName(program, inputs), { fill: 0xff });
      runHere(module.binary, memory);
      const want = evaluate(graph, inputs).outputs;
      for (const o of program.graph.outputs) expect(difference(cells.read(o.value), want.get(o.name)!, 40), o.name).toBeUndefined();
    }
  });
  it('is refused where the moments are not of blocks of the result that the kernel can cut', () => {
    const [op] = joinedIn(runPipeline(network(shape).graph, wasmTarget)) as [Op];
    const region = op.regions[0]!;
    const [conv, view, moments] = region.ops as [Op, Op, Op];
    expect(momentBlocksProblem(op)).toBeUndefined();
    expect(momentBlocksProblem({ ...op, regions: [{ ...region, ops: [conv, moments] }] })).toBe('a region of a convolution, a reshape and moments expected');
    expect(momentBlocksProblem({ ...op, attrs: { momentBlocks: 7 } })).toBe('the moments are not of 7 blocks of pixels of each channel');
    expect(momentBlocksProblem({ ...op, regions: [{ ...region, ops: [conv, { ...view, operands: [region.inputs[0]!] }, moments] }] })).toBe('the moments are not of the result of the convolution');
    expect(momentBlocksProblem({ ...op, regions: [{ ...region, outputs: region.outputs.slice(0, 2) }] })).toBe('the results are not those of the convolution and of the moments');
    const tiled = joinedIn(runPipeline(network({ ...shape, from: 16, channels: 24, size: [16, 12], kernel: 3 }).graph, wasmTarget))[0]!;
    const cut = tiled.regions[0]!.ops[1]!;
    const finer = { ...cut, results: [{ ...cut.results[0]!, type: { dtype: 'f32' as const, shape: [2, 24, 16, 12] } }] };
    const read = { ...tiled.regions[0]!.ops[2]!, operands: finer.results };
    expect(momentBlocksProblem({ ...tiled, attrs: { momentBlocks: 16 }, regions: [{ ...tiled.regions[0]!, ops: [tiled.regions[0]!.ops[0]!, finer, read] }] })).toBe('blocks of 12 pixels are no rows of tiles');
  });
});
