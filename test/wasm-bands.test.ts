/** Expansions and depthwise convolutions in bands: when they are joined, and that they compute what the two ops compute. */
import { describe, expect, it } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { emitWasm } from '../backends/wasm/module.ts';
import { artifactOf } from '../cli/driver/compile.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { bandsOf, bandsProblem } from '../ir/bands.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { graphText, printGraph } from '../ir/text.ts';
import type { Target } from '../ir/tile.ts';
import type { Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { plan } from '../passes/plan.ts';
import { load } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { byName, difference, memoryFor, random, runHere } from './wasm-harness.ts';

const features: readonly Features[] = ['plain', 'simd', 'relaxed', 'wide'];

interface Shape {
  readonly batch?: number;
  readonly from: number;
  readonly channels: number;
  readonly size: readonly [number, number];
  readonly kernel: readonly [number, number];
  readonly strides?: readonly number[];
  readonly pads?: readonly number[];
  readonly dilations?: readonly number[];
  /** What follows the first and the second convolution. */
  readonly after?: (b: Builder, v: Value) => Value;
  readonly afterSecond?: (b: Builder, v: Value) => Value;
}

/** A 1x1 convolution and a depthwise one, each with a bias. */
function block(s: Shape, extra?: (b: Builder, between: Value) => Value): { graph: Graph; inputs: Record<string, Tensor> } {
  const b = new Builder('block');
  const x = b.input({ dtype: 'f32', shape: [s.batch ?? 1, s.from, ...s.size] }, 'x');
  const attrs = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], groups: 1 };
  const point = b.binary('add', b.one('conv', [x, b.constant(random([s.channels, s.from, 1, 1], 1))], attrs), b.constant(random([s.channels, 1, 1], 2)));
  const between = (s.after ?? ((builder, v) => builder.unary('relu', v)))(b, point);
  const depth = b.one('conv', [between, b.constant(random([s.channels, 1, ...s.kernel], 3))], {
    strides: s.strides ?? [1, 1], pads: s.pads ?? [1, 1, 1, 1], dilations: s.dilations ?? [1, 1], groups: s.channels,
  });
  const biased = b.binary('add', depth, b.constant(random([s.channels, 1, 1], 4)));
  const y = s.afterSecond ? s.afterSecond(b, biased) : biased;
  const outputs = [{ name: 'y', value: y }, ...(extra ? [{ name: 'z', value: extra(b, between) }] : [])];
  return { graph: b.finish(outputs), inputs: { x: random(x.type.shape, 5) } };
}

const caches = (bytes: number): Target => ({ ...testTarget, division: { tiles: 16, bytesPerTile: bytes / 2 } });
const bandsIn = (graph: Graph): Op[] => graph.ops.filter((op) => op.name === 'bands');

function computed(graph: Graph, target: Target, inputs: Readonly<Record<string, Tensor>>, set: Features): { bands: number; results: Tensor[] } {
  const fused = runPipeline(graph, target);
  const program = plan(fused, { ...target, sharedIo: false });
  const module = emitWasm(program, set, { validate: true });
  // 0xff everywhere is NaN, which no sum hides.
  const { memory, cells } = memoryFor(program, module, byName(program, inputs), { fill: 0xff });
  runHere(module.binary, memory);
  return { bands: bandsIn(fused).length, results: program.graph.outputs.map((o) => cells.read(o.value)) };
}

const swish = (b: Builder, v: Value): Value => b.mul(v, b.unary('sigmoid', v));
const cases: readonly (Shape & { readonly name: string })[] = [
  { name: '3x3', from: 8, channels: 24, size: [24, 10], kernel: [3, 3] },
  { name: '3x3/2, odd sizes', from: 5, channels: 21, size: [23, 11], kernel: [3, 3], strides: [2, 2] },
  { name: '3x3/2, padded below alone', from: 8, channels: 16, size: [24, 12], kernel: [3, 3], strides: [2, 2], pads: [0, 0, 1, 1] },
  { name: '5x5 after swish', from: 4, channels: 12, size: [32, 9], kernel: [5, 5], pads: [2, 2, 2, 2], after: swish, afterSecond: swish },
  { name: 'dilated, no padding', from: 6, channels: 12, size: [40, 8], kernel: [3, 3], pads: [0, 0, 0, 0], dilations: [2, 1] },
  { name: 'rows skipped between bands', from: 4, channels: 8, size: [40, 8], kernel: [1, 3], strides: [3, 1], pads: [0, 1, 0, 1] },
  { name: 'a batch of 3', batch: 3, from: 8, channels: 24, size: [20, 10], kernel: [3, 3] },
  { name: 'operands of epilogues that vary by image and row', batch: 2, from: 8, channels: 12, size: [24, 10], kernel: [3, 3],
    after: (b, v) => b.binary('add', v, b.constant(random([2, 12, 24, 1], 6))), afterSecond: (b, v) => b.binary('mul', v, b.constant(random([24, 10], 7))) },
];

describe('an expansion and its depthwise convolution in bands', () => {
  it.each(cases)('computes what the two ops compute: $name', (s) => {
    const { graph, inputs } = block(s);
    const want = evaluate(graph, inputs).outputs.get('y')!;
    for (const set of features) {
      const { bands, results } = computed(graph, caches(4 * (s.batch ?? 1) * s.channels * s.size[0] * s.size[1] - 1), inputs, set);
      expect(bands).toBe(1);
      expect(difference(results[0]!, want, 8), set).toBeUndefined();
    }
  });

  it('is formed for the target of compile, and gives the same bits on any number of threads', async () => {
    const { graph, inputs } = block({ from: 4, channels: 48, size: [112, 112], kernel: [3, 3], strides: [2, 2] });
    const artifact = await artifactOf({ graph: runPipeline(graph, wasmTarget), imported: { bound: {}, dims: {}, warnings: [] } });
    expect(artifact.manifest.steps.map((s) => s.name)).toContain('bands(contract(convPacked add relu) contract(convPacked add))');
    const want = evaluate(graph, inputs).outputs.get('y')!;
    const found: Tensor[] = [];
    for (const threads of [1, 2, 3]) {
      await using session = await load(artifact, { threads });
      found.push((await session.run({ x: inputs['x']! }))['y']!);
    }
    expect(difference(found[0]!, want, 8)).toBeUndefined();
    expect(found[1]).toEqual(found[0]);
    expect(found[2]).toEqual(found[0]);
  });
});

describe('fuse-bands', () => {
  const shape: Shape = { from: 8, channels: 24, size: [24, 10], kernel: [3, 3] };
  const bytes = 24 * 24 * 10 * 4;
  const count = (graph: Graph, target: Target): number => bandsIn(runPipeline(graph, target)).length;

  it('joins where the value in between does not stay in the cache, and only there', () => {
    const { graph } = block(shape);
    expect(count(graph, caches(bytes - 1))).toBe(1);
    expect(count(graph, caches(bytes))).toBe(0);
    expect(count(graph, testTarget)).toBe(0);
  });
  it('leaves a value alone that something else reads, or that is an output', () => {
    expect(count(block(shape, (b, between) => b.reduce('reduceMax', between, [2, 3], false)).graph, caches(bytes - 1))).toBe(0);
    expect(count(block(shape, (_, between) => between).graph, caches(bytes - 1))).toBe(0);
  });
  it('leaves them apart where rows computed twice cost more than reading saves', () => {
    // 8 bands of 3 rows read 5 each: 14 rows of 24 again, of 4/15 ns a byte saved against 1/27 ns a multiply-add.
    expect(count(block({ ...shape, from: 12 }).graph, caches(bytes - 1))).toBe(1);
    expect(count(block({ ...shape, from: 13 }).graph, caches(bytes - 1))).toBe(0);
  });
  it('cuts so that half the cache holds a band, and into 8 at least', () => {
    const bands = (cache: number): unknown => bandsIn(runPipeline(block({ ...shape, from: 2 }).graph, caches(cache)))[0]?.attrs['bands'];
    expect(bands(bytes - 1)).toBe(8);
    // A band of 2 result rows reads 4.
    expect(bands(2 * 4 * 24 * 10 * 4)).toBe(12);
  });
  it('gives a graph that verifies, prints and parses back', () => {
    const fused = runPipeline(block(shape).graph, caches(bytes - 1));
    expect(() => verify(fused)).not.toThrow();
    const printed = printGraph(fused);
    expect(graphText(parseGraph(printed.text, printed.tensors))).toBe(printed.text);
  });
  it('is refused where the first convolution is not of pixels, or the second not depthwise', () => {
    const [op] = bandsIn(runPipeline(block(shape).graph, caches(bytes - 1))) as [Op];
    const region = op.regions[0]!;
    const [first, second] = region.ops as [Op, Op];
    expect(bandsProblem(op)).toBeUndefined();
    expect(bandsProblem({ ...op, regions: [{ ...region, ops: [first] }] })).toBe('a region of two ops expected, 1 found');
    expect(bandsProblem({ ...op, regions: [{ ...region, ops: [second, second] }] })).toBe('the first convolution is not of 1x1 pixels');
    const other = { ...second, operands: second.operands.with(0, first.operands[0]!) };
    expect(bandsProblem({ ...op, regions: [{ ...region, ops: [first, other] }] })).toContain('does not read the first');
    expect(bandsProblem({ ...op, attrs: { bands: 0 } })).toBe('the result cannot be cut into 0 bands');
  });
});

describe('bands of rows', () => {
  it('read every row that their kernel meets, and no other', () => {
    for (const [height, kernel, stride, pad, dilation, bands] of [[24, 3, 1, 1, 1, 8], [23, 3, 2, 1, 1, 5], [24, 3, 2, 0, 1, 4], [40, 3, 1, 4, 2, 7], [31, 5, 3, 2, 1, 3], [9, 3, 1, 1, 1, 1]] as const) {
      const { graph } = block({ from: 2, channels: 4, size: [height, 5], kernel: [kernel, 3], strides: [stride, 1], pads: [pad, 1, pad, 1], dilations: [dilation, 1] });
      const second = runPipeline(graph, testTarget).ops.findLast((op) => op.name === 'fused')!;
      const result = second.results[0]!.type.shape[2]!;
      const list = bandsOf(second, bands)!;
      expect(list.flatMap((b) => Array.from({ length: b.count }, (_, i) => b.first + i))).toEqual(Array.from({ length: result }, (_, i) => i));
      for (const b of list) {
        const met = new Set<number>();
        for (let y = b.first; y < b.first + b.count; y++) for (let t = 0; t < kernel; t++) met.add(y * stride - pad + t * dilation);
        const inside = [...met].filter((r) => r >= 0 && r < height);
        expect([b.from, b.from + b.rows - 1]).toEqual([Math.min(...inside), Math.max(...inside)]);
        expect([b.above, b.below]).toEqual([Math.max(0, -Math.min(...met)), Math.max(0, Math.max(...met) - height + 1)]);
      }
    }
  });
});
