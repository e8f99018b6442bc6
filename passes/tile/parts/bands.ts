/** Chains of ops whose windows slide along an axis, computed band by band; what two bands need of a value in between is computed for each. */
import type { Index } from '../../../ir/axes.ts';
import { InternalError } from '../../../ir/diagnostic.ts';
import { definitions, uses, type Graph, type Op, type Value } from '../../../ir/graph.ts';
import { nums, TypeProblem } from '../../../ir/op.ts';
import { opDef } from '../../../ir/ops/index.ts';
import { walkOf } from '../walk.ts';
import { withRoot } from './cut.ts';

/** Elements of an axis from `lo` up to `hi`. */
interface Range { readonly lo: number; readonly hi: number }

/** What a band of an op's result needs: a range of an axis of each operand, undefined where it reads all; elements outside on either side. */
interface Need {
  readonly operands: readonly (Range | undefined)[];
  readonly before: number;
  readonly after: number;
}

/** Ops whose windows say by `pads` how far they reach out of their operand. */
const windows: ReadonlySet<string> = new Set(['conv', 'maxPool']);

/**
 * The chain around the op that makes a value: each op of it alone reads what the one before it makes, and all keep to bands of an axis, as do convolutions, pools and elementwise ops along rows. Empty where
 * the op itself does not.
 */
export function chainAt(graph: Graph, value: Value, axis: number): readonly Op[] {
  const defs = definitions(graph);
  const readers = uses(graph);
  const kept = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  const slides = (op: Op): boolean => {
    const [result] = op.results;
    return result !== undefined && op.results.slice(1).every((r) => !kept.has(r) && (readers.get(r) ?? []).length === 0) && result.type.shape[axis]! > 1 && needOf(op, axis, { lo: 0, hi: 1 }) !== undefined;
  };
  const onlyReader = (v: Value): Op | undefined => {
    const list = new Set(readers.get(v) ?? []);
    return list.size === 1 && !kept.has(v) ? [...list][0] : undefined;
  };
  const first = defs.get(value);
  if (!first || !slides(first)) return [];
  const chain = [first];
  for (let op = onlyReader(value); op && slides(op); op = onlyReader(op.results[0]!)) chain.push(op);
  for (let v = first.operands[0]; v !== undefined;) {
    const def = defs.get(v);
    if (!def || onlyReader(v) === undefined || !slides(def)) break;
    chain.unshift(def);
    v = def.operands[0];
  }
  return chain;
}

/** The same graph with a chain of ops in bands of an axis of what the last of them makes. Undefined where they cannot be cut so. */
export function inBands(graph: Graph, chain: readonly Op[], axis: number, bands: number): Graph | undefined {
  const last = chain.at(-1)!;
  const [result] = last.results;
  const size = result!.type.shape[axis]!;
  if (size < 2 * bands) return undefined;
  const ops: Op[] = [];
  const pieces: Value[] = [];
  try {
    for (let p = 0; p < bands; p++) pieces.push(oneBand(chain, axis, { lo: Math.floor((p * size) / bands), hi: Math.floor(((p + 1) * size) / bands) }, ops));
  } catch (e) {
    if (e instanceof TypeProblem || e instanceof InternalError) return undefined;
    throw e;
  }
  ops.push({ name: 'concat', operands: pieces, attrs: { axis }, regions: [], results: [result!], source: last.source });
  return { ...graph, ops: graph.ops.flatMap((op) => (op === last ? ops : chain.includes(op) ? [] : [op])) };
}

/** Adds the ops of one band, and gives what it makes of the chain's result. */
function oneBand(chain: readonly Op[], axis: number, band: Range, ops: Op[]): Value {
  const ranges = new Map<Value, Range>([[chain.at(-1)!.results[0]!, band]]);
  const inside = new Set(chain.map((op) => op.results[0]!));
  const needs = new Map<Op, Need>();
  for (const op of [...chain].reverse()) {
    const need = needOf(op, axis, ranges.get(op.results[0]!)!);
    if (!need) throw new TypeProblem(`${op.name} has a band that reads nothing of its operand`);
    needs.set(op, need);
    op.operands.forEach((v, k) => {
      const range = need.operands[k];
      if (!inside.has(v)) return;
      if (!range) throw new TypeProblem(`${op.name} reads all of what its chain makes in bands`);
      const known = ranges.get(v);
      ranges.set(v, known ? { lo: Math.min(known.lo, range.lo), hi: Math.max(known.hi, range.hi) } : range);
    });
  }
  const made = new Map<Value, Value>();
  for (const op of chain) {
    const { operands, before, after } = needs.get(op)!;
    const taken = op.operands.map((v, k) => {
      const range = operands[k];
      const whole = made.get(v) ?? v;
      if (!range) return whole;
      const from = ranges.get(v)?.lo ?? 0;
      return sliced(whole, axis - (op.results[0]!.type.shape.length - v.type.shape.length), { lo: range.lo - from, hi: range.hi - from }, ops);
    });
    const part = withRoot(op, taken, (root) => padded(root, axis, before, after));
    const range = ranges.get(op.results[0]!)!;
    if (part.results[0]!.type.shape[axis] !== range.hi - range.lo) throw new TypeProblem(`${op.name} does not keep to bands`);
    ops.push(part);
    made.set(op.results[0]!, part.results[0]!);
  }
  return made.get(chain.at(-1)!.results[0]!)!;
}

function sliced(v: Value, axis: number, { lo, hi }: Range, ops: Op[]): Value {
  const { shape } = v.type;
  if (lo === 0 && hi === shape[axis]) return v;
  const attrs = { starts: shape.map((_, i) => (i === axis ? lo : 0)), sizes: shape.map((d, i) => (i === axis ? hi - lo : d)), steps: shape.map(() => 1) };
  const [type] = opDef('slice').infer([v.type], attrs, []);
  const result: Value = { type: type!, name: v.name };
  ops.push({ name: 'slice', operands: [v], attrs, regions: [], results: [result], source: [] });
  return result;
}

/** Attributes of a window op whose band reaches out of what it is given by other amounts than the whole does. */
function padded(root: Op, axis: number, before: number, after: number): Op['attrs'] {
  if (!windows.has(root.name)) return root.attrs;
  const pads = [...nums(root.attrs, 'pads')];
  const at = axis - (root.operands[0]!.type.shape.length - pads.length / 2);
  [pads[at], pads[at + pads.length / 2]] = [before, after];
  return { ...root.attrs, pads };
}

/** What a band of an op's first result needs; undefined where the op does not keep to bands of the axis. */
function needOf(op: Op, axis: number, band: Range): Need | undefined {
  const walk = walkOf(op);
  const { shape } = op.results[0]!.type;
  const windowed = windows.has(walk.root.name);
  if (walk.kind === 'single' || (!windowed && walk.kind !== 'map') || walk.pieces.length !== 1) return undefined;
  const [piece] = walk.pieces;
  const place = piece!.writes[axis];
  if (!place || place.terms.length !== 1 || place.terms[0]![1] !== 1 || place.plus !== 0) return undefined;
  const [dim] = place.terms[0]!;
  // Spatial axes alone: those that `pads` speaks of.
  if (piece!.indexed.includes(dim) || (windowed && axis < shape.length - nums(walk.root.attrs, 'pads').length / 2)) return undefined;
  let [before, after] = [0, 0];
  const operands: (Range | undefined)[] = [];
  for (const [k, v] of op.operands.entries()) {
    let range: Range | undefined;
    for (const indices of piece!.reads[k]!) {
      for (const [at, index] of indices.entries()) {
        if (!dependsOn(index, dim)) continue;
        const reach = reachOf(index, dim, band, walk.sizes);
        if (!reach || at !== axis - (shape.length - v.type.shape.length)) return undefined;
        const size = v.type.shape[at]!;
        if (reach.lo < 0 || reach.hi > size) {
          if (!windowed) return undefined;
          [before, after] = [Math.max(before, -reach.lo), Math.max(after, reach.hi - size)];
        }
        const [lo, hi] = [Math.max(0, reach.lo), Math.min(size, reach.hi)];
        if (hi <= lo) return undefined;
        range = range ? { lo: Math.min(range.lo, lo), hi: Math.max(range.hi, hi) } : { lo, hi };
      }
    }
    operands.push(range);
  }
  return operands.some((r) => r) ? { operands, before, after } : undefined;
}

const dependsOn = (index: Index, dim: string): boolean => index.kind === 'whole' ? index.dim === dim : index.kind === 'affine' ? index.terms.some(([d]) => d === dim) : index.kind === 'table' ? index.dim === dim || index.inner === dim : index.dims.includes(dim);

/** From the first element that a band reads along an axis to past the last, those outside the tensor too. */
function reachOf(index: Index, dim: string, { lo, hi }: Range, sizes: ReadonlyMap<string, number>): Range | undefined {
  if (index.kind !== 'affine' || index.over !== 1 || !['0', '-inf', 'error'].includes(index.outside) || index.terms.some(([, times]) => times < 0)) return undefined;
  const sum = (at: number): number => index.terms.reduce((s, [d, times]) => s + times * (d === dim ? at : 0), index.plus);
  const taps = index.terms.reduce((s, [d, times]) => s + (d === dim ? 0 : times * (sizes.get(d)! - 1)), 0);
  return { lo: sum(lo), hi: sum(hi - 1) + taps + 1 };
}
