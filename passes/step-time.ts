/** What a program for one machine with shared memory is expected to take, before anything is emitted: only ratios matter. */
import { costOf } from '../ir/cost.ts';
import type { Op } from '../ir/graph.ts';
import { num, nums, str } from '../ir/op.ts';
import type { Step } from '../ir/tile.ts';
import { convTime, weightGradientTime } from './algorithm-cost.ts';
import { rootOf } from './layout.ts';

/** Operations in a nanosecond of one thread (a multiply-add is two), and nanoseconds for threads to take a kernel up and to meet after it. */
const rates = { flops: 54, kernel: 6000 };
/** Bytes that come and go in a nanosecond: of kernels whose operands and results take at most `size` bytes, which caches still hold from the kernels before, and of larger ones. */
const memory = { size: 2 ** 23, near: 24, far: 8 };

/** Nanoseconds of one thread that steps take; a loop counts its trips, a branch the longer way. */
export function stepTime(steps: readonly Step[]): number {
  return steps.reduce((n, s) => n + timeOf(s), 0);
}

function timeOf(s: Step): number {
  switch (s.kind) {
    case 'kernel': return rates.kernel + kernelTime(s.op);
    case 'loop': return num(s.op.attrs, 'trips') * stepTime(s.body);
    case 'if': return Math.max(stepTime(s.then), stepTime(s.otherwise));
    case 'move': return rates.kernel;
  }
}

/** Work or memory, whichever takes longer. */
function kernelTime(op: Op): number {
  const { flops, bytes } = costOf(op);
  return Math.max((flops / rates.flops) * gainOf(op), bytes / (bytes <= memory.size ? memory.near : memory.far));
}

/** The share of the plain algorithm's time that the one which was chosen takes. */
function gainOf(op: Op): number {
  const root = rootOf(op);
  if (!('algorithm' in root.attrs)) return 1;
  const algorithm = str(root.attrs, 'algorithm');
  if (algorithm !== 'winograd2' && algorithm !== 'winograd4') return 1;
  const [x, second] = root.operands.map((v) => v.type.shape) as [readonly number[], readonly number[]];
  if (root.name === 'convPacked') {
    const shapes = { x, y: root.results[0]!.type.shape, w: nums(root.attrs, 'weightShape') };
    return convTime(algorithm, shapes) / convTime('direct', shapes);
  }
  if (root.name !== 'convWeight') return 1;
  const shapes = { x, dy: second, parts: num(root.attrs, 'parts') };
  return weightGradientTime(algorithm, shapes) / weightGradientTime('direct', shapes);
}
