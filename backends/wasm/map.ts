/** Elementwise ops, plain or fused, over a broadcast space. */
import type { Op, Value } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import type { Asm, E, Fn, Local, Vec } from './asm.ts';
import { computeType, loadElement, storeElement } from './dtype.ts';
import { gatherVec, isLaneType, isVectorChain, loadVec, scalarChain, scatterVec, splatElement, storeVec, vecChain, type ScalarValues, type VecValues } from './elementwise/index.ts';
import { fetch } from './fetch.ts';
import { kernelKey, type Emitter, type KernelCode, type Setting } from './kernel.ts';
import { collapse, cutWithin, emitNest, kernel, type NestDim, type Row } from './nest.ts';
import { heavy } from './row/plan.ts';

/** A chain of elementwise ops with what it reads and writes. */
export interface Chain {
  readonly ops: readonly Op[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** The chain of a plain elementwise op or of a fused `map`. */
export function chainOf(op: Op): Chain {
  const region = op.regions[0];
  if (!region) return { ops: [op], inputs: op.operands, outputs: op.results };
  return { ops: region.ops, inputs: region.inputs, outputs: region.outputs.map((o) => o.value) };
}

export const emitMap: Emitter = (asm, op, operands, results, setting) => emitChain(asm, `${kernelKey(op, operands, results)} ${setting ?? ''}`, chainOf(op), operands, results, setting);

/** Runs a chain over the shape of the results, to which operands broadcast. */
export function emitChain(asm: Asm, key: string, chain: Chain, operands: readonly Placed[], results: readonly Placed[], setting?: Setting): KernelCode {
  const space = results[0]!.type.shape;
  if (sizeOf(space) === 0) return { fn: '', chunks: 0, scratchBytes: 0 };
  const tensors = [...operands, ...results];
  const all = space.map((size, axis): NestDim => ({ name: `d${axis}`, size, steps: tensors.map((t) => stepAlong(t, axis - space.length)) }));
  const dims = collapse(orderDims(all, operands.length));
  if (dims.length === 0) dims.push({ name: 'one', size: 1, steps: tensors.map(() => 0) });
  const cut = cutWithin(asm, dims, { elements: tensors.map((t) => dtypes[t.type.dtype].bytes), work: chain.ops.length / 4 });
  return kernel(asm, key, tensors.length, cut.chunks, 0, (f, k) =>
    emitNest(f, dims, cut, k.chunk, k.ptrs, {
      ...(setting !== 'slab' && chain.ops.some((op) => heavy.has(op.name)) && { start: (ptrs, count) => fetchOperands(f, tensors.slice(0, operands.length), dims.slice(cut.at), ptrs, count) }),
      row: (row) => emitRow(f, chain, tensors, dims.at(-1)!.steps, row),
    }), { vertexBytes: cut.bytes });
}

/**
 * Brings a chunk of the operands that lie in one piece into cache. A long chain fills the processor's window with the arithmetic of a few vectors, so that loads of the next lines start late: measured on
 * SiLU in place over 25 MB, this takes 0.6 of the time.
 */
function fetchOperands(f: Fn, operands: readonly Placed[], dims: readonly NestDim[], ptrs: readonly Local[], count: number | Local): E[] {
  const { asm } = f;
  return operands.flatMap((t, i) => {
    const steps = dims.map((d) => d.steps[i]!);
    const inOnePiece = steps.at(-1) === dtypes[t.type.dtype].bytes && steps.every((s, k) => k === dims.length - 1 || s === steps[k + 1]! * dims[k + 1]!.size);
    return inOnePiece ? fetch(asm, f.get(ptrs[i]!), asm.times(typeof count === 'number' ? asm.i32(count) : f.get(count), steps[0]!)) : [];
  });
}

/** Bytes from one index to the next along an axis counted from the last (-1); 0 where the tensor is broadcast. */
export function stepAlong(t: Placed, fromEnd: number): number {
  const axis = t.type.shape.length + fromEnd;
  if (axis < 0 || t.type.shape[axis] === 1) return 0;
  return t.strides[axis]! * dtypes[t.type.dtype].bytes;
}

/** Largest result steps first, so that stores run through memory; ties by the first operand. */
export function orderDims(dims: readonly NestDim[], result: number): NestDim[] {
  const rank = (d: NestDim): number => Math.abs(d.steps[result]!);
  return [...dims].sort((a, b) => rank(b) - rank(a) || Math.abs(b.steps[0]!) - Math.abs(a.steps[0]!));
}

/** One row: vectors while there are four elements, then single elements through the same vector code, so that position never changes a bit. */
function emitRow(f: Fn, chain: Chain, tensors: readonly Placed[], steps: readonly number[], row: Row): E[] {
  const { asm } = f;
  const results = tensors.slice(chain.inputs.length);
  const vectors = asm.simd && tensors.every((t) => isLaneType(t.type.dtype)) && isVectorChain(chain.ops) && results.some((r, i) => steps[chain.inputs.length + i] === dtypes[r.type.dtype].bytes);
  if (!vectors) return emitScalarRow(f, chain, tensors, steps, row);
  const own = row.ptrs.map((p, i) => (steps[i] === 0 ? p : f.local('i32')));
  const code = own.flatMap((p, i) => (steps[i] === 0 ? [] : [f.set(p, f.get(row.ptrs[i]!))]));
  // Operands that repeat along the row are loaded once.
  const repeated = new Map<number, () => Vec>();
  chain.inputs.forEach((v, i) => {
    if (steps[i] !== 0) return;
    const t = f.vlocal();
    code.push(f.vset(t, splatElement(f, v.type.dtype, () => f.get(own[i]!), 0)));
    repeated.set(i, () => f.vget(t));
  });
  const advance = (elements: number): E[] => own.flatMap((p, i) => (steps[i] === 0 ? [] : [f.inc(p, elements * steps[i]!)]));
  const vector = (at: number, lanes: 1 | 4): E[] => {
    const values: VecValues = new Map();
    const statements: E[] = [];
    chain.inputs.forEach((v, i) => {
      const known = repeated.get(i);
      if (known) {
        values.set(v, known);
        return;
      }
      const t = f.vlocal();
      statements.push(f.vset(t, lanes === 1 ? splatElement(f, v.type.dtype, () => f.get(own[i]!), at * steps[i]!) : loadLanes(f, tensors[i]!, own[i]!, steps[i]!, at)));
      values.set(v, () => f.vget(t));
    });
    statements.push(...vecChain(f, chain.ops, values, chain.outputs, { inline: true }));
    const ready = chain.outputs.map((v) => {
      if (chain.outputs.length === 1) return values.get(v)!;
      // All are computed before the first is stored: a result may lie where an operand does.
      const t = f.vlocal();
      statements.push(f.vset(t, values.get(v)!()));
      return () => f.vget(t);
    });
    results.forEach((r, i) => {
      const k = chain.inputs.length + i;
      statements.push(storeLanes(f, r, own[k]!, steps[k]!, at, ready[i]!, lanes));
    });
    return statements;
  };
  const unroll = chain.ops.length <= 3 ? 4 : chain.ops.length <= 8 ? 2 : 1;
  const blocks = (size: number): E[] => Array.from({ length: size / 4 }, (_, u) => vector(u * 4, 4)).flat();
  if (typeof row.count === 'number') {
    const wide = Math.floor(row.count / (4 * unroll));
    const i = f.local('i32');
    if (wide > 0) code.push(f.repeat(i, 0, wide, 1, [...blocks(4 * unroll), ...advance(4 * unroll)]));
    let left = row.count % (4 * unroll);
    for (; left >= 4; left -= 4) code.push(...vector(0, 4), ...advance(4));
    for (; left > 0; left--) code.push(...vector(0, 1), ...advance(1));
    return code;
  }
  const left = f.local('i32');
  const loop = (elements: number, body: E[]): E => {
    const top = f.label('v');
    return asm.m.loop(top, f.if(asm.m.i32.ge_s(f.get(left), asm.i32(elements)), [...body, ...advance(elements), f.inc(left, -elements), asm.m.br(top)]));
  };
  code.push(f.set(left, f.get(row.count)));
  if (unroll > 1) code.push(loop(4 * unroll, blocks(4 * unroll)));
  code.push(loop(4, vector(0, 4)), loop(1, vector(0, 1)));
  return code;
}

/** Four elements that lie `step` bytes apart, element `at` of the row first. */
export function loadLanes(f: Fn, t: Placed, ptr: Local, step: number, at: number): Vec {
  const d = t.type.dtype;
  return step === dtypes[d].bytes ? loadVec(f, d, () => f.get(ptr), at * step) : gatherVec(f, d, () => f.get(ptr), at * step, step);
}

/** Stores lanes `step` bytes apart; of `lanes` = 1 the first alone. */
export function storeLanes(f: Fn, t: Placed, ptr: Local, step: number, at: number, v: () => Vec, lanes: 1 | 4): E {
  const d = t.type.dtype;
  if (lanes === 4 && step === dtypes[d].bytes) return storeVec(f, d, () => f.get(ptr), at * step, v());
  return scatterVec(f, d, () => f.get(ptr), at * step, step, lanes, v);
}

function emitScalarRow(f: Fn, chain: Chain, tensors: readonly Placed[], steps: readonly number[], row: Row): E[] {
  const { asm } = f;
  const own = row.ptrs.map((p, i) => (steps[i] === 0 ? p : f.local('i32')));
  const values: ScalarValues = new Map();
  const body: E[] = [];
  chain.inputs.forEach((v, i) => {
    const t = f.local(computeType(v.type.dtype));
    body.push(f.set(t, loadElement(asm, v.type.dtype, f.get(own[i]!))));
    values.set(v, () => f.get(t));
  });
  body.push(...scalarChain(f, chain.ops, values, chain.outputs));
  const ready = chain.outputs.map((v) => {
    const t = f.local(computeType(v.type.dtype));
    body.push(f.set(t, values.get(v)!()));
    return t;
  });
  ready.forEach((t, i) => body.push(storeElement(asm, chain.outputs[i]!.type.dtype, f.get(own[chain.inputs.length + i]!), f.get(t))));
  body.push(...own.flatMap((p, i) => (steps[i] === 0 ? [] : [f.inc(p, steps[i]!)])));
  const i = f.local('i32');
  const copies = own.flatMap((p, k) => (steps[k] === 0 ? [] : [f.set(p, f.get(row.ptrs[k]!))]));
  const { count } = row;
  return [...copies, typeof count === 'number' ? f.repeat(i, 0, count, 1, body) : f.loop(i, asm.i32(0), () => f.get(count), 1, body)];
}
