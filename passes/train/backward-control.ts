/** Differentiation of control flow: the branch that ran, and the iterations of a loop in reverse. */
import { Builder } from '../../ir/builder.ts';
import { Unsupported } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num, tensorAttr } from '../../ir/op.ts';
import { isFloat, type TensorType } from '../../ir/type.ts';
import { backward, describe } from './backward.ts';
import { clone } from './clone.ts';
import { savedIn, savedStates } from './save-loop-states.ts';

/** Cotangents of the operands of an `if` or `loop` that are active. */
export function controlCotangents(b: Builder, op: Op, incoming: readonly (Value | undefined)[], active: ReadonlySet<Value>): (Value | undefined)[] {
  if (op.name === 'if') return branchCotangents(b, op, incoming, active);
  if (op.name === 'loop') return loopCotangents(b, op, incoming, active);
  throw new Unsupported(`the gradient of ${op.name}`, `${describe(op)} holds ops that are fused already; differentiate before that`);
}

/** An `if` whose branches run forwards again, then backwards. */
function branchCotangents(b: Builder, op: Op, incoming: readonly (Value | undefined)[], active: ReadonlySet<Value>): (Value | undefined)[] {
  const [cond, ...captured] = op.operands;
  const given = incoming.flatMap((g, i) => (g ? [{ g, i }] : []));
  const wanted = captured.flatMap((v, i) => (active.has(v) ? [i] : []));
  const regions = op.regions.map((region): Graph => {
    const inner = new Builder(`${region.name}.grad`);
    inner.source = op.source;
    const { inputs, outputs } = inlined(inner, region, captured.map((v) => inner.input(v.type, v.name)));
    const cotangents = given.map(({ g }) => inner.input(g.type));
    const found = backward(inner, inner.ops, seeds(inner, given.map(({ i }, k) => [outputs[i]!, cotangents[k]!])), wanted.map((i) => inputs[i]!));
    return inner.finish(wanted.map((i) => ({ name: `grad${i}`, value: found.get(inputs[i]!) ?? inner.zeros(inputs[i]!.type) })));
  });
  const results = b.op('if', [cond!, ...captured, ...given.map(({ g }) => g)], {}, regions);
  return [undefined, ...captured.map((_, i) => results[wanted.indexOf(i)])];
}

/**
 * A loop from the last iteration to the first: each runs forwards again from its saved state, then backwards. Cotangents of captured values add up; of those that iterations read row by row, they
 * are stacked, so that an iteration costs what its row costs, however many there are.
 */
function loopCotangents(b: Builder, op: Op, incoming: readonly (Value | undefined)[], active: ReadonlySet<Value>): (Value | undefined)[] {
  const [region] = op.regions;
  const [trips, carried] = [num(op.attrs, 'trips'), num(op.attrs, 'carried')];
  const states = trips >= 0 ? savedStates(op) : undefined;
  if (!states) throw new Unsupported('the gradient of a loop of unknown length', `${describe(op)} runs a number of times that is known only at run time, but a parameter's gradient has to pass it; bind the number of iterations, or freeze the parameters before it`);
  if (trips === 0) return op.operands.map((_, i) => (i >= 2 && i < 2 + carried ? incoming[i - 2] : undefined));
  const captured = op.operands.slice(2 + carried);
  const inner = new Builder(`${region!.name}.grad`);
  inner.source = op.source;

  const step = inner.input({ dtype: 'i64', shape: [] }, 'step');
  const flowing = region!.inputs.slice(1, 1 + carried).flatMap((v, k) => (isFloat(v.type.dtype) ? [{ type: v.type, k }] : []));
  const wanted = captured.flatMap((v, j) => (active.has(v) ? [{ type: v.type, j, rows: rowsRead(region!, region!.inputs[1 + carried + j]!, trips) }] : []));
  const summed = wanted.filter(({ rows }) => rows === undefined);
  const stacked = wanted.flatMap(({ type, j, rows }) => (rows ? [{ type, j, rows }] : []));
  const flows = flowing.map(({ type }) => inner.input(type));
  const sums = summed.map(({ type }) => inner.input(type));
  const saved = states.map((v) => inner.input(v.type));
  const outside = captured.map((v) => inner.input(v.type, v.name));
  // Cotangents of what the loop collected: that of a saved state belongs to the state itself.
  const collected = incoming.slice(carried).flatMap((g, s) => (g ? [{ g, s }] : []));
  const rows = collected.map(({ g }) => inner.input(g.type));

  const at = inner.sub(trips - 1, step);
  const row = (stack: Value): Value => inner.one('gather', [stack, at], { axis: 0 });
  const before = saved.map(row);
  const { inputs, outputs, at: inside } = inlined(inner, savedIn(region!, () => true), [at, ...before, ...outside]);
  const seeded = seeds(inner, [
    ...flowing.map(({ k }, n): [Value, Value] => [outputs[1 + k]!, flows[n]!]),
    ...collected.map(({ s }, n): [Value, Value] => [outputs[1 + carried + s]!, row(rows[n]!)]),
  ]);
  const carriedIn = flowing.map(({ k }) => inputs[1 + k]!);
  const capturedIn = summed.map(({ j }) => inputs[1 + carried + j]!);
  const readIn = stacked.map(({ rows: { read } }) => read.map(inside));
  const found = backward(inner, inner.ops, seeded, [...carriedIn, ...capturedIn, ...readIn.flat()]);
  const total = (values: readonly Value[]): Value => values.flatMap((v) => found.get(v) ?? []).reduce<Value | undefined>((sum, g) => (sum ? inner.add(sum, g) : g), undefined) ?? inner.zeros(values[0]!.type);
  const body = inner.finish([
    { name: 'continue', value: inner.scalar(1, 'bool') },
    ...carriedIn.map((v, n) => ({ name: `flow${n}`, value: found.get(v) ?? inner.zeros(v.type) })),
    ...capturedIn.map((v, n) => ({ name: `sum${n}`, value: found.has(v) ? inner.add(sums[n]!, found.get(v)!) : sums[n]! })),
    ...readIn.map((values, n) => ({ name: `row${n}`, value: total(values) })),
  ]);
  const start = [...flowing.map(({ type, k }) => incoming[k] ?? b.zeros(type)), ...summed.map(({ type }) => b.zeros(type))];
  const results = b.op('loop', [b.scalar(trips, 'i64'), b.scalar(1, 'bool'), ...start, ...states, ...captured, ...collected.map(({ g }) => g)], { trips, carried: start.length, scans: stacked.length }, [body]);
  return op.operands.map((_, i) => {
    const flow = flowing.findIndex(({ k }) => k === i - 2);
    const sum = summed.findIndex(({ j }) => j === i - 2 - carried);
    const stack = stacked.findIndex(({ j }) => j === i - 2 - carried);
    if (stack >= 0) return unstacked(b, results[start.length + stack]!, stacked[stack]!);
    return flow >= 0 ? results[flow] : sum >= 0 ? results[flowing.length + sum] : undefined;
  });
}

/** How iterations read a captured value: one row along an axis each, the first iteration row 0 or, in reverse, the last row that any reads. */
interface RowsRead { readonly axis: number; readonly reverse: boolean; readonly read: readonly Value[] }

/** The rows that a region reads of an input, each iteration those of its own index; undefined where it reads anything else of it. */
function rowsRead(region: Graph, input: Value, trips: number): RowsRead | undefined {
  const readers = region.ops.filter((op) => op.operands.includes(input));
  const [first] = readers;
  if (!first || region.outputs.some((o) => o.value === input)) return undefined;
  const reverse = first.operands[1] !== region.inputs[0];
  const axis = num(first.attrs, 'axis');
  const alike = readers.every((op) => op.name === 'gather' && num(op.attrs, 'axis') === axis && op.operands[0] === input && isRowOf(op.operands[1]!, region, trips, reverse));
  return alike && input.type.shape[axis]! >= trips ? { axis, reverse, read: readers.map((op) => op.results[0]!) } : undefined;
}

/** Whether a value of a region is the index of the iteration or, in reverse, what it lacks of the last. */
function isRowOf(index: Value, region: Graph, trips: number, reverse: boolean): boolean {
  const [step] = region.inputs;
  if (!reverse) return index === step;
  const op = region.ops.find((o) => o.results[0] === index);
  const last = region.ops.find((o) => o.name === 'constant' && o.results[0] === op?.operands[0]);
  return op?.name === 'sub' && op.operands[1] === step && last !== undefined && Number(tensorAttr(last.attrs, 'value').data[0]) === trips - 1 && index.type.shape.length === 0;
}

/** The cotangent of a value from those of its rows, which the backward loop stacked from the last iteration to the first; rows that no iteration read get 0. */
function unstacked(b: Builder, stack: Value, { type, rows: { axis, reverse } }: { readonly type: TensorType; readonly rows: RowsRead }): Value {
  const [trips, ...row] = stack.type.shape as [number, ...number[]];
  const inOrder = reverse ? stack : b.slice(stack, [trips - 1, ...row.map(() => 0)], stack.type.shape, [-1, ...row.map(() => 1)]);
  const unread = type.shape[axis]! - trips;
  const all = unread > 0 ? b.concat([inOrder, b.zeros({ dtype: type.dtype, shape: [unread, ...row] })], 0) : inOrder;
  return b.transpose(all, type.shape.map((_, a) => (a === axis ? 0 : a < axis ? a + 1 : a)));
}

/** Appends a copy of the ops of a region, on given inputs; `at` is what a value of the region became. */
function inlined(b: Builder, region: Graph, given: readonly Value[]): { readonly inputs: readonly Value[]; readonly outputs: readonly Value[]; at(v: Value): Value } {
  const map = new Map<Value, Value>();
  region.inputs.forEach((v, i) => map.set(v, given[i]!));
  for (const op of region.ops) b.append(clone(op, map));
  return { inputs: given, outputs: region.outputs.map((o) => map.get(o.value)!), at: (v) => map.get(v)! };
}

/** Cotangents by value; several of one value add up. */
function seeds(b: Builder, pairs: readonly (readonly [Value, Value])[]): Map<Value, Value> {
  const map = new Map<Value, Value>();
  for (const [v, g] of pairs) {
    const known = map.get(v);
    map.set(v, known ? b.add(known, g) : g);
  }
  return map;
}
