/** What the backward pass keeps of the forward pass, and what it computes again. */
import { isMap } from '../../ir/fused.ts';
import { definitions, type Graph, type Op, type Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { bytesOf } from '../../ir/type.ts';
import { gradientName } from '../train/extend.ts';

/**
 * `none`: what contractions, pools and other heavy ops give and read is kept; elementwise values between them are computed again where they are read, since that costs no more than reading them.
 * `norms`: also elementwise values that heavy ops read, where they follow from kept values alone. `blocks`: only values through which everything passes (residual additions) are kept.
 * `all`: every √n-th of those.
 */
export type Recompute = 'none' | 'norms' | 'blocks' | 'all';
export const recomputeLevels: readonly Recompute[] = ['none', 'norms', 'blocks', 'all'];

/** A training step in two parts. The backward part reads values of the forward part, and holds copies of ops that run again. */
export interface SplitStep {
  readonly forward: readonly Op[];
  readonly backward: readonly Op[];
  /** Results of ops that run again; they are scheduled as late as possible. */
  readonly copies: ReadonlySet<Value>;
  /** Values of the forward part that the backward part reads. */
  readonly saved: readonly Value[];
}

/** Values smaller than this share of the largest are always kept. */
const smallShare = 1 / 64;

/** Splits a graph into what its outputs need, but for those that are late, and the rest, and makes the rest compute again what it does not keep. */
export function splitStep(graph: Graph, level: Recompute, outputs: Graph['outputs'] = lateOutputs(graph)): SplitStep {
  const defs = definitions(graph);
  const late = new Set(outputs);
  const inForward = ancestors(graph.outputs.flatMap((o) => (late.has(o) ? [] : [o.value])), defs);
  const forward = graph.ops.filter((op) => inForward.has(op));
  const rest = graph.ops.filter((op) => !inForward.has(op));
  const largest = Math.max(0, ...forward.filter((op) => op.name !== 'constant').flatMap((op) => op.results.map((r) => bytesOf(r.type))));
  const isSmall = (v: Value): boolean => bytesOf(v.type) <= largest * smallShare;
  const keeps = keptValues(graph, forward, defs, isSmall, level);

  const copies = new Set<Value>();
  const saved = new Set<Value>();
  const made = new Map<Value, Value>();
  const backward: Op[] = [];
  const again = (v: Value): Value => {
    const def = defs.get(v);
    if (!def || !inForward.has(def) || def.name === 'constant') return v;
    if (keeps(v)) {
      saved.add(v);
      return v;
    }
    const known = made.get(v);
    if (known) return known;
    const operands = def.operands.map(again);
    const results = def.results.map((r): Value => ({ type: r.type, name: r.name }));
    def.results.forEach((r, i) => {
      made.set(r, results[i]!);
      copies.add(results[i]!);
    });
    backward.push({ ...def, operands, results });
    return made.get(v)!;
  };
  for (const op of rest) {
    const operands = op.operands.map(again);
    backward.push(operands.every((v, i) => v === op.operands[i]) ? op : { ...op, operands });
  }
  for (const u of graph.updates) if (defs.has(u.value) && inForward.has(defs.get(u.value)!)) saved.add(u.value);
  return { forward, backward, copies, saved: [...saved] };
}

/** Outputs that the backward part makes: gradients. */
export function lateOutputs(graph: Graph): Graph['outputs'] {
  const names = new Set(graph.state.map((s) => gradientName(s.name)));
  return graph.outputs.filter((o) => names.has(o.name));
}

function ancestors(values: readonly Value[], defs: ReadonlyMap<Value, Op>): Set<Op> {
  const seen = new Set<Op>();
  const stack = [...values];
  for (let v = stack.pop(); v; v = stack.pop()) {
    const op = defs.get(v);
    if (!op || seen.has(op)) continue;
    seen.add(op);
    stack.push(...op.operands);
  }
  return seen;
}

const isMove = (op: Op): boolean => op.name === 'reshape' || op.name === 'transpose' || op.name === 'broadcast';
/** Cheap enough to run again wherever its result is read. */
const isLight = (op: Op): boolean => isMap(op) || isMove(op) || opDef(op.name).family === 'random' || opDef(op.name).family === 'constant';

function keptValues(graph: Graph, forward: readonly Op[], defs: ReadonlyMap<Value, Op>, isSmall: (v: Value) => boolean, level: Recompute): (v: Value) => boolean {
  const returned = new Set(graph.outputs.map((o) => o.value));
  if (level === 'blocks' || level === 'all') {
    const cuts = checkpoints(forward, defs, isSmall, level === 'all');
    return (v) => cuts.has(v) || returned.has(v) || isSmall(v);
  }
  // Values that heavy ops read, through moves.
  const readByHeavy = new Set<Value>();
  for (const op of forward) {
    if (isLight(op)) continue;
    for (const operand of op.operands) {
      let v = operand;
      for (let def = defs.get(v); def && isMove(def); def = defs.get(v)) v = def.operands[0]!;
      readByHeavy.add(v);
    }
  }
  const light = new Map<Value, boolean>();
  /** Whether a value follows from results of heavy ops and small values alone. */
  const follows = (v: Value): boolean => {
    const def = defs.get(v);
    if (!def || !isLight(def) || isSmall(v)) return true;
    const known = light.get(v);
    if (known !== undefined) return known;
    const answer = def.operands.every((x) => !readByHeavy.has(x) ? follows(x) : !isLight(defs.get(x) ?? def) || !defs.has(x));
    light.set(v, answer);
    return answer;
  };
  return (v) => {
    const def = defs.get(v)!;
    if (isSmall(v) || returned.has(v) || !isLight(def)) return true;
    return readByHeavy.has(v) && (level === 'none' || !follows(v));
  };
}

/**
 * Values through which the forward pass narrows to one tensor, with at least one heavy op between two of them (the later of neighbours counts): where a chain of residual blocks meets again.
 * `sparse` leaves every √n-th.
 */
function checkpoints(forward: readonly Op[], defs: ReadonlyMap<Value, Op>, isSmall: (v: Value) => boolean, sparse: boolean): Set<Value> {
  const rootOf = (v: Value): Value => {
    let root = v;
    for (let def = defs.get(root); def && isMove(def); def = defs.get(root)) root = def.operands[0]!;
    return root;
  };
  const left = new Map<Value, number>();
  for (const op of forward) if (!isMove(op)) for (const v of new Set(op.operands.map(rootOf))) left.set(v, (left.get(v) ?? 0) + 1);
  const live = new Set<Value>();
  const found: Value[] = [];
  let heavy = false;
  for (const op of forward) {
    if (isMove(op) || op.name === 'constant') continue;
    for (const r of op.results) if ((left.get(r) ?? 0) > 0 && !isSmall(r)) live.add(r);
    for (const v of new Set(op.operands.map(rootOf))) {
      const n = left.get(v)! - 1;
      left.set(v, n);
      if (n === 0) live.delete(v);
    }
    heavy ||= !isLight(op) && opDef(op.name).family !== 'reduce';
    if (live.size !== 1) continue;
    const [only] = live;
    if (!only || !defs.has(only) || found.at(-1) === only) continue;
    if (!heavy && found.length > 0) found.pop();
    found.push(only);
    heavy = false;
  }
  // What a pool makes much smaller at once is cheaper to compute again than to keep.
  const kept = found.filter((v, i) => i === found.length - 1 || bytesOf(v.type) <= 2 * bytesOf(found[i + 1]!.type));
  if (!sparse) return new Set(kept);
  const every = Math.max(1, Math.round(Math.sqrt(kept.length)));
  return new Set(kept.filter((_, i) => i % every === every - 1));
}
