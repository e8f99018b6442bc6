/** Where values lie: inputs, state and constants spread evenly or as their first reader wants them, results over what dies where they can be. */
import type { Op, Value } from '../../../ir/graph.ts';
import type { BufferKind, Spread } from '../../../ir/tiles.ts';
import { dtypes, sizeOf } from '../../../ir/type.ts';
import { settled, type Choice } from '../choose.ts';
import { isLocal, largestSlice } from '../divide.ts';
import { evenly, viewed } from '../divisions.ts';
import { overTime } from '../serial.ts';
import { toGrain } from '../target.ts';
import { contributes } from './contributing.ts';
import { nameOf, type LoweredBuffer, type Lowering } from './lowering.ts';

/** Spreads a value that is there from the start evenly over all tiles, its elements in a row. */
export function hold(l: Lowering, v: Value, kind: BufferKind, name: string): void {
  const b = l.newBuffer(v.type, name, kind, evenly(v, l.target), []);
  b.birth = 0;
  l.homes.set(v, b.id);
  if (kind !== 'state') l.free.add(v);
}

/** Moves operands of an op that nothing has read yet to where it reads them, if its division gives each tile a share of them. */
export function settle(l: Lowering, op: Op, choice: Choice): void {
  op.operands.forEach((v, k) => {
    if (!l.free.delete(v)) return;
    const home = l.home(v);
    const moved = settled(choice, k, home.spread);
    if (!moved) return;
    home.spread = moved;
    home.bytes = toGrain(l.target, largestSlice(moved) * dtypes[v.type.dtype].bytes);
  });
}

/** Makes the result of a reshape a view, if that leaves every tile's elements where they are; false where it does not. */
export function viewReshape(l: Lowering, op: Op): boolean {
  const v = op.operands[0]!;
  l.free.delete(v);
  const home = l.home(v);
  const result = op.results[0]!;
  const spread = viewed(op, home.spread);
  if (!spread) return false;
  const b = l.newBuffer(result.type, nameOf(result, op), 'activation', spread, op.source, { bytes: home.bytes, viewOf: home.id });
  l.homes.set(result, b.id);
  l.noteRead(v);
  return true;
}

/** The results of an op up to the last that something reads: a pool whose positions nobody asks for makes none. */
export function wantedResults({ left }: Lowering, op: Op): readonly Value[] {
  const last = op.results.findLastIndex((r) => left.has(r));
  return op.results.slice(0, Math.max(1, last + 1));
}

/** A result's buffer: over the state it replaces or an operand that dies here, where both lie alike, else its own. `choice`: of an op that is computed whole; merges overwrite state alone. */
export function resultBuffer(l: Lowering, r: Value, op: Op, spread: Spread, choice: Choice | undefined): LoweredBuffer {
  const over = overwrittenState(l, r, op, spread) ?? (choice && overwrittenOperand(l, r, op, spread, choice));
  const b = l.newBuffer(r.type, nameOf(r, op), 'activation', overTime(spread)!, op.source, over ? { bytes: over.bytes, viewOf: over.id } : {});
  l.homes.set(r, b.id);
  return b;
}

function overwrittenState(l: Lowering, r: Value, op: Op, spread: Spread): LoweredBuffer | undefined {
  for (const state of l.updates.get(r) ?? []) {
    const home = l.home(state);
    const own = op.operands.filter((v) => v === state).length;
    if ((l.left.get(state) ?? 0) === own && isLocal(spread, home.spread) && !isShared(l, l.root(home), state)) return home;
  }
  return undefined;
}

function overwrittenOperand(l: Lowering, r: Value, op: Op, spread: Spread, { walk, local }: Choice): LoweredBuffer | undefined {
  const size = dtypes[r.type.dtype].bytes;
  for (const [k, v] of op.operands.entries()) {
    // Of other ops, what is read element by element after the root: a sum that the op adds to.
    if (walk.kind !== 'map' && (op.name !== 'fused' || contributes(op, walk.root, k))) continue;
    const home = l.home(v);
    const own = op.operands.filter((x) => x === v).length;
    if (!local[k] || l.left.get(v) !== own || home.kind !== 'activation' || dtypes[v.type.dtype].bytes !== size || sizeOf(v.type.shape) !== sizeOf(r.type.shape)) continue;
    const root = l.root(home);
    if (root.kind !== 'activation' || !isLocal(spread, home.spread) || isShared(l, root, v) || l.takenBy.get(root.id) === op) continue;
    l.takenBy.set(root.id, op);
    return home;
  }
  return undefined;
}

/** Whether another value that is still to be read lies in the same memory. */
function isShared(l: Lowering, root: LoweredBuffer, but: Value): boolean {
  for (const [v, id] of l.homes) if (v !== but && (l.left.get(v) ?? 0) > 0 && l.root(l.buffers[id]!) === root) return true;
  return false;
}
