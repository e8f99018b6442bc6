/** Max pooling over trailing spatial axes, and its gradient from the kept window positions. */
import type { Builder } from '../../builder.ts';
import type { Op, Value } from '../../graph.ts';
import { isBig } from '../../number.ts';
import { nums, type OpDef } from '../../op.ts';
import { rowMajor, showType, sameShape, sizeOf, tensorType } from '../../type.ts';
import { arity, check, fresh, lowest, lowestBig, nth, numbers, requireFloat, requireNumeric } from '../helpers.ts';
import { planeOf, requireOutputs, runsOf } from '../spatial.ts';
import { geometry, poolAttrs, poolAxes, poolGradAttrs, poolGradAxes, poolSweeps, requirePlanes, requireSize, spatial } from './window.ts';

export const maxPool: OpDef = {
  name: 'maxPool',
  doc: 'values[n,c,h] = max_y x[n,c,h·s+y·d-p], positions[n,c,h] = the first y that has it (row-major over the kernel); NaN is above all; a window wholly in the padding gives the lowest value and 0',
  family: 'window',
  operands: ['x'],
  attrs: poolAttrs,
  infer(operands, a) {
    const [x] = arity(operands, 1);
    requireNumeric(x);
    requirePlanes(x);
    const shape = [x.shape[0]!, x.shape[1]!, ...poolSweeps(spatial(x), a).map((s) => s.out)];
    return [tensorType(x.dtype, shape), tensorType('i32', shape)];
  },
  axes: ([x], a) => poolAxes(x!, poolSweeps(spatial(x!), a), '-inf', 'argmax'),
  reference([x], a, [values, positions]) {
    const sweeps = poolSweeps(spatial(x!), a);
    const { rows, width, step, input } = planeOf(sweeps);
    const runs = runsOf(sweeps, 0, rows);
    const [out, where] = [fresh(values!), fresh(positions!)];
    // Elements are compared and copied only, which bigints allow as numbers do.
    const [from, best] = [x!.data as Float64Array, out.data as Float64Array];
    const kept = numbers(where).fill(-1);
    if (isBig(x!.dtype)) (out.data as BigInt64Array).fill(lowestBig(x!.dtype));
    else best.fill(lowest(x!.dtype));
    for (let plane = 0; plane < x!.shape[0]! * x!.shape[1]!; plane++) {
      for (let r = 0; r < runs.length; r += 4) {
        const tap = runs[r]!;
        const first = plane * rows * width + runs[r + 2]!;
        const end = first + runs[r + 3]!;
        let p = plane * input + runs[r + 1]!;
        for (let o = first; o < end; o++, p += step) {
          const v = from[p]!;
          const b = best[o]!;
          if (kept[o]! < 0 || v > b || (v !== v && b === b)) {
            best[o] = v;
            kept[o] = tap;
          }
        }
      }
    }
    for (let o = 0; o < kept.length; o++) if (kept[o]! < 0) kept[o] = 0;
    return [out, where];
  },
  grad: {
    build(b, op, [dy]) {
      const x = nth(op.operands, 0);
      return [dy && b.one('maxPoolGrad', [dy, nth(op.results, 1)], { ...geometry(op.attrs), size: spatial(x.type) })];
    },
  },
};

export const maxPoolGrad: OpDef = {
  name: 'maxPoolGrad',
  doc: 'x[n,c,h·s+y·d-p] = Σ_h dy[n,c,h] where positions[n,c,h] = y, for an x of spatial sizes `size`',
  family: 'window',
  operands: ['dy', 'positions'],
  attrs: poolGradAttrs,
  infer(operands, a) {
    const [dy, positions] = arity(operands, 2);
    const size = nums(a, 'size');
    requireFloat(dy);
    requirePlanes(dy);
    check(positions.dtype === 'i32' && sameShape(dy.shape, positions.shape), () => `positions are ${showType(positions)}, expected ${showType(tensorType('i32', dy.shape))}`);
    requireSize(dy, size);
    requireOutputs(poolSweeps(size, a), spatial(dy));
    return [tensorType(dy.dtype, [dy.shape[0]!, dy.shape[1]!, ...size])];
  },
  axes: (operands, a) => poolGradAxes(operands, poolSweeps(nums(a, 'size'), a), true),
  reference([dy, positions], a, [dx]) {
    const sweeps = poolSweeps(nums(a, 'size'), a);
    const { rows, width, step, input } = planeOf(sweeps);
    const runs = runsOf(sweeps, 0, rows);
    const out = fresh(dx!);
    const [to, from, kept] = [numbers(out), numbers(dy!), numbers(positions!)];
    for (let plane = 0; plane < dy!.shape[0]! * dy!.shape[1]!; plane++) {
      for (let r = 0; r < runs.length; r += 4) {
        const first = plane * rows * width + runs[r + 2]!;
        const end = first + runs[r + 3]!;
        let p = plane * input + runs[r + 1]!;
        for (let o = first; o < end; o++, p += step) if (kept[o] === runs[r]) to[p]! += from[o]!;
      }
    }
    return [out];
  },
  grad: {
    build: (b, op, [dx]) => [dx && pick(b, op, dx), undefined],
  },
};

/** The elements of `x` that the kept positions name: the transpose of maxPoolGrad. */
function pick(b: Builder, op: Op, x: Value): Value {
  const positions = nth(op.operands, 1);
  const sweeps = poolSweeps(nums(op.attrs, 'size'), op.attrs);
  const [batch, channels] = [positions.type.shape[0]!, positions.type.shape[1]!];
  const outs = spatial(positions.type);
  const strides = rowMajor(sweeps.map((s) => s.input));
  let rest = positions;
  let address: Value | undefined;
  let inside: Value | undefined;
  for (let i = sweeps.length - 1; i >= 0; i--) {
    const s = sweeps[i]!;
    const tap = b.binary('mod', rest, s.kernel);
    const base = b.binary('sub', b.mul(b.one('iota', [], { shape: outs, axis: i, dtype: 'i32' }), s.stride), s.lo);
    const element = b.add(base, b.mul(tap, s.dilation));
    const ok = b.binary('and', b.binary('ge', element, 0), b.binary('lt', element, s.input));
    rest = b.div(rest, s.kernel);
    address = address ? b.add(address, b.mul(element, strides[i]!)) : b.mul(element, strides[i]!);
    inside = inside ? b.binary('and', inside, ok) : ok;
  }
  const flat = b.reshape(x, [batch, channels, sizeOf(sweeps.map((s) => s.input))]);
  const picked = b.one('gatherElements', [flat, b.reshape(address!, [batch, channels, sizeOf(outs)])], { axis: 2 });
  return b.select(inside!, b.reshape(picked, positions.type.shape), 0);
}
