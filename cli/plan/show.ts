/** How plans look on a terminal. */
import type { TilePlan } from '../../ir/tiles.ts';
import type { Trial } from '../../passes/tile/fit.ts';
import { aliveAt, bytesByKind, bytesByTile, cyclesByVertex, cyclesOf } from '../../passes/tile/report.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { bytes, say, table } from '../print.ts';
import type { Compared } from './compare.ts';

const whole = (n: number): string => Math.round(n).toLocaleString('en-US');
const percent = (part: number, of: number): string => `${of === 0 ? 0 : Math.round((100 * part) / of)} %`;

/** What a plan takes and how fast it is, in short. */
export function showPlan(plan: TilePlan, target: TileTarget, fits: boolean, recompute: string): void {
  const { memory } = plan;
  const c = cyclesOf(plan.steps);
  const total = c.compute + c.exchange + c.sync;
  const tiles = [...bytesByTile(plan, memory.peakStep)];
  const sorted = [...tiles].sort((a, b) => a - b);
  const mean = tiles.reduce((n, x) => n + x, 0) / tiles.length;
  const most = sorted.at(-1)!;
  say(`${fits ? 'fits' : 'DOES NOT FIT'}  ${target.name}, ${whole(plan.tiles)} tiles of ${bytes(plan.bytesPerTile)}, ${plan.samples} samples a run, recompute ${recompute}`);
  say(`a tile    ${whole(memory.total)} of ${whole(memory.limit)} bytes (${whole(plan.bytesPerTile)} less ${percent(plan.bytesPerTile - memory.limit, plan.bytesPerTile)} slack)${fits ? '' : `, ${whole(memory.total - memory.limit)} over`}`);
  say(`          always live ${whole(memory.always)}, code ${whole(memory.code)}, not always live ${whole(memory.peak)} at most, gaps ${whole(memory.gaps)}`);
  say(`in use    at that step: max ${whole(most)} on tile ${tiles.indexOf(most)}, mean ${whole(mean)}, median ${whole(sorted[sorted.length >> 1]!)}, min ${whole(sorted[0]!)}; imbalance ${(most / Math.max(1, mean)).toFixed(2)}`);
  say(`by kind   ${Object.entries(bytesByKind(plan)).map(([kind, n]) => `${kind} ${whole(n)}`).join(', ')}`);
  say(`cycles    ${whole(total / plan.samples)} a sample, ${whole(total)} a run: compute ${percent(c.compute, total)}, exchange ${percent(c.exchange, total)}, sync ${percent(c.sync, total)}; ${whole((target.constants.clock * plan.samples) / total)} samples a second`);
  for (const n of plan.notes) say(`note      ${n}`);
}

/** What is alive at the fullest step. */
export function showPeak(plan: TilePlan, limit = 10): void {
  const { peakStep } = plan.memory;
  const alive = aliveAt(plan, peakStep);
  const rows = (kinds: (kind: string) => boolean): string[][] => alive.filter((a) => kinds(a.buffer.kind)).slice(0, limit).map(({ buffer: b, bytes: n }) => [whole(n), b.kind, b.value, `${b.dtype}[${b.shape.join(',')}]`, `${b.birth}-${b.death}`, b.source[0] ?? '']);
  const held = (kind: string): boolean => kind === 'state' || kind === 'constant';
  say(`\nalive at step ${peakStep}, ${alive.length} buffers`);
  for (const line of table(['bytes', 'kind', 'value', 'type', 'steps', 'from'], rows((k) => !held(k)), [0])) say(line);
  say('\nalways live');
  for (const line of table(['bytes', 'kind', 'value', 'type', 'steps', 'from'], rows(held), [0])) say(line);
}

/** Cycles a sample by vertex. */
export function showVertices(plan: TilePlan, limit = 12): void {
  const rows = cyclesByVertex(plan).slice(0, limit).map((r) => [r.vertex, whole(r.steps), ...[r.compute, r.exchange, r.sync].map((n) => whole(n / plan.samples))]);
  say('\ncycles a sample');
  for (const line of table(['vertex', 'steps', 'compute', 'exchange', 'sync'], rows, [1, 2, 3, 4])) say(line);
}

/** What was tried, in order. */
export function showTrials(trials: readonly Trial[]): void {
  const rows = trials.map((t) => [String(t.batch), t.recompute, String(t.temporary), whole(t.planned.plan.memory.total), t.planned.fits ? 'fits' : `${whole(t.planned.plan.memory.total - t.planned.plan.memory.limit)} over`, whole(t.cyclesPerSample)]);
  for (const line of table(['batch', 'recompute', 'temporary', 'bytes a tile', '', 'cycles a sample'], rows, [0, 2, 3, 4, 5])) say(line);
}

/** Two plans side by side. */
export function showDifference(compared: readonly Compared[], nameB: string): void {
  const rows = compared.filter((r) => r.group === 'plan').map((r) => [r.what, whole(r.own), whole(r.other), `${r.own >= r.other ? '+' : ''}${whole(r.own - r.other)}`]);
  say('');
  for (const line of table(['', 'this plan', nameB, 'difference'], rows, [1, 2, 3])) say(line);
}
