/** How an op, fused or plain, walks its operands, with the dims that a plan may cut. */
import { at, zero, type Axes, type CombineName, type Index, type Place } from '../../ir/axes.ts';
import { isContractRoot, isReduceRoot } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';

/** A dim that may be cut. `axis`: it stands for a result axis that pieces place in different ways (stride phases, concat), not for a dim of the space. */
export interface Var {
  readonly name: string;
  readonly size: number;
  readonly role: 'parallel' | 'reduce';
  readonly axis?: number;
  /** Cuts at multiples of this keep pieces equal. */
  readonly grain: number;
}

/** One way in which all operands are read. An operand that is read in several ways by ops of a fusion has several. */
export interface WalkPiece {
  readonly reads: readonly (readonly (readonly Index[])[])[];
  readonly writes: readonly Place[];
  readonly dims: readonly string[];
  /** Dims whose index the body uses. */
  readonly indexed: readonly string[];
}

export interface Walk {
  readonly op: Op;
  /** The op that walks more than elements: a contraction, reduction, pool, move; of a map its first op. */
  readonly root: Op;
  /** `single`: the op has no axes and runs on one tile. */
  readonly kind: 'contract' | 'reduce' | 'window' | 'map' | 'move' | 'single';
  readonly vars: readonly Var[];
  readonly sizes: ReadonlyMap<string, number>;
  readonly pieces: readonly WalkPiece[];
  readonly combine: CombineName;
  /** Elementwise over operands of the result's shape and scalars alone. */
  readonly elementwise: boolean;
}

/** Combines whose parts can be merged. */
const mergeable: ReadonlySet<CombineName> = new Set(['sum', 'prod', 'max', 'min', 'moments']);

const walks = new WeakMap<Op, Walk>();

/** The walk of an op of a graph after fusion without rows. */
export function walkOf(op: Op): Walk {
  let walk = walks.get(op);
  if (!walk) walks.set(op, (walk = madeWalk(op)));
  return walk;
}

function madeWalk(op: Op): Walk {
  if (op.name !== 'fused') return plainWalk(op);
  const region = op.regions[0]!;
  const kind = op.attrs['kind'];
  const ops = region.ops.filter((o) => o.name !== 'constant');
  if (kind === 'map') {
    const shape = op.results[0]!.type.shape;
    const dims = shape.map((size, i): Var => ({ name: `d${i}`, size, role: 'parallel', grain: 1 }));
    const places = dims.map((d): Place => ({ terms: [[d.name, 1]], plus: 0 }));
    const reads = op.operands.map((v) => [broadcastRead(v, places, shape)]);
    const sizes = new Map(dims.map((d) => [d.name, d.size]));
    return { op, root: ops[0]!, kind: 'map', vars: dims, sizes, pieces: [{ reads, writes: places, dims: dims.map((d) => d.name), indexed: [] }], combine: 'none', elementwise: isElementwise(op) };
  }
  const isRoot = kind === 'contract' ? isContractRoot : isReduceRoot;
  const root = ops.find(isRoot)!;
  const base = plainWalk(root);
  if (base.kind === 'single') return single(op);
  // What is computed from the region's inputs before the root stands at the root's operand; everything else at its result.
  const before = new Set<Value>();
  for (const o of ops) {
    if (o === root) break;
    o.results.forEach((r) => before.add(r));
  }
  const pieces = base.pieces.map((piece): WalkPiece => {
    const reads = region.inputs.map((input, k): Index[][] => {
      const list: Index[][] = [];
      const add = (indices: readonly Index[]): void => {
        if (!list.some((other) => JSON.stringify(other) === JSON.stringify(indices))) list.push([...indices]);
      };
      const operand = op.operands[k]!;
      for (const o of ops) {
        if (!o.operands.includes(input)) continue;
        if (o === root) o.operands.forEach((v, i) => v === input && piece.reads[i]!.forEach(add));
        else if (o.results.some((r) => before.has(r))) piece.reads[0]!.forEach((at) => add(broadcastIndex(operand, at, root.operands[0]!.type.shape)));
        else add(broadcastRead(operand, piece.writes, root.results[0]!.type.shape));
      }
      return list;
    });
    return { ...piece, reads };
  });
  return { ...base, op, root, pieces, elementwise: false };
}

/** Reads of an operand that broadcasts to what is placed. */
function broadcastRead(v: Value, places: readonly Place[], shape: readonly number[]): Index[] {
  const skip = shape.length - v.type.shape.length;
  return v.type.shape.map((d, i) => (d === shape[skip + i] ? at(places[skip + i]!.terms, places[skip + i]!.plus) : zero));
}

/** Reads of an operand that broadcasts to a root's operand of the given shape. */
function broadcastIndex(v: Value, indices: readonly Index[], shape: readonly number[]): Index[] {
  const skip = shape.length - v.type.shape.length;
  return v.type.shape.map((d, i) => (d === shape[skip + i] ? indices[skip + i]! : zero));
}

const isElementwise = (op: Op): boolean => op.operands.every((v) => v.type.shape.length === 0 || v.type.shape.every((d) => d === 1) || (v.type.shape.length === op.results[0]!.type.shape.length && v.type.shape.every((d, i) => d === op.results[0]!.type.shape[i])));

function single(op: Op): Walk {
  return { op, root: op, kind: 'single', vars: [], sizes: new Map(), pieces: [], combine: 'none', elementwise: false };
}

function plainWalk(op: Op): Walk {
  const def = opDef(op.name);
  if (op.regions.length > 0 || op.results.length === 0) return single(op);
  const axes = def.axes(op.operands.map((v) => v.type), op.attrs, op.results.map((v) => v.type));
  if ('none' in axes || axes.stages.length !== 1) return single(op);
  const stage = axes.stages[0]!;
  if (stage.pieces.length === 0) return single(op);
  const kind = def.family === 'map' ? 'map' : def.family === 'contract' || def.family === 'conv' ? 'contract' : def.family === 'reduce' ? 'reduce' : def.family === 'window' ? 'window' : 'move';
  const pieces = stage.pieces.map((p): WalkPiece => ({ reads: p.reads.map((r) => (r ? [r] : [])), writes: p.writes, dims: p.dims, indexed: p.indexed }));
  return {
    op, root: op, kind, vars: varsOf(axes, op.results[0]!.type.shape), sizes: new Map(axes.space.map((d) => [d.name, d.size])), pieces, combine: stage.combine,
    elementwise: kind === 'map' && isElementwise(op),
  };
}

/** Dims that all pieces walk and place alike, result axes where they differ, and reduced dims whose parts can be merged. */
function varsOf(axes: Axes, shape: readonly number[]): Var[] {
  const stage = axes.stages[0]!;
  const [first, ...others] = stage.pieces;
  const dims = new Map(axes.space.map((d) => [d.name, d]));
  const vars = new Map<string, Var>();
  // Dims whose index the body uses stay whole: a vertex is not told where it stands.
  const indexed = new Set(stage.pieces.flatMap((p) => p.indexed));
  shape.forEach((size, axis) => {
    const place = first!.writes[axis]!;
    const alike = others.every((p) => JSON.stringify(p.writes[axis]) === JSON.stringify(place));
    if (!alike) {
      const grain = Math.max(...stage.pieces.map((p) => p.writes[axis]!.terms.reduce((n, [, times]) => Math.max(n, Math.abs(times)), 1)));
      const simple = stage.pieces.every((p) => p.writes[axis]!.terms.length <= 1);
      if (simple && size > 1 && stage.pieces.every((p) => p.writes[axis]!.terms.every(([d]) => !indexed.has(d)))) vars.set(`@${axis}`, { name: `@${axis}`, size, role: 'parallel', axis, grain });
      return;
    }
    for (const [name] of place.terms) {
      const d = dims.get(name)!;
      if (d.role === 'parallel' && d.size > 1 && !indexed.has(name)) vars.set(name, { name, size: d.size, role: 'parallel', grain: 1 });
    }
  });
  if (mergeable.has(stage.combine)) {
    for (const d of axes.space) {
      if (d.role === 'reduce' && d.size > 1 && !indexed.has(d.name) && stage.pieces.every((p) => p.dims.includes(d.name))) vars.set(d.name, { name: d.name, size: d.size, role: 'reduce', grain: 1 });
    }
  }
  return [...vars.values()];
}
