/** Interpolation at coordinates known only at run time: each is one gather of all taps and one contraction with their weights. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { sameShape, showType, sizeOf } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { alongAxis, constantOf, indexAlong, range, refusal, row } from './helpers.ts';
import { list } from './window.ts';

/** Taps of one axis: indices (of the coordinates' dtype, inside the axis) and weights, both with a last axis over the taps. */
interface Taps { readonly at: Value; readonly weight: Value }

/** Joins the taps of all axes over a flattened image: index [..., K] (i64) and weight [..., K], K the product of their counts. */
function joinTaps(b: Builder, axes: readonly Taps[], sizes: readonly number[]): { index: Value; weight: Value } {
  const lead = axes[0]!.at.type.shape.slice(0, -1);
  const spread = (v: Value, a: number): Value => b.reshape(v, [...lead, ...axes.map((_, i) => (i === a ? v.type.shape.at(-1)! : 1))]);
  const flat = axes.map((t, a) => b.mul(spread(b.cast(t.at, 'i64'), a), sizeOf(sizes.slice(a + 1)))).reduce((x, y) => b.add(x, y));
  const weight = axes.map((t, a) => spread(t.weight, a)).reduce((x, y) => b.mul(x, y));
  const count = sizeOf(flat.type.shape.slice(lead.length));
  return { index: b.reshape(flat, [...lead, count]), weight: b.reshape(weight, [...lead, count]) };
}

/** Σ_k weight[n, q, k] · x[n, index[n, q, k], c] for x [N, P, C]: [N, Q, C]. */
function gatherTaps(b: Builder, x: Value, index: Value, weight: Value): Value {
  const [n, q, k] = index.type.shape as [number, number, number];
  const taken = b.one('gatherNd', [x, b.reshape(index, [n, q * k, 1])], { batchDims: 1 });
  const channels = x.type.shape[2]!;
  return b.contract('nqkc,nqk->nqc', b.reshape(taken, [n, q, k, channels]), b.cast(weight, x.type.dtype));
}

/** [N, C, spatial...] as [N, P, C]. */
function channelsLast(b: Builder, x: Value): Value {
  const [n, c, ...spatial] = x.type.shape as [number, number, ...number[]];
  return b.transpose(b.reshape(x, [n, c, sizeOf(spatial)]), [0, 2, 1]);
}

const withTaps = (b: Builder, x: Value, count: number): Value => b.add(b.reshape(x, [...x.type.shape, 1]), indexAlong(b, [...x.type.shape, count], x.type.shape.length, x.type.dtype));
const within = (b: Builder, x: Value, size: number): Value => b.binary('and', b.binary('ge', x, 0), b.binary('le', x, size - 1));
const clampTo = (b: Builder, x: Value, size: number): Value => b.one('clamp', [x, b.scalar(0, x.type.dtype), b.scalar(size - 1, x.type.dtype)]);

/** Weight 1 - |x - tap| for the two taps around x. */
function linearTaps(b: Builder, x: Value): Taps {
  const at = withTaps(b, b.unary('floor', x), 2);
  return { at, weight: b.sub(1, b.unary('abs', b.sub(at, b.reshape(x, [...x.type.shape, 1])))) };
}

/** Keys' cubic with a = -0.75 over the four taps around x. */
function cubicTaps(b: Builder, x: Value): Taps {
  const a = -0.75;
  const at = withTaps(b, b.sub(b.unary('floor', x), 1), 4);
  const d = b.unary('abs', b.sub(at, b.reshape(x, [...x.type.shape, 1])));
  const near = b.add(b.mul(b.mul(b.sub(b.mul(d, a + 2), a + 3), d), d), 1);
  const far = b.sub(b.mul(b.mul(b.add(b.mul(b.sub(d, 5), d), 8), d), a), 4 * a);
  return { at, weight: b.select(b.binary('le', d, 1), near, far) };
}

/** Reflects x at low and high until it lies between them. */
function reflect(b: Builder, x: Value, low: number, high: number): Value {
  const span = high - low;
  if (span <= 0) return b.add(b.mul(x, 0), low);
  const folded = b.binary('mod', b.sub(x, low), 2 * span);
  return b.add(b.min(folded, b.sub(2 * span, folded)), low);
}

const paddings = ['zeros', 'border', 'reflection'];

function gridSample(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const [x, grid] = [cx.input(0), cx.input(1)];
  const [n, channels, ...sizes] = x.type.shape as [number, number, ...number[]];
  const out = grid.type.shape.slice(1, -1);
  const rank = sizes.length;
  if (rank < 1 || grid.type.shape.at(-1) !== rank || out.length !== rank || grid.type.shape[0] !== n) cx.bad(`an input of ${showType(x.type)} and a grid of ${showType(grid.type)} do not fit`);
  const mode = { bilinear: 'linear', bicubic: 'cubic' }[attrs.string('mode', 'linear')] ?? attrs.string('mode', 'linear');
  const padding = attrs.string('padding_mode', 'zeros');
  const aligned = attrs.int('align_corners', 0) !== 0;
  if (!['linear', 'nearest', 'cubic'].includes(mode) || !paddings.includes(padding)) cx.bad(`mode "${mode}" or padding_mode "${padding}" is not known`);
  const places = sizeOf(out);
  const coordinates = b.cast(b.reshape(grid, [n, places, rank]), 'f32');
  const taps = sizes.map((size, a): Taps => {
    const g = b.reshape(b.slice(coordinates, [0, 0, rank - 1 - a], [n, places, 1]), [n, places]);
    const [low, high] = aligned ? [0, size - 1] : [-0.5, size - 0.5];
    const exact = aligned ? b.mul(b.add(g, 1), (size - 1) / 2) : b.div(b.sub(b.mul(b.add(g, 1), size), 1), 2);
    const { at, weight } = mode === 'linear' ? linearTaps(b, exact) : mode === 'cubic' ? cubicTaps(b, exact) : nearestTaps(b, exact);
    // Taps are padded one by one; that gives the same as moving the coordinate, but for cubic, where PyTorch pads taps too.
    return { at: clampTo(b, padding === 'reflection' ? reflect(b, at, low, high) : at, size), weight: padding === 'zeros' ? b.select(within(b, at, size), weight, 0) : weight };
  });
  const { index, weight } = joinTaps(b, taps, sizes);
  const y = gatherTaps(b, channelsLast(b, x), index, weight);
  return b.reshape(b.transpose(y, [0, 2, 1]), [n, channels, ...out]);
}

/** The nearest element, halves to the even one. */
function nearestTaps(b: Builder, x: Value): Taps {
  const at = b.reshape(b.unary('round', x), [...x.type.shape, 1]);
  return { at, weight: b.broadcast(b.scalar(1, x.type.dtype), at.type.shape) };
}

/** Positions of a grid from -1 to 1, x first, moved by the affine matrix of each sample. */
function affineGrid(cx: LowerContext): Value {
  const { b, node } = cx;
  const theta = cx.input(0);
  const size = cx.ints(cx.input(1), 'size');
  const spatial = size.slice(2);
  const rank = spatial.length;
  const aligned = node.attrs.int('align_corners', 0) !== 0;
  if (rank < 2 || rank > 3 || theta.type.shape.join() !== [size[0], rank, rank + 1].join()) cx.bad(`theta is ${showType(theta.type)} and size [${size.join(', ')}]: expected [N, r, r + 1] and N, C and r sizes, r 2 or 3`);
  const along = (d: number, i: number): number => (aligned ? (d > 1 ? -1 + (2 * i) / (d - 1) : 0) : (2 * i + 1) / d - 1);
  const places = sizeOf(spatial);
  const base = range(places).flatMap((p) => {
    let rest = p;
    const xFirst = [...spatial].reverse().map((d) => {
      const i = rest % d;
      rest = Math.floor(rest / d);
      return along(d, i);
    });
    return [...xFirst, 1];
  });
  const grid = b.contract('nij,pj->npi', theta, constantOf(b, theta.type.dtype, [places, rank + 1], base));
  return b.reshape(grid, [size[0]!, ...spatial, rank]);
}

/** Pools a fixed number of samples of each bin of each region; samples beyond the image by more than a pixel are zero. */
function roiAlign(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const [x, rois, batch] = [cx.input(0), cx.input(1), cx.input(2)];
  const [n, channels, height, width] = x.type.shape as [number, number, number, number];
  const regions = rois.type.shape[0]!;
  const bins = [attrs.int('output_height', 1), attrs.int('output_width', 1)] as const;
  const ratio = attrs.int('sampling_ratio', 0);
  const mode = attrs.string('mode', 'avg');
  const shifted = attrs.string('coordinate_transformation_mode', node.opset < 16 ? 'output_half_pixel' : 'half_pixel') === 'half_pixel';
  if (ratio <= 0) cx.unsupported('RoiAlign with sampling_ratio 0', 'the number of samples would depend on the regions: set sampling_ratio');
  if (mode !== 'avg' && mode !== 'max') cx.bad(`mode is "${mode}": expected avg or max`);
  const scaled = b.sub(b.mul(rois, attrs.float('spatial_scale', 1)), shifted ? 0.5 : 0);
  const column = (i: number): Value => b.reshape(b.slice(scaled, [0, i], [regions, 1]), [regions, 1, 1]);
  const axis = (first: number, count: number, size: number): Taps => {
    const start = column(first);
    const extent = b.sub(column(first + 2), start);
    const bin = b.div(shifted ? extent : b.max(extent, 1), count);
    const shape = [1, count, ratio];
    const place = b.add(indexAlong(b, shape, 1, 'f32'), b.div(b.add(indexAlong(b, shape, 2, 'f32'), 0.5), ratio));
    const position = b.add(start, b.mul(bin, b.cast(place, bin.type.dtype)));
    const inside = b.binary('and', b.binary('ge', position, -1), b.binary('le', position, size));
    const { at, weight } = linearTaps(b, clampTo(b, position, size));
    return { at: clampTo(b, at, size), weight: b.select(b.reshape(inside, [...inside.type.shape, 1]), weight, 0) };
  };
  const [ys, xs] = [axis(1, bins[0], height), axis(0, bins[1], width)];
  // [R, PH, PW, SH, SW, 2, 2]
  const spread = (v: Value, y: boolean): Value => b.reshape(v, y ? [regions, bins[0], 1, ratio, 1, 2, 1] : [regions, 1, bins[1], 1, ratio, 1, 2]);
  const pixel = b.add(b.mul(spread(b.cast(ys.at, 'i64'), true), width), spread(b.cast(xs.at, 'i64'), false));
  const index = b.add(pixel, b.reshape(b.mul(b.cast(batch, 'i64'), height * width), [regions, 1, 1, 1, 1, 1, 1]));
  const weight = b.mul(spread(ys.weight, true), spread(xs.weight, false));
  const cells = bins[0] * bins[1];
  const count = ratio * ratio * 4;
  const taken = b.one('gather', [b.reshape(channelsLast(b, x), [n * height * width, channels]), b.reshape(index, [regions, cells, count])], { axis: 0 });
  const weights = b.cast(b.reshape(weight, [regions, cells, count]), x.type.dtype);
  // The reference takes the maximum over weighted corners, not over interpolated samples.
  const pooled = mode === 'avg'
    ? b.div(b.contract('rpkc,rpk->rpc', taken, weights), ratio * ratio)
    : b.reduce('reduceMax', b.mul(taken, b.reshape(weights, [regions, cells, count, 1])), [2]);
  return b.reshape(b.transpose(pooled, [0, 2, 1]), [regions, channels, ...bins]);
}

/** A convolution whose taps are moved by run-time offsets: the moved samples are gathered into columns, then multiplied with the weight. */
function deformConv(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const [x, w, offset, bias, mask] = [cx.input(0), cx.input(1), cx.input(2), cx.optionalInput(3), cx.optionalInput(4)];
  if (x.type.shape.length !== 4) cx.unsupported('DeformConv over other than two spatial axes', 'two are implemented');
  const [n, channels, ...sizes] = x.type.shape as [number, number, number, number];
  const kernel = attrs.ints('kernel_shape', w.type.shape.slice(2));
  if (!sameShape(kernel, w.type.shape.slice(2))) cx.bad(`kernel_shape is [${kernel.join(', ')}] and the weight ${showType(w.type)}`);
  const [strides, dilations] = [list(cx, 'strides', 2, 1), list(cx, 'dilations', 2, 1)];
  const pads = attrs.ints('pads', [0, 0, 0, 0]);
  const [groups, offsetGroups] = [attrs.int('group', 1), attrs.int('offset_group', 1)];
  const out = offset.type.shape.slice(2);
  const [taps, places] = [sizeOf(kernel), sizeOf(out)];
  const moves = b.reshape(offset, [n * offsetGroups, kernel[0]!, kernel[1]!, 2, ...out]);
  const axes = sizes.map((size, a): Taps => {
    const shape = [1, kernel[0]!, kernel[1]!, ...out];
    const base = b.add(b.mul(indexAlong(b, shape, 3 + a, 'f32'), strides[a]!), b.sub(b.mul(indexAlong(b, shape, 1 + a, 'f32'), dilations[a]!), pads[a]!));
    const move = b.slice(moves, [0, 0, 0, a, 0, 0], [n * offsetGroups, kernel[0]!, kernel[1]!, 1, ...out]);
    const position = b.add(b.cast(b.reshape(move, [n * offsetGroups, kernel[0]!, kernel[1]!, ...out]), 'f32'), base);
    const { at, weight } = linearTaps(b, b.reshape(position, [n * offsetGroups, taps * places]));
    return { at: clampTo(b, at, size), weight: b.select(within(b, at, size), weight, 0) };
  });
  const { index, weight } = joinTaps(b, axes, sizes);
  const perGroup = channels / offsetGroups;
  const image = channelsLast(b, b.reshape(x, [n * offsetGroups, perGroup, ...sizes]));
  const sampled = gatherTaps(b, image, index, weight);
  const masked = mask ? b.mul(sampled, b.reshape(mask, [n * offsetGroups, taps * places, 1])) : sampled;
  const columns = b.transpose(b.reshape(masked, [n, offsetGroups, taps, places, perGroup]), [0, 1, 4, 2, 3]);
  const outputs = w.type.shape[0]!;
  const inner = (channels / groups) * taps;
  const y = b.contract('ngkq,gok->ngoq', b.reshape(columns, [n, groups, inner, places]), b.reshape(w, [groups, outputs / groups, inner]));
  const result = b.reshape(y, [n, outputs, ...out]);
  return bias ? b.add(result, alongAxis(b, bias, 1, 4)) : result;
}

export const samplingOps: LoweringTable = {
  GridSample: [row(16, 2, gridSample)],
  AffineGrid: [row(20, 2, affineGrid)],
  RoiAlign: [row(10, 3, roiAlign)],
  DeformConv: [row(19, [3, 5], deformConv)],
  MaxRoiPool: [refusal(1, 'the bins of a region are whole pixels that depend on its coordinates: use RoiAlign')],
};
