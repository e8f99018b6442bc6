/** Reductions, element by element of the result. */
import { lowest, highest } from '../../../ir/ops/helpers.ts';
import { flag, num, nums } from '../../../ir/op.ts';
import type { DType } from '../../../ir/type.ts';
import { literal } from '../literal.ts';
import { narrowed } from '../map.ts';
import { registerOf } from '../types.ts';
import type { Writer } from '../writer.ts';
import type { ElementEmitter } from './index.ts';

/** How a reduction joins values. `start` is its identity. */
export interface Join { readonly start: string; join(a: string, b: string): string }

/** The join of reduceSum, reduceProd, reduceMax or reduceMin. */
export function joinOf(w: Writer, name: string, dtype: DType): Join {
  const register = registerOf(dtype);
  const least = dtype === 'i64' ? 'i32' : dtype === 'u64' ? 'u32' : dtype;
  switch (name) {
    case 'reduceSum': return { start: literal(w, register, 0), join: (a, b) => `${a} + ${b}` };
    case 'reduceProd': return { start: literal(w, register, 1), join: (a, b) => `${a} * ${b}` };
    case 'reduceMax':
      if (register === 'bool') return { start: 'false', join: (a, b) => `${a} || ${b}` };
      return { start: literal(w, register, lowest(least)), join: (a, b) => (register === 'f32' ? w.call('max_nan', a, b) : `max(${a}, ${b})`) };
    default:
      if (register === 'bool') return { start: 'true', join: (a, b) => `${a} && ${b}` };
      return { start: literal(w, register, highest(least)), join: (a, b) => (register === 'f32' ? w.call('min_nan', a, b) : `min(${a}, ${b})`) };
  }
}

export const reduceElement: ElementEmitter = (e, op, index) => {
  const x = op.operands[0]!;
  const { shape, dtype } = x.type;
  const axes = op.name.startsWith('arg') ? [num(op.attrs, 'axis')] : nums(op.attrs, 'axes');
  /** The operand's element where the reduced axes are at `inner`. */
  const read = (inner: readonly string[]): string => {
    let [i, r] = [0, 0];
    return e.at(x, shape.map((_, axis) => (axes.includes(axis) ? inner[r++]! : index[i++]!)));
  };
  const sizes = axes.map((a) => shape[a]!);
  const { w } = e;
  if (op.name === 'moments') {
    const count = literal(w, 'f32', sizes.reduce((n, d) => n * d, 1));
    const sum = w.variable('sum', 'f32', '0.0');
    e.loops('k', sizes, (k) => w.line(`${sum} = ${sum} + ${read(k)};`));
    const mean = w.let('mean', `${sum} / ${count}`);
    const squares = w.variable('m2', 'f32', '0.0');
    e.loops('k', sizes, (k) => {
      const d = w.let('d', `${read(k)} - ${mean}`);
      w.line(`${squares} = ${squares} + ${d} * ${d};`);
    });
    return [narrowed(w, mean, dtype), narrowed(w, squares, dtype)];
  }
  if (op.name === 'argMax' || op.name === 'argMin') {
    const best = w.variable('best', registerOf(dtype), read(['0']));
    const where = w.variable('place', 'i32', '0');
    e.loop('k', sizes[0]!, (k) => {
      const v = read([k]);
      const beats = (a: string, b: string): string => {
        const wins = `${a} ${op.name === 'argMax' ? '>' : '<'} ${b}`;
        return registerOf(dtype) === 'f32' ? `(${wins} || (${w.call('is_nan', a)} && !${w.call('is_nan', b)}))` : `(${wins})`;
      };
      w.block(`if (${flag(op.attrs, 'last') ? `!${beats(best, v)}` : beats(v, best)})`, () => {
        w.line(`${best} = ${v};`);
        w.line(`${where} = ${k};`);
      });
    });
    return [where];
  }
  const { start, join } = joinOf(w, op.name, dtype);
  const acc = w.variable('acc', registerOf(dtype), start);
  e.loops('k', sizes, (k) => w.line(`${acc} = ${join(acc, read(k))};`));
  return [narrowed(w, acc, dtype)];
};
