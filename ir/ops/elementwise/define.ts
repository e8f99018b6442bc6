/** Makes op definitions from the rows of the elementwise tables. */
import { plain, put, zero, type Axes, type Index } from '../../axes.ts';
import type { Builder } from '../../builder.ts';
import type { Op, Value } from '../../graph.ts';
import { isBig } from '../../number.ts';
import type { Grad, OpDef } from '../../op.ts';
import { broadcastShapes, isFloat, isInteger, showType, type DType, type TensorType } from '../../type.ts';
import { arity, check, dimsOf, namesOf, nth, requireSameDType } from '../helpers.ts';
import { apply1, apply2, applyBig } from './apply.ts';

/** Element types that an op takes. */
export type Accepts = 'float' | 'number' | 'int' | 'bool' | 'any';

const accepts: Readonly<Record<Accepts, (d: DType) => boolean>> = {
  float: isFloat,
  number: (d) => isFloat(d) || isInteger(d),
  int: isInteger,
  bool: (d) => d === 'bool',
  any: () => true,
};

export interface UnaryRow {
  readonly name: string;
  readonly doc: string;
  readonly on: Accepts;
  /** Floats, bool, and integers of up to 32 bits. */
  readonly f: (x: number) => number;
  /** i64 and u64; needed where the op takes integers. */
  readonly big?: (x: bigint) => bigint;
  /** Cotangent of x, from that of y = f(x). */
  readonly grad: string | ((b: Builder, g: Value, x: Value, y: Value) => Value);
}

/** An op of one operand, whose result has the operand's type. */
export function unary(row: UnaryRow): OpDef {
  const { grad } = row;
  return {
    name: row.name,
    doc: row.doc,
    family: 'map',
    operands: ['x'],
    attrs: {},
    infer(operands) {
      const [x] = arity(operands, 1);
      requireAccepted(row.on, x);
      return [x];
    },
    axes: elementwiseAxes(false),
    reference([x], _attrs, [y]) {
      return [isBig(x!.dtype) ? applyBig(need(row.big, row.name), [x!], y!) : apply1(row.f, x!, y!)];
    },
    grad: typeof grad === 'string' ? { none: grad } : { build: (b, op, [g]) => [g && grad(b, g, nth(op.operands, 0), nth(op.results, 0))] },
  };
}

export interface BinaryRow {
  readonly name: string;
  readonly doc: string;
  readonly on: Accepts;
  /** Floats and bool; integers of up to 32 bits too where there is no `int`. Integer results are wrapped afterwards, so they must be exact. */
  readonly f: (x: number, y: number) => number;
  readonly int?: (x: number, y: number) => number;
  readonly big?: (x: bigint, y: bigint) => bigint | boolean;
  /** The result is bool. */
  readonly test?: true;
  /** The body multiplies its operands. */
  readonly product?: true;
  /** Cotangents of x and y, in the shape of the result; broadcasting is undone afterwards. */
  readonly grad: string | ((b: Builder, g: Value, x: Value, y: Value, result: Value) => readonly [Value, Value]);
}

/** An op of two operands of one dtype that broadcast. */
export function binary(row: BinaryRow): OpDef {
  const { grad } = row;
  return {
    name: row.name,
    doc: row.doc,
    family: 'map',
    operands: ['x', 'y'],
    attrs: {},
    infer(operands) {
      const [x, y] = arity(operands, 2);
      requireSameDType(x, y);
      requireAccepted(row.on, x);
      return [{ dtype: row.test ? 'bool' : x.dtype, shape: broadcastTypes(operands) }];
    },
    axes: elementwiseAxes(row.product === true),
    reference([x, y], _attrs, [z]) {
      if (isBig(x!.dtype)) return [applyBig(need(row.big, row.name), [x!, y!], z!)];
      return [apply2((isInteger(x!.dtype) && row.int) || row.f, x!, y!, z!)];
    },
    grad: typeof grad === 'string' ? { none: grad } : broadcastGrad((b, op, g) => grad(b, g, nth(op.operands, 0), nth(op.operands, 1), nth(op.results, 0))),
  };
}

/** A gradient whose cotangents come in the shape of the result: sums them down to the operands' shapes. */
export function broadcastGrad(build: (b: Builder, op: Op, g: Value) => readonly (Value | undefined)[]): Grad {
  return {
    build(b, op, [g]) {
      if (!g) return op.operands.map(() => undefined);
      return build(b, op, g).map((c, i) => c && b.sumTo(c, nth(op.operands, i).type.shape));
    },
  };
}

/** The shape that the operands of an elementwise op broadcast to. */
export function broadcastTypes(operands: readonly TensorType[]): number[] {
  const shape = broadcastShapes(operands.map((t) => t.shape));
  check(shape !== undefined, () => `${operands.map(showType).join(' and ')} do not broadcast`);
  return shape;
}

/** Throws unless an op takes tensors of this element type. */
export function requireAccepted(on: Accepts, t: TensorType): void {
  check(accepts[on](t.dtype), () => `takes ${on === 'any' ? 'any' : on === 'number' ? 'float and integer' : on} tensors, found ${showType(t)}`);
}

/** Axes of an elementwise op: one parallel dim per result axis, broadcast axes read at 0. */
export function elementwiseAxes(product: boolean): OpDef['axes'] {
  return (operands, _attrs, results): Axes => {
    const { shape } = nth(results, 0);
    const space = dimsOf(shape);
    const reads = operands.map((t) => t.shape.map((d, i): Index => {
      const dim = nth(space, shape.length - t.shape.length + i);
      return d === dim.size ? plain(dim.name) : zero;
    }));
    const piece = { dims: namesOf(space), reads, writes: space.map((d) => put(d.name)), indexed: [] };
    return { space, stages: [{ pieces: [piece], combine: 'none', product }] };
  };
}

/** The bigint form of an op that `infer` let 64-bit integers into. */
function need<T>(f: T | undefined, name: string): T {
  if (!f) throw new TypeError(`${name} is not defined for 64-bit integers`);
  return f;
}
