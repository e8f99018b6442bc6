/** Ops without operands. */
import type { Axes } from '../../axes.ts';
import { isBig, toRef } from '../../number.ts';
import { num, nums, str, tensorAttr, type OpDef } from '../../op.ts';
import { dtypes, rowMajor, type DType } from '../../type.ts';
import { bigints, check, dimsOf, fresh, namesOf, nth, numbers, requireAxis, requireNumeric, requireShape, writeDims } from '../helpers.ts';

export const constant: OpDef = {
  name: 'constant',
  doc: 'a tensor known at compile time',
  family: 'constant',
  operands: [],
  attrs: { value: { kind: 'tensor', default: 'required' } },
  infer(operands, attrs) {
    check(operands.length === 0, () => 'takes no operands');
    const { dtype, shape } = tensorAttr(attrs, 'value');
    return [{ dtype, shape }];
  },
  axes: () => ({ none: 'reads nothing: its elements are stored, not computed' }),
  reference: (_operands, attrs) => [toRef(tensorAttr(attrs, 'value'))],
  grad: { none: 'has no operands' },
};

export const iota: OpDef = {
  name: 'iota',
  doc: 'each element is its index along an axis',
  family: 'move',
  operands: [],
  attrs: { shape: { kind: 'numbers', default: 'required' }, axis: { kind: 'number', default: 'required' }, dtype: { kind: 'string', default: 'required' } },
  infer(operands, attrs) {
    check(operands.length === 0, () => 'takes no operands');
    const [shape, dtype] = [nums(attrs, 'shape'), str(attrs, 'dtype')];
    requireShape(shape);
    check(Object.hasOwn(dtypes, dtype), () => `there is no element type ${dtype}`);
    const type = { dtype: dtype as DType, shape };
    requireNumeric(type);
    requireAxis(num(attrs, 'axis'), type);
    return [type];
  },
  axes(_operands, attrs, [y]): Axes {
    const space = dimsOf(y!.shape);
    const piece = { dims: namesOf(space), reads: [], writes: writeDims(space), indexed: [nth(space, num(attrs, 'axis')).name] };
    return { space, stages: [{ pieces: [piece], combine: 'none', product: false }] };
  },
  reference(_operands, attrs, [type]) {
    const y = fresh(type!);
    const axis = num(attrs, 'axis');
    const [stride, size] = [rowMajor(y.shape)[axis]!, y.shape[axis]!];
    const index = (i: number): number => Math.floor(i / stride) % size;
    if (isBig(y.dtype)) {
      const data = bigints(y);
      for (let i = 0; i < data.length; i++) data[i] = BigInt(index(i));
    } else {
      const data = numbers(y);
      for (let i = 0; i < data.length; i++) data[i] = index(i);
    }
    return [y];
  },
  grad: { none: 'has no operands' },
};
