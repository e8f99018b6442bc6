/** Fourier transforms as products with constant matrices. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { showType, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { axisOf, constantOf, range, row } from './helpers.ts';

/** cos and sin of 2πkn/N as [n, k] matrices, scaled. k·n is reduced modulo N first, which keeps the angles exact. */
function twiddles(b: Builder, dtype: DType, n: number, length: number, bins: number, scale: number): { cos: Value; sin: Value } {
  const angle = (i: number): number => (2 * Math.PI * ((Math.floor(i / bins) * (i % bins)) % length)) / length;
  const all = range(n * bins);
  return {
    cos: constantOf(b, dtype, [n, bins], all.map((i) => scale * Math.cos(angle(i)))),
    sin: constantOf(b, dtype, [n, bins], all.map((i) => scale * Math.sin(angle(i)))),
  };
}

/** Real and imaginary part of the transform along the last axis of [rows, n]; `im` is undefined for a real signal. */
function transform(b: Builder, re: Value, im: Value | undefined, length: number, bins: number, inverse: boolean): { re: Value; im: Value } {
  const n = re.type.shape[1]!;
  const { cos, sin } = twiddles(b, re.type.dtype, n, length, bins, inverse ? 1 / length : 1);
  const times = (x: Value, m: Value): Value => b.contract('rn,nk->rk', x, m);
  // e^(-iθ)(re + i·im) forward, e^(iθ)(…) backward.
  const sign = (x: Value): Value => (inverse ? x : b.neg(x));
  if (!im) return { re: times(re, cos), im: sign(times(re, sin)) };
  const cross = inverse ? b.sub(times(re, cos), times(im, sin)) : b.add(times(re, cos), times(im, sin));
  return { re: cross, im: b.add(times(im, cos), sign(times(re, sin))) };
}

function dft(cx: LowerContext, axisGiven: number, lengthGiven: number | undefined): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const rank = x.type.shape.length;
  const axis = axisOf(cx, axisGiven, rank);
  const parts = x.type.shape[rank - 1];
  if (rank < 2 || axis === rank - 1 || (parts !== 1 && parts !== 2)) cx.bad(`an input of ${showType(x.type)} and axis ${axisGiven}: expected a last axis of 1 or 2 elements, and another axis to transform`);
  const inverse = node.attrs.int('inverse', 0) !== 0;
  const onesided = node.attrs.int('onesided', 0) !== 0;
  const own = x.type.shape[axis]!;
  const realResult = onesided && inverse;
  const length = lengthGiven ?? (realResult ? 2 * (own - 1) : own);
  if (onesided && !inverse && parts !== 1) cx.bad('a one-sided transform takes a real input');
  // The axis last but one, everything else as rows.
  const order = [...range(rank).filter((i) => i !== axis && i !== rank - 1), axis, rank - 1];
  const moved = b.transpose(x, order);
  const lead = moved.type.shape.slice(0, -2);
  const rows = lead.reduce((p, d) => p * d, 1);
  const part = (i: number): Value => b.reshape(b.slice(moved, [...lead.map(() => 0), 0, i], [...lead, own, 1]), [rows, own]);
  let [re, im] = [part(0), parts === 2 ? part(1) : undefined];
  if (realResult) [re, im] = mirrored(b, re, im ?? b.zeros(re.type), length);
  const used = Math.min(re.type.shape[1]!, length);
  const cut = (v: Value): Value => b.slice(v, [0, 0], [rows, used]);
  const bins = onesided && !inverse ? Math.floor(length / 2) + 1 : length;
  const y = transform(b, cut(re), im && cut(im), length, bins, inverse);
  const column = (v: Value): Value => b.reshape(v, [...lead, bins, 1]);
  const joined = realResult ? column(y.re) : b.concat([column(y.re), column(y.im)], rank - 1);
  return b.transpose(joined, range(rank).map((i) => order.indexOf(i)));
}

/** The whole spectrum of a real signal from its one-sided half: X[N - k] is the conjugate of X[k]. */
function mirrored(b: Builder, re: Value, im: Value, length: number): [Value, Value] {
  const rows = re.type.shape[0]!;
  const half = Math.floor(length / 2) + 1;
  const fit = (v: Value): Value => {
    const more = half - v.type.shape[1]!;
    return more <= 0 ? b.slice(v, [0, 0], [rows, half]) : b.one('pad', [v], { lo: [0, 0], hi: [0, more], mode: 'constant', value: 0 });
  };
  const [r, i] = [fit(re), fit(im)];
  const rest = length - half;
  if (rest === 0) return [r, i];
  const back = (v: Value): Value => b.slice(v, [0, rest], [rows, rest], [1, -1]);
  return [b.concat([r, back(r)], 1), b.concat([i, b.neg(back(i))], 1)];
}

/** Overlapping frames of the signal, windowed and transformed. */
function stft(cx: LowerContext): Value {
  const { b, node } = cx;
  const signal = cx.input(0);
  const one = (v: Value, what: string): number => cx.ints(v, what)[0] ?? cx.bad(`${what} is empty`);
  const window = cx.optionalInput(2);
  const lengthInput = cx.optionalInput(3);
  const step = one(cx.input(1), 'frame_step');
  const { shape } = signal.type;
  const [batch, samples] = shape;
  if (batch === undefined || samples === undefined || shape.length > 3) cx.bad(`the signal is ${showType(signal.type)}: expected batch, samples and 1 or 2 parts`);
  const parts = shape[2] ?? 1;
  const length = lengthInput ? one(lengthInput, 'frame_length') : (window?.type.shape[0] ?? cx.bad('neither window nor frame_length is given'));
  const onesided = node.attrs.int('onesided', 1) !== 0;
  if (onesided && parts === 2) cx.bad('a one-sided transform takes a real signal');
  if (step < 1 || length > samples) cx.bad(`frames of ${length} by ${step} do not fit a signal of ${samples}`);
  const frames = 1 + Math.floor((samples - length) / step);
  const places = constantOf(b, 'i64', [frames, length], range(frames * length).map((i) => Math.floor(i / length) * step + (i % length)));
  const bins = onesided ? Math.floor(length / 2) + 1 : length;
  const part = (i: number): Value => {
    const line = b.reshape(b.slice(b.reshape(signal, [batch, samples, parts]), [0, 0, i], [batch, samples, 1]), [batch, samples]);
    const cut = b.one('gather', [line, places], { axis: 1 });
    return b.reshape(window ? b.mul(cut, padWindow(cx, window, length)) : cut, [batch * frames, length]);
  };
  const y = transform(b, part(0), parts === 2 ? part(1) : undefined, length, bins, false);
  const column = (v: Value): Value => b.reshape(v, [batch, frames, bins, 1]);
  return b.concat([column(y.re), column(y.im)], 3);
}

function padWindow(cx: LowerContext, window: Value, length: number): Value {
  const size = window.type.shape[0];
  return size === length ? window : cx.bad(`a window of ${size} samples and a frame_length of ${length}: expected the same`);
}

export const signalOps: LoweringTable = {
  DFT: [
    row(17, [1, 2], (cx) => {
      const length = cx.optionalInput(1);
      return dft(cx, cx.node.attrs.int('axis', 1), length && cx.ints(length, 'dft_length')[0]);
    }),
    row(20, [1, 3], (cx) => {
      const [length, axis] = [cx.optionalInput(1), cx.optionalInput(2)];
      return dft(cx, axis ? (cx.ints(axis, 'axis')[0] ?? -2) : -2, length && cx.ints(length, 'dft_length')[0]);
    }),
  ],
  STFT: [row(17, [2, 4], stft)],
};
