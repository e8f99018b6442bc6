/** Turns pixels of channels into channels of pixels. */
import type { Asm, E, Fn, Local } from '../asm.ts';
import { transposeInto } from './pack-panels.ts';

/**
 * Copies the channels of a row of pixels into rows of their own: (from, pixel stride, pixels, to, row stride, channels), strides in bytes. Four pixels of four channels at a time.
 */
export function channelRows(asm: Asm): string {
  return asm.fn('channel rows', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], undefined, (f, [from, pixelStride, pixels, to, rowStride, channels]) => {
    const { m } = asm;
    const [pixel, target, left] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const single = (width: number): E[] => [
      f.set(pixel, f.get(from!)), f.set(target, f.get(to!)), f.set(left, f.get(pixels!)),
      ...(width === 4 ? [four(f, { pixel, target, left, pixelStride: pixelStride!, rowStride: rowStride! })] : []),
      whileAny(f, left, [
        ...Array.from({ length: width }, (_, c) => m.f32.store(0, 4, c === 0 ? f.get(target) : asm.add(f.get(target), asm.times(f.get(rowStride!), c)), m.f32.load(4 * c, 4, f.get(pixel)))),
        f.set(pixel, asm.add(f.get(pixel), f.get(pixelStride!))), f.inc(target, 4), f.inc(left, -1),
      ]),
      f.inc(from!, 4 * width), f.set(to!, asm.add(f.get(to!), asm.times(f.get(rowStride!), width))), f.inc(channels!, -width),
    ];
    const top = f.label('four');
    return [
      m.loop(top, f.if(m.i32.ge_s(f.get(channels!), asm.i32(4)), [...single(4), m.br(top)])),
      whileAny(f, channels!, single(1)),
    ];
  });
}

function whileAny(f: Fn, left: Local, body: readonly E[]): E {
  const { m } = f.asm;
  const top = f.label('any');
  return m.loop(top, f.if(m.i32.gt_s(f.get(left), f.asm.i32(0)), [...body, m.br(top)]));
}

/** While there are four pixels: their four channels, transposed. */
function four(f: Fn, o: { readonly pixel: Local; readonly target: Local; readonly left: Local; readonly pixelStride: Local; readonly rowStride: Local }): E {
  const { asm } = f;
  const { m } = asm;
  if (!asm.simd) return m.nop();
  const top = f.label('pixels');
  const rows = Array.from({ length: 4 }, () => f.local('i32'));
  const targets = Array.from({ length: 4 }, () => f.local('i32'));
  return m.loop(top, f.if(m.i32.ge_s(f.get(o.left), asm.i32(4)), [
    ...rows.map((r, i) => f.set(r, i === 0 ? f.get(o.pixel) : asm.add(f.get(rows[i - 1]!), f.get(o.pixelStride)))),
    ...targets.map((t, i) => f.set(t, i === 0 ? f.get(o.target) : asm.add(f.get(targets[i - 1]!), f.get(o.rowStride)))),
    ...transposeInto(f, rows, targets, [0, 0, 0, 0]),
    f.set(o.pixel, asm.add(f.get(rows[3]!), f.get(o.pixelStride))),
    f.inc(o.target, 16), f.inc(o.left, -4),
    m.br(top),
  ]));
}
