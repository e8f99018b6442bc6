/** From a graph of core ops to the ops that tiles run: storage, recomputation, fusion and order. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { definitions } from '../../ir/graph.ts';
import { isMap } from '../../ir/fused.ts';
import type { Target } from '../../ir/tile.ts';
import { fuse } from '../fuse.ts';
import { growMapBothWays, growth } from '../fuse/grow.ts';
import { eliminateDeadCode } from '../eliminate-dead-code.ts';
import { inHalf } from '../half-precision.ts';
import { runPipeline, simplifications } from '../pipeline.ts';
import { lowered } from './order.ts';
import { lateOutputs, splitStep, type Recompute } from './recompute.ts';

export interface PrepareOptions {
  readonly dtype?: 'f32' | 'f16';
  readonly recompute?: Recompute;
}

/** Statistics are steps of their own, since tiles have to meet between them and what follows. */
const kinds = growth.filter((k) => k.kind !== 'row').map((k) => (k.kind === 'map' ? { ...k, grow: growMapBothWays } : k));

/** Simplifies a graph, and stores it in f16 if asked: what does not depend on recomputation. */
export function simplified(graph: Graph, target: Target, options: PrepareOptions): Graph {
  const simple = runPipeline(graph, target, { passes: simplifications });
  return options.dtype === 'f16' ? inHalf(simple, target) : simple;
}

/** The ops that tiles run, in order, of a graph that has been simplified. */
export function prepare(graph: Graph, target: Target, options: PrepareOptions): Graph {
  const split = splitStep(graph, options.recompute ?? 'none');
  const late = lateOutputs(graph);
  const constants = graph.ops.filter((op) => op.name === 'constant');
  const plain = (ops: readonly Op[]): Op[] => ops.filter((op) => op.name !== 'constant');
  const forward = fuse({ ...graph, ops: [...constants, ...plain(split.forward)], outputs: [...graph.outputs.filter((o) => !late.includes(o)), ...split.saved.map((value) => ({ name: '', value }))], updates: [] }, target, kinds);
  const made = new Set(forward.ops.flatMap((op) => op.results));
  const updates = graph.updates.filter((u) => !made.has(u.value));
  const backward = fuse({ ...graph, inputs: [...graph.inputs, ...split.saved], ops: [...constants, ...plain(split.backward)], outputs: late, updates }, target, kinds);
  const ops = [...new Set([...constants, ...plain(forward.ops), ...inOrder(plain(backward.ops), split.copies, graph)])];
  return lowered(eliminateDeadCode({ ...graph, ops }, target));
}

/**
 * Ops that run again come right before the first that reads them, and updates of state as soon as what they need is there and nobody reads the old value later.
 */
function inOrder(ops: readonly Op[], copies: ReadonlySet<Value>, graph: Graph): Op[] {
  const defs = definitions({ ...graph, ops });
  const out: Op[] = [];
  const begun = new Set<Op>();
  /** Readers of what has been emitted. */
  const waiting: Op[] = [];
  const done = new Set<Op>();
  const updates = new Map(graph.updates.map((u) => [u.value, u.state]));
  const readersOf = new Map<Value, Set<Op>>();
  for (const op of ops) for (const v of op.operands) readersOf.set(v, (readersOf.get(v) ?? new Set()).add(op));
  /** Ops that run again, and what follows from them and from state alone: they wait for their first reader. */
  const lazy = new Set<Op>();
  for (const op of ops) {
    const made = op.operands.flatMap((v) => defs.get(v) ?? []);
    if ((op.results.length > 0 && op.results.every((r) => copies.has(r))) || (made.some((d) => lazy.has(d)) && made.every((d) => lazy.has(d)))) lazy.add(op);
  }
  const isCopy = (op: Op): boolean => lazy.has(op);
  const emit = (op: Op): void => {
    if (begun.has(op)) return;
    begun.add(op);
    for (const v of op.operands) {
      const def = defs.get(v);
      if (def) emit(def);
    }
    out.push(op);
    done.add(op);
    waiting.push(...op.results.flatMap((r) => [...(readersOf.get(r) ?? [])]));
  };
  const isUpdate = (op: Op): boolean => op.results.some((r) => updates.has(r));
  /** Runs what leads to updates alone as soon as it can. */
  const early = (op: Op): void => {
    if (begun.has(op) || isCopy(op)) return;
    if (!leadsToUpdate(op) || !op.operands.every((v) => !defs.has(v) || done.has(defs.get(v)!) || isCopy(defs.get(v)!) || isFree(defs.get(v)!))) return;
    const waits = isUpdate(op) && op.results.some((r) => {
      const state = updates.get(r);
      return state !== undefined && [...(readersOf.get(state) ?? [])].some((x) => x !== op && !done.has(x) && !leadsToUpdate(x));
    });
    if (!waits) emit(op);
  };
  /** Depends on state and inputs alone, or on what is done. */
  const isFree = (op: Op): boolean => (op.name === 'reshape' || isMap(op.regions.length > 0 ? op.regions[0]!.ops.at(-1)! : op)) && op.operands.every((v) => !defs.has(v) || done.has(defs.get(v)!));
  const leads = new Map<Op, boolean>();
  const leadsToUpdate = (op: Op): boolean => {
    const known = leads.get(op);
    if (known !== undefined) return known;
    leads.set(op, false);
    const answer = isUpdate(op) || (op.results.length > 0 && op.results.every((r) => readersOf.has(r) && [...readersOf.get(r)!].every(leadsToUpdate)));
    leads.set(op, answer);
    return answer;
  };
  for (const op of ops) {
    if (isCopy(op)) continue;
    emit(op);
    for (let reader = waiting.shift(); reader; reader = waiting.shift()) early(reader);
  }
  // Lazy ops that nobody has asked for update state.
  for (const op of ops) emit(op);
  return out;
}
