/** Resize and Upsample: one `resample` for each axis, from tables of source indices and weights that are computed here. */
import type { Value } from '../../../ir/graph.ts';
import { isFloat } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { axesOf, constantOf, range, refusal, row } from './helpers.ts';

/** How one axis is resized. */
interface AxisPlan {
  readonly size: number;
  readonly scale: number;
  readonly start: number;
  readonly end: number;
}

/** One output position's taps; they may lie outside the input. */
interface Taps { readonly indices: readonly number[]; readonly weights: readonly number[] }

const modes = ['nearest', 'linear', 'cubic'] as const;
type Mode = (typeof modes)[number];

interface Settings {
  readonly mode: Mode;
  readonly coordinates: string;
  readonly nearest: string;
  readonly cubic: number;
  readonly excludeOutside: boolean;
  readonly antialias: boolean;
  readonly extrapolation: number;
}

function readSettings(cx: LowerContext): Settings {
  const { attrs, opset } = cx.node;
  const name = attrs.string('mode', 'nearest');
  const mode = modes.find((m) => m === name) ?? cx.bad(`mode is "${name}": expected ${modes.join(', ')}`);
  return {
    mode,
    coordinates: attrs.string('coordinate_transformation_mode', opset < 11 ? 'asymmetric' : 'half_pixel'),
    nearest: attrs.string('nearest_mode', opset < 11 ? 'floor' : 'round_prefer_floor'),
    cubic: attrs.float('cubic_coeff_a', -0.75),
    excludeOutside: attrs.int('exclude_outside', 0) !== 0,
    antialias: attrs.int('antialias', 0) !== 0,
    extrapolation: attrs.float('extrapolation_value', 0),
  };
}

/** Where output position i lies in the input. */
function coordinate(cx: LowerContext, s: Settings, p: AxisPlan, length: number, i: number): number {
  switch (s.coordinates) {
    case 'half_pixel': return (i + 0.5) / p.scale - 0.5;
    case 'half_pixel_symmetric': {
      const adjustment = p.size / (p.scale * length);
      return (length / 2) * (1 - adjustment) + (i + 0.5) / p.scale - 0.5;
    }
    case 'pytorch_half_pixel': return p.size > 1 ? (i + 0.5) / p.scale - 0.5 : 0;
    case 'align_corners': return p.size > 1 ? (i * (length - 1)) / (p.scale * length - 1) : 0;
    case 'asymmetric': return i / p.scale;
    case 'tf_half_pixel_for_nn': return (i + 0.5) / p.scale;
    case 'tf_crop_and_resize':
      return p.size > 1 ? p.start * (length - 1) + (i * (p.end - p.start) * (length - 1)) / (p.size - 1) : 0.5 * (p.start + p.end) * (length - 1);
    default: return cx.bad(`coordinate_transformation_mode "${s.coordinates}" is not known`);
  }
}

/** Rounds a coordinate to the source element it reads. */
function nearest(cx: LowerContext, mode: string, x: number): number {
  switch (mode) {
    case 'floor': return Math.floor(x);
    case 'ceil': return Math.ceil(x);
    case 'round_prefer_floor': return Math.ceil(x - 0.5);
    case 'round_prefer_ceil': return Math.floor(x + 0.5);
    default: return cx.bad(`nearest_mode "${mode}" is not known`);
  }
}

/** The kernel of linear or cubic interpolation at distance x. */
function kernel(s: Settings, x: number): number {
  const d = Math.abs(x);
  if (s.mode === 'linear') return Math.max(0, 1 - d);
  const a = s.cubic;
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((d - 5) * d + 8) * d * a - 4 * a : 0;
}

function taps(cx: LowerContext, s: Settings, p: AxisPlan, x: number): Taps {
  if (s.mode === 'nearest') return { indices: [nearest(cx, s.nearest, x)], weights: [1] };
  // Antialiasing stretches the kernel when the axis shrinks.
  const stretch = s.antialias ? Math.max(1, 1 / p.scale) : 1;
  const radius = (s.mode === 'linear' ? 1 : 2) * stretch;
  const from = stretch === 1 ? Math.floor(x) - (s.mode === 'linear' ? 0 : 1) : Math.floor(x - radius) + 1;
  const count = stretch === 1 ? (s.mode === 'linear' ? 2 : 4) : Math.ceil(x + radius) - from;
  const indices = range(count).map((i) => from + i);
  const weights = indices.map((i) => kernel(s, (i - x) / stretch));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return { indices, weights: stretch === 1 ? weights : weights.map((w) => w / total) };
}

/** Clamps taps to the input; excluded ones lose their weight to the others. */
function inside(s: Settings, t: Taps, length: number): Taps {
  const clamp = (i: number): number => Math.min(Math.max(i, 0), length - 1);
  if (!s.excludeOutside || s.mode === 'nearest') return { indices: t.indices.map(clamp), weights: t.weights };
  const weights = t.weights.map((w, i) => (t.indices[i]! < 0 || t.indices[i]! >= length ? 0 : w));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return { indices: t.indices.map(clamp), weights: weights.map((w) => w / total) };
}

function resample(cx: LowerContext, x: Value, axis: number, s: Settings, p: AxisPlan): Value {
  const length = x.type.shape[axis]!;
  const all = range(p.size).map((i) => inside(s, taps(cx, s, p, coordinate(cx, s, p, length, i)), length));
  const most = Math.max(1, ...all.map((t) => t.indices.length));
  const padded = (values: readonly number[], fill: number): number[] => [...values, ...new Array<number>(most - values.length).fill(fill)];
  const indices = all.flatMap((t) => padded(t.indices, t.indices[0] ?? 0));
  const weights = all.flatMap((t) => padded(t.weights, 0));
  if (p.size === length && most === 1 && indices.every((j, i) => j === i)) return x;
  return cx.b.one('resample', [x], { axis, size: p.size, taps: most, indices, weights });
}

/** Resizes each planned axis; positions outside a crop get the extrapolation value. */
function resize(cx: LowerContext, s: Settings, plans: ReadonlyMap<number, AxisPlan>): Value {
  const { b } = cx;
  const given = cx.input(0);
  const { shape, dtype } = given.type;
  const interpolates = s.mode !== 'nearest';
  if (interpolates && !isFloat(dtype)) cx.unsupported(`Resize of ${dtype} in mode "${s.mode}"`, 'rounding of interpolated integers is not defined by ONNX: cast to float first');
  const trivial = (p: AxisPlan, axis: number): boolean => p.size === shape[axis] && p.scale === 1 && s.coordinates !== 'tf_crop_and_resize';
  let x = interpolates && dtype !== 'f64' && dtype !== 'f32' ? b.cast(given, 'f32') : given;
  // Axes that shrink most go first: the later ones then have less to do.
  const order = [...plans].filter(([axis, p]) => !trivial(p, axis)).sort(([a, p], [c, q]) => p.size / shape[a]! - q.size / shape[c]! || a - c);
  for (const [axis, p] of order) x = resample(cx, x, axis, s, p);
  x = b.cast(x, dtype);
  if (s.coordinates !== 'tf_crop_and_resize') return x;
  let outside: Value | undefined;
  for (const [axis, p] of plans) {
    const flags = range(p.size).map((i) => {
      const at = coordinate(cx, s, p, shape[axis]!, i);
      return at < 0 || at > shape[axis]! - 1 ? 1 : 0;
    });
    if (flags.every((f) => f === 0)) continue;
    const mask = constantOf(b, 'bool', shape.map((_, i) => (i === axis ? p.size : 1)), flags);
    outside = outside ? b.binary('or', outside, mask) : mask;
  }
  return outside ? b.select(outside, s.extrapolation, x) : x;
}

/** Plans from the inputs roi, scales and sizes at the given places; an empty tensor is a missing one. */
function resizeByInputs(cx: LowerContext, roiAt: number, scalesAt: number, sizesAt: number): Value {
  const { attrs } = cx.node;
  const { shape } = cx.input(0).type;
  const s = readSettings(cx);
  const numbers = (i: number, what: string): number[] | undefined => {
    const v = i < 0 ? undefined : cx.optionalInput(i);
    return v && v.type.shape[0] !== 0 ? cx.numbers(v, what) : undefined;
  };
  const axes = axesOf(cx, attrs.ints('axes', range(shape.length)), shape.length);
  const roi = s.coordinates === 'tf_crop_and_resize' ? (numbers(roiAt, 'roi') ?? cx.bad('tf_crop_and_resize needs the input roi')) : undefined;
  const scales = numbers(scalesAt, 'scales');
  const sizes = numbers(sizesAt, 'sizes');
  const list = sizes ?? scales;
  if (!list || list.length !== axes.length) cx.bad(`expected scales or sizes with ${axes.length} elements, found ${list?.length ?? 'neither'}`);
  const policy = attrs.string('keep_aspect_ratio_policy', 'stretch');
  if (!['stretch', 'not_larger', 'not_smaller'].includes(policy)) cx.bad(`keep_aspect_ratio_policy is "${policy}": expected stretch, not_larger or not_smaller`);
  const ratios = axes.map((axis, i) => list[i]! / shape[axis]!);
  const common = policy === 'not_larger' ? Math.min(...ratios) : Math.max(...ratios);
  const plans = axes.map((axis, i): [number, AxisPlan] => {
    const length = shape[axis]!;
    const [start, end] = roi ? [roi[i]!, roi[i + axes.length]!] : [0, 1];
    if (!sizes) {
      const scale = list[i]!;
      if (!(scale > 0)) cx.bad(`a scale is ${scale}: expected a positive number`);
      if (scale !== 1 || roi) cx.rounds(length, 'size');
      return [axis, { size: Math.floor(length * (end - start) * scale), scale, start, end }];
    }
    if (policy === 'stretch') return [axis, { size: list[i]!, scale: list[i]! / length, start, end }];
    cx.rounds(length, 'size');
    return [axis, { size: Math.floor(common * length + 0.5), scale: common, start, end }];
  });
  return resize(cx, s, new Map(plans));
}

/** Upsample is Resize with asymmetric coordinates that round down. */
function upsample(cx: LowerContext, scales: readonly number[]): Value {
  const { shape } = cx.input(0).type;
  const name = cx.node.attrs.string('mode', 'nearest');
  const mode = name === 'bilinear' ? 'linear' : name;
  if (mode !== 'nearest' && mode !== 'linear') cx.bad(`mode is "${name}": expected nearest or linear`);
  if (scales.length !== shape.length) cx.bad(`scales has ${scales.length} elements: expected ${shape.length}`);
  scales.forEach((scale, axis) => scale !== 1 && cx.rounds(shape[axis]!, 'size'));
  const plans = scales.map((scale, axis): [number, AxisPlan] => [axis, { size: Math.floor(shape[axis]! * scale), scale, start: 0, end: 1 }]);
  const settings: Settings = { mode, coordinates: 'asymmetric', nearest: 'floor', cubic: -0.75, excludeOutside: false, antialias: false, extrapolation: 0 };
  return resize(cx, settings, new Map(plans));
}

export const resizeOps: LoweringTable = {
  Resize: [
    row(10, 2, (cx) => resizeByInputs(cx, -1, 1, -1)),
    row(11, [1, 4], (cx) => resizeByInputs(cx, 1, 2, 3)),
  ],
  Upsample: [
    row(1, 1, (cx) => {
      const { attrs } = cx.node;
      return upsample(cx, [1, 1, attrs.float('height_scale'), attrs.float('width_scale')]);
    }),
    row(7, 1, (cx) => upsample(cx, cx.node.attrs.floats('scales'))),
    row(9, 2, (cx) => upsample(cx, cx.numbers(cx.input(1), 'scales'))),
    refusal(10, 'Upsample was removed from ONNX in opset 10: use Resize'),
  ],
};
