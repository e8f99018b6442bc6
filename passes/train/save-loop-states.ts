import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { dependents } from './backward.ts';
import { declaredParameters } from './declare-parameters.ts';

/** Lets each loop that a gradient may pass collect what its carried values were before every iteration: the backward loop starts from them. Loops of unknown length stay as they are. */
export function saveLoopStates(graph: Graph): Graph {
  const active = dependents(graph.ops, declaredParameters(graph).map((p) => p.value));
  return savedIn(graph, (op) => op.operands.some((v) => active.has(v)));
}

/** The same for the loops of a graph or region that `wanted` names. */
export function savedIn(graph: Graph, wanted: (op: Op) => boolean): Graph {
  if (!graph.ops.some((op) => isOpen(op) && wanted(op))) return graph;
  return { ...graph, ops: graph.ops.map((op) => (isOpen(op) && wanted(op) ? saved(op) : op)) };
}

/** The results that hold the carried values before each iteration, one stack for each; undefined where the loop does not collect them. */
export function savedStates(op: Op): readonly Value[] | undefined {
  const [region] = op.regions;
  const carried = num(op.attrs, 'carried');
  const states = region!.outputs.slice(region!.outputs.length - carried);
  return num(op.attrs, 'scans') >= carried && states.every((o, k) => o.value === region!.inputs[1 + k]) ? op.results.slice(op.results.length - carried) : undefined;
}

const isOpen = (op: Op): boolean => op.name === 'loop' && num(op.attrs, 'trips') >= 0 && !savedStates(op);

function saved(op: Op): Op {
  const [region] = op.regions;
  const carried = region!.inputs.slice(1, 1 + num(op.attrs, 'carried'));
  const stacks = carried.map((v): Value => ({ type: { dtype: v.type.dtype, shape: [num(op.attrs, 'trips'), ...v.type.shape] }, name: undefined }));
  return {
    ...op,
    attrs: { ...op.attrs, scans: num(op.attrs, 'scans') + carried.length },
    results: [...op.results, ...stacks],
    regions: [{ ...region!, outputs: [...region!.outputs, ...carried.map((value, k) => ({ name: `before${k}`, value }))] }],
  };
}
