/** The rules that the region of a `fused` op keeps, by kind (docs/ir.md). Emitters rely on them. */
import type { Op, Value } from './graph.ts';
import { nums } from './op.ts';
import { opDef } from './ops/index.ts';
import { broadcastShapes, sameShape, showType, type TensorType } from './type.ts';

export type FusedKind = 'map' | 'contract' | 'reduce' | 'row';
const fusedKinds: readonly FusedKind[] = ['map', 'contract', 'reduce', 'row'];

const contractRoots: ReadonlySet<string> = new Set(['contract', 'contractPacked', 'conv', 'convPacked', 'convData', 'convWeight']);
const rowReductions: ReadonlySet<string> = new Set(['reduceSum', 'reduceMax', 'reduceMin', 'reduceProd', 'moments']);

/** Whether an op is elementwise: one result, numpy broadcasting, each element from the elements at the same place. */
export const isMap = (op: Op): boolean => opDef(op.name).family === 'map';
/** Whether an op is elementwise, or a fusion of such ops alone: it reads every operand at the element that it writes. */
export const isElementwise = (op: Op): boolean => (op.name === 'fused' ? op.attrs['kind'] === 'map' : isMap(op));
/** Whether an op can be the root of a `contract` fusion. */
export const isContractRoot = (op: Op): boolean => contractRoots.has(op.name);
/** Whether an op can be the root of a `reduce` fusion. */
export const isReduceRoot = (op: Op): boolean => ['reduce', 'window'].includes(opDef(op.name).family) && !op.name.endsWith('Grad');
/** Whether an op can reduce inside a `row` fusion. */
export const isRowReduction = (op: Op): boolean => rowReductions.has(op.name);

/** Why a `fused` op is not of the kind it claims, or undefined. */
export function fusedProblem(op: Op): string | undefined {
  const kind = op.attrs['kind'] as FusedKind;
  const region = op.regions[0];
  if (!fusedKinds.includes(kind)) return `there is no kind of fusion ${String(kind)}`;
  if (!region) return 'a fused op has one region';
  const ops = region.ops.filter((o) => o.name !== 'constant');
  const results = region.outputs.map((o) => o.value);
  switch (kind) {
    case 'map': return mapProblem(ops, results);
    case 'contract': return rootedProblem(ops, results, isContractRoot, false);
    case 'reduce': return rootedProblem(ops, results, isReduceRoot, true);
    case 'row': return rowProblem(ops, results);
  }
}

function mapProblem(ops: readonly Op[], results: readonly Value[]): string | undefined {
  const other = ops.find((o) => !isMap(o));
  if (other) return `${other.name} is not elementwise`;
  const space = broadcastShapes(ops.map((o) => o.results[0]!.type.shape));
  const small = results.find((r) => !space || !sameShape(r.type.shape, space));
  return small ? `a result of ${showType(small.type)} does not have the shape of the space [${String(space)}]` : undefined;
}

function rootedProblem(ops: readonly Op[], results: readonly Value[], isRoot: (op: Op) => boolean, prologue: boolean): string | undefined {
  const roots = ops.filter(isRoot);
  if (roots.length !== 1) return `one root expected, ${roots.length} found`;
  const root = roots[0]!;
  const space = root.results[0]!.type.shape;
  let seen = false;
  const before = new Set<Value>();
  const after = new Set<Value>(root.results);
  for (const op of ops) {
    if (op === root) {
      seen = true;
      continue;
    }
    if (!isMap(op)) return `${op.name} is neither the root nor elementwise`;
    if (!seen) {
      if (!prologue) return `${op.name} stands before the root`;
      op.results.forEach((r) => before.add(r));
    } else {
      if (!sameShape(op.results[0]!.type.shape, space)) return `${op.name} after the root gives ${showType(op.results[0]!.type)}, not the root's shape`;
      if (op.operands.some((v) => before.has(v))) return `${op.name} after the root reads what stands before it`;
      op.results.forEach((r) => after.add(r));
    }
  }
  const operandShape = root.operands[0]!.type.shape;
  for (const op of ops) if (before.has(op.results[0]!) && !sameShape(op.results[0]!.type.shape, operandShape)) return `${op.name} before the root does not give the shape of its operand`;
  if (root.operands.slice(1).some((v) => before.has(v))) return 'only the first operand of the root may come from ops before it';
  return results.every((r) => after.has(r)) && (results.length === 1 || root.results.length > 1) ? undefined : 'the results must be one value after the root (or the several of a root)';
}

function rowProblem(ops: readonly Op[], results: readonly Value[]): string | undefined {
  const reductions = ops.filter(isRowReduction);
  const first = reductions[0];
  if (!first) return 'a row fusion reduces';
  const full = first.operands[0]!.type.shape;
  const axes = nums(first.attrs, 'axes');
  const kept = full.map((d, i) => (axes.includes(i) ? 1 : d));
  const dropped = full.filter((_, i) => !axes.includes(i));
  const fits = (t: TensorType): boolean => sameShape(t.shape, dropped) || sameShape(broadcastShapes([t.shape, kept]) ?? [], kept) || sameShape(broadcastShapes([t.shape, full]) ?? [], full);
  for (const op of ops) {
    if (isRowReduction(op)) {
      if (!sameShape(op.operands[0]!.type.shape, full)) return `${op.name} reads ${showType(op.operands[0]!.type)}, the rows are [${full.join(',')}]`;
      if (!sameShape(nums(op.attrs, 'axes'), axes)) return `${op.name} reduces other axes than ${first.name}`;
    } else if (op.name === 'reshape') {
      const [from, to] = [op.operands[0]!.type.shape, op.results[0]!.type.shape];
      if (!sameShape(from, dropped) || !sameShape(to, kept)) return 'a reshape in a row fusion puts the reduced axes back as 1s';
    } else if (!isMap(op)) return `${op.name} is neither elementwise nor a reduction`;
    else if (!fits(op.results[0]!.type)) return `${op.name} gives ${showType(op.results[0]!.type)}, the rows are [${full.join(',')}]`;
  }
  const shapes = [full, kept, dropped];
  return results.every((r) => shapes.some((s) => sameShape(s, r.type.shape))) ? undefined : 'results have the full or the reduced shape';
}
