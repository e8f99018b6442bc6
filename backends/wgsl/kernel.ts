/** A kernel under construction: bindings of buffers, reads and writes of placed tensors, and the text of its shader. */
import { Unsupported } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import { sizeOf } from '../../ir/type.ts';
import { bindingsOf, putWord, rangesOf, rangeText, wordAt, type Range } from './bindings.ts';
import { libraryText } from './library.ts';
import { literal } from './literal.ts';
import type { Site } from './machine.ts';
import type { Piece } from './memory.ts';
import { decodeName, encodeName } from './small-floats.ts';
import { bytesOfWord, isSmallFloat, registerOf, type Word } from './types.ts';
import { address, plus, Writer } from './writer.ts';

/** A placed tensor in memory: `address` is that of its buffer, `offset` its first element from there, and `word` what an element lies in. */
export interface Located extends Placed {
  readonly address: number;
  readonly offset: number;
  readonly word: Word;
  /** The elements from its buffer's start that a kernel sees of it, where these are not all: what reads or writes others is left to the kernels that see them. `first`: nothing lies before. */
  readonly window?: { readonly from: number; readonly to: number; readonly first: boolean };
}

/** A compute shader and what it is called with. Workgroups are counted along one line; `dispatchSize` folds them into three dimensions. */
export interface KernelCode {
  readonly code: string;
  /** The same with subgroups, where the kernel joins values of a workgroup. */
  readonly withSubgroups: string | undefined;
  readonly bindings: readonly Piece[];
  /** Of each binding, whether it is written. */
  readonly writes: readonly boolean[];
  readonly workgroups: number;
  /** Bytes of workgroup memory, and invocations of a workgroup. */
  readonly workgroupBytes: number;
  readonly workgroupSize: number;
}

/** Invocations of a workgroup where each has an element of its own. */
const elementLanes = 64;

/** Most workgroups along one dimension of a dispatch, on every adapter. */
const widest = 65535;
/** How a line of workgroups is folded: y rows of x, none longer than an adapter allows. */
export function dispatchSize(workgroups: number): readonly [number, number] {
  const rows = Math.ceil(workgroups / widest);
  return [Math.ceil(workgroups / rows), rows];
}

export class Kernel {
  readonly w: Writer;
  readonly op: Op;
  readonly operands: readonly Located[];
  readonly results: readonly Located[];
  readonly site: Site;
  readonly #ranges: readonly Range[];
  readonly #helpers: { readonly plain: string; readonly withSubgroups: string }[] = [];
  /** Of each operand that the kernel sees in part, the variable that says whether it sees what this invocation reads. */
  readonly #windowed: readonly string[];
  #workgroupBytes = 0;

  constructor(op: Op, operands: readonly Located[], results: readonly Located[], site: Site) {
    this.op = op;
    this.operands = operands;
    this.results = results;
    this.site = site;
    this.w = new Writer(site.machine.f16);
    this.#ranges = rangesOf(operands, results, site);
    const needed = bindingsOf(this.#ranges).count;
    const { bindings, bindingBytes } = site.machine;
    if (needed > bindings) throw new Unsupported('tensors above the limits of bindings on WebGPU', `its tensors take ${needed} bindings of at most ${bindingBytes} bytes, and shaders have ${bindings}; compile for an adapter that offers larger ones (--gpu-limit maxStorageBufferBindingSize=...), or for wasm`);
    const taken = ['group', 'lane', 'local', 'workgroup', 'element', 'main', 'put', 'k0', 'step', 'half', 'batch', 'value', 'subgroup_lane', 'subgroup_width'];
    this.#windowed = operands.flatMap((x, i) => (x.window ? [`seen${i}`] : []));
    for (const name of [...operands.map((_, i) => `x${i}`), ...this.#windowed, ...results.map((_, i) => `y${i}`), ...taken]) this.w.name(name);
    operands.forEach(({ window }, i) => window && this.w.line(`var seen${i} = ${window.first};`));
  }

  /** Begins a body that an invocation runs for each of so many elements: its own is `element`. Gives what `finish` takes. */
  elements(count: number): readonly [workgroups: number, workgroupSize: number] {
    this.w.line(`let element = group * ${elementLanes} + lane;`);
    this.w.line(`if (element >= ${count}) { return; }`);
    return [Math.ceil(count / elementLanes), elementLanes];
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
    const [range, from] = this.#place(x);
    const word = wordAt(range, x.word, plus(this.#inWindow(i, at), from));
    if (isSmallFloat(dtype) && x.word !== 'f16') return this.w.call(decodeName(dtype), word);
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
    const [range, from] = this.#place(y);
    const word = isSmallFloat(dtype) && y.word !== 'f16' ? this.w.call(encodeName(dtype), value) : registerOf(dtype) === 'bool' ? `select(0u, 1u, ${value})` : value;
    const own = y.window ? this.w.let('own', at) : at;
    const conditions = [...(y.window ? [`${own} >= ${y.window.from}`, `${own} < ${y.window.to}`] : []), ...this.#windowed];
    const put = putWord(range, y.word, plus(own, from), word);
    this.w.line(conditions.length > 0 ? `if (${conditions.join(' && ')}) { ${put} }` : put);
  }

  /** An array that the invocations of a workgroup share. */
  shared(hint: string, type: Word | 'vec4<f32>' | 'vec4<f16>', length: number): string {
    const name = this.w.name(hint);
    this.w.declarations.push(`var<workgroup> ${name}: array<${type}, ${length}>;`);
    this.#workgroupBytes += length * (type === 'vec4<f32>' ? 16 : type === 'vec4<f16>' ? 8 : bytesOfWord(type));
    return name;
  }

  /** A function of the kernel's that subgroups do in another way: they find their invocation and its neighbours as `subgroup_lane` and `subgroup_width`. */
  helper(plain: string, withSubgroups: string): void {
    this.#helpers.push({ plain, withSubgroups });
  }

  /** The shader. `workgroups` along one line: the body finds its own as `group`, and its invocation within it as `lane`. */
  finish(workgroups: number, workgroupSize: number): KernelCode {
    const { workgroupBytes: most, invocations } = this.site.machine;
    if (this.#workgroupBytes > most || workgroupSize > invocations) throw new Unsupported('small workgroups on WebGPU', `a workgroup takes ${this.#workgroupBytes} bytes of memory and ${workgroupSize} invocations, but the adapter that this is compiled for has ${most} and ${invocations}`);
    const pages = this.#ranges.flatMap((r) => r.pages);
    let first = 0;
    const ranges = this.#ranges.flatMap((r) => {
      const lines = rangeText(r, first);
      first += r.pages.length;
      return lines;
    });
    const [row, rows] = dispatchSize(workgroups);
    const folded = workgroups > row;
    const body = this.w.text();
    const text = (subgroups: boolean): string => {
      const parts = [
        ...ranges,
        ...this.w.declarations,
        ...this.#helpers.map((h) => (subgroups ? h.withSubgroups : h.plain)),
        libraryText(this.w.used),
        ...(subgroups ? ['var<private> subgroup_lane: u32;', 'var<private> subgroup_width: u32;'] : []),
        `@compute @workgroup_size(${workgroupSize})`,
        `fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32${subgroups ? ', @builtin(subgroup_invocation_id) own_lane: u32, @builtin(subgroup_size) own_width: u32' : ''}) {`,
        ...(subgroups ? ['  subgroup_lane = own_lane;', '  subgroup_width = own_width;'] : []),
        `  let group = i32(${folded ? `workgroup.y * ${row}u + workgroup.x` : 'workgroup.x'});`,
        // Folding rounds up; what is left over does nothing.
        ...(row * rows > workgroups ? [`  if (group >= ${workgroups}) { return; }`] : []),
        ...(/\blane\b/.test(body) ? ['  let lane = i32(local);'] : []),
        body,
        '}',
        '',
      ].filter((l) => l !== '').join('\n');
      const needs = [...(/\bf16\b/.test(parts) ? ['enable f16;'] : []), ...(subgroups ? ['enable subgroups;'] : [])];
      return `${[...needs, parts].join('\n')}\n`;
    };
    return {
      code: text(false), withSubgroups: this.#helpers.length > 0 ? text(true) : undefined, bindings: pages.map(({ segment, offset, bytes }) => ({ segment, offset, bytes })), writes: pages.map((p) => p.writable),
      workgroups, workgroupBytes: this.#workgroupBytes, workgroupSize,
    };
  }

  /** An address that the kernel sees: another one in place of those that it does not, which is noted. */
  #inWindow(i: number, at: string): string {
    const { window } = this.operands[i]!;
    if (!window) return at;
    const own = this.w.let('own', at);
    this.w.line(`seen${i} = ${own} >= ${window.from} && ${own} < ${window.to};`);
    return this.w.let('near', `clamp(${own}, ${window.from}, ${window.to - 1})`);
  }

  /** The range that holds a tensor, and where its buffer starts in it, in elements. */
  #place(x: Located): readonly [Range, number] {
    const first = x.address + (x.window?.from ?? x.offset) * bytesOfWord(x.word);
    const range = this.#ranges.find((r) => first >= r.from && first < r.to)!;
    return [range, (x.address - range.from) / bytesOfWord(x.word)];
  }
}

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
