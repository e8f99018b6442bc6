/** Turns a graph into steps over buffers: exchanges, vertices, merges. Addresses come later. */
import type { Graph, Op } from '../../ir/graph.ts';
import type { TileStep } from '../../ir/tiles.ts';
import type { Choice, Chooser } from './choose.ts';
import { computeWhole } from './lower/compute.ts';
import { contributing } from './lower/contributing.ts';
import { bringStateHome, holdToEnd } from './lower/ends.ts';
import { gather } from './lower/exchange.ts';
import { hold, settle, viewReshape } from './lower/homes.ts';
import { Lowering, type LoweredBuffer, type LowerOptions } from './lower/lowering.ts';
import { computeMerged } from './lower/merge.ts';
import { mergeSpread } from './lower/merge-spread.ts';
import { computeRepeated } from './lower/repeat.ts';
import { overTime, timesOf } from './serial.ts';
import type { TileTarget } from './target.ts';

/** Steps and buffers without addresses. */
export interface Lowered {
  readonly steps: readonly TileStep[];
  /** How many there are, bodies of repeats counted once. */
  readonly count: number;
  readonly buffers: readonly LoweredBuffer[];
  /** Ops whose temporaries do not fit under the bound. */
  readonly relaxed: Chooser['relaxed'];
  /** Distinct vertex types. */
  readonly vertices: ReadonlySet<string>;
}

/** Lowers a prepared graph. */
export function lower(graph: Graph, target: TileTarget, options: LowerOptions): Lowered {
  const l = new Lowering(graph, target, options);
  holdStateAndInputs(l);
  graph.ops.forEach((op, index) => {
    if (index % 100 === 0) options.onProgress?.(index, graph.ops.length);
    lowerOp(l, op, index);
  });
  bringStateHome(l);
  holdToEnd(l);
  return { steps: l.steps, count: l.now, buffers: l.buffers, relaxed: l.chooser.relaxed, vertices: l.vertices };
}

function holdStateAndInputs(l: Lowering): void {
  const updated = new Set(l.graph.updates.map((u) => u.state));
  for (const s of l.graph.state) if (l.left.has(s.value) || updated.has(s.value)) hold(l, s.value, updated.has(s.value) ? 'state' : 'constant', s.name);
  for (const v of l.graph.inputs) hold(l, v, 'input', v.name ?? 'input');
}

function lowerOp(l: Lowering, op: Op, index: number): void {
  if (op.name === 'constant') {
    if (op.results.some((r) => l.left.has(r))) hold(l, op.results[0]!, 'constant', op.results[0]!.name ?? `constant ${index}`);
    return;
  }
  if (op.name === 'reshape' && viewReshape(l, op)) return;
  const choice = choose(l, op, index);
  settle(l, op, choice);
  if (timesOf(choice.division) > 1) computeRepeated(l, op, index, choice);
  else if (choice.contributors > 1) {
    const first = contributing(op, choice.walk.root);
    computeMerged(l, op, index, choice, gather(l, op, choice, (k) => first.has(k)));
  } else computeWhole(l, op, index, choice, gather(l, op, choice, () => true));
  for (const v of op.operands) l.noteRead(v);
}

/** Chooses how an op is run, given where its operands lie and who reads its result. */
function choose(l: Lowering, op: Op, index: number): Choice {
  const homes = op.operands.map((v) => l.home(v).spread);
  const free = op.operands.map((v) => l.free.has(v) && op.operands.indexOf(v) === op.operands.lastIndexOf(v));
  // New state lies where the old one does, whole.
  const repeats = l.options.serial && op.results.length === 1 && !l.updates.has(op.results[0]!);
  return l.chooser.choose(op, homes, free, repeats, l.options.bounds.get(index), (c) => cyclesAfter(l, op, c));
}

/** Cycles that ops to come pay for where a choice leaves the results. */
function cyclesAfter(l: Lowering, op: Op, choice: Choice): number {
  const [result] = op.results;
  if (!result || l.target.constants.tiles === 1) return 0;
  const spread = choice.contributors > 1 ? mergeSpread(l, op, choice) : overTime(choice.made);
  return spread ? l.outlook.cyclesAfter(result, spread) : 0;
}
