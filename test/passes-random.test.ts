import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { graphText } from '../ir/text.ts';
import { isFloat } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { generator } from '../ir/generator.ts';
import { difference, randomInputs, randomTensor } from './ir/tensors.ts';
import { testTarget } from './ir/target.ts';

/** Graphs of a few dozen ops over [3,4], its rows, columns and transposes, with every kind of thing that the passes move and fuse. */
function randomGraph(random: () => number): Graph {
  const b = new Builder('random');
  const pick = <T>(xs: readonly T[]): T => xs[Math.floor(random() * xs.length)]!;
  const f32 = (...shape: number[]): { dtype: 'f32'; shape: number[] } => ({ dtype: 'f32', shape });
  const values: Value[] = [
    b.input(f32(3, 4), 'x'), b.input(f32(4), 'y'), b.input(f32(4, 4), 'z'),
    b.state('w', f32(4, 4), randomTensor(f32(4, 4), random)), b.state('s', f32(4), randomTensor(f32(4), random)), b.scalar(0.5, 'f32'), b.scalar(1, 'f32'), b.scalar(0, 'f32'),
  ];
  const of = (test: (v: Value) => boolean): Value => pick(values.filter(test));
  const rank2 = (v: Value): boolean => v.type.shape.length === 2;
  const makers: (() => Value)[] = [
    () => b.unary(pick(['neg', 'relu', 'sigmoid', 'tanh', 'abs', 'erf']), pick(values)),
    () => {
      const [p, q] = [pick(values), pick(values)];
      return b.one(pick(['add', 'sub', 'mul', 'max', 'min']), [p, q]);
    },
    () => b.one(pick(['add', 'mul']), [of(rank2), pick(values)]),
    () => b.contract(pick(['mk,kn->mn', 'mk,kn->nm', 'mk,nk->mn']), of((v) => rank2(v) && v.type.shape[1] === 4), of((v) => rank2(v) && v.type.shape[0] === 4 && v.type.shape[1] === 4)),
    () => b.transpose(of(rank2), [1, 0]),
    () => {
      const v = of(rank2);
      return b.reshape(v, pick([[v.type.shape[0]! * v.type.shape[1]!], [1, ...v.type.shape], [v.type.shape[0]!, 2, v.type.shape[1]! / 2]].filter((s) => s.every(Number.isInteger))));
    },
    () => {
      const v = of((t) => t.type.shape.length > 0);
      const axis = Math.floor(random() * v.type.shape.length);
      return b.reduce(pick(['reduceSum', 'reduceMax']), v, [axis], random() < 0.7);
    },
    () => {
      const v = of(rank2);
      const [mean, m2] = b.op('moments', [v], { axes: [1] }) as [Value, Value];
      const column = [v.type.shape[0]!, 1];
      return b.mul(b.sub(v, b.reshape(mean, column)), b.unary('rsqrt', b.add(b.reshape(m2, column), 1)));
    },
    () => b.concat([of((v) => v.type.shape.length === 1), of((v) => v.type.shape.length === 1)], 0),
    () => b.select(b.one('lt', [pick(values.filter((v) => isFloat(v.type.dtype))), b.scalar(0, 'f32')]), 1, 2),
  ];
  for (let i = 0; i < 30; i++) {
    try {
      const v = pick(makers)();
      if (v.type.dtype === 'f32' && v.type.shape.length < 4) values.push(v);
    } catch {
      // Shapes that do not broadcast: try something else.
    }
  }
  const outputs = values.slice(8).filter((v, i, all) => i === all.length - 1 || random() < 0.1);
  return b.finish(outputs.map((value, i) => ({ name: `o${i}`, value })));
}

/** Values stay below a few thousand by their making, except for chains of products: those are compared relative to the largest element. */
const tolerance = 2e-4;

describe('the passes keep what random graphs compute', () => {
  it.each(Array.from({ length: 8 }, (_, i) => i))('block %i of 25 graphs', (block) => {
    for (let i = 0; i < 25; i++) {
      const random = generator(1000 + block * 25 + i);
      const graph = randomGraph(random);
      const inputs = randomInputs(graph, random);
      const want = evaluate(graph, inputs).outputs;
      const got = evaluate(runPipeline(graph, testTarget, { verify: true }), inputs).outputs;
      for (const [name, tensor] of want) {
        const largest = (tensor.data as Float32Array).reduce((m, x) => Math.max(m, Math.abs(x)), 1);
        expect(difference(got.get(name)!, tensor, tolerance, tolerance * largest), graphText(graph)).toBeUndefined();
      }
    }
  });
});
