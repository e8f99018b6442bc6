/** Changes of element type. */
import type { Attrs } from '../../graph.ts';
import { fromRef, intRange, isBig, roundTo, toRef, wrapInt, wrapNumber } from '../../number.ts';
import { flag, str, type OpDef, type RefTensor } from '../../op.ts';
import { dtypes, isFloat, isInteger, showType, type DType, type TensorType } from '../../type.ts';
import { arity, bigints, check, fresh, nth, numbers } from '../helpers.ts';
import { apply1 } from './apply.ts';
import { elementwiseAxes } from './define.ts';
import { roundHalfEven } from './special.ts';

const cast: OpDef = {
  name: 'cast',
  doc: 'x as another dtype: float to int truncates and wraps (saturate: rounds half to even and clamps), to bool is x ≠ 0, to 8-bit floats saturate is as in ONNX; NaN to int is 0',
  family: 'map',
  operands: ['x'],
  attrs: { to: { kind: 'string', default: 'required' }, saturate: { kind: 'boolean', default: false } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    return [{ dtype: target(attrs), shape: x.shape }];
  },
  axes: elementwiseAxes(false),
  reference: ([x], attrs, [y]) => [castTo(x!, y!, flag(attrs, 'saturate'))],
  grad: {
    build(b, op, [g]) {
      const from = nth(op.operands, 0).type.dtype;
      return [g && isFloat(from) && isFloat(g.type.dtype) ? b.cast(g, from) : undefined];
    },
  },
};

const bitcast: OpDef = {
  name: 'bitcast',
  doc: 'the bits of x, read as another dtype of the same width (bool is a byte)',
  family: 'map',
  operands: ['x'],
  attrs: { to: { kind: 'string', default: 'required' } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    const to = target(attrs);
    check(width(x.dtype) === width(to), () => `${showType(x)} and ${to} differ in width (${width(x.dtype)} and ${width(to)} bits)`);
    return [{ dtype: to, shape: x.shape }];
  },
  axes: elementwiseAxes(false),
  reference: ([x], _attrs, [y]) => [bitcastTo(x!, y!)],
  grad: { none: 'reads bits' },
};

function target(attrs: Attrs): DType {
  const to = str(attrs, 'to');
  check(Object.hasOwn(dtypes, to), () => `there is no element type ${to}`);
  return to as DType;
}

const width = (d: DType): number => (d === 'bool' ? 8 : dtypes[d].bits);

function castTo(x: RefTensor, y: TensorType, saturate: boolean): RefTensor {
  if (isBig(x.dtype)) return castBig(x, y, saturate);
  if (isBig(y.dtype)) {
    const out = fresh(y);
    const [from, to] = [numbers(x), bigints(out)];
    for (let i = 0; i < from.length; i++) to[i] = toBig(from[i]!, y.dtype, saturate);
    return out;
  }
  return apply1(caster(y.dtype, saturate), x, y);
}

/** How numbers become values of a dtype that is not i64 or u64. */
function caster(to: DType, saturate: boolean): (x: number) => number {
  if (to === 'bool') return (x) => (x === 0 ? 0 : 1);
  if (isFloat(to)) return saturate ? (x) => roundTo(to, x, { saturate, direction: 'up' }) : (x) => roundTo(to, x);
  if (!saturate) return (x) => wrapNumber(to, x);
  const { lo, hi } = intRange(to);
  const [low, high] = [Number(lo), Number(hi)];
  return (x) => (x !== x ? 0 : Math.min(Math.max(roundHalfEven(x), low), high));
}

function toBig(x: number, to: DType, saturate: boolean): bigint {
  if (x !== x) return 0n;
  if (Math.abs(x) === Infinity) return saturate ? (x > 0 ? intRange(to).hi : intRange(to).lo) : 0n;
  return saturate ? clampBig(BigInt(roundHalfEven(x)), to) : wrapInt(to, BigInt(Math.trunc(x)));
}

function clampBig(x: bigint, to: DType): bigint {
  const { lo, hi } = intRange(to);
  return x < lo ? lo : x > hi ? hi : x;
}

function castBig(x: RefTensor, y: TensorType, saturate: boolean): RefTensor {
  const out = fresh(y);
  const from = bigints(x);
  const convert = (v: bigint): bigint => (saturate ? clampBig(v, y.dtype) : wrapInt(y.dtype, v));
  if (isBig(y.dtype)) {
    const to = bigints(out);
    for (let i = 0; i < from.length; i++) to[i] = convert(from[i]!);
    return out;
  }
  const to = numbers(out);
  const finish = caster(y.dtype, saturate);
  const integer = isInteger(y.dtype);
  for (let i = 0; i < from.length; i++) to[i] = integer ? Number(convert(from[i]!)) : finish(y.dtype === 'f64' ? Number(from[i]!) : sticky(from[i]!));
  return out;
}

/** A double that rounds to narrower floats as the integer itself does: low bits beyond 53 are kept as one sticky bit. */
function sticky(x: bigint): number {
  const magnitude = x < 0n ? -x : x;
  if (magnitude < 1n << 53n) return Number(x);
  const high = magnitude >> 12n;
  const kept = Number((magnitude & 4095n) === 0n ? high : high | 1n) * 4096;
  return x < 0n ? -kept : kept;
}

function bitcastTo(x: RefTensor, y: TensorType): RefTensor {
  const { data } = fromRef(x);
  const { array, bits, kind } = dtypes[y.dtype];
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
  if (bits < 8 && kind !== 'bool') for (let i = 0; i < raw.length; i++) raw[i] = raw[i]! & ((1 << bits) - 1);
  const view = new (array as unknown as new (b: ArrayBuffer) => Uint8Array)(raw.buffer);
  const out = toRef({ ...y, data: view });
  return bits < 8 && kind === 'int' ? { ...y, data: numbers(out).map((v) => wrapNumber(y.dtype, v)) } : out;
}

export const castOps: readonly OpDef[] = [cast, bitcast];
