/** The contract between kernel emitters and the program that calls them. */
import type { Attr, Graph, Op, Value } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import { showType } from '../../ir/type.ts';
import type { Asm } from './asm.ts';

/**
 * An emitted kernel: function `fn(chunk: i32, scratch: i32, operand pointers..., result pointers...: i32)`. Pointers are the byte addresses of each
 * placed tensor's first element. The kernel is called once for every chunk in 0..chunks-1, in any order and on any thread; chunks write disjoint
 * elements and the cut never depends on the number of threads. `scratch` is private to the thread, 64-byte aligned, `scratchBytes` long, dirty.
 */
export interface KernelCode {
  readonly fn: string;
  readonly chunks: number;
  readonly scratchBytes: number;
  /** Bytes of the slices of its largest vertex (see `Division`), scratch included; absent where only all that its op reads and writes bounds them. */
  readonly vertexBytes?: number;
  /** Why a vertex may be larger than a tile, as what cannot be cut. */
  readonly uncut?: string;
}

/** Emits one op (plain or fused). Equal ops over equal placements must share one function: build the key from `kernelKey`. */
export type Emitter = (asm: Asm, op: Op, operands: readonly Placed[], results: readonly Placed[], setting?: Setting) => KernelCode;

/** Where a kernel runs. `slab`: as a part of another, all chunks on one thread, large operands in the core's cache. */
export type Setting = 'slab';

/** A text that is equal for two ops exactly when they do the same work on equally placed tensors (values by position, source names ignored). */
export function kernelKey(op: Op, operands: readonly Placed[], results: readonly Placed[]): string {
  const placed = (p: Placed): string => `${showType(p.type)}@${p.strides.join(',')}`;
  return `${opKey(op)}(${operands.map(placed).join(' ')})->${results.map(placed).join(' ')}`;
}

function opKey(op: Op): string {
  return `${op.name}{${Object.entries(op.attrs).map(([k, v]) => `${k}=${attrKey(v)}`).join(';')}}${op.regions.map(regionKey).join('')}`;
}

function regionKey(region: Graph): string {
  const ids = new Map<Value, number>();
  const id = (v: Value): string => {
    const known = ids.get(v);
    if (known !== undefined) return `%${known}`;
    ids.set(v, ids.size);
    return `%${ids.size - 1}:${showType(v.type)}`;
  };
  const inputs = region.inputs.map(id).join(' ');
  const ops = region.ops.map((op) => `${op.results.map(id).join(' ')}=${opKey(op)}(${op.operands.map(id).join(' ')})`).join('\n');
  return `[${inputs}|${ops}|${region.outputs.map((o) => id(o.value)).join(' ')}]`;
}

function attrKey(v: Attr): string {
  if (typeof v !== 'object') return `${typeof v}:${String(v)}`;
  if ('dtype' in v) return `${showType(v)}:${v.data.join(',')}`;
  return v.join(',');
}
