import type { Graph, Value } from '../../ir/graph.ts';
import { invariant, UserError } from '../../ir/diagnostic.ts';
import { lossName } from './differentiate.ts';
import { extend, gradientName, parametersOf } from './extend.ts';
import { allFinite } from './finite.ts';
import type { LossScaleSpec } from './options.ts';

/** State: the factor of an automatic loss scale, and the good steps since it last changed. */
export const scaleName = 'train.lossScale';
export const goodStepsName = 'train.goodSteps';

/** Of automatic scales, as in NVIDIA's Apex (apex/amp/scaler.py): they start at 2^16, double after 2000 good steps, and stay between 1 and 2^24. */
const initial = 2 ** 16;
const every = 2000;
const [least, most] = [1, 2 ** 24];

/** Gives the graph the factor that its loss is differentiated with, as the output `train.lossScale` (`adaptLossScale` drops it): a constant, or state. */
export function declareLossScale(graph: Graph, spec: LossScaleSpec | undefined): Graph {
  if (spec === undefined) return graph;
  check(spec);
  return extend(graph, (x) => {
    if (spec.kind === 'static') return x.output(scaleName, x.b.scalar(spec.factor, 'f32'));
    x.output(scaleName, x.state(scaleName, { dtype: 'f32', shape: [] }, { dtype: 'f32', shape: [], data: Float32Array.of(spec.initial ?? initial) }));
  });
}

/** The factor that the loss of a graph is differentiated with; undefined without loss scaling. */
export const lossScaleOf = (graph: Graph): Value | undefined => graph.outputs.find((o) => o.name === scaleName)?.value;

/** Divides gradients by the factor that the loss was scaled by (Micikevicius et al., Mixed Precision Training, arXiv 1710.03740), so that what follows sees those of the loss. */
export function unscaleGradients(graph: Graph, spec: LossScaleSpec | undefined): Graph {
  if (spec === undefined) return graph;
  const scale = lossScaleOf(graph);
  invariant(scale, 'the loss has no scale');
  return extend(graph, ({ b, output }) => {
    const inverse = b.div(1, scale);
    for (const { state, gradient } of parametersOf(graph)) output(gradientName(state.name), b.mul(gradient, spec.kind === 'static' ? 1 / spec.factor : b.cast(inverse, gradient.type.dtype)));
  });
}

/**
 * Lets an automatic factor double after so many good steps in a row. Where the loss or a direction is NaN or infinite it halves, and the step changes nothing else: `guardUpdates` sees to that by the
 * output `train.finite`, which is added here.
 */
export function adaptLossScale(graph: Graph, spec: LossScaleSpec | undefined): Graph {
  if (spec === undefined) return graph;
  const scale = lossScaleOf(graph);
  const loss = graph.outputs.find((o) => o.name === lossName)?.value;
  invariant(scale && loss, 'the loss has no scale');
  const bare = { ...graph, outputs: graph.outputs.filter((o) => o.name !== scaleName) };
  if (spec.kind === 'static') return bare;
  return extend(bare, (x) => {
    const { b } = x;
    const ok = b.mul(allFinite(b, [loss]), allFinite(b, parametersOf(graph).map((p) => p.direction)));
    const finite = b.binary('le', b.scalar(1, 'f32'), ok);
    const good = x.state(goodStepsName, { dtype: 'i64', shape: [] }, 'zero');
    const next = b.add(good, 1);
    const grows = b.binary('le', b.scalar(BigInt(spec.every ?? every), 'i64'), next);
    const zero = b.scalar(0n, 'i64');
    x.update(scale, b.select(finite, b.select(grows, b.min(b.mul(scale, 2), most), scale), b.max(b.mul(scale, 0.5), least)));
    x.update(good, b.select(finite, b.select(grows, zero, next), zero));
    x.output(finiteName, finite);
  });
}

/** The output that says whether a step is to change anything; only passes see it. */
export const finiteName = 'train.finite';

function check(spec: LossScaleSpec): void {
  const positive = (what: string, n: number | undefined): void => {
    if (n !== undefined && !(n > 0 && Number.isFinite(Math.fround(n)))) throw new UserError(`the ${what} is ${n}, expected a positive number that f32 holds, as 1024`);
  };
  if (spec.kind === 'static') return positive('loss scale', spec.factor);
  positive('loss scale to start with', spec.initial);
  if (spec.every !== undefined && (!Number.isSafeInteger(spec.every) || spec.every < 1)) throw new UserError(`an automatic loss scale doubles after ${spec.every} good steps, expected a whole number of at least 1`);
}
