/** Comparison, logic, selection and casts. */
import type { Value } from '../../../ir/graph.ts';
import { dtypes, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable, Row } from '../lowering.ts';
import { binaryOperands, row } from './helpers.ts';

const binary = (core: string, since = 1): Row[] => [
  row(since, 2, (cx) => {
    const [x, y] = binaryOperands(cx);
    return cx.b.binary(core, x, y);
  }),
];

function isInf(cx: LowerContext): Value {
  const { attrs } = cx.node;
  return cx.b.one('isInf', [cx.input(0)], { positive: attrs.int('detect_positive', 1) !== 0, negative: attrs.int('detect_negative', 1) !== 0 });
}

const eightBitFloats: readonly DType[] = ['f8e4m3fn', 'f8e4m3fnuz', 'f8e5m2', 'f8e5m2fnuz'];

/** ONNX's saturate speaks of 8-bit floats alone; the core attribute would round and clamp integers too. For f8e8m0 it also means rounding up. */
function castTo(cx: LowerContext, x: Value, to: DType): Value {
  const { attrs } = cx.node;
  const saturate = attrs.int('saturate', 1) !== 0;
  if (to !== 'f8e8m0') return cx.b.cast(x, to, saturate && eightBitFloats.includes(to));
  const mode = attrs.string('round_mode', 'up');
  if (mode !== (saturate ? 'up' : 'nearest')) cx.unsupported(`${cx.node.opType} to f8e8m0 with round_mode "${mode}" and saturate ${saturate ? 1 : 0}`, '"up" with saturate 1 and "nearest" with saturate 0 are implemented');
  return cx.b.cast(x, to, saturate);
}

/** Before opset 6 `to` is a name. */
const namedTypes: Readonly<Record<string, DType>> = {
  FLOAT: 'f32', DOUBLE: 'f64', FLOAT16: 'f16', INT8: 'i8', INT16: 'i16', INT32: 'i32', INT64: 'i64',
  UINT8: 'u8', UINT16: 'u16', UINT32: 'u32', UINT64: 'u64', BOOL: 'bool',
};

function castByName(cx: LowerContext): Value {
  const name = cx.node.attrs.string('to');
  const to = namedTypes[name.toUpperCase()];
  if (!to) cx.unsupported(`Cast to ${name}`, `known types are ${Object.keys(namedTypes).join(', ')}`);
  return cx.b.cast(cx.input(0), to);
}

function bitCast(cx: LowerContext): Value {
  const x = cx.input(0);
  const to = cx.node.attrs.dtype('to');
  if (dtypes[x.type.dtype].bytes !== dtypes[to].bytes) cx.bad(`${x.type.dtype} and ${to} differ in width`);
  return x.type.dtype === to ? x : cx.b.one('bitcast', [x], { to });
}

export const logicOps: LoweringTable = {
  Equal: binary('eq'), Less: binary('lt'), LessOrEqual: binary('le', 12), Greater: binary('gt'), GreaterOrEqual: binary('ge', 12),
  And: binary('and'), Or: binary('or'), Xor: binary('xor'),
  Not: [row(1, 1, (cx) => cx.b.unary('not', cx.input(0)))],
  Where: [row(9, 3, (cx) => cx.b.select(cx.input(0), cx.input(1), cx.input(2)))],
  IsNaN: [row(9, 1, (cx) => cx.b.unary('isNaN', cx.input(0)))],
  IsInf: [row(10, 1, isInf)],
  Cast: [row(1, 1, castByName), row(6, 1, (cx) => castTo(cx, cx.input(0), cx.node.attrs.dtype('to')))],
  CastLike: [row(15, 2, (cx) => castTo(cx, cx.input(0), cx.input(1).type.dtype))],
  BitCast: [row(26, 1, bitCast)],
};
