/** A kernel under construction: bindings of buffers, reads and writes of placed tensors, and the text of its shader. */
import type { Op, Value } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import { sizeOf } from '../../ir/type.ts';
import { libraryText } from './library.ts';
import { literal } from './literal.ts';
import { decodeName, encodeName } from './small-floats.ts';
import { isSmallFloat, registerOf, wordOf, type Word } from './types.ts';
import { address, plus, Writer } from './writer.ts';

/** A placed tensor and the buffer that holds it; `offset` in elements. `writable`: the buffer shares its GPU buffer with one that the op writes, so that it has to be bound for writing too. */
export interface Located extends Placed {
  readonly buffer: number;
  readonly offset: number;
  readonly writable: boolean;
  /** The GPU buffer that holds it, and where in it the buffer starts, in elements. */
  readonly segment: number;
  readonly start: number;
}

/** A compute shader and what it is called with. Workgroups are counted along one line; `dispatchSize` folds them into three dimensions. */
export interface KernelCode {
  readonly code: string;
  /** Buffers of each binding: one, or all between the first and the last of several. */
  readonly buffers: readonly (readonly number[])[];
  /** Of each binding, whether it is written. */
  readonly writes: readonly boolean[];
  readonly workgroups: number;
  /** Bytes of workgroup memory, and invocations of a workgroup. */
  readonly workgroupBytes: number;
  readonly workgroupSize: number;
}

interface Binding { readonly buffers: readonly number[]; readonly name: string; readonly word: Word; readonly writable: boolean; readonly segment: number; readonly start: number }

/** Storage buffers that a shader may bind on every adapter. */
const mostBindings = 8;

/** Most workgroups along one dimension of a dispatch, on every adapter. */
const widest = 65535;
/** How a line of workgroups is folded: y rows of x, none longer than an adapter allows. */
export function dispatchSize(workgroups: number): readonly [number, number] {
  const rows = Math.ceil(workgroups / widest);
  return [Math.ceil(workgroups / rows), rows];
}

export class Kernel {
  readonly w = new Writer();
  readonly op: Op;
  readonly operands: readonly Located[];
  readonly results: readonly Located[];
  readonly #bindings: readonly Binding[];
  #workgroupBytes = 0;

  constructor(op: Op, operands: readonly Located[], results: readonly Located[]) {
    this.op = op;
    this.operands = operands;
    this.results = results;
    this.#bindings = bindingsOf(operands, results);
    for (const name of [...this.#bindings.map((b) => b.name), 'group', 'lane', 'local', 'workgroup', 'element', 'main', 'put', 'k0', 'step', 'half', 'batch', 'value']) this.w.name(name);
  }

  /** Operand `i` at an index, in a register. */
  load(i: number, index: readonly string[]): string {
    const x = this.operands[i]!;
    return this.loadWord(i, address(index, x.strides, x.offset));
  }

  /** Operand `i` at an address in elements of its buffer, in a register. */
  loadWord(i: number, at: string): string {
    const x = this.operands[i]!;
    const { dtype, shape } = x.type;
    // What has no elements is not bound, and no invocation gets here.
    if (sizeOf(shape) === 0) return literal(this.w, registerOf(dtype), 0);
    const b = this.#binding(x);
    const word = converted(`${b.name}[${plus(at, x.start - b.start)}]`, b.word, wordOf(dtype));
    if (isSmallFloat(dtype)) return this.w.call(decodeName(dtype), word);
    return dtype === 'bool' ? `(${word} != 0u)` : word;
  }

  /** Writes result `i` at an index from a register. */
  store(i: number, index: readonly string[], value: string): void {
    const y = this.results[i]!;
    this.storeWord(i, address(index, y.strides, y.offset), value);
  }

  storeWord(i: number, at: string, value: string): void {
    const y = this.results[i]!;
    const { dtype } = y.type;
    const b = this.#binding(y);
    const word = isSmallFloat(dtype) ? this.w.call(encodeName(dtype), value) : registerOf(dtype) === 'bool' ? `select(0u, 1u, ${value})` : value;
    this.w.line(`${b.name}[${plus(at, y.start - b.start)}] = ${converted(word, wordOf(dtype), b.word)};`);
  }

  /** An array that the invocations of a workgroup share. */
  shared(hint: string, type: Word | 'vec4<f32>', length: number): string {
    const name = this.w.name(hint);
    this.w.declarations.push(`var<workgroup> ${name}: array<${type}, ${length}>;`);
    this.#workgroupBytes += length * (type === 'vec4<f32>' ? 16 : 4);
    return name;
  }

  /** The shader. `workgroups` along one line: the body finds its own as `group`, and its invocation within it as `lane`. */
  finish(workgroups: number, workgroupSize: number): KernelCode {
    const bindings = this.#bindings.map((b, i) => `@group(0) @binding(${i}) var<storage, ${b.writable ? 'read_write' : 'read'}> ${b.name}: array<${b.word}>;`);
    const [row, rows] = dispatchSize(workgroups);
    const folded = workgroups > row;
    const body = this.w.text();
    const code = [
      ...bindings,
      ...this.w.declarations,
      libraryText(this.w.used),
      `@compute @workgroup_size(${workgroupSize})`,
      'fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {',
      `  let group = i32(${folded ? `workgroup.y * ${row}u + workgroup.x` : 'workgroup.x'});`,
      // Folding rounds up; what is left over does nothing.
      ...(row * rows > workgroups ? [`  if (group >= ${workgroups}) { return; }`] : []),
      ...(/\blane\b/.test(body) ? ['  let lane = i32(local);'] : []),
      body,
      '}',
      '',
    ].filter((l) => l !== '').join('\n');
    return { code: `${code}\n`, buffers: this.#bindings.map((b) => b.buffers), writes: this.#bindings.map((b) => b.writable), workgroups, workgroupBytes: this.#workgroupBytes, workgroupSize };
  }

  #binding(x: Located): Binding {
    return this.#bindings.find((b) => b.buffers.includes(x.buffer))!;
  }
}

/** One binding a buffer, or one a GPU buffer where there are too many. What holds tensors of several kinds of words is bound as bits. */
function bindingsOf(operands: readonly Located[], results: readonly Located[]): Binding[] {
  const list: Binding[] = [];
  const all = [...operands.map((x, i) => ({ x, name: `x${i}` })), ...results.map((x, i) => ({ x, name: `y${i}` }))];
  for (const { x, name } of all) {
    if (sizeOf(x.type.shape) === 0) continue;
    const at = list.findIndex((b) => b.buffers.includes(x.buffer));
    const word = wordOf(x.type.dtype);
    const writable = x.writable || results.includes(x);
    if (at < 0) list.push({ buffers: [x.buffer], name, word, writable, segment: x.segment, start: x.start });
    else list[at] = { ...list[at]!, word: list[at]!.word === word ? word : 'u32', writable: writable || list[at]!.writable };
  }
  return list.length <= mostBindings ? list : [...new Set(list.map((b) => b.segment))].map((segment) => joined(list.filter((b) => b.segment === segment)));
}

/** One binding over the memory from the first of several buffers to the last. */
function joined(list: readonly Binding[]): Binding {
  const [first] = list;
  if (list.length === 1) return first!;
  const word = list.every((b) => b.word === first!.word) ? first!.word : 'u32';
  return { ...first!, buffers: list.flatMap((b) => b.buffers), name: `memory${first!.segment}`, word, writable: list.some((b) => b.writable), start: Math.min(...list.map((b) => b.start)) };
}

const converted = (text: string, from: Word, to: Word): string => (from === to ? text : `bitcast<${to}>(${text})`);

/** The ops of a kernel as one region: those of a fused op, or the op alone. */
export interface Body {
  readonly inputs: readonly Value[];
  readonly ops: readonly Op[];
  readonly outputs: readonly Value[];
}

export function bodyOf(op: Op): Body {
  const region = op.name === 'fused' ? op.regions[0] : undefined;
  if (!region) return { inputs: op.operands, ops: [op], outputs: op.results };
  return { inputs: region.inputs, ops: region.ops, outputs: region.outputs.map((o) => o.value) };
}
