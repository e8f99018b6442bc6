/** Ops that make tensors: constants, ranges, identity matrices, masks, windows, mel weights. */
import type { Value } from '../../../ir/graph.ts';
import { dtypes, isFloat, type DType, type Tensor } from '../../../ir/type.ts';
import type { Bound, LowerContext, LoweringTable, Row } from '../lowering.ts';
import { constantOf, indexAlong, range, row } from './helpers.ts';

function constant(cx: LowerContext): Bound[] {
  const { attrs } = cx.node;
  const { b } = cx;
  if (attrs.has('value')) {
    return [attrs.tensorDType('value') === 'string' ? attrs.stringTensor('value') : b.constant(attrs.tensor('value'))];
  }
  if (attrs.has('value_float')) return [b.scalar(attrs.float('value_float'), 'f32')];
  if (attrs.has('value_int')) return [b.scalar(attrs.int('value_int'), 'i64')];
  if (attrs.has('value_floats')) return [vector(cx, 'f32', attrs.floats('value_floats'))];
  if (attrs.has('value_ints')) return [vector(cx, 'i64', attrs.ints('value_ints'))];
  if (attrs.has('value_string')) return [{ kind: 'strings', shape: [], data: [attrs.string('value_string')] }];
  if (attrs.has('value_strings')) {
    const data = attrs.strings('value_strings');
    return [{ kind: 'strings', shape: [data.length], data }];
  }
  return attrs.has('sparse_value') ? [b.constant(attrs.tensor('sparse_value'))] : cx.bad('the node has no value attribute');
}

const vector = (cx: LowerContext, dtype: DType, values: readonly number[]): Value => constantOf(cx.b, dtype, [values.length], values);

/** The one element of a tensor as a scalar constant. */
const scalarOf = (cx: LowerContext, value: Tensor): Value => cx.b.constant({ dtype: value.dtype, shape: [], data: value.data });

function constantOfShape(cx: LowerContext): Value {
  const { attrs } = cx.node;
  const shape = cx.ints(cx.input(0), 'shape');
  if (shape.some((d) => d < 0)) cx.bad(`shape [${shape.join(', ')}] has a negative size`);
  const value = attrs.has('value') ? attrs.tensor('value') : undefined;
  if (value && value.data.length !== 1) cx.bad(`value has ${value.data.length} elements: expected one`);
  return cx.b.broadcast(value ? scalarOf(cx, value) : cx.b.scalar(0, 'f32'), shape);
}

function rangeOf(cx: LowerContext): Value {
  const { dtype } = cx.input(0).type;
  const one = (i: number, what: string): number => cx.numbers(cx.input(i), what)[0] ?? cx.bad(`${what} is empty`);
  const [start, limit, delta] = [one(0, 'start'), one(1, 'limit'), one(2, 'delta')];
  if (delta === 0) cx.bad('delta is 0');
  const n = Math.max(0, Math.ceil((limit - start) / delta));
  if (Math.abs(delta) !== 1) cx.rounds(limit - start, 'length');
  if (!Number.isFinite(n)) cx.bad(`a range from ${start} to ${limit} by ${delta} has no length`);
  if (isFloat(dtype) && dtypes[dtype].bytes === 2) return cx.b.cast(constantOf(cx.b, 'f32', [n], range(n).map((i) => start + i * delta)), dtype);
  return constantOf(cx.b, dtype, [n], range(n).map((i) => start + i * delta));
}

function eyeLike(cx: LowerContext): Value {
  const { b, node } = cx;
  const { shape, dtype } = cx.input(0).type;
  if (shape.length !== 2) cx.bad(`the input has rank ${shape.length}: expected a matrix`);
  const diagonal = b.binary('eq', b.sub(indexAlong(b, shape, 1), indexAlong(b, shape, 0)), node.attrs.int('k', 0));
  return b.cast(diagonal, node.attrs.dtype('dtype', dtype));
}

function trilu(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const { shape } = x.type;
  if (shape.length < 2) cx.bad(`the input has rank ${shape.length}: expected at least 2`);
  const k = cx.optionalInput(1);
  const matrix = shape.slice(-2);
  const distance = b.sub(indexAlong(b, matrix, 1), indexAlong(b, matrix, 0));
  const limit = k ? b.cast(b.reshape(k, []), 'i64') : b.scalar(0, 'i64');
  return b.select(b.binary(node.attrs.int('upper', 1) !== 0 ? 'ge' : 'le', distance, limit), x, 0);
}

/** Σ (-1)^j a_j cos(2πjn / N): generalised cosine windows. */
const cosineWindow = (coefficients: readonly number[]): Row[] => [
  row(17, 1, (cx) => {
    const { attrs } = cx.node;
    const size = cx.ints(cx.input(0), 'size')[0] ?? cx.bad('size is empty');
    const length = attrs.int('periodic', 1) !== 0 ? size : size - 1;
    const values = range(size).map((n) => coefficients.reduce((sum, a, j) => sum + (j % 2 === 0 ? a : -a) * Math.cos((2 * Math.PI * j * n) / length), 0));
    return constantOf(cx.b, attrs.dtype('output_datatype', 'f32'), [size], values);
  }),
];

function melWeightMatrix(cx: LowerContext): Value {
  const one = (i: number, what: string): number => cx.numbers(cx.input(i), what)[0] ?? cx.bad(`${what} is empty`);
  const [bands, dftLength, rate, low, high] = [one(0, 'num_mel_bins'), one(1, 'dft_length'), one(2, 'sample_rate'), one(3, 'lower_edge_hertz'), one(4, 'upper_edge_hertz')];
  const bins = Math.floor(dftLength / 2) + 1;
  const mel = (f: number): number => 2595 * Math.log10(1 + f / 700);
  const step = (mel(high) - mel(low)) / (bands + 2);
  const edges = range(bands + 2).map((i) => Math.floor(((dftLength + 1) * (700 * (10 ** ((mel(low) + i * step) / 2595) - 1))) / rate));
  const weights = new Array<number>(bins * bands).fill(0);
  for (let band = 0; band < bands; band++) {
    const [from, peak, to] = [edges[band]!, edges[band + 1]!, edges[band + 2]!];
    if (from === peak) weights[peak * bands + band] = 1;
    else for (let f = from; f <= peak; f++) weights[f * bands + band] = (f - from) / (peak - from);
    for (let f = peak; f < to; f++) weights[f * bands + band] = (to - f) / (to - peak);
  }
  return constantOf(cx.b, cx.node.attrs.dtype('output_datatype', 'f32'), [bins, bands], weights);
}

export const generateOps: LoweringTable = {
  Constant: [row(1, 0, constant)],
  ConstantOfShape: [row(9, 1, constantOfShape)],
  Range: [row(11, 3, rangeOf)],
  EyeLike: [row(9, 1, eyeLike)],
  Trilu: [row(14, [1, 2], trilu)],
  HannWindow: cosineWindow([0.5, 0.5]),
  HammingWindow: cosineWindow([25 / 46, 21 / 46]),
  BlackmanWindow: cosineWindow([0.42, 0.5, 0.08]),
  MelWeightMatrix: [row(17, 5, melWeightMatrix)],
};
