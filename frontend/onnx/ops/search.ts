/** Ops that search, sort or select: TopK, n-gram counts, and those whose result's size depends on data, which are computed where the data is known. */
import type { Value } from '../../../ir/graph.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { axisOf, constantOf, range, refusal, row } from './helpers.ts';

function topK(cx: LowerContext, k: number): Value[] {
  const { attrs } = cx.node;
  const x = cx.input(0);
  const axis = axisOf(cx, attrs.int('axis', -1), x.type.shape.length);
  if (k < 0 || k > x.type.shape[axis]!) cx.bad(`k is ${k} and axis ${axis} has ${x.type.shape[axis]} elements`);
  return cx.b.op('topK', [x], { axis, k, largest: attrs.int('largest', 1) !== 0, sorted: attrs.int('sorted', 1) !== 0 });
}

/** A box as its lower and upper corner. */
interface Box { readonly y1: number; readonly x1: number; readonly y2: number; readonly x2: number }

function overlap(a: Box, c: Box): number {
  const area = (r: Box): number => (r.y2 - r.y1) * (r.x2 - r.x1);
  const both = Math.max(0, Math.min(a.y2, c.y2) - Math.max(a.y1, c.y1)) * Math.max(0, Math.min(a.x2, c.x2) - Math.max(a.x1, c.x1));
  return both <= 0 ? 0 : both / (area(a) + area(c) - both);
}

/** Greedy suppression for each batch and class, from the best score down. */
function nonMaxSuppression(cx: LowerContext): Value {
  const { node } = cx;
  const scores = cx.input(1);
  const [batches, classes, count] = scores.type.shape as [number, number, number];
  const one = (i: number, what: string): number | undefined => {
    const v = cx.optionalInput(i);
    return v && cx.numbers(v, what)[0];
  };
  const most = one(2, 'max_output_boxes_per_class') ?? 0;
  const limit = one(3, 'iou_threshold') ?? 0;
  const least = one(4, 'score_threshold') ?? -Infinity;
  const numbers = cx.numbers(cx.input(0), 'boxes');
  const values = cx.numbers(scores, 'scores');
  const centred = node.attrs.int('center_point_box', 0) !== 0;
  const boxes = range(batches * count).map((i): Box => {
    const [p, q, r, s] = numbers.slice(4 * i, 4 * i + 4) as [number, number, number, number];
    if (centred) return { x1: p - r / 2, x2: p + r / 2, y1: q - s / 2, y2: q + s / 2 };
    return { y1: Math.min(p, r), x1: Math.min(q, s), y2: Math.max(p, r), x2: Math.max(q, s) };
  });
  const selected: number[] = [];
  for (const batch of range(batches)) {
    for (const label of range(classes)) {
      const score = (i: number): number => values[(batch * classes + label) * count + i]!;
      const kept: number[] = [];
      for (const i of range(count).filter((j) => score(j) > least).sort((p, q) => score(q) - score(p) || p - q)) {
        if (kept.length >= most) break;
        if (kept.every((j) => overlap(boxes[batch * count + i]!, boxes[batch * count + j]!) <= limit)) kept.push(i);
      }
      selected.push(...kept.flatMap((i) => [batch, label, i]));
    }
  }
  return constantOf(cx.b, 'i64', [selected.length / 3, 3], selected);
}

/** Slices that differ, in order of value or of first occurrence. The slices themselves are gathered from the input. */
function unique(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const given = cx.input(0);
  if (!cx.isConstant(given)) cx.unsupported('Unique of a run-time tensor', "the result's size depends on the data");
  const { dtype } = given.type;
  if (dtype === 'i64' || dtype === 'u64') cx.unsupported(`Unique of ${dtype}`, 'values beyond 2^53 could not be told apart');
  const axisGiven = node.attrs.int('axis', undefined);
  const x = axisGiven === undefined ? b.reshape(given, [given.type.shape.reduce((p, d) => p * d, 1)]) : given;
  const axis = axisOf(cx, axisGiven ?? 0, x.type.shape.length);
  const values = cx.numbers(x, 'X');
  const size = x.type.shape[axis]!;
  const inner = x.type.shape.slice(axis + 1).reduce((p, d) => p * d, 1);
  const outer = x.type.shape.slice(0, axis).reduce((p, d) => p * d, 1);
  const slices = range(size).map((i) => range(outer).flatMap((o) => values.slice((o * size + i) * inner, (o * size + i + 1) * inner)));
  const compare = (p: number, q: number): number => {
    const at = slices[p]!.findIndex((v, i) => v !== slices[q]![i]);
    return at < 0 ? 0 : slices[p]![at]! - slices[q]![at]!;
  };
  const firsts = range(size).filter((i) => !range(i).some((j) => compare(i, j) === 0));
  const order = node.attrs.int('sorted', 1) !== 0 ? [...firsts].sort(compare) : firsts;
  const inverse = range(size).map((i) => order.findIndex((j) => compare(i, j) === 0));
  const vector = (list: readonly number[]): Value => constantOf(b, 'i64', [list.length], list);
  return [b.one('gather', [x, vector(order)], { axis }), vector(order), vector(inverse), vector(order.map((_, k) => inverse.filter((i) => i === k).length))];
}

/** Counts of each pooled n-gram in each row: windows are compared with all grams of a length at once. */
function tfIdf(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  if (attrs.has('pool_strings')) cx.unsupported('TfIdfVectorizer of strings', 'only pool_int64s is implemented');
  const given = cx.input(0);
  const rows = given.type.shape.length === 1 ? 1 : given.type.shape[0]!;
  const length = given.type.shape.at(-1)!;
  const x = b.reshape(b.cast(given, 'i64'), [rows, length]);
  const [least, most, skips] = [attrs.int('min_gram_length'), attrs.int('max_gram_length'), attrs.int('max_skip_count')];
  const mode = attrs.string('mode');
  if (!['TF', 'IDF', 'TFIDF'].includes(mode)) cx.bad(`mode is "${mode}": expected TF, IDF or TFIDF`);
  const [starts, places, pool] = [attrs.ints('ngram_counts'), attrs.ints('ngram_indexes'), attrs.ints('pool_int64s')];
  const width = Math.max(...places) + 1;
  let before = 0;
  let counts = b.zeros({ dtype: 'f32', shape: [rows, width] });
  for (let n = 1; n <= starts.length; n++) {
    const grams = pool.slice(starts[n - 1], starts[n] ?? pool.length);
    const number = grams.length / n;
    const columns = places.slice(before, before + number);
    before += number;
    if (number === 0 || n < least || n > most) continue;
    // A gram of one item is the same for every skip and is counted once.
    for (const gap of n === 1 ? [1] : range(skips + 1).map((s) => s + 1)) {
      const windows = length - (n - 1) * gap;
      if (windows < 1) continue;
      const matches = range(n).map((j) => {
        const items = b.reshape(b.slice(x, [0, j * gap], [rows, windows]), [rows, windows, 1]);
        return b.binary('eq', items, constantOf(b, 'i64', [number], range(number).map((g) => grams[g * n + j]!)));
      }).reduce((p, q) => b.binary('and', p, q));
      const found = b.reduce('reduceSum', b.cast(matches, 'f32'), [1]);
      const spread = range(number * width).map((i) => (columns[Math.floor(i / width)] === i % width ? 1 : 0));
      counts = b.add(counts, b.contract('ng,gw->nw', found, constantOf(b, 'f32', [number, width], spread)));
    }
  }
  const weights = attrs.floats('weights', places.map(() => 1));
  const scale = constantOf(b, 'f32', [width], range(width).map((w) => weights[places.indexOf(w)] ?? 0));
  const y = mode === 'TF' ? counts : b.mul(mode === 'IDF' ? b.min(counts, 1) : counts, scale);
  return given.type.shape.length === 1 ? b.reshape(y, [width]) : y;
}

const strings = 'strings exist at compile time alone, and the result would be a tensor of strings';

export const searchOps: LoweringTable = {
  TopK: [
    row(1, 1, (cx) => topK(cx, cx.node.attrs.int('k')), 2),
    row(10, 2, (cx) => topK(cx, cx.ints(cx.input(1), 'K')[0] ?? cx.bad('K is empty')), 2),
  ],
  NonMaxSuppression: [row(10, [2, 5], nonMaxSuppression)],
  Unique: [row(11, 1, unique, [1, 4])],
  TfIdfVectorizer: [row(9, 1, tfIdf)],
  StringNormalizer: [refusal(10, strings)],
  StringConcat: [refusal(20, strings)],
  StringSplit: [refusal(20, strings)],
  RegexFullMatch: [refusal(20, 'it reads a tensor of strings, which exist at compile time alone')],
  ImageDecoder: [refusal(20, 'images are decoded before they reach the model: give it the pixels')],
};
