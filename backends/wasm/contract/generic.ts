/**
 * Any contraction of any dtype as a scalar loop nest over its axes: what the packed and blocked kernels do not take. Every piece of the axes is walked on
 * its own; a part of the operand that lies outside is skipped together with all that depends on it.
 */
import type { Index, Piece, Place } from '../../../ir/axes.ts';
import { InternalError, invariant } from '../../../ir/diagnostic.ts';
import { opDef } from '../../../ir/ops/index.ts';
import { mostChunks, type Placed } from '../../../ir/tile.ts';
import { dtypes, type DType } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local, Ty } from '../asm.ts';
import { computeType, constantOf, loadElement, normalize, storeElement } from '../dtype.ts';
import { scalarChain, type ScalarValues } from '../elementwise/index.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import type { Contraction } from './fused.ts';
import { broadcastTo } from './space.ts';

/** A linear function of the dims of a piece. */
interface Linear { readonly plus: number; readonly times: ReadonlyMap<string, number> }
/** The index of an axis that may lie outside; it counts as zero there. */
interface Guard { readonly index: Linear; readonly size: number }

/** Multiply-adds below which a chunk is not worth handing out. */
const leastWork = 50_000;

/** Emits a contraction as scalar loops. */
export function genericContraction(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode {
  const { root } = k;
  const rootTypes = root.operands.map((v) => v.type);
  const axes = opDef(root.name).axes(rootTypes, root.attrs, root.results.map((r) => r.type));
  invariant(!('none' in axes), `${root.name} has no axes`);
  const stage = axes.stages[0]!;
  const size = new Map(axes.space.map((d) => [d.name, d.size]));
  const reduced = new Set(axes.space.filter((d) => d.role === 'reduce').map((d) => d.name));
  const pieces = stage.pieces.map((piece) => {
    const points = piece.dims.filter((d) => !reduced.has(d));
    const count = points.reduce((n, d) => n * size.get(d)!, 1);
    const work = count * piece.dims.filter((d) => reduced.has(d)).reduce((n, d) => n * size.get(d)!, 1);
    const chunks = count === 0 ? 0 : Math.max(1, Math.min(mostChunks(asm.division), count, Math.floor(work / leastWork)));
    return { piece, points, count, chunks, block: chunks === 0 ? 0 : Math.ceil(count / chunks) };
  });
  const fn = asm.fn(`generic ${kernelKey(k.op, operands, [result])}`, Array.from({ length: operands.length + 3 }, (): Ty => 'i32'), undefined, (f, [chunk, , ...pointers]) => {
    let first = 0;
    const body: E[] = [];
    for (const p of pieces) {
      if (p.chunks === 0) continue;
      const start = first;
      first += p.chunks;
      const code = pieceLoop(f, { k, operands, result, pointers, size, reduced, ...p }, () => asm.plus(f.get(chunk!), -start));
      body.push(f.if(asm.m.i32.lt_u(asm.plus(f.get(chunk!), -start), asm.i32(p.chunks)), code));
    }
    return body;
  });
  return { fn, chunks: pieces.reduce((n, p) => n + p.chunks, 0), scratchBytes: 0 };
}

interface Context {
  readonly k: Contraction;
  readonly operands: readonly Placed[];
  readonly result: Placed;
  readonly pointers: readonly Local[];
  readonly size: ReadonlyMap<string, number>;
  readonly reduced: ReadonlySet<string>;
  readonly piece: Piece;
  readonly points: readonly string[];
  readonly count: number;
  readonly block: number;
}

/** All results of one block of a piece. */
function pieceLoop(f: Fn, c: Context, block: () => E): E[] {
  const { asm } = f;
  const { m } = asm;
  const { root, roots, extra } = c.k;
  const point = f.local('i32');
  const end = f.local('i32');
  const rest = f.local('i32');
  const dims = new Map(c.points.map((d) => [d, f.local('i32')]));
  const decode: E[] = [f.set(rest, f.get(point))];
  for (const d of [...c.points].reverse()) {
    decode.push(f.set(dims.get(d)!, m.i32.rem_u(f.get(rest), asm.i32(c.size.get(d)!))), f.set(rest, m.i32.div_u(f.get(rest), asm.i32(c.size.get(d)!))));
  }
  const linear = (l: Linear): E => [...l.times].reduce((sum, [d, t]) => (dims.has(d) ? asm.add(sum, asm.times(f.get(dims.get(d)!), t)) : sum), asm.i32(l.plus));

  const dtype = root.results[0]!.type.dtype;
  const type = computeType(dtype);
  const sum = f.local(type);
  const reads = roots.map((operand, i) => {
    const placed = c.operands[operand]!;
    const indices = c.piece.reads[i];
    invariant(indices, 'a contraction reads both operands');
    const guards: Guard[] = indices.flatMap((index, axis) => (outside(index) ? [{ index: affine(index), size: placed.type.shape[axis]! }] : []));
    return { address: combine(indices.map(affine), placed.strides, dtypes[placed.type.dtype].bytes), guards, dtype: placed.type.dtype, pointer: c.pointers[operand]! };
  });
  const place = (p: Place): Linear => ({ plus: p.plus, times: new Map(p.terms) });
  const writes = c.piece.writes.map(place);
  const addressOf = (strides: readonly number[], d: DType): E => linear(combine(writes, strides, dtypes[d].bytes));

  const store = (): E[] => {
    const region = c.k.op.name === 'fused' ? c.k.op.regions[0]! : undefined;
    const target = asm.add(f.get(c.pointers[c.operands.length]!), addressOf(c.result.strides, c.result.type.dtype));
    const done = (): E => normalize(asm, dtype, f.get(sum));
    if (!region) return [storeElement(asm, dtype, target, done())];
    const rounded = f.local(type);
    const values: ScalarValues = new Map([[root.results[0]!, () => f.get(rounded)]]);
    for (const i of extra) {
      const placed = c.operands[i]!;
      const strides = broadcastTo(c.result.type.shape, placed.type.shape, placed.strides);
      const value = f.local(computeType(placed.type.dtype));
      values.set(region.inputs[i]!, () => f.get(value));
      extraLoads.push(f.set(value, loadElement(asm, placed.type.dtype, asm.add(f.get(c.pointers[i]!), addressOf(strides, placed.type.dtype)))));
    }
    const output = region.outputs[0]!.value;
    const steps = scalarChain(f, region.ops.filter((o) => o !== root), values, [output]);
    return [f.set(rounded, done()), ...extraLoads, ...steps, storeElement(asm, output.type.dtype, target, values.get(output)!())];
  };
  const extraLoads: E[] = [];
  return [
    f.set(end, asm.times(asm.plus(block(), 1), c.block)),
    f.if(m.i32.gt_u(f.get(end), asm.i32(c.count)), [f.set(end, asm.i32(c.count))]),
    f.loop(point, asm.times(block(), c.block), () => f.get(end), 1, [
      ...decode,
      f.set(sum, constantOf(asm, dtype, 0)),
      ...reduction(f, c, reads, linear, sum, dtype),
      ...store(),
    ]),
  ];
}

interface Read { readonly address: Linear; readonly guards: readonly Guard[]; readonly dtype: DType; readonly pointer: Local }

/** sum += a · b over the reduced dims; those that guards depend on are outermost, so that a tap that lies outside is skipped as a whole. */
function reduction(f: Fn, c: Context, reads: readonly Read[], linear: (l: Linear) => E, sum: Local, dtype: DType): E[] {
  const { asm } = f;
  const { m } = asm;
  const type = computeType(dtype);
  const guards = reads.flatMap((r) => r.guards).map((g) => ({ ...g, at: f.local('i32') }));
  const addresses = reads.map((r) => ({ ...r, at: f.local('i32') }));
  const guarded = (d: string): boolean => guards.some((g) => (g.index.times.get(d) ?? 0) !== 0);
  const order = c.piece.dims.filter((d) => c.reduced.has(d)).sort((p, q) => Number(guarded(q)) - Number(guarded(p)));
  const moving = (d: string): { readonly at: Local; readonly by: number }[] => [
    ...addresses.map((a) => ({ at: a.at, by: a.address.times.get(d) ?? 0 })),
    ...guards.map((g) => ({ at: g.at, by: g.index.times.get(d) ?? 0 })),
  ].filter((x) => x.by !== 0);
  const [a, b] = addresses.map((r) => () => loadElement(asm, r.dtype, f.get(r.at))) as [() => E, () => E];
  const level = (depth: number): E[] => {
    const ready = guards.filter((g) => Math.max(-1, ...order.map((d, i) => ((g.index.times.get(d) ?? 0) !== 0 ? i : -1))) === depth - 1);
    const rest = inside(depth);
    if (ready.length === 0) return rest;
    return [f.if(ready.map((g) => m.i32.lt_u(f.get(g.at), asm.i32(g.size))).reduce((x, y) => m.i32.and(x, y)), rest)];
  };
  const inside = (depth: number): E[] => {
    const d = order[depth];
    if (d === undefined) return [f.set(sum, m[type].add(f.get(sum), m[type].mul(a(), b())))];
    const size = c.size.get(d)!;
    if (size === 0) return [];
    const i = f.local('i32');
    return [
      f.repeat(i, 0, size, 1, [...level(depth + 1), ...moving(d).map((x) => f.inc(x.at, x.by))]),
      ...moving(d).map((x) => f.inc(x.at, -x.by * size)),
    ];
  };
  return [
    ...addresses.map((r) => f.set(r.at, asm.add(f.get(r.pointer), linear(r.address)))),
    ...guards.map((g) => f.set(g.at, linear(g.index))),
    ...level(0),
  ];
}

const outside = (index: Index): boolean => index.kind === 'affine' && index.outside === '0';

function affine(index: Index): Linear {
  if (index.kind !== 'affine' || index.over !== 1 || (index.outside !== '0' && index.outside !== 'error')) throw new InternalError('a contraction reads at affine indices');
  return { plus: index.plus, times: new Map(index.terms) };
}

/** Byte address of axis indices under strides in elements. */
function combine(indices: readonly Linear[], strides: readonly number[], bytes: number): Linear {
  const times = new Map<string, number>();
  let plus = 0;
  indices.forEach((l, axis) => {
    const by = strides[axis]! * bytes;
    plus += l.plus * by;
    for (const [d, t] of l.times) times.set(d, (times.get(d) ?? 0) + t * by);
  });
  return { plus, times };
}
