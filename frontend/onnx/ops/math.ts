/** Arithmetic: elementwise functions, variadic sums, integer and bit operations, cumulative ops, determinants. */
import type { Value } from '../../../ir/graph.ts';
import { isFloat, sameShape, showType, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable, Row } from '../lowering.ts';
import { axisOf, binaryOperands, range, row } from './helpers.ts';

const unary = (core: string, since = 1): Row[] => [row(since, 1, (cx) => cx.b.unary(core, cx.input(0)))];

const binary = (core: string, since = 1): Row[] => [
  row(since, 2, (cx) => {
    const [x, y] = binaryOperands(cx);
    return cx.b.binary(core, x, y);
  }),
];

/** Joins all inputs with a binary op. Before opset 8 the inputs have one shape, which is a case of broadcasting. */
const variadic = (join: (cx: LowerContext, x: Value, y: Value) => Value, finish: (cx: LowerContext, x: Value, n: number) => Value = (_, x) => x): Row[] => [
  row(1, [1, Infinity], (cx) => {
    const all = cx.node.inputs.map((_, i) => cx.input(i));
    return finish(cx, all.slice(1).reduce((x, y) => join(cx, x, y), all[0]!), all.length);
  }),
];

/** The base's dtype is the result's. An integer base with a float exponent is raised in f64, as numpy does. */
function pow(cx: LowerContext): Value {
  const { b } = cx;
  const [x, y] = binaryOperands(cx);
  const base = x.type.dtype;
  if (isFloat(base) || !isFloat(y.type.dtype)) return b.pow(x, b.cast(y, base));
  return b.cast(b.pow(b.cast(x, 'f64'), b.cast(y, 'f64')), base);
}

function mod(cx: LowerContext): Value {
  const [x, y] = binaryOperands(cx);
  const c = cx.node.attrs.int('fmod', 0) !== 0;
  if (!c && isFloat(x.type.dtype)) cx.bad(`fmod must be 1 for operands of ${x.type.dtype}`);
  return cx.b.binary(c ? 'fmod' : 'mod', x, y);
}

function bitShift(cx: LowerContext): Value {
  const direction = cx.node.attrs.string('direction');
  if (direction !== 'LEFT' && direction !== 'RIGHT') cx.bad(`direction is "${direction}": expected LEFT or RIGHT`);
  return cx.b.binary(direction === 'LEFT' ? 'shl' : 'shr', cx.input(0), cx.input(1));
}

function clip(cx: LowerContext, lo: Value | undefined, hi: Value | undefined): Value {
  const { b } = cx;
  const x = cx.input(0);
  const asScalar = (v: Value): Value => b.reshape(v, []);
  if (lo && hi) return b.one('clamp', [x, asScalar(lo), asScalar(hi)]);
  if (lo) return b.max(x, asScalar(lo));
  return hi ? b.min(x, asScalar(hi)) : x;
}

/** A bound; a known float is a number, as a weight it would be trained. */
function bound(cx: LowerContext, input: number, name: string): Value | undefined {
  const given = cx.optionalInput(input);
  return given && isFloat(given.type.dtype) && cx.isConstant(given) ? cx.b.scalar(cx.numbers(given, name)[0]!, given.type.dtype) : given;
}

const clipByAttributes = (cx: LowerContext): Value => {
  const { dtype } = cx.input(0).type;
  const bound = (name: string): Value | undefined => {
    const at = cx.node.attrs.float(name, undefined);
    return at === undefined ? undefined : cx.b.scalar(at, dtype);
  };
  return clip(cx, bound('min'), bound('max'));
};

const cumulative = (core: string, since: number): Row[] => [
  row(since, 2, (cx) => {
    const x = cx.input(0);
    const at = cx.ints(cx.input(1), 'axis');
    if (at.length !== 1) cx.bad(`axis has ${at.length} elements: expected one`);
    const axis = axisOf(cx, at[0]!, x.type.shape.length);
    return cx.b.one(core, [x], { axis, exclusive: cx.node.attrs.int('exclusive', 0) !== 0, reverse: cx.node.attrs.int('reverse', 0) !== 0 });
  }),
];

/** Expansion along the first row: exact enough and without a pivot search up to 4x4, where it has 24 products. */
function det(cx: LowerContext): Value {
  const { b } = cx;
  const x = cx.input(0);
  const { shape } = x.type;
  const rank = shape.length;
  const n = shape[rank - 1];
  if (rank < 2 || n === undefined || n !== shape[rank - 2]) cx.bad(`the input has shape [${shape.join(',')}]: expected square matrices in the last two axes`);
  if (n > 4) cx.unsupported('Det of matrices above 4x4', `the matrices are ${n}x${n}`);
  const batch = shape.slice(0, -2);
  if (n === 0) return b.broadcast(b.scalar(1, x.type.dtype), batch);
  const element = (i: number, j: number): Value =>
    b.reshape(b.slice(x, [...batch.map(() => 0), i, j], [...batch, 1, 1]), batch);
  const minor = (i: number, columns: readonly number[]): Value => {
    const terms = columns.map((j, at) => {
      const rest = columns.filter((c) => c !== j);
      const term = rest.length === 0 ? element(i, j) : b.mul(element(i, j), minor(i + 1, rest));
      return { term, negative: at % 2 === 1 };
    });
    return terms.slice(1).reduce((sum, t) => (t.negative ? b.sub(sum, t.term) : b.add(sum, t.term)), terms[0]!.term);
  };
  return minor(0, range(n));
}

/** Mean of integer inputs does not exist in ONNX; Sum and Mean broadcast. */
const divideByCount = (cx: LowerContext, x: Value, n: number): Value => (n === 1 ? x : cx.b.div(x, n));

/** Swish-gated product of equal shapes. */
function swiGlu(cx: LowerContext): Value {
  const { b } = cx;
  const [gate, x] = [cx.input(0), cx.input(1)];
  if (!sameShape(gate.type.shape, x.type.shape)) cx.bad(`A is ${showType(gate.type)} and B ${showType(x.type)}: expected one shape`);
  const alpha = cx.node.attrs.float('alpha', 1);
  return b.mul(b.mul(gate, b.unary('sigmoid', alpha === 1 ? gate : b.mul(gate, alpha))), x);
}

const floats: readonly DType[] = ['f32', 'f64', 'f16', 'bf16'];
const floatUnary = (core: string, since = 1): Row[] => [
  row(since, 1, (cx) => {
    const x = cx.input(0);
    if (!floats.includes(x.type.dtype)) cx.bad(`the input is ${x.type.dtype}: expected a float type`);
    return cx.b.unary(core, x);
  }),
];

/** Rounding leaves integers (allowed from opset 28 on for some) as they are. */
const rounding = (core: string, since = 1): Row[] => [row(since, 1, (cx) => (isFloat(cx.input(0).type.dtype) ? cx.b.unary(core, cx.input(0)) : cx.input(0)))];

export const mathOps: LoweringTable = {
  Abs: unary('abs'), Neg: unary('neg'), Sign: unary('sign', 9),
  Ceil: rounding('ceil'), Floor: rounding('floor'), Round: rounding('round', 11),
  Sqrt: floatUnary('sqrt'), Reciprocal: floatUnary('recip'), Exp: floatUnary('exp'), Log: floatUnary('log'), Erf: floatUnary('erf', 9),
  Sin: floatUnary('sin', 7), Cos: floatUnary('cos', 7), Tan: floatUnary('tan', 7), Asin: floatUnary('asin', 7), Acos: floatUnary('acos', 7), Atan: floatUnary('atan', 7),
  Sinh: floatUnary('sinh', 9), Cosh: floatUnary('cosh', 9), Asinh: floatUnary('asinh', 9), Acosh: floatUnary('acosh', 9), Atanh: floatUnary('atanh', 9),
  Add: binary('add'), Sub: binary('sub'), Mul: binary('mul'), Div: binary('div'),
  Pow: [row(1, 2, pow)],
  Mod: [row(10, 2, mod)],
  BitShift: [row(11, 2, bitShift)],
  BitwiseAnd: binary('bitAnd', 18), BitwiseOr: binary('bitOr', 18), BitwiseXor: binary('bitXor', 18), BitwiseNot: unary('bitNot', 18),
  Sum: variadic((cx, x, y) => cx.b.add(x, y)),
  Mean: variadic((cx, x, y) => cx.b.add(x, y), divideByCount),
  Max: variadic((cx, x, y) => cx.b.max(x, y)),
  Min: variadic((cx, x, y) => cx.b.min(x, y)),
  Clip: [
    row(1, 1, clipByAttributes),
    row(11, [1, 3], (cx) => clip(cx, bound(cx, 1, 'min'), bound(cx, 2, 'max'))),
  ],
  CumSum: cumulative('cumSum', 11),
  CumProd: cumulative('cumProd', 26),
  Det: [row(11, 1, det)],
  SwiGLU: [row(28, 2, swiGlu)],
};
