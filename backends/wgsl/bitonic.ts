/** topK of lines that fit workgroup memory: a workgroup sorts a line in a bitonic network (Batcher, 1968), by keys whose order as unsigned numbers is the order that is asked for, then by place. */
import type { Op } from '../../ir/graph.ts';
import { flag, num } from '../../ir/op.ts';
import { sizeOf } from '../../ir/type.ts';
import { positions } from './elements.ts';
import { Kernel, type KernelCode, type Located } from './kernel.ts';
import type { Site } from './machine.ts';
import { registerOf } from './types.ts';

/** Elements of a line: keys and places fill the 16 KiB that every adapter has. For shorter lines ranks are cheaper. */
const [shortest, longest] = [64, 2048];

/** The kernel, or undefined where lines are short or do not fit. */
export function emitBitonic(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode | undefined {
  const [x] = operands as [Located];
  const { shape, dtype } = x.type;
  const [axis, k] = [num(op.attrs, 'axis'), num(op.attrs, 'k')];
  const length = shape[axis]!;
  const register = registerOf(dtype);
  if (length <= shortest || length > longest || register === 'bool') return undefined;
  const padded = 2 ** Math.ceil(Math.log2(length));
  const lanes = Math.min(256, padded / 2);
  const kernel = new Kernel(op, operands, results, site);
  const { w } = kernel;
  const line = positions(w, 'group', shape.map((d, i) => (i === axis ? 1 : d)), x.strides);
  const at = (i: string): string[] => line.map((l, d) => (d === axis ? i : l));
  const [keys, places] = [kernel.shared('keys', 'u32', padded), kernel.shared('places', 'i32', padded)];
  const each = (count: number, body: (i: string) => void): void => {
    const i = w.name('i');
    w.block(`for (var ${i} = lane; ${i} < ${count}; ${i} += ${lanes})`, () => body(i));
  };
  each(padded, (i) => {
    // What is beyond the line comes last: its key is the largest, its place behind all.
    const key = w.variable('key', 'u32', '0xffffffffu');
    w.block(`if (${i} < ${length})`, () => {
      const ordered = w.call(`sort_key_${register}`, kernel.load(0, at(i)));
      w.line(`${key} = ${flag(op.attrs, 'largest') ? `~${ordered}` : ordered};`);
    });
    w.line(`${keys}[${i}] = ${key};`);
    w.line(`${places}[${i}] = ${i};`);
  });
  w.block(`for (var size = 2; size <= ${padded}; size = size * 2)`, () => {
    w.block('for (var stride = size / 2; stride > 0; stride = stride / 2)', () => {
      w.line('workgroupBarrier();');
      each(padded / 2, (p) => {
        const low = w.let('low', `2 * ${p} - (${p} & (stride - 1))`);
        const high = w.let('high', `${low} + stride`);
        const [a, b, pa, pb] = [w.let('a', `${keys}[${low}]`), w.let('b', `${keys}[${high}]`), w.let('pa', `${places}[${low}]`), w.let('pb', `${places}[${high}]`)];
        w.block(`if ((${a} > ${b} || (${a} == ${b} && ${pa} > ${pb})) == ((${low} & size) == 0))`, () => {
          w.line(`${keys}[${low}] = ${b};`);
          w.line(`${keys}[${high}] = ${a};`);
          w.line(`${places}[${low}] = ${pb};`);
          w.line(`${places}[${high}] = ${pa};`);
        });
      });
    });
  });
  w.line('workgroupBarrier();');
  each(k, (r) => {
    const place = w.let('place', `${places}[${r}]`);
    kernel.store(0, at(r), kernel.load(0, at(place)));
    if (results[1]) kernel.store(1, at(r), place);
  });
  return kernel.finish(sizeOf(shape) / length, lanes);
}
