/** Units of weights: the parts that make one output feature each. Read off how the graph uses a weight, never off its rank. */
import type { Axes, Piece } from '../../ir/axes.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { captures } from '../../ir/regions.ts';
import { sizeOf } from '../../ir/type.ts';
import { deal, joined, merged, uniform, type Factor, type Factors } from './factors.ts';

/** One unit of a weight: view it under `shape` (its own, or one that splits axes), and `axes` are what a unit spans. */
export interface Unit {
  readonly shape: readonly number[];
  readonly axes: readonly number[];
  /** What the weight feeds. */
  readonly kind: 'convolution' | 'linear';
}

export interface Units {
  /** By parameter name. What enters no contraction (a bias, a norm's scale, an embedding table) has no unit. */
  readonly units: ReadonlyMap<string, Unit>;
  /** Parameters of the linear layer that stands last in the graph. */
  readonly lastLinear: readonly string[];
  /** Parameters whose uses disagree; they have no unit. */
  readonly conflicts: readonly string[];
}

/** Elements in one unit. */
export const unitSize = (u: Unit): number => u.axes.reduce((n, a) => n * u.shape[a]!, 1);

/** Infers the unit of every weight: from each contraction with data back through what depends on parameters alone (transposes, reshapes, gains, standardizations). */
export function inferUnits(graph: Graph): Units {
  const fixed = new Set(graph.state.map((s) => s.value));
  const meetings: Meeting[] = [];
  const marks = marksOf(graph.ops, fixed, meetings);
  const units = new Map<string, Unit>();
  const conflicts: string[] = [];
  for (const { value, name } of graph.state) {
    const found = marks.get(value);
    if (found === 'conflict') conflicts.push(name);
    else if (found) units.set(name, unitOf(value.type.shape, found));
  }
  const last = meetings.filter((m) => m.kind === 'linear').reduce<Meeting | undefined>((a, m) => (a && a.order > m.order ? a : m), undefined);
  const lastLinear = graph.state.filter(({ value }) => last && (marks.get(value) as Mark | undefined)?.meetings?.includes(last)).map((s) => s.name);
  return { units, lastLinear, conflicts };
}

/** A contraction of a weight with data. */
interface Meeting { readonly kind: Unit['kind']; readonly order: number }
/** Which factors of a weight survive into the result (true), and which are summed (false). */
interface Mark { readonly factors: Factors<boolean>; readonly kind: Unit['kind']; readonly meetings: readonly Meeting[] }
type Marks = Map<Value, Mark | 'conflict'>;

function unitOf(shape: readonly number[], { factors, kind }: Mark): Unit {
  // An axis of size 1 is counted to the unit.
  const parts = factors.map((axis) => (axis.length === 0 ? [{ size: 1, mark: false }] : axis));
  const flat = parts.flat();
  return { shape: parts.every((p) => p.length === 1) ? shape : flat.map((f) => f.size), axes: flat.flatMap((f, i) => (f.mark ? [] : [i])), kind };
}

/** Marks of values that depend on `fixed` ones and constants alone. */
function marksOf(ops: readonly Op[], fixed: ReadonlySet<Value>, meetings: Meeting[]): Marks {
  const parameterOnly = new Set(fixed);
  for (const op of ops) {
    if (opDef(op.name).family !== 'random' && op.regions.length === 0 && op.operands.every((v) => parameterOnly.has(v))) op.results.forEach((r) => parameterOnly.add(r));
  }
  const marks: Marks = new Map();
  const note = (v: Value, mark: Mark | 'conflict'): void => {
    const before = marks.get(v);
    marks.set(v, before === undefined ? mark : combined(before, mark));
  };
  for (const op of ops.toReversed()) {
    if (op.regions.length > 0) {
      regionMarks(op, parameterOnly, meetings).forEach(([v, mark]) => note(v, mark));
      continue;
    }
    const axes = opDef(op.name).axes(op.operands.map((v) => v.type), op.attrs, op.results.map((r) => r.type));
    if ('none' in axes) continue;
    const [result] = op.results;
    const known = result && marks.get(result);
    if (result && parameterOnly.has(result)) {
      if (known) op.operands.forEach((v, i) => readsOf(axes, i).forEach((piece) => {
        const back = known === 'conflict' ? known : passedBack(axes, piece, i, v, known);
        if (back) note(v, back);
      }));
    } else if (isContraction(axes)) {
      const meeting: Meeting = { kind: opDef(op.name).family === 'conv' ? 'convolution' : 'linear', order: ops.indexOf(op) };
      op.operands.forEach((v, i) => {
        if (!parameterOnly.has(v)) return;
        meetings.push(meeting);
        note(v, { factors: keptFactors(axes, i, v), kind: meeting.kind, meetings: [meeting] });
      });
    }
  }
  return marks;
}

/** A weight that control flow captures is used inside. */
function regionMarks(op: Op, parameterOnly: ReadonlySet<Value>, meetings: Meeting[]): [Value, Mark | 'conflict'][] {
  return op.regions.flatMap((region) => {
    const captured = captures(op, region);
    const marks = marksOf(region.ops, new Set(captured.filter((c) => parameterOnly.has(c.outer)).map((c) => c.inner)), meetings);
    return captured.flatMap(({ outer, inner }): [Value, Mark | 'conflict'][] => (marks.has(inner) ? [[outer, marks.get(inner)!]] : []));
  });
}

const isContraction = (axes: Axes): boolean => axes.stages.some((s) => s.product && s.combine === 'sum');
const readsOf = (axes: Axes, operand: number): readonly Piece[] => axes.stages.flatMap((s) => (s.combine === 'none' ? s.pieces.filter((p) => p.reads[operand]) : []));
const sizesOf = (axes: Axes): Map<string, number> => new Map(axes.space.map((d) => [d.name, d.size]));
const whole = <M>(size: number, mark: M): Factor<M>[] => (size === 1 ? [] : [{ size, mark }]);

/** The factors of a contraction's operand: kept where their dim is in a place of the result. An axis that is not read as a plain merge is summed. */
function keptFactors(axes: Axes, operand: number, v: Value): Factors<boolean> {
  const sizes = sizesOf(axes);
  const pieces = axes.stages.flatMap((s) => s.pieces).filter((p) => p.reads[operand]);
  return v.type.shape.map((size, axis) => {
    const perPiece = pieces.map((p) => {
      const placed = new Set(p.writes.flatMap((w) => w.terms.map(([dim]) => dim)));
      const dims = merged(p.reads[operand]![axis]!, size, sizes);
      return dims && joined(dims.map((d) => ({ size: sizes.get(d)!, mark: placed.has(d) })));
    });
    const [first] = perPiece;
    return first && perPiece.every((f) => sameFactors(f, first)) ? first : whole(size, false);
  });
}

/** The mark of an operand, from the mark of the result; undefined where the result's factors do not carry over. */
function passedBack(axes: Axes, piece: Piece, operand: number, v: Value, mark: Mark): Mark | undefined {
  const sizes = sizesOf(axes);
  const ofDim = new Map<string, readonly Factor<boolean>[]>();
  for (const [axis, place] of piece.writes.entries()) {
    const factors = mark.factors[axis]!;
    const size = factors.reduce((n, f) => n * f.size, 1);
    const dims = merged(place, size, sizes);
    const dealt = dims && deal(factors, dims.map((d) => sizes.get(d)!));
    if (dims && dealt) dims.forEach((d, i) => ofDim.set(d, dealt[i]!));
    else {
      // A part of the axis: fine where all of the axis has one mark.
      const one = uniform(factors);
      if (one === undefined) return undefined;
      for (const [dim] of place.terms) ofDim.set(dim, whole(sizes.get(dim)!, one));
    }
  }
  const factors: Factor<boolean>[][] = [];
  for (const [axis, index] of piece.reads[operand]!.entries()) {
    const size = v.type.shape[axis]!;
    const dims = merged(index, size, sizes);
    if (dims) {
      factors.push(joined(dims.flatMap((d) => ofDim.get(d) ?? whole(sizes.get(d)!, false))));
      continue;
    }
    const terms = index.kind === 'affine' ? index.terms.filter(([d]) => sizes.get(d) !== 1) : [];
    const one = terms.length === 1 ? uniform(ofDim.get(terms[0]![0]) ?? []) : undefined;
    if (index.kind !== 'affine' || (terms.length > 0 && one === undefined)) return undefined;
    factors.push(whole(size, one ?? false));
  }
  return { ...mark, factors };
}

function combined(a: Mark | 'conflict', b: Mark | 'conflict'): Mark | 'conflict' {
  if (a === 'conflict' || b === 'conflict') return 'conflict';
  const same = a.factors.every((f, i) => sameFactors(f, b.factors[i]!));
  return same ? { ...a, kind: a.kind === b.kind ? a.kind : 'linear', meetings: [...a.meetings, ...b.meetings] } : 'conflict';
}

const sameFactors = (a: readonly Factor<boolean>[] | undefined, b: readonly Factor<boolean>[]): boolean =>
  a !== undefined && a.length === b.length && a.every((f, i) => f.size === b[i]!.size && f.mark === b[i]!.mark);

/** Whether two units are the same partition of a weight: axes of size 1 and neighbours of one kind make no difference. */
export function sameUnit(a: Pick<Unit, 'shape' | 'axes'>, b: Pick<Unit, 'shape' | 'axes'>): boolean {
  const canonical = (u: Pick<Unit, 'shape' | 'axes'>): Factor<boolean>[] => joined(u.shape.map((size, i) => ({ size, mark: u.axes.includes(i) })));
  return sizeOf(a.shape) === sizeOf(b.shape) && sameFactors(canonical(a), canonical(b));
}
