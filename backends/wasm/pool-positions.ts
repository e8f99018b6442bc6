/** Max pools that keep positions, and their gradients, over images whose channels lie side by side: four channels at a time. */
import type { Op } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import type { Placed } from '../../ir/tile.ts';
import type { Asm, E, Fn, Local } from './asm.ts';
import type { KernelCode } from './kernel.ts';
import { kernel, lightWork } from './nest.ts';

/** Most taps that are written out one by one. */
const mostTaps = 16;

interface Axis { readonly input: number; readonly result: number; readonly kernel: number; readonly stride: number; readonly before: number; readonly dilation: number }

/** Whether a pool over these tensors is one for the kernels of this file. */
export function poolsByChannels(asm: Asm, op: Op, tensors: readonly Placed[]): boolean {
  const taps = nums(op.attrs, 'kernel').reduce((n, d) => n * d, 1);
  return asm.simd && taps <= mostTaps && tensors.every((t) => t.type.shape.length === 4 && t.type.shape[1]! % 4 === 0 && t.strides[1] === 1 && (t.type.dtype === 'f32' || t.type.dtype === 'i32'));
}

function axesOf(op: Op, input: Placed, result: Placed): [Axis, Axis] {
  const [k, s, p, d] = [nums(op.attrs, 'kernel'), nums(op.attrs, 'strides'), nums(op.attrs, 'pads'), nums(op.attrs, 'dilations')];
  return [0, 1].map((i): Axis => ({ input: input.type.shape[2 + i]!, result: result.type.shape[2 + i]!, kernel: k[i]!, stride: s[i]!, before: p[i]!, dilation: d[i]! })) as [Axis, Axis];
}

/** Bytes from one index to the next: samples, rows, pixels. */
const steps = (t: Placed): [number, number, number] => [4 * t.strides[0]!, 4 * t.strides[2]!, 4 * t.strides[3]!];

/** Bytes that a row of pixels reads and writes, and those that a chunk reads beside its rows'. */
interface Touched { readonly row: number; readonly beside: number }

/** Runs `pixel` for every pixel of `shape` with its row and column, and pointers to the samples and pixels of tensors. */
function eachPixel(asm: Asm, key: string, shape: readonly number[], tensors: number, touched: Touched, pixel: (f: Fn, at: { readonly n: Local; readonly y: Local; readonly x: Local; readonly ptrs: readonly Local[] }) => E[]): KernelCode {
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const rows = batch * height;
  const block = Math.max(1, Math.min(rows, Math.floor((2 * lightWork(asm)) / (channels * width)), Math.floor((asm.division.bytesPerTile - touched.beside) / touched.row)));
  return kernel(asm, key, tensors, Math.ceil(rows / block), 0, (f, k) => {
    const { m } = asm;
    const [row, end, n, y, x] = Array.from({ length: 5 }, () => f.local('i32')) as [Local, Local, Local, Local, Local];
    return [
      f.set(end, asm.times(asm.plus(f.get(k.chunk), 1), block)),
      f.if(m.i32.gt_u(f.get(end), asm.i32(rows)), [f.set(end, asm.i32(rows))]),
      f.loop(row, asm.times(f.get(k.chunk), block), () => f.get(end), 1, [
        f.set(n, m.i32.div_u(f.get(row), asm.i32(height))),
        f.set(y, m.i32.rem_u(f.get(row), asm.i32(height))),
        f.repeat(x, 0, width, 1, pixel(f, { n, y, x, ptrs: k.ptrs })),
      ]),
    ];
  });
}

const tapsOf = (ay: Axis, ax: Axis): { readonly ky: number; readonly kx: number; readonly tap: number }[] =>
  Array.from({ length: ay.kernel * ax.kernel }, (_, tap) => ({ ky: Math.floor(tap / ax.kernel), kx: tap % ax.kernel, tap }));

/** A loop over vectors of channels that moves pointers. */
function overChannels(f: Fn, channels: number, pointers: readonly Local[], body: readonly E[]): E {
  const i = f.local('i32');
  return f.repeat(i, 0, channels / 4, 1, [...body, ...pointers.map((p) => f.inc(p, 16))]);
}

/** Max pool with the position of the maximum: the first tap that holds it, NaN above all. */
export function positionsPool(asm: Asm, key: string, op: Op, x: Placed, [values, positions]: readonly [Placed, Placed]): KernelCode {
  const [ay, ax] = axesOf(op, x, values);
  const [xs, vs, ps] = [steps(x), steps(values), steps(positions)];
  const outside = [ay, ax].some((a) => a.before > 0 || (a.result - 1) * a.stride + (a.kernel - 1) * a.dilation - a.before >= a.input);
  const [inRow, outRow] = [4 * x.type.shape[1]! * ax.input, 4 * x.type.shape[1]! * ax.result];
  return eachPixel(asm, key, values.type.shape, 3, { row: ay.stride * inRow + 2 * outRow, beside: (ay.kernel - 1) * ay.dilation * inRow }, (f, at) => {
    const { m } = asm;
    const [source, value, position, top, left] = Array.from({ length: 5 }, () => f.local('i32')) as [Local, Local, Local, Local, Local];
    const [best, kept, v, better] = [f.local('v128'), f.local('v128'), f.local('v128'), f.local('v128')];
    const place = (target: Local, ptr: Local, s: readonly [number, number, number]): E =>
      f.set(target, asm.add(asm.add(f.get(ptr), asm.times(f.get(at.n), s[0])), asm.add(asm.times(f.get(at.y), s[1]), asm.times(f.get(at.x), s[2]))));
    const exists = (a: Axis, first: Local, k: number): E => m.i32.lt_u(asm.plus(f.get(first), k * a.dilation), asm.i32(a.input));
    const inside = new Map(tapsOf(ay, ax).map(({ tap }) => [tap, f.local('i32')]));
    const address = f.local('i32');
    const taps = tapsOf(ay, ax).flatMap(({ ky, kx, tap }) => {
      const take = [
        f.set(address, asm.plus(f.get(source), ky * ay.dilation * xs[1] + kx * ax.dilation * xs[2])),
        f.set(v, asm.vload(address, 0)[0]!),
        // Not (v <= best) holds where v is larger or either is NaN.
        f.set(better, m.v128.or(m.v128.andnot(m.f32x4.eq(f.get(best), f.get(best)), m.f32x4.le(f.get(v), f.get(best))), m.i32x4.lt_s(f.get(kept), m.i32x4.splat(asm.i32(0))))),
        f.set(best, m.v128.bitselect(f.get(v), f.get(best), f.get(better))),
        f.set(kept, m.v128.bitselect(m.i32x4.splat(asm.i32(tap)), f.get(kept), f.get(better))),
      ];
      return outside ? [f.if(f.get(inside.get(tap)!), take)] : take;
    });
    return [
      f.set(top, asm.plus(asm.times(f.get(at.y), ay.stride), -ay.before)),
      f.set(left, asm.plus(asm.times(f.get(at.x), ax.stride), -ax.before)),
      ...(outside ? tapsOf(ay, ax).map(({ ky, kx, tap }) => f.set(inside.get(tap)!, m.i32.and(exists(ay, top, ky), exists(ax, left, kx)))) : []),
      f.set(source, asm.add(asm.add(f.get(at.ptrs[0]!), asm.times(f.get(at.n), xs[0])), asm.add(asm.times(f.get(top), xs[1]), asm.times(f.get(left), xs[2])))),
      place(value, at.ptrs[1]!, vs),
      place(position, at.ptrs[2]!, ps),
      overChannels(f, values.type.shape[1]!, [source, value, position], [
        f.set(best, m.f32x4.splat(asm.f32(-Infinity))),
        f.set(kept, m.i32x4.splat(asm.i32(-1))),
        ...taps,
        m.v128.store(0, 4, f.get(value), f.get(best)),
        // A window without elements keeps position 0.
        m.v128.store(0, 4, f.get(position), m.i32x4.max_s(f.get(kept), m.i32x4.splat(asm.i32(0)))),
      ]),
    ];
  });
}

/** Each input element sums the cotangents of the windows that kept it. */
export function positionsPoolGrad(asm: Asm, key: string, op: Op, [dy, positions]: readonly [Placed, Placed], dx: Placed): KernelCode {
  const [ay, ax] = axesOf(op, dx, dy);
  const [ds, ps, xs] = [steps(dy), steps(positions), steps(dx)];
  const channels = dx.type.shape[1]!;
  const [inRow, outRow] = [4 * dx.type.shape[1]! * ax.input, 4 * dx.type.shape[1]! * ax.result];
  return eachPixel(asm, key, dx.type.shape, 3, { row: inRow + (2 * outRow) / ay.stride, beside: 2 * outRow * (1 + ((ay.kernel - 1) * ay.dilation) / ay.stride) }, (f, at) => {
    const { m } = asm;
    const [target, from, where, to] = Array.from({ length: 4 }, () => f.local('i32')) as [Local, Local, Local, Local];
    /** The window whose tap k lies on this element: (i + before - k·dilation) / stride, where that is whole and a window. */
    const windowOf = (a: Axis, i: Local, k: number, window: Local, hit: Local): E[] => {
      const numerator = (): E => asm.plus(f.get(i), a.before - k * a.dilation);
      const whole = a.stride === 1 ? [] : [m.i32.eqz(m.i32.rem_u(numerator(), asm.i32(a.stride)))];
      return [
        f.set(window, a.stride === 1 ? numerator() : m.i32.div_s(numerator(), asm.i32(a.stride))),
        f.set(hit, [m.i32.ge_s(numerator(), asm.i32(0)), m.i32.lt_s(f.get(window), asm.i32(a.result)), ...whole].reduce((p, q) => m.i32.and(p, q))),
      ];
    };
    const rows = Array.from({ length: ay.kernel }, () => [f.local('i32'), f.local('i32')] as const);
    const columns = Array.from({ length: ax.kernel }, () => [f.local('i32'), f.local('i32')] as const);
    const place = (t: Local, ptr: Local, s: readonly [number, number, number], y: Local, x: Local): E =>
      f.set(t, asm.add(asm.add(f.get(ptr), asm.times(f.get(at.n), s[0])), asm.add(asm.times(f.get(y), s[1]), asm.times(f.get(x), s[2]))));
    return [
      ...rows.flatMap(([window, hit], k) => windowOf(ay, at.y, k, window, hit)),
      ...columns.flatMap(([window, hit], k) => windowOf(ax, at.x, k, window, hit)),
      place(target, at.ptrs[2]!, xs, at.y, at.x),
      m.memory.fill(f.get(target), asm.i32(0), asm.i32(4 * channels)),
      ...tapsOf(ay, ax).map(({ ky, kx, tap }) => {
        const [[row, inRow], [column, inColumn]] = [rows[ky]!, columns[kx]!];
        return f.if(m.i32.and(f.get(inRow), f.get(inColumn)), [
          place(from, at.ptrs[0]!, ds, row, column),
          place(where, at.ptrs[1]!, ps, row, column),
          f.set(to, f.get(target)),
          overChannels(f, channels, [from, where, to], [
            m.v128.store(0, 4, f.get(to), m.f32x4.add(m.v128.load(0, 4, f.get(to)), m.v128.and(m.v128.load(0, 4, f.get(from)), m.i32x4.eq(m.v128.load(0, 4, f.get(where)), m.i32x4.splat(asm.i32(tap)))))),
          ]),
        ]);
      }),
    ];
  });
}
