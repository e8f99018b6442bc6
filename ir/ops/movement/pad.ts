/** Padding and cropping. */
import { at, put, type Axes, type Index, type Outside, type Piece } from '../../axes.ts';
import type { Builder } from '../../builder.ts';
import type { Attrs, Value } from '../../graph.ts';
import { isBig } from '../../number.ts';
import { num, nums, str, type OpDef } from '../../op.ts';
import { rowMajor, showType, type TensorType } from '../../type.ts';
import { arity, bigints, check, dimsOf, fresh, namesOf, numbers, nth, requirePerAxis, requireShape, writeDims } from '../helpers.ts';
import { copyStrided } from '../strided.ts';

export const pad: OpDef = {
  name: 'pad',
  doc: 'x[i - lo], and outside x the value, the nearest element (edge), the mirror image without the edge (reflect) or the other end (wrap); negative lo and hi crop',
  family: 'move',
  operands: ['x'],
  attrs: {
    lo: { kind: 'numbers', default: 'required' },
    hi: { kind: 'numbers', default: 'required' },
    mode: { kind: 'string', default: 'constant' },
    value: { kind: 'number', default: 0 },
  },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    const { lo, hi, mode } = read(attrs);
    check(['constant', 'edge', 'reflect', 'wrap'].includes(mode), () => `mode ${mode} is none of constant, edge, reflect, wrap`);
    requirePerAxis('lo', lo, x.shape.length);
    requirePerAxis('hi', hi, x.shape.length);
    const shape = x.shape.map((d, i) => d + lo[i]! + hi[i]!);
    requireShape(shape);
    x.shape.forEach((d, i) => check(mode === 'constant' || d > 0 || shape[i] === 0, () => `axis ${i} of ${showType(x)} has nothing to repeat`));
    return [{ dtype: x.dtype, shape }];
  },
  axes([x], attrs, [y]): Axes {
    const { lo, mode, value } = read(attrs);
    const outside: Outside | undefined = mode !== 'constant' ? (mode as Outside) : Object.is(value, 0) ? '0' : value === -Infinity ? '-inf' : undefined;
    if (outside === undefined) return boxes(x!, y!, lo);
    const space = dimsOf(y!.shape);
    const reads = space.map((d, i): Index => at([[d.name, 1]], -lo[i]!, outside));
    return { space, stages: [{ pieces: [{ dims: namesOf(space), reads: [reads], writes: writeDims(space), indexed: [] }], combine: 'none', product: false }] };
  },
  reference([x], attrs, [type]) {
    const { lo, mode, value } = read(attrs);
    const y = fresh(type!);
    if (mode === 'constant') {
      if (isBig(y.dtype)) bigints(y).fill(BigInt(value));
      else numbers(y).fill(value);
      copyInterior(x!, y, lo);
    } else {
      const maps = y.shape.map((size, i) => Array.from({ length: size }, (_, p) => foldIndex(p - lo[i]!, x!.shape[i]!, mode)));
      gatherAxes(x!, y, maps);
    }
    return [y];
  },
  grad: {
    build(b, op, [g]) {
      if (!g) return [undefined];
      const x = nth(op.operands, 0).type;
      const { lo, hi, mode } = read(op.attrs);
      if (mode === 'constant') return [b.one('pad', [g], { lo: lo.map((p) => -p), hi: hi.map((p) => -p) })];
      return [x.shape.reduce((sum, d, axis) => collect(b, sum, axis, d, lo[axis]!, mode), g)];
    },
  },
};

interface PadAttrs { readonly lo: readonly number[]; readonly hi: readonly number[]; readonly mode: string; readonly value: number }
const read = (a: Attrs): PadAttrs => ({ lo: nums(a, 'lo'), hi: nums(a, 'hi'), mode: str(a, 'mode'), value: num(a, 'value') });

/** The element that index i of an axis of n stands for. */
function foldIndex(i: number, n: number, mode: string): number {
  if (mode === 'edge') return Math.min(Math.max(i, 0), n - 1);
  if (mode === 'wrap') return ((i % n) + n) % n;
  if (n === 1) return 0;
  const period = 2 * (n - 1);
  const p = ((i % period) + period) % period;
  return p < n ? p : period - p;
}

/** Copies the part of x that lies inside y. */
function copyInterior(x: { readonly shape: readonly number[]; readonly data: Parameters<typeof copyStrided>[0] }, y: typeof x, lo: readonly number[]): void {
  const [from, to] = [rowMajor(x.shape), rowMajor(y.shape)];
  const first = y.shape.map((_, i) => Math.max(0, lo[i]!));
  const count = y.shape.map((size, i) => Math.max(0, Math.min(size, x.shape[i]! + lo[i]!) - first[i]!));
  const readAt = first.reduce((sum, f, i) => sum + (f - lo[i]!) * from[i]!, 0);
  const writeAt = first.reduce((sum, f, i) => sum + f * to[i]!, 0);
  copyStrided(x.data, y.data, count, { strides: from, offset: readAt }, { strides: to, offset: writeAt });
}

/** y[i, j, …] = x[maps[0][i], maps[1][j], …], an axis at a time. */
function gatherAxes(x: { readonly shape: readonly number[]; readonly data: Parameters<typeof copyStrided>[0] }, y: typeof x, maps: readonly (readonly number[])[]): void {
  const [from, to] = [rowMajor(x.shape), rowMajor(y.shape)];
  const [source, target] = [x.data as Float64Array, y.data as Float64Array];
  const visit = (axis: number, p: number, q: number): void => {
    if (axis === maps.length) {
      target[q] = source[p]!;
      return;
    }
    maps[axis]!.forEach((m, i) => visit(axis + 1, p + m * from[axis]!, q + i * to[axis]!));
  };
  visit(0, 0, 0);
}

/** The adjoint of a repeating pad along one axis: element j sums the cotangents of all positions that repeat it. */
function collect(b: Builder, g: Value, axis: number, size: number, lo: number, mode: string): Value {
  const from = g.type.shape[axis]!;
  if (from === size && lo === 0) return g;
  const sources: number[][] = Array.from({ length: size }, () => []);
  for (let i = 0; i < from; i++) sources[foldIndex(i - lo, size, mode)]!.push(i);
  const taps = Math.max(1, ...sources.map((s) => s.length));
  const slots = sources.flatMap((s) => Array.from({ length: taps }, (_, t) => s[t]));
  if (from === 0) return b.zeros({ dtype: g.type.dtype, shape: g.type.shape.map((d, i) => (i === axis ? size : d)) });
  return b.one('resample', [g], { axis, size, taps, indices: slots.map((i) => i ?? 0), weights: slots.map((i) => (i === undefined ? 0 : 1)) });
}

/** Axes of a pad with a value that no read gives: the interior is one piece, and the border is cut into boxes that read nothing. */
function boxes(x: TensorType, y: TensorType, lo: readonly number[]): Axes {
  const space: { name: string; size: number; role: 'parallel' }[] = [];
  const pieces: Piece[] = [];
  const box = (ranges: readonly (readonly [from: number, to: number])[], inside: boolean): void => {
    if (ranges.some(([from, to]) => to <= from)) return;
    const dims = ranges.map(([from, to], i) => ({ name: `d${i}_${pieces.length}`, size: to - from, role: 'parallel' as const }));
    space.push(...dims);
    pieces.push({
      dims: namesOf(dims),
      reads: [inside ? dims.map((d, i) => at([[d.name, 1]], ranges[i]![0] - lo[i]!)) : null],
      writes: dims.map((d, i) => ({ ...put(d.name), plus: ranges[i]![0] })),
      indexed: [],
    });
  };
  const inner = y.shape.map((size, i): [number, number] => [Math.min(size, Math.max(0, lo[i]!)), Math.max(0, Math.min(size, x.shape[i]! + lo[i]!))]);
  // Where no element of x is inside, the border is everything.
  if (inner.some(([from, to]) => to <= from)) box(y.shape.map((size) => [0, size]), false);
  else {
    box(inner, true);
    y.shape.forEach((size, axis) => {
      const rest = (range: [number, number]): [number, number][] => y.shape.map((d, i) => (i < axis ? inner[i]! : i === axis ? range : [0, d]));
      box(rest([0, inner[axis]![0]]), false);
      box(rest([inner[axis]![1], size]), false);
    });
  }
  return { space, stages: [{ pieces, combine: 'none', product: false }] };
}
