/** Branches and loops whose condition is known at run time only, on a GPU. */
import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { load } from '../runtime/index.ts';
import { difference } from './wasm-harness.ts';
import { compiled, gpu, numbers, onGpu, runOnGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

const f32 = (...shape: number[]): Value['type'] => ({ dtype: 'f32', shape });
const flag = (x: boolean): Tensor => ({ dtype: 'bool', shape: [], data: Uint8Array.of(x ? 1 : 0) });
const whole = (n: number): Tensor => ({ dtype: 'i64', shape: [], data: BigInt64Array.of(BigInt(n)) });
const scalar = (x: number): Tensor => ({ dtype: 'f32', shape: [], data: Float32Array.of(x) });

/** A region over captured values. */
function region(name: string, types: readonly Value['type'][], make: (b: Builder, inputs: readonly Value[]) => readonly Value[]): Graph {
  const b = new Builder(name);
  const inputs = types.map((t) => b.input(t));
  return b.finish(make(b, inputs).map((value, i) => ({ name: `o${i}`, value })));
}

async function agrees(graph: Graph, inputs: Readonly<Record<string, Tensor>>): Promise<void> {
  const got = await runOnGpu(graph, inputs);
  for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${difference(got.get(name)!, want, 8)}`).toBe(`${name}: undefined`);
}

/** c ? relu(x w) : -x, and after it + 1. */
function choice(): Graph {
  const b = new Builder('choice');
  const [c, x, w] = [b.input({ dtype: 'bool', shape: [] }, 'c'), b.input(f32(70, 70), 'x'), b.input(f32(70, 70), 'w')];
  const then = region('then', [x.type, w.type], (r, [p, q]) => [r.unary('relu', r.one('contract', [p!, q!], { spec: 'mk,kn->mn' }))]);
  const otherwise = region('else', [x.type, w.type], (r, [p]) => [r.unary('neg', p!)]);
  const [y] = b.op('if', [c, x, w], {}, [then, otherwise]);
  return b.finish([{ name: 'y', value: b.add(y!, 1) }]);
}

/** Doubles x until its sum passes a limit, at most so many rounds: an inner choice halves it where its sum is negative. */
function growth(rounds: (b: Builder) => Value): Graph {
  const body = region('body', [{ dtype: 'i64', shape: [] }, f32(40), f32()], (r, [, s, most]) => {
    const sum = r.reduce('reduceSum', s!, [0]);
    const [next] = r.op('if', [r.binary('lt', sum, 0), s!], {}, [region('then', [f32(40)], (i, [v]) => [i.mul(v!, -0.5)]), region('else', [f32(40)], (i, [v]) => [i.mul(v!, 2)])]);
    return [r.binary('lt', r.reduce('reduceSum', next!, [0]), most!), next!];
  });
  const b = new Builder('growth');
  const limit = rounds(b);
  const [x, most, go] = [b.input(f32(40), 'x'), b.input(f32(), 'most'), b.input({ dtype: 'bool', shape: [] }, 'go')];
  const [y] = b.op('loop', [limit, go, x, most], { trips: -1, carried: 1, scans: 0 }, [body]);
  return b.finish([{ name: 'y', value: b.unary('abs', y!) }]);
}

const line = (value: number): Tensor => ({ dtype: 'f32', shape: [40], data: new Float32Array(40).fill(value) });

describe.skipIf(!gpu)(onGpu('a branch'), { timeout: 120_000 }, () => {
  test('runs the side that its condition says, run after run of one session', async () => {
    const graph = choice();
    const [x, w] = [numbers([70, 70]), numbers([70, 70])];
    await using session = await load(await compiled(graph), { gpu: gpu! });
    for (const c of [true, false, true]) {
      const want = evaluate(graph, { c: flag(c), x, w }).outputs.get('y')!;
      expect(difference((await session.run({ c: flag(c), x, w }))['y']!, want, 8)).toBeUndefined();
    }
  });
});

describe.skipIf(!gpu)(onGpu('a loop that ends by a condition'), { timeout: 120_000 }, () => {
  test.each([[1, 1000], [1, 10], [-1, 1000], [100, 1]])('of at most 12 rounds, from %d to a sum of %d, with a choice in each', async (start, most) => {
    await agrees(growth((b) => b.scalar(12, 'i64')), { x: line(start), most: scalar(most), go: flag(true) });
  });

  test('does not start where its first condition is false', () => agrees(growth((b) => b.scalar(12, 'i64')), { x: line(3), most: scalar(1000), go: flag(false) }));

  test.each([0, 3, 7, 50])('runs as often as an input of %d says, which an op bounds', (n) =>
    agrees(growth((b) => b.binary('min', b.input({ dtype: 'i64', shape: [] }, 'n'), 7)), { n: whole(n), x: line(1), most: scalar(1e9), go: flag(true) }));
});
