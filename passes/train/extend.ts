/** Adds ops at the end of a graph, and keeps the parameters that training passes work on. */
import { Builder } from '../../ir/builder.ts';
import { UserError, invariant } from '../../ir/diagnostic.ts';
import type { Graph, State, Value } from '../../ir/graph.ts';
import type { Tensor, TensorType } from '../../ir/type.ts';

/** What a pass adds to a graph. Values that exist stay the same objects. */
export interface Extension {
  readonly b: Builder;
  /** Adds state; a name that is taken is a UserError. */
  state(name: string, type: TensorType, init: Tensor | 'zero'): Value;
  /** Adds an input; a name that is taken is a UserError. */
  input(name: string, type: TensorType): Value;
  /** Adds an output, or replaces the one of that name. */
  output(name: string, value: Value): void;
  /** Gives state its new value, or replaces it. */
  update(state: Value, value: Value): void;
  /** Replaces a parameter's direction. */
  direct(parameter: Parameter, direction: Value): void;
}

/** The graph with what `add` puts behind its ops. */
export function extend(graph: Graph, add: (x: Extension) => void): Graph {
  const b = new Builder(graph.name);
  b.adopt(graph);
  for (const op of graph.ops) b.append(op);
  const outputs = new Map(graph.outputs.map((o) => [o.name, o.value]));
  const updates = new Map(graph.updates.map((u) => [u.state, u.value]));
  const stateNames = new Set(graph.state.map((s) => s.name));
  add({
    b,
    state(name, type, init) {
      if (stateNames.has(name)) throw new UserError(`training keeps a tensor "${name}", but the model has a weight of that name; rename the weight`);
      stateNames.add(name);
      return b.state(name, type, init);
    },
    input(name, type) {
      if (graph.inputs.some((v) => v.name === name)) throw new UserError(`training adds an input "${name}", but the model has an input of that name; rename the model's`);
      return b.input(type, name);
    },
    output: (name, value) => void outputs.set(name, value),
    update: (state, value) => void updates.set(state, value),
    direct: ({ state }, direction) => void outputs.set(directionName(state.name), direction),
  });
  const done = b.finish([...outputs].map(([name, value]) => ({ name, value })));
  return { ...done, updates: [...updates].map(([state, value]) => ({ state, value })) };
}

/** The output that holds a parameter's gradient. */
export const gradientName = (parameter: string): string => `${parameter}.grad`;
/** Whether an output or a carried sum is named as one. */
export const isGradientName = (name: string): boolean => name.endsWith(gradientName(''));
const directionName = (parameter: string): string => `${parameter}.direction`;

/** A parameter with the gradient of the loss, and the direction that passes have made of it so far. */
export interface Parameter {
  readonly state: State;
  readonly gradient: Value;
  readonly direction: Value;
}

/** The parameters of a graph that has been differentiated, in the order of its state. */
export function parametersOf(graph: Graph): Parameter[] {
  const outputs = new Map(graph.outputs.map((o) => [o.name, o.value]));
  return graph.state.flatMap((state) => {
    const gradient = outputs.get(gradientName(state.name));
    return gradient ? [{ state, gradient, direction: outputs.get(directionName(state.name)) ?? gradient }] : [];
  });
}

/** Replaces the direction of each parameter by what `make` gives; undefined keeps it. */
export function redirect(graph: Graph, make: (x: Extension, p: Parameter) => Value | undefined): Graph {
  const parameters = parametersOf(graph);
  invariant(parameters.length > 0, 'the graph has not been differentiated');
  return extend(graph, (x) => {
    for (const p of parameters) {
      const direction = make(x, p);
      if (direction && direction !== p.direction) x.direct(p, direction);
    }
  });
}

/** Drops the outputs that only passes need: directions, and gradients unless they are wanted. */
export function dropDirections(graph: Graph, keepGradients: boolean): Graph {
  const names = new Set(parametersOf(graph).flatMap((p) => [directionName(p.state.name), ...(keepGradients ? [] : [gradientName(p.state.name)])]));
  return { ...graph, outputs: graph.outputs.filter((o) => !names.has(o.name)) };
}
