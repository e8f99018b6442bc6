/** Tables of row pointers: where the micro-kernel finds the operand's row for each tap and row of a block. */
import type { E, Fn, Local } from '../asm.ts';

/** Fills the table with rows evenly spaced: row i at `base` + (first + i)·stride. One tap. */
export function evenRows(f: Fn, table: Local, base: () => E, first: Local, count: number, stride: number): E[] {
  const { asm } = f;
  const i = f.local('i32');
  const p = f.local('i32');
  const at = f.local('i32');
  return [
    f.set(p, asm.add(base(), asm.mul(f.get(first), asm.i32(stride)))),
    f.set(at, f.get(table)),
    f.repeat(i, 0, count, 1, [asm.m.i32.store(0, 4, f.get(at), f.get(p)), f.inc(at, 4), f.inc(p, stride)]),
  ];
}

/** One spatial axis of a convolution. Strides in bytes. */
export interface Axis {
  readonly size: number;
  readonly result: number;
  readonly kernel: number;
  readonly stride: number;
  readonly dilation: number;
  readonly before: number;
  readonly bytes: number;
}

/** Whether some tap of some result lies outside the input. */
export const readsOutside = (axes: readonly Axis[]): boolean =>
  axes.some((a) => a.before > 0 || (a.result - 1) * a.stride + (a.kernel - 1) * a.dilation - a.before >= a.size || a.before < 0);

/**
 * Fills the table of a convolution over three spatial axes: entry (tap, i) points at the input pixel that tap reads for result pixel first + i (counted
 * over batch and spatial axes, row-major), or at `zero` where that lies outside. Entries of a tap follow each other.
 */
export function pixelRows(f: Fn, o: {
  readonly table: Local; readonly input: () => E; readonly batchBytes: number; readonly axes: readonly [Axis, Axis, Axis];
  readonly first: Local; readonly count: number; readonly zero: () => E;
}): E[] {
  const { asm } = f;
  const { m } = asm;
  const [az, ay, ax] = o.axes;
  const i32 = (): Local => f.local('i32');
  const [kz, ky, kx, n, z, y, x, n0, z0, y0, x0, left, segment, base, ix, at, inside, t] = Array.from({ length: 18 }, i32) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
  const outside = readsOutside(o.axes);
  const source = (a: Axis, result: Local, tap: Local): E => asm.plus(asm.add(asm.times(f.get(result), a.stride), asm.times(f.get(tap), a.dilation)), -a.before);
  const within = (a: Axis, e: E): E => m.i32.lt_u(e, asm.i32(a.size));
  const store = (e: E): E[] => [m.i32.store(0, 4, f.get(at), e), f.inc(at, 4)];
  const overTaps = (tap: Local, a: Axis, body: readonly E[]): E => (a.kernel === 1 ? m.block(null, [f.set(tap, asm.i32(0)), ...body]) : f.repeat(tap, 0, a.kernel, 1, body));
  const segmentLoop = (body: readonly E[]): E => {
    const label = f.label('pixel');
    return m.loop(label, m.block(null, [...body, m.br(label, f.tee(segment, asm.sub(f.get(segment), asm.i32(1))))]));
  };
  const inner = [
    ...store(outside ? m.select(within(ax, f.get(ix)), f.get(base), o.zero()) : f.get(base)),
    f.inc(base, ax.stride * ax.bytes),
    ...(outside ? [f.inc(ix, ax.stride)] : []),
  ];
  const rowLabel = f.label('row');
  const perTap = [
    f.set(n, f.get(n0)), f.set(z, f.get(z0)), f.set(y, f.get(y0)), f.set(x, f.get(x0)), f.set(left, asm.i32(o.count)),
    m.loop(rowLabel, m.block(null, [
      f.set(segment, asm.sub(asm.i32(ax.result), f.get(x))),
      f.if(m.i32.gt_u(f.get(segment), f.get(left)), [f.set(segment, f.get(left))]),
      f.set(left, asm.sub(f.get(left), f.get(segment))),
      f.set(ix, source(ax, x, kx)),
      f.set(base, asm.add(asm.add(asm.add(o.input(), asm.times(f.get(n), o.batchBytes)), asm.times(source(az, z, kz), az.bytes)), asm.add(asm.times(source(ay, y, ky), ay.bytes), asm.times(f.get(ix), ax.bytes)))),
      outside
        ? m.block(null, [
          f.set(inside, m.i32.and(within(az, source(az, z, kz)), within(ay, source(ay, y, ky)))),
          f.if(f.get(inside), [segmentLoop(inner)], [segmentLoop(store(o.zero()))]),
        ])
        : segmentLoop(inner),
      f.set(x, asm.i32(0)),
      f.inc(y, 1),
      f.if(m.i32.eq(f.get(y), asm.i32(ay.result)), [
        f.set(y, asm.i32(0)),
        f.inc(z, 1),
        f.if(m.i32.eq(f.get(z), asm.i32(az.result)), [f.set(z, asm.i32(0)), f.inc(n, 1)]),
      ]),
      m.br(rowLabel, f.get(left)),
    ])),
  ];
  const divide = (digit: Local, size: number): E[] => [f.set(digit, m.i32.rem_u(f.get(t), asm.i32(size))), f.set(t, m.i32.div_u(f.get(t), asm.i32(size)))];
  return [
    f.set(t, f.get(o.first)), ...divide(x0, ax.result), ...divide(y0, ay.result), ...divide(z0, az.result), f.set(n0, f.get(t)),
    f.set(at, f.get(o.table)),
    overTaps(kz, az, [overTaps(ky, ay, [overTaps(kx, ax, perTap)])]),
  ];
}
