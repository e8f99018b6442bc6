/** Fused regions through the wasm backend against the interpreter, in several layouts and on all feature sets. */
import { describe, expect, it } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import { fusedProblem } from '../ir/fused.ts';
import type { Op, Value } from '../ir/graph.ts';
import { tensorType, type DType } from '../ir/type.ts';
import { difference, programOf, random, runOnce, type Layout } from './wasm-harness.ts';

const features: readonly Features[] = ['plain', 'simd', 'relaxed'];

/** A fused op over inputs of the given shapes. */
function fused(kind: string, dtype: DType, shapes: readonly (readonly number[])[], build: (b: Builder, xs: readonly Value[]) => readonly Value[]): Op {
  const r = new Builder('region');
  const results = build(r, shapes.map((s) => r.input(tensorType(dtype, s))));
  const region = r.finish(results.map((value, i) => ({ name: `o${i}`, value })));
  const b = new Builder('graph');
  b.op('fused', shapes.map((s) => b.input(tensorType(dtype, s))), { kind }, [region]);
  const op = b.ops[0]!;
  expect(fusedProblem(op)).toBeUndefined();
  return op;
}

const last = (rank: number): Layout => ({ order: [0, ...Array.from({ length: rank - 2 }, (_, i) => i + 2), 1], gap: 0 });
const kept = (x: Value, axes: readonly number[]): number[] => x.type.shape.map((d, i) => (axes.includes(i) ? 1 : d));
const count = (x: Value, axes: readonly number[]): number => axes.reduce((n, a) => n * x.type.shape[a]!, 1);

function softmax(b: Builder, x: Value, axis: number): Value {
  const e = b.unary('exp', b.binary('sub', x, b.reduce('reduceMax', x, [axis], true)));
  return b.div(e, b.reduce('reduceSum', e, [axis], true));
}
function norm(b: Builder, x: Value, axes: readonly number[], gain?: Value, shift?: Value): Value {
  const [mean, m2] = b.op('moments', [x], { axes }) as [Value, Value];
  const scale = b.unary('rsqrt', b.add(b.mul(m2, 1 / count(x, axes)), 1e-3));
  const y = b.mul(b.binary('sub', x, b.reshape(mean, kept(x, axes))), b.reshape(scale, kept(x, axes)));
  return gain && shift ? b.add(b.mul(y, gain), shift) : y;
}

interface Case {
  readonly name: string;
  readonly kind: string;
  readonly shapes: readonly (readonly number[])[];
  readonly build: (b: Builder, xs: readonly Value[]) => readonly Value[];
  readonly slack?: number;
}

const image = [2, 21, 9, 7];
const channel = [21, 1, 1];
const cases: readonly Case[] = [
  { name: 'a chain with broadcasts', kind: 'map', shapes: [image, channel, [1], [2, 1, 1, 1]], build: (b, [x, c, s, n]) => [b.unary('relu', b.add(b.mul(x!, c!), b.mul(s!, n!)))] },
  { name: 'two results that share a part', kind: 'map', shapes: [image, image], build: (b, [x, y]) => { const s = b.add(x!, y!); return [b.mul(s, s), b.unary('sigmoid', s)]; } },
  { name: 'masks and a constant', kind: 'map', shapes: [image, image], build: (b, [x, y]) => [b.select(b.binary('lt', x!, y!), b.pow(x!, 2), b.max(y!, 0.25))] },
  { name: 'a power, a clamp and a hard sigmoid', kind: 'map', shapes: [image], build: (b, [x]) => [b.mul(x!, b.one('clamp', [b.add(b.mul(x!, 1 / 6), 0.5), b.scalar(0, x!.type.dtype), b.scalar(1, x!.type.dtype)]))] },
  { name: 'softmax over the last axis', kind: 'row', shapes: [[5, 3, 37]], build: (b, [x]) => [softmax(b, x!, 2)] },
  { name: 'softmax over few', kind: 'row', shapes: [[50, 3]], build: (b, [x]) => [softmax(b, x!, 1)] },
  { name: 'softmax over channels', kind: 'row', shapes: [image], build: (b, [x]) => [softmax(b, x!, 1)] },
  { name: 'softmax of a masked, scaled product', kind: 'row', shapes: [[2, 3, 19, 23], [19, 23]], build: (b, [x, mask]) => [softmax(b, b.add(b.mul(x!, 0.125), mask!), 3)] },
  { name: 'layer norm with gain and shift', kind: 'row', shapes: [[17, 70], [70], [70]], build: (b, [x, g, h]) => [norm(b, x!, [1], g, h)] },
  { name: 'layer norm over channels', kind: 'row', shapes: [image, channel, channel], build: (b, [x, g, h]) => [norm(b, x!, [1], g, h)] },
  { name: 'instance norm', kind: 'row', shapes: [image, channel, channel], build: (b, [x, g, h]) => [norm(b, x!, [2, 3], g, h)] },
  { name: 'group norm of five axes', kind: 'row', shapes: [[2, 3, 7, 5, 6]], build: (b, [x]) => [norm(b, x!, [2, 3, 4])] },
  { name: 'a residual sum, its layer norm, and both as results', kind: 'row', shapes: [[17, 70], [17, 70]], build: (b, [x, y]) => { const s = b.add(x!, y!); return [norm(b, s, [1]), s]; } },
  {
    name: 'log of a sum of exponentials', kind: 'row', shapes: [[30, 45]], build: (b, [x]) => {
      const top = b.reduce('reduceMax', x!, [1]);
      const e = b.unary('exp', b.binary('sub', x!, b.reshape(top, [30, 1])));
      return [b.add(b.unary('log', b.reduce('reduceSum', e, [1])), top)];
    },
  },
  { name: 'a mean of squares', kind: 'reduce', shapes: [[6, 33, 10]], build: (b, [x]) => [b.unary('sqrt', b.mul(b.reduce('reduceSum', b.mul(x!, x!), [1]), 1 / 33))] },
  { name: 'a mean over the image with an epilogue', kind: 'reduce', shapes: [image, [21]], build: (b, [x, c]) => [b.unary('tanh', b.add(b.mul(b.reduce('reduceSum', x!, [2, 3]), 1 / 63), c!))] },
  { name: 'a product with a prologue operand', kind: 'reduce', shapes: [[40, 50], [50]], build: (b, [x, w]) => [b.reduce('reduceSum', b.mul(x!, w!), [1])] },
  { name: 'both moments', kind: 'reduce', shapes: [[8, 31, 5]], build: (b, [x]) => b.op('moments', [x!], { axes: [1] }) },
  {
    name: 'a max pool with ops before and after it', kind: 'reduce', shapes: [image, channel, channel], build: (b, [x, g, h]) => {
      const [y] = b.op('maxPool', [b.unary('relu', b.mul(x!, g!))], { kernel: [3, 2], strides: [2, 1], pads: [1, 0, 1, 1], dilations: [1, 1] });
      return [b.add(y!, h!)];
    },
  },
  {
    name: 'an average pool', kind: 'reduce', shapes: [image], build: (b, [x]) => [b.mul(b.one('sumPool', [x!], { kernel: [2, 2], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1] }), 0.25)],
  },
  {
    name: 'a max pool and what is made of it', kind: 'reduce', shapes: [image, channel], build: (b, [x, c]) => {
      const [y, positions] = b.op('maxPool', [x!], { kernel: [2, 2], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1] }) as [Value, Value];
      return [b.add(y, c!), positions];
    },
  },
];

describe('fused regions', () => {
  for (const c of cases) {
    for (const dtype of ['f32', 'f64', 'f16'] as const) {
      it(`${c.name}, ${dtype}`, () => {
        const op = fused(c.kind, dtype, c.shapes, c.build);
        const inputs = c.shapes.map((s, i) => random(s, i + 1, dtype));
        const given = new Map(op.operands.map((v, i) => [v, inputs[i]!]));
        const graph = { name: 'g', inputs: op.operands, state: [], ops: [op], outputs: op.results.map((value, i) => ({ name: `o${i}`, value })), updates: [] };
        const want = evaluate(graph, given).outputs;
        const all = [...op.operands, ...op.results];
        const planar = all.map(() => undefined);
        const channels = all.map((v) => (v.type.shape.length >= 4 ? last(v.type.shape.length) : undefined));
        const mixed = all.map((v, i) => (i === 0 && v.type.shape.length >= 2 ? { order: v.type.shape.map((_, k) => k).reverse(), gap: 1 } : undefined));
        for (const layout of [planar, channels, mixed]) {
          for (const set of dtype === 'f32' ? features : (['simd'] as const)) {
            const { results } = runOnce(programOf(op, layout), given, set);
            results.forEach((got, i) => expect(difference(got, want.get(`o${i}`)!, dtype === 'f16' ? 3 : 2), `${c.name} on ${set}`).toBeUndefined());
          }
        }
      });
    }
  }

  it('a chain may write where its operand lies', () => {
    const op = fused('map', 'f32', [[3, 1003], [1003]], (b, [x, c]) => [b.unary('sigmoid', b.add(x!, c!)), b.mul(x!, c!)]);
    const inputs = [random([3, 1003], 1), random([1003], 2)];
    const given = new Map(op.operands.map((v, i) => [v, inputs[i]!]));
    const apart = programOf(op, []);
    const together = { ...apart, placements: new Map(apart.placements).set(op.results[1]!, apart.placements.get(op.operands[0]!)!) };
    for (const set of features) expect(runOnce(together, given, set).results.map((t) => t.data)).toEqual(runOnce(apart, given, set).results.map((t) => t.data));
  });
});
