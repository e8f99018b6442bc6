/** Which buffer of a plan holds which value of its graph. */
import { InternalError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { tensorAttr } from '../../ir/op.ts';
import { sameShape, type Tensor } from '../../ir/type.ts';
import type { TileBuffer, TilePlan, TileStep } from '../../ir/tiles.ts';

/** Buffers by value. State, constants and inputs are written before the first step. */
export interface Binding {
  readonly homes: ReadonlyMap<Value, TileBuffer>;
  readonly constants: ReadonlyMap<Value, Tensor>;
}

type Compute = TileStep & { readonly kind: 'compute' };

/** All compute steps, those of repeats too, in order. */
export function computeSteps(steps: readonly TileStep[]): Compute[] {
  return steps.flatMap((s) => (s.kind === 'repeat' ? computeSteps(s.body) : s.kind === 'compute' ? [s] : []));
}

/** Finds the buffer of every value that lies in one. Values that no step reads have none. */
export function bind(graph: Graph, plan: TilePlan): Binding {
  const homes = new Map<Value, TileBuffer>();
  const constants = new Map<Value, Tensor>();
  const taken = new Set<TileBuffer>();
  const claim = (v: Value, fits: (b: TileBuffer) => boolean): void => {
    const found = plan.buffers.find((b) => !taken.has(b) && b.dtype === v.type.dtype && sameShape(b.shape, v.type.shape) && fits(b));
    if (!found) return;
    taken.add(found);
    homes.set(v, found);
  };
  const updated = new Set(graph.updates.map((u) => u.state));
  for (const s of graph.state) claim(s.value, (b) => b.kind === (updated.has(s.value) ? 'state' : 'constant') && b.value === s.name);
  for (const v of graph.inputs) claim(v, (b) => b.kind === 'input' && b.value === (v.name ?? 'input'));
  const writers = new Map(computeSteps(plan.steps).flatMap((s) => (s.part === 'contribute' ? [] : [[s.op, s]])));
  graph.ops.forEach((op, i) => {
    const step = writers.get(i);
    if (step) return step.writes.forEach((w, k) => homes.set(op.results[k]!, plan.buffers[w.buffer]!));
    const [result] = op.results;
    if (op.name === 'constant') {
      claim(result!, (b) => b.kind === 'constant' && b.value === (result!.name ?? `constant ${i}`));
      if (homes.has(result!)) constants.set(result!, tensorAttr(op.attrs, 'value'));
    } else if (op.name === 'reshape') {
      const from = homes.get(op.operands[0]!);
      if (!from) throw new InternalError(`tile plan: reshape ${result!.name ?? ''} has neither a step nor a value to be a view of`);
      claim(result!, (b) => b.viewOf === from.id);
    } else throw new InternalError(`tile plan: no step runs op ${i}, ${op.name}`);
  });
  return { homes, constants };
}
