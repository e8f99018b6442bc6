/** Pools and their gradients, and resampling. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { num, nums } from '../../ir/op.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import type { Asm, E, Local } from './asm.ts';
import { computeType, constantOf, extremes, loadElement, storeElement } from './dtype.ts';
import { byteSteps, eachElement } from './elements.ts';
import { kernelKey, type Emitter, type KernelCode } from './kernel.ts';
import { scalarLanes } from './lanes.ts';
import { stepAlong } from './map.ts';
import { axesOf } from './move.ts';
import { poolsByChannels, positionsPool, positionsPoolGrad } from './pool-positions.ts';
import { emitWalk, type Walk } from './walk/index.ts';

export const emitWindow: Emitter = (asm, op, operands, results) => {
  const key = kernelKey(op, operands, results);
  switch (op.name) {
    case 'maxPool': return results.length > 1 ? emitArgPool(asm, key, op, operands[0]!, results) : emitWalk(asm, key, poolWalk(op, operands, results[0]!), 1);
    case 'maxPoolGrad': return emitMaxPoolGrad(asm, key, op, operands, results[0]!);
    case 'sumPool':
    case 'sumPoolGrad': return emitWalk(asm, key, poolWalk(op, operands, results[0]!), 1);
  }
  invariant(false, `${op.name} is not a window op`);
};

function poolWalk(op: Op, operands: readonly Placed[], result: Placed): Walk {
  const axes = axesOf(op);
  return { space: axes.space, stage: axes.stages[0]!, reads: [{ placed: operands[0]!, operand: 0 }], fold: op.name === 'maxPool' ? 'max' : 'sum', outside: 0, results: [result] };
}

/** A fused pool: elementwise ops before and after it. */
export function emitFusedWindow(asm: Asm, key: string, op: Op, root: Op, operands: readonly Placed[], results: readonly Placed[]): KernelCode {
  const region = op.regions[0]!;
  const at = region.ops.indexOf(root);
  const isConstant = (o: Op): boolean => o.name === 'constant';
  const before = region.ops.slice(0, at);
  const after = region.ops.filter((o, i) => isConstant(o) || i > at);
  const reads = (list: readonly Op[]): Set<Value> => new Set(list.filter((o) => !isConstant(o)).flatMap((o) => o.operands));
  const x = root.operands[0]!;
  const beforeInputs = before.some((o) => !isConstant(o)) ? region.inputs.filter((v) => reads(before).has(v)) : [x];
  const full = x.type.shape;
  const axes = axesOf(root);
  const stage = axes.stages[0]!;
  // Every operand before the root is read where x is, repeated along the axes that it lacks.
  const asX = (v: Value): Placed => {
    const placed = operands[region.inputs.indexOf(v)]!;
    const strides = full.map((_, i) => stepAlong(placed, i - full.length) / dtypes[v.type.dtype].bytes);
    return { type: { dtype: v.type.dtype, shape: full }, strides };
  };
  const pieces = stage.pieces.map((p) => ({ ...p, reads: beforeInputs.map(() => p.reads[0]!) }));
  const outputs = region.outputs.map((o) => o.value);
  const extras = region.inputs.filter((v) => reads(after).has(v)).map((value) => ({ value, placed: operands[region.inputs.indexOf(value)]!, operand: region.inputs.indexOf(value) }));
  const walk: Walk = {
    space: axes.space,
    stage: { ...stage, pieces },
    reads: beforeInputs.map((v) => ({ placed: asX(v), operand: region.inputs.indexOf(v) })),
    fold: root.name === 'maxPool' ? 'max' : 'sum',
    outside: 0,
    ...(beforeInputs[0] !== x || before.some((o) => !isConstant(o)) ? { prologue: { ops: before, values: beforeInputs, output: x } } : {}),
    ...(outputs.length === 1 && outputs[0] === root.results[0] ? {} : { epilogue: { ops: after, root: root.results[0]!, extras, outputs } }),
    results,
  };
  return emitWalk(asm, key, walk, operands.length);
}

export const emitResample: Emitter = (asm, op, operands, results) => {
  const axes = axesOf(op);
  const { attrs } = op;
  const weights = nums(attrs, 'weights');
  const moves = num(attrs, 'taps') === 1 && weights.every((w) => w === 1);
  const stage = axes.stages[0]!;
  const axis = num(attrs, 'axis');
  const index = stage.pieces[0]!.reads[0]![axis]!;
  invariant(index.kind === 'table', 'a resampling reads its axis through a table');
  const walk: Walk = {
    space: axes.space,
    stage,
    reads: [{ placed: operands[0]!, operand: 0 }],
    fold: moves ? undefined : 'sum',
    outside: 0,
    ...(moves ? {} : { weights: { outer: index.dim, inner: index.inner, at: weights } }),
    results: [results[0]!],
  };
  return emitWalk(asm, kernelKey(op, operands, results), walk, 1);
};

/** Geometry of a pool over up to three axes. */
interface Windows { readonly kernel: readonly number[]; readonly strides: readonly number[]; readonly pads: readonly number[]; readonly dilations: readonly number[] }
const windowsOf = (op: Op): Windows => ({ kernel: nums(op.attrs, 'kernel'), strides: nums(op.attrs, 'strides'), pads: nums(op.attrs, 'pads'), dilations: nums(op.attrs, 'dilations') });

/** Max pool with the position of the maximum: the first tap that holds it, NaN above all. */
function emitArgPool(asm: Asm, key: string, op: Op, x: Placed, results: readonly Placed[]): KernelCode {
  const [values, positions] = results as [Placed, Placed];
  if (poolsByChannels(asm, op, [x, values, positions])) return positionsPool(asm, key, op, x, [values, positions]);
  const w = windowsOf(op);
  const { m } = asm;
  const { dtype } = x.type;
  const type = computeType(dtype);
  const fixed = values.type.shape.map(() => 0);
  return eachElement(asm, key, values.type.shape, [fixed, byteSteps(values), byteSteps(positions)], { work: sizeOf(w.kernel), touched: (sizeOf(w.kernel) + 1) * dtypes[dtype].bytes + dtypes.i64.bytes }, (f, index, ptrs) => {
    const [best, v] = [f.local(type), f.local(type)];
    const [tap, kept] = [f.local('i32'), f.local('i32')];
    const base = f.local('i32');
    const bytes = dtypes[dtype].bytes;
    const isNaN = (l: Local): E => (type === 'f32' || type === 'f64' ? m[type].ne(f.get(l), f.get(l)) : asm.i32(0));
    const above = type === 'f32' || type === 'f64' ? m[type].gt(f.get(v), f.get(best)) : m[type][dtypes[dtype].kind === 'int' ? 'gt_s' : 'gt_u'](f.get(v), f.get(best));
    const better = m.i32.or(m.i32.or(m.i32.lt_s(f.get(kept), asm.i32(0)), above), m.i32.and(isNaN(v), m.i32.eqz(isNaN(best))));
    const taps = (axis: number, at: Local): E[] => {
      if (axis === w.kernel.length) return [f.set(v, loadElement(asm, dtype, f.get(at))), f.if(better, [f.set(best, f.get(v)), f.set(kept, f.get(tap))]), f.inc(tap, 1)];
      const [k, i, address] = [f.local('i32'), f.local('i32'), f.local('i32')];
      const size = x.type.shape[2 + axis]!;
      const inner = w.kernel.slice(axis + 1).reduce((n, d) => n * d, 1);
      return [f.repeat(k, 0, w.kernel[axis]!, 1, [
        f.set(i, asm.add(asm.plus(asm.times(f.get(index[2 + axis]!), w.strides[axis]!), -w.pads[axis]!), asm.times(f.get(k), w.dilations[axis]!))),
        f.if(m.i32.lt_u(f.get(i), asm.i32(size)), [f.set(address, asm.add(f.get(at), asm.times(f.get(i), x.strides[2 + axis]! * bytes))), ...taps(axis + 1, address)], [f.inc(tap, inner)]),
      ])];
    };
    return [
      f.set(base, asm.add(f.get(ptrs[0]!), asm.add(asm.times(f.get(index[0]!), x.strides[0]! * bytes), asm.times(f.get(index[1]!), x.strides[1]! * bytes)))),
      f.set(best, constantOf(asm, dtype, extremes(dtype).least)),
      f.set(tap, asm.i32(0)),
      f.set(kept, asm.i32(-1)),
      ...taps(0, base),
      storeElement(asm, dtype, f.get(ptrs[1]!), f.get(best)),
      m.i32.store(0, 4, f.get(ptrs[2]!), m.select(m.i32.lt_s(f.get(kept), asm.i32(0)), asm.i32(0), f.get(kept))),
    ];
  });
}

/** Each input element sums the cotangents of the windows that kept it. */
function emitMaxPoolGrad(asm: Asm, key: string, op: Op, operands: readonly Placed[], dx: Placed): KernelCode {
  const [dy, positions] = operands as [Placed, Placed];
  if (poolsByChannels(asm, op, [dy, positions, dx])) return positionsPoolGrad(asm, key, op, [dy, positions], dx);
  const w = windowsOf(op);
  const { m } = asm;
  const { dtype } = dx.type;
  const fixed = dx.type.shape.map(() => 0);
  return eachElement(asm, key, dx.type.shape, [fixed, fixed, byteSteps(dx)], { work: sizeOf(w.kernel), touched: sizeOf(w.kernel) * (dtypes[dtype].bytes + 4) + dtypes[dtype].bytes }, (f, index, ptrs) => {
    const lanes = scalarLanes(f, dtype, true);
    const sum = lanes.local();
    const tap = f.local('i32');
    const widen = (e: E): E => (lanes.type === 'f64' && dtype !== 'f64' ? m.f64.promote(e) : e);
    const narrow = (e: E): E => (lanes.type === 'f64' && dtype !== 'f64' ? m.f32.demote(e) : e);
    const start = (t: Placed, ptr: Local): { local: Local; set: E } => {
      const local = f.local('i32');
      const { bytes } = dtypes[t.type.dtype];
      return { local, set: f.set(local, asm.add(f.get(ptr), asm.add(asm.times(f.get(index[0]!), t.strides[0]! * bytes), asm.times(f.get(index[1]!), t.strides[1]! * bytes)))) };
    };
    const [from, kept] = [start(dy, ptrs[0]!), start(positions, ptrs[1]!)];
    const taps = (axis: number, at: Local, where: Local): E[] => {
      if (axis === w.kernel.length) {
        const add = sum.set(lanes.add(sum.get(), widen(loadElement(asm, dtype, f.get(at)))));
        return [f.if(m.i32.eq(m.i32.load(0, 4, f.get(where)), f.get(tap)), [add]), f.inc(tap, 1)];
      }
      const [k, i, o, a, b] = [0, 1, 2, 3, 4].map(() => f.local('i32')) as [Local, Local, Local, Local, Local];
      const inner = w.kernel.slice(axis + 1).reduce((n, d) => n * d, 1);
      const stride = w.strides[axis]!;
      // The output whose tap k lies on this element: (i + pad - k·dilation) / stride, where that is whole and an output.
      const exact = m.i32.and(
        m.i32.and(m.i32.ge_s(f.get(i), asm.i32(0)), m.i32.eqz(m.i32.rem_u(f.get(i), asm.i32(stride)))),
        m.i32.lt_u(f.tee(o, m.i32.div_u(f.get(i), asm.i32(stride))), asm.i32(dy.type.shape[2 + axis]!)),
      );
      return [f.repeat(k, 0, w.kernel[axis]!, 1, [
        f.set(i, asm.sub(asm.plus(f.get(index[2 + axis]!), w.pads[axis]!), asm.times(f.get(k), w.dilations[axis]!))),
        f.if(exact, [
          f.set(a, asm.add(f.get(at), asm.times(f.get(o), dy.strides[2 + axis]! * dtypes[dtype].bytes))),
          f.set(b, asm.add(f.get(where), asm.times(f.get(o), positions.strides[2 + axis]! * 4))),
          ...taps(axis + 1, a, b),
        ], [f.inc(tap, inner)]),
      ])];
    };
    return [from.set, kept.set, sum.set(lanes.constant(0)), f.set(tap, asm.i32(0)), ...taps(0, from.local, kept.local), storeElement(asm, dtype, f.get(ptrs[2]!), narrow(sum.get()))];
  });
}
