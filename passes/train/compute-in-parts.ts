import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { describe } from './backward.ts';
import { extend } from './extend.ts';
import { cutGraph, LoopBody, unstack } from './sample-loop.ts';
import { followSamples } from './samples.ts';

/**
 * Computes a graph in a loop over parts of its batch, `size` samples each, so that what it keeps at a time belongs to one part. What depends on no sample stays before the loop.
 * Outputs are those of the whole batch; an op that joins samples is refused by name.
 */
export function computeInParts(graph: Graph, size: number): Graph {
  const samples = followSamples(graph);
  const [join] = samples.joins;
  if (join) throw new UserError(`${describe(join)} joins the samples of a batch, so the model cannot be computed over parts of it`);
  if (samples.batch % size !== 0 || size < 1) throw new UserError(`a batch of ${samples.batch} does not divide into parts of ${size}; give a divisor of the batch`);
  const cut = cutGraph(graph, samples, size);
  const count = samples.batch / size;
  const bare: Graph = { ...graph, ops: cut.prefix, outputs: graph.outputs.filter((o) => !cut.inBody(o.value)) };
  const parts = extend(bare, (x) => {
    const { b } = x;
    const loop = new LoopBody(cut.defs);
    const model = new Map<Value, Value>();
    loop.feed(b, graph.inputs, cut, samples, size, model);
    loop.repeat(cut, model);
    const outputs = graph.outputs.filter((o) => cut.inBody(o.value));
    for (const { value } of outputs) loop.collect(model.get(cut.at(value))!);
    const { collected } = loop.finish(b, count);
    outputs.forEach(({ name, value }, i) => x.output(name, unstack(b, collected[i]!, samples.factors.get(value)!, count, value)));
  });
  const made = new Map(parts.outputs.map((o) => [o.name, o]));
  return { ...parts, outputs: graph.outputs.map((o) => made.get(o.name)!) };
}
