/** Inputs whose samples are elsewhere than on their first axis, or that hold none. */
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import { showType } from '../../ir/type.ts';

/** The axis of an input that counts samples; `none`: the input is the same for all samples. */
export type BatchAxes = Readonly<Record<string, number | 'none'>>;

/** The same graph with the samples of every input on its first axis: an input that has them elsewhere is transposed, one that has none becomes state. Throws a UserError for an input or axis that does not exist. */
export function samplesFirst(graph: Graph, axes: BatchAxes): Graph {
  const names = graph.inputs.map((v) => v.name ?? '');
  const unknown = Object.keys(axes).find((name) => !names.includes(name));
  if (unknown !== undefined) throw new UserError(`the model has no input "${unknown}" whose batch axis could be given; its inputs are ${names.map((n) => `"${n}"`).join(', ') || 'none'}`);
  const shared = graph.inputs.filter((v) => axes[v.name ?? ''] === 'none');
  const moved = graph.inputs.flatMap((value) => {
    const axis = axes[value.name ?? ''];
    if (axis === undefined || axis === 'none' || axis === 0) return [];
    const { dtype, shape } = value.type;
    if (axis >= shape.length) throw new UserError(`the input "${value.name ?? ''}" is ${showType(value.type)} and has no axis ${axis}`);
    const perm = shape.map((_, i) => (i < axis ? i + 1 : i === axis ? 0 : i));
    return [{ value, perm, first: { type: { dtype, shape: [shape[axis]!, ...shape.filter((_, i) => i !== axis)] }, name: value.name } }];
  });
  const transposes = moved.map(({ value, perm, first }) => ({ name: 'transpose', operands: [first], attrs: { perm }, results: [value], regions: [], source: [] }));
  const inputs = graph.inputs.filter((v) => !shared.includes(v)).map((v) => moved.find((m) => m.value === v)?.first ?? v);
  const state = [...graph.state, ...shared.map((value) => ({ value, name: value.name ?? '', init: 'zero' as const }))];
  return { ...graph, inputs, state, ops: [...transposes, ...graph.ops] };
}
