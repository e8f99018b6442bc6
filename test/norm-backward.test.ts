/** The backward pass of a norm's affine and an activation: two passes over its input and the gradient of its result, and sums over pixels in blocks of rows. */
import { describe, expect, test } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { sizeOf, tensorType, type Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { passes, runPipeline } from '../passes/pipeline.ts';
import { differentiate } from '../passes/train/differentiate.ts';
import { randomArray, randomNumbers } from './contract-harness.ts';
import { programOf, runOnce } from './wasm-harness.ts';

const random = (shape: readonly number[], seed: number): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from(randomArray(sizeOf(shape), randomNumbers(seed))) });
const large = (v: Value): boolean => sizeOf(v.type.shape) >= 4096;

/** Gradients of x, a and c of Σ dy · φ(x · a + c), whose result a move reads and a product multiplies by `skip`. */
function affineGradients(x: Tensor, dy: Tensor, activate: (b: Builder, z: Value) => Value): Graph {
  const b = new Builder('g');
  const perChannel = [x.shape[0]!, x.shape[1]!, 1, 1];
  const d = b.input(tensorType('f32', dy.shape), 'dy');
  const [xs, a, c] = [x, random(perChannel, 3), random(perChannel, 4)].map((t, i) => b.state('xac'[i]!, t, t)) as [Value, Value, Value];
  const y = activate(b, b.add(b.mul(xs, a), c));
  const back = b.transpose(y, [0, 2, 3, 1]);
  const loss = b.reduce('reduceSum', b.mul(back, b.transpose(d, [0, 2, 3, 1])), [0, 1, 2, 3]);
  return differentiate({ ...b.finish([{ name: 'loss', value: loss }, { name: 'y', value: back }]), updates: [xs, a, c].map((v) => ({ state: v, value: v })) });
}

test('the gradient behind a cheap activation is computed where it is read, from the input and the gradient of the result, and never stored', () => {
  const [x, dy] = [random([4, 16, 8, 8], 1), random([4, 16, 8, 8], 2)];
  const graph = affineGradients(x, dy, (b, z) => b.unary('relu', z));
  const after = runPipeline(graph, wasmTarget, { passes: passes.slice(passes.findIndex((p) => p.name === 'rebuild-cheap-values')) });
  verify(after);
  const [want, got] = [evaluate(graph, { dy }).outputs, evaluate(after, { dy }).outputs];
  for (const [name, t] of want) t.data.forEach((v, i) => expect(Number(got.get(name)!.data[i])).toBeCloseTo(Number(v), 4));
  const sums = after.ops.filter((op) => op.name === 'fused' && op.attrs['kind'] === 'row');
  expect(sums.map((op) => op.operands.filter(large).length)).toEqual([2]);
  expect(sums[0]!.results.some(large)).toBe(false);
  const dx = after.ops.find((op) => op.results.includes(after.outputs.find((o) => o.name === 'x.grad')!.value))!;
  expect(dx.results.filter(large)).toHaveLength(1);
  expect(dx.operands.filter(large).filter((v) => !sums[0]!.operands.includes(v))).toHaveLength(0);
});

describe.each(['simd', 'relaxed'] satisfies Features[])('sums over pixels with channels side by side, %s', (features) => {
  // 323 rows are ten blocks and a rest; 272 with 256 channels, blocks of 8.
  test.each([{ full: [8, 64, 17, 19] }, { full: [8, 256, 16, 17] }, { full: [2, 4, 128, 18, 18] }])('of $full', ({ full }) => {
    const lead = full.length - 2;
    const dropped = full.slice(0, lead);
    const region = new Builder('region');
    const [x, dy] = [0, 1].map(() => region.input(tensorType('f32', full))) as [Value, Value];
    const a = region.input(tensorType('f32', [...dropped, 1, 1]));
    const g = region.op('select', [region.op('gt', [region.mul(x, a), region.scalar(0, 'f32')])[0]!, dy, region.scalar(0, 'f32')])[0]!;
    const axes = [lead, lead + 1];
    const results = [region.reduce('reduceSum', g, axes), region.mul(region.reduce('reduceSum', region.mul(g, x), axes), 0.5)];
    const body = region.finish(results.map((value, i) => ({ name: `o${i}`, value })));
    const outer = new Builder('graph');
    outer.op('fused', [x, dy, a].map((v) => outer.input(v.type)), { kind: 'row' }, [body]);
    const op = outer.ops[0]!;
    const given = [random(full, 5), random(full, 6), random([...dropped, 1, 1], 7)];
    const order = [...dropped.keys()].slice(0, -1);
    const sideBySide = { order: [...order, lead, lead + 1, lead - 1], gap: 0 };
    const program = programOf(op, [sideBySide, sideBySide, undefined, undefined, undefined]);
    const got = runOnce(program, new Map(op.operands.map((v, i) => [v, given[i]!])), features).results;
    const area = full.at(-1)! * full.at(-2)!;
    const [xs, ds, as] = given.map((t) => t.data as Float32Array) as [Float32Array, Float32Array, Float32Array];
    for (let row = 0; row < sizeOf(dropped); row++) {
      let [sum, moment] = [0, 0];
      for (let i = row * area; i < (row + 1) * area; i++) {
        if (xs[i]! * as[row]! <= 0) continue;
        sum += ds[i]!;
        moment += ds[i]! * xs[i]!;
      }
      expect(Number(got[0]!.data[row])).toBeCloseTo(sum, 3);
      expect(Number(got[1]!.data[row])).toBeCloseTo(moment / 2, 3);
    }
  });
});
