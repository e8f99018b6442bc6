/** Finds where a training step's numbers stop being finite, on the interpreter. */
import { evaluate } from '../../ir/evaluate.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { isFloat, showType } from '../../ir/type.ts';
import type { Explain } from '../../runtime/artifact.ts';
import { tensorOf } from '../../runtime/inputs.ts';

/** Runs a step op by op and names the first one that made NaN of numbers, or infinity of finite ones. Infinities that the model holds as constants (masks) are none of its making. */
export function explainOver(graph: Graph): Explain {
  return async (inputs, state) => {
    const given = Object.fromEntries(graph.inputs.map((v) => [v.name!, tensorOf({ name: v.name!, ...v.type }, inputs[v.name!]!)]));
    const values = new Map(graph.state.flatMap((s) => (state.has(s.name) ? [[s.value, state.get(s.name)!] as const] : [])));
    const found = firstCulprit(graph, (watch) => evaluate(graph, given, { state: values, watch }));
    if (!found) return 'the interpreter, which computes in float64, finds no such op: a sum or product went out of the range of float32';
    const { op, value, made } = found;
    const from = op.source.length > 0 ? ` of ${op.source.join(', ')}` : ', which training added';
    return `the first op with ${made} in its result is ${op.name}${from} (${value.name === undefined ? '' : `${JSON.stringify(value.name)}, `}${showType(value.type)})`;
  };
}

interface Culprit {
  readonly op: Op;
  readonly value: Value;
  readonly made: 'NaN' | 'infinity';
}

/** Ends the interpreter's run. */
class Stop extends Error {}

function firstCulprit(graph: Graph, run: (watch: (value: Value, tensor: { readonly data: ArrayLike<number | bigint> }) => void) => void): Culprit | undefined {
  const makers = new Map<Value, Op>();
  const collect = (g: Graph): void => g.ops.forEach((op) => {
    op.results.forEach((r) => makers.set(r, op));
    op.regions.forEach(collect);
  });
  collect(graph);
  const infinite = new Set<Value>();
  const nan = new Set<Value>();
  let found: Culprit | undefined;
  try {
    run((value, { data }) => {
      const op = makers.get(value);
      if (!op || !isFloat(value.type.dtype)) return;
      const kind = worst(data);
      if (kind === undefined) return;
      (kind === 'NaN' ? nan : infinite).add(value);
      const inherited = op.operands.some((v) => nan.has(v) || (kind === 'infinity' && infinite.has(v)));
      if (op.name === 'constant' || inherited) return;
      found = { op, value, made: kind };
      throw new Stop();
    });
  } catch (e) {
    if (!(e instanceof Stop)) throw e;
  }
  return found;
}

function worst(data: ArrayLike<number | bigint>): Culprit['made'] | undefined {
  let made: Culprit['made'] | undefined;
  for (let i = 0; i < data.length; i++) {
    const v = data[i]!;
    if (Number.isNaN(v)) return 'NaN';
    if (v === Infinity || v === -Infinity) made = 'infinity';
  }
  return made;
}
