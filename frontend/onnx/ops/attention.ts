/** Attention in all its forms, flex attention, rotary embeddings. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { showType, type DType } from '../../../ir/type.ts';
import { isTensorValue, type LowerContext, type LoweringTable } from '../lowering.ts';
import { indexAlong, row, softmax } from './helpers.ts';

/** [N, T, H·D] as [N, H, T, D]; a tensor of rank 4 as it is. */
function heads(cx: LowerContext, x: Value, attribute: string): Value {
  const { shape } = x.type;
  if (shape.length === 4) return x;
  const [n, t, width] = shape;
  const h = cx.node.attrs.int(attribute);
  if (shape.length !== 3 || n === undefined || t === undefined || width === undefined || width % h !== 0) cx.bad(`an input of ${showType(x.type)} does not split into ${h} heads: expected [N, H, T, D] or [N, T, H*D]`);
  return cx.b.transpose(cx.b.reshape(x, [n, t, h, width / h]), [0, 2, 1, 3]);
}

/**
 * Scores of q [N, H, T, D] against k [N, G, S, D]: [N, H, T, S]. Query head h reads key head floor(h / (H / G)), which is a contraction over a
 * split head axis, so shared keys are never repeated.
 */
function scores(cx: LowerContext, q: Value, k: Value): Value {
  const { b } = cx;
  const [n, h, t, d] = q.type.shape as [number, number, number, number];
  const groups = k.type.shape[1]!;
  if (h === groups) return b.contract('nhtd,nhsd->nhts', q, k);
  if (groups === 0 || h % groups !== 0) cx.bad(`${h} query heads are not a multiple of ${groups} key heads`);
  const split = b.contract('nhgtd,nhsd->nhgts', b.reshape(q, [n, groups, h / groups, t, d]), k);
  return b.reshape(split, [n, h, t, k.type.shape[2]!]);
}

/** Probabilities [N, H, T, S] times values [N, G, S, E]: [N, H, T, E]. */
function weighted(b: Builder, p: Value, v: Value): Value {
  const [n, h, t, s] = p.type.shape as [number, number, number, number];
  const groups = v.type.shape[1]!;
  if (h === groups) return b.contract('nhts,nhse->nhte', p, v);
  const split = b.contract('nhgts,nhse->nhgte', b.reshape(p, [n, groups, h / groups, t, s]), v);
  return b.reshape(split, [n, h, t, v.type.shape[3]!]);
}

/** A mask laid out as [N, H, T, S]: missing axes on the left, a short last axis filled up with `fill`. */
function fullMask(cx: LowerContext, mask: Value, total: number, fill: number): Value {
  const { b } = cx;
  const { shape } = mask.type;
  const last = shape.at(-1);
  if (last === undefined || shape.length > 4 || last > total) cx.bad(`attn_mask ${showType(mask.type)} does not fit ${total} keys`);
  const whole = last === total || last === 1 ? mask : b.one('pad', [mask], { lo: shape.map(() => 0), hi: shape.map((_, i) => (i === shape.length - 1 ? total - last : 0)), mode: 'constant', value: fill });
  return b.reshape(whole, [...new Array<number>(4 - shape.length).fill(1), ...whole.type.shape]);
}

/** Which keys each query may attend by position: causality, windows, and the number of keys that are no padding. Undefined: all. */
function allowedByPosition(cx: LowerContext, queries: number, keys: number, past: number, nonpad: Value | undefined): Value | undefined {
  const { b, node } = cx;
  const causal = node.attrs.int('is_causal', 0) !== 0;
  const [left, right] = [node.attrs.int('left_window_size', -1), node.attrs.int('right_window_size', -1)];
  const shape = [1, 1, queries, keys];
  const j = indexAlong(b, shape, 3);
  const lengths = nonpad && b.reshape(b.cast(nonpad, 'i64'), [nonpad.type.shape[0]!, 1, 1, 1]);
  const rules: Value[] = lengths ? [b.binary('lt', j, lengths)] : [];
  if (causal || left >= 0 || right >= 0) {
    const i = indexAlong(b, shape, 2);
    const position = lengths ? b.add(i, b.sub(lengths, queries)) : b.add(i, past);
    if (causal) rules.push(b.binary('le', j, position));
    if (left >= 0) rules.push(b.binary('ge', j, b.sub(position, left)));
    if (right >= 0) rules.push(b.binary('le', j, b.add(position, right)));
  }
  return rules.length === 0 ? undefined : rules.reduce((x, y) => b.binary('and', x, y));
}

function attention(cx: LowerContext): (Value | undefined)[] {
  const { b, node } = cx;
  const { attrs } = node;
  const flat = cx.input(0).type.shape.length === 3;
  const q = heads(cx, cx.input(0), 'q_num_heads');
  const [pastKey, pastValue, nonpad] = [cx.optionalInput(4), cx.optionalInput(5), cx.optionalInput(6)];
  if ((pastKey === undefined) !== (pastValue === undefined)) cx.bad('past_key and past_value have to be given together');
  if (pastKey && nonpad) cx.bad('nonpad_kv_seqlen and past_key exclude each other');
  const newKeys = heads(cx, cx.input(1), 'kv_num_heads');
  const newValues = heads(cx, cx.input(2), 'kv_num_heads');
  const k = pastKey ? b.concat([pastKey, newKeys], 2) : newKeys;
  const v = pastValue ? b.concat([pastValue, newValues], 2) : newValues;
  const [n, h, queries, size] = q.type.shape as [number, number, number, number];
  const keys = k.type.shape[2]!;
  const given = attrs.float('scale', undefined) ?? 1 / Math.sqrt(size);

  const raw = scores(cx, b.mul(q, given), k);
  const cap = attrs.float('softcap', 0);
  const capped = cap === 0 ? raw : b.mul(b.unary('tanh', b.div(raw, cap)), cap);

  const mask = cx.optionalInput(3);
  const byPosition = allowedByPosition(cx, queries, keys, pastKey?.type.shape[2] ?? 0, nonpad);
  const byMask = mask?.type.dtype === 'bool' ? fullMask(cx, mask, keys, 0) : undefined;
  const bias = mask && !byMask ? fullMask(cx, b.cast(mask, raw.type.dtype), keys, -Infinity) : undefined;
  const allowed = byPosition && byMask ? b.binary('and', byPosition, byMask) : (byPosition ?? byMask);
  const biased = bias ? b.add(capped, bias) : capped;
  const masked = allowed ? b.select(allowed, biased, -Infinity) : biased;

  const type = raw.type.dtype;
  const precision: DType = attrs.dtype('softmax_precision', type);
  const p = b.cast(guardedSoftmax(b, b.cast(masked, precision), mask !== undefined || allowed !== undefined), type);
  const y = weighted(b, p, v);
  const mode = attrs.int('qk_matmul_output_mode', 0);
  const inner = [raw, capped, masked, p][mode] ?? cx.bad(`qk_matmul_output_mode is ${mode}: expected 0 to 3`);
  return [flat ? b.reshape(b.transpose(y, [0, 2, 1, 3]), [n, queries, h * v.type.shape[3]!]) : y, k, v, inner];
}

/** Softmax over the last axis; with masks, a row of nothing but -inf gives zeros. */
function guardedSoftmax(b: Builder, x: Value, masked: boolean): Value {
  const p = softmax(b, x, [3]);
  if (!masked) return p;
  const top = b.peak(x, [3]);
  return b.select(b.one('isInf', [top], { positive: false, negative: true }), 0, p);
}

/** Attention whose scores and probabilities pass through subgraphs of the node. */
function flexAttention(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const [q, k, v] = [cx.input(0), cx.input(1), cx.input(2)];
  for (const x of [q, k, v]) if (x.type.shape.length !== 4) cx.bad(`an input is ${showType(x.type)}: expected rank 4`);
  const precision = attrs.dtype('softmax_precision', q.type.dtype === 'f64' ? 'f64' : 'f32');
  const modified = (name: string, x: Value): Value => {
    const graph = attrs.graph(name, undefined);
    const y = graph ? cx.inline(graph, [x])[0] : x;
    return y && isTensorValue(y) ? y : cx.bad(`the subgraph ${name} gives no tensor`);
  };
  const raw = scores(cx, b.mul(q, attrs.float('scale', 1 / Math.sqrt(q.type.shape[3]!))), k);
  const changed = modified('score_mod', b.cast(raw, precision));
  const p = modified('prob_mod', softmax(b, changed, [3]));
  return weighted(b, b.cast(p, q.type.dtype), v);
}

/** Rotates pairs of each head's first elements by the angles of their positions. */
function rotaryEmbedding(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const given = cx.input(0);
  const positions = cx.optionalInput(3);
  // [N, T, H, D], as the caches have N and T.
  const headed = given.type.shape.length === 4 ? b.transpose(given, [0, 2, 1, 3]) : b.transpose(heads(cx, given, 'num_heads'), [0, 2, 1, 3]);
  const [n, t, h, d] = headed.type.shape as [number, number, number, number];
  const width = attrs.int('rotary_embedding_dim', 0) || d;
  const half = width / 2;
  const cache = (i: number): Value => {
    const table = cx.input(i);
    const rows = positions ? b.one('gather', [table, positions], { axis: 0 }) : table;
    if (rows.type.shape.at(-1) !== half) cx.bad(`a cache of ${showType(table.type)} does not fit ${width} rotated elements`);
    return b.reshape(rows, [rows.type.shape[0]!, rows.type.shape[1]!, 1, half]);
  };
  const [cos, sin] = [cache(1), cache(2)];
  const part = (x: Value, from: number, size: number, step = 1): Value => b.slice(x, [0, 0, 0, from], [n, t, h, size], [1, 1, 1, step]);
  const interleaved = attrs.int('interleaved', 0) !== 0;
  const x1 = interleaved ? part(headed, 0, half, 2) : part(headed, 0, half);
  const x2 = interleaved ? part(headed, 1, half, 2) : part(headed, half, half);
  const real = b.sub(b.mul(cos, x1), b.mul(sin, x2));
  const imaginary = b.add(b.mul(sin, x1), b.mul(cos, x2));
  const pair = (x: Value): Value => b.reshape(x, [n, t, h, half, 1]);
  const turned = interleaved ? b.reshape(b.concat([pair(real), pair(imaginary)], 4), [n, t, h, width]) : b.concat([real, imaginary], 3);
  const whole = width === d ? turned : b.concat([turned, part(headed, width, d - width)], 3);
  return given.type.shape.length === 4 ? b.transpose(whole, [0, 2, 1, 3]) : b.reshape(whole, given.type.shape);
}

export const attentionOps: LoweringTable = {
  Attention: [row(23, [3, 7], attention, [1, 4])],
  RotaryEmbedding: [row(23, [3, 4], rotaryEmbedding)],
  'ai.onnx.preview:FlexAttention': [row(1, 3, flexAttention)],
};
