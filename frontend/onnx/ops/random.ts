/** Random tensors and dropout. Numbers come from a counter keyed by the seed, the node and the element, so a run can be repeated. */
import type { Value } from '../../../ir/graph.ts';
import { isFloat, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable, Row } from '../lowering.ts';
import { row } from './helpers.ts';

/** A number that tells nodes apart: FNV-1a of the name, 31 bits. */
function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const c of name) hash = Math.imul(hash ^ c.codePointAt(0)!, 0x01000193);
  return hash & 0x7fffffff;
}

/** The node's seed. Where it has none ONNX wants a fresh one for each run; here every run gives the same numbers. */
function seedOf(cx: LowerContext): Value {
  const { attrs } = cx.node;
  const seed = cx.node.opType === 'Dropout' ? attrs.int('seed', undefined) : attrs.float('seed', undefined);
  if (seed === undefined && !cx.seeded) cx.warn('the node has no seed: every run gives the same random numbers');
  return cx.b.scalar(BigInt.asIntN(64, BigInt(Math.trunc((seed ?? 0) * 65536))), 'i64');
}

function draw(cx: LowerContext, kind: 'randomUniform' | 'randomNormal', shape: readonly number[]): Value {
  return cx.b.one(kind, [seedOf(cx)], { shape, dtype: 'f32', stream: streamOf(cx.node.name) });
}

function uniform(cx: LowerContext, shape: readonly number[], dtype: DType): Value {
  const { attrs } = cx.node;
  const [low, high] = [attrs.float('low', 0), attrs.float('high', 1)];
  return cx.b.cast(cx.b.add(cx.b.mul(draw(cx, 'randomUniform', shape), high - low), low), dtype);
}

function normal(cx: LowerContext, shape: readonly number[], dtype: DType): Value {
  const { attrs } = cx.node;
  return cx.b.cast(cx.b.add(cx.b.mul(draw(cx, 'randomNormal', shape), attrs.float('scale', 1)), attrs.float('mean', 0)), dtype);
}

const generator = (make: (cx: LowerContext, shape: readonly number[], dtype: DType) => Value): Row[] =>
  [row(1, 0, (cx) => make(cx, cx.node.attrs.ints('shape'), cx.node.attrs.dtype('dtype', 'f32')))];
const generatorLike = (make: (cx: LowerContext, shape: readonly number[], dtype: DType) => Value): Row[] =>
  [row(1, 1, (cx) => make(cx, cx.input(0).type.shape, cx.node.attrs.dtype('dtype', isFloat(cx.input(0).type.dtype) ? cx.input(0).type.dtype : 'f32')))];

function bernoulli(cx: LowerContext): Value {
  const { b, node } = cx;
  const p = cx.input(0);
  return b.cast(b.binary('lt', draw(cx, 'randomUniform', p.type.shape), b.cast(p, 'f32')), node.attrs.dtype('dtype', p.type.dtype));
}

/** Draws classes from unnormalised log-probabilities: the largest of them after Gumbel noise is added. */
function multinomial(cx: LowerContext): Value {
  const { b, node } = cx;
  const logits = b.cast(cx.input(0), 'f32');
  const [n, classes] = logits.type.shape;
  if (logits.type.shape.length !== 2 || n === undefined || classes === undefined) cx.bad('the input has to be a matrix of samples and classes');
  const samples = node.attrs.int('sample_size', 1);
  const noise = draw(cx, 'randomUniform', [n, samples, classes]);
  const gumbel = b.neg(b.unary('log', b.neg(b.unary('log', b.max(noise, 2 ** -32)))));
  const drawn = b.one('argMax', [b.add(b.reshape(logits, [n, 1, classes]), gumbel)], { axis: 2, last: false });
  return b.cast(drawn, node.attrs.dtype('dtype', 'i32'));
}

/** The input as it is, and a mask of ones. */
function passThrough(cx: LowerContext, maskType: DType): Value[] {
  const x = cx.input(0);
  return [x, cx.b.broadcast(cx.b.scalar(1, maskType), x.type.shape)];
}

/** In training, elements are zeroed with probability `ratio` and the others scaled by 1 / (1 - ratio). */
function dropout(cx: LowerContext): Value[] {
  const { b } = cx;
  const x = cx.input(0);
  const mode = cx.optionalInput(2);
  const training = mode && (!cx.isConstant(mode) || cx.numbers(mode, 'training_mode')[0] !== 0);
  if (!training || cx.inference) return passThrough(cx, 'bool');
  const given = cx.optionalInput(1);
  if (given && cx.isConstant(given) && cx.numbers(given, 'ratio')[0] === 0) return passThrough(cx, 'bool');
  // A known ratio is a number: as a weight it would be trained.
  const ratio = given && !cx.isConstant(given) ? b.cast(b.reshape(given, []), 'f32') : b.scalar(given ? cx.numbers(given, 'ratio')[0]! : 0.5, 'f32');
  const uniformDraw = draw(cx, 'randomUniform', x.type.shape);
  const drawn = b.binary('ge', uniformDraw, ratio);
  const keep = cx.isConstant(mode) ? drawn : b.binary('or', drawn, b.unary('not', b.reshape(mode, [])));
  const scale = b.cast(b.div(1, b.sub(1, ratio)), x.type.dtype);
  const scaled = b.select(keep, b.mul(x, scale), 0);
  return [cx.isConstant(mode) ? scaled : b.select(b.reshape(mode, []), scaled, x), keep];
}

function dropoutByAttribute(cx: LowerContext): Value[] {
  if (cx.node.opset < 7 && cx.node.attrs.int('is_test', 0) === 0 && cx.wants(1)) cx.unsupported('Dropout in training mode before opset 12', 'set is_test, or export with opset 12 or later');
  return passThrough(cx, cx.node.opset < 10 ? cx.input(0).type.dtype : 'bool');
}

export const randomOps: LoweringTable = {
  RandomUniform: generator(uniform), RandomNormal: generator(normal),
  RandomUniformLike: generatorLike(uniform), RandomNormalLike: generatorLike(normal),
  Bernoulli: [row(15, 1, bernoulli)],
  Multinomial: [row(7, 1, multinomial)],
  Dropout: [row(1, 1, dropoutByAttribute, [1, 2]), row(12, [1, 3], dropout, [1, 2])],
};
