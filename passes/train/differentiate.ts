import { Unsupported, UserError, invariant } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { showType, sizeOf } from '../../ir/type.ts';
import { backward, describe } from './backward.ts';
import { declaredParameters } from './declare-parameters.ts';
import { extend, gradientName } from './extend.ts';
import { lossScaleOf } from './scale-loss.ts';

/** The output that holds the loss. */
export const lossName = 'loss';

/**
 * Adds the gradient of the output `loss`, times its scale if it has one, for each declared parameter, as an output named after it (`w.grad`). Gradients of a weight that is used several times
 * and of broadcasting sum. A parameter that the loss does not depend on gets none and stays as it is; where only ops without a gradient lead from it to the loss, that is an error which names the op.
 */
export function differentiate(graph: Graph): Graph {
  const loss = graph.outputs.find((o) => o.name === lossName)?.value;
  invariant(loss && sizeOf(loss.type.shape) === 1, `there is no scalar output ${lossName}`);
  const parameters = declaredParameters(graph);
  const connected = ancestors(graph.ops, loss);
  const trained = parameters.filter((p) => connected.has(p.value));
  if (trained.length === 0) throw new UserError(`the loss (${showType(loss.type)}) depends on none of the parameters`);
  return extend(graph, ({ b, output }) => {
    const scale = lossScaleOf(graph);
    const one = b.broadcast(scale ? b.cast(scale, loss.type.dtype) : b.scalar(1, loss.type.dtype), loss.type.shape);
    const gradients = backward(b, graph.ops, new Map([[loss, one]]), trained.map((p) => p.value));
    for (const p of trained) {
      const gradient = gradients.get(p.value) ?? blocked(graph, p.name, p.value, connected);
      output(gradientName(p.name), gradient);
    }
  });
}

/** The values that a value depends on, itself included. */
export function ancestors(ops: readonly Op[], of: Value): Set<Value> {
  const found = new Set([of]);
  for (const op of ops.toReversed()) if (op.results.some((r) => found.has(r))) for (const v of op.operands) found.add(v);
  return found;
}

/** Reports the op that keeps a gradient from its parameter. `connected` is what the loss depends on. */
export function blocked(graph: Graph, name: string, parameter: Value, connected: ReadonlySet<Value>): never {
  const reached = new Set([parameter]);
  for (const op of graph.ops) {
    if (!op.operands.some((v) => reached.has(v)) || !op.results.some((r) => connected.has(r))) continue;
    const { grad } = opDef(op.name);
    if ('none' in grad && op.regions.length === 0) {
      throw new Unsupported(`the gradient of ${op.name}`, `the gradient of "${name}" would have to pass ${describe(op)}, which has none (${grad.none}); freeze "${name}", or export the model without that op`);
    }
    for (const r of op.results) reached.add(r);
  }
  throw new Unsupported('a parameter without a gradient', `no gradient reaches "${name}", though the loss depends on it: it is used as an index or an integer; freeze it`);
}
