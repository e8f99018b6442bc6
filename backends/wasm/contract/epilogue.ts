/** Elementwise ops that follow a contraction, run on the registers of a finished tile or over stored rows. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../../ir/graph.ts';
import { dtypes, type DType } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local, Ty, VLocal, Vec } from '../asm.ts';
import { isLaneType, isVectorChain, laneOf, loadVec, splatElement, storeVec, vecChain, type VecValues } from '../elementwise/index.ts';
import { chainKey } from './key.ts';
import type { TileSpace } from './space.ts';

/** An operand of the epilogue as a tile sees it. */
export interface EpilogueOperand {
  readonly value: Value;
  readonly dtype: DType;
  /** Position among the kernel's operands. */
  readonly operand: number;
  /** Elements from one column to the next: 0 where it repeats, 1 where columns lie side by side, else they are gathered. */
  readonly columnStride: number;
  /** Whether it varies along the rows; then its row stride is passed beside its pointer. */
  readonly varies: boolean;
}

export interface Epilogue {
  readonly key: string;
  readonly operands: readonly EpilogueOperand[];
  /** Not worth repeating for every vector of a tile: runs over the stored rows in a function of its own. */
  readonly heavy: boolean;
  /** dtype of what is stored, and elements from one column of the result to the next. */
  readonly dtype: DType;
  readonly columnStride: number;
  readonly body: readonly Op[];
  readonly root: Value | undefined;
  readonly output: Value | undefined;
  /** The operand (of `operands`) that the sums start from, instead of 0: a bias, which then costs no addition. */
  readonly start?: EpilogueOperand;
}

/** No epilogue: the f32 sums are stored as they are. */
export const plainStore = (columnStride = 1): Epilogue => ({
  key: `plain ${columnStride}`, operands: [], heavy: false, dtype: 'f32', columnStride, body: [], root: undefined, output: undefined,
});

const heavyOps: ReadonlySet<string> = new Set([
  'exp', 'expm1', 'log', 'log1p', 'sin', 'cos', 'tan', 'asin', 'acos', 'atan', 'sinh', 'cosh', 'tanh', 'asinh', 'acosh', 'atanh', 'erf', 'sigmoid', 'pow', 'mod', 'fmod', 'atan2',
]);
const manyOps = 8;

/** The epilogue of a fused contraction, or `plainStore` for a plain one. `space.tensors[1 + i]` describes operand `extra[i]`. */
export function epilogueOf(op: Op, root: Op, extra: readonly number[], space: TileSpace): Epilogue {
  const region: Graph | undefined = op.name === 'fused' ? op.regions[0] : undefined;
  const { columnStride } = space.tensors[0]!;
  if (!region) return plainStore(columnStride);
  const body = region.ops.filter((o) => o !== root);
  const output = region.outputs[0]!.value;
  invariant(root.results[0]!.type.dtype === 'f32' && isVectorChain(body) && isLaneType(output.type.dtype), 'the epilogue of a packed contraction computes on f32, i32, u32 and bool');
  const operands = extra.map((operand, i): EpilogueOperand => {
    const value = region.inputs[operand]!;
    const view = space.tensors[1 + i]!;
    return { value, dtype: value.type.dtype, operand, columnStride: view.columnStride, varies: view.rowStride !== 0 };
  });
  // In place over stored sums: the result's elements must be as wide and lie side by side.
  const inPlace = columnStride === 1 && dtypes[output.type.dtype].bytes === 4;
  const heavy = inPlace && (body.length > manyOps || body.some((o) => heavyOps.has(o.name)));
  const shapes = operands.map((o) => `${o.dtype}${o.columnStride}${o.varies ? 'r' : ''}`).join(',');
  const key = `${chainKey(body, [root.results[0]!, ...operands.map((o) => o.value)], output)} ${shapes} ${columnStride}`;
  return { key, operands, heavy, dtype: output.type.dtype, columnStride, body, root: root.results[0]!, output };
}

/** The epilogue without its first addition, where that adds a vector of columns which `startValue` can give the sums to start from. */
export function startingFromBias(e: Epilogue): Epilogue {
  const [first, ...body] = e.body;
  if (e.heavy || first?.name !== 'add' || !e.root || body.some((op) => op.operands.includes(e.root!))) return e;
  const bias = first.operands.find((v) => v !== e.root);
  const start = e.operands.find((o) => o.value === bias && o.dtype === 'f32' && !o.varies);
  return start ? { ...e, key: `start ${e.key}`, body, root: first.results[0]!, start } : e;
}

/** The epilogue with further f32 tensors of the result's shape added to the sums first. They follow the other operands, as varying ones with their columns side by side. */
export function adding(e: Epilogue, count: number): Epilogue {
  const type = { dtype: 'f32', shape: [] } as const;
  const value = (): Value => ({ type, name: undefined });
  const added = Array.from({ length: count }, (): EpilogueOperand => ({ value: value(), dtype: 'f32', operand: -1, columnStride: 1, varies: true }));
  const partial = added.map(value);
  const root = partial[0] ?? e.root;
  const last = e.root ?? value();
  const adds = added.map((o, i): Op => ({ name: 'add', operands: [partial[i]!, o.value], attrs: {}, results: [partial[i + 1] ?? last], regions: [], source: [] }));
  return { ...e, key: `adding ${count} ${e.key}`, operands: [...e.operands, ...added], body: [...adds, ...e.body], root, output: e.output ?? last };
}

/** What the sums of a vector of columns start from. `params` as in `epilogueParams`. */
export function startValue(f: Fn, e: Epilogue, params: readonly Local[], vector: number): Vec {
  let at = 0;
  for (const o of e.operands) {
    if (o === e.start) return loadOperand(f, o, params[at]!, vector);
    at += o.varies ? 2 : 1;
  }
  return f.asm.vsplat(0);
}

/** Parameters that a function gets for the operands: a pointer each, and a row stride for those that vary along rows. */
export const epilogueParams = (e: Epilogue): Ty[] => e.operands.flatMap((o): Ty[] => (o.varies ? ['i32', 'i32'] : ['i32']));

/** The statements of the epilogue on one vector of sums, and its value. `params` as in `epilogueParams`, at the current row. */
export function applyEpilogue(f: Fn, e: Epilogue, acc: VLocal, params: readonly Local[], vector: number): { readonly steps: readonly E[]; readonly value: Vec } {
  if (!e.root || !e.output) return { steps: [], value: f.vget(acc) };
  const values: VecValues = new Map([[e.root, () => f.vget(acc)]]);
  let at = 0;
  for (const o of e.operands) {
    const pointer = params[at]!;
    at += o.varies ? 2 : 1;
    values.set(o.value, () => loadOperand(f, o, pointer, vector));
  }
  const steps = vecChain(f, e.body, values, [e.output], { inline: e.heavy });
  return { steps, value: values.get(e.output)!() };
}

function loadOperand(f: Fn, o: EpilogueOperand, pointer: Local, vector: number): Vec {
  const { m } = f.asm;
  const { bytes } = dtypes[o.dtype];
  if (o.columnStride === 0) return splatElement(f, o.dtype, () => f.get(pointer), 0);
  if (o.columnStride === 1) return loadVec(f, o.dtype, () => f.get(pointer), 4 * vector * bytes);
  invariant(o.dtype === 'f32' || o.dtype === 'i32' || o.dtype === 'u32', 'epilogue operands whose columns lie apart have 4 bytes');
  const lane = o.dtype === 'f32' ? 'f32' : 'i32';
  const load = (k: number): E => m[lane].load((4 * vector + k) * o.columnStride * bytes, 4, f.get(pointer));
  if (!f.asm.simd) return [0, 1, 2, 3].map(load);
  const make = lane === 'f32' ? m.f32x4 : m.i32x4;
  return [[1, 2, 3].reduce((v, k) => make.replace_lane(v, k, load(k)), make.splat(load(0)))];
}

/** Moves the pointers of operands that vary along rows to the next row. */
export function nextRow(f: Fn, e: Epilogue, params: readonly Local[]): E[] {
  const out: E[] = [];
  let at = 0;
  for (const o of e.operands) {
    if (o.varies) out.push(f.set(params[at]!, f.asm.add(f.get(params[at]!), f.get(params[at + 1]!))));
    at += o.varies ? 2 : 1;
  }
  return out;
}

/** Moves the pointers of operands that vary along columns by some columns. */
export function nextColumns(f: Fn, e: Epilogue, params: readonly Local[], columns: number): E[] {
  const out: E[] = [];
  let at = 0;
  for (const o of e.operands) {
    if (o.columnStride !== 0) out.push(f.inc(params[at]!, columns * o.columnStride * dtypes[o.dtype].bytes));
    at += o.varies ? 2 : 1;
  }
  return out;
}

/** Stores the first lanes of a vector of results at column 4·vector of a row. */
export function storeResult(f: Fn, { dtype, columnStride }: Epilogue, row: Local, vector: number, v: Vec, lanes: number): E[] {
  const { m } = f.asm;
  const { bytes } = dtypes[dtype];
  if (lanes === 4 && columnStride === 1) return [storeVec(f, dtype, () => f.get(row), 4 * vector * bytes, v)];
  const lane = dtype === 'f32' ? 'f32' : 'i32';
  const store = (k: number, e: E): E => {
    const offset = (4 * vector + k) * columnStride * bytes;
    return dtype === 'bool' ? m.i32.store8(offset, 1, f.get(row), m.i32.and(e, m.i32.const(1))) : m[lane].store(offset, 4, f.get(row), e);
  };
  if (!f.asm.simd) return v.map((e, k) => (k < lanes ? store(k, e) : m.drop(e)));
  const t = f.vlocal();
  const extract = (k: number): E => m[lane === 'f32' ? 'f32x4' : 'i32x4'].extract_lane(f.vget(t)[0]!, k);
  return [f.vset(t, v), ...Array.from({ length: lanes }, (_, k) => store(k, extract(k)))];
}

/** A function that applies the epilogue to stored f32 sums, elsewhere or in place: (sums, row stride of the sums, c, row stride, rows, operands...). */
export function epiloguePass(asm: Asm, e: Epilogue, vectors: number, lastLanes: number): string {
  return asm.fn(`epilogue ${vectors} last ${lastLanes} ${e.key}`, ['i32', 'i32', 'i32', 'i32', 'i32', ...epilogueParams(e)], undefined, (f, [from, fromStride, c, rowStride, rows, ...params]) => {
    const sums = Array.from({ length: vectors }, () => f.vlocal());
    const done = sums.map(() => f.vlocal(laneOf(e.dtype)));
    // Lanes past the last column are read and not written: every buffer ends with at least a vector of slack before the end of memory.
    const body: E[] = sums.map((l, j) => f.vset(l, asm.vload(from!, 16 * j)));
    sums.forEach((l, j) => {
      const { steps, value } = applyEpilogue(f, e, l, params, j);
      body.push(...steps, f.vset(done[j]!, value));
    });
    done.forEach((l, j) => body.push(...storeResult(f, e, c!, j, f.vget(l), j === vectors - 1 ? lastLanes : 4)));
    const top = f.label('row');
    return [asm.m.loop(top, asm.m.block(null, [
      ...body,
      f.set(from!, asm.add(f.get(from!), f.get(fromStride!))),
      f.set(c!, asm.add(f.get(c!), f.get(rowStride!))),
      ...nextRow(f, e, params),
      asm.m.br(top, f.tee(rows!, asm.sub(f.get(rows!), asm.i32(1)))),
    ]))];
  });
}
