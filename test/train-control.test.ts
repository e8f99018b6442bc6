/** Gradients through loops and branches, against central differences. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { num } from '../ir/op.ts';
import { bytesOf, type TensorType } from '../ir/type.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { testTarget } from './ir/target.ts';
import { checkGradients, model, spread, tensor, train } from './train-harness.ts';

const scalar = (dtype: TensorType['dtype']): TensorType => ({ dtype, shape: [] });
const sum = (b: Builder, x: Value): Value => b.reduce('reduceSum', x, x.type.shape.map((_, i) => i));

/** A loop over `trips` iterations; the body gets its index, carried and captured values, and returns the next carried ones and what is collected. */
function loop(b: Builder, trips: number, carried: readonly Value[], captured: readonly Value[], make: (r: Builder, i: Value, carried: readonly Value[], captured: readonly Value[]) => { next: readonly Value[]; rows?: readonly Value[] }, known = true): Value[] {
  const r = new Builder('body');
  const i = r.input(scalar('i64'), 'i');
  const inside = carried.map((v, k) => r.input(v.type, `c${k}`));
  const outside = captured.map((v, k) => r.input(v.type, `o${k}`));
  const { next, rows = [] } = make(r, i, inside, outside);
  const region = r.finish([r.scalar(1, 'bool'), ...next, ...rows].map((value, k) => ({ name: `r${k}`, value })));
  return b.op('loop', [b.scalar(trips, 'i64'), b.scalar(1, 'bool'), ...carried, ...captured], { trips: known ? trips : -1, carried: carried.length, scans: rows.length }, [region]);
}

/** A recurrent net over 4 steps of [3, 2]: the loss sees the last state and all collected ones. */
const recurrent = (): Graph => model((b, weight, input) => {
  const [x, w, u] = [input('x', [4, 3, 2]), weight('w', [2, 5], spread(10)), weight('u', [5, 5], spread(25, 0.5))];
  const h = b.broadcast(weight('h', [5], spread(5, 0.3)), [3, 5]);
  const [last, all] = loop(b, 4, [h], [x, w, u], (r, i, [s], [xs, ww, uu]) => {
    const next = r.unary('tanh', r.add(r.contract('nk,kh->nh', r.one('gather', [xs!, i], { axis: 0 }), ww!), r.contract('nh,hk->nk', s!, uu!)));
    return { next: [next], rows: [r.mul(next, next)] };
  }) as [Value, Value];
  return b.add(sum(b, b.mul(last, last)), sum(b, b.mul(all, b.unary('sigmoid', all))));
});

describe('gradients of control flow', () => {
  it('a loop runs backwards: carried, collected and captured values', () => checkGradients(recurrent(), { x: tensor([4, 3, 2], spread(24)) }));
  it('a loop of no iterations passes the carried value on', () => {
    const graph = model((b, weight) => sum(b, b.mul(loop(b, 0, [weight('w', [2], [1, 2])], [], (r, _i, [s]) => ({ next: [r.mul(s!, s!)] }))[0]!, 3)));
    checkGradients(graph, {});
  });
  it('a loop inside a loop', () => {
    checkGradients(model((b, weight) => {
      const [w, u] = [weight('w', [3], spread(3)), weight('u', [3], spread(3, 0.7, 2))];
      const [out] = loop(b, 3, [w], [u], (r, _i, [s], [c]) => ({ next: loop(r, 2, [s!], [c!], (q, _j, [t], [d]) => ({ next: [q.unary('sin', q.add(q.mul(t!, d!), t!))] })) }));
      return sum(b, out!);
    }), {});
  });
  it('an integer that is carried beside takes no part', () => {
    checkGradients(model((b, weight) => {
      const [, out] = loop(b, 3, [b.scalar(1, 'i64'), weight('w', [2], spread(2))], [], (r, _i, [k, s]) => ({ next: [r.add(k!, 1), r.mul(s!, r.add(r.cast(k!, 'f64'), s!))] }));
      return sum(b, out!);
    }), {});
  });
  it.each([true, false])('the branch that runs, for a condition that is %s', (cond) => {
    const graph = model((b, weight, input) => {
      const captured = [weight('w', [2], [0.5, 2]), weight('u', [2], [3, -1])];
      const branch = (f: (r: Builder, w: Value, u: Value) => Value): Graph => {
        const r = new Builder('branch');
        const [w, u] = captured.map((v) => r.input(v.type)) as [Value, Value];
        return r.finish([{ name: 'y', value: f(r, w, u) }]);
      };
      const regions = [branch((r, w, u) => r.mul(r.mul(w, w), u)), branch((r, w) => r.unary('exp', w))];
      return sum(b, b.op('if', [input('cond', [], 'bool'), ...captured], {}, regions)[0]!);
    });
    checkGradients(graph, { cond: tensor([], [cond ? 1 : 0], 'bool') });
  });
  /** A recurrent net that reads projections of its inputs, made before the loop, one time step after the other. */
  const projected = (steps: number, reverse: boolean, axis = 0, rows = steps): Graph => model((b, weight, input) => {
    const [x, w, u] = [input('x', [rows, 3, 2]), weight('w', [2, 5], spread(10)), weight('u', [5, 5], spread(25, 0.5))];
    const along = b.contract('tnk,kh->tnh', x, w);
    const read = axis === 0 ? along : b.transpose(along, [1, 0, 2]);
    const [last] = loop(b, steps, [b.zeros({ dtype: 'f64', shape: [3, 5] })], [read, u], (r, i, [s], [xs, uu]) =>
      ({ next: [r.unary('tanh', r.add(r.one('gather', [xs!, reverse ? r.sub(steps - 1, i) : i], { axis }), r.contract('nh,hk->nk', s!, uu!)))] })) as [Value];
    return b.add(sum(b, b.mul(last, last)), sum(b, b.mul(along, 0.01)));
  });
  it.each([
    ['from the first', projected(4, false)], ['from the last', projected(4, true)], ['along the second axis', projected(4, false, 1)],
    ['from the last, along the second axis', projected(4, true, 1)], ['not all of them', projected(3, false, 0, 4)], ['not all of them, from the last', projected(3, true, 1, 4)],
  ])('a loop over rows of what is computed before it: %s', (_, graph) => checkGradients(graph, { x: tensor([4, 3, 2], spread(24)) }));
  it('a loop that reads a row twice, or besides its rows the whole', () => {
    const graph = (whole: boolean): Graph => model((b, weight) => sum(b, loop(b, 3, [weight('s', [2], spread(2))], [weight('w', [3, 2], spread(6))], (r, i, [s], [w]) => {
      const row = (): Value => r.one('gather', [w!, i], { axis: 0 });
      return { next: [r.add(r.mul(s!, row()), whole ? r.reduce('reduceSum', r.mul(w!, w!), [0]) : r.unary('sin', row()))] };
    })[0]!));
    checkGradients(graph(false), {});
    checkGradients(graph(true), {});
  });
  it.each([false, true])('what a step writes grows with the length of such a loop, not with its square (reverse: %s)', (reverse) => {
    const written = (graph: Graph, times: number): number => graph.ops.reduce((n, op) =>
      n + times * op.results.reduce((m, r) => m + bytesOf(r.type), 0) + op.regions.reduce((m, region) => m + written(region, times * num(op.attrs, 'trips')), 0), 0);
    const bytes = (steps: number): number => written(trainingStep(projected(steps, reverse), [], { loss: { kind: 'output', name: 'out' }, optimizer: { kind: 'sgd' } }, testTarget).graph, 1);
    expect(bytes(64) - bytes(32)).toBe(2 * (bytes(32) - bytes(16)));
  });
  it('a loop whose length is not known is refused by name', () => {
    const graph = model((b, weight) => sum(b, loop(b, 3, [weight('w', [2], [1, 2])], [], (r, _i, [s]) => ({ next: [r.mul(s!, s!)] }), false)[0]!));
    expect(() => trainingStep(graph, [], { loss: { kind: 'output', name: 'out' }, optimizer: { kind: 'sgd' } }, testTarget)).toThrow(/op loop runs a number of times that is known only at run time/);
  });
  it('a trained recurrent net loses less', () => {
    const { outputs } = train(recurrent(), { optimizer: { kind: 'adam' } }, 20, 0.05, () => ({ x: tensor([4, 3, 2], spread(24)) }));
    expect(outputs.at(-1)!.get('loss')![0]).toBeLessThan(0.2 * outputs[0]!.get('loss')![0]!);
  });
});
