/** Joins what reads the same large tensors again, so that each sample is still in a core's cache when it is read the second time. */
import { isElementwise, isRowReduction } from '../ir/fused.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { cutValues } from '../ir/slabs.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf } from '../ir/type.ts';
import { singleClusters, type Clusters } from './fuse/clusters.ts';
import { enclosed } from './fuse/region.ts';

/** Tiles that the tensors of a slab which are read again take together at most: a large core's own cache. */
const mostTiles = 4;
/** Bytes of one of them at least, so that starting the kernels of a slab costs nothing beside it. */
const fewestBytes = 32768;
/** Slabs below which threads would have too few to share. */
const fewestSlabs = 8;

/**
 * Replaces reductions of large tensors, ops that read the same tensors after them, and what lies between by a `slabs` op, where all of them keep apart what lies at different indices of axis 0: the statistics
 * of a norm over groups and what they normalize, the sums of its backward pass and the gradient of its input. Memory then gives each tensor once. An elementwise op whose result nothing else reads comes along.
 * For targets whose tiles are cores with caches.
 */
export function fuseSlabs(graph: Graph, target: Target): Graph {
  const { division } = target;
  if (!division) return graph;
  const tried = new Set<Op>();
  let current = graph;
  for (;;) {
    const c = singleClusters(current);
    const set = firstSet(current, c, tried, mostTiles * division.bytesPerTile);
    if (!set) return current;
    current = replaced(current, set);
  }
}

/** Ops that are computed slab by slab, the views of large tensors that they read, and what else reads their results. */
interface Members {
  readonly ops: readonly Op[];
  readonly views: readonly Op[];
  readonly results: readonly Value[];
}

function firstSet(graph: Graph, c: Clusters, tried: Set<Op>, mostBytes: number): Members | undefined {
  for (const op of graph.ops) {
    if (tried.has(op) || !reduces(op)) continue;
    tried.add(op);
    const members = new Growth(graph, c, op, mostBytes).members();
    if (members) return members;
  }
  return undefined;
}

/** Whether an op is or holds reductions over axes. */
const reduces = (op: Op): boolean => (op.name === 'fused' ? op.regions[0]!.ops : [op]).some(isRowReduction);

/** The ops that are computed slab by slab from a first reduction on. */
class Growth {
  readonly #graph: Graph;
  readonly #c: Clusters;
  readonly #first: Op;
  readonly #slabs: number;
  readonly #mostBytes: number;
  constructor(graph: Graph, c: Clusters, first: Op, mostBytes: number) {
    this.#graph = graph;
    this.#c = c;
    this.#first = first;
    this.#mostBytes = mostBytes;
    this.#slabs = Math.max(...first.operands.filter((v) => bytesOf(v.type) >= fewestSlabs * fewestBytes).map((v) => v.type.shape[0] ?? 0), 0);
  }

  /** Undefined where joining is impossible or brings nothing. */
  members(): Members | undefined {
    if (this.#slabs < fewestSlabs || !this.#fits([this.#first])) return undefined;
    const set = new Set<Op>([this.#first]);
    // What depends on the set without being of it: its readers stay outside.
    const beyond = new Set<Value>();
    for (const op of this.#graph.ops.slice(this.#c.index(this.#first) + 1)) {
      const depends = op.operands.some((v) => beyond.has(v));
      if (!depends && !op.operands.some((v) => set.has(this.#c.definition(v)!))) continue;
      if (!depends && this.#fits([...set, op])) set.add(op);
      else op.results.forEach((r) => beyond.add(r));
    }
    this.#leaveOut(set);
    if (set.size === 1) return undefined;
    for (const v of [...set].flatMap((op) => op.operands)) this.#comeAlong(v, set);
    const ops = this.#inOrder(set);
    const results = ops.flatMap((op) => op.results.filter((r) => this.#c.returned(r) || this.#c.readers(r).some((reader) => !set.has(reader))));
    return { ops, views: this.#views(ops), results };
  }

  /** Views that the ops read, of values that they do not make. */
  #views(ops: readonly Op[]): Op[] {
    const views = new Set<Op>();
    const visit = (v: Value): void => {
      const op = this.#c.definition(v);
      if (!op || !isView(op) || !this.#isLarge(v) || ops.includes(op) || views.has(op)) return;
      visit(op.operands[0]!);
      views.add(op);
    };
    for (const v of ops.flatMap((op) => op.operands)) visit(v);
    return [...views];
  }

  /** Leaves out what only ends there: it runs as well when all slabs are done. */
  #leaveOut(set: Set<Op>): void {
    for (const op of this.#inOrder(set).toReversed()) {
      if (op === this.#first || op.results.some((r) => this.#c.readers(r).some((reader) => set.has(reader)))) continue;
      const others = new Set([...set].filter((o) => o !== op).flatMap((o) => this.#touched(o)));
      if (!this.#touched(op).some((v) => others.has(v))) set.delete(op);
    }
  }

  /** Takes in the elementwise op that makes a large value for the set alone. */
  #comeAlong(v: Value, set: Set<Op>): void {
    const op = this.#c.definition(v);
    if (!op || set.has(op) || !isElementwise(op) || op.results.length > 1 || !this.#isLarge(v) || this.#c.returned(v)) return;
    if (this.#c.readers(v).every((r) => set.has(r)) && this.#fits([...set, op])) set.add(op);
  }

  #fits(ops: Iterable<Op>): boolean {
    const list = this.#inOrder(ops);
    const cut = cutValues([...this.#views(list), ...list], this.#slabs);
    if (typeof cut === 'string' || list.some((o) => o.results.some((r) => !cut.has(r)))) return false;
    const times = new Map<Value, number>();
    for (const v of list.flatMap((o) => this.#touched(o))) times.set(v, (times.get(v) ?? 0) + 1);
    return [...times].reduce((sum, [v, n]) => (n > 1 ? sum + bytesOf(v.type) / this.#slabs : sum), 0) <= this.#mostBytes;
  }

  /** The large tensors that an op reads and writes. */
  #touched(op: Op): Value[] {
    return [...new Set([...op.operands, ...op.results].filter((v) => this.#isLarge(v)).map((v) => viewed(v, this.#c)))];
  }

  #isLarge(v: Value): boolean {
    return v.type.shape[0] === this.#slabs && bytesOf(v.type) >= this.#slabs * fewestBytes;
  }

  #inOrder(ops: Iterable<Op>): Op[] {
    return [...ops].sort((p, q) => this.#c.index(p) - this.#c.index(q));
  }
}

/** The value that reshapes along the same axis 0 give in other shapes. */
function viewed(v: Value, c: Clusters): Value {
  const op = c.definition(v);
  return op && isView(op) ? viewed(op.operands[0]!, c) : v;
}
const isView = (op: Op): boolean => op.name === 'reshape' && op.operands[0]!.type.shape[0] === op.results[0]!.type.shape[0];

/** The graph with a `slabs` op in the place of its members. What reads its results comes after it. */
function replaced(graph: Graph, members: Members): Graph {
  const inside = new Set(members.ops);
  const from = graph.ops.findIndex((op) => inside.has(op));
  const to = graph.ops.findLastIndex((op) => inside.has(op));
  const dependent = new Set<Value>(members.ops.flatMap((op) => op.results));
  const [before, after]: [Op[], Op[]] = [[], []];
  for (const op of graph.ops.slice(from, to + 1)) {
    if (inside.has(op)) continue;
    if (!op.operands.some((v) => dependent.has(v))) before.push(op);
    else {
      after.push(op);
      op.results.forEach((r) => dependent.add(r));
    }
  }
  return { ...graph, ops: [...graph.ops.slice(0, from), ...before, enclosed('slabs', { slabs: members.ops[0]!.results[0]!.type.shape[0]! }, [...members.views, ...members.ops], members.results), ...after, ...graph.ops.slice(to + 1)] };
}
