/** Which normalization the weights of a model have already, by the arithmetic that `normalizeWeights` gives them. */
import type { Graph, Op, State, Value } from '../../ir/graph.ts';
import { placedOps, readers } from '../../ir/regions.ts';
import { sizeOf } from '../../ir/type.ts';
import { uniform } from '../rules/pattern.ts';
import type { WeightNorm } from './normalize-weights.ts';
import { parameterValues } from './structure.ts';

/**
 * Tells of a weight of an open graph how it is normalized before it is used; undefined where it is not. It may be no weight of the model's own: `inputs` sums the squares of inputs for
 * `cosine`, a `gain` multiplies a weight.
 */
export function knownWeightNorms(open: Graph): (state: State) => WeightNorm | 'inputs' | 'gain' | undefined {
  const parameters = parameterValues(open);
  const read = readers(open);
  const defs = new Map(placedOps(open).flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
  const names = new Set(open.state.map((s) => s.name));
  const behind = (v: Value): Op[] => (read.get(v) ?? []).flatMap((op) => (['reshape', 'cast'].includes(op.name) ? behind(op.results[0]!) : [op]));
  const peeled = (v: Value): Op | undefined => {
    const op = defs.get(v);
    return op && ['reshape', 'cast'].includes(op.name) ? peeled(op.operands[0]!) : op;
  };
  return ({ value, name, init }) => {
    if (scalesWeight(value)) return 'gain';
    if (sumsSquares(value, init)) return 'inputs';
    const root = rootOf(value);
    if (!root) return undefined;
    const inside = peeled(root.operands[0]!)?.name;
    if (inside === 'add') return 'standardize';
    if (inside === 'max') return 'scaled';
    if (!behind(root.results[0]!).some((op) => op.name === 'max')) return undefined;
    return names.has(gainName(name)) ? 'weight' : 'cosine';
  };

  /** The first root of what is computed of a weight alone. */
  function rootOf(weight: Value): Op | undefined {
    const reached = new Set<Value>([weight]);
    for (const v of reached) {
      for (const op of read.get(v) ?? []) {
        if (op.name === 'sqrt' || op.name === 'rsqrt') return op;
        op.results.filter((r) => parameters.has(r)).forEach((r) => reached.add(r));
      }
    }
    return undefined;
  }

  /** Whether a parameter multiplies larger ones, and nothing else. */
  function scalesWeight(v: Value): boolean {
    const uses = behind(v);
    return uses.length > 0 && uses.every((op) => op.name === 'mul' && parameters.has(op.results[0]!) && (sizeOf(op.results[0]!.type.shape) > sizeOf(v.type.shape) || scalesWeight(op.results[0]!)));
  }

  /** Whether a kernel of ones is convolved with squares. */
  function sumsSquares(weight: Value, init: State['init']): boolean {
    return init !== 'zero' && uniform(init) === 1 && behind(weight).some((op) => {
      const square = op.name === 'conv' ? peeled(op.operands[0]!) : undefined;
      return square?.name === 'mul' && square.operands[0] === square.operands[1];
    });
  }
}

/** The gain of a weight: `conv1.weight` has `conv1.gain`. */
export const gainName = (weight: string): string => `${weight.replace(/[._/]weight$/, '')}.gain`;
