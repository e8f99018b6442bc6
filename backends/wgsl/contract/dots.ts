/** Products with few elements and long sums: the invocations of a workgroup share the sum of one element. */
import type { Op } from '../../../ir/graph.ts';
import type { Body, Kernel, KernelCode } from '../kernel.ts';
import { treeSum } from '../tree.ts';
import { putFunction } from './tiles.ts';
import { KIndex, type ProductView } from './view.ts';

const lanes = 64;

export const isDots = (v: ProductView): boolean => v.k >= 64 && v.batch * v.m * v.n <= 65536;

export function emitDots(kernel: Kernel, body: Body, root: Op, view: ProductView): KernelCode {
  const { w } = kernel;
  putFunction(kernel, body, root, view);
  const n = w.let('n', `group % ${view.n}`);
  const m = w.let('m', `(group / ${view.n}) % ${view.m}`);
  const batch = view.batch === 1 ? '0' : w.let('which', `group / ${view.n * view.m}`);
  const [a, b] = [view.a.lead(batch, m), view.b.lead(batch, n)];
  const sum = w.variable('sum', 'f32', '0.0');
  w.block(`for (var k = lane; k < ${view.k}; k += ${lanes})`, () => {
    const index = new KIndex('k');
    w.line(`${sum} = fma(${w.let('a', a(index))}, ${w.let('b', b(index))}, ${sum});`);
  });
  const total = treeSum(kernel, sum, lanes);
  w.line(`if (lane == 0) { put(${batch}, ${m}, ${n}, ${total}); }`);
  return kernel.finish(view.batch * view.m * view.n, lanes);
}
