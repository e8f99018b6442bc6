/** topK: of short lines an invocation for each element finds the rank of its own and writes it there; others are sorted. */
import type { Op } from '../../ir/graph.ts';
import { flag, num } from '../../ir/op.ts';
import type { Step, TileProgram } from '../../ir/tile.ts';
import { sizeOf } from '../../ir/type.ts';
import { emitBitonic, emitGlobalSort, longestLine, scratchOf } from './bitonic.ts';
import { positions } from './elements.ts';
import { Kernel, type KernelCode, type Located } from './kernel.ts';
import type { Machine, Site } from './machine.ts';
import { registerOf } from './types.ts';

/** Elements of a line below which ranks are cheaper. */
const shortest = 64;

/** Whether lines are sorted; bool has two values alone. */
const isSorted = (op: Op): boolean => op.operands[0]!.type.shape[num(op.attrs, 'axis')]! > shortest && registerOf(op.operands[0]!.type.dtype) !== 'bool';

/** The kernels of a topK. */
export function emitSort(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] {
  const [x] = operands as [Located];
  if (sizeOf(x.type.shape) === 0 || num(op.attrs, 'k') === 0) return [];
  if (!isSorted(op)) return [byRanks(op, operands, results, site)];
  return x.type.shape[num(op.attrs, 'axis')]! > longestLine(site.machine) ? emitGlobalSort(op, operands, results, site) : [emitBitonic(op, operands, results, site)];
}

/** Bytes that the sorts of a program need beside its tensors; one sort at a time has them. */
export function scratchBytes(program: TileProgram, machine: Machine): number {
  const ofSteps = (steps: readonly Step[]): number[] => steps.flatMap((s) => {
    if (s.kind === 'kernel') return s.op.name === 'topK' && sizeOf(s.op.operands[0]!.type.shape) > 0 && isSorted(s.op) ? [scratchOf(s.op, machine)] : [];
    if (s.kind === 'move') return [];
    return ofSteps(s.kind === 'if' ? [...s.then, ...s.otherwise] : s.body);
  });
  return Math.max(0, ...program.entries.flatMap((e) => ofSteps(e.steps)));
}

function byRanks(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode {
  const [x] = operands as [Located];
  const kernel = new Kernel(op, operands, results, site);
  const { w } = kernel;
  const { shape, dtype } = x.type;
  const [axis, k] = [num(op.attrs, 'axis'), num(op.attrs, 'k')];
  const grid = kernel.elements(sizeOf(shape));
  const index = positions(w, 'element', shape, x.strides);
  const own = w.let('own', kernel.load(0, index));
  const rank = w.variable('rank', 'i32', '0');
  const [better, worse] = flag(op.attrs, 'largest') ? ['>', '<'] : ['<', '>'];
  w.loop('t', shape[axis]!, (t) => {
    const other = w.let('other', kernel.load(0, index.map((i, d) => (d === axis ? t : i))));
    // NaN is above all numbers; of equal elements the first comes first.
    const float = registerOf(dtype) === 'f32';
    const [nanOther, nanOwn] = float ? [w.call('is_nan', other), w.call('is_nan', own)] : ['false', 'false'];
    const before = flag(op.attrs, 'largest') ? `${nanOther} && !${nanOwn}` : `${nanOwn} && !${nanOther}`;
    const after = flag(op.attrs, 'largest') ? `${nanOwn} && !${nanOther}` : `${nanOther} && !${nanOwn}`;
    const first = float ? `(${before}) || ${other} ${better} ${own}` : `${other} ${better} ${own}`;
    const last = float ? `(${after}) || ${other} ${worse} ${own}` : `${other} ${worse} ${own}`;
    w.line(`${rank} += select(0, 1, (${first}) || (!(${last}) && ${t} < ${index[axis]!}));`);
  });
  w.block(`if (${rank} < ${k})`, () => {
    const at = index.map((i, d) => (d === axis ? rank : i));
    kernel.store(0, at, own);
    if (results[1]) kernel.store(1, at, index[axis]!);
  });
  return kernel.finish(...grid);
}
