/** Chooses how convolutions, and products with constant weights, are computed. */
import type { Builder } from '../ir/builder.ts';
import { UserError } from '../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { num, nums, str } from '../ir/op.ts';
import { convGeometry, packedFloats, type ConvAlgorithm } from '../ir/ops/packing/geometry.ts';
import { opDef } from '../ir/ops/index.ts';
import { matmulShape, type MatmulShape } from '../ir/ops/packing/matmul.ts';
import { columnMultiple, summedMultiple } from '../ir/ops/packing/strassen.ts';
import { captures } from '../ir/regions.ts';
import { rewriteOps, type Facts } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, sizeOf, type Tensor } from '../ir/type.ts';
import { convTime, productTime, weightGradientTime } from './algorithm-cost.ts';
import { strassenError } from './strassen-error.ts';
import { sampleAxis } from './train/sample-factors.ts';
import { followSamples } from './train/samples.ts';
import { winogradError } from './winograd-error.ts';

/**
 * Rewrites every f32 `conv`, and every f32 `contract` with a weight made of constants, into its packed form over a packing op: constant folding computes that for constants, and each run does
 * for weights that a graph updates and for those that stay quantised. Convolutions become Winograd where that is faster and exact enough, judged for such weights by what they start from; where not all constants fit the target's
 * budget of packed bytes, those that save most time per byte do. Weight gradients in partial sums become Winograd where that is faster. Products with constants are computed by
 * Strassen's algorithm where that is faster by a twentieth and exact enough, for rows of one sample and in graphs that update nothing. Products of two computed values and other element types are left as they are, and so is all where the target packs nothing. Runs before fusion.
 */
export function selectAlgorithms(graph: Graph, target: Target): Graph {
  if (target.panel === 0) return graph;
  const winograd = chooseWinograd(graph, target);
  const strassen: Strassen | undefined = target.winograd && graph.updates.length === 0 ? { sums: new Map(), holdsSamples: sampleHolders(graph) } : undefined;
  return rewriteOps(graph, (op, b, facts) => {
    switch (op.name) {
      case 'conv': return packConvolution(op, b, facts, winograd);
      case 'contract': return packProduct(op, b, facts, strassen);
      case 'convWeight': return target.winograd ? weightGradient(op, b) : undefined;
      default: return undefined;
    }
  });
}

function packConvolution(op: Op, b: Builder, facts: Facts, winograd: ReadonlyMap<Value, ConvAlgorithm>): readonly Value[] | undefined {
  const [x, w] = op.operands as [Value, Value];
  const result = op.results[0]!;
  if (w.type.dtype !== 'f32' || sizeOf(result.type.shape) === 0) return undefined;
  const groups = num(op.attrs, 'groups');
  const algorithm = winograd.get(result) ?? plainAlgorithm(w, groups);
  const packed = b.one('packConv', [w], { algorithm, groups });
  return [b.one('convPacked', [x, packed], { ...op.attrs, algorithm, weightShape: w.type.shape })];
}

const plainAlgorithm = (w: Value, groups: number): ConvAlgorithm => (groups > 1 && w.type.shape[0] === groups && w.type.shape[1] === 1 && w.type.shape.length <= 4 ? 'depthwise' : 'direct');

/** A product is packed with its constant operand on the right; the operands change places where the constant is the left one. */
function packProduct(op: Op, b: Builder, facts: Facts, strassen: Strassen | undefined): readonly Value[] | undefined {
  const [left, right] = op.operands as [Value, Value];
  if (sizeOf(op.results[0]!.type.shape) === 0) return undefined;
  const spec = str(op.attrs, 'spec');
  const [, p, q, r] = /^(\w*),(\w*)->(\w*)$/.exec(spec) as unknown as [string, string, string, string];
  const choices = [{ spec, data: left, weight: right }, { spec: `${q},${p}->${r}`, data: right, weight: left }];
  for (const c of choices) {
    const shape = matmulShape(c.spec, c.weight.type.shape);
    if (!shape || shape.k === 0 || !isPackable(c.weight, facts)) continue;
    const packed = b.one('packMatmul', [c.weight], { spec: c.spec });
    const attrs = { spec: c.spec, bShape: c.weight.type.shape };
    const known = facts.constant(c.weight);
    if (!strassen || !known || !strassenPays(c.data, shape) || strassen.holdsSamples(c.data) || !(strassenError(known, c.spec) <= largestProductError)) return [b.one('contractPacked', [c.data, packed], attrs)];
    // Products that read the same rows share the sums of them.
    const sums = strassen.sums.get(c.data) ?? b.one('strassenSums', [c.data], { rowAxes: shape.rowAxes });
    strassen.sums.set(c.data, sums);
    return [b.one('contractPacked', [c.data, packed, sums], { ...attrs, algorithm: 'strassen' })];
  }
  return undefined;
}

interface Strassen {
  /** The sums of rows that there are, by the value that they were made of. */
  readonly sums: Map<Value, Value>;
  /** Whether a value of the graph has rows of several samples: the algorithm adds rows of one half to rows of the other, and an infinity of one sample would reach another. */
  holdsSamples(v: Value): boolean;
}

/** Which values hold several samples of a batch; all, where samples cannot be followed. */
function sampleHolders(graph: Graph): (v: Value) => boolean {
  if (graph.inputs.every((v) => v.type.shape[0] === 1)) return () => false;
  try {
    const { factors } = followSamples(graph);
    return (v) => sampleAxis(factors.get(v) ?? []) >= 0;
  } catch (e) {
    if (e instanceof UserError) return () => true;
    throw e;
  }
}

/** Largest error of a product by Strassen's algorithm, as a fraction of its results' standard deviation: ordinary weights stay below 1.1e-5. */
const largestProductError = 5e-5;

/** Time that Strassen's algorithm must save, as a part of the plain product's. */
const leastSaved = 0.05;

function strassenPays(rows: Value, { k, n, rowAxes }: MatmulShape): boolean {
  if (k % summedMultiple !== 0 || n % columnMultiple !== 0) return false;
  const sizes = { m: sizeOf(rows.type.shape.slice(0, rowAxes)), n, k };
  return productTime('strassen', sizes) < (1 - leastSaved) * productTime('direct', sizes);
}

const isPackable = (w: Value, facts: Facts): boolean => w.type.dtype === 'f32' && isOfConstants(w, facts);

/** Whether a value is a constant, or is made of constants alone by elementwise ops and moves: a quantised weight that each run widens. */
function isOfConstants(w: Value, facts: Facts): boolean {
  if (facts.constant(w) !== undefined) return true;
  const op = facts.definition(w);
  return op !== undefined && ['map', 'move'].includes(opDef(op.name).family) && op.operands.length > 0 && op.operands.every((v) => isOfConstants(v, facts));
}

interface Candidate { readonly result: Value; readonly algorithm: ConvAlgorithm; readonly saved: number; readonly bytes: number }

/** The convolutions to compute by Winograd, by their results. */
function chooseWinograd(graph: Graph, target: Target): ReadonlyMap<Value, ConvAlgorithm> {
  const chosen = new Map<Value, ConvAlgorithm>();
  if (!target.winograd) return chosen;
  const candidates: Candidate[] = [];
  const origin = origins(graph);
  rewriteOps(graph, (op, _, facts) => {
    if (op.name === 'conv') candidates.push(...winogradCandidates(op, facts, (w) => sampleOf(w, origin, graph)));
    return undefined;
  });
  const weights = [...graph.state.map((s) => s.value), ...graph.ops.filter((op) => op.name === 'constant').map((op) => op.results[0]!)];
  let left = (target.packBudget - 1) * weights.reduce((n, v) => n + bytesOf(v.type), 0);
  candidates.sort((p, q) => q.saved / Math.max(1, q.bytes) - p.saved / Math.max(1, p.bytes));
  // Greedy by time saved per byte; then a layer that got the small transform may change to the large one, if that saves more and fits.
  const taken = new Map<Value, Candidate>();
  for (const c of candidates) {
    const before = taken.get(c.result);
    const bytes = c.bytes - (before?.bytes ?? 0);
    if (bytes > left || c.saved <= (before?.saved ?? 0)) continue;
    taken.set(c.result, c);
    left -= bytes;
  }
  for (const c of taken.values()) chosen.set(c.result, c.algorithm);
  return chosen;
}

function winogradCandidates(op: Op, facts: Facts, sample: (w: Value) => Tensor | undefined): Candidate[] {
  const [x, w] = op.operands as [Value, Value];
  const result = op.results[0]!;
  const known = facts.constant(w);
  const weight = known ?? sample(w);
  const [out, channels, ...kernel] = w.type.shape;
  const fits = weight && w.type.dtype === 'f32' && num(op.attrs, 'groups') === 1 && kernel.length === 2 && kernel.every((d) => d === 3) && channels! % 4 === 0 && out! % 4 === 0
    && [...nums(op.attrs, 'strides'), ...nums(op.attrs, 'dilations')].every((d) => d === 1) && sizeOf(result.type.shape) > 0;
  if (!fits) return [];
  const sizes = { x: x.type.shape, y: result.type.shape, w: w.type.shape };
  const direct = convTime('direct', sizes);
  return (['winograd2', 'winograd4'] as const).flatMap((algorithm): Candidate[] => {
    const saved = direct - convTime(algorithm, sizes);
    if (saved <= 0.1 * direct || !exactEnough(weight, algorithm)) return [];
    return [{ result, algorithm, saved, bytes: known ? 4 * packedFloats(convGeometry(algorithm, w.type.shape, 1)) - bytesOf(w.type) : 0 }];
  });
}

/** The fastest algorithm for a weight gradient in partial sums. */
function weightGradient(op: Op, b: Builder): readonly Value[] | undefined {
  const [x, dy] = op.operands as [Value, Value];
  const ones = [...nums(op.attrs, 'strides'), ...nums(op.attrs, 'dilations'), num(op.attrs, 'groups')].every((d) => d === 1);
  const kernel = nums(op.attrs, 'kernel');
  const fits = x.type.dtype === 'f32' && num(op.attrs, 'parts') > 0 && ones && kernel.length === 2 && kernel.every((d) => d === 3) && x.type.shape[1]! % 4 === 0 && dy.type.shape[1]! % 4 === 0;
  if (!fits || str(op.attrs, 'algorithm') !== 'direct') return undefined;
  const time = (algorithm: 'direct' | 'winograd2' | 'winograd4'): number => weightGradientTime(algorithm, { x: x.type.shape, dy: dy.type.shape, parts: num(op.attrs, 'parts') });
  const algorithm = (['direct', 'winograd2', 'winograd4'] as const).reduce((best, a) => (time(a) < time(best) ? a : best));
  return algorithm === 'direct' ? undefined : [b.one('convWeight', [x, dy], { ...op.attrs, algorithm })];
}

/** What a weight that the graph updates starts from, the order of its channels and taps aside, to judge errors by; also where a loop captures it. Undefined for other values. */
function sampleOf(w: Value, origin: ReadonlyMap<Value, Value>, graph: Graph): Tensor | undefined {
  let v = w;
  for (let next = origin.get(v); next; next = origin.get(v)) v = next;
  const init = graph.state.find((s) => s.value === v)?.init;
  if (!init || init === 'zero' || sizeOf(init.shape) !== sizeOf(w.type.shape)) return undefined;
  return { dtype: init.dtype, shape: w.type.shape, data: init.data };
}

/** The value that a moved or captured value has its elements from, in a graph and its regions. */
function origins(graph: Graph, into = new Map<Value, Value>()): ReadonlyMap<Value, Value> {
  for (const op of graph.ops) {
    if (['reshape', 'transpose', 'slice'].includes(op.name)) into.set(op.results[0]!, op.operands[0]!);
    if (!['if', 'loop'].includes(op.name)) continue;
    for (const region of op.regions) {
      for (const { outer, inner } of captures(op, region)) into.set(inner, outer);
      origins(region, into);
    }
  }
  return into;
}

/** Largest error of a Winograd layer, as a fraction of its results' standard deviation: what F(4x4) reaches on ordinary weights is 2e-5 to 7e-5. */
const largestError = 2e-4;
const exactEnough = (w: Tensor, algorithm: 'winograd2' | 'winograd4'): boolean => winogradError(w, algorithm === 'winograd2' ? 2 : 4) <= largestError;
