/** How ops are computed a slab at a time, a slab being what lies at one index of axis 0 (a sample), and the rules that the region of a `slabs` op keeps (docs/ir.md). Emitters rely on them. */
import { isElementwise, isMap, isRowReduction } from './fused.ts';
import type { Op, Value } from './graph.ts';
import { num, nums } from './op.ts';
import { sameShape } from './type.ts';

/**
 * Which values of some ops are cut along axis 0, `slabs` long there, when the ops run once a slab; the others are whole in every slab. Values inside fused ops count too. A text says why the ops
 * cannot run so: one mixes slabs, or reads as a whole what another cuts.
 */
export function cutValues(ops: readonly Op[], slabs: number): ReadonlySet<Value> | string {
  const isCut = new Map<Value, boolean>();
  for (const op of ops) {
    const problem = markOp(op, slabs, isCut);
    if (problem !== undefined) return problem;
  }
  return new Set([...isCut].filter(([, cut]) => cut).map(([v]) => v));
}

/** Why the region of a `slabs` op is not one that it may hold, or undefined. */
export function slabsProblem(op: Op): string | undefined {
  const region = op.regions[0]!;
  const slabs = num(op.attrs, 'slabs');
  if (slabs < 2) return `${slabs} slabs are none`;
  const cut = cutValues(region.ops, slabs);
  if (typeof cut === 'string') return cut;
  const whole = region.ops.find((o) => o.results.some((r) => !cut.has(r)));
  return whole && `${whole.name} gives a value that is no part of a slab`;
}

/**
 * Results of a `slabs` op in whose memory another value of its region lies first: an elementwise op reads that value where it writes the result. By result, the value.
 */
export function lodgers(op: Op): ReadonlyMap<Value, Value> {
  const region = op.regions[0]!;
  const outputs = new Set(region.outputs.map((o) => o.value));
  const found = new Map<Value, Value>();
  region.ops.forEach((maker, at) => {
    const [result] = maker.results as [Value];
    if (!isElementwise(maker) || !outputs.has(result)) return;
    const later = region.ops.slice(at + 1);
    const lodger = maker.operands.find((v) => !outputs.has(v) && region.ops.some((o) => o.results.includes(v) && writesWhereItReads(o)) && sameShape(v.type.shape, result.type.shape) && v.type.dtype === result.type.dtype
      && later.every((o) => !o.operands.includes(v)) && region.ops.every((o) => o.name !== 'reshape' || o.operands[0] !== v) && ![...found.values()].includes(v));
    if (lodger) found.set(result, lodger);
  });
  return found;
}

/** Whether result number `result` of a `slabs` op may take the memory of an operand of the same shape: nothing reads the operand after the first write there, but for an elementwise op that writes it. */
export function mayReplace(op: Op, result: number, operand: number): boolean {
  const region = op.regions[0]!;
  const made = region.outputs[result]!.value;
  const first = lodgers(op).get(made) ?? made;
  const at = region.ops.findIndex((o) => o.results.includes(first));
  const views = new Set([region.inputs[operand]!]);
  for (const o of region.ops) if (o.name === 'reshape' && views.has(o.operands[0]!)) views.add(o.results[0]!);
  const writer = region.ops[at]!;
  const elsewhere = writer.operands.some((v) => views.has(v) && v !== region.inputs[operand]);
  return writesWhereItReads(writer) && !elsewhere && region.ops.slice(at + 1).every((o) => o.name === 'reshape' || !o.operands.some((v) => views.has(v)));
}

/** Elementwise ops, and sums over rows beside what they are sums of: a kernel writes an element when it has read all operands there, and reads nothing there again. */
function writesWhereItReads(op: Op): boolean {
  if (isElementwise(op)) return true;
  if (op.name !== 'fused' || op.attrs['kind'] !== 'row') return false;
  const { ops } = op.regions[0]!;
  const reduced = new Set(ops.filter(isRowReduction).flatMap((o) => o.results));
  return ops.every((o) => !o.operands.some((v) => reduced.has(v)));
}

/** Notes which operands and results of an op are cut; a text where that cannot be. */
function markOp(op: Op, slabs: number, isCut: Map<Value, boolean>): string | undefined {
  const long = (v: Value): boolean => v.type.shape[0] === slabs;
  const markAll = (values: readonly Value[], cut: (v: Value) => boolean): string | undefined => values.map((v) => mark(op, v, cut(v), isCut)).find((p) => p !== undefined);
  if (op.name === 'constant') return markAll(op.results, () => false);
  if (op.name === 'fused') return markFused(op, slabs, isCut);
  const [result] = op.results as [Value];
  if (isMap(op) || op.name === 'broadcast') {
    const rank = result.type.shape.length;
    return markAll(op.operands, (v) => long(result) && v.type.shape.length === rank && long(v)) ?? mark(op, result, long(result), isCut);
  }
  if (op.name !== 'reshape' && !isRowReduction(op)) return `${op.name} is not computed in slabs`;
  const cut = long(op.operands[0]!) && (op.name === 'reshape' ? long(result) : !nums(op.attrs, 'axes').includes(0));
  return markAll([...op.operands, ...op.results], () => cut);
}

function markFused(op: Op, slabs: number, isCut: Map<Value, boolean>): string | undefined {
  const region = op.regions[0]!;
  const pairs = [...region.inputs.map((v, i) => [v, op.operands[i]!] as const), ...region.outputs.map((o, i) => [o.value, op.results[i]!] as const)];
  for (const inner of region.ops) {
    const problem = markOp(inner, slabs, isCut);
    if (problem !== undefined) return problem;
  }
  for (const [inside, outside] of pairs) {
    const problem = mark(op, outside, isCut.get(inside) ?? false, isCut);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** Notes whether an op takes or gives a value in slabs; a text where another op does otherwise. */
function mark(op: Op, v: Value, cut: boolean, isCut: Map<Value, boolean>): string | undefined {
  if ((isCut.get(v) ?? cut) !== cut) return `${op.name} reads ${cut ? 'slabs of what is whole' : 'the whole of what is cut into slabs'}`;
  isCut.set(v, cut);
  return undefined;
}
