/** Loop nests over strided tensors: dims that can be merged are, the outermost work is cut into chunks, pointers are stepped. */
import type { Asm, E, Fn, Local } from './asm.ts';
import type { KernelCode } from './kernel.ts';

/** One loop. `steps`: bytes that each tensor's pointer moves per iteration. */
export interface NestDim {
  readonly name: string;
  readonly size: number;
  readonly steps: readonly number[];
  /** Its index is used by itself, so it may not be merged with another dim. */
  readonly indexed?: boolean;
}

/** Merges neighbouring dims that every tensor walks as one, and drops dims of size 1. */
export function collapse(dims: readonly NestDim[]): NestDim[] {
  const out: NestDim[] = [];
  for (const d of dims) {
    if (d.size === 1 && !d.indexed) continue;
    const last = out.at(-1);
    if (last && !last.indexed && !d.indexed && last.steps.every((s, i) => s === d.steps[i]! * d.size)) {
      out[out.length - 1] = { name: d.name, size: last.size * d.size, steps: d.steps };
    } else out.push(d);
  }
  return out;
}

/** How a nest is cut: dims before `at` are taken one index a chunk, dim `at` in blocks, dims after it whole. */
export interface Cut { readonly at: number; readonly block: number; readonly blocks: number; readonly chunks: number }

/** Cuts so that a chunk has at most about `target` iterations; a block of the last dim is a multiple of `multiple`. */
export function cutNest(dims: readonly NestDim[], target: number, multiple = wholeLine): Cut {
  let at = dims.length;
  let inner = 1;
  while (at > 0 && inner * dims[at - 1]!.size <= target) inner *= dims[--at]!.size;
  if (at === 0) return { at: 0, block: dims[0]?.size ?? 1, blocks: 1, chunks: 1 };
  const { size } = dims[at - 1]!;
  const blocks = Math.ceil(size / Math.max(1, Math.floor(target / inner)));
  let block = Math.ceil(size / blocks);
  if (at === dims.length) block = Math.ceil(block / multiple) * multiple;
  const used = Math.ceil(size / block);
  return { at: at - 1, block, blocks: used, chunks: dims.slice(0, at - 1).reduce((n, d) => n * d.size, used) };
}

/**
 * Bytes that the tensors of a nest take in a chunk at most; `inner`: dims that run whole inside the nest, `elements`: bytes of an element of each tensor. What is walked twice counts once, where the walk covers it
 * without gaps.
 */
function nestBytes(dims: readonly NestDim[], cut: Cut, elements: readonly number[], inner: readonly NestDim[] = []): number {
  const inside = [...dims.slice(cut.at).map((d, i) => (i === 0 ? { ...d, size: Math.min(d.size, cut.block) } : d)), ...inner];
  return elements.reduce((sum, bytes, i) => {
    const walked = inside.filter((d) => d.steps[i] !== 0 && d.size > 1);
    const points = walked.reduce((n, d) => n * d.size, bytes);
    const span = walked.reduce((n, d) => n + (d.size - 1) * Math.abs(d.steps[i]!), bytes);
    return sum + Math.min(points, span);
  }, 0);
}

export interface CutOptions {
  /** Bytes of an element of each tensor. */
  readonly elements: readonly number[];
  /** How many iterations of light work one iteration is worth. */
  readonly work?: number;
  /** Dims that run whole inside the nest. */
  readonly inner?: readonly NestDim[];
  /** The dims that bytes are counted over, where some tensor is walked in another way than the nest's steps say. */
  readonly bytesOver?: readonly NestDim[];
  /** The fewest iterations of a chunk of light work. */
  readonly least?: number;
  /** Whether the last dim may be cut anywhere, as no lanes run along it. */
  readonly anywhere?: boolean;
}

/** `cutNest` for a kernel's chunks: each is worth handing out, and takes no more bytes than a tile has, as far as the nest can be cut. */
export function cutWithin(asm: Asm, dims: readonly NestDim[], o: CutOptions): Cut & { readonly bytes: number } {
  const fewest = o.anywhere ? 1 : wholeLine;
  let multiple = wholeLine;
  let iterations = Math.max(o.least ?? 1, Math.ceil(lightWork(asm) / Math.max(1, o.work ?? 1)));
  for (;;) {
    const cut = cutNest(dims, iterations, multiple);
    const bytes = nestBytes(o.bytesOver ?? dims, cut, o.elements, o.inner);
    if (bytes <= asm.division.bytesPerTile || (iterations <= fewest && multiple === fewest)) return { ...cut, bytes };
    if (iterations <= wholeLine) multiple = fewest;
    iterations = Math.max(fewest, Math.floor(iterations / 2));
  }
}

/** The innermost loop's share, for the code that runs it. */
export interface Row {
  /** Where each tensor's pointer stands. Not to be written. */
  readonly ptrs: readonly Local[];
  /** Iterations: a number where it is known. */
  readonly count: number | Local;
  /** Index of the first iteration in its dim. */
  readonly first: () => E;
  /** Indices of the dims around it, by name. */
  readonly indices: ReadonlyMap<string, Local>;
}

export interface NestHooks {
  /** Statements before the loops of a chunk, of `count` iterations of the dim that is cut; the pointers stand at its first element. */
  start?(ptrs: readonly Local[], count: number | Local): E[];
  /** Statements at the start of each iteration of a dim (not of the last). `indices` has this dim and those around it. */
  enter?(dim: NestDim, indices: ReadonlyMap<string, Local>): E[];
  /** The innermost loop. */
  row(row: Row): E[];
}

/** The loops of one chunk. `dims` has at least one dim, and none of size 0; `chunk` is below `cut.chunks`. */
export function emitNest(f: Fn, dims: readonly NestDim[], cut: Cut, chunk: Local, bases: readonly Local[], hooks: NestHooks): E[] {
  const { asm } = f;
  const { m } = asm;
  const code: E[] = [];
  const indices = new Map<string, Local>();
  const ptrs = bases.map((b) => {
    const p = f.local('i32');
    code.push(f.set(p, f.get(b)));
    return p;
  });
  const advance = (ptr: readonly Local[], d: NestDim, by: () => E): E[] =>
    d.steps.flatMap((s, i) => (s === 0 ? [] : [f.set(ptr[i]!, asm.add(f.get(ptr[i]!), asm.times(by(), s)))]));

  const rest = f.local('i32');
  let first: Local | undefined;
  let count: number | Local = dims[cut.at]!.size;
  if (cut.chunks > 1) {
    code.push(f.set(rest, f.get(chunk)));
    if (cut.blocks > 1) {
      first = f.local('i32');
      count = f.local('i32');
      const d = dims[cut.at]!;
      code.push(f.set(first, asm.times(cut.at === 0 ? f.get(rest) : m.i32.rem_u(f.get(rest), asm.i32(cut.blocks)), cut.block)));
      code.push(f.set(rest, m.i32.div_u(f.get(rest), asm.i32(cut.blocks))));
      code.push(f.set(count, asm.sub(asm.i32(d.size), f.get(first))));
      code.push(f.if(m.i32.gt_s(f.get(count), asm.i32(cut.block)), [f.set(count, asm.i32(cut.block))]));
      code.push(...advance(ptrs, d, () => f.get(first!)));
    }
    for (let k = cut.at - 1; k >= 0; k--) {
      const d = dims[k]!;
      const index = f.local('i32');
      indices.set(d.name, index);
      code.push(f.set(index, k === 0 ? f.get(rest) : m.i32.rem_u(f.get(rest), asm.i32(d.size))));
      if (k > 0) code.push(f.set(rest, m.i32.div_u(f.get(rest), asm.i32(d.size))));
      code.push(...advance(ptrs, d, () => f.get(index)));
    }
    for (let k = 0; k < cut.at; k++) code.push(...(hooks.enter?.(dims[k]!, indices) ?? []));
  }
  code.push(...(hooks.start?.(ptrs, count) ?? []), ...level(cut.at, ptrs, count, first));
  return code;

  function level(k: number, at: readonly Local[], n: number | Local, from: Local | undefined): E[] {
    const d = dims[k]!;
    if (k === dims.length - 1) return hooks.row({ ptrs: at, count: n, first: () => (from ? f.get(from) : asm.i32(0)), indices });
    const index = f.local('i32');
    indices.set(d.name, index);
    const own = d.steps.map((s, i) => (s === 0 ? at[i]! : f.local('i32')));
    const copies = own.flatMap((p, i) => (p === at[i] ? [] : [f.set(p, f.get(at[i]!))]));
    const body = [
      ...(hooks.enter?.(d, indices) ?? []),
      ...level(k + 1, own, dims[k + 1]!.size, undefined),
      ...own.flatMap((p, i) => (p === at[i] ? [] : [f.inc(p, d.steps[i]!)])),
    ];
    if (typeof n === 'number') return [...copies, f.repeat(index, 0, n, 1, body)];
    const end = f.local('i32');
    const begin = from ? f.get(from) : asm.i32(0);
    return [...copies, f.set(end, asm.add(from ? f.get(from) : asm.i32(0), f.get(n))), f.loop(index, begin, () => f.get(end), 1, body)];
  }
}

/** Iterations of light work that are worth a chunk of their own: as many as fill a tile with eight f32 tensors. */
export const lightWork = (asm: Asm): number => Math.max(1024, Math.floor(asm.division.bytesPerTile / 32));
/** Elements of a cache line: what chunks share of a row is written by one of them. */
const wholeLine = 16;

/** Adds a kernel function (see kernel.ts) of `tensors` pointers. */
export function kernel(
  asm: Asm, key: string, tensors: number, chunks: number, scratchBytes: number,
  build: (f: Fn, k: { readonly chunk: Local; readonly scratch: Local; readonly ptrs: readonly Local[] }) => readonly E[],
  vertex: Pick<KernelCode, 'vertexBytes' | 'uncut'> = {},
): KernelCode {
  const params = ['i32', 'i32', ...new Array<'i32'>(tensors).fill('i32')] as const;
  const fn = asm.fn(key, params, undefined, (f, [chunk, scratch, ...ptrs]) => build(f, { chunk: chunk!, scratch: scratch!, ptrs }));
  return { fn, chunks, scratchBytes, ...vertex };
}

/** A share of a kernel: a nest of its own. */
export interface Part {
  readonly cut: Cut;
  /** Iterations in all. */
  readonly work: number;
  /** Bytes that a chunk takes at most. */
  readonly bytes: number;
  emit(f: Fn, chunk: Local, ptrs: readonly Local[], scratch: Local): readonly E[];
}

/** A kernel of several parts; little work in all is one chunk. */
export function kernelOfParts(asm: Asm, key: string, tensors: number, parts: readonly Part[], scratchBytes = 0): KernelCode {
  const [only] = parts;
  if (!only) return { fn: '', chunks: 0, scratchBytes: 0 };
  // Parts of little work that are one chunk together may not take more than a tile either.
  const together = parts.reduce((n, p) => n + p.bytes * p.cut.chunks, 0);
  const vertex = (bytes: number): Pick<KernelCode, 'vertexBytes'> => ({ vertexBytes: bytes + scratchBytes });
  if (parts.length === 1) return kernel(asm, key, tensors, only.cut.chunks, scratchBytes, (f, k) => only.emit(f, k.chunk, k.ptrs, k.scratch), vertex(only.bytes));
  const { m } = asm;
  const whole = parts.reduce((n, p) => n + p.work, 0) <= lightWork(asm) && together <= asm.division.bytesPerTile;
  const chunks = whole ? 1 : parts.reduce((n, p) => n + p.cut.chunks, 0);
  return kernel(asm, key, tensors, chunks, scratchBytes, (f, k) => {
    const own = f.local('i32');
    let before = 0;
    return parts.map((p) => {
      const from = before;
      before += p.cut.chunks;
      if (whole) return p.cut.chunks === 1 ? m.block(null, [...p.emit(f, own, k.ptrs, k.scratch)]) : f.repeat(own, 0, p.cut.chunks, 1, p.emit(f, own, k.ptrs, k.scratch));
      return f.if(m.i32.lt_u(f.tee(own, asm.plus(f.get(k.chunk), -from)), asm.i32(p.cut.chunks)), p.emit(f, own, k.ptrs, k.scratch));
    });
  }, vertex(whole ? together : Math.max(...parts.map((p) => p.bytes))));
}
