/** Matrix products: MatMul, Gemm, Einsum and the integer forms. Each is a `contract` between operands without broadcast axes. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { isInteger, sameShape } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { alongAxis, range, row } from './helpers.ts';

const letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';

/** numpy's matmul: vectors are matrices with an axis that is dropped again; axes before the last two broadcast. */
export function matmul(cx: LowerContext, x: Value, y: Value): Value {
  const { b } = cx;
  if (x.type.shape.length === 0 || y.type.shape.length === 0) cx.bad('an operand is a scalar: expected at least one axis');
  const xBatch = x.type.shape.slice(0, -2);
  const yBatch = y.type.shape.slice(0, -2);
  const rank = Math.max(xBatch.length, yBatch.length);
  const names = letters.slice(0, rank);
  const matrix = (v: Value, batch: readonly number[], tail: string): { value: Value; spec: string } => {
    const kept = range(batch.length).filter((i) => batch[i] !== 1);
    const spec = kept.map((i) => names[rank - batch.length + i]).join('') + tail;
    return { value: b.reshape(v, [...kept.map((i) => batch[i]!), ...v.type.shape.slice(-tail.length)]), spec };
  };
  const left = matrix(x, xBatch, x.type.shape.length === 1 ? 'Y' : 'XY');
  const right = matrix(y, yBatch, y.type.shape.length === 1 ? 'Y' : 'YZ');
  const size = (i: number): number => Math.max(batchSize(xBatch, rank, i), batchSize(yBatch, rank, i));
  const shape = range(rank).map((i) => (batchSize(xBatch, rank, i) === 0 || batchSize(yBatch, rank, i) === 0 ? 0 : size(i)));
  const tail = `${left.spec.includes('X') ? 'X' : ''}${right.spec.includes('Z') ? 'Z' : ''}`;
  const inner = range(rank).filter((i) => left.spec.includes(names[i]!) || right.spec.includes(names[i]!)).map((i) => names[i]!).join('');
  const product = b.contract(`${left.spec},${right.spec}->${inner}${tail}`, left.value, right.value);
  return b.reshape(product, [...shape, ...product.type.shape.slice(product.type.shape.length - tail.length)]);
}

const batchSize = (batch: readonly number[], rank: number, i: number): number => batch[i - (rank - batch.length)] ?? 1;

function gemm(cx: LowerContext): Value {
  const { b, node } = cx;
  const [x, y, c] = [cx.input(0), cx.input(1), cx.optionalInput(2)];
  const [alpha, beta] = [node.attrs.float('alpha', 1), node.attrs.float('beta', 1)];
  const integer = isInteger(x.type.dtype);
  if (integer && (alpha !== 1 || beta !== 1)) cx.unsupported('Gemm of integers with alpha or beta', 'only 1 is implemented');
  if (x.type.shape.length !== 2 || y.type.shape.length !== 2) cx.bad('A and B have to be matrices');
  const spec = `${node.attrs.int('transA', 0) !== 0 ? 'km' : 'mk'},${node.attrs.int('transB', 0) !== 0 ? 'nk' : 'kn'}->mn`;
  const product = scaled(b, b.contract(spec, x, y), alpha);
  if (c && node.opset < 7 && node.attrs.int('broadcast', 0) === 0 && !sameShape(c.type.shape, product.type.shape)) cx.bad(`C has shape [${c.type.shape.join(',')}] and the attribute broadcast is not set`);
  return c && beta !== 0 ? b.add(product, scaled(b, c, beta)) : product;
}

const scaled = (b: Builder, x: Value, by: number): Value => (by === 1 ? x : b.mul(x, by));

/** Integers of 8 bits less their zero points, in i32. A vector of zero points counts along `axis` of the matrix. */
export function centred(b: Builder, x: Value, zero: Value | undefined, axis: number): Value {
  const wide = b.cast(x, 'i32');
  if (!zero) return wide;
  const point = b.cast(zero, 'i32');
  if (point.type.shape.length === x.type.shape.length && point.type.shape.length > 1) return b.sub(wide, point);
  const single = point.type.shape.every((d) => d === 1);
  return b.sub(wide, single ? b.reshape(point, []) : alongAxis(b, point, axis, x.type.shape.length));
}

function matmulInteger(cx: LowerContext): Value {
  const [x, y] = [cx.input(0), cx.input(1)];
  const rows = Math.max(0, x.type.shape.length - 2);
  return matmul(cx, centred(cx.b, x, cx.optionalInput(2), rows), centred(cx.b, y, cx.optionalInput(3), y.type.shape.length - 1));
}

interface Term { readonly value: Value; readonly axes: string }

/** Takes the diagonal of axes that share a letter, so that each letter stands once. */
function diagonal(b: Builder, term: Term): Term {
  const repeated = [...term.axes].find((c, i) => term.axes.indexOf(c) !== i);
  if (repeated === undefined) return term;
  const first = term.axes.indexOf(repeated);
  const second = term.axes.indexOf(repeated, first + 1);
  const rest = range(term.axes.length).filter((i) => i !== first && i !== second);
  const moved = b.transpose(term.value, [...rest, first, second]);
  const n = moved.type.shape[rest.length]!;
  const lead = moved.type.shape.slice(0, rest.length);
  const flat = b.reshape(moved, [...lead, n * n]);
  const value = b.slice(flat, [...lead.map(() => 0), 0], [...lead, n], [...lead.map(() => 1), n + 1]);
  return diagonal(b, { value, axes: rest.map((i) => term.axes[i]).join('') + repeated });
}

/** Joins operands from left to right; a letter that no later operand and not the result names is summed as soon as it can be. */
function einsum(cx: LowerContext): Value {
  const { b, node } = cx;
  const equation = node.attrs.string('equation').replaceAll(' ', '');
  const [left, right, more] = equation.split('->');
  const inputs = (left ?? '').split(',');
  if (more !== undefined || inputs.length !== node.inputs.length) cx.bad(`equation "${equation}" does not describe ${node.inputs.length} operands`);
  const values = inputs.map((_, i) => cx.input(i));
  // Letters for what `...` covers, counted from the right so that operands broadcast.
  const free = [...letters].filter((c) => !equation.includes(c));
  const covered = inputs.map((axes, i) => (axes.includes('...') ? values[i]!.type.shape.length - axes.replace('...', '').length : 0));
  const most = Math.max(0, ...covered);
  const dots = free.slice(0, most).join('');
  const named = inputs.map((axes, i) => axes.replace('...', dots.slice(most - covered[i]!)));
  const used = named.join('');
  const explicit = right ?? dotsFirst(inputs) + [...new Set([...used.replace(new RegExp(`[${dots}]`, 'g'), () => '')])].filter((c) => used.split(c).length === 2).sort().join('');
  const out = explicit.replace('...', dots);
  named.forEach((axes, i) => {
    if (/[^A-Za-z]/.test(axes) || axes.length !== values[i]!.type.shape.length) cx.bad(`"${inputs[i]}" in equation "${equation}" does not fit an operand of rank ${values[i]!.type.shape.length}`);
  });
  if ([...out].some((c) => !used.includes(c)) || new Set(out).size !== out.length) cx.bad(`the result "${explicit}" of equation "${equation}" names an axis twice, or one that no operand has`);
  const sizes = new Map<string, number>();
  named.forEach((axes, i) => [...axes].forEach((c, at) => {
    const d = values[i]!.type.shape[at]!;
    const known = sizes.get(c) ?? 1;
    if (known !== 1 && d !== 1 && known !== d) cx.bad(`axis "${c}" of equation "${equation}" is ${known} and ${d}`);
    sizes.set(c, known === 1 ? d : known);
  }));
  const terms = named.map((axes, i) => dropOnes(b, diagonal(b, { value: values[i]!, axes }), sizes));
  const joined = terms.slice(1).reduce((so, term, i) => {
    const later = terms.slice(i + 2).map((t) => t.axes).join('') + out;
    const kept = [...new Set(so.axes + term.axes)].filter((c) => later.includes(c)).join('');
    return { value: b.contract(`${so.axes},${term.axes}->${kept}`, so.value, term.value), axes: kept };
  }, terms[0]!);
  const summed = b.reduce('reduceSum', joined.value, range(joined.axes.length).filter((i) => !out.includes(joined.axes[i]!)));
  const rest = [...joined.axes].filter((c) => out.includes(c)).join('');
  const present = [...out].filter((c) => rest.includes(c));
  return b.broadcast(b.reshape(b.transpose(summed, present.map((c) => rest.indexOf(c))), [...out].map((c) => (rest.includes(c) ? sizes.get(c)! : 1))), [...out].map((c) => sizes.get(c)!));
}

const dotsFirst = (inputs: readonly string[]): string => (inputs.some((axes) => axes.includes('...')) ? '...' : '');

/** Drops axes of size 1: they broadcast, or they sum one element. */
function dropOnes(b: Builder, term: Term, sizes: ReadonlyMap<string, number>): Term {
  const kept = range(term.axes.length).filter((i) => term.value.type.shape[i] !== 1 || sizes.get(term.axes[i]!) === 0);
  return { value: b.reshape(term.value, kept.map((i) => term.value.type.shape[i]!)), axes: kept.map((i) => term.axes[i]).join('') };
}

export const matmulOps: LoweringTable = {
  MatMul: [row(1, 2, (cx) => matmul(cx, cx.input(0), cx.input(1)))],
  Gemm: [
    row(1, 3, gemm),
    row(11, [2, 3], gemm),
  ],
  MatMulInteger: [row(10, [2, 4], matmulInteger)],
  Einsum: [row(12, [1, Infinity], einsum)],
};
