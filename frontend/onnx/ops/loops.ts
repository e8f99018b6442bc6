/** Loops over a known number of steps, as the recurrent ops need them. */
import { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';

/** One step: the next carried values, and what is collected. */
export interface Step { readonly carried: readonly Value[]; readonly collected: readonly Value[] }

/**
 * Runs `body` `trips` times. It sees nothing but its arguments: the step's index (i64[]), the carried values and the captured ones. Returns the
 * last carried values, then the collected ones stacked along a new first axis. A single step needs no loop.
 */
export function repeat(b: Builder, trips: number, carried: readonly Value[], captured: readonly Value[], body: (b: Builder, step: Value, carried: readonly Value[], captured: readonly Value[]) => Step): Value[] {
  if (trips === 1) {
    const { carried: last, collected } = body(b, b.scalar(0, 'i64'), carried, captured);
    return [...last, ...collected.map((v) => b.reshape(v, [1, ...v.type.shape]))];
  }
  const inner = new Builder('body');
  inner.source = b.source;
  const step = inner.input({ dtype: 'i64', shape: [] }, 'step');
  const state = carried.map((v, i) => inner.input(v.type, `carried${i}`));
  const outside = captured.map((v, i) => inner.input(v.type, `captured${i}`));
  const { carried: next, collected } = body(inner, step, state, outside);
  const region = inner.finish([
    { name: 'continue', value: inner.scalar(1, 'bool') },
    ...next.map((value, i) => ({ name: `next${i}`, value })),
    ...collected.map((value, i) => ({ name: `collected${i}`, value })),
  ]);
  return b.op('loop', [b.scalar(trips, 'i64'), b.scalar(1, 'bool'), ...carried, ...captured], { trips, carried: carried.length, scans: collected.length }, [region]);
}

/** x[step] along the first axis. */
export const stepOf = (b: Builder, x: Value, step: Value): Value => (x.type.shape[0] === 1 ? b.reshape(x, x.type.shape.slice(1)) : b.one('gather', [x, step], { axis: 0 }));
