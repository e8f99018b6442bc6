/** Regions run as their definitions say, and the interpreter runs graphs, state and regions. */
import { describe, expect, it } from 'vitest';
import { Builder, IllTyped } from '../ir/builder.ts';
import { UserError } from '../ir/diagnostic.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { tensorType, type Tensor, type TensorType } from '../ir/type.ts';
import { tensor } from './gradient-harness.ts';
import { run, values } from './run-op.ts';

const [i64, f32] = [tensorType('i64', []), tensorType('f32', [])];
const scalar = (dtype: Tensor['dtype'], x: number): Tensor => tensor(dtype, [], [x]);

function region(inputs: readonly TensorType[], build: (b: Builder, xs: readonly Value[]) => readonly Value[]): Graph {
  const b = new Builder('region');
  const xs = inputs.map((t) => b.input(t));
  return b.finish(build(b, xs).map((value, i) => ({ name: String(i), value })));
}
const all = (ts: readonly Tensor[]): number[][] => ts.map((t) => values([t]));

describe('if', () => {
  const twice = region([f32], (b, [x]) => [b.add(x!, x!)]);
  const square = region([f32], (b, [x]) => [b.mul(x!, x!)]);
  it('runs the region that the condition picks', () => {
    expect(values(run('if', [scalar('bool', 1), scalar('f32', 3)], {}, [twice, square]))).toEqual([6]);
    expect(values(run('if', [scalar('bool', 0), scalar('f32', 3)], {}, [twice, square]))).toEqual([9]);
  });
  it('refuses regions that do not fit', () => {
    const wide = region([f32], (b, [x]) => [b.broadcast(x!, [2])]);
    expect(() => run('if', [scalar('bool', 1), scalar('f32', 3)], {}, [twice, wide])).toThrow('outputs of the else region are (f32[2]), expected (f32[])');
    expect(() => run('if', [scalar('f32', 1), scalar('f32', 3)], {}, [twice, square])).toThrow(IllTyped);
  });
});

describe('loop', () => {
  /** Carries a sum: sum += i · factor, goes on while the sum is below 10, stacks the sums. */
  const sums = (limitless: boolean): Graph => region([i64, i64, i64], (b, [i, sum, factor]) => {
    const next = b.add(sum!, b.mul(i!, factor!));
    return [limitless ? b.binary('lt', next, 10) : b.binary('eq', next, next), next, next];
  });
  const operands = (limit: number, start = 1): Tensor[] => [scalar('i64', limit), scalar('bool', start), scalar('i64', 0), scalar('i64', 2)];
  it('carries values, passes captured ones on, and stacks scans', () => {
    expect(all(run('loop', operands(4), { trips: 4, carried: 1, scans: 1 }, [sums(false)]))).toEqual([[12], [0, 2, 6, 12]]);
  });
  it('ends when the condition fails, after that iteration', () => {
    const body = region([i64, i64, i64], (b, [i, sum, factor]) => {
      const next = b.add(sum!, b.mul(i!, factor!));
      return [b.binary('lt', next, 10), next];
    });
    expect(all(run('loop', operands(100), { carried: 1 }, [body]))).toEqual([[12]]);
    expect(all(run('loop', operands(100, 0), { carried: 1 }, [body]))).toEqual([[0]]);
    expect(all(run('loop', operands(0), { carried: 1 }, [body]))).toEqual([[0]]);
  });
  it('needs known trips for scans, and types that stay', () => {
    expect(() => run('loop', operands(4), { carried: 1, scans: 1 }, [sums(true)])).toThrow('the number of trips must be known');
    const grows = region([i64, i64, i64], (b, [, sum]) => [b.binary('eq', sum!, sum!), b.broadcast(sum!, [2])]);
    expect(() => run('loop', operands(4), { carried: 1 }, [grows])).toThrow('carried outputs of the body are (i64[2]), expected (i64[])');
  });
});

it('fused runs its region, rounding after every op', () => {
  const body = region([f32, f32], (b, [x, y]) => [b.sub(b.add(x!, y!), x!)]);
  // In float64 the sum would keep the small operand.
  expect(values(run('fused', [scalar('f32', 2 ** 24), scalar('f32', 1)], { kind: 'map' }, [body]))).toEqual([0]);
  expect(() => run('fused', [scalar('f32', 1)], { kind: 'map' }, [body])).toThrow('inputs of the region are (f32[], f32[]), expected (f32[])');
  expect(() => run('fused', [scalar('f32', 1), scalar('f32', 1)], { kind: 'magic' }, [body])).toThrow('kind magic is none of');
});

describe('evaluate', () => {
  const b = new Builder('step');
  const x = b.input(tensorType('f32', [2]), 'x');
  const w = b.state('w', tensorType('f32', [2]), tensor('f32', [2], [1, 2]));
  const m = b.state('m', tensorType('f32', [2]), 'zero');
  const y = b.mul(x, w);
  const sum = b.add(m, y);
  b.update(m, sum);
  const graph = b.finish([{ name: 'y', value: y }, { name: 'x', value: x }]);
  const input = tensor('f32', [2], [3, 5]);

  it('takes inputs by name or by value, reads state, returns outputs and updates', () => {
    for (const inputs of [{ x: input }, new Map([[x, input]])]) {
      const { outputs, state } = evaluate(graph, inputs);
      expect([...outputs].map(([name, t]) => [name, values([t])])).toEqual([['y', [3, 10]], ['x', [3, 5]]]);
      expect([...state].map(([v, t]) => [v, values([t])])).toEqual([[m, [3, 10]]]);
    }
  });
  it('takes values of state', () => {
    const { state } = evaluate(graph, { x: input }, { state: new Map([[m, tensor('f32', [2], [1, 1])]]) });
    expect(values([state.get(m)!])).toEqual([4, 11]);
  });
  it('shows every value, inner ones too', () => {
    const seen = new Map<Value, number[]>();
    evaluate(graph, { x: input }, { watch: (v, t) => seen.set(v, Array.from(t.data as Float64Array)) });
    expect([...seen]).toEqual([[y, [3, 10]], [sum, [3, 10]]]);
  });
  it('leaves its inputs as they were', () => expect([...input.data]).toEqual([3, 5]));
  it('refuses inputs that are missing or of another type', () => {
    expect(() => evaluate(graph, {})).toThrow(UserError);
    expect(() => evaluate(graph, {})).toThrow('input x: f32[2] is missing');
    expect(() => evaluate(graph, { x: tensor('f32', [3], [1, 2, 3]) })).toThrow('input x is f32[3], expected f32[2]');
  });
});
