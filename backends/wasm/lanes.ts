/** One body for two widths: arithmetic on a single element of any dtype, or on four f32 lanes. */
import type { DType } from '../../ir/type.ts';
import type { E, Fn, Vec } from './asm.ts';
import { computeType, constantOf, extremes, isUnsigned } from './dtype.ts';

/** Arithmetic of one width. A V may be used once. */
export interface Lanes<V> {
  constant(x: number | bigint): V;
  add(a: V, b: V): V;
  mul(a: V, b: V): V;
  /** a · b + c */
  madd(a: V, b: V, c: V): V;
  /** NaN where one is. */
  max(a: V, b: V): V;
  min(a: V, b: V): V;
  /** Keeps a value for repeated reading. */
  local(): { get(): V; set(v: V): E };
}

/** Arithmetic on single elements; `wide`: sums of floats are kept in f64. Operands must have the type that this says. */
export function scalarLanes(f: Fn, d: DType, wide: boolean): Lanes<E> & { readonly type: 'f64' | 'f32' | 'i64' | 'i32'; readonly dtype: DType } {
  const dtype: DType = wide && computeType(d) === 'f32' ? 'f64' : d;
  const type = computeType(dtype);
  const { m } = f.asm;
  const extremum = (a: E, b: E, name: 'max' | 'min'): E => {
    if (type === 'f32' || type === 'f64') return m[type][name](a, b);
    const compare = m[type][`${name === 'max' ? 'gt' : 'lt'}_${isUnsigned(d) ? 'u' : 's'}`];
    return f.bind(type, a, (x) => f.bind(type, b, (y) => m.select(compare(x(), y()), x(), y())));
  };
  return {
    type,
    dtype,
    constant: (x) => constantOf(f.asm, dtype, x),
    add: (a, b) => m[type].add(a, b),
    mul: (a, b) => m[type].mul(a, b),
    madd: (a, b, c) => m[type].add(m[type].mul(a, b), c),
    max: (a, b) => extremum(a, b, 'max'),
    min: (a, b) => extremum(a, b, 'min'),
    local() {
      const t = f.local(type);
      return { get: () => f.get(t), set: (v) => f.set(t, v) };
    },
  };
}

/** Arithmetic on four f32 lanes (modules with SIMD). */
export function vectorLanes(f: Fn): Lanes<Vec> {
  const { asm } = f;
  const { m } = asm;
  return {
    constant: (x) => f.vconst(Number(x)),
    add: (a, b) => asm.vadd(a, b),
    mul: (a, b) => asm.vmul(a, b),
    madd: (a, b, c) => asm.vmadd(a, b, c),
    max: (a, b) => [m.f32x4.max(a[0]!, b[0]!)],
    min: (a, b) => [m.f32x4.min(a[0]!, b[0]!)],
    local() {
      const t = f.vlocal();
      return { get: () => f.vget(t), set: (v) => f.vset(t, v) };
    },
  };
}

/** A way to fold many values into one. */
export interface Fold {
  start(d: DType): number | bigint;
  join<V>(l: Lanes<V>, sum: V, x: V): V;
}
export const folds = {
  sum: { start: () => 0, join: (l, s, x) => l.add(s, x) },
  prod: { start: () => 1, join: (l, s, x) => l.mul(s, x) },
  max: { start: (d) => extremes(d).least, join: (l, s, x) => l.max(s, x) },
  min: { start: (d) => extremes(d).greatest, join: (l, s, x) => l.min(s, x) },
} as const satisfies Readonly<Record<string, Fold>>;
export type FoldName = keyof typeof folds;
