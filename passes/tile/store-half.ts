import { Builder } from '../../ir/builder.ts';
import { invariant } from '../../ir/diagnostic.ts';
import type { Attrs, Graph, Op, State, Value } from '../../ir/graph.ts';
import { encodeHalves } from '../../ir/number.ts';
import { opDef } from '../../ir/ops/index.ts';
import { rewriteOps } from '../../ir/rewrite.ts';
import { sizeOf, type Tensor } from '../../ir/type.ts';

/** Reductions that sum what may be many elements, in f32 before they are rounded. */
const wide: ReadonlySet<string> = new Set(['reduceSum', 'moments', 'reduceProd']);

/**
 * Stores f32 tensors as f16. Contractions add up in f32 and round once (docs/ir.md); sums and moments give f32 results, which become f16 where they meet a larger f16 tensor. Inputs of one
 * element (the learning rate) stay f32. With `masters` inputs and state stay f32 and are cast where they are read, those of rank below 2 where they meet a larger tensor; outputs stay f32 too. Regions of control flow keep f32 inside: what goes in and out is cast.
 */
export function storeHalf(graph: Graph, { masters = false }: { readonly masters?: boolean } = {}): Graph {
  const b = new Builder(graph.name);
  const map = new Map<Value, Value>();
  const at = (v: Value): Value => map.get(v) ?? v;
  const narrowed = (v: Value): Value => (!masters && v.type.dtype === 'f32' && sizeOf(v.type.shape) > 1 ? { type: { dtype: 'f16', shape: v.type.shape }, name: v.name } : v);
  const inputs = graph.inputs.map(narrowed);
  graph.inputs.forEach((v, i) => map.set(v, inputs[i]!));
  const state = graph.state.map((s): State => {
    const value = narrowed(s.value);
    map.set(s.value, value);
    return value === s.value ? s : { ...s, value, init: s.init === 'zero' ? 'zero' : rounded(s.init) };
  });
  b.adopt({ inputs, state });
  if (masters) for (const v of [...inputs, ...state.map((s) => s.value)]) if (v.type.dtype === 'f32' && v.type.shape.length > 1) map.set(v, b.cast(v, 'f16'));
  for (const op of graph.ops) {
    b.source = op.source;
    const made = halved(b, op, op.operands.map(at));
    op.results.forEach((r, i) => map.set(r, made[i]!));
  }
  const done = b.finish(graph.outputs.map((o) => ({ name: o.name, value: masters ? as(b, at(o.value), o.value) : at(o.value) })));
  const tail = new Builder('');
  const updates = graph.updates.map((u) => {
    if (masters && u.state === u.value) return u;
    const [to, value] = [masters ? u.state : at(u.state), at(u.value)];
    return { state: to, value: to.type.dtype === value.type.dtype ? value : tail.cast(value, to.type.dtype) };
  });
  return { ...done, ops: [...done.ops, ...tail.ops], updates };
}

/** Puts a cast before a reduction behind the reshape that stands between them: it fuses with the reduction, and nothing wide is stored. */
export function castsIntoReductions(graph: Graph): Graph {
  return rewriteOps(graph, (op, b, facts) => {
    const shaped = wide.has(op.name) ? facts.definition(op.operands[0]!) : undefined;
    const cast = shaped?.name === 'reshape' ? facts.definition(shaped.operands[0]!) : undefined;
    if (cast?.name !== 'cast' || cast.operands[0]!.type.dtype !== 'f16') return undefined;
    return b.op(op.name, [b.cast(b.reshape(cast.operands[0]!, op.operands[0]!.type.shape), 'f32')], op.attrs);
  });
}

function halved(b: Builder, op: Op, operands: readonly Value[]): readonly Value[] {
  const names = op.results.map((r) => r.name);
  const unchanged = operands.every((v, i) => v === op.operands[i]);
  if (op.name === 'constant') {
    const t = op.attrs['value'] as Tensor;
    if (t.dtype !== 'f32' || t.data.length <= 1) return append(b, op);
    return b.op('constant', [], { value: rounded(t) }, [], names);
  }
  if (op.regions.length > 0) {
    if (unchanged) return append(b, op);
    const wideOperands = operands.map((v, i) => as(b, v, op.operands[i]!));
    const results = op.results.map((r): Value => ({ type: r.type, name: r.name }));
    b.append({ ...op, operands: wideOperands, results });
    return results.map((r) => (r.type.dtype === 'f32' && sizeOf(r.type.shape) > 1 ? b.cast(r, 'f16') : r));
  }
  const attrs = retyped(op);
  if (unchanged && attrs === op.attrs) return append(b, op);
  if (wide.has(op.name) && operands[0]!.type.dtype === 'f16') return b.op(op.name, [b.cast(operands[0]!, 'f32')], attrs, [], names);
  return b.op(op.name, agreed(b, op, operands), attrs, [], names);
}

/** Operands of f16 and f32 become what the largest of them is. */
function agreed(b: Builder, op: Op, operands: readonly Value[]): Value[] {
  const floats = operands.filter((_, i) => op.operands[i]!.type.dtype === 'f32');
  const kinds = new Set(floats.map((v) => v.type.dtype));
  if (kinds.size < 2) return [...operands];
  const largest = floats.reduce((x, y) => (sizeOf(y.type.shape) > sizeOf(x.type.shape) || (sizeOf(y.type.shape) === sizeOf(x.type.shape) && y.type.dtype === 'f32') ? y : x));
  return operands.map((v, i) => (op.operands[i]!.type.dtype === 'f32' && v.type.dtype !== largest.type.dtype ? b.cast(v, largest.type.dtype) : v));
}

const as = (b: Builder, v: Value, like: Value): Value => (v.type.dtype === like.type.dtype ? v : b.cast(v, like.type.dtype));

function append(b: Builder, op: Op): readonly Value[] {
  b.append(op);
  return op.results;
}

/** Attributes that name f32 name f16, where the result is more than a number. */
function retyped(op: Op): Attrs {
  if (sizeOf(op.results[0]?.type.shape ?? []) <= 1) return op.attrs;
  const key = op.name === 'cast' ? 'to' : 'dtype' in opDef(op.name).attrs ? 'dtype' : undefined;
  return key !== undefined && op.attrs[key] === 'f32' ? { ...op.attrs, [key]: 'f16' } : op.attrs;
}

function rounded(t: Tensor): Tensor {
  if (t.dtype !== 'f32') return t;
  invariant(t.data instanceof Float32Array, 'f32 is held as such');
  return { dtype: 'f16', shape: t.shape, data: encodeHalves(t.data) };
}
