/** How plans look on a terminal. */
import type { Again, TilePlan } from '../../ir/tiles.ts';
import { regionsInParts } from '../../passes/tile/fit-parts.ts';
import { exchangeCode } from '../../passes/tile/exchange-code.ts';
import type { Lever } from '../../passes/tile/levers.ts';
import { aliveAt, bytesByKind, bytesByTile, cyclesByVertex, cyclesOf, sliceBytes, totalCycles } from '../../passes/tile/report.ts';
import type { AccumulatedPlan } from '../../passes/tile/plan.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import type { Trial } from '../../passes/tile/trials.ts';
import { bytes, say, table, whole } from '../print.ts';
import type { Compared } from './compare.ts';

const percent = (part: number, of: number): string => `${of === 0 ? 0 : Math.round((100 * part) / of)} %`;

/** What a plan takes and how fast it is, in short. */
export function showPlan(plan: TilePlan, target: TileTarget, fits: boolean, recompute: string, update?: AccumulatedPlan['update']): void {
  const { memory } = plan;
  const c = cyclesOf(plan.steps);
  const total = c.compute + c.exchange + c.sync;
  const tiles = [...bytesByTile(plan, memory.peakStep)];
  const sorted = [...tiles].sort((a, b) => a - b);
  const mean = tiles.reduce((n, x) => n + x, 0) / tiles.length;
  const most = sorted.at(-1)!;
  say(`${fits ? 'fits' : 'DOES NOT FIT'}  ${target.name}, ${whole(plan.tiles)} tiles of ${bytes(plan.bytesPerTile)}, ${plan.samples} samples a run, recompute ${recompute}${plan.inParts ? `, ${regionsInParts(plan.inParts.regions)}` : ''}`);
  say(`a tile    ${whole(memory.total)} of ${whole(memory.limit)} bytes (${whole(plan.bytesPerTile)} less ${percent(plan.bytesPerTile - memory.limit, plan.bytesPerTile)} slack)${fits ? '' : `, ${whole(memory.total - memory.limit)} over`}`);
  say(`          always live ${whole(memory.always)}, code ${whole(memory.code)}, not always live ${whole(memory.peak)} at most, gaps ${whole(memory.gaps)}`);
  say(`in use    at that step: max ${whole(most)} on tile ${tiles.indexOf(most)}, mean ${whole(mean)}, median ${whole(sorted[sorted.length >> 1]!)}, min ${whole(sorted[0]!)}; imbalance ${(most / Math.max(1, mean)).toFixed(2)}`);
  say(`by kind   ${Object.entries(bytesByKind(plan)).map(([kind, n]) => `${kind} ${whole(n)}`).join(', ')}`);
  say(`cycles    ${whole(total / plan.samples)} a sample, ${whole(total)} a run: compute ${percent(c.compute, total)}, exchange ${percent(c.exchange, total)}, sync ${percent(c.sync, total)}; ${whole((target.constants.clock * plan.samples) / total)} samples a second`);
  if (update) showUpdate(plan, update, target);
  showExchangeCode(plan, target);
  for (const n of plan.notes) say(`note      ${n}`);
}

/** The update that follows several runs. */
function showUpdate(run: TilePlan, { plan, runs }: AccumulatedPlan['update'], target: TileTarget): void {
  const cycles = totalCycles(plan);
  const all = totalCycles(run) * runs + cycles;
  say(`update    after ${whole(runs)} runs, ${whole(plan.samples)} samples: ${whole(cycles)} cycles, ${whole(plan.memory.total)} of ${whole(plan.memory.limit)} bytes a tile`);
  say(`a step    ${whole(all / plan.samples)} cycles a sample; ${whole((target.constants.clock * plan.samples) / all)} samples a second`);
}

/** What exchange programs take, and what the plan would take with other constants for them, which are as much an assumption. */
function showExchangeCode(plan: TilePlan, target: TileTarget): void {
  const code = exchangeCode(plan, target);
  if (code.bytes === 0) return;
  const { total, limit } = plan.memory;
  const other = (n: number): string => `${whole(n)} (${total - code.bytes + n <= limit ? 'the plan fits' : `the plan does not fit, ${whole(total - code.bytes + n - limit)} over`})`;
  say(`exchange  ${whole(code.bytes)} bytes of code: ${whole(code.programs)} programs for ${whole(code.copies)} copies, ${target.constants['code.exchange']} bytes each and ${target.constants['code.fragment']} a sender`);
  say(`          at 250 bytes each ${other(code.proposedConstant)}; at 250 bytes each and 4 for every 64 bytes received ${other(code.proposed)}`);
}

/** What is alive at the fullest step, and what of it lies on the fullest tile. */
export function showPeak(plan: TilePlan, limit = 10): void {
  const { peakStep } = plan.memory;
  const tiles = bytesByTile(plan, peakStep);
  const fullest = tiles.indexOf(tiles.reduce((a, x) => Math.max(a, x), 0));
  const alive = aliveAt(plan, peakStep);
  const rows = (kinds: (kind: string) => boolean): string[][] => alive.filter((a) => kinds(a.buffer.kind)).slice(0, limit).map(({ buffer: b, bytes: n }) => [whole(n), whole(sliceBytes(plan, b, fullest)), b.kind, b.value, `${b.dtype}[${b.shape.join(',')}]`, `${b.birth}-${b.death}`, b.source[0] ?? '']);
  const held = (kind: string): boolean => kind === 'state' || kind === 'constant';
  const head = ['bytes', `on tile ${fullest}`, 'kind', 'value', 'type', 'steps', 'from'];
  say(`\nalive at step ${peakStep}, ${alive.length} buffers; the fullest tile is ${fullest}`);
  for (const line of table(head, rows((k) => !held(k)), [0, 1])) say(line);
  say('\nalways live');
  for (const line of table(head, rows(held), [0, 1])) say(line);
}

/** Cycles a sample by vertex. */
export function showVertices(plan: TilePlan, limit = 12): void {
  const rows = cyclesByVertex(plan).slice(0, limit).map((r) => [r.vertex, whole(r.steps), ...[r.compute, r.exchange, r.sync].map((n) => whole(n / plan.samples))]);
  say('\ncycles a sample');
  for (const line of table(['vertex', 'steps', 'compute', 'exchange', 'sync'], rows, [1, 2, 3, 4])) say(line);
}

/** What was tried, in order. */
export function showTrials(trials: readonly Trial[]): void {
  const rows = trials.map((t) => [String(t.batch), how(t), share(t.temporary), whole(t.memory.total), over(t), whole(t.cyclesPerSample)]);
  for (const line of table(['batch', 'recompute', 'temporary', 'bytes a tile', '', 'cycles a sample'], rows, [0, 2, 3, 4, 5])) say(line);
}

const how = (t: Trial): string => `${t.recompute}${t.regions ? `, ${regionsInParts(t.regions)} (${t.regions.map((r) => `${r.parts}${again[r.again]}`).join(', ')})` : ''}${t.unserial ? ', no serial parts' : ''}`;
const again: Readonly<Record<Again, string>> = { none: '', light: ' with light ops again', all: ' with all again' };
const share = (n: number): string => String(Number(n.toPrecision(3)));

/** One trial in a line. */
export const trialLine = (t: Trial): string => `batch ${t.batch}, recompute ${how(t)}, temporary ${share(t.temporary)}: ${whole(t.memory.total)} bytes a tile, ${over(t)}; ${whole(t.cyclesPerSample)} cycles a sample`;

const over = (t: Trial): string => (t.fits ? 'fits' : `${whole(t.memory.total - t.memory.limit)} over`);

/** What levers save, in order of what they take. */
export function showLevers(levers: readonly Lever[], batch: number): void {
  if (levers.length === 0) return;
  const signed = (n: number): string => `${n > 0 ? '+' : ''}${whole(n)}`;
  const rows = levers.map((l) => [`${l.taken ? '* ' : '  '}${l.what}`, l.against, whole(l.bytes), signed(l.cycles), l.fits ? 'fits' : 'does not fit']);
  say(`\nlevers at batch ${batch} and what each saves, in order of cost (*: this plan has it)`);
  for (const line of table(['  lever', 'against', 'bytes a tile', 'cycles a sample', ''], rows, [2, 3])) say(line);
}

/** Two plans side by side. */
export function showDifference(compared: readonly Compared[], nameB: string): void {
  const rows = compared.filter((r) => r.group === 'plan').map((r) => [r.what, whole(r.own), whole(r.other), `${r.own >= r.other ? '+' : ''}${whole(r.own - r.other)}`]);
  say('');
  for (const line of table(['', 'this plan', nameB, 'difference'], rows, [1, 2, 3])) say(line);
}
