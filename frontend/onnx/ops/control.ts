/** If, Loop and Scan: as regions where types stand still, taken or unrolled at compile time where they do not. */
import { Builder } from '../../../ir/builder.ts';
import { Unsupported, UserError } from '../../../ir/diagnostic.ts';
import { constantOf as knownTensor, definitions, type Graph, type Value } from '../../../ir/graph.ts';
import { sameType, showType, type TensorType } from '../../../ir/type.ts';
import { isTensorValue, NeedsValue, type Bound, type LowerContext, type LoweringTable, type Subgraph } from '../lowering.ts';
import { axisOf, range, row } from './helpers.ts';

/** Most iterations that are unrolled. */
const maxUnrolled = 4096;

const scalarOf = (cx: LowerContext, v: Value): Value => cx.b.reshape(v, []);

function conditional(cx: LowerContext): readonly (Bound | undefined)[] {
  const { attrs } = cx.node;
  const [then, otherwise] = [attrs.graph('then_branch'), attrs.graph('else_branch')];
  const cond = cx.input(0);
  const take = (why: string): readonly Bound[] => cx.inline(cx.numbers(cond, `cond${why}`)[0] !== 0 ? then : otherwise, []);
  if (cx.isConstant(cond)) return take('');
  const both = branches(cx, then, otherwise);
  // Where only one of the branches can be compiled, its choice has to be known.
  return typeof both === 'string' ? take(` (${both})`) : cx.b.op('if', [scalarOf(cx, cond), ...both.captured], {}, both.regions);
}

/** Both branches as regions of the same type, or why there are none. */
function branches(cx: LowerContext, then: Subgraph, otherwise: Subgraph): ReturnType<LowerContext['regions']> | string {
  try {
    const both = cx.regions([{ graph: then, inputs: [] }, { graph: otherwise, inputs: [] }]);
    const [a, b] = both.regions.map((g) => g.outputs.map((o) => o.value.type)) as [TensorType[], TensorType[]];
    const differs = a.findIndex((t, i) => !b[i] || !sameType(t, b[i]));
    return differs < 0 ? both : `its branches give ${showType(a[differs]!)} and ${b[differs] ? showType(b[differs]) : 'nothing'}`;
  } catch (e) {
    if (e instanceof UserError) return `one of its branches does not compile: ${e.message}`;
    throw e;
  }
}

/** A node's subgraph that runs once an iteration, and what goes into it. */
interface LoopParts {
  readonly body: Subgraph;
  /** Undefined: no limit. */
  readonly limit: Value | undefined;
  readonly start: Value | undefined;
  readonly carried: readonly Bound[];
}

const isTrue = (cx: LowerContext, v: Value | undefined): boolean => v === undefined || (cx.isConstant(v) && cx.numbers(v, 'cond')[0] !== 0);

function loop(cx: LowerContext): readonly (Bound | undefined)[] {
  const { node } = cx;
  const carried = node.inputs.slice(2).map((x, i) => x ?? cx.bad(`the carried input ${i + 2} is left out`));
  const parts: LoopParts = { body: node.attrs.graph('body'), limit: cx.optionalInput(0), start: cx.optionalInput(1), carried };
  const given = parts.body.inputNames.length;
  if (given !== carried.length + 2) cx.bad(`the body has ${given} inputs: expected ${carried.length + 2}`);
  if (carried.every(isTensorValue)) {
    try {
      const results = loopRegion(cx, parts, carried);
      if (results) return results;
    } catch (e) {
      // What depends on the iteration's number is known once the loop is unrolled.
      const byIteration = e instanceof NeedsValue && e.inputs.length === 0;
      if (!byIteration && !(e instanceof Unsupported && canUnroll(cx, parts))) throw e;
    }
  }
  return unroll(cx, parts);
}

const canUnroll = (cx: LowerContext, { limit, start }: LoopParts): boolean => (!limit || cx.isConstant(limit)) && (!start || cx.isConstant(start));

/** The loop as a region; undefined where a carried value changes its type or the number of collected rows is not known. */
function loopRegion(cx: LowerContext, { body, limit, start }: LoopParts, carried: readonly Value[]): readonly Value[] | undefined {
  const { b } = cx;
  const { regions, captured } = cx.regions([{ graph: body, inputs: [{ dtype: 'i64', shape: [] }, { dtype: 'bool', shape: [] }, ...carried.map((v) => v.type)] }]);
  const region = assumeTrue(regions[0]!);
  const [again, ...made] = region.outputs.map((o) => o.value);
  const scans = made.length - carried.length;
  if (!again || carried.some((v, i) => !made[i] || !sameType(made[i].type, v.type))) return undefined;
  const known = knownTensor(region, again, definitions(region));
  let trips = -1;
  if (known && limit && cx.isConstant(limit) && (!start || cx.isConstant(start))) {
    const most = isTrue(cx, start) ? Math.max(0, cx.ints(limit, 'M')[0] ?? 0) : 0;
    trips = known.data[0] ? most : Math.min(most, 1);
  }
  if (trips < 0 && scans > 0) return undefined;
  const most = limit ? b.cast(scalarOf(cx, limit), 'i64') : b.scalar(2n ** 63n - 1n, 'i64');
  return b.op('loop', [most, start ? scalarOf(cx, start) : b.scalar(1, 'bool'), ...carried, ...captured], { trips, carried: carried.length, scans }, [region]);
}

/** The body without its second input: an iteration runs only where the condition was true. Its outputs get the core op's shapes. */
function assumeTrue(body: Graph): Graph {
  const [step, cond, ...rest] = body.inputs;
  const b = new Builder(body.name);
  b.adopt({ inputs: [step!, ...rest], state: [] });
  b.append({ name: 'constant', operands: [], attrs: { value: { dtype: 'bool', shape: [], data: Uint8Array.of(1) } }, results: [cond!], regions: [], source: [] });
  body.ops.forEach((op) => b.append(op));
  const [again, ...others] = body.outputs;
  return b.finish([{ name: again!.name, value: b.reshape(again!.value, []) }, ...others]);
}

function unroll(cx: LowerContext, { body, limit, start, carried }: LoopParts): readonly (Bound | undefined)[] {
  const { b } = cx;
  const most = limit ? (cx.ints(limit, 'the trip count M')[0] ?? 0) : maxUnrolled + 1;
  let going = !start || cx.numbers(start, 'cond')[0] !== 0;
  let state = [...carried];
  const rows: Value[][] = [];
  for (let i = 0; going && i < most; i++) {
    if (i === maxUnrolled) cx.unsupported(`Loop of more than ${maxUnrolled} iterations whose types change`, 'it would have to be unrolled');
    const [again, ...made] = cx.inline(body, [b.scalar(i, 'i64'), b.scalar(1, 'bool'), ...state]);
    if (!again || !isTensorValue(again)) cx.bad('the body returns no condition');
    state = made.slice(0, carried.length);
    made.slice(carried.length).forEach((v, k) => {
      if (!isTensorValue(v)) cx.bad(`scan output ${k} is no tensor`);
      (rows[k] ??= []).push(b.reshape(v, [1, ...v.type.shape]));
    });
    going = cx.numbers(again, 'the condition of a loop that has to be unrolled')[0] !== 0;
  }
  const scans = body.outputNames.length - 1 - carried.length;
  if (rows.length === 0 && scans > 0) cx.unsupported('Loop with scan outputs that never runs', 'their shapes are not known');
  return [...state, ...rows.map((r) => b.concat(r, 0))];
}

/** What a Scan collects and reads: axis and direction of each. */
interface ScanPlan {
  readonly body: Subgraph;
  readonly inputAxes: readonly number[];
  readonly inputReversed: readonly boolean[];
  readonly outputAxes: readonly number[];
  readonly outputReversed: readonly boolean[];
}

function scan(cx: LowerContext): readonly Value[] {
  const { attrs } = cx.node;
  const body = attrs.graph('body');
  const reads = attrs.int('num_scan_inputs');
  const all = cx.node.inputs.map((_, i) => cx.input(i));
  const states = all.length - reads;
  const makes = body.outputNames.length - states;
  const directions = (name: string, n: number): boolean[] => attrs.ints(name, new Array<number>(n).fill(0)).map((d) => d !== 0);
  const axes = attrs.ints('scan_input_axes', new Array<number>(reads).fill(0));
  return runScan(cx, all.slice(0, states), all.slice(states), {
    body,
    inputAxes: axes.map((a, i) => axisOf(cx, a, all[states + i]!.type.shape.length)),
    inputReversed: directions('scan_input_directions', reads),
    outputAxes: attrs.ints('scan_output_axes', new Array<number>(makes).fill(0)),
    outputReversed: directions('scan_output_directions', makes),
  });
}

/** Scan of opset 8: every value has a batch axis in front, and each sample is scanned by itself. */
function scanBatched(cx: LowerContext): readonly Value[] {
  const { b, node } = cx;
  const { attrs } = node;
  if (node.inputs[0] !== undefined) cx.unsupported('Scan with sequence_lens', 'samples of different lengths are not implemented: export with opset 9 or later');
  const body = attrs.graph('body');
  const reads = attrs.int('num_scan_inputs');
  const all = node.inputs.slice(1).map((_, i) => cx.input(i + 1));
  const states = all.length - reads;
  const makes = body.outputNames.length - states;
  const batch = all[0]!.type.shape[0]!;
  const plan: ScanPlan = {
    body,
    inputAxes: new Array<number>(reads).fill(0),
    inputReversed: attrs.ints('directions', new Array<number>(reads).fill(0)).map((d) => d !== 0),
    outputAxes: new Array<number>(makes).fill(0),
    outputReversed: new Array<boolean>(makes).fill(false),
  };
  const sample = (v: Value, n: number): Value => b.reshape(b.slice(v, [n, ...v.type.shape.slice(1).map(() => 0)], [1, ...v.type.shape.slice(1)]), v.type.shape.slice(1));
  const runs = range(batch).map((n) => runScan(cx, all.slice(0, states).map((v) => sample(v, n)), all.slice(states).map((v) => sample(v, n)), plan));
  return range(runs[0]?.length ?? 0).map((k) => b.concat(runs.map((r) => b.reshape(r[k]!, [1, ...r[k]!.type.shape])), 0));
}

function runScan(cx: LowerContext, states: readonly Value[], inputs: readonly Value[], plan: ScanPlan): readonly Value[] {
  const { b } = cx;
  const trips = inputs[0]?.type.shape[plan.inputAxes[0]!] ?? cx.bad('there is no scan input');
  inputs.forEach((v, k) => {
    if (v.type.shape[plan.inputAxes[k]!] !== trips) cx.bad(`scan inputs have ${trips} and ${v.type.shape[plan.inputAxes[k]!]} steps`);
  });
  const sliceTypes = inputs.map((v, k): TensorType => ({ dtype: v.type.dtype, shape: v.type.shape.filter((_, i) => i !== plan.inputAxes[k]) }));
  const { regions, captured } = cx.regions([{ graph: plan.body, inputs: [...states.map((v) => v.type), ...sliceTypes] }]);
  const body = regions[0]!;
  const inner = new Builder(body.name);
  const step: Value = { type: { dtype: 'i64', shape: [] }, name: 'step' };
  const whole = inputs.map((v, k): Value => ({ type: v.type, name: `scanned${k}` }));
  const slices = body.inputs.slice(states.length, states.length + inputs.length);
  inner.adopt({ inputs: [step, ...body.inputs.slice(0, states.length), ...whole, ...body.inputs.slice(states.length + inputs.length)], state: [] });
  slices.forEach((slice, k) => {
    const at = plan.inputReversed[k] ? inner.sub(trips - 1, step) : step;
    inner.append({ name: 'gather', operands: [whole[k]!, at], attrs: { axis: plan.inputAxes[k]! }, results: [slice], regions: [], source: b.source });
  });
  body.ops.forEach((op) => inner.append(op));
  const region = inner.finish([{ name: 'continue', value: inner.scalar(1, 'bool') }, ...body.outputs]);
  const scans = body.outputs.length - states.length;
  const results = b.op('loop', [b.scalar(trips, 'i64'), b.scalar(1, 'bool'), ...states, ...inputs, ...captured], { trips, carried: states.length, scans }, [region]);
  return results.map((v, i) => {
    const k = i - states.length;
    if (k < 0) return v;
    const { shape } = v.type;
    const ordered = plan.outputReversed[k] ? b.slice(v, shape.map((_, a) => (a === 0 ? trips - 1 : 0)), shape, shape.map((_, a) => (a === 0 ? -1 : 1))) : v;
    const axis = axisOf(cx, plan.outputAxes[k]!, shape.length);
    return b.transpose(ordered, range(shape.length).map((a) => (a === axis ? 0 : a < axis ? a + 1 : a)));
  });
}

export const controlFlowOps: LoweringTable = {
  If: [row(1, 1, conditional, [1, Infinity])],
  Loop: [row(1, [2, Infinity], loop, [0, Infinity])],
  Scan: [row(8, [2, Infinity], scanBatched, [1, Infinity]), row(9, [1, Infinity], scan, [1, Infinity])],
};
