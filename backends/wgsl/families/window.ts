/** Pools, their gradients and resampling, element by element of the result. */
import { num, nums } from '../../../ir/op.ts';
import { lowest } from '../../../ir/ops/helpers.ts';
import { literal } from '../literal.ts';
import { narrowed } from '../map.ts';
import { registerOf } from '../types.ts';
import { plus, times } from '../writer.ts';
import { backward, forward, sweepAxes } from './contract.ts';
import type { ElementEmitter } from './index.ts';

export const windowElement: ElementEmitter = (e, op, index) => {
  const { w } = e;
  const x = op.operands[0]!;
  const { dtype } = op.results[0]!.type;
  const register = registerOf(dtype);
  const kernel = nums(op.attrs, 'kernel');
  const [n, c, ...rest] = index as [string, string, ...string[]];
  const back = op.name.endsWith('Grad');
  const input = back ? nums(op.attrs, 'size') : x.type.shape.slice(2);
  const out = back ? x.type.shape.slice(2) : op.results[0]!.type.shape.slice(2);
  const sweep = sweepAxes(op, input, kernel, out);
  const tapOf = (y: readonly string[]): string => y.reduce((sum, t, i) => plus(times(sum, kernel[i]!), t), '0');
  if (op.name === 'maxPool') {
    const least = dtype === 'i64' ? 'i32' : dtype === 'u64' ? 'u32' : dtype;
    const best = w.variable('best', register, literal(w, register, lowest(least)));
    const where = w.variable('place', 'i32', '-1');
    e.loops('t', kernel, (y) => forward(e, sweep, rest, y, (p) => {
      const v = e.at(x, [n, c, ...p]);
      const nan = register === 'f32' ? ` || (${w.call('is_nan', v)} && !${w.call('is_nan', best)})` : '';
      w.block(`if (${where} < 0 || ${v} > ${best}${nan})`, () => {
        w.line(`${best} = ${v};`);
        w.line(`${where} = ${tapOf(y)};`);
      });
    }));
    return [best, `max(${where}, 0)`];
  }
  const acc = w.variable('acc', register, literal(w, register, 0));
  e.loops('t', kernel, (y) => {
    if (op.name === 'sumPool') forward(e, sweep, rest, y, (p) => w.line(`${acc} = ${acc} + ${e.at(x, [n, c, ...p])};`));
    else if (op.name === 'sumPoolGrad') backward(e, sweep, rest, y, (q) => w.line(`${acc} = ${acc} + ${e.at(x, [n, c, ...q])};`));
    else backward(e, sweep, rest, y, (q) => w.block(`if (${e.at(op.operands[1]!, [n, c, ...q])} == ${tapOf(y)})`, () => e.scoped(() => w.line(`${acc} = ${acc} + ${e.at(x, [n, c, ...q])};`))));
  });
  return [narrowed(w, acc, dtype)];
};

export const resampleElement: ElementEmitter = (e, op, index) => {
  const { w } = e;
  const x = op.operands[0]!;
  const axis = num(op.attrs, 'axis');
  const taps = num(op.attrs, 'taps');
  const [indices, weights] = [nums(op.attrs, 'indices'), nums(op.attrs, 'weights')];
  const places = w.name('places');
  w.declarations.push(`const ${places} = array<i32, ${indices.length}>(${indices.join(', ')});`);
  const at = (i: string): readonly string[] => index.map((k, d) => (d === axis ? i : k));
  const h = index[axis]!;
  if (taps === 1 && weights.every((v) => v === 1)) return [e.at(x, at(w.let('p', `${places}[${h}]`)))];
  const { dtype } = x.type;
  const factors = w.name('weights');
  w.declarations.push(`const ${factors} = array<f32, ${weights.length}>(${weights.map((v) => literal(w, 'f32', v)).join(', ')});`);
  const acc = w.variable('acc', 'f32', '0.0');
  e.loop('t', taps, (t) => {
    const k = w.let('k', plus(times(h, taps), t));
    const factor = w.let('weight', `${factors}[${k}]`);
    // What has no weight does not count, even where it is infinite.
    w.block(`if (${factor} != 0.0)`, () => e.scoped(() => w.line(`${acc} = ${acc} + ${factor} * ${e.at(x, at(w.let('p', `${places}[${k}]`)))};`)));
  });
  return [narrowed(w, acc, dtype)];
};
