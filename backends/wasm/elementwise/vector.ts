/**
 * Elementwise ops on four lanes of f32, i32, u32, small integers (held as i32) or bool. Where the module has SIMD a bool is a mask (all bits of a lane
 * set or clear) and a Vec is one v128; else a Vec is four scalars and a bool is 0 or 1.
 */
import type { Op } from '../../../ir/graph.ts';
import { flag } from '../../../ir/op.ts';
import { dtypes, type DType } from '../../../ir/type.ts';
import { types, type E, type Fn, type LaneTy, type Vec } from '../asm.ts';
import { extremes, isUnsigned, loadElement, storeElement } from '../dtype.ts';
import { callVector, hasVectorFormula, inlineVector } from '../math/vector.ts';
import { emitScalar, type ElementwiseName } from './scalar.ts';

const laneTypes: ReadonlySet<DType> = new Set(['f32', 'i32', 'u32', 'i16', 'u16', 'i8', 'u8', 'bool']);
/** Whether values of a dtype can be held in lanes. */
export const isLaneType = (d: DType): boolean => laneTypes.has(d);
/** Whether an elementwise op can run on lanes. */
export const isVectorOp = (op: Op): boolean => [...op.operands, ...op.results].every((v) => isLaneType(v.type.dtype));

export interface VecOptions {
  /** Put exp, sigmoid, tanh, erf and log in the place of their call; else they are calls of shared functions, which spill what is in registers. */
  readonly inline?: boolean;
  /** Operand values known at compile time. */
  readonly constants?: readonly (number | undefined)[];
}

/** Four elements of an elementwise op (`isVectorOp`) from four of each operand. Arguments are pure, each used once. */
export function emitVec(f: Fn, op: Op, args: readonly Vec[], options: VecOptions = {}): Vec {
  if (!f.asm.simd) return [0, 1, 2, 3].map((lane) => emitScalar(f, op, args.map((a) => a[lane]!)));
  const [a = 0, b = 0, c = 0] = args.map((v) => v[0]!);
  const emit = vectorOps[op.name as ElementwiseName] ?? perLane;
  const value = emit({ f, d: op.operands.at(-1)!.type.dtype, op, options }, a, b, c);
  return [wraps.has(op.name) ? wrapLanes(f, op.results[0]!.type.dtype, value) : value];
}

/** Ops that can leave the range of a small integer. */
const wraps: ReadonlySet<string> = new Set(['neg', 'abs', 'add', 'sub', 'mul', 'bitNot']);
/** Brings i32 lanes back into the range of a small integer. */
function wrapLanes(f: Fn, d: DType, v: E): E {
  const { m } = f.asm;
  const { bits, kind } = dtypes[d];
  if (bits === 32 || kind === 'bool') return v;
  if (kind === 'uint') return m.v128.and(v, splat(f, 'i32', 2 ** bits - 1));
  return m.i32x4.shr_s(m.i32x4.shl(v, m.i32.const(32 - bits)), m.i32.const(32 - bits));
}

interface Row { readonly f: Fn; readonly d: DType; readonly op: Op; readonly options: VecOptions }
type Emit = (r: Row, a: E, b: E, c: E) => E;

const bind = (f: Fn, e: E, use: (get: () => E) => E): E => f.bind('v128', e, use);
const splat = (f: Fn, d: DType, x: number): E => (d === 'f32' ? f.vconst(x)[0]! : f.asm.m.i32x4.splat(f.asm.i32(x)));
const shape = (r: Row): 'f32x4' | 'i32x4' => (r.d === 'f32' ? 'f32x4' : 'i32x4');

/** Takes the lanes apart, computes each as a scalar, and puts them together. */
const perLane: Emit = (r, ...args) => {
  const { f, op } = r;
  const { m } = f.asm;
  const locals = op.operands.map(() => f.local('v128'));
  const lane = (k: number): E => emitScalar(f, op, op.operands.map((v, i) => extract(f, v.type.dtype, f.get(locals[i]!), k)));
  const to = op.results[0]!.type.dtype;
  const make = to === 'f32' ? m.f32x4 : m.i32x4;
  let v = make.splat(lane(0));
  for (let k = 1; k < 4; k++) v = make.replace_lane(v, k, lane(k));
  return m.block(null, [...locals.map((l, i) => f.set(l, args[i]!)), to === 'bool' ? m.i32x4.neg(v) : v], types.v128);
};

function extract(f: Fn, d: DType, v: E, k: number): E {
  const { m } = f.asm;
  if (d === 'f32') return m.f32x4.extract_lane(v, k);
  const e = m.i32x4.extract_lane(v, k);
  return d === 'bool' ? m.i32.and(e, m.i32.const(1)) : e;
}

const math = (name: string): Emit => (r, a, b, c) => {
  if (!hasVectorFormula(name)) return perLane(r, a, b, c);
  return r.options.inline ? inlineVector(r.f, name, [a])[0]! : callVector(r.f.asm, name, a);
};

/** sin and cos: a polynomial for moderate arguments, lane by lane in f64 where one is large. */
const circular = (name: 'sin' | 'cos'): Emit => (r, a) => {
  const { asm } = r.f;
  const { m } = asm;
  const fn = asm.fn(`vector ${name} any`, ['v128'], 'v128', (g, [x]) => [
    m.if(
      m.v128.any_true(m.f32x4.gt(m.f32x4.abs(g.get(x!)), m.f32x4.splat(m.f32.const(8192)))),
      m.return(perLane({ ...r, f: g }, g.get(x!), 0, 0)),
    ),
    callVector(asm, `${name}Near`, g.get(x!)),
  ]);
  return asm.call(fn, [a], 'v128');
};

const arithmetic = (name: 'add' | 'sub' | 'mul'): Emit => (r, a, b) => r.f.asm.m[shape(r)][name](a, b);
const round = (name: 'floor' | 'ceil' | 'trunc' | 'nearest'): Emit => (r, a) => (r.d === 'f32' ? r.f.asm.m.f32x4[name](a) : a);
const bits = (name: 'and' | 'or' | 'xor'): Emit => (r, a, b) => r.f.asm.m.v128[name](a, b);
const comparison = (name: 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge'): Emit => (r, a, b) => {
  const { m } = r.f.asm;
  if (r.d === 'f32') return m.f32x4[name](a, b);
  if (name === 'eq' || name === 'ne') return m.i32x4[name](a, b);
  return m.i32x4[`${name}_${r.d === 'u32' ? 'u' : 's'}`](a, b);
};
/** max and min, NaN kept. Where one operand is a known number, the cheap pseudo-minimum does: it returns its first operand unless the second is beyond it. */
const extremum = (name: 'min' | 'max'): Emit => (r, a, b) => {
  const { m } = r.f.asm;
  if (r.d !== 'f32') return m.i32x4[`${name}_${isUnsigned(r.d) ? 'u' : 's'}`](a, b);
  const [x, y] = r.options.constants ?? [];
  if (y !== undefined && !Number.isNaN(y)) return m.f32x4[`p${name}`](a, b);
  if (x !== undefined && !Number.isNaN(x)) return m.f32x4[`p${name}`](b, a);
  return m.f32x4[name](a, b);
};

// Ops that are missing here run lane by lane.
const vectorOps: Readonly<Partial<Record<ElementwiseName, Emit>>> = {
  neg: (r, a) => r.f.asm.m[shape(r)].neg(a),
  abs: (r, a) => (isUnsigned(r.d) ? a : r.f.asm.m[shape(r)].abs(a)),
  sign: (r, a) => {
    if (isUnsigned(r.d)) return r.f.asm.m.i32x4.min_u(a, splat(r.f, 'i32', 1));
    if (r.d !== 'f32') return r.f.asm.m.i32x4.max_s(r.f.asm.m.i32x4.min_s(a, splat(r.f, 'i32', 1)), splat(r.f, 'i32', -1));
    const { m } = r.f.asm;
    return bind(r.f, a, (x) => m.v128.bitselect(
      splat(r.f, 'f32', 1),
      m.v128.bitselect(splat(r.f, 'f32', -1), x(), m.f32x4.lt(x(), splat(r.f, 'f32', 0))),
      m.f32x4.gt(x(), splat(r.f, 'f32', 0)),
    ));
  },
  sqrt: (r, a) => r.f.asm.m.f32x4.sqrt(a),
  rsqrt: (r, a) => r.f.asm.m.f32x4.div(splat(r.f, 'f32', 1), r.f.asm.m.f32x4.sqrt(a)),
  recip: (r, a) => r.f.asm.m.f32x4.div(splat(r.f, 'f32', 1), a),
  exp: math('exp'), expm1: math('expm1'), log: math('log'), log1p: math('log1p'), tanh: math('tanh'), erf: math('erf'), sigmoid: math('sigmoid'),
  sin: circular('sin'), cos: circular('cos'),
  floor: round('floor'), ceil: round('ceil'), round: round('nearest'), trunc: round('trunc'),
  not: (r, a) => r.f.asm.m.v128.not(a),
  bitNot: (r, a) => r.f.asm.m.v128.not(a),
  isNaN: (r, a) => bind(r.f, a, (x) => r.f.asm.m.f32x4.ne(x(), x())),
  isInf: (r, a) => {
    const { m } = r.f.asm;
    const is = (x: E, on: boolean, at: number): E => (on ? m.f32x4.eq(x, splat(r.f, 'f32', at)) : m.i32x4.splat(m.i32.const(0)));
    return bind(r.f, a, (x) => m.v128.or(is(x(), flag(r.op.attrs, 'positive'), Infinity), is(x(), flag(r.op.attrs, 'negative'), -Infinity)));
  },
  relu: (r, a) => (r.d === 'f32' ? r.f.asm.m.f32x4.pmax(a, splat(r.f, 'f32', 0)) : isUnsigned(r.d) ? a : r.f.asm.m.i32x4.max_s(a, splat(r.f, 'i32', 0))),
  add: arithmetic('add'), sub: arithmetic('sub'), mul: arithmetic('mul'),
  div: (r, a, b) => {
    if (r.d !== 'f32') return perLane(r, a, b, 0);
    return r.f.asm.m.f32x4.div(a, b);
  },
  pow: (r, a, b) => {
    const { f } = r;
    const { m } = f.asm;
    const y = r.options.constants?.[1];
    if (r.d !== 'f32' || y === undefined) return perLane(r, a, b, 0);
    if (y === 1) return a;
    if (y === 2) return bind(f, a, (x) => m.f32x4.mul(x(), x()));
    if (y === 3) return bind(f, a, (x) => m.f32x4.mul(m.f32x4.mul(x(), x()), x()));
    if (y === -1) return m.f32x4.div(splat(f, 'f32', 1), a);
    return perLane(r, a, b, 0);
  },
  min: extremum('min'), max: extremum('max'),
  bitAnd: bits('and'), bitOr: bits('or'), bitXor: bits('xor'),
  and: bits('and'), or: bits('or'), xor: bits('xor'),
  eq: comparison('eq'), ne: comparison('ne'), lt: comparison('lt'), le: comparison('le'), gt: comparison('gt'), ge: comparison('ge'),
  select: (r, c, a, b) => r.f.asm.m.v128.bitselect(a, b, c),
  clamp: (r, x, lo, hi) => {
    const [, known0, known1] = r.options.constants ?? [];
    const inner = extremum('max')({ ...r, options: { constants: [undefined, known0] } }, x, lo, 0);
    return extremum('min')({ ...r, options: { constants: [undefined, known1] } }, inner, hi, 0);
  },
  cast: (r, a) => {
    const { f, d } = r;
    const { m } = f.asm;
    const to = r.op.results[0]!.type.dtype;
    const saturate = flag(r.op.attrs, 'saturate');
    if (to === d) return a;
    if (to === 'bool') return d === 'f32' ? m.f32x4.ne(a, splat(f, 'f32', 0)) : m.i32x4.ne(a, splat(f, 'i32', 0));
    if (d === 'bool') return to === 'f32' ? m.v128.and(a, splat(f, 'f32', 1)) : m.i32x4.neg(a);
    if (to === 'f32') return d === 'u32' ? m.f32x4.convert_i32x4_u(a) : m.f32x4.convert_i32x4_s(a);
    if (d === 'f32') {
      if (!saturate) return perLane(r, a, 0, 0);
      const rounded = m.f32x4.nearest(a);
      if (dtypes[to].bits === 32) return to === 'u32' ? m.i32x4.trunc_sat_f32x4_u(rounded) : m.i32x4.trunc_sat_f32x4_s(rounded);
      return clampLanes(f, 'i32', to, m.i32x4.trunc_sat_f32x4_s(rounded));
    }
    return saturate ? clampLanes(f, d, to, a) : wrapLanes(f, to, a);
  },
  bitcast: (r, a) => {
    const { m } = r.f.asm;
    const to = r.op.results[0]!.type.dtype;
    // A bool is a byte of 0 or 1 in memory, a mask in lanes.
    const bits = r.d === 'bool' ? m.i32x4.neg(a) : a;
    return to === 'bool' ? m.i32x4.ne(bits, splat(r.f, 'i32', 0)) : wrapLanes(r.f, to, bits);
  },
};

/** Clamps lanes of one integer dtype to the range of another. */
function clampLanes(f: Fn, from: DType, to: DType, v: E): E {
  const { m } = f.asm;
  const [own, range] = [extremes(from), extremes(to)];
  const bound = (x: number | bigint): E => splat(f, 'i32', Number(x) | 0);
  let out = v;
  if (range.greatest < own.greatest) out = from === 'u32' ? m.i32x4.min_u(out, bound(range.greatest)) : m.i32x4.min_s(out, bound(range.greatest));
  if (range.least > own.least) out = m.i32x4.max_s(out, bound(range.least));
  return out;
}

/** Loads four elements of a lane type at ptr + offset. */
export function loadVec(f: Fn, d: DType, ptr: () => E, offset: number): Vec {
  const { m } = f.asm;
  const { bytes } = dtypes[d];
  if (!f.asm.simd) return [0, 1, 2, 3].map((k) => loadElement(f.asm, d, ptr(), offset + bytes * k));
  if (bytes === 4) return [m.v128.load(offset, 4, ptr())];
  if (bytes === 2) return [isUnsigned(d) ? m.v128.load16x4_u(offset, 2, ptr()) : m.v128.load16x4_s(offset, 2, ptr())];
  const packed = m.v128.load32_zero(offset, 1, ptr());
  if (!isUnsigned(d)) return [m.i32x4.extend_low_i16x8_s(m.i16x8.extend_low_i8x16_s(packed))];
  return [fromMemory(f, d, m.i32x4.extend_low_i16x8_u(m.i16x8.extend_low_i8x16_u(packed)))];
}

/** i32 lanes as loaded, in the form that values of the dtype have: a bool is a mask. */
const fromMemory = (f: Fn, d: DType, lanes: E): E => (d === 'bool' ? f.asm.m.i32x4.neg(lanes) : lanes);

/** Loads one element into all lanes. */
export function splatElement(f: Fn, d: DType, ptr: () => E, offset: number): Vec {
  const { m } = f.asm;
  if (!f.asm.simd) {
    const t = f.local(laneOf(d));
    return [f.tee(t, loadElement(f.asm, d, ptr(), offset)), f.get(t), f.get(t), f.get(t)];
  }
  if (dtypes[d].bytes === 4) return [m.v128.load32_splat(offset, 4, ptr())];
  return [fromMemory(f, d, m.i32x4.splat(loadElement(f.asm, d, ptr(), offset)))];
}

/** Loads four elements that lie `step` bytes apart (SIMD modules alone). */
export function gatherVec(f: Fn, d: DType, ptr: () => E, offset: number, step: number): Vec {
  const { m } = f.asm;
  // Offsets of memory instructions are not negative.
  const at = (k: number): { ptr: E; offset: number } => (offset + k * step < 0 ? { ptr: f.asm.plus(ptr(), offset + k * step), offset: 0 } : { ptr: ptr(), offset: offset + k * step });
  if (dtypes[d].bytes === 4) {
    let v = m.v128.load32_zero(at(0).offset, 4, at(0).ptr);
    for (let k = 1; k < 4; k++) v = m.v128.load32_lane(at(k).offset, 4, k, at(k).ptr, v);
    return [v];
  }
  let v = m.i32x4.splat(loadElement(f.asm, d, at(0).ptr, at(0).offset));
  for (let k = 1; k < 4; k++) v = m.i32x4.replace_lane(v, k, loadElement(f.asm, d, at(k).ptr, at(k).offset));
  return [fromMemory(f, d, v)];
}

/** Stores four elements of a lane type. */
export function storeVec(f: Fn, d: DType, ptr: () => E, offset: number, v: Vec): E {
  const { m } = f.asm;
  const { bytes } = dtypes[d];
  if (!f.asm.simd) return m.block(null, v.map((e, k) => storeElement(f.asm, d, ptr(), e, offset + bytes * k)));
  if (bytes === 4) return m.v128.store(offset, 4, ptr(), v[0]!);
  const zero = (): E => m.i32x4.splat(m.i32.const(0));
  const lanes = d === 'bool' ? m.i32x4.neg(v[0]!) : v[0]!;
  if (bytes === 2) return m.v128.store64_lane(offset, 2, 0, ptr(), isUnsigned(d) ? m.i16x8.narrow_i32x4_u(lanes, zero()) : m.i16x8.narrow_i32x4_s(lanes, zero()));
  const halves = m.i16x8.narrow_i32x4_s(lanes, zero());
  return m.v128.store32_lane(offset, 1, 0, ptr(), isUnsigned(d) ? m.i8x16.narrow_i16x8_u(halves, zero()) : m.i8x16.narrow_i16x8_s(halves, zero()));
}

/** Stores the first `count` lanes `step` bytes apart (SIMD modules alone). */
export function scatterVec(f: Fn, d: DType, ptr: () => E, offset: number, step: number, count: 1 | 4, v: () => Vec): E {
  const { m } = f.asm;
  const { bytes } = dtypes[d];
  const kept = f.vlocal();
  const stores = Array.from({ length: count }, (_, k) => {
    const far = offset + k * step;
    const [p, o] = far < 0 ? [f.asm.plus(ptr(), far), 0] : [ptr(), far];
    if (bytes === 4) return m.v128.store32_lane(o, 4, k, p, f.vget(kept)[0]!);
    if (bytes === 2) return m.v128.store16_lane(o, 2, 2 * k, p, f.vget(kept)[0]!);
    return m.v128.store8_lane(o, 1, 4 * k, p, d === 'bool' ? m.i32x4.neg(f.vget(kept)[0]!) : f.vget(kept)[0]!);
  });
  return m.block(null, [f.vset(kept, v()), ...stores]);
}

/** A constant in all lanes. */
export function constantVec(f: Fn, d: DType, x: number): Vec {
  if (!f.asm.simd) return [0, 1, 2, 3].map(() => (d === 'f32' ? f.asm.f32(x) : f.asm.i32(x | 0)));
  return [splat(f, d, d === 'bool' ? -x : x)];
}

/** The scalar type of one lane. */
export const laneOf = (d: DType): LaneTy => (d === 'f32' ? 'f32' : 'i32');
