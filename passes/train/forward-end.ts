import type { Graph, Value } from '../../ir/graph.ts';
import { lossName } from './differentiate.ts';

/**
 * Applies `run` to a training step whose loss is op number `end`: what comes after is its backward pass. Where gradients add up in a loop over micro-batches, its body is such a step too, whose loss
 * is what an iteration adds to the one that it carries. Other graphs stay as they are.
 */
export function onTrainingSteps(graph: Graph, run: (step: Graph, end: number) => Graph): Graph {
  const loss = graph.outputs.find((o) => o.name === lossName)?.value;
  if (!loss) return graph;
  const ops = graph.ops.map((op) => {
    if (op.name !== 'loop') return op;
    const [body] = op.regions as [Graph];
    const share = shareOfLoss(body);
    const end = share ? definedAt(body, share) : -1;
    const changed = end < 0 ? body : run(body, end);
    return changed === body ? op : { ...op, regions: [changed] };
  });
  const step = ops.every((op, i) => op === graph.ops[i]) ? graph : { ...graph, ops };
  const end = definedAt(step, loss);
  return end < 0 ? step : run(step, end);
}

/** What an iteration adds to the loss that it carries; undefined in loops that carry none. */
function shareOfLoss(body: Graph): Value | undefined {
  const total = body.inputs.find((v) => v.name === lossName);
  const sum = total && body.ops.find((op) => ['add', 'sub'].includes(op.name) && op.operands.includes(total));
  return sum?.operands.find((v) => v !== total);
}

const definedAt = (graph: Graph, v: Value): number => graph.ops.findIndex((op) => op.results.includes(v));
