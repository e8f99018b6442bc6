import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { isFloat, showType, sizeOf } from '../../ir/type.ts';
import { lossName } from './differentiate.ts';
import { extend } from './extend.ts';
import { lossCount, lossSum, targetType } from './loss.ts';
import type { LossSpec } from './options.ts';

/** The input that holds the target. */
export const targetName = 'y';

/** Adds the loss as the scalar output `loss`, and the target as the input `y` where the loss has one. The model's outputs stay. */
export function addLoss(graph: Graph, loss: LossSpec, output: string | undefined): Graph {
  return extend(graph, (x) => {
    const { b } = x;
    if (loss.kind === 'output') {
      const value = outputNamed(graph, loss.name);
      if (sizeOf(value.type.shape) !== 1 || !isFloat(value.type.dtype)) throw new UserError(`the output "${loss.name}" is ${showType(value.type)}; a loss has to be one float number`);
      x.output(lossName, b.reshape(value, []));
      return;
    }
    const judged = outputNamed(graph, output);
    if (graph.outputs.some((o) => o.name === lossName)) throw new UserError(`training adds an output "${lossName}", but the model has one of that name: use it as the loss, or rename it`);
    const target = x.input(targetName, targetType(loss, judged.type));
    x.output(lossName, b.div(lossSum(b, loss, judged, target), lossCount(b, loss, judged.type, target)));
  });
}

/** The output of a name, or the first. */
export function outputNamed(graph: Graph, name: string | undefined): Value {
  const found = name === undefined ? graph.outputs[0] : graph.outputs.find((o) => o.name === name);
  if (!found) throw new UserError(`the model has no output "${name ?? ''}"; its outputs are ${graph.outputs.map((o) => `"${o.name}"`).join(', ')}`);
  return found.value;
}
