/** Runs an op from its axes alone, by brute force, and compares with its reference. */
import fc from 'fast-check';
import type { Axes, Dim, Index, Place, Stage } from '../ir/axes.ts';
import { Builder } from '../ir/builder.ts';
import { evaluateOp } from '../ir/evaluate.ts';
import type { Attrs, Op } from '../ir/graph.ts';
import { toRef } from '../ir/number.ts';
import { opDef } from '../ir/ops/index.ts';
import { rowMajor, showType, sizeOf, type Tensor, type TensorType } from '../ir/type.ts';
import type { Instance } from './gradient-harness.ts';

/** What a body sees of an operand: an element; all elements along axes read `whole`; undefined where the piece does not read it. */
export type Seen = number | readonly number[] | undefined;

export interface AxesCase {
  readonly op: string;
  readonly note?: string;
  readonly instance: fc.Arbitrary<Instance>;
  /**
   * What one point of the space contributes: a number, or one a result. `index` has the dims that the piece declares as indexed, nothing else.
   * The default multiplies the operands of a product stage, and takes the one operand of another.
   */
  readonly body?: (seen: readonly Seen[], index: Readonly<Record<string, number>>, attrs: Attrs) => number | readonly number[];
  readonly runs?: number;
}

/** Throws where the axes cover the result wrongly, read outside an operand, or give other numbers than the reference. */
export function checkAxes(c: AxesCase): void {
  fc.assert(fc.property(c.instance, (instance) => compare(c, instance)), { numRuns: c.runs ?? 40, seed: 11 });
}

function compare(c: AxesCase, { operands, attrs = {} }: Instance): void {
  const b = new Builder('axes');
  const results = b.op(c.op, operands.map((x) => b.input({ dtype: x.dtype, shape: x.shape })), attrs);
  const op: Op = b.ops[0]!;
  const types = results.map((r) => r.type);
  const axes = opDef(c.op).axes(op.operands.map((v) => v.type), op.attrs, types);
  const title = `${c.op}(${operands.map(showType).join(', ')}) ${JSON.stringify(attrs)}`;
  if ('none' in axes) throw new Error(`${title} declares no axes: ${axes.none}`);
  const found = runAxes(axes, operands, op.attrs, types, c.body);
  evaluateOp(op, operands).forEach((want, r) => {
    const expected = Float64Array.from(toRef(want).data as Float64Array, Number);
    expected.forEach((w, i) => {
      const got = found[r]![i]!;
      if (!(Object.is(got, w) || Math.abs(got - w) <= 1e-9 * Math.max(1, Math.abs(w)))) throw new Error(`${title}: element ${i} of result ${r} is ${got} by its axes, ${w} by its reference`);
    });
  });
}

type Point = Readonly<Record<string, number>>;

/** The results of a plain op, one array each, from its axes. */
export function runAxes(axes: Axes, operands: readonly Tensor[], attrs: Attrs, results: readonly TensorType[], body?: AxesCase['body']): Float64Array[] {
  const dims = new Map(axes.space.map((d) => [d.name, d]));
  if (dims.size !== axes.space.length) throw new Error('two dims of the space have one name');
  const [stage] = axes.stages;
  if (!stage || axes.stages.length !== 1) throw new Error('a plain op has one stage');
  const out = results.map((t) => new Float64Array(sizeOf(t.shape)));
  const covered = new Uint8Array(sizeOf(results[0]!.shape));
  const values = operands.map((x) => Float64Array.from(toRef(x).data as Float64Array, Number));
  for (const piece of stage.pieces) {
    const space = piece.dims.map((name) => {
      const d = dims.get(name);
      if (!d) throw new Error(`dim ${name} is not of the space`);
      return d;
    });
    const placed = new Set(piece.writes.flatMap((w) => w.terms.map(([name]) => name)));
    checkRoles(space, placed);
    const scans = space.filter((d) => d.role === 'scan');
    const inner = space.filter((d) => !placed.has(d.name));
    for (const outer of points(space.filter((d) => placed.has(d.name)))) {
      const target = place(piece.writes, outer, results[0]!.shape);
      if (covered[target]) throw new Error(`result element ${target} is written twice`);
      covered[target] = 1;
      const state = combine(stage, attrs);
      let position = 0;
      for (const past of scanned(scans, outer, attrs['exclusive'] === true)) {
        for (const point of points(inner)) {
          const at = { ...outer, ...past, ...point };
          const seen = operands.map((x, k) => see(piece.reads[k] ?? null, x.shape, values[k]!, at, dims));
          const index = Object.fromEntries(piece.indexed.map((name) => [name, at[name]!]));
          state.add(body ? body(seen, index, attrs) : plainBody(stage, seen), position++);
        }
      }
      state.done(results.length).forEach((y, r) => (out[r]![target] = y));
    }
  }
  const missing = covered.indexOf(0);
  if (missing >= 0) throw new Error(`result element ${missing} is never written`);
  return out;
}

/** A dim in a place is parallel or scan, any other is reduce or whole. */
function checkRoles(space: readonly Dim[], placed: ReadonlySet<string>): void {
  for (const d of space) {
    const fits = placed.has(d.name) ? d.role === 'parallel' || d.role === 'scan' : d.role === 'reduce' || d.role === 'whole';
    if (!fits) throw new Error(`dim ${d.name} is ${d.role}, but ${placed.has(d.name) ? 'in' : 'missing from'} the places`);
  }
}

/** All points of some dims, in row-major order. Dims read whole are not walked. */
function* points(dims: readonly Dim[]): Generator<Point> {
  const walked = dims.filter((d) => d.role !== 'whole');
  const n = walked.reduce((p, d) => p * d.size, 1);
  for (let i = 0; i < n; i++) {
    const point: Record<string, number> = {};
    let rest = i;
    for (const d of [...walked].reverse()) {
      point[d.name] = rest % d.size;
      rest = Math.floor(rest / d.size);
    }
    yield point;
  }
}

/** The points of scan dims up to and including the current one (an exclusive scan leaves that out), in the order of the scan. */
function* scanned(scans: readonly Dim[], outer: Point, exclusive: boolean): Generator<Point> {
  const [d, ...more] = scans;
  if (!d) {
    yield {};
    return;
  }
  if (more.length > 0) throw new Error('at most one dim scans');
  const now = outer[d.name]!;
  const skip = exclusive ? 1 : 0;
  if (d.reverse) for (let t = d.size - 1; t >= now + skip; t--) yield { [d.name]: t };
  else for (let t = 0; t <= now - skip; t++) yield { [d.name]: t };
}

function place(writes: readonly Place[], point: Point, shape: readonly number[]): number {
  if (writes.length !== shape.length) throw new Error(`${writes.length} places for ${shape.length} result axes`);
  const strides = rowMajor(shape);
  return writes.reduce((sum, w, axis) => {
    const i = w.terms.reduce((s, [name, times]) => s + times * point[name]!, w.plus);
    if (i < 0 || i >= shape[axis]!) throw new Error(`place ${i} is outside result axis ${axis} of size ${shape[axis]}`);
    return sum + i * strides[axis]!;
  }, 0);
}

/** What the body sees of an operand at a point. */
function see(reads: readonly Index[] | null, shape: readonly number[], data: Float64Array, point: Point, dims: ReadonlyMap<string, Dim>): Seen {
  if (reads === null) return undefined;
  if (reads.length !== shape.length) throw new Error(`${reads.length} indices for ${shape.length} axes`);
  const strides = rowMajor(shape);
  let offset = 0;
  let outside: number | undefined;
  const whole: number[] = [];
  reads.forEach((index, axis) => {
    const size = shape[axis]!;
    if (index.kind === 'whole') {
      whole.push(axis);
      return;
    }
    const i = index.kind === 'span' ? digit(index.dims, reads, axis, shape, point, dims) : position(index, point, dims);
    const kept = i >= 0 && i < size ? i : fold(index, i, size);
    if (typeof kept === 'number') offset += kept * strides[axis]!;
    else outside = kept.value;
  });
  if (outside !== undefined) return outside;
  if (whole.length === 0) return data[offset]!;
  const sizes = whole.map((axis): Dim => ({ name: String(axis), size: shape[axis]!, role: 'parallel' }));
  return [...points(sizes)].map((p) => data[whole.reduce((o, axis) => o + p[String(axis)]! * strides[axis]!, offset)]!);
}

function position(index: Index & { kind: 'affine' | 'table' }, point: Point, dims: ReadonlyMap<string, Dim>): number {
  if (index.kind === 'affine') return Math.floor(index.terms.reduce((s, [name, times]) => s + times * point[name]!, index.plus) / index.over);
  const at = index.inner === undefined ? point[index.dim]! : point[index.dim]! * dims.get(index.inner)!.size + point[index.inner]!;
  return index.at[at]!;
}

/** The axis's digit in the row-major number of a span's dims. */
function digit(names: readonly string[], reads: readonly Index[], axis: number, shape: readonly number[], point: Point, dims: ReadonlyMap<string, Dim>): number {
  const address = names.reduce((n, name) => n * dims.get(name)!.size + point[name]!, 0);
  const group = (reads[axis] as Index & { kind: 'span' }).group;
  const stride = reads.reduce((s, r, a) => (a > axis && r.kind === 'span' && r.group === group ? s * shape[a]! : s), 1);
  return Math.floor(address / stride) % shape[axis]!;
}

/** What a read outside an axis gives: another index, or a value. */
function fold(index: Index, i: number, size: number): number | { value: number } {
  const mode = index.kind === 'affine' ? index.outside : 'error';
  if (mode === '0') return { value: 0 };
  if (mode === '-inf') return { value: -Infinity };
  if (mode === 'edge') return i < 0 ? 0 : size - 1;
  if (mode === 'wrap') return ((i % size) + size) % size;
  if (mode === 'reflect') {
    let r = i;
    while (size > 1 && (r < 0 || r >= size)) r = r < 0 ? -r : 2 * (size - 1) - r;
    return size > 1 ? r : 0;
  }
  throw new Error(`index ${i} is outside an axis of ${size}`);
}

function plainBody(stage: Stage, seen: readonly Seen[]): number {
  const numbers = seen.flatMap((s) => (typeof s === 'number' ? [s] : []));
  if (stage.product) return numbers.reduce((p, x) => p * x, 1);
  if (numbers.length !== 1) throw new Error(`this op needs a body: it sees ${numbers.length} elements`);
  return numbers[0]!;
}

interface Combining {
  add(made: number | readonly number[], position: number): void;
  /** The value of each result. */
  done(results: number): readonly number[];
}

/** How contributions to one result element merge. `position` counts them: for an argmax it is the row-major index over the reduced dims. */
function combine(stage: Stage, attrs: Attrs): Combining {
  const all: (number | readonly number[])[] = [];
  const add = (x: number | readonly number[]): void => void all.push(x);
  const xs = (): number[] => all.map(Number);
  const reduce = (f: (a: number, b: number) => number, from: number): Combining => ({ add, done: () => [xs().reduce((a, b) => f(a, b), from)] });
  switch (stage.combine) {
    case 'none':
      return { add, done: () => {
        if (all.length !== 1) throw new Error(`combine none got ${all.length} contributions`);
        const [y] = all;
        return typeof y === 'number' ? [y] : y!;
      } };
    case 'sum': return reduce((a, b) => a + b, 0);
    case 'prod': return reduce((a, b) => a * b, 1);
    case 'max': return reduce(Math.max, -Infinity);
    case 'min': return reduce(Math.min, Infinity);
    case 'argmax':
    case 'argmin':
      return { add, done: (results) => {
        const best = stage.combine === 'argmax' ? Math.max(...xs()) : Math.min(...xs());
        const where = attrs['last'] === true ? xs().lastIndexOf(best) : xs().indexOf(best);
        return results === 1 ? [where] : [best, where];
      } };
    case 'moments':
      return { add, done: () => {
        const mean = xs().reduce((a, b) => a + b, 0) / all.length;
        return [mean, xs().reduce((s, x) => s + (x - mean) ** 2, 0)];
      } };
    default:
      throw new Error(`no brute force for combine ${stage.combine}`);
  }
}
