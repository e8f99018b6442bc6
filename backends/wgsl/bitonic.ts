/**
 * topK by bitonic networks (Batcher, 1968), by keys whose order as unsigned numbers is the order that is asked for, then by place: a workgroup sorts a line in its memory, and of lines that are longer
 * a block, which are merged in global memory.
 */
import type { Op } from '../../ir/graph.ts';
import { flag, num } from '../../ir/op.ts';
import { sizeOf } from '../../ir/type.ts';
import { positions } from './elements.ts';
import { Kernel, type KernelCode, type Located } from './kernel.ts';
import type { Machine, Site } from './machine.ts';
import { registerOf } from './types.ts';

/** Elements of a line that a workgroup can hold: a key and a place of 4 bytes each, and a power of two. */
export const longestLine = ({ workgroupBytes }: Machine): number => 2 ** Math.floor(Math.log2(workgroupBytes / 8));

/** Lines of a topK as powers of two: how many there are, their elements, and the elements that they are filled up to. */
interface Lines { readonly count: number; readonly length: number; readonly padded: number }

function linesOf(op: Op): Lines {
  const { shape } = op.operands[0]!.type;
  const length = shape[num(op.attrs, 'axis')]!;
  return { count: sizeOf(shape) / Math.max(1, length), length, padded: 2 ** Math.ceil(Math.log2(Math.max(1, length))) };
}

/** A workgroup's block of keys and places. */
interface Block { readonly keys: string; readonly places: string; readonly size: number; readonly lanes: number }

function blockOf(kernel: Kernel, size: number): Block {
  return { keys: kernel.shared('keys', 'u32', size), places: kernel.shared('places', 'u32', size), size, lanes: Math.min(kernel.site.machine.invocations, size / 2) };
}

/** A loop of a workgroup's invocations over 0..count-1. */
function each(kernel: Kernel, { lanes }: Block, count: number, body: (i: string) => void): void {
  const i = kernel.w.name('i');
  kernel.w.block(`for (var ${i} = lane; ${i} < ${count}; ${i} += ${lanes})`, () => body(i));
}

/** The index of element `i` of a line. */
function along(kernel: Kernel, op: Op, line: string): (i: string) => string[] {
  const [x] = kernel.operands as [Located];
  const axis = num(op.attrs, 'axis');
  const at = positions(kernel.w, line, x.type.shape.map((d, i) => (i === axis ? 1 : d)), x.strides);
  return (i) => at.map((l, d) => (d === axis ? i : l));
}

/** Fills a block from a line's element `first` on. What is beyond the line comes last: its key is the largest, its place behind all. */
function fill(kernel: Kernel, op: Op, block: Block, { at, first, length }: { readonly at: (i: string) => readonly string[]; readonly first: string; readonly length: number }): void {
  const { w } = kernel;
  each(kernel, block, block.size, (i) => {
    const place = first === '0' ? i : w.let('place', `${first} + ${i}`);
    const key = w.variable('key', 'u32', '0xffffffffu');
    w.block(`if (${place} < ${length})`, () => {
      const ordered = w.call(`sort_key_${registerOf(kernel.operands[0]!.type.dtype)}`, kernel.load(0, at(place)));
      w.line(`${key} = ${flag(op.attrs, 'largest') ? `~${ordered}` : ordered};`);
    });
    w.line(`${block.keys}[${i}] = ${key};`);
    w.line(`${block.places}[${i}] = u32(${place});`);
  });
}

/** Writes exchanges at all strides from `from` down to 1; `descends` where the larger of a pair comes first. */
function exchanges(kernel: Kernel, block: Block, from: string, descends: (low: string) => string): void {
  const { w } = kernel;
  const { keys, places, size } = block;
  w.block(`for (var stride = ${from}; stride > 0; stride = stride / 2)`, () => {
    w.line('workgroupBarrier();');
    each(kernel, block, size / 2, (p) => {
      const low = w.let('low', `2 * ${p} - (${p} & (stride - 1))`);
      const high = w.let('high', `${low} + stride`);
      const [a, b, pa, pb] = [w.let('a', `${keys}[${low}]`), w.let('b', `${keys}[${high}]`), w.let('pa', `${places}[${low}]`), w.let('pb', `${places}[${high}]`)];
      w.block(`if (${behind(a, pa, b, pb)} != ${descends(low)})`, () => {
        w.line(`${keys}[${low}] = ${b};`);
        w.line(`${keys}[${high}] = ${a};`);
        w.line(`${places}[${low}] = ${pb};`);
        w.line(`${places}[${high}] = ${pa};`);
      });
    });
  });
}

/** Whether a key and its place come behind others. */
const behind = (a: string, pa: string, b: string, pb: string): string => `(${a} > ${b} || (${a} == ${b} && ${pa} > ${pb}))`;

/** Sorts a block: runs that ascend and descend by turns, until one is left. */
function sortBlock(kernel: Kernel, block: Block): void {
  kernel.w.block(`for (var size = 2; size <= ${block.size}; size = size * 2)`, () => exchanges(kernel, block, 'size / 2', (low) => `((${low} & size) != 0)`));
  kernel.w.line('workgroupBarrier();');
}

/** Lines that a workgroup holds. */
export function emitBitonic(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode {
  const { count, length, padded } = linesOf(op);
  const kernel = new Kernel(op, operands, results, site);
  const { w } = kernel;
  const at = along(kernel, op, 'group');
  const block = blockOf(kernel, padded);
  fill(kernel, op, block, { at, first: '0', length });
  sortBlock(kernel, block);
  each(kernel, block, num(op.attrs, 'k'), (r) => {
    const place = w.let('place', `i32(${block.places}[${r}])`);
    kernel.store(0, at(r), kernel.load(0, at(place)));
    if (results[1]) kernel.store(1, at(r), place);
  });
  return kernel.finish(count, block.lanes);
}

/** Bytes of scratch that a topK needs: keys and places of lines that no workgroup holds. */
export function scratchOf(op: Op, machine: Machine): number {
  const { count, padded } = linesOf(op);
  return padded > longestLine(machine) ? 8 * count * padded : 0;
}

/** Lines that no workgroup holds: blocks are sorted, then runs of twice the elements are merged until a line is one. Each step is a dispatch; those of equal stride share a shader. */
export function emitGlobalSort(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] {
  const { count, length, padded } = linesOf(op);
  const size = longestLine(site.machine);
  const blocks = padded / size;
  const scratch = (i: number): Located => ({ type: { dtype: 'u32', shape: [count, padded] }, strides: [padded, 1], address: site.memory.scratch + i * 4 * count * padded, offset: 0, word: 'u32' });
  const pair = [scratch(0), scratch(1)];

  const first = (): KernelCode => {
    const kernel = new Kernel(op, operands, pair, site);
    const { w } = kernel;
    const line = w.let('line', `group / ${blocks}`);
    const start = w.let('start', `(group % ${blocks}) * ${size}`);
    const block = blockOf(kernel, size);
    fill(kernel, op, block, { at: along(kernel, op, line), first: start, length });
    sortBlock(kernel, block);
    each(kernel, block, size, (i) => [block.keys, block.places].forEach((box, r) => kernel.store(r, [line, `${start} + ${i}`], `${box}[${i}]`)));
    return kernel.finish(count * blocks, block.lanes);
  };

  /** Exchanges pairs of elements of all lines; `pairOf` gives the places of a line's pair. */
  const across = (pairOf: (kernel: Kernel, p: string) => readonly [low: string, high: string]): KernelCode => {
    const kernel = new Kernel(op, pair, pair, site);
    const { w } = kernel;
    const grid = kernel.elements((count * padded) / 2);
    const line = w.let('line', `element / ${padded / 2}`);
    const [low, high] = pairOf(kernel, w.let('p', `element % ${padded / 2}`));
    const [a, b, pa, pb] = [[0, low], [0, high], [1, low], [1, high]].map(([i, at]) => w.let('v', kernel.load(i as number, [line, at as string]))) as [string, string, string, string];
    w.block(`if ${behind(a, pa, b, pb)}`, () => [[0, low, b], [0, high, a], [1, low, pb], [1, high, pa]].forEach(([i, at, v]) => kernel.store(i as number, [line, at as string], v as string)));
    return kernel.finish(...grid);
  };
  /** The larger half of one run stands against the smaller half of the next, mirrored: both then ascend. */
  const mirrored = (run: number): KernelCode => across(({ w }, p) => {
    const start = w.let('start', `(${p} / ${run / 2}) * ${run}`);
    const i = w.let('i', `${p} % ${run / 2}`);
    return [w.let('low', `${start} + ${i}`), w.let('high', `${start} + ${run - 1} - ${i}`)];
  });
  const strided = (stride: number): KernelCode => across(({ w }, p) => {
    const low = w.let('low', `(${p} / ${stride}) * ${2 * stride} + ${p} % ${stride}`);
    return [low, w.let('high', `${low} + ${stride}`)];
  });
  const within = (): KernelCode => {
    const kernel = new Kernel(op, pair, pair, site);
    const block = blockOf(kernel, size);
    const { w } = kernel;
    const line = w.let('line', `group / ${blocks}`);
    const start = w.let('start', `(group % ${blocks}) * ${size}`);
    each(kernel, block, size, (i) => [block.keys, block.places].forEach((box, r) => w.line(`${box}[${i}] = ${kernel.load(r, [line, `${start} + ${i}`])};`)));
    exchanges(kernel, block, String(size / 2), () => 'false');
    w.line('workgroupBarrier();');
    each(kernel, block, size, (i) => [block.keys, block.places].forEach((box, r) => kernel.store(r, [line, `${start} + ${i}`], `${box}[${i}]`)));
    return kernel.finish(count * blocks, block.lanes);
  };

  const steps = [first()];
  for (let run = 2 * size; run <= padded; run *= 2) {
    steps.push(mirrored(run));
    for (let stride = run / 4; stride >= size; stride /= 2) steps.push(strided(stride));
    steps.push(within());
  }
  return [...steps, chosen(op, operands, results, pair[1]!, site)];
}

/** Writes the first k of sorted lines. */
function chosen(op: Op, operands: readonly Located[], results: readonly Located[], places: Located, site: Site): KernelCode {
  const kernel = new Kernel(op, [...operands, places], results, site);
  const { w } = kernel;
  const k = num(op.attrs, 'k');
  const grid = kernel.elements(linesOf(op).count * k);
  const line = w.let('line', `element / ${k}`);
  const rank = w.let('rank', `element % ${k}`);
  const at = along(kernel, op, line);
  const place = w.let('place', `i32(${kernel.load(operands.length, [line, rank])})`);
  kernel.store(0, at(rank), kernel.load(0, at(place)));
  if (results[1]) kernel.store(1, at(rank), place);
  return kernel.finish(...grid);
}
