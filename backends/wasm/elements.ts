/** Loops over single elements and lines, for ops without vector code. */
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import { types, type Asm, type E, type Fn, type Local } from './asm.ts';
import type { KernelCode } from './kernel.ts';
import { cutNest, emitNest, kernel, lightWork, type Cut, type NestDim } from './nest.ts';

/** No kernel: there is nothing to compute. */
export const nothing: KernelCode = { fn: '', chunks: 0, scratchBytes: 0 };

/** Bytes from one index to the next along each axis. */
export const byteSteps = (p: Placed): number[] => p.strides.map((s) => s * dtypes[p.type.dtype].bytes);

/** The byte offset of an element from its row-major number. Divides once an axis: for rare layouts. */
export function offsetOfNumber(f: Fn, p: Placed, number: Local): E {
  const { asm } = f;
  const { m } = asm;
  const steps = byteSteps(p);
  const [rest, sum] = [f.local('i32'), f.local('i32')];
  const code: E[] = [f.set(rest, f.get(number)), f.set(sum, asm.i32(0))];
  for (let axis = p.type.shape.length - 1; axis >= 0; axis--) {
    const size = p.type.shape[axis]!;
    if (size === 1) continue;
    code.push(f.set(sum, asm.add(f.get(sum), asm.times(m.i32.rem_u(f.get(rest), asm.i32(size)), steps[axis]!))));
    code.push(f.set(rest, m.i32.div_u(f.get(rest), asm.i32(size))));
  }
  return m.block(null, [...code, f.get(sum)], types.i32);
}

/**
 * Calls `body` for every index of `shape`, with the pointers of tensors whose steps per axis are given (in bytes) and all indices. `work` is the cost
 * of one element, and `touched` the bytes that it reads and writes at most; `alone` runs everything as one chunk, in row-major order.
 */
export function eachElement(
  asm: Asm, key: string, shape: readonly number[], steps: readonly (readonly number[])[], { work, touched }: { readonly work: number; readonly touched: number },
  body: (f: Fn, indices: readonly Local[], ptrs: readonly Local[], scratch: Local) => E[],
  options: { readonly alone?: boolean; readonly scratchBytes?: number; readonly uncut?: string } = {},
): KernelCode {
  if (shape.includes(0)) return nothing;
  const dims: NestDim[] = shape.map((size, i) => ({ name: `d${i}`, size, indexed: true, steps: steps.map((s) => s[i]!) }));
  dims.push({ name: 'one', size: 1, steps: steps.map(() => 0) });
  const most = Math.max(1, Math.min(Math.ceil(lightWork(asm) / work), Math.floor(asm.division.bytesPerTile / touched)));
  const cut = options.alone ? wholeCut(dims) : cutNest(dims, most);
  const count = sizeOf(dims.slice(cut.at).map((d, i) => (i === 0 ? Math.min(d.size, cut.block) : d.size)));
  return kernel(asm, key, steps.length, cut.chunks, options.scratchBytes ?? 0, (f, k) => emitNest(f, dims, cut, k.chunk, k.ptrs, {
    row: (row) => body(f, shape.map((_, i) => row.indices.get(`d${i}`)!), row.ptrs, k.scratch),
  }), { vertexBytes: count * touched + (options.scratchBytes ?? 0), ...(options.uncut !== undefined && { uncut: options.uncut }) });
}

/** No cut: one chunk. */
export const wholeCut = (dims: readonly NestDim[]): Cut => ({ at: 0, block: dims[0]?.size ?? 1, blocks: 1, chunks: 1 });

/** Calls `body` for every row-major element number of a shape, each of which reads and writes `touched` bytes at most. */
export function eachNumber(asm: Asm, key: string, shape: readonly number[], tensors: number, perChunk: number, scratchBytes: number, touched: number, body: (f: Fn, number: Local, ptrs: readonly Local[], scratch: Local) => E[]): KernelCode {
  const size = sizeOf(shape);
  if (size === 0) return nothing;
  const chunks = Math.ceil(size / perChunk);
  return kernel(asm, key, tensors, chunks, scratchBytes, (f, k) => {
    const { m } = asm;
    const [n, end] = [f.local('i32'), f.local('i32')];
    return [
      f.set(end, asm.times(asm.plus(f.get(k.chunk), 1), perChunk)),
      f.if(m.i32.gt_u(f.get(end), asm.i32(size)), [f.set(end, asm.i32(size))]),
      f.loop(n, asm.times(f.get(k.chunk), perChunk), () => f.get(end), 1, body(f, n, k.ptrs, k.scratch)),
    ];
  }, { vertexBytes: perChunk * touched + scratchBytes });
}
