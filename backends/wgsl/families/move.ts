/** Ops that move elements, element by element of the result. */
import { num, nums, str } from '../../../ir/op.ts';
import type { Value } from '../../../ir/graph.ts';
import { rowMajor } from '../../../ir/type.ts';
import type { Evaluator, Index } from '../evaluator.ts';
import { literal } from '../literal.ts';
import { registerOf } from '../types.ts';
import { address, plus, times } from '../writer.ts';
import type { ElementEmitter } from './index.ts';

export const moveElement: ElementEmitter = (e, op, index) => {
  const [x] = op.operands as [Value];
  switch (op.name) {
    case 'copy': return [e.at(x, index)];
    case 'transpose': {
      const perm = nums(op.attrs, 'perm');
      return [e.at(x, x.type.shape.map((_, axis) => index[perm.indexOf(axis)]!))];
    }
    case 'broadcast': return [e.at(x, index.slice(index.length - x.type.shape.length))];
    case 'slice': {
      const [starts, steps] = [nums(op.attrs, 'starts'), nums(op.attrs, 'steps')];
      return [e.at(x, index.map((i, axis) => e.w.let('i', plus(times(i, steps[axis]!), starts[axis]!))))];
    }
    case 'reshape': return [e.at(x, insertsOnes(x.type.shape, op.results[0]!.type.shape) ? renumbered(index, op.results[0]!.type.shape, x.type.shape) : digits(e, e.w.let('e', address(index, rowMajor(op.results[0]!.type.shape))), x.type.shape))];
    case 'iota': return [`${registerOf(op.results[0]!.type.dtype)}(${index[num(op.attrs, 'axis')]!})`];
    case 'concat': return [concatenated(e, op.operands, index, num(op.attrs, 'axis'))];
    default: return [padded(e, x, index, { lo: nums(op.attrs, 'lo'), mode: str(op.attrs, 'mode'), value: num(op.attrs, 'value') })];
  }
};

const notOne = (shape: readonly number[]): number[] => shape.flatMap((d, axis) => (d === 1 ? [] : [axis]));
/** Whether two shapes differ by axes of size 1 alone. */
const insertsOnes = (a: readonly number[], b: readonly number[]): boolean => notOne(a).map((axis) => a[axis]).join() === notOne(b).map((axis) => b[axis]).join();
/** An index of a shape, for another that differs by axes of size 1. */
function renumbered(index: Index, from: readonly number[], to: readonly number[]): string[] {
  const kept = notOne(from).map((axis) => index[axis]!);
  return to.map((d) => (d === 1 ? '0' : kept.shift()!));
}

/** The index of element number `linear` of a tensor in row-major order. */
export function digits(e: Pick<Evaluator, 'w'>, linear: string, shape: readonly number[]): string[] {
  const strides = rowMajor(shape);
  return shape.map((d, axis) => {
    if (d === 1) return '0';
    const high = strides[axis] === 1 ? linear : `${linear} / ${strides[axis]!}`;
    return e.w.let('i', shape.slice(0, axis).every((s) => s === 1) ? high : `(${high}) % ${d}`);
  });
}

function concatenated(e: Evaluator, xs: readonly Value[], index: Index, axis: number): string {
  const at = e.w.variable('y', registerOf(xs[0]!.type.dtype), literal(e.w, registerOf(xs[0]!.type.dtype), 0));
  let offset = 0;
  for (const x of xs) {
    const from = offset;
    offset += x.type.shape[axis]!;
    e.w.block(`if (${index[axis]!} >= ${from} && ${index[axis]!} < ${offset})`, () => e.scoped(() => {
      e.w.line(`${at} = ${e.at(x, index.map((i, d) => (d === axis ? e.w.let('i', plus(i, -from)) : i)))};`);
    }));
  }
  return at;
}

function padded(e: Evaluator, x: Value, index: Index, { lo, mode, value }: { readonly lo: readonly number[]; readonly mode: string; readonly value: number }): string {
  const { w } = e;
  const { shape, dtype } = x.type;
  const at = index.map((i, axis) => w.let('i', plus(i, -lo[axis]!)));
  if (mode !== 'constant') return e.at(x, at.map((i, axis) => w.let('i', folded(i, shape[axis]!, mode))));
  const register = registerOf(dtype);
  const y = w.variable('y', register, literal(w, register, value));
  const inside = at.map((i, axis) => `${i} >= 0 && ${i} < ${shape[axis]!}`);
  w.block(`if (${inside.length > 0 ? inside.join(' && ') : 'true'})`, () => e.scoped(() => w.line(`${y} = ${e.at(x, at)};`)));
  return y;
}

/** The element that position i of an axis of n stands for. */
function folded(i: string, n: number, mode: string): string {
  if (mode === 'edge') return `clamp(${i}, 0, ${n - 1})`;
  if (mode === 'wrap') return `((${i}) % ${n} + ${n}) % ${n}`;
  if (n === 1) return '0';
  const period = 2 * (n - 1);
  const p = `((${i}) % ${period} + ${period}) % ${period}`;
  return `min(${p}, ${period} - ${p})`;
}
