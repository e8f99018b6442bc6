/** What one tile computes in a compute step: an op, its contribution to a result, or the merge of contributions. */
import type { Axes } from '../../ir/axes.ts';
import { InternalError, invariant } from '../../ir/diagnostic.ts';
import { evaluateOp } from '../../ir/evaluate.ts';
import { isContractRoot, isMap, isReduceRoot } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { fromRef, refData, settle, toRef } from '../../ir/number.ts';
import type { RefTensor } from '../../ir/op.ts';
import { isFloat, sizeOf } from '../../ir/type.ts';
import { runMaps, take, valueOf, type Held } from './held.ts';
import { wholeList, type Slice } from './parts.ts';
import { axesOf, rangesOf, runRoot, stored, type CutOf } from './root.ts';
import { elementsRead } from './walk/reader.ts';

type Data = RefTensor['data'];

/** The root of an op, what runs before and after it, and the names of its operands inside. */
interface Anatomy { readonly root: Op | undefined; readonly before: readonly Op[]; readonly after: readonly Op[]; readonly inputs: readonly Value[]; readonly results: readonly Value[] }

const anatomies = new WeakMap<Op, Anatomy>();

function anatomy(op: Op): Anatomy {
  let known = anatomies.get(op);
  if (!known) anatomies.set(op, (known = dissect(op)));
  return known;
}

function dissect(op: Op): Anatomy {
  if (op.name !== 'fused') return isMap(op) ? { root: undefined, before: [op], after: [], inputs: op.operands, results: op.results } : { root: op, before: [], after: [], inputs: op.operands, results: op.results };
  const region = op.regions[0]!;
  const results = region.outputs.map((o) => o.value);
  const isRoot = op.attrs['kind'] === 'contract' ? isContractRoot : op.attrs['kind'] === 'reduce' ? isReduceRoot : () => false;
  const at = region.ops.findIndex(isRoot);
  if (at < 0) {
    if (op.attrs['kind'] !== 'map') throw new InternalError(`a fusion of kind ${String(op.attrs['kind'])} does not run on tiles`);
    return { root: undefined, before: region.ops, after: [], inputs: region.inputs, results };
  }
  // A merge is another vertex than the contributions: it has the constants of the region too.
  const constants = region.ops.slice(0, at).filter((o) => o.name === 'constant');
  return { root: region.ops[at]!, before: region.ops.slice(0, at), after: [...constants, ...region.ops.slice(at + 1)], inputs: region.inputs, results };
}

/** The operands that contributions need, by position: those of the root and of what runs before it. */
export function contributing(op: Op): readonly number[] {
  const { root, before, inputs } = anatomy(op);
  const read = new Set([...(root?.operands ?? []), ...before.flatMap((o) => o.operands)]);
  return [...inputs.keys()].filter((k) => read.has(inputs[k]!));
}

/** The operands that a merge needs, by position: those of what runs after the root. */
export function merging(op: Op): readonly number[] {
  const { root, after, inputs } = anatomy(op);
  const read = new Set(root === op ? [] : after.flatMap((o) => o.operands));
  return [...inputs.keys()].filter((k) => read.has(inputs[k]!));
}

/** Whether an op runs on whole tensors alone: control flow, places that depend on data. */
const isSingle = (op: Op): boolean => (op.name !== 'fused' && op.regions.length > 0) || (anatomy(op).root !== undefined && !axesOf(anatomy(op).root!));

/** All of an op: the data of each slice of `made`, one for each of its first results. */
export function runWhole(op: Op, cut: CutOf, operands: readonly Held[], made: readonly Slice[]): readonly Data[] {
  if (isSingle(op)) return runSingle(op, operands, made);
  const { root, before, after, inputs, results } = anatomy(op);
  const values = new Map(inputs.map((v, k) => [v, operands[k]!]));
  const slice = made[0]!;
  const shape = slice.flat ? [sizeOf(op.results[0]!.type.shape)] : op.results[0]!.type.shape;
  if (!root) {
    runMaps(op.name === 'fused' ? before : [op], values, { ...slice, shape });
  } else {
    rooted(root, before, cut, values, slice);
    runMaps(after, values, { ...slice, shape });
  }
  return results.slice(0, made.length).map((r, i) => {
    const held = valueOf(values, r, op);
    return take(held, made[i]!.lists, op.name);
  });
}

/** The share of a part in the result of an op's root: the elements in order, `width` numbers each (of moments count, mean and sum of squares). */
export function runContribution(op: Op, cut: CutOf, operands: ReadonlyMap<number, Held>, made: Slice): Data {
  const { root, before, inputs } = anatomy(op);
  invariant(root, `${op.name} has no root that could be contributed to`);
  const values = new Map([...operands].map(([k, held]) => [inputs[k]!, held]));
  const { combine, data } = walkRoot(root, before, cut, values, made);
  const { dtype } = root.results[0]!.type;
  const out = refData({ dtype, shape: [data[0]!.length * (combine === 'moments' ? 3 : 1)] });
  if (combine !== 'moments') out.set(data[0] as Float64Array & BigInt64Array & BigUint64Array);
  else for (let i = 0; i < data[0]!.length; i++) for (let j = 0; j < 3; j++) out[3 * i + j] = data[j]![i]!;
  return settle({ dtype, shape: [out.length], data: out }).data;
}

/** Contributions to the elements of a slice: `depth` slots an element, of which the first `counts` hold one. */
export interface Received { readonly data: Data; readonly depth: number; readonly counts: Int32Array }

/** Merges contributions and runs what follows the root. */
export function runMerge(op: Op, received: Received, operands: ReadonlyMap<number, Held>, made: readonly Slice[]): readonly Data[] {
  const { root, after, inputs, results } = anatomy(op);
  invariant(root, `${op.name} has no root whose contributions could be merged`);
  const slice = made[0]!;
  const { combine } = (axesOf(root) as Axes).stages[0]!;
  const { dtype } = root.results[0]!.type;
  const n = received.counts.length;
  const merged = combine === 'moments' ? [0, 1].map(() => refData({ dtype, shape: [n] })) : [refData({ dtype, shape: [n] })];
  for (let i = 0; i < n; i++) mergeElement(combine, received, i, merged, isFloat(dtype));
  const values = new Map([...operands].map(([k, held]) => [inputs[k]!, held]));
  root.results.forEach((r, i) => {
    const shape = r.type.shape;
    values.set(r, { dtype, shape, data: settle({ dtype, shape, data: merged[i]! }).data, ...slice });
  });
  if (root !== op) runMaps(after, values, { ...slice, shape: slice.flat ? [sizeOf(root.results[0]!.type.shape)] : root.results[0]!.type.shape });
  return results.slice(0, made.length).map((r, i) => take(valueOf(values, r, op), made[i]!.lists, op.name));
}

function mergeElement(combine: string, { data, depth, counts }: Received, i: number, out: readonly Data[], float: boolean): void {
  const count = counts[i]!;
  if (data instanceof Float64Array) {
    const from = i * depth;
    if (combine === 'moments') return mergeMoments(data, 3 * from, count, out as readonly Float64Array[], i);
    let x = data[from]!;
    for (let j = 1; j < count; j++) x = pair(combine, x, data[from + j]!);
    if (!float && Math.abs(x) > Number.MAX_SAFE_INTEGER) throw new InternalError('a sum of integers leaves the exact range of float64');
    (out[0] as Float64Array)[i] = x;
    return;
  }
  if (combine !== 'sum') throw new InternalError(`64-bit integers are not merged by ${combine}`);
  let sum = 0n;
  for (let j = 0; j < count; j++) sum += data[i * depth + j]!;
  out[0]![i] = sum;
}

function pair(combine: string, a: number, b: number): number {
  switch (combine) {
    case 'sum': return a + b;
    case 'prod': return a * b;
    case 'max': return Math.max(a, b);
    case 'min': return Math.min(a, b);
    default: throw new InternalError(`contributions are not merged by ${combine}`);
  }
}

/** Mean and sum of squared deviations of parts together (Chan, Golub, LeVeque 1979). */
function mergeMoments(data: Float64Array, from: number, count: number, [mean, m2]: readonly Float64Array[], i: number): void {
  let [n, m, s] = [0, 0, 0];
  for (let j = 0; j < count; j++) {
    const [k, x, q] = [data[from + 3 * j]!, data[from + 3 * j + 1]!, data[from + 3 * j + 2]!];
    if (k === 0) continue;
    const d = x - m;
    s += q + (d * d * n * k) / (n + k);
    n += k;
    m += (d * k) / n;
  }
  mean![i] = m;
  m2![i] = s;
}

function rooted(root: Op, before: readonly Op[], cut: CutOf, values: Map<Value, Held>, made: Slice): void {
  const { combine, data } = walkRoot(root, before, cut, values, made);
  stored(root, combine, data, made).forEach((held, i) => values.set(root.results[i]!, held));
}

function walkRoot(root: Op, before: readonly Op[], cut: CutOf, values: Map<Value, Held>, made: Slice): ReturnType<typeof runRoot> {
  runBefore(root, before, cut, values);
  return runRoot(root, cut, root.operands.map((v) => valueOf(values, v, root)), made);
}

/** Elementwise ops before a root, on the elements of its first operand that the part reads. */
function runBefore(root: Op, before: readonly Op[], cut: CutOf, values: Map<Value, Held>): void {
  if (before.length === 0) return;
  const axes = axesOf(root)!;
  const sizes = new Map(axes.space.map((d) => [d.name, d.size]));
  const ranges = rangesOf(axes, cut);
  const { shape } = root.operands[0]!.type;
  const { pieces } = axes.stages[0]!;
  const lists = shape.map((size, axis) => {
    const read = pieces.map((p) => elementsRead(p.reads[0]!, axis, sizes, shape, (d) => ranges(p, d)));
    return read.length === 1 ? read[0]! : read.some((l) => l.length === size) ? wholeList(size) : Int32Array.from(new Set(read.flatMap((l) => [...l]))).sort();
  });
  runMaps(before, values, { shape, lists, flat: false });
}

function runSingle(op: Op, operands: readonly Held[], made: readonly Slice[]): readonly Data[] {
  const tensors = operands.map((held) => fromRef({ dtype: held.dtype, shape: held.shape, data: take(held, held.shape.map(wholeList), op.name) }));
  return evaluateOp(op, tensors).slice(0, made.length).map((t, i) => take({ ...toRef(t), lists: t.shape.map(wholeList), flat: false }, made[i]!.lists, op.name));
}
