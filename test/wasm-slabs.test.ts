/** Norms and their backward passes slab by slab: when ops are joined, that they compute what they compute apart, and what shares memory. */
import { describe, expect, it } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { artifactOf } from '../cli/driver/compile.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { cutValues, slabsProblem } from '../ir/slabs.ts';
import { graphText, printGraph } from '../ir/text.ts';
import type { Target } from '../ir/tile.ts';
import type { Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { plan } from '../passes/plan.ts';
import { loadSession } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { difference, random } from './wasm-harness.ts';

const features: readonly Features[] = ['plain', 'simd', 'relaxed'];
const slabsIn = (graph: Graph): readonly Op[] => graph.ops.filter((op) => op.name === 'slabs');
const groups = 4;

interface Shape { readonly samples: number; readonly channels: number; readonly size: number; readonly last?: boolean }
const usual: Shape = { samples: 9, channels: 8, size: 33 };

/** `x` of a network whose values have channels first or last, and what it gives. */
function network(s: Shape, build: (b: Builder, x: Value, dy: Value) => Readonly<Record<string, Value>>): { graph: Graph; inputs: Record<string, Tensor> } {
  const { samples, channels, size } = s;
  const b = new Builder('slabs');
  const shape = s.last ? [samples, size, size, channels] : [samples, channels, size, size];
  const inputs = ['x', 'dy'].map((name) => b.input({ dtype: 'f32', shape }, name));
  // Values of the network's own, which die in it: a running sum mixes samples.
  const [x, dy] = inputs.map((v) => {
    const own = b.one('cumSum', [v], { axis: 0, exclusive: false, reverse: false });
    return s.last ? b.transpose(own, [0, 3, 1, 2]) : own;
  }) as [Value, Value];
  const results = build(b, x, dy);
  const graph = b.finish(Object.entries(results).map(([name, value]) => ({ name, value })));
  return { graph, inputs: { x: random(shape, 1), dy: random(shape, 2) } };
}

/** Scale and shift of a group norm of x, one number for each sample and channel. */
function affine(b: Builder, x: Value): readonly [Value, Value] {
  const [samples, channels, height, width] = x.type.shape as [number, number, number, number];
  const grouped = b.reshape(x, [samples, groups, channels / groups, height, width]);
  const [mean, m2] = b.op('moments', [grouped], { axes: [2, 3, 4] }) as [Value, Value];
  const variance = b.mul(m2, groups / (channels * height * width));
  const inverse = b.reshape(b.unary('rsqrt', b.add(variance, 1e-3)), [samples, groups, 1, 1, 1]);
  const gamma = b.reshape(b.constant(random([channels], 4)), [1, groups, channels / groups, 1, 1]);
  const scale = b.mul(inverse, gamma);
  const shift = b.unary('neg', b.mul(b.reshape(mean, [samples, groups, 1, 1, 1]), scale));
  return [b.reshape(scale, [samples, channels, 1, 1]), b.reshape(shift, [samples, channels, 1, 1])];
}

const norm = (b: Builder, x: Value): Value => {
  const [scale, shift] = affine(b, x);
  return b.add(b.mul(x, scale), shift);
};
const swish = (b: Builder, v: Value): Value => b.mul(v, b.unary('sigmoid', v));

/** The shape of the gradient of x behind a norm over one group with an activation: a tensor that sums read, and that what follows them reads again. */
function backward(b: Builder, x: Value, dy: Value): Value {
  const gradient = b.mul(dy, b.unary('sigmoid', x));
  const [samples] = x.type.shape as [number];
  const sums = b.reduce('reduceSum', gradient, [2, 3]);
  const products = b.reduce('reduceSum', b.mul(gradient, x), [2, 3]);
  const [p, q] = [sums, products].map((v) => b.reshape(b.reduce('reduceSum', v, [1]), [samples, 1, 1, 1])) as [Value, Value];
  return b.sub(gradient, b.add(b.mul(x, q), p));
}

const cases: readonly { readonly name: string; readonly shape: Shape; readonly joins: number; build(b: Builder, x: Value, dy: Value): Readonly<Record<string, Value>> }[] = [
  { name: 'a norm over groups, channels first', shape: usual, joins: 1, build: (b, x) => ({ y: b.unary('relu', norm(b, x)) }) },
  { name: 'a norm over groups, channels last', shape: { ...usual, last: true }, joins: 1, build: (b, x) => ({ y: swish(b, norm(b, x)) }) },
  { name: 'its statistics, read by others too', shape: usual, joins: 1, build: (b, x) => {
    const [scale, shift] = affine(b, x);
    return { y: b.add(b.mul(x, scale), shift), scale, sum: b.reduce('reduceSum', shift, [0]) };
  } },
  { name: 'a norm and the mean of what it gives', shape: { ...usual, last: true }, joins: 1, build: (b, x) => {
    const y = swish(b, norm(b, x));
    return { y: b.one('cumSum', [y], { axis: 0, exclusive: false, reverse: false }), mean: b.reduce('reduceSum', y, [2, 3]) };
  } },
  { name: 'a backward pass, channels first', shape: usual, joins: 1, build: (b, x, dy) => ({ dx: backward(b, x, dy) }) },
  { name: 'a backward pass, channels last', shape: { ...usual, last: true }, joins: 1, build: (b, x, dy) => ({ dx: b.one('cumSum', [backward(b, x, dy)], { axis: 0, exclusive: false, reverse: false }) }) },
  { name: 'as many samples as channels', shape: { samples: 8, channels: 8, size: 33 }, joins: 1, build: (b, x) => ({ y: norm(b, x) }) },
  { name: 'sums over samples, which are no slabs', shape: usual, joins: 0, build: (b, x) => {
    const mean = b.reshape(b.reduce('reduceSum', x, [0, 2, 3]), [1, x.type.shape[1]!, 1, 1]);
    return { y: b.sub(x, mean) };
  } },
  { name: 'what depends on all samples in between', shape: usual, joins: 0, build: (b, x) => {
    const sums = b.reduce('reduceSum', x, [1, 2, 3]);
    return { y: b.mul(x, b.reshape(b.one('cumSum', [sums], { axis: 0, exclusive: false, reverse: false }), [x.type.shape[0]!, 1, 1, 1])) };
  } },
];

describe('slabs', () => {
  it.each(cases)('compute what the ops compute: $name', async ({ shape, build, joins }) => {
    const { graph, inputs } = network(shape, build);
    const want = evaluate(graph, inputs).outputs;
    const fused = runPipeline(graph, wasmTarget, { verify: true });
    expect(slabsIn(fused)).toHaveLength(joins);
    const printed = printGraph(fused);
    expect(graphText(parseGraph(printed.text, printed.tensors))).toBe(printed.text);
    for (const set of features) {
      const artifact = await artifactOf({ graph: fused, imported: { bound: {}, dims: {}, warnings: [] } }, { features: [set] });
      const found: Record<string, Tensor>[] = [];
      for (const threads of [1, 3]) {
        await using session = await loadSession(artifact, { threads });
        found.push(await session.run(inputs));
      }
      for (const [name, tensor] of want) expect(difference(found[0]![name]!, tensor, 200), `${set} ${name}`).toBeUndefined();
      expect(found[1]).toEqual(found[0]);
    }
  });

  it('write a result over an operand that nothing reads any more, and what lies between into the memory of a result', () => {
    const { graph } = network({ ...usual, last: true }, (b, x, dy) => ({ dx: b.one('cumSum', [backward(b, x, dy)], { axis: 0, exclusive: false, reverse: false }) }));
    const program = plan(runPipeline(graph, wasmTarget), wasmTarget);
    const [op] = slabsIn({ ...graph, ops: program.entries[0]!.steps.flatMap((s) => ('op' in s ? [s.op] : [])) });
    const buffer = (v: Value): number => program.placements.get(v)!.buffer;
    const [dx] = op!.results as [Value];
    const over = op!.operands.filter((v) => buffer(v) === buffer(dx));
    // dy: x is read again after the first write of what becomes dx.
    expect(over).toHaveLength(1);
    const region = op!.regions[0]!;
    const inner = region.inputs[op!.operands.indexOf(over[0]!)]!;
    expect(region.ops.filter((o) => o.operands.includes(inner))).toHaveLength(1);
    expect(region.ops[0]!.operands).toContain(inner);
  });

  const joined = (s: Shape, target: Target): number => slabsIn(runPipeline(network(s, (b, x) => ({ y: norm(b, x) })).graph, target)).length;
  const tiles = (bytesPerTile: number): Target => ({ ...wasmTarget, division: { tiles: 16, bytesPerTile } });
  it('are made where a core has a cache that holds one, of samples enough and large enough', () => {
    const bytes = 4 * 8 * 33 * 33;
    expect(joined(usual, tiles(bytes / 4))).toBe(1);
    expect(joined(usual, tiles(bytes / 4 - 1))).toBe(0);
    expect(joined(usual, testTarget)).toBe(0);
    expect(joined({ ...usual, samples: 8 }, wasmTarget)).toBe(1);
    expect(joined({ ...usual, samples: 7 }, wasmTarget)).toBe(0);
    expect(joined({ ...usual, size: 31 }, wasmTarget)).toBe(0);
  });

  it('are refused where an op mixes samples, or a value is whole and cut', () => {
    const fused = runPipeline(network(usual, (b, x) => ({ y: norm(b, x) })).graph, wasmTarget);
    const [op] = slabsIn(fused) as [Op];
    const region = op.regions[0]!;
    expect(slabsProblem(op)).toBeUndefined();
    expect(slabsProblem({ ...op, attrs: { slabs: 1 } })).toBe('1 slabs are none');
    expect(slabsProblem({ ...op, attrs: { slabs: 5 } })).toContain('is no part of a slab');
    const b = new Builder('mixed');
    const x = b.input({ dtype: 'f32', shape: [9, 9] }, 'x');
    const sum = b.one('cumSum', [x], { axis: 0, exclusive: false, reverse: false });
    const mixed = b.finish([{ name: 'y', value: sum }]);
    expect(cutValues(mixed.ops, 9)).toBe('cumSum is not computed in slabs');
    expect(slabsProblem({ ...op, regions: [{ ...region, ops: [...region.ops, ...mixed.ops] }] })).toBe('cumSum is not computed in slabs');
    const c = new Builder('whole');
    const v = c.input({ dtype: 'f32', shape: [9] }, 'v');
    const whole = c.finish([{ name: 'y', value: c.binary('mul', c.unary('neg', v), c.input({ dtype: 'f32', shape: [9, 9] }, 'w')) }]);
    expect(cutValues(whole.ops, 9)).toBe('mul reads the whole of what is cut into slabs');
    expect(() => verify({ ...fused, ops: fused.ops.map((o) => (o === op ? { ...op, attrs: { slabs: 5 } } : o)) })).toThrow('is no part of a slab');
  });
});
