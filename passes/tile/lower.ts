/** Turns a graph into steps over buffers: exchanges, vertices, merges. Addresses come later. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Graph, Op } from '../../ir/graph.ts';
import type { TileStep } from '../../ir/tiles.ts';
import type { Choice } from './choose.ts';
import { computeWhole } from './lower/compute.ts';
import { contributing } from './lower/contributing.ts';
import { bringStateHome, holdToEnd } from './lower/ends.ts';
import { gather } from './lower/exchange.ts';
import { hold, settle, viewReshape } from './lower/homes.ts';
import type { LayoutOptions } from './layouts/program.ts';
import { Lowering, type LoweredBuffer } from './lower/lowering.ts';
import { computeMerged } from './lower/merge.ts';
import { computeRepeated } from './lower/repeat.ts';
import { timesOf } from './serial.ts';
import type { TileTarget } from './target.ts';

/** Steps and buffers without addresses. */
export interface Lowered {
  readonly steps: readonly TileStep[];
  /** How many there are, bodies of repeats counted once. */
  readonly count: number;
  readonly buffers: readonly LoweredBuffer[];
  /** Ops whose temporaries do not fit under the bound. */
  readonly relaxed: readonly { readonly op: Op; readonly bytes: number }[];
  /** Distinct vertex types. */
  readonly vertices: ReadonlySet<string>;
}

/** Lowers a prepared graph whose ops are run as `choices` say, by their numbers. */
export function lower(graph: Graph, target: TileTarget, choices: readonly (Choice | undefined)[], { bound, bounds }: Pick<LayoutOptions, 'bound' | 'bounds'>): Lowered {
  const l = new Lowering(graph, target, choices);
  holdStateAndInputs(l);
  graph.ops.forEach((op, index) => lowerOp(l, op, index));
  bringStateHome(l);
  holdToEnd(l);
  return { steps: l.steps, count: l.now, buffers: l.buffers, relaxed: choices.flatMap((c, i) => (c && c.temporary > (bounds.get(i) ?? bound) ? [{ op: c.walk.op, bytes: c.temporary }] : [])), vertices: l.vertices };
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
  const choice = l.choices[index];
  invariant(choice, `tiles: no way of running ${op.name} was chosen`);
  settle(l, op, choice);
  if (timesOf(choice.division) > 1) computeRepeated(l, op, index, choice);
  else if (choice.contributors > 1) {
    const first = contributing(op, choice.walk.root);
    computeMerged(l, op, index, choice, gather(l, op, choice, (k) => first.has(k)));
  } else computeWhole(l, op, index, choice, gather(l, op, choice, () => true));
  for (const v of op.operands) l.noteRead(v);
}
