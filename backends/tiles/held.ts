/** Slices of tensors on one tile, and elementwise ops on them. */
import { InternalError } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { refData, settle, toRef } from '../../ir/number.ts';
import type { RefTensor } from '../../ir/op.ts';
import { tensorAttr } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { rowMajor, sizeOf, type TensorType } from '../../ir/type.ts';
import { sameList, sliceSize, wholeList, type Slice } from './parts.ts';

/** A slice of a tensor with its elements: `data` has one for each element of the slice, in row-major order. `shape` is that of the whole tensor. */
export interface Held extends Slice {
  readonly shape: readonly number[];
  readonly dtype: RefTensor['dtype'];
  readonly data: RefTensor['data'];
}

/** A vertex reads what its tile does not hold. */
export class NotHeld extends Error {}

/** A whole tensor. */
export const heldWhole = (t: RefTensor): Held => ({ ...t, lists: t.shape.map(wholeList), flat: false });

const tables = new WeakMap<Int32Array, Int32Array>();

/** Where each element of an axis lies in a list, -1 for those that are not in it. Elements past the last of the list are past the end of the table. */
export function placesIn(list: Int32Array): Int32Array {
  let table = tables.get(list);
  if (!table) {
    table = new Int32Array(list.length === 0 ? 0 : list.at(-1)! + 1).fill(-1);
    for (let i = 0; i < list.length; i++) table[list[i]!] = i;
    tables.set(list, table);
  }
  return table;
}

/** The elements at some lists, dense. Throws NotHeld where one is missing. */
export function take(held: Held, lists: readonly Int32Array[], what: string): RefTensor['data'] {
  if (lists.every((l, i) => sameList(l, held.lists[i]!))) return held.data;
  const from = placesWithin(held.lists, lists, what);
  const out = refData({ dtype: held.dtype, shape: [from.length] });
  for (let i = 0; i < from.length; i++) out[i] = held.data[from[i]!]!;
  return out;
}

/** Where the elements at some lists lie in a dense slice. Throws NotHeld where one is missing. */
export function placesWithin(slice: readonly Int32Array[], lists: readonly Int32Array[], what: string): Int32Array {
  let from = Int32Array.of(0);
  slice.forEach((own, axis) => {
    const table = placesIn(own);
    const wanted = lists[axis]!;
    const places = new Int32Array(wanted.length);
    for (let j = 0; j < wanted.length; j++) {
      const place = table[wanted[j]!] ?? -1;
      if (place < 0) throw new NotHeld(`${what} reads element ${wanted[j]} of axis ${axis}, which the tile does not hold`);
      places[j] = place;
    }
    const next = new Int32Array(from.length * wanted.length);
    let at = 0;
    for (let i = 0; i < from.length; i++) for (let j = 0; j < places.length; j++) next[at++] = from[i]! * own.length + places[j]!;
    from = next;
  });
  return from;
}

/** Part of the space of elementwise ops. */
export interface Box extends Slice { readonly shape: readonly number[] }

/** The shape, on a tile, of a value that broadcasts to the space of a box. */
function localShape(shape: readonly number[], box: Box): number[] {
  if (box.flat) return sizeOf(shape) === 1 ? [] : [sliceSize(box)];
  const skip = box.shape.length - shape.length;
  return shape.map((d, i) => (d === 1 ? 1 : box.lists[skip + i]!.length));
}

const first = Int32Array.of(0);

/** The elements of a value that meet those of a box. */
export function meeting(held: Held, box: Box, what: string): RefTensor {
  const shape = localShape(held.shape, box);
  const { dtype } = held;
  if (sizeOf(held.shape) === 1) return { dtype, shape, data: held.data };
  if (box.flat) {
    if (held.flat || held.shape.length === 1) return { dtype, shape, data: take(held, box.lists, what) };
    if (!held.lists.every((l, i) => l.length === held.shape[i])) throw new InternalError(`${what}: a box of element numbers meets a slice of axes`);
    return { dtype, shape, data: take({ ...held, lists: [wholeList(sizeOf(held.shape))], flat: true }, box.lists, what) };
  }
  if (held.flat && held.shape.length !== 1) throw new InternalError(`${what}: a slice of element numbers meets a box of axes`);
  const skip = box.shape.length - held.shape.length;
  return { dtype, shape, data: take(held, held.shape.map((d, i) => (d === 1 ? first : box.lists[skip + i]!)), what) };
}

/** Runs elementwise ops (and constants) in a box; results join `values`. Every result is rounded to its dtype, as the interpreter does it. */
export function runMaps(ops: readonly Op[], values: Map<Value, Held>, box: Box): void {
  for (const op of ops) {
    const [result] = op.results;
    if (op.name === 'constant') {
      values.set(result!, heldWhole(toRef(tensorAttr(op.attrs, 'value'))));
      continue;
    }
    const operands = op.operands.map((v) => meeting(valueOf(values, v, op), box, op.name));
    values.set(result!, localResult(result!, box, runLocal(op, operands, [{ dtype: result!.type.dtype, shape: localShape(result!.type.shape, box) }])[0]!));
  }
}

/** The value that an op inside a vertex reads. */
export function valueOf(values: ReadonlyMap<Value, Held>, v: Value, op: Op): Held {
  const held = values.get(v);
  if (!held) throw new NotHeld(`${op.name} reads a value that this vertex was not given`);
  return held;
}

/** The interpreter's op on local tensors, results rounded. */
export function runLocal(op: Op, operands: readonly RefTensor[], types: readonly TensorType[]): readonly RefTensor[] {
  const results = opDef(op.name).reference(operands, op.attrs, types, [], () => {
    throw new InternalError(`${op.name} runs a region on a tile`);
  });
  return results.map((r) => (operands.some((x) => x.data === r.data) ? r : settle(r)));
}

function localResult(v: Value, box: Box, { dtype, data }: RefTensor): Held {
  const { shape } = v.type;
  if (box.flat) return { shape, dtype, data, lists: sizeOf(shape) === 1 ? [first] : box.lists, flat: true };
  const skip = box.shape.length - shape.length;
  return { shape, dtype, data, lists: shape.map((d, i) => (d === 1 ? first : box.lists[skip + i]!)), flat: false };
}

/** Strides of a dense slice. */
export const slices = (lists: readonly Int32Array[]): number[] => rowMajor(lists.map((l) => l.length));
