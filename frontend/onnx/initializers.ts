/** Initializers as values of the model's graph. */
import type { Value } from '../../ir/graph.ts';
import { isFloat, type Tensor } from '../../ir/type.ts';
import type { Bound } from './lowering.ts';
import type { GraphView, InitializerView } from './model.ts';
import type { Session } from './scope.ts';

/** An initializer as a value of the model's graph: floats are weights (state), others constants. Made when it is first used. */
export function initialized(view: InitializerView, session: Session): Bound {
  const before = session.initialized.get(view);
  if (before) return before;
  const bound = 'kind' in view.tensor ? view.tensor : makeInitializer(view, view.tensor, session);
  session.initialized.set(view, bound);
  return bound;
}

/** Initializers of a graph by name; a name that stands twice is an error of the model, reported by the importer for its own graph. */
export const initializersOf = (graph: GraphView): ReadonlyMap<string, InitializerView> => new Map(graph.initializers.map((t) => [t.name, t]));

/** A tensor as a value of the model's graph. */
function makeInitializer(view: InitializerView, tensor: Tensor, session: Session): Value {
  const { b } = session.root;
  if (!isFloat(tensor.dtype)) return b.constant(tensor, view.name);
  const value = b.state(stateName(view, session), { dtype: tensor.dtype, shape: tensor.shape }, tensor);
  session.stateInit.set(value, tensor);
  return value;
}

/** Weights of the model's graph keep their names; those of subgraphs, which may reuse names, give way. */
function stateName(view: InitializerView, session: Session): string {
  if (session.ownInitializers.get(view.name) === view) return view.name;
  let name = view.name;
  for (let i = 1; session.stateNames.has(name); i++) name = `${view.name}.${i}`;
  session.stateNames.add(name);
  return name;
}
