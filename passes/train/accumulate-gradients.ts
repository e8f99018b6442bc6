import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { isFloat, showType } from '../../ir/type.ts';
import { outputNamed, targetName } from './add-loss.ts';
import { backward, dependents, describe } from './backward.ts';
import { declaredParameters } from './declare-parameters.ts';
import { ancestors, blocked, lossName } from './differentiate.ts';
import { extend, gradientName } from './extend.ts';
import { lossCount, lossSum, targetType } from './loss.ts';
import type { LossSpec } from './options.ts';
import { cutGraph, LoopBody, unstack } from './sample-loop.ts';
import { followSamples } from './samples.ts';
import { lossScaleOf } from './scale-loss.ts';

export interface Accumulation {
  readonly loss: LossSpec;
  /** The output that the loss judges. */
  readonly output: string | undefined;
  /** Samples of one iteration. */
  readonly microBatch: number;
  /** Lets ops that join samples (batch norms) join those of a micro-batch alone: the step then differs from one over the whole batch. */
  readonly joinWithin: boolean;
}

/**
 * Adds loss and gradients as add-loss and differentiate do, but computes them in a loop over micro-batches. What depends on parameters alone stays before the loop and is differentiated
 * once, after it, from the sums of its cotangents. The loss is divided by the whole batch, and random numbers are those of the whole batch, so the step is that of the whole batch up
 * to rounding: where it cannot be, because an op joins samples, that op is named.
 */
export function accumulateGradients(graph: Graph, options: Accumulation): Graph {
  const { loss, microBatch, joinWithin } = options;
  if (loss.kind === 'output') throw new Unsupported('micro-batches of a loss that the model computes', 'the model computes its own loss, so its share of the whole batch is not known; train with a loss of the compiler, or without micro-batches');
  const samples = followSamples(graph);
  const [join] = samples.joins;
  if (join && !joinWithin) throw new UserError(`${describe(join)} joins the samples of a batch, so micro-batches would give other numbers than the whole batch; train without micro-batches, rewrite it to a norm of one sample (--norm group:4+proxy) if it is a batch norm, or let it join the samples of a micro-batch alone (--allow-batch-dependence, joinWithinMicroBatch)`);
  if (samples.batch % microBatch !== 0 || microBatch < 1) throw new UserError(`a batch of ${samples.batch} does not divide into micro-batches of ${microBatch}; give a divisor of the batch`);

  const judged = outputNamed(graph, options.output);
  const cut = cutGraph(graph, samples, microBatch);
  const count = samples.batch / microBatch;
  const { prefix } = cut;
  const bare: Graph = { ...graph, ops: prefix, outputs: graph.outputs.filter((o) => !cut.inBody(o.value)), updates: graph.updates.filter((u) => !cut.inBody(u.value)) };
  return extend(bare, (x) => {
    const { b } = x;
    const target = x.input(targetName, targetType(loss, judged.type));
    const scale = lossScaleOf(graph);
    const divisor = lossCount(b, loss, judged.type, target);
    const parameters = declaredParameters(graph);
    const fed = dependents(prefix, parameters.map((p) => p.value));
    const loop = new LoopBody(cut.defs);

    // The body: slices of inputs, targets and random numbers, the model, the loss, its gradient.
    const model = new Map<Value, Value>();
    loop.feed(b, graph.inputs, cut, samples, microBatch, model);
    const carried = graph.updates.filter((u) => cut.inBody(u.value)).map((u) => ({ ...u, inside: loop.carry(u.state, u.state.name) }));
    for (const { state, inside } of carried) model.set(state, inside);
    loop.repeat(cut, model);
    const inside = (v: Value): Value => model.get(cut.at(v))!;
    const targets = loop.slice(b, target, target.type.shape.map((size, a) => (a === 0 ? [{ size, mark: 'n' }] : [{ size, mark: 'other' }])), samples.batch, microBatch);
    const part = lossSum(loop.b, loss, inside(judged), targets);
    const share = loop.capture(b.div(scale ? b.cast(scale, divisor.type.dtype) : 1, divisor));
    const wanted = [...loop.captured].filter(([outer]) => fed.has(outer) && isFloat(outer.type.dtype)).map(([, v]) => v);
    const cotangents = backward(loop.b, loop.b.ops, new Map([[part, share]]), wanted);

    const total = loop.carry(b.zeros(part.type), lossName);
    loop.next(total, loop.b.add(total, part));
    for (const { value, inside: old } of carried) loop.next(old, inside(value));
    const sums = [...loop.captured].filter(([, v]) => cotangents.has(v)).map(([outer, v]) => {
      const sum = loop.carry(b.zeros(v.type), gradientName(outer.name ?? ''));
      loop.next(sum, loop.b.add(sum, cotangents.get(v)!));
      return { outer, sum };
    });
    const stacked = graph.outputs.filter((o) => cut.inBody(o.value)).map((o) => ({ ...o, factors: samples.factors.get(o.value) }));
    for (const { name, value, factors } of stacked) {
      if (!factors) throw new Unsupported('an output that joins samples, with micro-batches', `the output "${name}" (${showType(value.type)}) is one for the whole batch; train without micro-batches`);
      loop.collect(inside(value));
    }

    const results = loop.finish(b, count);
    stacked.forEach(({ name, value, factors }, i) => x.output(name, unstack(b, results.collected[i]!, factors!, count, value)));
    x.output(lossName, b.div(results.last(total), divisor));
    for (const { state, inside: old } of carried) x.update(state, results.last(old));
    const gradients = backward(b, prefix, new Map(sums.map(({ outer, sum }) => [outer, results.last(sum)])), parameters.map((p) => p.value));
    const connected = ancestors(graph.ops, judged);
    for (const p of parameters) if (connected.has(p.value)) x.output(gradientName(p.name), gradients.get(p.value) ?? blocked(graph, p.name, p.value, connected));
  });
}
