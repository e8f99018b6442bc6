/** Reads and writes at run-time indices, element by element of the result. */
import type { Value } from '../../../ir/graph.ts';
import { num, nums, str } from '../../../ir/op.ts';
import type { Evaluator, Index } from '../evaluator.ts';
import { narrowed } from '../map.ts';
import { registerOf } from '../types.ts';
import { plus } from '../writer.ts';
import { joinOf } from './reduce.ts';
import type { ElementEmitter } from './index.ts';

/** An index tensor's element as an i32 within an axis of `size`. */
const resolved = (e: Evaluator, indices: Value, at: Index, size: number): string => e.w.let('i', e.w.call('index_of', e.at(indices, at), String(size)));

export const indexElement: ElementEmitter = (e, op, index) => {
  const [x, indices] = op.operands as [Value, Value];
  const { shape } = x.type;
  switch (op.name) {
    case 'gather': {
      const axis = num(op.attrs, 'axis');
      const end = axis + indices.type.shape.length;
      return [e.at(x, [...index.slice(0, axis), resolved(e, indices, index.slice(axis, end), shape[axis]!), ...index.slice(end)])];
    }
    case 'gatherElements': {
      const axis = num(op.attrs, 'axis');
      return [e.at(x, index.map((i, d) => (d === axis ? resolved(e, indices, index, shape[axis]!) : i)))];
    }
    case 'gatherNd': {
      const batch = num(op.attrs, 'batchDims');
      const depth = indices.type.shape.at(-1)!;
      const lead = index.slice(0, indices.type.shape.length - 1);
      const tuple = Array.from({ length: depth }, (_, d) => resolved(e, indices, [...lead, String(d)], shape[batch + d]!));
      return [e.at(x, [...index.slice(0, batch), ...tuple, ...index.slice(lead.length)])];
    }
    case 'dynamicSlice': {
      const starts = startsOf(e, indices, shape, nums(op.attrs, 'sizes'));
      return [e.at(x, index.map((i, d) => e.w.let('i', plus(i, starts[d]!))))];
    }
    default: return [updated(e, op.operands as readonly [Value, Value, Value], index)];
  }
};

/** Starts of a window, clamped so that it lies inside. */
const startsOf = (e: Evaluator, starts: Value, shape: readonly number[], sizes: readonly number[]): string[] =>
  shape.map((d, axis) => e.w.let('s', `clamp(${e.at(starts, [String(axis)])}, 0, ${d - sizes[axis]!})`));

function updated(e: Evaluator, [x, patch, starts]: readonly [Value, Value, Value], index: Index): string {
  const { w } = e;
  const y = w.variable('y', registerOf(x.type.dtype), e.at(x, index));
  const from = startsOf(e, starts, x.type.shape, patch.type.shape);
  const at = index.map((i, d) => w.let('i', from[d] === '0' ? i : `${i} - ${from[d]!}`));
  const inside = at.map((i, d) => `${i} >= 0 && ${i} < ${patch.type.shape[d]!}`);
  w.block(`if (${inside.length > 0 ? inside.join(' && ') : 'true'})`, () => e.scoped(() => w.line(`${y} = ${e.at(patch, at)};`)));
  return y;
}

const joins: Readonly<Record<string, string>> = { add: 'reduceSum', mul: 'reduceProd', min: 'reduceMin', max: 'reduceMax' };

/** Each element looks for the updates that name it, in order: nothing depends on the order in which invocations run. */
export const scatterElement: ElementEmitter = (e, op, index) => {
  const [x, indices, updates] = op.operands as [Value, Value, Value];
  const { w } = e;
  const { shape, dtype } = x.type;
  const reduction = str(op.attrs, 'reduction');
  const y = w.variable('y', registerOf(dtype), e.at(x, index));
  const apply = (at: Index): void => {
    const u = e.at(updates, at);
    w.line(`${y} = ${reduction === 'none' ? u : narrowed(w, joinOf(w, joins[reduction]!, dtype).join(y, u), dtype)};`);
  };
  if (op.name === 'scatterElements') {
    const axis = num(op.attrs, 'axis');
    const reach = indices.type.shape;
    const others = index.flatMap((i, d) => (d === axis || reach[d] === shape[d] ? [] : [`${i} < ${reach[d]!}`]));
    const search = (): void => e.loop('k', reach[axis]!, (k) => {
      const at = index.map((i, d) => (d === axis ? k : i));
      w.block(`if (${resolved(e, indices, at, shape[axis]!)} == ${index[axis]!})`, () => e.scoped(() => apply(at)));
    });
    if (others.length === 0) search();
    else w.block(`if (${others.join(' && ')})`, () => e.scoped(search));
    return [y];
  }
  const lead = indices.type.shape.slice(0, -1);
  const depth = indices.type.shape.at(-1)!;
  e.loops('k', lead, (k) => {
    const tests = Array.from({ length: depth }, (_, d) => `${resolved(e, indices, [...k, String(d)], shape[d]!)} == ${index[d]!}`);
    w.block(`if (${tests.length > 0 ? tests.join(' && ') : 'true'})`, () => e.scoped(() => apply([...k, ...index.slice(depth)])));
  });
  return [y];
};
