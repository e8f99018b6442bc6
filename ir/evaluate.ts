/** Runs ops by their `reference` definitions: constant folding, and shapes that are computed while a model is imported. */
import { InternalError } from './diagnostic.ts';
import type { Graph, Op, Value } from './graph.ts';
import { settle, toRef } from './number.ts';
import type { RefTensor } from './op.ts';
import { opDef } from './ops/index.ts';

/** The results of one op, rounded to their dtypes. Regions are run too. Slow and right. */
export function evaluateOp(op: Op, operands: readonly RefTensor[]): readonly RefTensor[] {
  const results = opDef(op.name).reference(
    operands,
    op.attrs,
    op.results.map((v) => v.type),
    op.regions,
    evaluateRegion,
  );
  return results.map(settle);
}

/** The outputs of a region for these inputs. */
export function evaluateRegion(region: Graph, inputs: readonly RefTensor[]): RefTensor[] {
  const known = new Map<Value, RefTensor>();
  region.inputs.forEach((v, i) => known.set(v, inputs[i]!));
  for (const s of region.state) if (s.init !== 'zero') known.set(s.value, toRef(s.init));
  const get = (v: Value): RefTensor => {
    const t = known.get(v);
    if (!t) throw new InternalError(`value ${v.name ?? ''} of a region is used before it is defined`);
    return t;
  };
  for (const op of region.ops) {
    const results = evaluateOp(op, op.operands.map(get));
    op.results.forEach((v, i) => known.set(v, results[i]!));
  }
  return region.outputs.map((o) => get(o.value));
}
