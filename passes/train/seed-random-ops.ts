import { Unsupported } from '../../ir/diagnostic.ts';
import { filled } from '../../ir/builder.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { stepsOf } from './count-steps.ts';
import { describe } from './backward.ts';
import { extend } from './extend.ts';

/** The state that holds the seed of a training run. */
export const seedName = 'train.seed';

/**
 * Makes random ops draw other numbers in each step: their seed becomes (number of the step, seed of the run + own seed), high word and low word. Numbers depend on seed, step,
 * op and element alone, so a resumed run draws the same ones.
 */
export function seedRandomOps(graph: Graph): Graph {
  refuseInRegions(graph.ops);
  if (!graph.ops.some(isRandom)) return graph;
  // The ops that read the key come before it in the graph: it is made first, and they are rebuilt behind it.
  const { before } = stepsOf(graph);
  const head = extend({ ...graph, ops: [], outputs: [], updates: [] }, (x) => {
    const seed = x.state(seedName, { dtype: 'i64', shape: [] }, filled('i64', [], 0));
    const { b } = x;
    x.output('key', b.add(b.binary('mul', before, b.scalar(2n ** 32n, 'i64')), seed));
  });
  const key = head.outputs[0]!.value;
  const seed = head.state.find((s) => s.name === seedName)!.value;
  // Updated by itself, the seed is no constant to be folded: a run may be given another one.
  return { ...graph, state: head.state, ops: [...head.ops, ...graph.ops.flatMap((op) => (isRandom(op) ? keyed(op, key) : [op]))], updates: [...graph.updates, { state: seed, value: seed }] };
}

const isRandom = (op: Op): boolean => opDef(op.name).family === 'random';

/** A random op whose seed is added to the key. */
function keyed(op: Op, key: Value): Op[] {
  const seed: Value = { type: key.type, name: undefined };
  const sum: Op = { name: 'add', operands: [op.operands[0]!, key], attrs: {}, results: [seed], regions: [], source: op.source };
  return [sum, { ...op, operands: [seed] }];
}

function refuseInRegions(ops: readonly Op[]): void {
  for (const op of ops) {
    for (const region of op.regions) {
      const inside = region.ops.find(isRandom);
      if (inside) throw new Unsupported('random numbers inside control flow, in training', `${describe(inside)} draws random numbers inside ${describe(op)}: each run of it would draw the same; export the model without it`);
      refuseInRegions(region.ops);
    }
  }
}
