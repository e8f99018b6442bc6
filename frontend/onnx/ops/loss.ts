/** Losses over class scores, with weights, ignored targets and the three reductions. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { sizeOf } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { indexAlong, logSoftmax, range, row } from './helpers.ts';

/** How the element of each target is taken out of a tensor with the classes along axis 1; `label` has 1 there. */
type Pick = (b: Builder, logp: Value, label: Value) => Value;
const byIndex: Pick = (b, logp, label) => b.one('gatherElements', [logp, label], { axis: 1 });
/** For rows that are walked anyway: one pass makes softmax, loss and gradient. */
const byComparison: Pick = (b, logp, label) => b.reduce('reduceSum', b.select(b.binary('eq', indexAlong(b, logp.type.shape, 1, 'i32'), b.cast(label, 'i32')), logp, 0), [1], true);

/** -logp[target]·weight[target] of each sample, 0 where the target is ignored; then none, sum, or the weighted mean. */
function negativeLogLikelihood(cx: LowerContext, logp: Value, pick: Pick): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const target = cx.input(1);
  const weight = cx.optionalInput(2);
  const { shape } = target.type;
  const reduction = attrs.string('reduction', 'mean');
  if (!['none', 'sum', 'mean'].includes(reduction)) cx.bad(`reduction is "${reduction}": expected none, sum or mean`);
  const ignored = attrs.int('ignore_index', undefined);
  const counts = ignored === undefined ? undefined : b.binary('ne', target, ignored);
  const label = counts ? b.select(counts, target, 0) : target;
  const wide = [...shape.slice(0, 1), 1, ...shape.slice(1)];
  const picked = b.reshape(pick(b, logp, b.reshape(label, wide)), shape);
  const ones = weight ? b.one('gather', [weight, label], { axis: 0 }) : undefined;
  const factor = counts ? b.select(counts, ones ?? b.scalar(1, logp.type.dtype), 0) : ones;
  const loss = factor ? b.mul(b.neg(picked), factor) : b.neg(picked);
  if (reduction === 'none') return loss;
  const axes = range(shape.length);
  const total = b.reduce('reduceSum', loss, axes);
  if (reduction === 'sum') return total;
  return b.div(total, factor ? b.reduce('reduceSum', factor, axes) : sizeOf(shape));
}

export const lossOps: LoweringTable = {
  NegativeLogLikelihoodLoss: [row(12, [2, 3], (cx) => negativeLogLikelihood(cx, cx.input(0), byIndex))],
  SoftmaxCrossEntropyLoss: [
    row(12, [2, 3], (cx) => {
      const logp = logSoftmax(cx.b, cx.input(0), [1]);
      return [negativeLogLikelihood(cx, logp, byComparison), logp];
    }, [1, 2]),
  ],
};
