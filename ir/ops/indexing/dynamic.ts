/** Windows at run-time positions. */
import type { Index } from '../../axes.ts';
import { nums, type OpDef } from '../../op.ts';
import { isFloat, rowMajor, sameShape, showType, tensorType, type TensorType } from '../../type.ts';
import { arity, check, dimsOf, fresh, namesOf, nth, readDims, requirePerAxis, requireSameDType, writeDims } from '../helpers.ts';
import { copyStrided } from '../strided.ts';
import { clampStarts } from './indices.ts';

export const dynamicSlice: OpDef = {
  name: 'dynamicSlice',
  doc: 'y[p] = x[p + starts], of shape `sizes`; starts are clamped so that the window lies inside x',
  family: 'index',
  operands: ['x', 'starts'],
  attrs: { sizes: { kind: 'numbers', default: 'required' } },
  infer(operands, a) {
    const [x, starts] = arity(operands, 2);
    const sizes = nums(a, 'sizes');
    requirePerAxis('sizes', sizes, x.shape.length);
    requireStarts(x, starts);
    check(sizes.every((d, i) => d >= 0 && d <= x.shape[i]!), () => `sizes=[${sizes.join(',')}] do not fit into ${showType(x)}`);
    return [tensorType(x.dtype, sizes)];
  },
  axes([x], a) {
    const dims = dimsOf(nums(a, 'sizes'));
    const wholes = dimsOf(x!.shape, 'whole', 'v');
    const space = [...dims, ...wholes, { name: 's', size: dims.length, role: 'whole' } as const];
    const piece = { dims: namesOf(space), reads: [wholes.map((d) => whole(d.name)), [whole('s')]], writes: writeDims(dims), indexed: namesOf(dims) };
    return { space, stages: [{ pieces: [piece], combine: 'none', product: false }] };
  },
  reference([x, starts], a, [y]) {
    const strides = rowMajor(x!.shape);
    const at = clampStarts(starts!, x!.shape, nums(a, 'sizes'));
    const out = fresh(y!);
    copyStrided(x!.data, out.data, y!.shape, { strides, offset: at.reduce((n, s, i) => n + s * strides[i]!, 0) }, { strides: rowMajor(y!.shape) });
    return [out];
  },
  grad: {
    build(b, op, [dy]) {
      const [x, starts] = [nth(op.operands, 0), nth(op.operands, 1)];
      return [dy && isFloat(x.type.dtype) ? b.one('dynamicUpdate', [b.zeros(x.type), dy, starts]) : undefined, undefined];
    },
  },
};

export const dynamicUpdate: OpDef = {
  name: 'dynamicUpdate',
  doc: 'y = x with y[p + starts] = patch[p]; starts are clamped so that the patch lies inside x',
  family: 'index',
  operands: ['x', 'patch', 'starts'],
  attrs: {},
  infer(operands) {
    const [x, patch, starts] = arity(operands, 3);
    requireSameDType(x, patch);
    requireStarts(x, starts);
    check(patch.shape.length === x.shape.length && patch.shape.every((d, i) => d <= x.shape[i]!), () => `${showType(patch)} does not fit into ${showType(x)}`);
    return [tensorType(x.dtype, x.shape)];
  },
  axes([x, patch]) {
    const dims = dimsOf(x!.shape);
    const wholes = dimsOf(patch!.shape, 'whole', 'v');
    const space = [...dims, ...wholes, { name: 's', size: dims.length, role: 'whole' } as const];
    const piece = { dims: namesOf(space), reads: [readDims(dims), wholes.map((d) => whole(d.name)), [whole('s')]], writes: writeDims(dims), indexed: namesOf(dims) };
    return { space, stages: [{ pieces: [piece], combine: 'none', product: false }] };
  },
  reference([x, patch, starts], _, [y]) {
    const strides = rowMajor(x!.shape);
    const at = clampStarts(starts!, x!.shape, patch!.shape);
    const out = { ...y!, data: x!.data.slice() };
    copyStrided(patch!.data, out.data, patch!.shape, { strides: rowMajor(patch!.shape) }, { strides, offset: at.reduce((n, s, i) => n + s * strides[i]!, 0) });
    return [out];
  },
  grad: {
    build(b, op, [dy]) {
      const [patch, starts] = [nth(op.operands, 1), nth(op.operands, 2)];
      if (!dy || !isFloat(patch.type.dtype)) return [undefined, undefined, undefined];
      return [b.one('dynamicUpdate', [dy, b.zeros(patch.type), starts]), b.one('dynamicSlice', [dy, starts], { sizes: patch.type.shape }), undefined];
    },
  },
};

const whole = (dim: string): Index => ({ kind: 'whole', dim });

function requireStarts(x: TensorType, starts: TensorType): void {
  check(starts.dtype === 'i64' && sameShape(starts.shape, [x.shape.length]), () => `starts are ${showType(starts)}, expected i64[${x.shape.length}], one for each axis of ${showType(x)}`);
}
