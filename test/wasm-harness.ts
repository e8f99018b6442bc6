/** Runs ops through the wasm backend: one op (or fused region) as a program of its own, over tensors in any layout. */
import { emitWasm, type WasmModule } from '../backends/wasm/module.ts';
import type { Features } from '../backends/wasm/asm.ts';
import { fromRef, toRef } from '../ir/number.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Buffer, Placement, TileProgram } from '../ir/tile.ts';
import { dtypes, isFloat, rowMajor, showType, sizeOf, type DType, type Tensor, type TypedArray } from '../ir/type.ts';
import { control } from '../runtime/control.ts';

/** A layout: axes from outermost to innermost, and unused elements after each innermost run. */
export interface Layout { readonly order: readonly number[]; readonly gap: number }

/** Strides of a shape in a layout, and the elements that it spans. */
export function layOut(shape: readonly number[], layout?: Layout): { strides: number[]; length: number } {
  if (!layout || layout.order.length !== shape.length) return { strides: rowMajor(shape), length: sizeOf(shape) };
  const strides = new Array<number>(shape.length).fill(0);
  let step = 1;
  [...layout.order].reverse().forEach((axis, i) => {
    strides[axis] = step;
    step *= shape[axis]!;
    if (i === 0) step += layout.gap;
  });
  return { strides, length: Math.max(1, step) };
}

/** A program of one step, its operands inputs and its results outputs, each in its layout. */
export function programOf(op: Op, layouts: readonly (Layout | undefined)[]): TileProgram {
  const buffers: Buffer[] = [];
  const placements = new Map<Value, Placement>();
  let address = 0;
  [...op.operands, ...op.results].forEach((v, i) => {
    if (placements.has(v)) return;
    const { strides, length } = layOut(v.type.shape, layouts[i]);
    const bytes = length * dtypes[v.type.dtype].bytes;
    placements.set(v, { buffer: buffers.length, offset: 0, strides });
    buffers.push({ id: buffers.length, kind: i < op.operands.length ? 'input' : 'output', bytes, address });
    address += Math.ceil(bytes / 64) * 64 + 64;
  });
  const graph: Graph = { name: op.name, inputs: [...new Set(op.operands)], state: [], ops: [op], outputs: op.results.map((value, i) => ({ name: `out${i}`, value })), updates: [] };
  return { graph, entries: [{ name: 'run', steps: [{ kind: 'kernel', op }] }], buffers, placements, contents: [], memory: { constants: 0, state: 0, io: address, temps: 0, liveBound: 0, scheduleBytes: 0 } };
}

/** Reads and writes values in the memory of an instance. */
export class Cells {
  readonly #program: TileProgram;
  readonly #memory: { readonly buffer: ArrayBufferLike };
  constructor(program: TileProgram, memory: { readonly buffer: ArrayBufferLike }) {
    this.#program = program;
    this.#memory = memory;
  }
  write(v: Value, t: Tensor): void {
    const { view, offsets } = this.#cells(v);
    offsets.forEach((o, i) => (view[o] = t.data[i]! as never));
  }
  read(v: Value): Tensor {
    const { view, offsets } = this.#cells(v);
    const data = new dtypes[v.type.dtype].array(offsets.length);
    offsets.forEach((o, i) => (data[i] = view[o]! as never));
    return { ...v.type, data };
  }
  #cells(v: Value): { view: TypedArray; offsets: number[] } {
    const place = this.#program.placements.get(v)!;
    const buffer = this.#program.buffers[place.buffer]!;
    const { bytes, array } = dtypes[v.type.dtype];
    const View = array as unknown as new (b: ArrayBufferLike, offset: number, length: number) => TypedArray;
    const view = new View(this.#memory.buffer, control.size + buffer.address, Math.floor(buffer.bytes / bytes));
    const dense = rowMajor(v.type.shape);
    const offsets = Array.from({ length: sizeOf(v.type.shape) }, (_, i) => v.type.shape.reduce((o, d, axis) => o + (Math.floor(i / dense[axis]!) % d) * place.strides[axis]!, place.offset));
    return { view, offsets };
  }
}

/** The inputs of a program by their names. */
export const byName = ({ graph }: TileProgram, inputs: Readonly<Record<string, Tensor>>): Map<Value, Tensor> => new Map(graph.inputs.map((v) => [v, inputs[v.name!]!]));

/** A memory with a program's constants and inputs in it, dirty where nothing was written: every other byte is `fill`. */
export function memoryFor(program: TileProgram, module: WasmModule, inputs: ReadonlyMap<Value, Tensor>, { threads = 1, fill = 0x3b } = {}): { memory: WebAssembly.Memory; cells: Cells } {
  const memory = new WebAssembly.Memory({ initial: Math.ceil((module.scratch + threads * module.scratchPerThread) / 65536) + 1, maximum: 65536, shared: true });
  new Uint8Array(memory.buffer, control.size, module.scratch - control.size).fill(fill);
  const cells = new Cells(program, memory);
  for (const { value, tensor } of program.contents) if (tensor !== 'zero') cells.write(value, tensor);
  for (const [v, t] of inputs) cells.write(v, t);
  new Int32Array(memory.buffer)[control.threads / 4] = threads;
  return { memory, cells };
}

/** Runs a module once, in this thread. */
export const runHere = (binary: Uint8Array, memory: WebAssembly.Memory): void => loaded(binary, memory)(0);

/** Puts a module's data into a memory and gives its entry point. */
function loaded(binary: Uint8Array, memory: WebAssembly.Memory): (thread: number) => void {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(binary as Uint8Array<ArrayBuffer>), { env: { memory } });
  return instance.exports['run'] as (thread: number) => void;
}

/** Runs a program on one thread in this one. Throws where a byte changes that belongs to no result. */
export function runOnce(program: TileProgram, inputs: ReadonlyMap<Value, Tensor>, features: Features): { results: Tensor[]; chunks: number } {
  const module = emitWasm(program, features, { validate: true });
  const { memory, cells } = memoryFor(program, module, inputs);
  const run = loaded(module.binary, memory);
  const expected = { buffer: memory.buffer.slice(0) };
  run(0);
  const rest = new Cells(program, expected);
  for (const o of program.graph.outputs) rest.write(o.value, cells.read(o.value));
  const region = (buffer: ArrayBufferLike): Uint8Array => new Uint8Array(buffer, control.size, module.scratch - control.size);
  if (Buffer.compare(region(expected.buffer), region(memory.buffer)) !== 0) {
    const at = region(memory.buffer).findIndex((b, i) => b !== region(expected.buffer)[i]);
    throw new Error(`${program.graph.name} on ${features} writes outside its results, at address ${control.size + at}`);
  }
  return { results: program.graph.outputs.map((o) => cells.read(o.value)), chunks: module.steps.reduce((n, s) => n + s.chunks, 0) };
}

/** Relative rounding of a dtype, times a few operations. */
const tolerance: Readonly<Partial<Record<DType, number>>> = { f64: 1e-11, f32: 4e-6, f16: 4e-3, bf16: 3e-2 };

/** Why two tensors differ, or undefined. Floats may differ by rounding relative to the largest magnitude of the result (`slack` times as much). */
export function difference(got: Tensor, want: Tensor, slack = 1): string | undefined {
  const [a, b] = [toRef(got).data, toRef(want).data];
  if (a.length !== b.length || got.dtype !== want.dtype) return `${showType(got)} is not ${showType(want)}`;
  const scale = isFloat(want.dtype) ? (b as Float64Array).reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most), 1e-30) : 0;
  const allowed = (tolerance[want.dtype] ?? (isFloat(want.dtype) ? 0.3 : 0)) * slack * scale;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (x === y || (Number.isNaN(x) && Number.isNaN(y))) continue;
    if (Math.abs(Number(x) - Number(y)) <= allowed) continue;
    return `element ${i} of ${showType(want)} is ${String(x)}, expected ${String(y)}`;
  }
  return undefined;
}

/** Values in -2 to 2 that follow from a number. */
export function random(shape: readonly number[], salt: number, dtype: DType = 'f32'): Tensor {
  const data = new Float64Array(sizeOf(shape));
  let state = salt * 7919 + 17;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    data[i] = ((state >>> 8) % 4001) / 1000 - 2;
  }
  return converted({ dtype: 'f64', shape, data }, dtype);
}

/** The same values in another dtype, as far as it holds them. */
export const converted = (t: Tensor, dtype: DType): Tensor => {
  if (t.dtype === dtype) return t;
  const from = toRef(t).data;
  const big = dtype === 'i64' || dtype === 'u64';
  const values = big ? BigInt64Array.from(from as Float64Array, (x) => BigInt(Math.trunc(x))) : Float64Array.from(from as Float64Array, (x) => (isFloat(dtype) ? x : Math.trunc(x)));
  if (big) return { dtype, shape: t.shape, data: dtype === 'i64' ? (values) : BigUint64Array.from(values as BigInt64Array, (x) => BigInt.asUintN(64, x)) };
  return fromRef({ dtype, shape: t.shape, data: values });
};
