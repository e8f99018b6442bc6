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

interface Node { readonly ops: readonly Op[]; readonly kind: string | undefined; readonly first: number; readonly last: number }

/** Every op a cluster of its own. */
export function singleClusters(graph: Graph): Clusters {
  const index = new Map<Op, number>(graph.ops.map((op, i) => [op, i]));
  const nodes = new Map<Op, Node>(graph.ops.map((op, i) => [op, { ops: [op], kind: undefined, first: i, last: i }]));
  const definitions = new Map<Value, Op>(graph.ops.flatMap((op) => op.results.map((r) => [r, op] as const)));
  const readers = new Map<Value, Op[]>();
  for (const op of graph.ops) for (const v of new Set(op.operands)) readers.set(v, [...(readers.get(v) ?? []), op]);
  const returned = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);

  const producers = function* (ops: Iterable<Op>): Generator<Op> {
    for (const op of ops) {
      for (const v of op.operands) {
        const def = definitions.get(v);
        if (def) yield def;
      }
    }
  };
  const closed: Node[] = [];
  /** The least index from which an op at `index` or after it can be reached backwards: a cluster that spans it leads from its first op to its last. */
  const horizon = (index: number): number => {
    const next = closed.reduce((least, n) => (n.last >= index ? Math.min(least, n.first) : least), index);
    return next === index ? index : horizon(next);
  };
  /** Whether any op of `targets` can be reached backwards from `start` without passing through `through`. `first` is the least index among the targets. */
  const dependsOn = (start: Iterable<Op>, targets: ReadonlySet<Op>, first: number, through: ReadonlySet<Op>): boolean => {
    const least = horizon(first);
    const seen = new Set<Node>();
    const stack: Op[] = [...start];
    for (let op = stack.pop(); op; op = stack.pop()) {
      if (targets.has(op)) return true;
      const node = nodes.get(op)!;
      if (through.has(op) || seen.has(node) || node.last < least) continue;
      seen.add(node);
      stack.push(...producers(node.ops));
    }
    return false;
  };

  return {
    definition: (v) => definitions.get(v),
    readers: (v) => readers.get(v) ?? [],
    returned: (v) => returned.has(v),
    taken: (op) => nodes.get(op)!.kind !== undefined,
    index: (op) => index.get(op)!,
    mayJoin(set, op) {
      const least = Math.min(...[...set].map((o) => index.get(o)!));
      // A path that leaves the set and comes back at the op, or the other way round.
      const outside = [...producers([op])].filter((p) => !set.has(p));
      if (dependsOn(outside, set, least, new Set([op]))) return false;
      const into = [...producers(set)].filter((p) => !set.has(p) && p !== op);
      return !dependsOn(into, new Set([op]), index.get(op)!, set);
    },
    close(set, kind) {
      const ops = [...set].sort((p, q) => index.get(p)! - index.get(q)!);
      const node: Node = { ops, kind, first: index.get(ops[0]!)!, last: index.get(ops.at(-1)!)! };
      for (const op of ops) nodes.set(op, node);
      closed.push(node);
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
          stack.push({ node, inputs: producers(node.ops) });
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
