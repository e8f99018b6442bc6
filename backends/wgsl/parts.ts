/**
 * An op as several, where its slices need more bindings than a shader has: reductions of a fused op apart from what comes after them, long sums as sums of parts, and what reads one element of a tensor for
 * each of its own as kernels that see the tensor's windows by turns.
 */
import { isContractRoot, isRowReduction } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { rowMajor, sameShape, sizeOf, type TensorType } from '../../ir/type.ts';
import { bodyOf, type Body, type Located } from './kernel.ts';
import type { Site } from './machine.ts';
import { alignment } from './memory.ts';
import { withoutMoments } from './moments.ts';
import { fusedOf, readApart } from './region.ts';
import { alongCut, follow, mostSlices, sliceAxis, Slices, slicesOf, type PlacedOp, type Slice } from './slices.ts';
import { bytesOfWord, isSmallFloat, wordOf } from './types.ts';
import { windowsOf } from './windows.ts';

/** The ops whose kernels compute an op, in order; the op as it stands where there is no way: its kernel then says so. */
export const partsOf = (given: PlacedOp, site: Site): readonly PlacedOp[] => parted(given, site, new Scratch(site)) ?? [given];

/** Memory of one op for what its parts hand on. */
class Scratch {
  readonly #site: Site;
  #bytes = 0;
  constructor(site: Site) {
    this.#site = site;
  }

  tensor(type: TensorType): Located {
    const word = wordOf(type.dtype, this.#site.machine.f16);
    const bytes = Math.ceil((sizeOf(type.shape) * bytesOfWord(word)) / alignment) * alignment;
    const address = this.#site.memory.scratchAt(this.#bytes, bytes);
    this.#bytes += bytes;
    return { type, strides: rowMajor(type.shape), address, offset: 0, word };
  }
}

function parted(given: PlacedOp, site: Site, scratch: Scratch): readonly PlacedOp[] | undefined {
  const slices = slicesOf(given, site);
  if (slices || !bodyOf(given.op).ops.every(isParted)) return slices;
  const apart = readApart(given);
  return slicesOf(apart, site) ?? stagesOf(apart, site, scratch) ?? sumsOf(apart, site, scratch) ?? windowsOf(apart, site);
}

/** Sorts and scans have kernels of their own, which take a plain op. */
const isParted = (op: Op): boolean => !['sort', 'scan'].includes(opDef(op.name).family);
const isReduction = (op: Op): boolean => isContractRoot(op) || isRowReduction(op);

/** The ops that values are made of, down to what is known already. */
function madeOf(ops: readonly Op[], wanted: readonly Value[], known: ReadonlyMap<Value, Located>): Op[] {
  const needed = new Set(wanted);
  const made = ops.toReversed().filter((op) => {
    if (!op.results.some((r) => needed.has(r) && !known.has(r))) return false;
    op.operands.forEach((v) => needed.add(v));
    return true;
  });
  return made.reverse();
}

/** Each reduction alone, with what comes before it, and then what comes after all, each in parts; undefined where there is one reduction with nothing after it, or none. */
function stagesOf(given: PlacedOp, site: Site, scratch: Scratch): readonly PlacedOp[] | undefined {
  const body = withoutMoments(bodyOf(given.op));
  const reductions = body.ops.filter(isReduction);
  if (reductions.length === 0 || reductions.some((r) => r.results.length !== 1)) return undefined;
  if (reductions.length === 1 && body.outputs.length === 1 && body.outputs[0] === reductions[0]!.results[0]) return undefined;
  const known = new Map(body.inputs.map((v, i) => [v, given.operands[i]!]));
  const stage = (ops: readonly Op[], outputs: readonly Value[], results: readonly Located[]): PlacedOp => {
    const read = [...known.keys()].filter((v) => ops.some((o) => o.operands.includes(v)));
    return fusedOf({ inputs: read, ops, outputs }, given.op.source, read.map((v) => known.get(v)!), results);
  };
  const stages = reductions.map((op) => {
    const [result] = op.results as [Value];
    const own = body.outputs.indexOf(result);
    const place = own >= 0 ? given.results[own]! : scratch.tensor(result.type);
    const made = stage(madeOf(body.ops, [result], known), [result], [place]);
    known.set(result, place);
    return made;
  });
  // What is reduced comes before what is as large as the operands, and may lie in the place of one.
  const rest = body.outputs.flatMap((v, i) => (known.has(v) ? [] : [i])).sort((i, k) => sizeOf(body.outputs[i]!.type.shape) - sizeOf(body.outputs[k]!.type.shape));
  for (const [at, i] of rest.entries()) {
    const alike = rest.filter((k) => sameShape(body.outputs[k]!.type.shape, body.outputs[i]!.type.shape));
    const values = alike.map((k) => body.outputs[k]!);
    if (rest.indexOf(alike[0]!) === at) stages.push(stage(madeOf(body.ops, values, known), values, alike.map((k) => given.results[k]!)));
  }
  const parts = stages.map((s) => parted(s, site, scratch));
  return parts.every((p) => p !== undefined) ? parts.flat() : undefined;
}

/** How parts of reductions are joined that are no sums: of numbers, and of flags. */
const joins: Readonly<Record<string, readonly [string, string]>> = { reduceProd: ['mul', 'and'], reduceMax: ['max', 'or'], reduceMin: ['min', 'and'] };

/** Most elements along an axis whose parts are reduced in parts themselves. */
const mostNested = 64;

/**
 * A reduction with nothing after it as parts along one of the axes that it reduces: each joins what those before it left in the result, or in f32 beside it where that is a small float, which is rounded once.
 */
function sumsOf(given: PlacedOp, site: Site, scratch: Scratch): readonly PlacedOp[] | undefined {
  const body = bodyOf(given.op);
  const root = body.ops.find(isReduction);
  const [result] = given.results as [Located];
  if (!root || root.results.length !== 1 || body.outputs.length !== 1 || body.outputs[0] !== root.results[0]) return undefined;
  const cuts = summedCuts(body, root);
  if (cuts.length === 0) return undefined;
  const { source } = given.op;
  const small = isSmallFloat(result.type.dtype);
  const sum = small ? scratch.tensor({ dtype: 'f32', shape: result.type.shape }) : result;
  const value = (): Value => ({ type: sum.type, name: undefined });
  const [part, before, after] = [value(), value(), value()];
  const ops = body.ops.map((o) => (o === root ? { ...o, results: [part] } : o));
  const join: Op = { name: joins[root.name]?.[sum.type.dtype === 'bool' ? 1 : 0] ?? 'add', operands: [before, part], results: [after], attrs: {}, regions: [], source };
  const first = fusedOf({ inputs: body.inputs, ops, outputs: [part] }, source, given.operands, [sum]);
  const further = fusedOf({ inputs: [...body.inputs, before], ops: [...ops, join], outputs: [after] }, source, [...given.operands, sum], [sum]);
  const round: Op = { name: 'cast', operands: [part], results: [{ type: result.type, name: undefined }], attrs: { to: result.type.dtype, saturate: false }, regions: [], source };
  const last = small ? parted(fusedOf({ inputs: [part], ops: [round], outputs: round.results }, source, [sum], [result]), site, scratch) : [];
  const pieces = ({ size, slices }: typeof cuts[number], count: number): PlacedOp[] => {
    const along = (whole: PlacedOp): PlacedOp[] => {
      const ofOperands = body.inputs.flatMap((v, i): [Value, Slice][] => (slices.has(v) ? [[whole.op.operands[i]!, slices.get(v)!]] : []));
      return alongCut(whole, { slices: new Map([...slices, ...ofOperands]), grain: 1 }, size, count);
    };
    return [...along(first).slice(0, 1), ...along(further).slice(1)];
  };
  const done = (made: readonly (readonly PlacedOp[] | undefined)[]): readonly PlacedOp[] | undefined => (last && made.every((m) => m !== undefined) ? [...made.flat(), ...last] : undefined);
  for (let count = 2; count <= mostSlices; count *= 2) {
    for (const cut of cuts) {
      if (count / 2 >= cut.size) continue;
      const all = pieces(cut, count);
      // The pieces are alike but for the first, which joins nothing, and the last, which may be smaller.
      const parts = [all[0]!, all[1]!, all.at(-1)!].every((p) => slicesOf(p, site)) ? done(all.map((p) => slicesOf(p, site))) : undefined;
      if (parts) return parts;
    }
  }
  const short = cuts.find(({ size }) => size <= mostNested);
  return short && done(pieces(short, short.size).map((p) => parted(p, site, scratch)));
}

/** The axes that a root sums over, and how the operands and what comes before the root are sliced along each. */
function summedCuts(body: Body, root: Op): { readonly size: number; readonly slices: ReadonlyMap<Value, Slice> }[] {
  const axes = opDef(root.name).axes(root.operands.map((v) => v.type), root.attrs, root.results.map((r) => r.type));
  if ('none' in axes || axes.stages.length !== 1) return [];
  const { pieces } = axes.stages[0]!;
  const alone = new Set(axes.space.filter((d) => d.size === 1).map((d) => d.name));
  return axes.space.filter((d) => d.role === 'reduce' && d.size > 1).flatMap(({ name, size }) => {
    const cut = new Slices();
    const followed = root.operands.every((v, i) => {
      const found = new Set(pieces.map((p) => p.reads[i] && sliceAxis(p.reads[i], name, alone)));
      const [at] = found;
      return found.size === 1 && at !== 'mixed' && cut.note(v, typeof at === 'number' ? { axis: at, per: 1 } : undefined);
    });
    if (!followed || cut.slices.size === 0 || pieces.some((p) => p.indexed.includes(name))) return [];
    for (const op of madeOf(body.ops, root.operands, new Map()).reverse()) {
      const known = op.results.find((r) => cut.slices.has(r));
      if (known && !follow(op, known, cut.slices.get(known)!, cut)) return [];
    }
    return [{ size, slices: cut.slices }];
  });
}

