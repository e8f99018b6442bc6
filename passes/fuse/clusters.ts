/** A partition of a graph's ops into clusters that can each run as one op: between clusters there is never a cycle. */
import type { Graph, Op, Value } from '../../ir/graph.ts';

export interface Clusters {
  /** The op that defines a value; undefined for inputs and state. */
  definition(v: Value): Op | undefined;
  /** The ops that read a value, in order, each once. */
  readers(v: Value): readonly Op[];
  /** Whether a value is an output or an update of the graph. */
  returned(v: Value): boolean;
  /** Whether an op belongs to a cluster of several ops, or to one that was closed. */
  taken(op: Op): boolean;
  index(op: Op): number;
  /** Whether a set of untaken ops stays acyclic with the other clusters when `op` joins it. */
  mayJoin(set: ReadonlySet<Op>, op: Op): boolean;
  /** Makes a cluster of a set of untaken ops. */
  close(set: ReadonlySet<Op>, kind: string): void;
  /** All clusters in an order in which each comes after what it reads; members in graph order. `kind` is undefined for single untaken ops. */
  ordered(): readonly { readonly ops: readonly Op[]; readonly kind: string | undefined }[];
}

interface Node { readonly ops: readonly Op[]; readonly kind: string | undefined; readonly last: number; place: number; seen: number }

/** Every op a cluster of its own. */
export function singleClusters(graph: Graph): Clusters {
  const index = new Map<Op, number>(graph.ops.map((op, i) => [op, i]));
  const nodes = new Map<Op, Node>(graph.ops.map((op, i) => [op, { ops: [op], kind: undefined, last: i, place: i, seen: 0 }]));
  const definitions = new Map<Value, Op>(graph.ops.flatMap((op) => op.results.map((r) => [r, op] as const)));
  const readers = new Map<Value, Op[]>();
  for (const op of graph.ops) {
    for (const v of new Set(op.operands)) {
      const list = readers.get(v);
      if (list) list.push(op);
      else readers.set(v, [op]);
    }
  }
  const returned = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  const producers = new Map<Op, readonly Op[]>(graph.ops.map((op) => [op, op.operands.flatMap((v) => definitions.get(v) ?? [])]));
  /** Clusters in an order in which each comes after what it reads: a walk backwards can stop at places before the one it looks for. */
  const places: (Node | undefined)[] = [...nodes.values()];
  let walks = 0;

  /** Whether any op of `targets` can be reached backwards from `start` without passing through `through`. `least` is the first place of the targets. */
  const dependsOn = (start: readonly Op[], targets: ReadonlySet<Op>, least: number, through: ReadonlySet<Op>): boolean => {
    const walk = ++walks;
    const stack: Op[] = [...start];
    for (let op = stack.pop(); op; op = stack.pop()) {
      if (targets.has(op)) return true;
      const node = nodes.get(op)!;
      if (node.seen === walk || node.place < least || through.has(op)) continue;
      node.seen = walk;
      for (const o of node.ops) stack.push(...producers.get(o)!);
    }
    return false;
  };
  /** Puts a new cluster in place of its members: right after what it reads, of the clusters that stood between them. */
  const reorder = (members: ReadonlySet<Node>, node: Node): void => {
    const own = [...members].map((m) => m.place);
    const [first, last] = [Math.min(...own), Math.max(...own)];
    const walk = ++walks;
    const stack: Op[] = node.ops.flatMap((o) => producers.get(o)!);
    for (let op = stack.pop(); op; op = stack.pop()) {
      const before = nodes.get(op)!;
      if (before.seen === walk || before.place < first || members.has(before)) continue;
      before.seen = walk;
      for (const o of before.ops) stack.push(...producers.get(o)!);
    }
    const between = places.slice(first, last + 1).filter((n) => n !== undefined && !members.has(n)) as Node[];
    const ordered = [...between.filter((n) => n.seen === walk), node, ...between.filter((n) => n.seen !== walk)];
    for (let i = 0; i <= last - first; i++) {
      const n = ordered[i];
      places[first + i] = n;
      if (n) n.place = first + i;
    }
  };

  return {
    definition: (v) => definitions.get(v),
    readers: (v) => readers.get(v) ?? [],
    returned: (v) => returned.has(v),
    taken: (op) => nodes.get(op)!.kind !== undefined,
    index: (op) => index.get(op)!,
    mayJoin(set, op) {
      const least = [...set].reduce((n, o) => Math.min(n, nodes.get(o)!.place), Infinity);
      // A path that leaves the set and comes back at the op, or the other way round.
      const outside = producers.get(op)!.filter((p) => !set.has(p));
      if (dependsOn(outside, set, least, new Set([op]))) return false;
      const into = [...set].flatMap((o) => producers.get(o)!.filter((p) => !set.has(p) && p !== op));
      return !dependsOn(into, new Set([op]), nodes.get(op)!.place, set);
    },
    close(set, kind) {
      const ops = [...set].sort((p, q) => index.get(p)! - index.get(q)!);
      const members = new Set(ops.map((op) => nodes.get(op)!));
      const node: Node = { ops, kind, last: index.get(ops.at(-1)!)!, place: 0, seen: 0 };
      reorder(members, node);
      for (const op of ops) nodes.set(op, node);
    },
    ordered() {
      const done = new Set<Node>();
      const order: Node[] = [];
      const visit = (root: Node): void => {
        // Depth first without recursion: graphs can be thousands of ops deep.
        const stack: { node: Node; inputs: Iterator<Op> }[] = [];
        const enter = (node: Node): void => {
          if (done.has(node)) return;
          done.add(node);
          stack.push({ node, inputs: node.ops.flatMap((op) => producers.get(op)!)[Symbol.iterator]() });
        };
        enter(root);
        for (let top = stack.at(-1); top; top = stack.at(-1)) {
          const next = top.inputs.next();
          if (!next.done) enter(nodes.get(next.value)!);
          else order.push(stack.pop()!.node);
        }
      };
      for (const node of [...new Set(nodes.values())].sort((p, q) => p.last - q.last)) visit(node);
      return order;
    },
  };
}

/** Values of a set of ops that are read outside it, or returned, in graph order. */
export function escaping(set: ReadonlySet<Op>, c: Clusters): Value[] {
  const ops = [...set].sort((p, q) => c.index(p) - c.index(q));
  return ops.flatMap((op) => op.results.filter((r) => c.returned(r) || c.readers(r).some((reader) => !set.has(reader))));
}
