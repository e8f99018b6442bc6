/** Reductions, alone or with what joins them (softmax, norms): a workgroup takes a row, its invocations share the row's elements; short rows take one invocation each. */
import { isMap, isRowReduction } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { sameShape, sizeOf } from '../../ir/type.ts';
import { positions } from './elements.ts';
import { Evaluator } from './evaluator.ts';
import { joinOf } from './families/reduce.ts';
import { bodyOf, Kernel, type Body, type KernelCode, type Located } from './kernel.ts';
import { joiningLanes, type Site } from './machine.ts';
import { literal } from './literal.ts';
import { narrowed } from './map.ts';
import { tree } from './tree.ts';
import { registerOf } from './types.ts';

/** The rows of a body: the shape of what is reduced, along which axes. */
interface Rows { readonly full: readonly number[]; readonly axes: readonly number[]; readonly reductions: readonly Op[] }

const shortRow = 32;
const manyRows = 8192;

/** The kernel, or undefined where the op is none of reductions over one set of axes and elementwise ops. */
export function emitRows(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] | undefined {
  const body = bodyOf(op);
  const rows = rowsOf(body);
  if (!rows || sizeOf(rows.full) === 0) return undefined;
  const length = rows.axes.reduce((n, a) => n * rows.full[a]!, 1);
  const keptSizes = rows.full.map((d, i) => (rows.axes.includes(i) ? 1 : d));
  const count = sizeOf(keptSizes);
  // With many rows side by side in memory, invocations that take a row each read neighbours.
  const along = Math.min(...operands.flatMap((x) => (sameShape(x.type.shape, rows.full) ? rows.axes.filter((a) => rows.full[a]! > 1).map((a) => x.strides[a]!) : [])));
  const alone = length <= shortRow || (count >= manyRows && along > 1);
  const boxes = rows.reductions.reduce((n, r) => n + (r.name === 'moments' ? 2 : 1), 0);
  const lanes = alone ? 1 : joiningLanes(site.machine, length < 2048 ? 64 : 256, boxes);
  return [emit(new Kernel(op, operands, results, site), body, rows, { length, keptSizes, count, lanes })];
}

function rowsOf(body: Body): Rows | undefined {
  const reductions = body.ops.filter(isRowReduction);
  const [first] = reductions;
  if (!first) return undefined;
  const full = first.operands[0]!.type.shape;
  const axes = nums(first.attrs, 'axes');
  if (axes.length === 0) return undefined;
  const fits = body.ops.every((o) => o.name === 'constant' || isMap(o) || o.name === 'reshape' || (isRowReduction(o) && sameShape(o.operands[0]!.type.shape, full) && sameShape(nums(o.attrs, 'axes'), axes)));
  return fits ? { full, axes, reductions } : undefined;
}

interface Sizes { readonly length: number; readonly keptSizes: readonly number[]; readonly count: number; readonly lanes: number }

function emit(kernel: Kernel, body: Body, { full, axes, reductions }: Rows, { length, keptSizes, count, lanes }: Sizes): KernelCode {
  const { w, results } = kernel;
  const alone = lanes === 1;
  const grid = alone ? kernel.elements(count) : ([count, lanes] as const);
  const main = [...kernel.operands, ...results].find((x) => sameShape(x.type.shape, full)) ?? kernel.operands[0]!;
  const strides = sameShape(main.type.shape, full) ? main.strides : full.map(() => 0);
  const kept = positions(w, alone ? 'element' : 'group', keptSizes, strides);
  const dropped = kept.filter((_, i) => !axes.includes(i));
  const e = new Evaluator(kernel, body);
  const reduced = full.map((d, i) => (axes.includes(i) ? d : 1));
  /** Calls `visit` with the index of every element of the row that this invocation has. */
  const walk = (visit: (index: readonly string[]) => void): void => {
    const j = w.name('j');
    w.block(alone ? `for (var ${j} = 0; ${j} < ${length}; ${j}++)` : `for (var ${j} = lane; ${j} < ${length}; ${j} += ${lanes})`, () => e.scoped(() => {
      const inner = positions(w, j, reduced, strides);
      visit(full.map((_, i) => (axes.includes(i) ? inner[i]! : kept[i]!)));
    }));
  };
  for (const op of reductions) reduce(kernel, e, op, { walk, lanes, length, at: dropped });
  const whole = body.outputs.flatMap((v, i) => (sameShape(v.type.shape, full) && i < results.length ? [i] : []));
  const small = body.outputs.flatMap((_, i) => (whole.includes(i) || i >= results.length ? [] : [i]));
  if (whole.length > 0) {
    walk((index) => {
      const values = whole.map((i) => e.at(body.outputs[i]!, index));
      whole.forEach((i, k) => kernel.store(i, index, values[k]!));
    });
  }
  const storeSmall = (): void => small.forEach((i) => {
    const v = body.outputs[i]!;
    const index = indexOf(v, kept, dropped, keptSizes);
    kernel.store(i, index, e.at(v, index));
  });
  if (small.length > 0 && alone) storeSmall();
  else if (small.length > 0) w.block('if (lane == 0)', () => e.scoped(storeSmall));
  return kernel.finish(...grid);
}

/** The row's index in a value of the reduced shape: with the reduced axes as 1s, or without them. */
const indexOf = (v: Value, kept: readonly string[], dropped: readonly string[], keptSizes: readonly number[]): readonly string[] =>
  sameShape(v.type.shape, keptSizes) ? kept : dropped;

interface Walk { walk(visit: (index: readonly string[]) => void): void; readonly lanes: number; readonly length: number; readonly at: readonly string[] }

/** Writes a reduction of the row and makes its results known. */
function reduce(kernel: Kernel, e: Evaluator, op: Op, { walk, lanes, length, at }: Walk): void {
  const { w } = kernel;
  const x = op.operands[0]!;
  const { dtype } = op.results[0]!.type;
  const register = registerOf(dtype);
  const joined = (value: string, join: (a: string, b: string) => string): string => (lanes === 1 ? value : tree(kernel, value, register, lanes, join));
  const add = (a: string, b: string): string => `${a} + ${b}`;
  if (op.name === 'moments') {
    const count = literal(w, 'f32', length);
    const sum = w.variable('sum', 'f32', '0.0');
    walk((index) => w.line(`${sum} = ${sum} + ${e.at(x, index)};`));
    const mean = w.let('mean', `${joined(sum, add)} / ${count}`);
    const squares = w.variable('squares', 'f32', '0.0');
    walk((index) => {
      const d = w.let('d', `${e.at(x, index)} - ${mean}`);
      w.line(`${squares} = ${squares} + ${d} * ${d};`);
    });
    e.set(op.results[0]!, at, w.let('mean', narrowed(w, mean, dtype)));
    if (op.results[1]) e.set(op.results[1], at, w.let('m2', narrowed(w, joined(squares, add), dtype)));
    return;
  }
  const { start, join } = joinOf(w, op.name, dtype);
  const acc = w.variable('acc', register, start);
  walk((index) => w.line(`${acc} = ${join(acc, e.at(x, index))};`));
  e.set(op.results[0]!, at, w.let('reduced', narrowed(w, joined(acc, join), dtype)));
}
