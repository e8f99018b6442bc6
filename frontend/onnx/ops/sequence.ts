/** Sequences and optionals: their lengths are known at compile time, so none of these ops is left in the graph. */
import type { Value } from '../../../ir/graph.ts';
import { isTensorValue, type Bound, type LowerContext, type LoweringTable, type OptionalValue, type SequenceValue } from '../lowering.ts';
import { axisOf, range, row } from './helpers.ts';
import { splitInto } from './movement.ts';

function sequence(cx: LowerContext, i: number): SequenceValue {
  const x = cx.node.inputs[i];
  if (!x || isTensorValue(x) || x.kind !== 'sequence') cx.bad(`input ${i} is no sequence`);
  return x;
}

const given = (cx: LowerContext, i: number): Bound => cx.node.inputs[i] ?? cx.bad(`input ${i} is left out`);

const sequenceOf = (items: readonly Bound[], dtype?: SequenceValue['dtype']): SequenceValue => ({ kind: 'sequence', items, dtype });

/** A position in a sequence, negative ones from the end; `size` itself is allowed where something is inserted. */
function position(cx: LowerContext, i: number, otherwise: number, size: number, last: number): number {
  const at = cx.node.inputs[i] === undefined ? otherwise : (cx.ints(cx.input(i), 'position')[0] ?? cx.bad('position is empty'));
  const from = at < 0 ? at + size : at;
  return from >= 0 && from <= last ? from : cx.bad(`position ${at} is out of range for a sequence of ${size}`);
}

function insert(cx: LowerContext): Bound[] {
  const { items, dtype } = sequence(cx, 0);
  const at = position(cx, 2, items.length, items.length, items.length);
  return [sequenceOf([...items.slice(0, at), given(cx, 1), ...items.slice(at)], dtype)];
}

function erase(cx: LowerContext): Bound[] {
  const { items, dtype } = sequence(cx, 0);
  const at = position(cx, 1, items.length - 1, items.length, items.length - 1);
  return [sequenceOf(items.filter((_, i) => i !== at), dtype)];
}

function elementAt(cx: LowerContext): Bound[] {
  const { items } = sequence(cx, 0);
  return [items[position(cx, 1, 0, items.length, items.length - 1)]!];
}

function concatenate(cx: LowerContext): Value {
  const { b, node } = cx;
  const items = sequence(cx, 0).items.map((x) => (isTensorValue(x) ? x : cx.bad('an element is no tensor')));
  const first = items[0] ?? cx.unsupported('ConcatFromSequence of an empty sequence', 'the shape of the result is not known');
  const stacked = node.attrs.int('new_axis', 0) !== 0;
  const rank = first.type.shape.length + (stacked ? 1 : 0);
  const axis = axisOf(cx, node.attrs.int('axis'), rank);
  return b.concat(stacked ? items.map((v) => b.reshape(v, [...v.type.shape.slice(0, axis), 1, ...v.type.shape.slice(axis)])) : items, axis);
}

/** Without `split` every slice of size 1 is an element, its axis dropped where keepdims is 0. */
function splitToSequence(cx: LowerContext): Bound[] {
  const { b, node } = cx;
  const x = cx.input(0);
  const { shape } = x.type;
  const axis = axisOf(cx, node.attrs.int('axis', 0), shape.length);
  const size = shape[axis]!;
  const sizes = cx.optionalInput(1);
  if (!sizes) {
    const parts = splitInto(cx, x, axis, range(size).map(() => 1));
    const keep = node.attrs.int('keepdims', 1) !== 0;
    return [sequenceOf(keep ? parts : parts.map((v) => b.reshape(v, shape.filter((_, i) => i !== axis))), x.type.dtype)];
  }
  const list = cx.ints(sizes, 'split');
  const step = list[0] ?? cx.bad('split is empty');
  if (sizes.type.shape.length === 0 && step < 1) cx.bad(`split is ${step}: expected a positive size`);
  if (sizes.type.shape.length === 0 && step > 1) cx.rounds(size, 'number of parts');
  const all = sizes.type.shape.length === 0 ? range(Math.ceil(size / step)).map((i) => Math.min(step, size - i * step)) : list;
  return [sequenceOf(splitInto(cx, x, axis, all), x.type.dtype)];
}

/** Runs the body once for each element; further inputs are sequences walked along with it, or tensors that every run sees. */
function sequenceMap(cx: LowerContext): Bound[] {
  const body = cx.node.attrs.graph('body');
  const { items } = sequence(cx, 0);
  const others = cx.node.inputs.slice(1).map((_, i) => given(cx, i + 1));
  const runs = items.map((item, n) =>
    cx.inline(body, [item, ...others.map((x) => (!isTensorValue(x) && x.kind === 'sequence' ? (x.items[n] ?? cx.bad(`a sequence has no element ${n}`)) : x))]));
  return body.outputNames.map((_, k) => sequenceOf(runs.map((r) => r[k]!)));
}

/** An optional that holds the input, or is empty where there is none; its declared type decides nothing more. */
function optional(cx: LowerContext): Bound[] {
  const item = cx.node.inputs[0];
  if (item === undefined && cx.node.attrs.type('type') === undefined) cx.bad('neither an input nor the attribute type is given');
  return [{ kind: 'optional', item }];
}

const optionalOf = (x: Bound | undefined): OptionalValue | undefined => (x && !isTensorValue(x) && x.kind === 'optional' ? x : undefined);

function getElement(cx: LowerContext): Bound[] {
  const x = given(cx, 0);
  const optional = optionalOf(x);
  return [optional ? (optional.item ?? cx.bad('the optional is empty')) : x];
}

function hasElement(cx: LowerContext): Value {
  const x = cx.node.inputs[0];
  const optional = optionalOf(x);
  return cx.b.scalar((optional ? optional.item : x) === undefined ? 0 : 1, 'bool');
}

export const sequenceOps: LoweringTable = {
  SequenceEmpty: [row(11, 0, (cx) => [sequenceOf([], cx.node.attrs.dtype('dtype', 'f32'))])],
  SequenceConstruct: [row(11, [1, Infinity], (cx) => [sequenceOf(cx.node.inputs.map((_, i) => given(cx, i)))])],
  SequenceInsert: [row(11, [2, 3], insert)],
  SequenceErase: [row(11, [1, 2], erase)],
  SequenceAt: [row(11, 2, elementAt)],
  SequenceLength: [row(11, 1, (cx) => cx.b.scalar(sequence(cx, 0).items.length, 'i64'))],
  ConcatFromSequence: [row(11, 1, concatenate)],
  SplitToSequence: [row(11, [1, 2], splitToSequence)],
  SequenceMap: [row(17, [1, Infinity], sequenceMap, [1, Infinity])],
  Optional: [row(15, [0, 1], optional)],
  OptionalGetElement: [row(15, 1, getElement)],
  OptionalHasElement: [row(15, [0, 1], hasElement)],
};
