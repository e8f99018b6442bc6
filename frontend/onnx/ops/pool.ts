/** Pools. Average pools divide by constants; max pool's Indices come from the positions within the window. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { sizeOf } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable, Row } from '../lowering.ts';
import { constantOf, indexAlong, mean, range, row } from './helpers.ts';
import { corePads, readWindow, type Window } from './window.ts';

function windowOf(cx: LowerContext, x: Value): Window {
  const spatial = x.type.shape.slice(2);
  if (spatial.length < 1) cx.bad(`the input has rank ${x.type.shape.length}: expected N, C and spatial axes`);
  if (spatial.length > 3) cx.unsupported(`${cx.node.opType} over ${spatial.length} spatial axes`, 'one to three are implemented');
  return readWindow(cx, spatial, cx.node.attrs.ints('kernel_shape'));
}

const coreWindow = (w: Window): { kernel: readonly number[]; strides: readonly number[]; pads: readonly number[]; dilations: readonly number[] } =>
  ({ kernel: w.kernel, strides: w.strides, pads: corePads(w), dilations: w.dilations });

function maxPool(cx: LowerContext): (Value | undefined)[] {
  const { b, node } = cx;
  const x = cx.input(0);
  const w = windowOf(cx, x);
  const columnMajor = node.attrs.int('storage_order', 0) !== 0;
  const [values, positions] = b.op('maxPool', [x], coreWindow(w)) as [Value, Value];
  return cx.wants(1) ? [values, flatIndices(b, x, w, positions, columnMajor)] : [values];
}

/** Window positions to indices into the flattened input, spatial axes counted from the first (row-major) or the last (column-major) outwards. */
function flatIndices(b: Builder, x: Value, w: Window, positions: Value, columnMajor: boolean): Value {
  const { shape } = x.type;
  const spatial = shape.slice(2);
  const out = positions.type.shape;
  const at = b.cast(positions, 'i64');
  const order = columnMajor ? range(spatial.length) : range(spatial.length).reverse();
  const strides = spatial.map(() => 0);
  let stride = 1;
  for (const i of order) {
    strides[i] = stride;
    stride *= spatial[i]!;
  }
  const plane = sizeOf(spatial);
  let index = b.add(b.mul(indexAlong(b, out, 0), shape[1]! * plane), b.mul(indexAlong(b, out, 1), plane));
  let inner = 1;
  for (const i of range(spatial.length).reverse()) {
    const tap = b.binary('mod', inner === 1 ? at : b.div(at, inner), w.kernel[i]!);
    const coordinate = b.add(b.sub(b.mul(indexAlong(b, out, i + 2), w.strides[i]!), w.lo[i]!), b.mul(tap, w.dilations[i]!));
    index = b.add(index, b.mul(coordinate, strides[i]!));
    inner *= w.kernel[i]!;
  }
  return index;
}

/** How many taps of each window count along one axis: those inside the input, or inside the declared padding too. */
function taps(w: Window, axis: number, size: number, includePads: boolean): number[] {
  const low = includePads ? -w.lo[axis]! : 0;
  const high = includePads ? size + w.hi[axis]! : size;
  return range(w.out[axis]!).map((o) => {
    const start = o * w.strides[axis]! - w.lo[axis]!;
    return range(w.kernel[axis]!).filter((k) => start + k * w.dilations[axis]! >= low && start + k * w.dilations[axis]! < high).length;
  });
}

function averagePool(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const w = windowOf(cx, x);
  const includePads = node.attrs.int('count_include_pad', 0) !== 0;
  const counts = x.type.shape.slice(2).map((size, i) => taps(w, i, size, includePads));
  const sum = b.one('sumPool', [x], coreWindow(w));
  const products = counts.reduce<number[]>((all, axis) => all.flatMap((p) => axis.map((c) => p * c)), [1]);
  const first = products[0] ?? 1;
  const uniform = products.every((p) => p === first);
  const shape = uniform ? [] : w.out;
  return b.mul(sum, constantOf(b, x.type.dtype, shape, (uniform ? [first] : products).map((n) => 1 / n)));
}

/** (Σ |x|^p)^(1/p) over each window; padding adds nothing. */
function lpPool(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const p = node.opset < 2 ? node.attrs.float('p', 2) : node.attrs.int('p', 2);
  return root(b, b.one('sumPool', [power(b, x, p)], coreWindow(windowOf(cx, x))), p);
}

const power = (b: Builder, x: Value, p: number): Value => (p === 2 ? b.mul(x, x) : p === 1 ? b.unary('abs', x) : b.pow(b.unary('abs', x), p));
const root = (b: Builder, x: Value, p: number): Value => (p === 2 ? b.unary('sqrt', x) : p === 1 ? x : b.pow(x, 1 / p));

const overSpace = (f: (cx: LowerContext, x: Value, axes: readonly number[]) => Value): Row[] => [
  row(1, 1, (cx) => {
    const x = cx.input(0);
    if (x.type.shape.length < 2) cx.bad(`the input has rank ${x.type.shape.length}: expected at least N and C`);
    return f(cx, x, range(x.type.shape.length).slice(2));
  }),
];

export const poolOps: LoweringTable = {
  MaxPool: [row(1, 1, maxPool, [1, 2])],
  AveragePool: [row(1, 1, averagePool)],
  LpPool: [row(1, 1, lpPool)],
  GlobalAveragePool: overSpace((cx, x, axes) => mean(cx.b, x, axes, true)),
  GlobalMaxPool: overSpace((cx, x, axes) => cx.b.reduce('reduceMax', x, axes, true)),
  GlobalLpPool: overSpace((cx, x, axes) => {
    const { attrs, opset } = cx.node;
    const p = opset < 2 ? attrs.float('p', 2) : attrs.int('p', 2);
    return root(cx.b, cx.b.reduce('reduceSum', power(cx.b, x, p), axes, true), p);
  }),
};
