/**
 * Follows the samples of a batch through a graph: which part of which axis counts them, and which ops join samples. Moving samples is not joining them; reducing, scanning, reversing or
 * gathering along them is. Works by factors of axes, never by comparing sizes.
 */
import type { Axes, Piece } from '../../ir/axes.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num, nums, tensorAttr } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { rowMajor, sameShape, showType, sizeOf, type Tensor } from '../../ir/type.ts';
import { deal, merged, type Factor } from './factors.ts';
import { batchOf, holdsSamples, leading, MixedSamples, plainFactors, refuse, resultFactors, sampleAxis, type Mark, type SampleFactors } from './sample-factors.ts';

export interface Samples {
  /** Size of the batch. */
  readonly batch: number;
  /** Factors of every value that holds samples, those inside regions included. */
  readonly factors: ReadonlyMap<Value, SampleFactors>;
  /** Ops that reduce over samples: their results hold none. */
  readonly joins: readonly Op[];
}

/** Follows samples from the first axis of every input but scalars. Throws MixedSamples where an op does with them what cannot be followed. */
export function followSamples(graph: Graph): Samples {
  const batch = batchOf(graph);
  const inputs = graph.inputs.filter((v) => v.type.shape.length > 0);
  if (batch === undefined) throw new UserError('the model has no input with a batch axis');
  const odd = inputs.find((v) => v.type.shape[0] !== batch);
  if (odd) {
    const name = odd.name ?? '';
    throw new UserError(`the inputs have different batch sizes: "${name}" is ${showType(odd.type)}, the first input with a batch axis ("${inputs[0]!.name ?? ''}") has ${batch} samples. If "${name}" is the same for all samples, fix its value (--value ${name}=FILE.npy) or, to check, say so (--batch-axis ${name}=none); if its samples are on another axis, check takes --batch-axis ${name}=AXIS`);
  }
  if (batch === 1) throw new UserError('a batch of one sample cannot be told from any other axis of size 1: import the model with a larger batch');
  // Values that are the same for all samples (an expanded token, a mask) turn out to need samples only where they meet them: then all starts again, knowing that.
  const asked = new Map<Value, number>();
  for (;;) {
    const run = new Following(batch, asked, graph);
    const again = run.graph(graph, new Map(inputs.map((v) => [v, leading(v, batch)])));
    if (!again) return { batch, factors: run.factors, joins: run.joins };
  }
}

/** Follows samples op by op, through ops that are made one after the other. */
export interface Follower {
  readonly factors: Map<Value, SampleFactors>;
  /** Notes the factors of an op's results, from those of its operands; true if it joins samples. Control flow is left to the caller. */
  follow(op: Op): boolean;
}

/** A follower that knows nothing yet. */
export function newFollower(batch: number): Follower {
  const following = new Following(batch, new Map(), undefined);
  return {
    factors: following.factors,
    follow(op) {
      const before = following.joins.length;
      following.op(op);
      return following.joins.length > before;
    },
  };
}

/** Where a value comes from: an op, or an operand of the op whose region it enters. */
type Origin = { readonly op: Op } | { readonly outer: Value };
/** Something was asked of an earlier value: start again. */
class Restart extends Error {}

class Following {
  readonly factors = new Map<Value, SampleFactors>();
  readonly joins: Op[] = [];
  readonly #batch: number;
  readonly #asked: Map<Value, number>;
  readonly #origins = new Map<Value, Origin>();

  constructor(batch: number, asked: Map<Value, number>, graph: Graph | undefined) {
    this.#batch = batch;
    this.#asked = asked;
    if (graph) this.#note(graph);
  }

  /** Follows a graph; true where it has to be followed again. */
  graph(graph: Graph, inputs: ReadonlyMap<Value, SampleFactors>): boolean {
    for (const [v, f] of inputs) this.factors.set(v, f);
    try {
      this.#ops(graph.ops);
      return false;
    } catch (e) {
      if (e instanceof Restart) return true;
      if (e instanceof MixedSamples) e.joins = this.joins;
      throw e;
    }
  }

  #note(graph: Graph): void {
    for (const op of graph.ops) {
      for (const r of op.results) this.#origins.set(r, { op });
      const skip = op.name === 'loop' ? 2 : 1;
      for (const region of op.regions) {
        const first = op.name === 'loop' ? 1 : 0;
        region.inputs.slice(first).forEach((v, i) => this.#origins.set(v, { outer: op.operands[skip + i]! }));
        this.#note(region);
      }
    }
  }

  #ops(ops: readonly Op[]): void {
    for (const op of ops) {
      for (const r of op.results) {
        const axis = this.#asked.get(r);
        if (axis !== undefined) this.factors.set(r, r.type.shape.map((size, i) => (i === axis ? [{ size, mark: 'n' }] : plainFactors(size))));
      }
      if (op.results.some((r) => this.factors.has(r))) continue;
      if (op.regions.length > 0) this.#regions(op);
      else this.op(op);
    }
  }

  /** Follows one op that holds no regions. */
  op(op: Op): void {
    if (!op.operands.some((v) => this.factors.has(v))) return;
    if (op.name === 'dynamicSlice' || op.name === 'dynamicUpdate') return this.#window(op);
    const axes = opDef(op.name).axes(op.operands.map((v) => v.type), op.attrs, op.results.map((r) => r.type));
    if ('none' in axes) return refuse(op, axes.none);
    const sizes = new Map(axes.space.map((d) => [d.name, d.size]));
    const found = axes.stages.flatMap((s) => s.pieces).flatMap((piece) => {
      const dims = this.#dims(op, axes, piece, sizes);
      return dims ? [{ piece, dims }] : [];
    });
    const placed = found.map(({ piece, dims }) => resultFactors(op, piece, dims, sizes));
    const [first] = placed;
    if (!first) return;
    const rest = axes.stages.flatMap((s) => s.pieces).filter((p) => p.reads.some((r) => r !== null) && !found.some((f) => f.piece === p));
    for (const piece of rest) this.#askPart(op, piece, sampleAxis(first), sizes);
    if (placed.some((p) => sampleAxis(p) !== sampleAxis(first))) refuse(op, 'its parts hold samples in different places');
    if (sampleAxis(first) < 0) {
      this.joins.push(op);
      return;
    }
    for (const r of op.results) if (sameShape(r.type.shape, op.results[0]!.type.shape)) this.factors.set(r, first);
  }

  /** What each dim of a piece counts; undefined where the piece reads no samples. */
  #dims(op: Op, axes: Axes, piece: Piece, sizes: ReadonlyMap<string, number>): Map<string, readonly Factor<Mark>[]> | undefined {
    const dims = new Map<string, readonly Factor<Mark>[]>();
    op.operands.forEach((v, i) => {
      const factors = this.factors.get(v);
      const reads = piece.reads[i];
      if (!factors || !reads) return;
      factors.forEach((axis, a) => {
        if (!holdsSamples(axis)) return;
        const names = merged(reads[a]!, v.type.shape[a]!, sizes);
        if (!names) return refuse(op, 'it shifts, reverses, selects or indexes samples');
        const dealt = deal(axis, names.map((d) => sizes.get(d)!), (mark) => mark === 'other');
        if (!dealt) return refuse(op, `it splits an axis of ${v.type.shape[a]!} elements that holds ${this.#batch} samples where it cannot be split`);
        names.forEach((d, k) => dims.set(d, dealt[k]!));
      });
    });
    const holding = [...dims].filter(([, f]) => holdsSamples(f)).map(([d]) => d);
    const [dim] = holding;
    if (dim === undefined) return undefined;
    if (holding.length > 1) return refuse(op, 'it pairs samples with samples');
    if (piece.indexed.includes(dim)) return refuse(op, 'it numbers samples');
    if (axes.space.find((d) => d.name === dim)!.role === 'scan') return refuse(op, 'it scans along samples');
    this.#agree(op, piece, dim, dims.get(dim)!, sizes);
    return dims;
  }

  /** Operands that walk along the samples without holding them have to be the same for all of them. */
  #agree(op: Op, piece: Piece, dim: string, own: readonly Factor<Mark>[], sizes: ReadonlyMap<string, number>): void {
    op.operands.forEach((v, i) => {
      piece.reads[i]?.forEach((index, a) => {
        const walks = index.kind === 'affine' ? index.terms.some(([d]) => d === dim) : index.kind === 'span' ? index.dims.includes(dim) : index.dim === dim;
        if (!walks || holdsSamples(this.factors.get(v)?.[a] ?? [])) return;
        const names = merged(index, v.type.shape[a]!, sizes);
        if (names?.length === 1 && own.length === 1 && this.#ask(v, a)) throw new Restart();
        refuse(op, `${v.name === undefined ? 'an operand' : `"${v.name}"`} (${showType(v.type)}) differs from sample to sample without being made of them`);
      });
    });
  }

  /** A part of a result beside parts that hold samples: it has to be the same for all of them. */
  #askPart(op: Op, piece: Piece, axis: number, sizes: ReadonlyMap<string, number>): void {
    const names = axis < 0 ? [] : merged(piece.writes[axis]!, op.results[0]!.type.shape[axis]!, sizes);
    op.operands.forEach((v, i) => piece.reads[i]?.forEach((index, a) => {
      const own = merged(index, v.type.shape[a]!, sizes);
      if (names?.length === 1 && own?.length === 1 && own[0] === names[0] && this.#ask(v, a)) throw new Restart();
    }));
    refuse(op, 'some of its parts hold samples and others do not');
  }

  /** Asks that an axis of a value count samples. True if the value is the same along it, and can be made for any number of samples. */
  #ask(v: Value, axis: number): boolean {
    const origin = this.#origins.get(v);
    if (!origin) return false;
    if ('outer' in origin) return this.#ask(origin.outer, axis);
    const { op } = origin;
    const accept = (): boolean => (this.#asked.set(v, axis), true);
    switch (op.name) {
      case 'constant':
        return uniformAlong(tensorAttr(op.attrs, 'value'), axis) && accept();
      case 'randomUniform':
      case 'randomNormal':
        return accept();
      case 'iota':
        return num(op.attrs, 'axis') !== axis && accept();
      default:
        return this.#askOperands(v, axis, op, accept);
    }
  }

  /** Asks the operands that are read along an axis of a result; where none is (a broadcast), the result itself repeats. */
  #askOperands(v: Value, axis: number, op: Op, accept: () => boolean): boolean {
    if (op.regions.length > 0) return false;
    const axes = opDef(op.name).axes(op.operands.map((x) => x.type), op.attrs, op.results.map((r) => r.type));
    const [piece, ...others] = 'none' in axes ? [] : axes.stages.flatMap((s) => s.pieces);
    if ('none' in axes || !piece || others.length > 0) return false;
    const sizes = new Map(axes.space.map((d) => [d.name, d.size]));
    const names = merged(piece.writes[axis]!, v.type.shape[axis]!, sizes);
    const [dim] = names ?? [];
    if (dim === undefined || names!.length > 1 || piece.indexed.includes(dim)) return false;
    const readers = op.operands.flatMap((x, i) => x.type.shape.flatMap((size, a) => {
      const index = piece.reads[i]![a]!;
      return index.kind === 'affine' && index.terms.some(([d]) => d === dim) ? [{ x, a, plain: merged(index, size, sizes)?.length === 1 }] : [];
    }));
    if (readers.length === 0) return op.name === 'broadcast' && accept();
    return readers.every(({ x, a, plain }) => plain && (holdsSamples(this.factors.get(x)?.[a] ?? []) || this.#ask(x, a)));
  }

  /** Windows at run-time positions keep an axis that they cover whole. */
  #window(op: Op): void {
    const [x] = op.operands;
    const factors = this.factors.get(x!);
    const patch = op.name === 'dynamicUpdate' ? this.factors.get(op.operands[1]!) : factors;
    const window = op.name === 'dynamicUpdate' ? op.operands[1]!.type.shape : nums(op.attrs, 'sizes');
    const axis = factors ? sampleAxis(factors) : patch ? sampleAxis(patch) : -1;
    if (axis < 0) return refuse(op, 'its position depends on samples');
    if (window[axis] !== x!.type.shape[axis]) return refuse(op, 'it selects samples');
    if (!factors && this.#ask(x!, axis)) throw new Restart();
    if (!factors || !patch) return refuse(op, 'one of its operands holds samples, the other does not');
    this.factors.set(op.results[0]!, factors.map((f, a) => (a === axis ? f : plainFactors(op.results[0]!.type.shape[a]!))));
  }

  #regions(op: Op): void {
    if (op.name !== 'loop' && op.name !== 'if') return op.operands.some((v) => this.factors.has(v)) ? refuse(op, 'it holds ops that are fused already') : undefined;
    const loop = op.name === 'loop';
    const skip = loop ? 2 : 1;
    if (op.operands.slice(0, skip).some((v) => this.factors.has(v))) refuse(op, 'its course depends on samples');
    for (const [k, region] of op.regions.entries()) {
      region.inputs.slice(loop ? 1 : 0).forEach((v, i) => {
        const outer = this.factors.get(op.operands[skip + i]!);
        if (outer) this.factors.set(v, outer);
      });
      this.#ops(region.ops);
      const made = region.outputs.slice(loop ? 1 : 0);
      made.forEach(({ value }, i) => {
        const factors = this.factors.get(value);
        const carried = loop && i < num(op.attrs, 'carried');
        const before = carried ? this.factors.get(region.inputs[1 + i]!) : factors;
        if (carried && factors && !before) {
          if (this.#ask(op.operands[2 + i]!, sampleAxis(factors))) throw new Restart();
          refuse(op, `the carried value ${i} holds samples only after the first iteration`);
        }
        if (carried && (before ? sampleAxis(before) : -1) !== (factors ? sampleAxis(factors) : -1)) refuse(op, `the carried value ${i} holds samples in another place after an iteration`);
        if (k === 1) this.#sameInBothBranches(op, i);
        if (factors) this.factors.set(op.results[i]!, loop && !carried ? [plainFactors(op.results[i]!.type.shape[0]!), ...factors] : factors);
      });
    }
  }

  /** A result has its samples in one place whichever branch runs; a branch that gives the same for all of them is asked to give it for each. */
  #sameInBothBranches(op: Op, result: number): void {
    const given = op.regions.map((region) => region.outputs[result]!.value);
    const axes = given.map((v) => sampleAxis(this.factors.get(v) ?? []));
    if (axes[0] === axes[1]) return;
    const plain = axes.indexOf(-1);
    if (plain >= 0 && this.#ask(given[plain]!, axes[1 - plain]!)) throw new Restart();
    refuse(op, plain >= 0 ? `only one of its branches holds samples in result ${result}` : `its branches hold samples in different places of result ${result}`);
  }
}

/** Whether a constant is the same all along an axis. */
function uniformAlong(t: Tensor, axis: number): boolean {
  const stride = rowMajor(t.shape)[axis]!;
  const size = t.shape[axis]!;
  for (let i = 0; i < sizeOf(t.shape); i++) if (t.data[i] !== t.data[i - (Math.floor(i / stride) % size) * stride]) return false;
  return true;
}
