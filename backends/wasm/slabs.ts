/** Several ops that run at one index of axis 0 before they run at the next: what one gives the others read from cache. */
import type { Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { withValues } from '../../ir/rewrite.ts';
import { cutValues, lodgers } from '../../ir/slabs.ts';
import { reshapeStrides } from '../../ir/strides.ts';
import type { Placed } from '../../ir/tile.ts';
import { bytesOf, dtypes, rowMajor, sameShape, type TensorType } from '../../ir/type.ts';
import { invariant } from '../../ir/diagnostic.ts';
import type { Asm, E } from './asm.ts';
import { fetch } from './fetch.ts';
import { kernelKey, type Emitter, type KernelCode } from './kernel.ts';
import { kernel } from './nest.ts';

/** Bytes from which a slab of an operand is brought into cache before the first op reads it. */
const worthFetching = 16384;

/** Where a value of a slab lies: `stride` bytes a slab behind operand or result `pointer`, or at a place in scratch. */
type Spot = { readonly placed: Placed } & ({ readonly pointer: number; readonly stride: number } | { readonly scratch: number });

/** Emits a `slabs` op: a chunk is a slab. `emit` gives the kernels of the ops inside, over one slab. */
export function slabsKernel(asm: Asm, op: Op, operands: readonly Placed[], results: readonly Placed[], emit: Emitter): KernelCode {
  const region = op.regions[0]!;
  const slabs = num(op.attrs, 'slabs');
  const cut = cutValues(region.ops, slabs);
  invariant(typeof cut !== 'string', 'the ops of a slab can be cut');
  const typeOf = (v: Value): TensorType => (cut.has(v) ? { ...v.type, shape: [1, ...v.type.shape.slice(1)] } : v.type);
  const spots = new Map<Value, Spot>();
  const outer = (v: Value, placed: Placed, pointer: number): void => {
    const { bytes } = dtypes[v.type.dtype];
    spots.set(v, { placed: { type: typeOf(v), strides: placed.strides }, pointer, stride: cut.has(v) ? placed.strides[0]! * bytes : 0 });
  };
  region.inputs.forEach((v, i) => outer(v, operands[i]!, i));
  results.forEach((placed, i) => outer(region.outputs[i]!.value, placed, operands.length + i));
  for (const [result, lodger] of lodgers(op)) {
    const spot = spots.get(result);
    if (spot) spots.set(lodger, spot);
  }

  let used = 0;
  const place = (type: TensorType, like: Placed | undefined): Spot => {
    const spot = { placed: { type, strides: like ? denseLike(type, like.strides) : rowMajor(type.shape) }, scratch: used };
    used += Math.ceil(bytesOf(type) / 64) * 64;
    return spot;
  };
  /** The same op over one slab. */
  const narrowed = (o: Op): Op => withValues(o, (v) => ({ type: typeOf(v), name: v.name }), (inner) => {
    const [result] = inner.results;
    return result && cut.has(result) && 'shape' in inner.attrs ? { ...inner.attrs, shape: typeOf(result).shape } : inner.attrs;
  });
  const steps = region.ops.flatMap((o): { readonly code: KernelCode; readonly at: readonly Spot[] }[] => {
    const from = o.operands.map((v) => spots.get(v)!);
    if (o.name === 'reshape') {
      const [source] = from as [Spot];
      const strides = reshapeStrides(source.placed.type.shape, source.placed.strides, typeOf(o.results[0]!).shape);
      if (strides && !spots.has(o.results[0]!)) {
        spots.set(o.results[0]!, { ...source, placed: { type: typeOf(o.results[0]!), strides } });
        return [];
      }
    }
    for (const r of o.results) if (!spots.has(r)) spots.set(r, place(typeOf(r), from.map((s) => s.placed).find((p) => sameShape(p.type.shape, typeOf(r).shape))));
    const at = [...from, ...o.results.map((r) => spots.get(r)!)];
    const code = emit(asm, narrowed(o), from.map((s) => s.placed), o.results.map((r) => spots.get(r)!.placed), 'slab');
    return code.chunks === 0 ? [] : [{ code, at }];
  });
  const inner = Math.max(0, ...steps.map((s) => s.code.scratchBytes));
  return kernel(asm, kernelKey(op, operands, results), operands.length + results.length, slabs, used + inner, (f, k) => {
    const part = f.local('i32');
    const address = (s: Spot): E => ('scratch' in s ? asm.plus(f.get(k.scratch), s.scratch) : asm.add(f.get(k.ptrs[s.pointer]!), asm.times(f.get(k.chunk), s.stride)));
    const fetched = region.inputs.flatMap((v) => {
      const spot = spots.get(v)!;
      return cut.has(v) && isDense(spot.placed) && bytesOf(spot.placed.type) >= worthFetching ? fetch(asm, address(spot), asm.i32(bytesOf(spot.placed.type))) : [];
    });
    const calls = steps.map(({ code, at }) => f.repeat(part, 0, code.chunks, 1, [asm.call(code.fn, [f.get(part), asm.plus(f.get(k.scratch), used), ...at.map(address)])]));
    return [...fetched, ...calls];
  }, vertexOf(steps.map((s) => s.code)));
}

/** The largest vertex of the kernels inside; what one of them cannot cut, the whole cannot. */
function vertexOf(codes: readonly KernelCode[]): Pick<KernelCode, 'vertexBytes' | 'uncut'> {
  if (codes.some((c) => c.vertexBytes === undefined)) return {};
  const largest = [...codes].sort((a, b) => b.vertexBytes! - a.vertexBytes!)[0];
  return largest ? { vertexBytes: largest.vertexBytes!, ...(largest.uncut !== undefined && { uncut: largest.uncut }) } : {};
}

/** Whether a tensor lies in one piece. */
const isDense = ({ type, strides }: Placed): boolean => denseLike(type, strides).every((s, i) => type.shape[i] === 1 || s === strides[i]);

/** Strides of a tensor without gaps whose axes lie in the order of others. */
function denseLike({ shape }: TensorType, strides: readonly number[]): number[] {
  const order = [...shape.keys()].sort((a, b) => strides[b]! - strides[a]! || a - b);
  const packed = rowMajor(order.map((axis) => shape[axis]!));
  const out = new Array<number>(shape.length);
  order.forEach((axis, i) => (out[axis] = packed[i]!));
  return out;
}
