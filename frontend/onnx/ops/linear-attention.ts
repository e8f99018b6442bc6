/** Linear attention: a recurrence over time whose state is one matrix a head. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { showType, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { row } from './helpers.ts';
import { repeat, stepOf } from './loops.ts';

const rules = ['linear', 'gated', 'delta', 'gated_delta'];

/** What one step reads: keys [N, G, K], values [N, G, V], queries [N, H, K], decay [N, G, K or 1], rate [N, G or 1, 1]; undefined where the rule has none. */
interface StepInputs { readonly q: Value; readonly k: Value; readonly v: Value; readonly decay: Value | undefined; readonly rate: Value | undefined }

/** S' = e^g·S + β·k ⊗ (v - (e^g·S)ᵀk), with the decay, the rate and the correction as the rule has them; then the output qᵀS'. */
function step(b: Builder, state: Value, x: StepInputs): { state: Value; output: Value } {
  const [n, g, kd] = x.k.type.shape as [number, number, number];
  const vd = x.v.type.shape[2]!;
  const lift = (v: Value): Value => b.reshape(v, [...v.type.shape, 1]);
  const old = x.decay ? b.mul(state, lift(b.unary('exp', x.decay))) : state;
  const target = x.rate ? b.mul(b.sub(x.v, b.contract('ngkv,ngk->ngv', old, x.k)), x.rate) : x.v;
  const next = b.add(old, b.mul(lift(x.k), b.reshape(target, [n, g, 1, vd])));
  const heads = x.q.type.shape[1]!;
  const output = b.contract('nghk,ngkv->nghv', b.reshape(x.q, [n, g, heads / g, kd]), next);
  return { state: next, output: b.reshape(output, [n, heads, vd]) };
}

function linearAttention(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const { attrs } = node;
  const rule = attrs.string('update_rule', 'gated_delta');
  if (!rules.includes(rule)) cx.bad(`update_rule is "${rule}": expected ${rules.join(', ')}`);
  const [heads, groups] = [attrs.int('q_num_heads'), attrs.int('kv_num_heads')];
  const query = cx.input(0);
  const [n, steps] = query.type.shape as [number, number];
  if (groups < 1 || heads % groups !== 0) cx.bad(`${heads} query heads are not a multiple of ${groups} key heads`);
  const past = cx.optionalInput(3);
  const stateType = past?.type.dtype ?? query.type.dtype;
  // The state adds up over many steps: narrow floats are too coarse for it.
  const wide: DType = stateType === 'f64' ? 'f64' : 'f32';
  const perHead = (v: Value, count: number): Value => {
    const width = v.type.shape[2]!;
    if (v.type.shape.length !== 3 || width % count !== 0) cx.bad(`an input of ${showType(v.type)} does not split into ${count} heads`);
    return b.cast(b.transpose(b.reshape(v, [n, steps, count, width / count]), [1, 0, 2, 3]), wide);
  };
  const q = perHead(query, heads);
  const size = q.type.shape[3]!;
  const scale = attrs.float('scale', 0) || 1 / Math.sqrt(size);
  const gated = rule === 'gated' || rule === 'gated_delta';
  const delta = rule === 'delta' || rule === 'gated_delta';
  const needed = (i: number, name: string): Value => cx.optionalInput(i) ?? cx.bad(`update_rule "${rule}" needs the input ${name}`);
  const decay = gated ? perHead(needed(4, 'decay'), groups) : undefined;
  const beta = delta ? needed(5, 'beta') : undefined;
  const rate = beta && perHead(beta, beta.type.shape[2] === 1 ? 1 : groups);
  const [k, v] = [perHead(cx.input(1), groups), perHead(cx.input(2), groups)];
  const initial = past ? b.cast(past, wide) : b.zeros({ dtype: wide, shape: [n, groups, size, v.type.shape[3]!] });
  const captured = [b.mul(q, scale), k, v, decay, rate];
  const present = captured.filter((x) => x !== undefined);
  const [last, outputs] = repeat(b, steps, [initial], present, (inner, i, [state], outside) => {
    let at = 0;
    const [qt, kt, vt, dt, rt] = captured.map((x) => (x === undefined ? undefined : stepOf(inner, outside[at++]!, i)));
    const next = step(inner, state!, { q: qt!, k: kt!, v: vt!, decay: dt, rate: rt });
    return { carried: [next.state], collected: [next.output] };
  }) as [Value, Value];
  const width = heads * v.type.shape[3]!;
  return [b.cast(b.reshape(b.transpose(outputs, [1, 0, 2, 3]), [n, steps, width]), query.type.dtype), b.cast(last, stateType)];
}

export const linearAttentionOps: LoweringTable = {
  LinearAttention: [row(27, [3, 6], linearAttention, [1, 2])],
};
