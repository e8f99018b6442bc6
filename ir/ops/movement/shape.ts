/** Ops that give the same elements another shape or order. */
import { at, plain, put, zero, type Axes, type Index } from '../../axes.ts';
import { nums, type OpDef } from '../../op.ts';
import { rowMajor, sameShape, showType, sizeOf } from '../../type.ts';
import { arity, check, dimsOf, fresh, namesOf, nth, readDims, requireShape, writeDims } from '../helpers.ts';
import { broadcastStrides, copyStrided } from '../strided.ts';
import { reshapeAxes } from './reshape-axes.ts';

const reshape: OpDef = {
  name: 'reshape',
  doc: 'x in row-major order, under another shape of as many elements',
  family: 'move',
  operands: ['x'],
  attrs: { shape: { kind: 'numbers', default: 'required' } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    const shape = nums(attrs, 'shape');
    requireShape(shape);
    check(sizeOf(shape) === sizeOf(x.shape), () => `${showType(x)} has ${sizeOf(x.shape)} elements, but the shape [${shape.join(',')}] has ${sizeOf(shape)}`);
    return [{ dtype: x.dtype, shape }];
  },
  axes: ([x], _attrs, [y]) => reshapeAxes(x!.shape, y!.shape),
  reference: ([x], _attrs, [y]) => [{ ...y!, data: x!.data }],
  grad: { build: (b, op, [g]) => [g && b.reshape(g, nth(op.operands, 0).type.shape)] },
};

const transpose: OpDef = {
  name: 'transpose',
  doc: 'result axis i is axis perm[i] of x',
  family: 'move',
  operands: ['x'],
  attrs: { perm: { kind: 'numbers', default: 'required' } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    const perm = nums(attrs, 'perm');
    check(sameShape([...perm].sort((p, q) => p - q), x.shape.map((_, i) => i)), () => `perm=[${perm.join(',')}] is not a permutation of the axes of ${showType(x)}`);
    return [{ dtype: x.dtype, shape: perm.map((p) => x.shape[p]!) }];
  },
  axes([x], attrs, [y]): Axes {
    const space = dimsOf(y!.shape);
    const perm = nums(attrs, 'perm');
    const read = x!.shape.map((_, axis): Index => plain(nth(space, perm.indexOf(axis)).name));
    return { space, stages: [{ pieces: [{ dims: namesOf(space), reads: [read], writes: writeDims(space), indexed: [] }], combine: 'none', product: false }] };
  },
  reference([x], attrs, [type]) {
    const y = fresh(type!);
    const strides = rowMajor(x!.shape);
    copyStrided(x!.data, y.data, y.shape, { strides: nums(attrs, 'perm').map((p) => strides[p]!) }, { strides: rowMajor(y.shape) });
    return [y];
  },
  grad: {
    build(b, op, [g]) {
      const perm = nums(op.attrs, 'perm');
      return [g && b.transpose(g, perm.map((_, axis) => perm.indexOf(axis)))];
    },
  },
};

const broadcast: OpDef = {
  name: 'broadcast',
  doc: 'x repeated to a shape, as numpy broadcasts: axes aligned right, sizes 1 stretched',
  family: 'move',
  operands: ['x'],
  attrs: { shape: { kind: 'numbers', default: 'required' } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    const shape = nums(attrs, 'shape');
    requireShape(shape);
    const extra = shape.length - x.shape.length;
    check(extra >= 0 && x.shape.every((d, i) => d === 1 || d === shape[i + extra]), () => `${showType(x)} does not broadcast to [${shape.join(',')}]`);
    return [{ dtype: x.dtype, shape }];
  },
  axes([x], _attrs, [y]): Axes {
    const space = dimsOf(y!.shape);
    const extra = y!.shape.length - x!.shape.length;
    const read = x!.shape.map((d, i): Index => (d === y!.shape[i + extra] ? plain(nth(space, i + extra).name) : zero));
    return { space, stages: [{ pieces: [{ dims: namesOf(space), reads: [read], writes: space.map((d) => put(d.name)), indexed: [] }], combine: 'none', product: false }] };
  },
  reference([x], _attrs, [type]) {
    const y = fresh(type!);
    copyStrided(x!.data, y.data, y.shape, { strides: broadcastStrides(x!.shape, y.shape) }, { strides: rowMajor(y.shape) });
    return [y];
  },
  grad: { build: (b, op, [g]) => [g && b.sumTo(g, nth(op.operands, 0).type.shape)] },
};

const copy: OpDef = {
  name: 'copy',
  doc: 'x, in a place (and layout) of its own',
  family: 'move',
  operands: ['x'],
  attrs: {},
  infer: (operands) => [arity(operands, 1)[0]],
  axes([x]): Axes {
    const space = dimsOf(x!.shape);
    return { space, stages: [{ pieces: [{ dims: namesOf(space), reads: [readDims(space)], writes: writeDims(space), indexed: [] }], combine: 'none', product: false }] };
  },
  reference: ([x]) => [x!],
  grad: { build: (_b, _op, [g]) => [g] },
};

const slice: OpDef = {
  name: 'slice',
  doc: 'x[starts + i · steps]; where a step is negative, starts is still the first element read',
  family: 'move',
  operands: ['x'],
  attrs: { starts: { kind: 'numbers', default: 'required' }, sizes: { kind: 'numbers', default: 'required' }, steps: { kind: 'numbers', default: 'required' } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    const [starts, sizes, steps] = [nums(attrs, 'starts'), nums(attrs, 'sizes'), nums(attrs, 'steps')];
    for (const [name, list] of Object.entries({ starts, sizes, steps })) {
      check(list.length === x.shape.length && list.every(Number.isInteger), () => `${name}=[${list.join(',')}] must hold one integer for each axis of ${showType(x)}`);
    }
    requireShape(sizes);
    sizes.forEach((size, axis) => {
      const [first, last] = [starts[axis]!, starts[axis]! + (size - 1) * steps[axis]!];
      const d = x.shape[axis]!;
      check(size === 0 || (first >= 0 && first < d && last >= 0 && last < d), () => `axis ${axis} of ${showType(x)} is read from ${first} to ${last}, outside 0..${d - 1}`);
      check(size <= 1 || steps[axis] !== 0, () => `axis ${axis} has step 0`);
    });
    return [{ dtype: x.dtype, shape: sizes }];
  },
  axes(_operands, attrs, [y]): Axes {
    const space = dimsOf(y!.shape);
    const [starts, steps] = [nums(attrs, 'starts'), nums(attrs, 'steps')];
    const read = space.map((d, i) => at([[d.name, steps[i]!]], starts[i]));
    return { space, stages: [{ pieces: [{ dims: namesOf(space), reads: [read], writes: writeDims(space), indexed: [] }], combine: 'none', product: false }] };
  },
  reference([x], attrs, [type]) {
    const y = fresh(type!);
    const strides = rowMajor(x!.shape);
    const offset = nums(attrs, 'starts').reduce((sum, s, i) => sum + s * strides[i]!, 0);
    copyStrided(x!.data, y.data, y.shape, { strides: strides.map((s, i) => s * nums(attrs, 'steps')[i]!), offset }, { strides: rowMajor(y.shape) });
    return [y];
  },
  // Puts the cotangent back: reverses axes of negative step, spreads by the step with zeros between, pads to the operand.
  grad: {
    build(b, op, [g]) {
      if (!g) return [undefined];
      const shape = nth(op.operands, 0).type.shape;
      const sizes = g.type.shape;
      if (sizeOf(sizes) === 0) return [b.zeros({ dtype: g.type.dtype, shape })];
      const [starts, steps] = [nums(op.attrs, 'starts'), nums(op.attrs, 'steps').map((s, i) => (sizes[i] === 1 ? 1 : s))];
      const ascending = b.slice(g, sizes.map((d, i) => (steps[i]! < 0 ? d - 1 : 0)), sizes, steps.map((s) => (s < 0 ? -1 : 1)));
      const first = starts.map((s, i) => Math.min(s, s + (sizes[i]! - 1) * steps[i]!));
      const strides = steps.map(Math.abs);
      if (strides.every((s) => s === 1)) return [b.one('pad', [ascending], { lo: first, hi: shape.map((d, i) => d - first[i]! - sizes[i]!) })];
      const paired = b.reshape(ascending, sizes.flatMap((d) => [d, 1]));
      const spread = b.one('pad', [paired], { lo: sizes.flatMap(() => [0, 0]), hi: strides.flatMap((s) => [0, s - 1]) });
      const wide = b.reshape(spread, sizes.map((d, i) => d * strides[i]!));
      return [b.one('pad', [wide], { lo: first, hi: shape.map((d, i) => d - first[i]! - sizes[i]! * strides[i]!) })];
    },
  },
};

export const shapeOps: readonly OpDef[] = [reshape, transpose, broadcast, copy, slice];
