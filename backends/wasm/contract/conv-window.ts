/**
 * Input rows of a convolution with few channels, copied with their padding into scratch: a row of the kernel then reads kernel width x channels elements
 * that follow each other, instead of a few channels a tap.
 */
import type { E, Fn, Local } from '../asm.ts';
import type { Axis } from './rows.ts';

/** How rows are copied. */
export interface Window {
  readonly rowBytes: number;
  /** Input rows that one result row spans. */
  readonly span: number;
}

/** The window of a convolution that copies its rows (ir/ops/packing/geometry.ts says which do). */
export function windowOf([, ay, ax]: readonly [Axis, Axis, Axis], channels: number): Window {
  return { rowBytes: ((ax.result - 1) * ax.stride + ax.kernel) * channels * 4, span: (ay.kernel - 1) * ay.dilation + 1 };
}

/** Most bytes of the copied rows of a block of `rows` result rows, of `images` images in all. */
export function windowBytes(w: Window, ay: Axis, rows: number, images: number): number {
  const touched = Math.min(images, Math.ceil((rows - 1) / ay.result) + 1);
  return w.rowBytes * (rows * ay.stride + touched * Math.max(0, w.span - ay.stride));
}

/** Copies the rows that a block needs to `area` and fills its table, one tap per kernel row. The block starts and ends at whole result rows. */
export function windowRows(f: Fn, o: {
  readonly table: Local; readonly area: Local; readonly first: Local; readonly count: number;
  readonly input: () => E; readonly batchBytes: number; readonly channels: number; readonly channelBytes: number; readonly axes: readonly [Axis, Axis, Axis]; readonly window: Window;
}): E[] {
  const { asm } = f;
  const { m } = asm;
  const [, ay, ax] = o.axes;
  const { rowBytes, span } = o.window;
  const pixelBytes = 4 * o.channels;
  const rows = o.count / ax.result;
  const local = (): Local => f.local('i32');
  const [n, y, row, base, end, source, target, ky, i, at, p, column] = Array.from({ length: 12 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
  // Columns of a copied row: zeros, then pixels of the input, then zeros.
  const width = rowBytes / pixelBytes;
  const skipped = Math.max(0, -ax.before);
  const left = Math.min(width, Math.max(0, ax.before));
  const copied = Math.max(0, Math.min(ax.size - skipped, width - left));
  const right = width - left - copied;
  const zero = (offset: number, pixels: number): E[] => (pixels > 0 ? [m.memory.fill(asm.plus(f.get(target), offset * pixelBytes), asm.i32(0), asm.i32(pixels * pixelBytes))] : []);
  const from = (): E => asm.plus(asm.add(asm.add(o.input(), asm.times(f.get(n), o.batchBytes)), asm.times(f.get(source), ay.bytes)), skipped * ax.bytes);
  const pixels: E[] = ax.bytes === pixelBytes && (o.channelBytes === 4 || o.channels === 1)
    ? [m.memory.copy(asm.plus(f.get(target), left * pixelBytes), from(), asm.i32(copied * pixelBytes))]
    : [
      f.set(p, from()),
      f.set(at, asm.plus(f.get(target), left * pixelBytes)),
      f.repeat(column, 0, copied, 1, [
        ...Array.from({ length: o.channels }, (_, c) => m.f32.store(4 * c, 4, f.get(at), m.f32.load(o.channelBytes * c, 4, f.get(p)))),
        f.inc(at, pixelBytes),
        f.inc(p, ax.bytes),
      ]),
    ];
  const copyRow: E[] = [
    f.if(m.i32.lt_u(f.get(source), asm.i32(ay.size)), [...zero(0, left), ...(copied > 0 ? pixels : []), ...zero(left + copied, right)], [m.memory.fill(f.get(target), asm.i32(0), asm.i32(rowBytes))]),
  ];
  return [
    f.set(y, m.i32.div_u(f.get(o.first), asm.i32(ax.result))),
    f.set(n, m.i32.div_u(f.get(y), asm.i32(ay.result))),
    f.set(y, m.i32.rem_u(f.get(y), asm.i32(ay.result))),
    f.set(base, f.get(o.area)),
    f.set(end, f.get(o.area)),
    f.repeat(row, 0, rows, 1, [
      // Copies what the result row spans and the rows before it did not: everything, at the start of the block and of an image.
      f.set(target, f.get(end)),
      f.set(end, asm.plus(f.get(base), span * rowBytes)),
      f.set(source, asm.plus(asm.add(asm.times(f.get(y), ay.stride), m.i32.div_s(asm.sub(f.get(target), f.get(base)), asm.i32(rowBytes))), -ay.before)),
      f.loop(target, f.get(target), () => f.get(end), rowBytes, [...copyRow, f.inc(source, 1)]),
      f.repeat(ky, 0, ay.kernel, 1, [
        f.set(at, asm.add(f.get(o.table), asm.add(asm.times(f.get(ky), 4 * o.count), asm.times(f.get(row), 4 * ax.result)))),
        f.set(p, asm.add(f.get(base), asm.times(f.get(ky), ay.dilation * rowBytes))),
        f.repeat(i, 0, ax.result, 1, [m.i32.store(0, 4, f.get(at), f.get(p)), f.inc(at, 4), f.inc(p, ax.stride * pixelBytes)]),
      ]),
      f.inc(y, 1),
      f.if(m.i32.eq(f.get(y), asm.i32(ay.result)), [f.set(y, asm.i32(0)), f.inc(n, 1), f.set(base, f.get(end))], [
        f.inc(base, ay.stride * rowBytes),
        f.if(m.i32.lt_u(f.get(end), f.get(base)), [f.set(end, f.get(base))]),
      ]),
    ]),
  ];
}
