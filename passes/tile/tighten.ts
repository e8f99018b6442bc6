/** Which ops need smaller temporaries for a plan to fit. */
import type { TileStep } from '../../ir/tiles.ts';
import type { Planned } from './plan.ts';
import { flatSteps } from './report.ts';

/** Less than this is not asked of an op: its slices would be a few vectors. */
const leastTemporaries = 4096;
/** Bytes that the next placement may need for gaps beside what this one has. */
const margin = 1024;

/**
 * Bounds of bytes by op number for the ops that run while a tile is overfull: what their temporaries take now, less what is too much, but no more than `bounds` allow already. Undefined where temporaries are not what is too much.
 */
export function narrowerBounds({ plan, live }: Pick<Planned, 'plan' | 'live'>, bounds: ReadonlyMap<number, number>): ReadonlyMap<number, number> | undefined {
  const { memory } = plan;
  const room = memory.limit - memory.always - memory.code - memory.gaps - margin;
  const temporaries = new Float64Array(live.length + 1);
  for (const b of plan.buffers) {
    if (b.viewOf !== undefined || (b.kind !== 'gather' && b.kind !== 'partial' && b.kind !== 'receive')) continue;
    for (let s = b.birth; s <= b.death; s++) temporaries[s]! += b.bytes;
  }
  const next = new Map(bounds);
  for (const [step, op] of opsOf(plan.steps)) {
    const over = live[step]! - room;
    if (over <= 0) continue;
    const bound = temporaries[step]! - over;
    if (bound < leastTemporaries) return undefined;
    next.set(op, Math.min(bound, next.get(op) ?? Infinity));
  }
  return next.size === bounds.size && [...next].every(([op, n]) => bounds.get(op) === n) ? undefined : next;
}

/** Steps and the op that each is made for: an exchange is for the compute step after it. */
function opsOf(steps: readonly TileStep[]): [step: number, op: number][] {
  const found: [number, number][] = [];
  let waiting: number[] = [];
  for (const s of flatSteps(steps)) {
    waiting.push(s.index);
    if (s.kind !== 'compute') continue;
    found.push(...waiting.map((index): [number, number] => [index, s.op]));
    waiting = [];
  }
  return found;
}
