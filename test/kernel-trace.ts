/** Which bytes a kernel touches: its module is compiled without vectors, and every load and store calls back. */
import { Asm } from '../backends/wasm/asm.ts';
import { emitOp } from '../backends/wasm/emitters.ts';
import type { KernelCode } from '../backends/wasm/kernel.ts';
import type { Op } from '../ir/graph.ts';
import type { Division } from '../ir/tile.ts';
import { dtypes, sizeOf, type Tensor } from '../ir/type.ts';

/** An access of so many bytes. */
export type Access = (address: number, bytes: number) => void;

export interface TracedKernel {
  readonly code: KernelCode;
  /** Where operands and results begin, in their order, and where the last one ends. */
  readonly pointers: readonly number[];
  readonly end: number;
  /** Runs a chunk; calls `access` for each load and store. */
  run(chunk: number, access: Access): void;
}

const pageBytes = 65536;
const scratchAt = 4096;

/** The kernel of an op over row-major operands, which hold the tensors given, cut for a division. */
export function tracedKernel(op: Op, operands: readonly Tensor[], division: Division): TracedKernel {
  const asm = new Asm('plain', pageBytes, division);
  const values = [...op.operands, ...op.results];
  const placed = values.map((v) => ({ type: v.type, strides: v.type.shape.map((_, i) => sizeOf(v.type.shape.slice(i + 1))) }));
  const code = emitOp(asm, op, placed.slice(0, op.operands.length), placed.slice(op.operands.length));
  asm.m.addFunctionExport(code.fn, 'kernel');
  const tables = asm.tables;
  const dataAt = Math.ceil((tables.base + tables.bytes.length + 1) / pageBytes) * pageBytes;
  const scratch = dataAt + scratchAt;
  let end = scratch + Math.ceil(code.scratchBytes / 64) * 64 + 4096;
  const pointers = values.map((v) => {
    const at = end;
    end += Math.ceil((sizeOf(v.type.shape) * dtypes[v.type.dtype].bytes) / 64) * 64;
    return at;
  });
  const pages = Math.ceil(end / pageBytes) + 1;
  asm.finish(pages, pages);
  asm.m.runPasses(['llvm-memory-copy-fill-lowering', 'instrument-memory']);
  const binary = asm.m.emitBinary() as Uint8Array<ArrayBuffer>;
  asm.m.dispose();
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  operands.forEach((t, i) => new Uint8Array(memory.buffer).set(new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength), pointers[i]));
  let current: Access = () => {};
  const note = (_id: number, bytes: number, offset: number, address: number): number => {
    current(address + offset, bytes);
    return address;
  };
  const module = new WebAssembly.Module(binary);
  const calls = WebAssembly.Module.imports(module).filter((i) => i.kind === 'function');
  const env = Object.fromEntries(calls.map(({ name }) => [name, name === 'load_ptr' || name === 'store_ptr' ? note : (...args: readonly unknown[]) => args.at(-1)]));
  const instance = new WebAssembly.Instance(module, { env: { ...env, memory } });
  const kernel = instance.exports['kernel'] as (...args: number[]) => void;
  return {
    code, pointers, end,
    run(chunk, access) {
      current = access;
      kernel(chunk, scratch, ...pointers);
    },
  };
}

/** Distinct bytes that a chunk touches. */
export function touchedBytes(kernel: TracedKernel, chunk: number): number {
  const seen = new Uint8Array(kernel.end);
  let count = 0;
  kernel.run(chunk, (address, bytes) => {
    for (let i = address; i < address + bytes; i++) {
      count += seen[i] === 0 ? 1 : 0;
      seen[i] = 1;
    }
  });
  return count;
}

/** Lines of 64 bytes within [from, to) that a chunk brings into a cache of so many bytes, which forgets the line that was used longest ago; and how many there are. */
export function broughtLines(kernel: TracedKernel, chunk: number, cacheBytes: number, [from, to]: readonly [number, number]): { readonly brought: number; readonly distinct: number } {
  const capacity = Math.floor(cacheBytes / 64);
  const cache = new Map<number, true>();
  const distinct = new Set<number>();
  let brought = 0;
  kernel.run(chunk, (address, bytes) => {
    for (let line = Math.floor(address / 64); line * 64 < address + bytes; line++) {
      const counts = line * 64 >= from && line * 64 < to;
      if (counts) distinct.add(line);
      if (cache.delete(line)) {
        cache.set(line, true);
        continue;
      }
      if (counts) brought++;
      cache.set(line, true);
      if (cache.size > capacity) cache.delete(cache.keys().next().value!);
    }
  });
  return { brought, distinct: distinct.size };
}
