/** The two widths in which rows are computed. */
import type { Op, Value } from '../../../ir/graph.ts';
import type { E, Fn, Local, Vec } from '../asm.ts';
import { computeType, loadElement, normalize, storeElement } from '../dtype.ts';
import { scalarChain, splatElement, vecChain } from '../elementwise/index.ts';
import { scalarLanes, vectorLanes, type Lanes } from '../lanes.ts';
import { loadLanes, storeLanes } from '../map.ts';
import type { NestDim } from '../nest.ts';
import type { Shape } from './shape.ts';

/** Emission in one width: what a value is, and how it is loaded, folded and stored. `u` numbers vectors side by side. */
export interface Width<V> {
  /** Arithmetic of a reduction's sums. */
  sums(op: Op): Lanes<V>;
  load(i: number, ptr: Local, u: number): V;
  store(i: number, ptr: Local, u: number, v: () => V): E;
  chain(ops: readonly Op[], values: Map<Value, () => V>, outputs: readonly Value[]): E[];
  keep(v: Value): { get(): V; set(v: V): E };
  /** From the type of values to that of sums and back. */
  widen(v: Value, x: V): V;
  narrow(v: Value, x: V): V;
  scratchLoad(v: Value, ptr: Local, offset: number): V;
  scratchStore(v: Value, ptr: Local, offset: number, x: V): E;
}

/** Single elements of any dtype. */
export function scalarWidth(f: Fn, shape: Shape): Width<E> {
  const { asm } = f;
  const { m } = asm;
  const isWide = (v: Value): boolean => computeType(v.type.dtype) === 'f32';
  return {
    // Sums of floats are kept in f64.
    sums: (op) => scalarLanes(f, op.operands[0]!.type.dtype, true),
    load: (i, ptr) => loadElement(asm, shape.tensors[i]!.type.dtype, f.get(ptr)),
    store: (i, ptr, _u, v) => storeElement(asm, shape.tensors[i]!.type.dtype, f.get(ptr), v()),
    chain: (ops, values, outputs) => scalarChain(f, ops, values, outputs),
    keep(v) {
      const l = f.local(computeType(v.type.dtype));
      return { get: () => f.get(l), set: (e) => f.set(l, e) };
    },
    widen: (v, x) => (isWide(v) ? m.f64.promote(x) : x),
    narrow: (v, x) => normalize(asm, v.type.dtype, isWide(v) ? m.f32.demote(x) : x),
    scratchLoad: (v, ptr, offset) => m[computeType(v.type.dtype)].load(offset, 4, f.get(ptr)),
    scratchStore: (v, ptr, offset, x) => m[computeType(v.type.dtype)].store(offset, 4, f.get(ptr), x),
  };
}

/** Vectors along `dim`; with `count` 1, one element in the first lane. */
export function vectorWidth(f: Fn, shape: Shape, dim: NestDim, count: 1 | 4): Width<Vec> {
  const lanes = vectorLanes(f);
  const { m } = f.asm;
  return {
    sums: () => lanes,
    load(i, ptr, u) {
      const t = shape.tensors[i]!;
      const step = dim.steps[i]!;
      if (step === 0 || count === 1) return splatElement(f, t.type.dtype, () => f.get(ptr), 4 * u * step);
      return loadLanes(f, t, ptr, step, 4 * u);
    },
    store(i, ptr, u, v) {
      const step = dim.steps[i]!;
      return storeLanes(f, shape.tensors[i]!, ptr, step, 4 * u, v, step === 0 ? 1 : count);
    },
    chain: (ops, values, outputs) => vecChain(f, ops, values, outputs, { inline: true }),
    keep(v) {
      const l = f.vlocal(v.type.dtype === 'f32' ? 'f32' : 'i32');
      return { get: () => f.vget(l), set: (e) => f.vset(l, e) };
    },
    widen: (_, x) => x,
    narrow: (_, x) => x,
    scratchLoad: (_, ptr, offset) => [m.v128.load(offset, 4, f.get(ptr))],
    scratchStore: (_, ptr, offset, x) => m.v128.store(offset, 4, f.get(ptr), x[0]!),
  };
}
