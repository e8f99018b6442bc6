/** Reads at run-time indices: gather, gatherElements, gatherNd, dynamicSlice, dynamicUpdate. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Op } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf, type DType } from '../../ir/type.ts';
import type { Asm, E, Fn, Local } from './asm.ts';
import { copyParts, copyRow, rawType } from './copy.ts';
import { loadElement, storeElement } from './dtype.ts';
import { byteSteps, eachElement, nothing } from './elements.ts';
import { kernelKey, type Emitter, type KernelCode } from './kernel.ts';
import { collapse, cutWithin, emitNest, kernel, type NestDim, type Part } from './nest.ts';

export const emitIndex: Emitter = (asm, op, operands, results) => {
  const key = kernelKey(op, operands, results);
  const [result] = results;
  invariant(result !== undefined, `${op.name} has a result`);
  if (sizeOf(result.type.shape) === 0) return nothing;
  switch (op.name) {
    case 'gather': return emitGather(asm, key, num(op.attrs, 'axis'), operands, result);
    case 'gatherElements': return emitGatherElements(asm, key, num(op.attrs, 'axis'), operands, result);
    case 'gatherNd': return emitGatherNd(asm, key, num(op.attrs, 'batchDims'), operands, result);
    case 'dynamicSlice': return emitDynamicSlice(asm, key, operands, result);
    case 'dynamicUpdate': return emitDynamicUpdate(asm, key, op, operands, result);
  }
  invariant(false, `${op.name} is not an index op`);
};

/** The element of an axis that a run-time index means: negative ones count from the end, the rest is clamped into range. */
export function resolveIndex(f: Fn, dtype: DType, index: E, size: number): E {
  const { asm } = f;
  const fn = asm.fn(`resolve ${dtype}`, [dtype === 'i64' ? 'i64' : 'i32', 'i32'], 'i32', (g, [i, n]) => {
    const { m } = asm;
    const t = dtype === 'i64' ? m.i64 : m.i32;
    const zero = (): E => (dtype === 'i64' ? m.i64.const(0n) : m.i32.const(0));
    const length = (): E => (dtype === 'i64' ? m.i64.extend_s(g.get(n!)) : g.get(n!));
    const low = (e: E): E => (dtype === 'i64' ? m.i32.wrap(e) : e);
    return [
      g.if(t.lt_s(g.get(i!), zero()), [g.set(i!, t.add(g.get(i!), length()))]),
      g.if(t.lt_s(g.get(i!), zero()), [m.return(m.i32.const(0))]),
      g.if(t.ge_s(g.get(i!), length()), [m.return(m.i32.sub(g.get(n!), m.i32.const(1)))]),
      low(g.get(i!)),
    ];
  });
  return asm.call(fn, [index, asm.i32(size)], 'i32');
}

function emitGather(asm: Asm, key: string, axis: number, [x, indices]: readonly Placed[], y: Placed): KernelCode {
  const rank = indices!.type.shape.length;
  const [xs, is, ys] = [byteSteps(x!), byteSteps(indices!), byteSteps(y)];
  const dim = (i: number): NestDim => {
    const inIndices = i >= axis && i < axis + rank;
    const ofX = i < axis ? xs[i]! : inIndices ? 0 : xs[i - rank + 1]!;
    return { name: `d${i}`, size: y.type.shape[i]!, steps: [ofX, inIndices ? is[i - axis]! : 0, ys[i]!] };
  };
  const at = y.type.shape.map((_, i) => i);
  return gatherRows(asm, key, at.slice(0, axis + rank).map(dim), at.slice(axis + rank).map(dim), x!, (f, ptrs) =>
    asm.times(resolveIndex(f, indices!.type.dtype, loadElement(asm, indices!.type.dtype, f.get(ptrs[1]!)), x!.type.shape[axis]!), xs[axis]!));
}

function emitGatherNd(asm: Asm, key: string, batch: number, [x, indices]: readonly Placed[], y: Placed): KernelCode {
  const lead = indices!.type.shape.length - 1;
  const depth = indices!.type.shape[lead]!;
  const [xs, is, ys] = [byteSteps(x!), byteSteps(indices!), byteSteps(y)];
  const dim = (i: number): NestDim => ({
    name: `d${i}`,
    size: y.type.shape[i]!,
    steps: [i < batch ? xs[i]! : i < lead ? 0 : xs[i - lead + batch + depth]!, i < lead ? is[i]! : 0, ys[i]!],
  });
  const at = y.type.shape.map((_, i) => i);
  return gatherRows(asm, key, at.slice(0, lead).map(dim), at.slice(lead).map(dim), x!, (f, ptrs) => {
    let sum: E = asm.i32(0);
    for (let j = 0; j < depth; j++) {
      const index = loadElement(asm, indices!.type.dtype, asm.plus(f.get(ptrs[1]!), j * is[lead]!));
      sum = asm.add(sum, asm.times(resolveIndex(f, indices!.type.dtype, index, x!.type.shape[batch + j]!), xs[batch + j]!));
    }
    return sum;
  });
}

/** Copies a slice of x for every index. Tensors: x, indices, y; `offset` is the slice's place in x. */
function gatherRows(asm: Asm, key: string, outer: readonly NestDim[], slice: readonly NestDim[], x: Placed, offset: (f: Fn, ptrs: readonly Local[]) => E): KernelCode {
  const { bytes } = dtypes[x.type.dtype];
  const inner = collapse(slice);
  const row = inner.pop() ?? { name: 'one', size: 1, steps: [bytes, 0, bytes] };
  const dims = [...collapse(outer), ...inner, row];
  // Indices may name a row of x each.
  const cut = cutWithin(asm, dims.map((d) => ({ ...d, steps: d.steps.map((s, i) => (i === 0 ? d.steps[2]! : s)) })), { elements: [bytes, dtypes.i64.bytes, bytes] });
  return kernel(asm, key, 3, cut.chunks, 0, (f, k) => emitNest(f, dims, cut, k.chunk, k.ptrs, {
    row(r) {
      const from = f.local('i32');
      return [f.set(from, asm.add(f.get(r.ptrs[0]!), offset(f, r.ptrs))), ...copyRow(f, { ...r, ptrs: [from, r.ptrs[2]!] }, bytes, row.steps[0]!, row.steps[2]!)];
    },
  }), { vertexBytes: cut.bytes });
}

function emitGatherElements(asm: Asm, key: string, axis: number, [x, indices]: readonly Placed[], y: Placed): KernelCode {
  const xs = byteSteps(x!);
  const raw = rawType(dtypes[y.type.dtype].bytes);
  return eachElement(asm, key, y.type.shape, [xs.map((s, i) => (i === axis ? 0 : s)), byteSteps(indices!), byteSteps(y)], { work: 4, touched: 2 * dtypes[y.type.dtype].bytes + dtypes[indices!.type.dtype].bytes }, (f, _, ptrs) => {
    const index = resolveIndex(f, indices!.type.dtype, loadElement(asm, indices!.type.dtype, f.get(ptrs[1]!)), x!.type.shape[axis]!);
    return [storeElement(asm, raw, f.get(ptrs[2]!), loadElement(asm, raw, asm.add(f.get(ptrs[0]!), asm.times(index, xs[axis]!))))];
  });
}

/** Where a window starts, in bytes: each start clamped so that the window lies inside. */
function startOffset(f: Fn, starts: Placed, ptr: Local, whole: Placed, window: readonly number[]): { readonly local: Local; readonly code: readonly E[] } {
  const { asm } = f;
  const { m } = asm;
  const local = f.local('i32');
  const v = f.local('i64');
  const steps = byteSteps(whole);
  const code = [f.set(local, asm.i32(0))];
  window.forEach((size, axis) => {
    const most = whole.type.shape[axis]! - size;
    if (most === 0) return;
    code.push(
      f.set(v, m.i64.load(0, 8, asm.plus(f.get(ptr), axis * byteSteps(starts)[0]!))),
      f.if(m.i64.lt_s(f.get(v), m.i64.const(0n)), [f.set(v, m.i64.const(0n))]),
      f.if(m.i64.gt_s(f.get(v), m.i64.const(BigInt(most))), [f.set(v, m.i64.const(BigInt(most)))]),
      f.set(local, asm.add(f.get(local), asm.times(m.i32.wrap(f.get(v)), steps[axis]!))),
    );
  });
  return { local, code };
}

const windowDims = (shape: readonly number[], from: Placed, to: Placed): NestDim[] => shape.map((size, i) => ({ name: `d${i}`, size, steps: [byteSteps(from)[i]!, byteSteps(to)[i]!] }));

function emitDynamicSlice(asm: Asm, key: string, [x, starts]: readonly Placed[], y: Placed): KernelCode {
  const parts = copyParts(asm, dtypes[y.type.dtype].bytes, windowDims(y.type.shape, x!, y));
  const chunks = parts.reduce((n, p) => n + p.cut.chunks, 0);
  return kernel(asm, key, 3, chunks, 0, (f, k) => {
    const start = startOffset(f, starts!, k.ptrs[1]!, x!, y.type.shape);
    const from = f.local('i32');
    return [...start.code, f.set(from, asm.add(f.get(k.ptrs[0]!), f.get(start.local))), ...runParts(f, parts, k.chunk, [from, k.ptrs[2]!], k.scratch)];
  }, { vertexBytes: Math.max(...parts.map((p) => p.bytes)) });
}

/** Runs the part that a chunk belongs to. */
function runParts(f: Fn, parts: readonly Part[], chunk: Local, ptrs: readonly Local[], scratch: Local): E[] {
  const own = f.local('i32');
  let before = 0;
  return parts.map((p) => {
    const from = before;
    before += p.cut.chunks;
    return f.if(f.asm.m.i32.lt_u(f.tee(own, f.asm.plus(f.get(chunk), -from)), f.asm.i32(p.cut.chunks)), p.emit(f, own, ptrs, scratch));
  });
}

/** One chunk: x is copied (unless the result lies where x does), then the patch. */
function emitDynamicUpdate(asm: Asm, key: string, op: Op, [x, patch, starts]: readonly Placed[], y: Placed): KernelCode {
  const { bytes } = dtypes[y.type.dtype];
  const whole = copyParts(asm, bytes, windowDims(y.type.shape, x!, y));
  const small = sizeOf(patch!.type.shape) === 0 ? [] : copyParts(asm, bytes, windowDims(patch!.type.shape, patch!, y));
  invariant(op.operands.length === 3, 'dynamicUpdate has three operands');
  return kernel(asm, key, 4, 1, 0, (f, k) => {
    const [px, pp, ps, py] = k.ptrs as [Local, Local, Local, Local];
    const start = startOffset(f, starts!, ps, y, patch!.type.shape);
    const to = f.local('i32');
    const all = (parts: readonly Part[], ptrs: readonly Local[]): E[] => parts.flatMap((p) => {
      const own = f.local('i32');
      return [f.repeat(own, 0, p.cut.chunks, 1, p.emit(f, own, ptrs, k.scratch))];
    });
    return [
      f.if(asm.m.i32.ne(f.get(px), f.get(py)), all(whole, [px, py])),
      ...start.code,
      f.set(to, asm.add(f.get(py), f.get(start.local))),
      ...all(small, [pp, to]),
    ];
  });
}
