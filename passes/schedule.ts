/** Orders the ops of a graph so that few bytes are live at once. */
import type { Graph, Op, Value } from '../ir/graph.ts';
import { bytesOf } from '../ir/type.ts';

/** Ops whose result is a view of their operand: they hold no bytes of their own. */
const views = new Set(['reshape', 'transpose', 'slice']);

/** The value whose memory a value lies in. */
export function storageOf(value: Value, defs: ReadonlyMap<Value, Op>): Value {
  let v = value;
  for (let op = defs.get(v); op && views.has(op.name); op = defs.get(v)) v = op.operands[0]!;
  return v;
}

/**
 * Reorders ops (a topological order stays one) by the best of three orders: as given, depth-first from the outputs, and greedily by the change in
 * live bytes. Returns the graph and the largest sum of live bytes of the chosen order: inputs from the start and values that ops compute from definition, to the last
 * reader.
 */
export function schedule(graph: Graph): { readonly graph: Graph; readonly liveBytes: number } {
  const world = describe(graph);
  const orders = [graph.ops, depthFirst(graph, world), greedy(graph, world)];
  let best = { ops: orders[0]!, liveBytes: Infinity };
  for (const ops of orders) {
    const liveBytes = peak(ops, world);
    if (liveBytes < best.liveBytes) best = { ops, liveBytes };
  }
  return { graph: { ...graph, ops: best.ops }, liveBytes: best.liveBytes };
}

interface World {
  readonly defs: ReadonlyMap<Value, Op>;
  readonly inputs: readonly Value[];
  /** Bytes of each storage value that an op computes, and of inputs. */
  readonly bytes: ReadonlyMap<Value, number>;
  /** Storage values that an op reads and makes. */
  readonly reads: ReadonlyMap<Op, readonly Value[]>;
  readonly makes: ReadonlyMap<Op, readonly Value[]>;
  /** Number of ops that read a storage value; outputs and updates count as readers that never come. */
  readonly readers: ReadonlyMap<Value, number>;
}

function describe(graph: Graph): World {
  const defs = new Map<Value, Op>();
  for (const op of graph.ops) for (const r of op.results) defs.set(r, op);
  const used = new Set<Value>([...graph.ops.flatMap((op) => op.operands), ...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  const bytes = new Map<Value, number>();
  const makes = new Map<Op, Value[]>();
  const reads = new Map<Op, Value[]>();
  const readers = new Map<Value, number>();
  for (const v of graph.inputs) bytes.set(v, bytesOf(v.type));
  for (const op of graph.ops) {
    const made = op.name === 'constant' || views.has(op.name) ? [] : op.results.filter((r) => used.has(r));
    for (const r of made) bytes.set(r, bytesOf(r.type));
    makes.set(op, made);
  }
  for (const op of graph.ops) {
    const read = [...new Set(op.operands.map((v) => storageOf(v, defs)))].filter((v) => bytes.has(v));
    reads.set(op, read);
    for (const v of read) readers.set(v, (readers.get(v) ?? 0) + 1);
  }
  for (const o of [...graph.outputs, ...graph.updates]) {
    const v = storageOf(o.value, defs);
    if (bytes.has(v)) readers.set(v, (readers.get(v) ?? 0) + 1);
  }
  return { defs, bytes, reads, makes, readers, inputs: graph.inputs };
}

function peak(ops: readonly Op[], w: World): number {
  const left = new Map(w.readers);
  let live = w.inputs.reduce((n, v) => n + w.bytes.get(v)!, 0);
  let most = live;
  for (const v of w.inputs) if (!w.readers.has(v)) live -= w.bytes.get(v)!;
  for (const op of ops) {
    for (const v of w.makes.get(op)!) live += w.bytes.get(v)!;
    most = Math.max(most, live);
    for (const v of w.reads.get(op)!) if (release(left, v) === 0) live -= w.bytes.get(v)!;
  }
  return most;
}

function release(left: Map<Value, number>, v: Value): number {
  const n = left.get(v)! - 1;
  left.set(v, n);
  return n;
}

function depthFirst(graph: Graph, w: World): Op[] {
  const order: Op[] = [];
  const seen = new Set<Op>();
  const visit = (root: Op): void => {
    const stack: { op: Op; next: number }[] = [{ op: root, next: 0 }];
    seen.add(root);
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const v = top.op.operands[top.next++];
      if (v === undefined) {
        order.push(top.op);
        stack.pop();
        continue;
      }
      const def = w.defs.get(v);
      if (def && !seen.has(def)) {
        seen.add(def);
        stack.push({ op: def, next: 0 });
      }
    }
  };
  for (const o of [...graph.outputs, ...graph.updates]) {
    const def = w.defs.get(o.value);
    if (def && !seen.has(def)) visit(def);
  }
  for (const op of graph.ops) if (!seen.has(op)) visit(op);
  return order;
}

/** Takes, of all ready ops, the one that leaves the fewest bytes live; ties go to the one given first. Views and constants go at once. */
function greedy(graph: Graph, w: World): Op[] {
  const waiting = new Map<Op, number>();
  const users = new Map<Op, Op[]>();
  const place = new Map(graph.ops.map((op, i) => [op, i]));
  for (const op of graph.ops) {
    const from = new Set(op.operands.flatMap((v) => w.defs.get(v) ?? []));
    waiting.set(op, from.size);
    for (const d of from) {
      const list = users.get(d);
      if (list) list.push(op);
      else users.set(d, [op]);
    }
  }
  const left = new Map(w.readers);
  const ready = graph.ops.filter((op) => waiting.get(op) === 0);
  const order: Op[] = [];
  const delta = (op: Op): number => {
    let d = 0;
    for (const v of w.makes.get(op)!) d += w.bytes.get(v)!;
    for (const v of w.reads.get(op)!) if (left.get(v) === 1) d -= w.bytes.get(v)!;
    return d;
  };
  while (ready.length > 0) {
    let at = 0;
    let least = Infinity;
    for (let i = 0; i < ready.length; i++) {
      const op = ready[i]!;
      const cost = w.makes.get(op)!.length === 0 ? -Infinity : delta(op);
      if (cost < least || (cost === least && place.get(op)! < place.get(ready[at]!)!)) {
        at = i;
        least = cost;
      }
    }
    const op = ready.splice(at, 1)[0]!;
    order.push(op);
    for (const v of w.reads.get(op)!) release(left, v);
    for (const u of users.get(op) ?? []) {
      const n = waiting.get(u)! - 1;
      waiting.set(u, n);
      if (n === 0) ready.push(u);
    }
  }
  return order;
}
