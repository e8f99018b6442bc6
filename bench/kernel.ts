/** Runs single kernels: one op, emitted, instantiated over a memory of its own. For benchmarks and for tests of emitters. */
import { Asm, type Features } from '../backends/wasm/asm.ts';
import type { Emitter, KernelCode } from '../backends/wasm/kernel.ts';
import type { Op } from '../ir/graph.ts';
import type { Placed } from '../ir/tile.ts';
import { dtypes, rowMajor, sizeOf, type TensorType } from '../ir/type.ts';

/** A tensor in memory: `length` elements from its address on belong to it, its first element lies at `offset`. */
export interface Slot extends Placed {
  readonly length: number;
  readonly offset: number;
}

export const rows = (type: TensorType): Slot => ({ type, strides: rowMajor(type.shape), length: sizeOf(type.shape), offset: 0 });

/** N, spatial, C in memory; pixels are `width` channels apart, of which the tensor's own start at `from`. */
export function channelsLast(type: TensorType, width = type.shape[1]!, from = 0): Slot {
  const [batch, , ...spatial] = type.shape;
  const [outer, ...inner] = rowMajor([batch!, ...spatial, width]);
  return { type, strides: [outer!, 1, ...inner.slice(0, -1)], length: batch! * sizeOf(spatial) * width, offset: from };
}

export interface Kernel {
  readonly code: KernelCode;
  /** Bytes of the module. */
  readonly size: number;
  /** The memory of a slot: operands first, then results. */
  memory(slot: number): Float32Array;
  /** Runs the chunks from `first` up to `end` (all by default). */
  run(first?: number, end?: number): void;
}

/** Emits one op and instantiates it. `dirty` fills scratch with NaN before. */
export function instantiate(features: Features, emit: Emitter, op: Op, operands: readonly Slot[], results: readonly Slot[]): Kernel {
  const base = 1 << 20;
  const asm = new Asm(features, 1024);
  asm.m.setMemory(1, 65536, 'memory', [], false, false, '0');
  const code = emit(asm, op, operands, results);
  const slots = [...operands, ...results];
  let end = base;
  const place = (bytes: number): number => {
    const at = end;
    end += Math.ceil(bytes / 64) * 64 + 64;
    return at;
  };
  const addresses = slots.map((s) => place(s.length * dtypes[s.type.dtype].bytes));
  const scratch = place(code.scratchBytes);
  const main = asm.fn('chunks', ['i32', 'i32'], undefined, (f, [first, last]) => [
    f.loop(first!, f.get(first!), () => f.get(last!), 1, [
      asm.call(code.fn, [f.get(first!), asm.i32(scratch), ...slots.map((s, i) => asm.i32(addresses[i]! + s.offset * dtypes[s.type.dtype].bytes))]),
    ]),
  ]);
  asm.m.addFunctionExport(main, 'run');
  if (!asm.m.validate()) throw new Error(`the module of ${op.name} is invalid`);
  const binary = asm.m.emitBinary();
  asm.m.dispose();
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(binary)));
  const memory = exports['memory'] as WebAssembly.Memory;
  memory.grow(Math.ceil(end / 65536));
  const { base: tables, bytes } = asm.tables;
  new Uint8Array(memory.buffer).set(bytes, tables);
  new Float32Array(memory.buffer, scratch, code.scratchBytes >> 2).fill(NaN);
  const call = exports['run'] as (first: number, end: number) => void;
  return {
    code,
    size: binary.length,
    memory: (i) => new Float32Array(memory.buffer, addresses[i], slots[i]!.length),
    run: (first = 0, last = code.chunks) => call(first, last),
  };
}
