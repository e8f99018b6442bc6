/** `packConv` and `convPacked`: convolutions over weights that were laid out for one algorithm. */
import type { Axes } from '../../axes.ts';
import type { Attrs } from '../../graph.ts';
import { num, nums, str, type OpDef } from '../../op.ts';
import { sameShape, showType, tensorType, type TensorType } from '../../type.ts';
import { conv } from '../contraction/conv.ts';
import { arity, check, fresh, nth, numbers } from '../helpers.ts';
import { sweepAttrs } from '../spatial.ts';
import { convGeometry, geometryOf, packedFloats, winogradTile, type ConvGeometry } from './geometry.ts';
import { panelColumns, panelFloats, panelIndex, storedColumns, type Floats } from './panels.ts';
import { sandwich, winograd } from './winograd.ts';

const algorithmAttr = { algorithm: { kind: 'string', default: 'required' } } as const;

export const packConv: OpDef = {
  name: 'packConv',
  doc: 'the elements of w (or of its Winograd transform), laid out for `algorithm`',
  family: 'conv',
  operands: ['w'],
  attrs: { ...algorithmAttr, groups: { kind: 'number', default: 1 } },
  infer(operands, a) {
    const [w] = arity(operands, 1);
    check(w.dtype === 'f32', () => `${showType(w)} is not of type f32`);
    return [tensorType('f32', [packedFloats(convGeometry(str(a, 'algorithm'), w.shape, num(a, 'groups')))])];
  },
  axes: wholeOperand,
  reference([w], a, [packed]) {
    const to = fresh(packed!);
    packWeights(numbers(w!), convGeometry(str(a, 'algorithm'), w!.shape, num(a, 'groups')), numbers(to));
    return [to];
  },
  grad: { none: 'algorithms are chosen after differentiation' },
};

export const convPacked: OpDef = {
  name: 'convPacked',
  doc: 'conv of x with the weight of shape `weightShape` that was packed by packConv for `algorithm`',
  family: 'conv',
  operands: ['x', 'packed'],
  attrs: { ...algorithmAttr, ...sweepAttrs, groups: { kind: 'number', default: 1 }, weightShape: { kind: 'numbers', default: 'required' } },
  infer(operands, a) {
    const [x, packed] = arity(operands, 2);
    check(x.dtype === 'f32', () => `${showType(x)} is not of type f32`);
    const g = geometryOf(a);
    check(packed.dtype === 'f32' && sameShape(packed.shape, [packedFloats(g)]), () => `${showType(packed)} is not the packed weight, expected f32[${packedFloats(g)}]`);
    if (winogradTile(g.algorithm) > 0) check([...nums(a, 'strides'), ...nums(a, 'dilations')].every((d) => d === 1), () => 'Winograd takes strides and dilations of 1');
    return conv.infer([x, weightType(a)], convAttrs(a), []);
  },
  axes([x, packed], a, results) {
    const plain = conv.axes([x!, weightType(a)], convAttrs(a), results);
    return 'none' in plain ? plain : withWholeWeight(plain, packed!);
  },
  reference([x, packed], a, results, regions, run) {
    const g = geometryOf(a);
    if (winogradTile(g.algorithm) > 0) {
      const y = fresh(nth(results, 0));
      filter(numbers(x!), x!.shape, numbers(packed!), numbers(y), y.shape, nums(a, 'pads'), g);
      return [y];
    }
    const w = fresh(weightType(a));
    unpackWeights(numbers(packed!), g, numbers(w));
    return conv.reference([x!, w], convAttrs(a), results, regions, run);
  },
  grad: { none: 'algorithms are chosen after differentiation' },
};

const weightType = (a: Attrs): TensorType => tensorType('f32', nums(a, 'weightShape'));
const convAttrs = (a: Attrs): Attrs => ({ strides: nums(a, 'strides'), pads: nums(a, 'pads'), dilations: nums(a, 'dilations'), groups: num(a, 'groups') });

/** Axes of a product whose right operand is packed. The format has no axes of its own: each part of the result may read any of it. */
export function withWholeWeight(axes: Axes, packed: TensorType): Axes {
  const dim = { name: 'packed', size: packed.shape[0]!, role: 'whole' } as const;
  return {
    space: [...axes.space, dim],
    stages: axes.stages.map((s) => ({ ...s, pieces: s.pieces.map((p) => ({ ...p, dims: [...p.dims, dim.name], reads: [p.reads[0]!, [{ kind: 'whole', dim: dim.name }]] })) })),
  };
}

/** Axes of a packing op: any part of the result reads the whole operand. */
export function wholeOperand(operands: readonly TensorType[], _attrs: Attrs, results: readonly TensorType[]): Axes {
  const dims = operands[0]!.shape.map((size, i) => ({ name: `w${i}`, size, role: 'whole' as const }));
  const place = { name: 'p', size: results[0]!.shape[0]!, role: 'parallel' as const };
  return {
    space: [place, ...dims],
    stages: [{
      pieces: [{ dims: ['p', ...dims.map((d) => d.name)], reads: [dims.map((d) => ({ kind: 'whole', dim: d.name }))], writes: [{ terms: [['p', 1]], plus: 0 }], indexed: ['p'] }],
      combine: 'none', product: false,
    }],
  };
}

/** Lays out a convolution's weight for its algorithm, into zeros. */
export function packWeights(w: Floats, g: ConvGeometry, to: Floats): void {
  const { groups, fanIn, fanOut, taps } = g;
  const tile = winogradTile(g.algorithm);
  if (tile > 0) return transformWeights(w, g, tile as 2 | 4, to);
  if (g.algorithm === 'depthwise') {
    for (let c = 0; c < groups; c++) for (let t = 0; t < taps; t++) to[((c >> 2) * taps + t) * 4 + (c & 3)] = w[c * taps + t]!;
    return;
  }
  // Rows of the matrix are (tap, channel); the weight has (channel, tap).
  const rows = taps * fanIn;
  for (let group = 0; group < groups; group++) {
    for (let first = 0; first < fanOut; first += panelColumns) {
      const width = Math.min(panelColumns, storedColumns(fanOut) - first);
      const columns = Math.min(width, fanOut - first);
      const from = (group * fanOut + first) * rows;
      let at = group * panelFloats(rows, fanOut) + first * rows;
      for (let t = 0; t < taps; t++) for (let i = 0; i < fanIn; i++, at += width) for (let c = 0; c < columns; c++) to[at + c] = w[from + c * rows + i * taps + t]!;
    }
  }
}

function unpackWeights(packed: Float64Array, g: ConvGeometry, w: Float64Array): void {
  const { groups, fanIn, fanOut, taps } = g;
  if (g.algorithm === 'depthwise') {
    for (let c = 0; c < groups; c++) for (let t = 0; t < taps; t++) w[c * taps + t] = packed[((c >> 2) * taps + t) * 4 + (c & 3)]!;
    return;
  }
  const groupFloats = panelFloats(taps * fanIn, fanOut);
  let at = 0;
  for (let group = 0; group < groups; group++) {
    for (let o = 0; o < fanOut; o++) for (let i = 0; i < fanIn; i++) for (let t = 0; t < taps; t++) w[at++] = packed[group * groupFloats + panelIndex(t * fanIn + i, o, taps * fanIn, fanOut)]!;
  }
}

function transformWeights(w: Floats, g: ConvGeometry, tile: 2 | 4, to: Floats): void {
  const { weight, side } = winograd(tile);
  const { fanIn, fanOut } = g;
  const positionFloats = panelFloats(fanIn, fanOut);
  const flat = Float64Array.from(weight.flat());
  const temp = new Float64Array(3 * side);
  // Panel by panel, so that the columns of a row are stored one after the other.
  for (let first = 0; first < fanOut; first += panelColumns) for (let i = 0; i < fanIn; i++) {
    for (let o = first; o < Math.min(first + panelColumns, fanOut); o++) {
      const from = (o * fanIn + i) * 9;
      for (let a = 0; a < side; a++) {
        const [p, q, r] = [flat[3 * a]!, flat[3 * a + 1]!, flat[3 * a + 2]!];
        temp[3 * a] = p * w[from]! + q * w[from + 3]! + r * w[from + 6]!;
        temp[3 * a + 1] = p * w[from + 1]! + q * w[from + 4]! + r * w[from + 7]!;
        temp[3 * a + 2] = p * w[from + 2]! + q * w[from + 5]! + r * w[from + 8]!;
      }
      let at = panelIndex(i, o, fanIn, fanOut);
      for (let a = 0; a < side; a++) {
        const [x, y, z] = [temp[3 * a]!, temp[3 * a + 1]!, temp[3 * a + 2]!];
        for (let b = 0; b < side; b++) {
          to[at] = flat[3 * b]! * x + flat[3 * b + 1]! * y + flat[3 * b + 2]! * z;
          at += positionFloats;
        }
      }
    }
  }
}

/** Winograd filtering as the kernels do it, in float64: transform each input tile, multiply by position, transform back. */
function filter(x: Float64Array, xShape: readonly number[], packed: Float64Array, y: Float64Array, yShape: readonly number[], pads: readonly number[], g: ConvGeometry): void {
  const { tile, side, input, output } = winograd(winogradTile(g.algorithm) as 2 | 4);
  const [batch, channels, height, width] = xShape as [number, number, number, number];
  const [, out, outHeight, outWidth] = yShape as [number, number, number, number];
  const positions = side * side;
  const positionFloats = panelFloats(channels, out);
  const patch = new Float64Array(positions);
  const temp = new Float64Array(positions);
  const moved = new Float64Array(positions * channels);
  const product = new Float64Array(positions);
  const back = new Float64Array(tile * tile);
  const one = new Float64Array(positions);
  for (let n = 0; n < batch; n++) for (let h = 0; h < outHeight; h += tile) for (let v = 0; v < outWidth; v += tile) {
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < side; i++) for (let j = 0; j < side; j++) {
        const [r, s] = [h + i - pads[0]!, v + j - pads[1]!];
        patch[i * side + j] = r >= 0 && r < height && s >= 0 && s < width ? x[((n * channels + c) * height + r) * width + s]! : 0;
      }
      sandwich(input, patch, side, temp, one);
      for (let p = 0; p < positions; p++) moved[p * channels + c] = one[p]!;
    }
    for (let o = 0; o < out; o++) {
      for (let p = 0; p < positions; p++) {
        let s = 0;
        for (let c = 0; c < channels; c++) s += moved[p * channels + c]! * packed[p * positionFloats + panelIndex(c, o, channels, out)]!;
        product[p] = s;
      }
      sandwich(output, product, side, temp, back);
      for (let i = 0; i < tile && h + i < outHeight; i++) for (let j = 0; j < tile && v + j < outWidth; j++) y[((n * out + o) * outHeight + h + i) * outWidth + v + j] = back[i * tile + j]!;
    }
  }
}
