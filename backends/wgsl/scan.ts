/** Running sums and products of long lines: a workgroup takes a line, each invocation a block of neighbours; the totals of blocks are scanned by doubling (Hillis and Steele, 1986). */
import type { Op } from '../../ir/graph.ts';
import { flag, num } from '../../ir/op.ts';
import { sizeOf } from '../../ir/type.ts';
import { positions } from './elements.ts';
import { joinOf } from './families/reduce.ts';
import { Kernel, type KernelCode, type Located } from './kernel.ts';
import { joiningLanes, type Site } from './machine.ts';
import { narrowed } from './map.ts';
import { registerOf, type Word } from './types.ts';
import { times } from './writer.ts';

/** Shorter lines are summed anew for each of their elements. */
const longLine = 64;

/** The kernel, or undefined where lines are short. */
export function emitScan(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] | undefined {
  const [x] = operands as [Located];
  const { shape, dtype } = x.type;
  const axis = num(op.attrs, 'axis');
  const length = shape[axis]!;
  if (length <= longLine) return undefined;
  const lines = sizeOf(shape) / length;
  if (lines === 0) return [];
  const lanes = joiningLanes(site.machine, length < 2048 ? 64 : 256, 1);
  const block = Math.ceil(length / lanes);
  const kernel = new Kernel(op, operands, results, site);
  const { w } = kernel;
  const register = registerOf(dtype) as Exclude<Word, 'f16'>;
  const { start, join } = joinOf(w, op.name === 'cumSum' ? 'reduceSum' : 'reduceProd', dtype);
  const line = positions(w, 'group', shape.map((d, i) => (i === axis ? 1 : d)), x.strides);
  const at = (k: string): string[] => line.map((i, d) => (d !== axis ? i : flag(op.attrs, 'reverse') ? `(${length - 1} - ${k})` : k));
  const first = w.let('first', times('lane', block));
  const end = w.let('end', `min(${first} + ${block}, ${length})`);
  const walk = (visit: (k: string) => void): void => {
    const k = w.name('k');
    w.block(`for (var ${k} = ${first}; ${k} < ${end}; ${k}++)`, () => visit(k));
  };
  const total = w.variable('total', register, start);
  walk((k) => w.line(`${total} = ${join(total, kernel.load(0, at(k)))};`));
  const box = kernel.shared('totals', register, lanes);
  w.line(`${box}[lane] = ${total};`);
  w.block(`for (var step = 1; step < ${lanes}; step = step * 2)`, () => {
    w.line('workgroupBarrier();');
    const before = w.let('before', `${box}[max(lane - step, 0)]`);
    w.line('workgroupBarrier();');
    w.line(`if (lane >= step) { ${box}[lane] = ${join(before, `${box}[lane]`)}; }`);
  });
  w.line('workgroupBarrier();');
  const running = w.variable('running', register, start);
  w.line(`if (lane > 0) { ${running} = ${box}[lane - 1]; }`);
  walk((k) => {
    const value = w.let('x', kernel.load(0, at(k)));
    const next = (): void => w.line(`${running} = ${join(running, value)};`);
    if (!flag(op.attrs, 'exclusive')) next();
    kernel.store(0, at(k), narrowed(w, running, dtype));
    if (flag(op.attrs, 'exclusive')) next();
  });
  return [kernel.finish(lines, lanes)];
}
