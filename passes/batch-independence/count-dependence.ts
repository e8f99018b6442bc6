/**
 * Follows the number of samples itself through a graph, from the shapes that hold it through integer arithmetic. Two batch sizes alone do not show all that depends on it: the smaller of n and 5 is
 * the same at 7 and at 11. A number may decide shapes where it is a·n + b for every n, and reach no element that samples are computed with.
 */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num, nums, str, tensorAttr } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { isControl } from '../../ir/regions.ts';
import { sameShape, sizeOf, type Tensor } from '../../ir/type.ts';
import { combined, constantTwins, isFixed, isKnown, type Sizes, type Twins } from './linear.ts';

/** A value, or a size that was rounded or cut to fit, that decided something while a model was imported. */
export interface CompileTimeRead {
  /** The ONNX node, and what it took it for. */
  readonly source: readonly string[];
  readonly what: string;
  readonly from: Value | number;
}

/** A graph as it was imported, with what decided its shapes. */
export interface ImportedGraph {
  readonly graph: Graph;
  readonly reads: readonly CompileTimeRead[];
}

/** Where the number of samples matters. */
export interface CountDependence {
  readonly op: Pick<Op, 'name' | 'source'>;
  readonly reason: string;
}

/** Largest tensor that counts as arithmetic on shapes. */
const maxElements = 4096;

const reasons = {
  data: 'it computes with the number of samples: another batch size gives other numbers for the same sample',
  shape: 'its shape follows the number of samples in a way that two batch sizes do not show',
  read: (what: string): string => `it takes its ${what} from the number of samples by more than a multiple and a sum (a minimum, a comparison, a rounded division): what holds at two batch sizes need not hold at others`,
} as const;

/** The first op on data that reads a number that depends on the number of samples; the graphs are one model at two batch sizes, not folded. */
export function countInData(graph: Graph, other: Graph, sizes: Sizes): CountDependence | undefined {
  const counting = new Counting(sizes);
  counting.graph(graph, other);
  return counting.inShapes ?? counting.inData;
}

/** The first compile-time value or size of an import that follows the number of samples in a way that two batch sizes do not determine. */
export function countInShapes(one: ImportedGraph, other: ImportedGraph, sizes: Sizes): CountDependence | undefined {
  const counting = new Counting(sizes);
  counting.graph(one.graph, other.graph);
  for (const [i, { source, what, from }] of one.reads.entries()) {
    const twin = other.reads[i];
    const same = twin?.source.join() === source.join() && typeof twin.from === typeof from;
    if (!same || !(typeof from === 'number' ? from === twin.from : counting.determines(from))) return { op: { name: what, source }, reason: reasons.read(what) };
  }
  return counting.inShapes;
}

/** `data`: made of inputs; `spread`: as long as the batch, the same all along it; `unknown`: any function of the number of samples. Absent: the same for all batch sizes, not evaluated. */
type Known = Twins | 'data' | 'spread' | 'unknown';

class Counting {
  /** The first op on data that reads what is not the same for all numbers of samples. */
  inData: CountDependence | undefined;
  /** The first op whose result has a shape that two batch sizes do not determine. */
  inShapes: CountDependence | undefined;
  readonly #sizes: Sizes;
  readonly #known = new Map<Value, Known>();

  constructor(sizes: Sizes) {
    this.#sizes = sizes;
  }

  graph(graph: Graph, other: Graph): void {
    for (const v of graph.inputs) this.#known.set(v, 'data');
    this.#ops(graph.ops, other.ops);
  }

  /** Whether two batch sizes say what a value is at all others. */
  determines(v: Value): boolean {
    const known = this.#known.get(v);
    return known === undefined || (typeof known === 'object' && isKnown(known));
  }

  #fixed(v: Value): boolean {
    const known = this.#known.get(v);
    return known === undefined || (typeof known === 'object' && isFixed(known));
  }

  #ops(ops: readonly Op[], others: readonly Op[]): void {
    for (const [i, op] of ops.entries()) {
      const twin = others[i]?.name === op.name && others[i].results.length === op.results.length ? others[i] : undefined;
      if (isControl(op)) this.#control(op, twin);
      else this.#op(op, twin);
    }
  }

  #op(op: Op, twin: Op | undefined): void {
    if (op.operands.some((v) => this.#known.get(v) === 'data')) {
      // What is as long as the batch meets samples where samples are followed, and is compared there.
      if (op.operands.some((v) => !this.#fixed(v) && this.#known.get(v) !== 'data' && this.#known.get(v) !== 'spread')) this.inData ??= { op, reason: reasons.data };
      return op.results.forEach((r) => this.#known.set(r, 'data'));
    }
    if (!twin) return op.results.forEach((r) => this.#known.set(r, 'unknown'));
    const grows = (v: Value, w: Value | undefined): boolean => !w || !sameShape(v.type.shape, w.type.shape);
    const longer = op.operands.some((v, i) => grows(v, twin.operands[i])) || op.results.some((r, i) => grows(r, twin.results[i]));
    const made = longer ? op.results.map(() => this.#spread(op, twin)) : this.#computed(op, twin);
    op.results.forEach((r, i) => {
      const known = made[i];
      if (known !== undefined) this.#known.set(r, known);
    });
  }

  /** Results of an op whose shapes are the same at both sizes. */
  #computed(op: Op, twin: Op): readonly (Known | undefined)[] {
    if (op.name === 'constant') {
      const [a, b] = [tensorAttr(op.attrs, 'value'), tensorAttr(twin.attrs, 'value')];
      if (a.data.length <= maxElements) return [constantTwins(a, b, this.#sizes)];
      return [sameData(a, b) ? undefined : 'unknown'];
    }
    if (!sameAttrs(op, twin)) return op.results.map(() => 'unknown');
    const knowns = op.operands.map((v) => this.#known.get(v));
    const twins = knowns.filter((k): k is Twins => typeof k === 'object');
    const small = op.results.every((r) => sizeOf(r.type.shape) <= maxElements) && opDef(op.name).family !== 'random' && op.regions.length === 0;
    if (small && twins.length === op.operands.length && op.operands.length > 0) return combined(op, twin, twins, this.#sizes) ?? op.results.map(() => 'unknown');
    if (small && op.operands.length === 0) return combined(op, twin, [], this.#sizes) ?? op.results.map(() => 'unknown');
    return op.results.map(() => (op.operands.every((v) => this.#fixed(v)) ? undefined : 'unknown'));
  }

  /** A result of an op with operands or results as long as the batch. */
  #spread(op: Op, twin: Op): Known | undefined {
    if (['conv', 'window', 'resample'].includes(opDef(op.name).family) || !op.results.every((r, i) => followsBatch(r, twin.results[i]!, this.#sizes))) {
      this.inShapes ??= { op, reason: reasons.shape };
      return 'unknown';
    }
    if (op.name === 'constant') return uniform(tensorAttr(op.attrs, 'value')) && uniform(tensorAttr(twin.attrs, 'value')) && tensorAttr(op.attrs, 'value').data[0] === tensorAttr(twin.attrs, 'value').data[0] ? 'spread' : 'unknown';
    if (!op.operands.every((v) => this.#fixed(v) || this.#known.get(v) === 'spread') || !sameAttrs(op, twin)) return 'unknown';
    const { family } = opDef(op.name);
    const joined = family === 'reduce' || family === 'scan' || op.name === 'contract' ? joinedAxes(op) : undefined;
    if (joined) return joined.every(([i, axis]) => op.operands[i]!.type.shape[axis] === twin.operands[i]!.type.shape[axis]) ? 'spread' : 'unknown';
    return spreading.has(op.name) || family === 'map' || family === 'random' ? 'spread' : 'unknown';
  }

  /** Regions see what the operands are; what a loop carries may become data, or depend on the number of samples, after an iteration. */
  #control(op: Op, twin: Op | undefined): void {
    const loop = op.name === 'loop';
    const [course, carried, first] = [loop ? 2 : 1, loop ? num(op.attrs, 'carried') : 0, loop ? 1 : 0];
    const merged = (v: Value, known: Known | undefined): boolean => {
      const now = known === 'data' ? 'data' : this.#fixedKnown(known) ? undefined : known === 'spread' ? 'spread' : 'unknown';
      const before = this.#known.get(v);
      if (now === undefined || before === 'data' || before === now || (before === 'unknown' && now === 'spread')) return false;
      this.#known.set(v, now);
      return true;
    };
    for (const region of op.regions) {
      region.inputs.forEach((v, i) => {
        const operand = i < first ? undefined : op.operands[course + i - first];
        const known = operand && this.#known.get(operand);
        if (i >= first + carried && known !== undefined) this.#known.set(v, known);
        else merged(v, known);
      });
    }
    for (let again = true; again;) {
      again = false;
      for (const [k, region] of op.regions.entries()) {
        this.#ops(region.ops, twin?.regions[k]?.ops ?? []);
        region.outputs.forEach(({ value }, i) => {
          const next = i >= first && i < first + carried ? region.inputs[i] : undefined;
          if (next && merged(next, this.#known.get(value))) again = true;
          const result = op.results[i - first];
          if (result) merged(result, this.#known.get(value));
        });
      }
    }
    const turned = op.operands.slice(0, course).some((v) => !this.#fixed(v));
    if (!turned) return;
    if (op.results.some((r) => this.#known.get(r) === 'data') && !op.operands.slice(0, course).some((v) => this.#known.get(v) === 'data')) this.inData ??= { op, reason: reasons.data };
    op.results.forEach((r) => merged(r, 'unknown'));
  }

  #fixedKnown(known: Known | undefined): boolean {
    return known === undefined || (typeof known === 'object' && isFixed(known));
  }
}

/** The axes that a reduction, a scan or a contraction joins the elements of, each with its operand. */
function joinedAxes(op: Op): readonly (readonly [operand: number, axis: number])[] {
  if (op.name !== 'contract') return ('axes' in op.attrs ? nums(op.attrs, 'axes') : [num(op.attrs, 'axis')]).map((axis) => [0, axis]);
  const [letters = '', result = ''] = str(op.attrs, 'spec').split('->');
  return letters.split(',').flatMap((operand, i) => [...operand].flatMap((letter, axis) => (result.includes(letter) ? [] : [[i, axis] as const])));
}

/** Ops whose results are the same along the batch where their operands are. */
const spreading: ReadonlySet<string> = new Set(['reshape', 'transpose', 'broadcast', 'slice', 'concat', 'copy', 'gather', 'gatherElements', 'iota', 'pad']);

/** Whether ops have the same attributes, but for the shape that they give. */
function sameAttrs(op: Op, twin: Op): boolean {
  return Object.entries(op.attrs).every(([key, value]) => key === 'shape' || key === 'sizes' || JSON.stringify(value) === JSON.stringify(twin.attrs[key]));
}

/** Whether each axis of a result is a line in the number of samples. */
function followsBatch(r: Value, twin: Value, [n, m]: Sizes): boolean {
  return r.type.shape.length === twin.type.shape.length && r.type.shape.every((d, axis) => Number.isInteger((twin.type.shape[axis]! - d) / (m - n)));
}

const uniform = ({ data }: Tensor): boolean => data.every((x: number | bigint) => Object.is(x, data[0]));
const sameData = (a: Tensor, b: Tensor): boolean => a.data.every((x: number | bigint, i: number) => Object.is(x, b.data[i]));
