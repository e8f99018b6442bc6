/** Elementwise ops as ONNX nodes. */
import { Unsupported } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { intRange } from '../../../ir/number.ts';
import { flag, str } from '../../../ir/op.ts';
import { dtypes, isFloat, isInteger, sameShape, type DType } from '../../../ir/type.ts';
import { dataTypeNumber } from '../data-type.ts';
import type { Rule, Writer } from './writer.ts';

/** Ops that ONNX has under another name, with the same operands and results. */
const named: Readonly<Record<string, string>> = {
  neg: 'Neg', abs: 'Abs', sign: 'Sign', sqrt: 'Sqrt', recip: 'Reciprocal', exp: 'Exp', log: 'Log', sin: 'Sin', cos: 'Cos', tan: 'Tan', asin: 'Asin', acos: 'Acos', atan: 'Atan',
  sinh: 'Sinh', cosh: 'Cosh', tanh: 'Tanh', asinh: 'Asinh', acosh: 'Acosh', atanh: 'Atanh', erf: 'Erf', sigmoid: 'Sigmoid', floor: 'Floor', ceil: 'Ceil', round: 'Round', relu: 'Relu',
  not: 'Not', bitNot: 'BitwiseNot', isNaN: 'IsNaN',
  add: 'Add', sub: 'Sub', mul: 'Mul', div: 'Div', pow: 'Pow', min: 'Min', max: 'Max', and: 'And', or: 'Or', xor: 'Xor', bitAnd: 'BitwiseAnd', bitOr: 'BitwiseOr', bitXor: 'BitwiseXor',
  eq: 'Equal', lt: 'Less', le: 'LessOrEqual', gt: 'Greater', ge: 'GreaterOrEqual', select: 'Where',
};

const operands = (op: Op, w: Writer): string[] => op.operands.map((v) => w.at(v));
/** A number of the dtype of an op's first operand. */
const like = (op: Op, w: Writer, x: number): string => w.scalar(op.operands[0]!.type.dtype, x);

export const elementwiseRules: Readonly<Record<string, Rule>> = {
  ...Object.fromEntries(Object.entries(named).map(([name, type]): [string, Rule] => [name, (op, w) => w.node(type, operands(op, w))])),
  rsqrt: (op, w) => w.node('Reciprocal', [w.node('Sqrt', operands(op, w))]),
  expm1: (op, w) => w.node('Sub', [w.node('Exp', operands(op, w)), like(op, w, 1)]),
  log1p: (op, w) => w.node('Log', [w.node('Add', [...operands(op, w), like(op, w, 1)])]),
  trunc: (op, w) => w.node('Mul', [w.node('Sign', operands(op, w)), w.node('Floor', [w.node('Abs', operands(op, w))])]),
  ne: (op, w) => w.node('Not', [w.node('Equal', operands(op, w))]),
  isInf: (op, w) => w.node('IsInf', operands(op, w), { detect_positive: Number(flag(op.attrs, 'positive')), detect_negative: Number(flag(op.attrs, 'negative')) }),
  fmod: (op, w) => w.node('Mod', operands(op, w), { fmod: 1 }),
  mod: (op, w) => {
    const [x, y] = operands(op, w) as [string, string];
    if (!isFloat(op.operands[0]!.type.dtype)) return w.node('Mod', [x, y], { fmod: 0 });
    const rest = w.node('Mod', [x, y], { fmod: 1 });
    const other = w.node('Less', [w.node('Mul', [w.node('Sign', [rest]), w.node('Sign', [y])]), like(op, w, 0)]);
    return w.node('Where', [other, w.node('Add', [rest, y]), rest]);
  },
  clamp: (op, w) => {
    const [x, lo, hi] = op.operands as [Value, Value, Value];
    const clips = [lo, hi].every((v) => v.type.shape.length === 0) && sameShape(x.type.shape, op.results[0]!.type.shape);
    return clips ? w.node('Clip', operands(op, w)) : w.node('Min', [w.node('Max', [w.at(x), w.at(lo)]), w.at(hi)]);
  },
  cast: (op, w) => castTo(op, w, op.operands[0]!.type.dtype, str(op.attrs, 'to') as DType),
};

/** A saturating cast to an integer rounds half to even and clamps. */
function castTo(op: Op, w: Writer, from: DType, to: DType): string {
  const [x] = operands(op, w) as [string];
  const cast = (v: string): string => w.node('Cast', [v], { to: dataTypeNumber(to) });
  if (!flag(op.attrs, 'saturate') || !isFloat(from) || !isInteger(to)) return cast(x);
  if (dtypes[to].bits > 16) throw new Unsupported(`writing saturating casts to ${to} as ONNX`, `${op.source[0] ?? 'an op'} saturates ${from} to ${to}, whose bounds ${from} cannot hold`);
  const { lo, hi } = intRange(to);
  return cast(w.node('Clip', [w.node('Round', [x]), w.scalar(from, Number(lo)), w.scalar(from, Number(hi))]));
}
