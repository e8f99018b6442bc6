/** The two widths in which a walk's row is computed. */
import type { DType } from '../../../ir/type.ts';
import type { E, Fn, Local, Vec } from '../asm.ts';
import { computeType, loadElement, normalize, storeElement } from '../dtype.ts';
import { scalarChain, splatElement, vecChain, type ScalarValues, type VecValues } from '../elementwise/index.ts';
import { scalarLanes, vectorLanes, type Lanes } from '../lanes.ts';
import { loadLanes, storeLanes } from '../map.ts';
import type { Tensors, Walk } from './types.ts';

/** How a row is computed in one width. */
export interface Width<V> {
  readonly lanes: Lanes<V>;
  /** Accumulators, each `step` elements further along the row. */
  readonly unroll: number;
  /** Loads read `r` for accumulator `u`; `ptr` is its pointer. */
  load(r: number, ptr: Local, u: number): V;
  weight(e: E): V;
  /** A chain on what was read, as the fold takes it. */
  prologue(values: readonly V[]): { readonly steps: readonly E[]; readonly value: V };
  /** Epilogue and store. */
  finish(ptrs: readonly Local[], values: readonly (() => V)[]): E[];
}

/** The dtype that is folded or moved. */
export const foldedType = (walk: Walk): DType => walk.prologue?.output.type.dtype ?? walk.reads[0]?.placed.type.dtype ?? walk.results[0]!.type.dtype;

/** Single elements of any dtype; sums of floats in f64. */
export function scalarWidth(f: Fn, walk: Walk, t: Tensors): Width<E> {
  const { asm } = f;
  const { m } = asm;
  const dtype = foldedType(walk);
  const lanes = scalarLanes(f, dtype, walk.fold === 'sum' || walk.weights !== undefined);
  const own = computeType(dtype);
  const widened = own === 'f32' && lanes.type === 'f64';
  return {
    lanes,
    unroll: 1,
    weight: (e) => (lanes.type === 'f64' ? m.f64.promote(e) : e),
    load(r, ptr) {
      const e = loadElement(asm, t.placed[r]!.type.dtype, f.get(ptr));
      return widened && !walk.prologue ? m.f64.promote(e) : e;
    },
    prologue(loaded) {
      const { ops, values, output } = walk.prologue!;
      const known: ScalarValues = new Map();
      const steps = values.map((v, i) => {
        const l = f.local(computeType(v.type.dtype));
        known.set(v, () => f.get(l));
        return f.set(l, loaded[i]!);
      });
      steps.push(...scalarChain(f, ops, known, [output]));
      const value = known.get(output)!();
      return { steps, value: widened ? m.f64.promote(value) : value };
    },
    finish(ptrs, [value]) {
      const folded = widened ? m.f32.demote(value!()) : value!();
      const target = (i: number): E => f.get(ptrs[t.firstResult + i]!);
      if (!walk.epilogue) return [storeElement(asm, walk.results[0]!.type.dtype, target(0), folded)];
      const root = f.local(own);
      const { ops, extras, outputs } = walk.epilogue;
      const values: ScalarValues = new Map([[walk.epilogue.root, () => f.get(root)]]);
      const code = [f.set(root, normalize(asm, walk.epilogue.root.type.dtype, folded))];
      extras.forEach((x, i) => {
        const l = f.local(computeType(x.value.type.dtype));
        code.push(f.set(l, loadElement(asm, x.value.type.dtype, f.get(ptrs[t.reads + i]!))));
        values.set(x.value, () => f.get(l));
      });
      code.push(...scalarChain(f, ops, values, outputs));
      return [...code, ...outputs.map((v, i) => storeElement(asm, v.type.dtype, target(i), values.get(v)!()))];
    },
  };
}

/** `unroll` vectors of f32 side by side; with `lanesCount` 1, one element in the first lane. `steps` are the bytes between elements of the row. */
export function vectorWidth(f: Fn, walk: Walk, t: Tensors, steps: readonly number[], unroll: number, lanesCount: 1 | 4): Width<Vec> {
  const lanes = vectorLanes(f);
  const loadAt = (i: number, ptr: Local, u: number): Vec => {
    const placed = t.placed[i]!;
    if (steps[i] === 0 || lanesCount === 1) return splatElement(f, placed.type.dtype, () => f.get(ptr), 4 * u * steps[i]!);
    return loadLanes(f, placed, ptr, steps[i]!, 4 * u);
  };
  return {
    lanes,
    unroll,
    weight: (e) => [f.asm.m.f32x4.splat(e)],
    load: loadAt,
    prologue(loaded) {
      const { ops, values, output } = walk.prologue!;
      const known: VecValues = new Map();
      const steps = values.map((v, i) => {
        const l = f.vlocal();
        known.set(v, () => f.vget(l));
        return f.vset(l, loaded[i]!);
      });
      steps.push(...vecChain(f, ops, known, [output], { inline: true }));
      return { steps, value: known.get(output)!() };
    },
    finish(ptrs, values) {
      const store = (i: number, u: number, value: () => Vec): E => {
        const k = t.firstResult + i;
        return storeLanes(f, walk.results[i]!, ptrs[k]!, steps[k]!, 4 * u, value, lanesCount);
      };
      return values.flatMap((value, u) => {
        if (!walk.epilogue) return [store(0, u, value)];
        const { ops, root, extras, outputs } = walk.epilogue;
        const known: VecValues = new Map([[root, value]]);
        const code: E[] = [];
        extras.forEach((x, i) => {
          const l = f.vlocal();
          code.push(f.vset(l, loadAt(t.reads + i, ptrs[t.reads + i]!, u)));
          known.set(x.value, () => f.vget(l));
        });
        code.push(...vecChain(f, ops, known, outputs, { inline: true }));
        return [...code, ...outputs.map((v, i) => store(i, u, known.get(v)!))];
      });
    },
  };
}
