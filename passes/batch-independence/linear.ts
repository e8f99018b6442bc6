/** Numbers that are computed from the number of samples n, known at two batch sizes: which of them are a·n + b for whole a and b at every n from 1 on. */
import { evaluateOp } from '../../ir/evaluate.ts';
import type { Op } from '../../ir/graph.ts';
import { decodeFloat } from '../../ir/number.ts';
import { nums } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { dtypes, isFloat, rowMajor, sizeOf, type DType, type Tensor } from '../../ir/type.ts';

/** A tensor at both batch sizes. `unknown` marks elements of which two sizes do not say what they are at a third. */
export interface Twins {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly unknown: readonly boolean[];
}

/** slope·n + start. */
interface Line {
  readonly slope: number;
  readonly start: number;
}

/** The number of samples at both sizes. */
export type Sizes = readonly [number, number];

/** Elements above which a float no longer holds every whole number. */
const wholeNumbers: Readonly<Record<string, number>> = { f32: 2 ** 24, f64: 2 ** 53 };

/** A constant at both sizes: what the importer computed from shapes, whose dimensions are lines. */
export function constantTwins(a: Tensor, b: Tensor, sizes: Sizes): Twins {
  return fitted(a, b, a.data.length, () => true, sizes);
}

/** Results of an op over known operands; undefined where nothing can be said of a result as a whole. `other` is the same op at the second size. */
export function combined(op: Op, other: Op, operands: readonly Twins[], sizes: Sizes): readonly Twins[] | undefined {
  const [as, bs] = [evaluateOp(op, operands.map((t) => t.a)), evaluateOp(other, operands.map((t) => t.b))];
  if (operands.every(isFixed)) return as.map((a, i) => fitted(a, bs[i]!, a.data.length, () => true, sizes));
  const [a, b] = [as[0]!, bs[0]!];
  if (as.length > 1 || sizeOf(a.shape) !== sizeOf(b.shape)) return undefined;
  if (opDef(op.name).family === 'map') {
    const lines = operands.map((t) => linesOf(t, sizes));
    const at = broadcastIndices(operands.map((t) => t.a.shape), a.shape);
    return [fitted(a, b, a.data.length, (i) => exact(op, lines.map((l, k) => l[at(k, i)])), sizes)];
  }
  if (moves.has(op.name)) {
    // What moves elements moves the marks too.
    const marked = operands.map((t, k) => (op.name === 'gather' && k > 0 ? t.a : marks(t)));
    if (op.name === 'gather' && !isFixed(operands[1]!)) return undefined;
    const flags = evaluateOp(op, marked)[0]!;
    return [fitted(a, b, a.data.length, (i) => Number(flags.data[i]) === 0, sizes)];
  }
  const [x] = operands;
  if (op.name !== 'reduceSum' && op.name !== 'reduceProd') return undefined;
  const varying = linesOf(x!, sizes).filter((l) => l === undefined || l.slope !== 0);
  const known = !varying.includes(undefined) && (op.name === 'reduceSum' || varying.length <= 1) && nums(op.attrs, 'axes').length > 0;
  return [fitted(a, b, a.data.length, () => known, sizes)];
}

/** Ops of one result whose elements are elements of their first operands. */
const moves: ReadonlySet<string> = new Set(['reshape', 'transpose', 'broadcast', 'slice', 'concat', 'copy', 'gather']);

/** Whether a cast keeps a line: numbers of few bits wrap or are rounded from some number of samples on. */
const holdsLine = (dtype: DType, x: Line): boolean => (dtype === 'bool' ? apart(x, zero) > 0 : dtypes[dtype].bytes >= 4);

/** Whether a tensor is the same for every number of samples. */
export function isFixed({ a, b, unknown }: Twins): boolean {
  return !unknown.includes(true) && a.data.every((x: number | bigint, i: number) => Object.is(x, b.data[i]));
}

/** Whether all elements are lines. */
export const isKnown = ({ unknown }: Twins): boolean => !unknown.includes(true);

function fitted(a: Tensor, b: Tensor, size: number, sound: (i: number) => boolean, sizes: Sizes): Twins {
  const unknown = Array.from({ length: size }, (_, i) => !sound(i) || !lineOf(a, b, i, sizes));
  return { a, b, unknown };
}

/** The line through an element at both sizes, where it has whole coefficients. */
function lineOf(a: Tensor, b: Tensor, i: number, [n, m]: Sizes): Line | undefined {
  if (Object.is(a.data[i], b.data[i])) return { slope: 0, start: numberAt(a, i) };
  const [x, y] = [numberAt(a, i), numberAt(b, i)];
  const slope = (y - x) / (m - n);
  const start = x - slope * n;
  const exactType = !isFloat(a.dtype) && a.dtype !== 'bool' ? true : Math.max(Math.abs(x), Math.abs(y)) < (wholeNumbers[a.dtype] ?? 0);
  return exactType && Number.isSafeInteger(slope) && Number.isSafeInteger(start) ? { slope, start } : undefined;
}

const linesOf = (t: Twins, sizes: Sizes): (Line | undefined)[] => t.unknown.map((u, i) => (u ? undefined : lineOf(t.a, t.b, i, sizes)));

const numberAt = ({ dtype, data }: Tensor, i: number): number => (isFloat(dtype) && dtypes[dtype].bytes < 4 ? decodeFloat(dtype, Number(data[i])) : Number(data[i]));

/** Whether an elementwise op of these lines gives a line, so that two sizes determine it. */
function exact(op: Op, lines: readonly (Line | undefined)[]): boolean {
  const [x, y, z] = lines;
  if (op.name === 'select') return x?.slope === 0 && (x.start !== 0 ? y : z) !== undefined;
  if (lines.includes(undefined)) return false;
  if (lines.every((l) => l!.slope === 0)) return true;
  switch (op.name) {
    case 'add':
    case 'sub':
    case 'neg':
    case 'floor':
    case 'ceil':
    case 'round':
    case 'trunc':
    case 'copy':
      return true;
    case 'cast':
      return holdsLine(op.results[0]!.type.dtype, x!);
    case 'mul':
      return x!.slope === 0 || y!.slope === 0;
    case 'div':
      return y!.slope === 0 ? y!.start !== 0 && x!.slope % y!.start === 0 && x!.start % y!.start === 0 : x!.start === 0 && y!.start === 0;
    case 'mod':
    case 'fmod':
      return y!.slope === 0 && y!.start > 0 && x!.slope % y!.start === 0 && x!.slope >= 0 && x!.start >= 0;
    case 'min':
    case 'max':
      return apart(x!, y!) >= 0;
    case 'relu':
    case 'abs':
      return apart(x!, zero) >= 0;
    case 'eq':
    case 'ne':
      return apart(x!, y!) > 0;
    case 'lt':
    case 'ge':
      return apart(x!, y!) > (x!.slope > y!.slope ? -1 : 0);
    case 'le':
    case 'gt':
      return apart(x!, y!) > (x!.slope < y!.slope ? -1 : 0);
    default:
      return false;
  }
}

const zero: Line = { slope: 0, start: 0 };

/** The least distance of two lines at n from 1 on, where one of them is never below the other; else below 0. Infinity for lines side by side, the same ones included. */
function apart(x: Line, y: Line): number {
  const [slope, start] = [x.slope - y.slope, x.start - y.start];
  return slope === 0 ? Infinity : Math.sign(slope) * (slope + start);
}

/** 1 where an element is unknown, in the tensor's dtype. */
function marks({ a, unknown }: Twins): Tensor {
  const data = new dtypes[a.dtype].array(a.data.length);
  unknown.forEach((u, i) => {
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[i] = u ? 1n : 0n;
    else data[i] = u ? 1 : 0;
  });
  return { ...a, data };
}

/** The element of operand k that element i of the broadcast result reads. */
function broadcastIndices(shapes: readonly (readonly number[])[], result: readonly number[]): (k: number, i: number) => number {
  const strides = rowMajor(result);
  const own = shapes.map((shape) => ({ skip: result.length - shape.length, shape, strides: rowMajor(shape) }));
  return (k, i) => {
    const { skip, shape, strides: s } = own[k]!;
    return shape.reduce((at, d, axis) => at + (d === 1 ? 0 : (Math.floor(i / strides[axis + skip]!) % d) * s[axis]!), 0);
  };
}
