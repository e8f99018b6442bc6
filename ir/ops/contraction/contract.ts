/** Two-operand Einstein summation: matrix products, dot and outer products. */
import { plain, put, type Dim } from '../../axes.ts';
import type { Builder } from '../../builder.ts';
import type { Value } from '../../graph.ts';
import { str, type OpDef } from '../../op.ts';
import { rowMajor, showType, sizeOf, tensorType, type TensorType } from '../../type.ts';
import { arity, check, namesOf, nth, requireNumeric, requireSameDType } from '../helpers.ts';
import { copyStrided, walk } from '../strided.ts';
import { addProduct } from './matmul.ts';
import { multilinear } from './multilinear.ts';

export const contract: OpDef = {
  name: 'contract',
  doc: 'result[letters] = Σ over letters that the result lacks of a[letters] · b[letters], as in spec "bmk,bkn->bmn"',
  family: 'contract',
  operands: ['a', 'b'],
  attrs: { spec: { kind: 'string', default: 'required' } },
  infer(operands, attrs) {
    const [a, b] = arity(operands, 2);
    requireNumeric(a);
    requireSameDType(a, b);
    const spec = parseSpec(str(attrs, 'spec'));
    const sizes = sizesOf(spec, a, b);
    return [tensorType(a.dtype, [...spec.result].map((l) => sizes.get(l)!))];
  },
  axes([a, b], attrs) {
    const spec = parseSpec(str(attrs, 'spec'));
    const sizes = sizesOf(spec, a!, b!);
    const summed = [...sizes.keys()].filter((l) => !spec.result.includes(l));
    const space = [...spec.result, ...summed].map((l): Dim => ({ name: l, size: sizes.get(l)!, role: spec.result.includes(l) ? 'parallel' : 'reduce' }));
    const piece = { dims: namesOf(space), reads: [[...spec.a].map(plain), [...spec.b].map(plain)], writes: [...spec.result].map(put), indexed: [] };
    return { space, stages: [{ pieces: [piece], combine: summed.length > 0 ? 'sum' : 'none', product: true }] };
  },
  reference([a, b], attrs, [result]) {
    const spec = parseSpec(str(attrs, 'spec'));
    const sizes = sizesOf(spec, a!, b!);
    const terms = [...sizes].reduce((n, [letter, size]) => (spec.result.includes(letter) ? n : n * size), 1);
    return [multilinear([a!, b!], result!, Math.max(1, terms), (x, y) => einsum(spec, sizes, x, y))];
  },
  grad: {
    build(b, op, [g]) {
      const [x, y] = [nth(op.operands, 0), nth(op.operands, 1)];
      const spec = parseSpec(str(op.attrs, 'spec'));
      if (!g) return [undefined, undefined];
      return [gradient(b, g, spec.result, y, spec.b, x, spec.a), gradient(b, g, spec.result, x, spec.a, y, spec.b)];
    },
  },
};

/** An operand's cotangent: a contraction with the other operand, repeated along the letters that were summed from this operand alone. */
function gradient(b: Builder, g: Value, result: string, other: Value, otherLetters: string, self: Value, letters: string): Value {
  const known = [...letters].filter((l) => result.includes(l) || otherLetters.includes(l));
  const part = b.contract(`${result},${otherLetters}->${known.join('')}`, g, other);
  return b.broadcast(b.reshape(part, self.type.shape.map((d, i) => (known.includes(letters[i]!) ? d : 1))), self.type.shape);
}

interface Spec { readonly a: string; readonly b: string; readonly result: string }

function parseSpec(text: string): Spec {
  const match = /^([a-zA-Z]*),([a-zA-Z]*)->([a-zA-Z]*)$/.exec(text);
  check(match !== null, () => `spec "${text}" is not of the form "mk,kn->mn"`);
  const [, a, b, result] = match as unknown as [string, string, string, string];
  for (const letters of [a, b, result]) check(new Set(letters).size === letters.length, () => `spec "${text}" repeats a letter within "${letters}"`);
  for (const l of result) check(a.includes(l) || b.includes(l), () => `spec "${text}": ${l} of the result is in no operand`);
  return { a, b, result };
}

/** The size of each letter, checked against both operands. */
function sizesOf(spec: Spec, a: TensorType, b: TensorType): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const [letters, t] of [[spec.a, a], [spec.b, b]] as const) {
    check(letters.length === t.shape.length, () => `"${letters}" names ${letters.length} axes, but ${showType(t)} has ${t.shape.length}`);
    t.shape.forEach((size, i) => {
      const l = letters[i]!;
      const known = sizes.get(l) ?? size;
      check(known === size, () => `axis ${l} has ${known} elements in ${showType(a)} and ${size} in ${showType(b)}`);
      sizes.set(l, size);
    });
  }
  return sizes;
}

/** Brings both operands to batches of matrices (batch m k, batch k n), multiplies, and brings the result to its order of axes. */
function einsum(spec: Spec, sizes: ReadonlyMap<string, number>, a: Float64Array, b: Float64Array): Float64Array {
  const inA = (l: string): boolean => spec.a.includes(l);
  const inB = (l: string): boolean => spec.b.includes(l);
  const batch = [...spec.result].filter((l) => inA(l) && inB(l));
  const rows = [...spec.result].filter((l) => inA(l) && !inB(l));
  const columns = [...spec.result].filter((l) => !inA(l) && inB(l));
  const summed = [...spec.a].filter((l) => inB(l) && !spec.result.includes(l));
  const shape = (letters: Iterable<string>): number[] => [...letters].map((l) => sizes.get(l)!);
  const [m, k, n] = [sizeOf(shape(rows)), sizeOf(shape(summed)), sizeOf(shape(columns))];
  const left = arrange(a, [...spec.a], [...batch, ...rows, ...summed], shape);
  const right = arrange(b, [...spec.b], [...batch, ...summed, ...columns], shape);
  const products = new Float64Array(sizeOf(shape(batch)) * m * n);
  for (let i = 0; i < sizeOf(shape(batch)); i++) {
    addProduct({ data: left, offset: i * m * k, stride: k }, { data: right, offset: i * k * n, stride: n }, { data: products, offset: i * m * n, stride: n }, m, k, n);
  }
  return arrange(products, [...batch, ...rows, ...columns], [...spec.result], shape);
}

/** Reorders axes by letter and sums the letters that are not wanted. Shares the data where nothing changes. */
function arrange(data: Float64Array, from: readonly string[], to: readonly string[], shape: (letters: Iterable<string>) => number[]): Float64Array {
  if (from.join('') === to.join('')) return data;
  const dropped = from.filter((l) => !to.includes(l));
  const own = rowMajor(shape(from));
  const order = [...to, ...dropped];
  const read = order.map((l) => own[from.indexOf(l)]!);
  const out = new Float64Array(sizeOf(shape(to)));
  const write = [...rowMajor(shape(to)), ...dropped.map(() => 0)];
  if (dropped.length === 0) {
    copyStrided(data, out, shape(order), { strides: read }, { strides: write });
    return out;
  }
  const w = walk(shape(order), [read, write]);
  const [s, t] = w.steps as [number, number];
  w.rows(([p, q]) => {
    for (let i = 0; i < w.length; i++) out[q! + i * t]! += data[p! + i * s]!;
  });
  return out;
}
