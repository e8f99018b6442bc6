/** Running sums and products: each element joins all before it. */
import { flag, num } from '../../../ir/op.ts';
import { narrowed } from '../map.ts';
import { registerOf } from '../types.ts';
import { joinOf } from './reduce.ts';
import type { ElementEmitter } from './index.ts';

export const scanElement: ElementEmitter = (e, op, index) => {
  const { w } = e;
  const x = op.operands[0]!;
  const { shape, dtype } = x.type;
  const axis = num(op.attrs, 'axis');
  const [exclusive, reverse] = [flag(op.attrs, 'exclusive'), flag(op.attrs, 'reverse')];
  const { start, join } = joinOf(w, op.name === 'cumSum' ? 'reduceSum' : 'reduceProd', dtype);
  const acc = w.variable('acc', registerOf(dtype), start);
  const last = shape[axis]! - 1;
  const k = w.name('k');
  const here = index[axis]!;
  const head = reverse ? `for (var ${k} = ${last}; ${k} ${exclusive ? '>' : '>='} ${here}; ${k}--)` : `for (var ${k} = 0; ${k} ${exclusive ? '<' : '<='} ${here}; ${k}++)`;
  w.block(head, () => e.scoped(() => w.line(`${acc} = ${join(acc, e.at(x, index.map((i, d) => (d === axis ? k : i))))};`)));
  return [narrowed(w, acc, dtype)];
};
