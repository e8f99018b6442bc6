/** Linear resampling along one axis with static taps: every form of Resize and Upsample. */
import { plain, type Dim } from '../../axes.ts';
import type { Attrs } from '../../graph.ts';
import { num, nums, type OpDef } from '../../op.ts';
import { showType, sizeOf, tensorType } from '../../type.ts';
import { arity, check, dimsOf, fresh, namesOf, nth, numbers, requireAxis, requireFloat, writeDims } from '../helpers.ts';

export const resample: OpDef = {
  name: 'resample',
  doc: 'y[h] = Σ_t weights[h·taps+t] · x[indices[h·taps+t]] along `axis`, h below `size`; a tap of weight 0 is not read. With one tap of weight 1 it only moves elements, of any type',
  family: 'resample',
  operands: ['x'],
  attrs: {
    axis: { kind: 'number', default: 'required' },
    size: { kind: 'number', default: 'required' },
    taps: { kind: 'number', default: 'required' },
    indices: { kind: 'numbers', default: 'required' },
    weights: { kind: 'numbers', default: 'required' },
  },
  infer(operands, a) {
    const [x] = arity(operands, 1);
    const [axis, size, taps] = [num(a, 'axis'), num(a, 'size'), num(a, 'taps')];
    requireAxis(axis, x);
    check(Number.isInteger(size) && size >= 1, () => `size=${size} must be a positive integer`);
    check(Number.isInteger(taps) && taps >= 1, () => `taps=${taps} must be a positive integer`);
    for (const name of ['indices', 'weights']) check(nums(a, name).length === size * taps, () => `${name} has ${nums(a, name).length} entries, expected ${size} · ${taps}`);
    const wrong = nums(a, 'indices').find((i) => !Number.isInteger(i) || i < 0 || i >= x.shape[axis]!);
    check(wrong === undefined, () => `index ${wrong} is outside axis ${axis} of ${showType(x)}`);
    if (!moves(a)) requireFloat(x);
    return [tensorType(x.dtype, x.shape.map((d, i) => (i === axis ? size : d)))];
  },
  axes(_, a, [y]) {
    const axis = num(a, 'axis');
    const dims = dimsOf(y!.shape);
    const t: Dim = { name: 't', size: num(a, 'taps'), role: 'reduce' };
    const h = namesOf(dims)[axis]!;
    const one = t.size === 1;
    const space = one ? dims : [...dims, t];
    const table = { kind: 'table', dim: h, ...(one ? {} : { inner: 't' }), at: nums(a, 'indices') } as const;
    const reads = dims.map((d, i) => (i === axis ? table : plain(d.name)));
    const indexed = moves(a) ? [] : one ? [h] : [h, 't'];
    const piece = { dims: namesOf(space), reads: [reads], writes: writeDims(dims), indexed };
    return { space, stages: [{ pieces: [piece], combine: one ? 'none' : 'sum', product: false }] };
  },
  reference([x], a, [y]) {
    const axis = num(a, 'axis');
    const [size, taps] = [num(a, 'size'), num(a, 'taps')];
    const [indices, weights] = [nums(a, 'indices'), nums(a, 'weights')];
    const outer = sizeOf(x!.shape.slice(0, axis));
    const inner = sizeOf(x!.shape.slice(axis + 1));
    const length = x!.shape[axis]!;
    const moving = moves(a);
    const out = fresh(y!);
    for (let o = 0; o < outer; o++) {
      for (let h = 0; h < size; h++) {
        const to = (o * size + h) * inner;
        if (moving) {
          const from = (o * length + indices[h]!) * inner;
          out.data.set(x!.data.subarray(from, from + inner) as Float64Array & BigInt64Array & BigUint64Array, to);
          continue;
        }
        for (let t = h * taps; t < (h + 1) * taps; t++) {
          if (weights[t] === 0) continue;
          addScaled(numbers(out), to, numbers(x!), (o * length + indices[t]!) * inner, weights[t]!, inner);
        }
      }
    }
    return [out];
  },
  grad: {
    build(b, op, [dy]) {
      const shape = nth(op.operands, 0).type.shape;
      return [dy && b.one('resample', [dy], transposed(op.attrs, shape[num(op.attrs, 'axis')]!))];
    },
  },
};

/** Whether elements are only moved. */
const moves = (a: Attrs): boolean => num(a, 'taps') === 1 && nums(a, 'weights').every((w) => w === 1);

function addScaled(to: Float64Array, q: number, from: Float64Array, p: number, scale: number, n: number): void {
  for (let i = 0; i < n; i++) to[q + i]! += scale * from[p + i]!;
}

/** The attributes of the transposed map, back to an axis of `length`. Elements that fewer taps read than others are padded with taps of weight 0. */
function transposed(a: Attrs, length: number): Attrs {
  const taps = num(a, 'taps');
  const readers = Array.from({ length }, (): { h: number; weight: number }[] => []);
  nums(a, 'indices').forEach((from, i) => {
    const weight = nums(a, 'weights')[i]!;
    if (weight !== 0) readers[from]!.push({ h: Math.floor(i / taps), weight });
  });
  const most = Math.max(1, ...readers.map((r) => r.length));
  const slots = readers.flatMap((r) => Array.from({ length: most }, (_, t) => r[t] ?? { h: 0, weight: 0 }));
  return { axis: num(a, 'axis'), size: length, taps: most, indices: slots.map((s) => s.h), weights: slots.map((s) => s.weight) };
}
