/** Matrix products, convolutions and gradients of convolutions as one thing: batches of C[m, n] = Σ_k A[m, k] · B[k, n]. */
import { isContractRoot } from '../../../ir/fused.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { num, nums, str } from '../../../ir/op.ts';
import { sizeOf } from '../../../ir/type.ts';
import { lettersOf, sweepAxes, type SweepAxis } from '../families/contract.ts';
import type { Body, Kernel, Located } from '../kernel.ts';
import { plus, times } from '../writer.ts';

/** A matrix whose elements are read by two numbers: what `lead` writes for one of them is shared by all reads at it. */
export interface Matrix {
  /** Writes what depends on the batch and the row of A (the column of B); gives reads at k. */
  lead(batch: string, at: string): (k: KIndex) => string;
  /** Whether neighbours along k lie nearer in memory than neighbours along the other axis. */
  readonly contiguousK: boolean;
}

/** An index along k, decoded once for all reads that need its parts. */
export class KIndex {
  readonly k: string;
  readonly #parts = new Map<string, readonly string[]>();
  constructor(k: string) {
    this.k = k;
  }
  /** What `make` writes for this k, written once under a key. */
  parts(key: string, make: () => readonly string[]): readonly string[] {
    const known = this.#parts.get(key) ?? make();
    this.#parts.set(key, known);
    return known;
  }
}

export interface ProductView {
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: Matrix;
  readonly b: Matrix;
  /** The index of an element of the root's result. */
  result(batch: string, m: string, n: string): string[];
}

/** The view of a contraction's root over a kernel's operands; undefined for those that have none (transposed convolutions with strides, sums of one operand alone). */
export function viewOf(kernel: Kernel, body: Body, root: Op): ProductView | undefined {
  const place = (v: Value): number => body.inputs.indexOf(v);
  const [p, q] = root.operands.map(place) as [number, number];
  if (p < 0 || q < 0) return undefined;
  if (root.name === 'contract') return productView(kernel, root, p, q);
  if (root.name === 'conv') return convView(kernel, root, p, q);
  return root.name === 'convWeight' ? weightView(kernel, root, p, q) : undefined;
}

export const rootOf = (body: Body): Op | undefined => body.ops.find(isContractRoot);

/** Some axes of a tensor as one: sizes and strides, those that lie evenly in memory merged. */
interface Axes { readonly sizes: readonly number[]; readonly strides: readonly number[] }

function merged(sizes: readonly number[], strides: readonly number[]): Axes {
  const out: { size: number; stride: number }[] = [];
  sizes.forEach((size, i) => {
    if (size === 1) return;
    const last = out.at(-1);
    if (last && last.stride === size * strides[i]!) out[out.length - 1] = { size: last.size * size, stride: strides[i]! };
    else out.push({ size, stride: strides[i]! });
  });
  return { sizes: out.map((o) => o.size), strides: out.map((o) => o.stride) };
}

/** The digits of a number: indices along axes of these sizes, the last fastest. */
function digits(kernel: Kernel, linear: string, sizes: readonly number[]): string[] {
  const { w } = kernel;
  if (linear === '0') return sizes.map(() => '0');
  return sizes.map((d, i) => {
    const step = sizeOf(sizes.slice(i + 1));
    if (d === 1) return '0';
    const high = step === 1 ? linear : `${linear} / ${step}`;
    return w.let('i', sizes.slice(0, i).every((s) => s === 1) ? high : `(${high}) % ${d}`);
  });
}

/** Σ digit · stride of a number along merged axes. */
const addressAlong = (kernel: Kernel, linear: string, axes: Axes): string =>
  digits(kernel, linear, axes.sizes).reduce((sum, i, axis) => plus(sum, times(i, axes.strides[axis]!)), '0');

const shortest = (axes: Axes): number => axes.strides.at(-1) ?? Infinity;

/** A matrix whose batch, row and k are each some axes of a tensor. */
function stridedMatrix(kernel: Kernel, operand: number, batch: Axes, lead: Axes, k: Axes): Matrix {
  const { offset } = kernel.operands[operand]!;
  return {
    contiguousK: shortest(k) < shortest(lead),
    lead(b, at) {
      const start = kernel.w.let('p', plus(plus(addressAlong(kernel, b, batch), addressAlong(kernel, at, lead)), offset));
      return (index) => {
        const [along] = index.parts(`${k.sizes.join()}/${k.strides.join()}`, () => [kernel.w.let('q', addressAlong(kernel, index.k, k))]);
        return kernel.loadWord(operand, plus(start, along!));
      };
    },
  };
}

function productView(kernel: Kernel, root: Op, p: number, q: number): ProductView | undefined {
  const [x, y] = [kernel.operands[p]!, kernel.operands[q]!];
  const { a, b, result, sizes } = lettersOf(str(root.attrs, 'spec'), x.type.shape, y.type.shape);
  const summed = [...a].filter((l) => b.includes(l) && !result.includes(l));
  const batch = [...result].filter((l) => a.includes(l) && b.includes(l));
  const rows = [...result].filter((l) => a.includes(l) && !b.includes(l));
  const columns = [...result].filter((l) => !a.includes(l) && b.includes(l));
  if ([...a, ...b].some((l) => !result.includes(l) && !summed.includes(l))) return undefined;
  const size = (letters: readonly string[]): number => letters.reduce((n, l) => n * sizes.get(l)!, 1);
  const axes = (t: Located, letters: string, which: readonly string[]): Axes => merged(which.map((l) => sizes.get(l)!), which.map((l) => t.strides[letters.indexOf(l)]!));
  return {
    batch: size(batch), m: size(rows), n: size(columns), k: size(summed),
    a: stridedMatrix(kernel, p, axes(x, a, batch), axes(x, a, rows), axes(x, a, summed)),
    b: stridedMatrix(kernel, q, axes(y, b, batch), axes(y, b, columns), axes(y, b, summed)),
    result(g, m, n) {
      const at = new Map<string, string>();
      for (const [letters, linear] of [[batch, g], [rows, m], [columns, n]] as const) digits(kernel, linear, letters.map((l) => sizes.get(l)!)).forEach((i, k) => at.set(letters[k]!, i));
      return [...result].map((l) => at.get(l)!);
    },
  };
}

/** Rows: channels of the result of one group. Columns: its pixels, of all samples. k: channels and taps. */
function convView(kernel: Kernel, root: Op, p: number, q: number): ProductView {
  const [x, w] = [kernel.operands[p]!, kernel.operands[q]!];
  const groups = num(root.attrs, 'groups');
  const out = root.results[0]!.type.shape;
  const taps = w.type.shape.slice(2);
  const sweep = sweepAxes(root, x.type.shape.slice(2), taps, out.slice(2));
  const [rows, inputs] = [w.type.shape[0]! / groups, w.type.shape[1]!];
  const pixels = [out[0]!, ...out.slice(2)];
  return {
    batch: groups, m: rows, n: sizeOf(pixels), k: inputs * sizeOf(taps),
    a: stridedMatrix(kernel, q, merged([groups], [rows * w.strides[0]!]), merged([rows], [w.strides[0]!]), merged(w.type.shape.slice(1), w.strides.slice(1))),
    b: {
      contiguousK: false,
      lead(g, n) {
        const [sample, ...at] = digits(kernel, n, pixels);
        const start = kernel.w.let('p', [times(g, inputs * x.strides[1]!), times(sample!, x.strides[0]!), String(x.offset)].reduce(plus, '0'));
        const first = sweep.map((s, i) => kernel.w.let('h', plus(times(at[i]!, s.stride), -s.lo)));
        return (index) => {
          const [i, ...y] = index.parts('conv', () => digits(kernel, index.k, [inputs, ...taps]));
          return swept(kernel, p, plus(start, times(i!, x.strides[1]!)), sweep, first.map((h, d) => plus(h, times(y[d]!, sweep[d]!.dilation))));
        };
      },
    },
    result(g, m, n) {
      const [sample, ...at] = digits(kernel, n, pixels);
      return [sample!, kernel.w.let('o', plus(times(g, rows), m)), ...at];
    },
  };
}

/** Rows: channels of dy. Columns: channels of x and taps. k: samples of a part and pixels. */
function weightView(kernel: Kernel, root: Op, p: number, q: number): ProductView {
  const [x, dy] = [kernel.operands[p]!, kernel.operands[q]!];
  const groups = num(root.attrs, 'groups');
  const parts = Math.max(1, num(root.attrs, 'parts'));
  const taps = nums(root.attrs, 'kernel');
  const pixels = dy.type.shape.slice(2);
  const sweep = sweepAxes(root, x.type.shape.slice(2), taps, pixels);
  const [rows, inputs] = [dy.type.shape[1]! / groups, x.type.shape[1]! / groups];
  const share = x.type.shape[0]! / parts;
  const withParts = num(root.attrs, 'parts') > 0;
  return {
    batch: parts * groups, m: rows, n: inputs * sizeOf(taps), k: share * sizeOf(pixels),
    a: stridedMatrix(kernel, q, { sizes: [parts, groups], strides: [share * dy.strides[0]!, rows * dy.strides[1]!] }, merged([rows], [dy.strides[1]!]), merged([share, ...pixels], [dy.strides[0]!, ...dy.strides.slice(2)])),
    b: {
      contiguousK: true,
      lead(batch, n) {
        const [part, g] = digits(kernel, batch, [parts, groups]);
        const [i, ...y] = digits(kernel, n, [inputs, ...taps]);
        const start = kernel.w.let('p', [times(part!, share * x.strides[0]!), times(g!, inputs * x.strides[1]!), times(i!, x.strides[1]!), String(x.offset)].reduce(plus, '0'));
        const first = sweep.map((s, d) => kernel.w.let('h', plus(times(y[d]!, s.dilation), -s.lo)));
        return (index) => {
          const [sample, ...at] = index.parts('weight', () => digits(kernel, index.k, [share, ...pixels]));
          return swept(kernel, p, plus(start, times(sample!, x.strides[0]!)), sweep, first.map((h, d) => plus(h, times(at[d]!, sweep[d]!.stride))));
        };
      },
    },
    result(batch, m, n) {
      const [part, g] = digits(kernel, batch, [parts, groups]);
      const [i, ...y] = digits(kernel, n, [inputs, ...taps]);
      return [...(withParts ? [part!] : []), kernel.w.let('o', plus(times(g!, rows), m)), i!, ...y];
    },
  };
}

/** A read at swept positions, which are 0 outside. Reads outside a buffer give some element of it, which the choice then drops. */
function swept(kernel: Kernel, operand: number, start: string, sweep: readonly SweepAxis[], at: readonly string[]): string {
  const { w } = kernel;
  const { strides } = kernel.operands[operand]!;
  const h = at.map((i) => w.let('h', i));
  const inside = sweep.flatMap((s, d) => (alwaysInside(s) ? [] : [`u32(${h[d]!}) < ${s.size}u`]));
  const value = kernel.loadWord(operand, h.reduce((sum, i, d) => plus(sum, times(i, strides[2 + d]!)), start));
  return inside.length === 0 ? value : `select(0.0, ${value}, ${inside.join(' && ')})`;
}

const alwaysInside = (s: SweepAxis): boolean => s.lo <= 0 && (s.out - 1) * s.stride + (s.kernel - 1) * s.dilation - s.lo < s.size;
