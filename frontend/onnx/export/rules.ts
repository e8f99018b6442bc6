/** How each core op is written as ONNX nodes. */
import { Unsupported } from '../../../ir/diagnostic.ts';
import { filled } from '../../../ir/builder.ts';
import type { Graph, Op } from '../../../ir/graph.ts';
import { flag, num, nums, tensorAttr } from '../../../ir/op.ts';
import { dataTypeNumber } from '../data-type.ts';
import { averagedPool, contractionRules, isAveraged } from './contraction.ts';
import { elementwiseRules } from './elementwise.ts';
import { instanceNorms, neededOps, type InstanceNorm } from './instance-norms.ts';
import { movementRules, reshapeTo } from './movement.ts';
import { valueInfo, type Rule, type Writer } from './writer.ts';

const first = (op: Op, w: Writer): string => w.at(op.operands[0]!);

/** Reductions of bools work on integers. */
const reduction = (type: string): Rule => (op, w) => {
  const axes = w.ints(nums(op.attrs, 'axes'));
  const x = first(op, w);
  if (op.operands[0]!.type.dtype !== 'bool') return w.node(type, [x, axes], { keepdims: 0 });
  const wide = w.node('Cast', [x], { to: dataTypeNumber('i32') });
  return w.node('Cast', [w.node(type, [wide, axes], { keepdims: 0 })], { to: dataTypeNumber('bool') });
};
const choice = (type: string): Rule => (op, w) => w.node(type, [first(op, w)], { axis: num(op.attrs, 'axis'), keepdims: 0, select_last_index: Number(flag(op.attrs, 'last')) });

export const rules: Readonly<Record<string, Rule>> = {
  constant: (op, w) => w.tensor(tensorAttr(op.attrs, 'value')),
  ...elementwiseRules,
  ...movementRules,
  ...contractionRules,
  reduceSum: reduction('ReduceSum'), reduceProd: reduction('ReduceProd'), reduceMax: reduction('ReduceMax'), reduceMin: reduction('ReduceMin'),
  argMax: choice('ArgMax'), argMin: choice('ArgMin'),
  moments: (op, w) => {
    const axes = w.ints(nums(op.attrs, 'axes'));
    const mean = w.node('ReduceMean', [first(op, w), axes], { keepdims: 1 });
    const centred = w.node('Sub', [first(op, w), mean]);
    return [w.node('Squeeze', [mean, axes]), w.node('ReduceSum', [w.node('Mul', [centred, centred]), axes], { keepdims: 0 })];
  },
  cumSum: (op, w) => w.node('CumSum', [first(op, w), w.scalar('i64', num(op.attrs, 'axis'))], { exclusive: Number(flag(op.attrs, 'exclusive')), reverse: Number(flag(op.attrs, 'reverse')) }),
  topK: (op, w) => w.nodes('TopK', [first(op, w), w.ints([num(op.attrs, 'k')])], { axis: num(op.attrs, 'axis'), largest: Number(flag(op.attrs, 'largest')), sorted: Number(flag(op.attrs, 'sorted')) }, 2),
  if: (op, w) => {
    const [then, otherwise] = op.regions.map((region) => {
      const inner = w.inner();
      region.inputs.forEach((v, i) => inner.bind(v, w.at(op.operands[i + 1]!)));
      return regionGraph(inner, region, []);
    });
    return w.nodes('If', [first(op, w)], { then_branch: then!, else_branch: otherwise! }, op.results.length);
  },
  loop: (op, w) => {
    const [region] = op.regions as [Graph];
    const carried = num(op.attrs, 'carried');
    const inner = w.inner();
    const step = inner.input(region.inputs[0]!);
    const going = inner.input({ type: { dtype: 'bool', shape: [] }, name: undefined });
    const inputs = region.inputs.slice(1, 1 + carried).map((v) => ({ ...valueInfo(inner.input(v), v.type, openAxes(w, v)) }));
    region.inputs.slice(1 + carried).forEach((v, i) => inner.bind(v, w.at(op.operands[2 + carried + i]!)));
    const body = regionGraph(inner, region, [valueInfo(step, { dtype: 'i64', shape: [] }), valueInfo(going, { dtype: 'bool', shape: [] }), ...inputs]);
    return w.nodes('Loop', op.operands.slice(0, 2 + carried).map((v) => w.at(v)), { body }, op.results.length);
  },
};

/** The axes of a value whose size a file for any batch leaves open. */
export function openAxes(w: Writer, v: Graph['inputs'][number]): ReadonlyMap<number, string> {
  const axis = w.batch?.axisOf(v);
  return axis === undefined ? new Map() : new Map([[axis, v.type.shape[axis] === w.batch!.size ? w.batch!.symbol : '']]);
}

function regionGraph(w: Writer, region: Graph, inputs: Parameters<Writer['subgraph']>[1]): ReturnType<Writer['subgraph']> {
  writeOps(w, region);
  const names = w.results(region.outputs.map((o) => o.value));
  return w.subgraph(region.name || 'body', inputs, region.outputs.map((o, i) => valueInfo(names[i]!, o.value.type, openAxes(w, o.value))));
}

/** Writes the ops that a graph's outputs need, in order. */
export function writeOps(w: Writer, graph: Graph): void {
  const norms = instanceNorms(graph);
  for (const op of neededOps(graph, norms)) {
    const norm = norms.get(op);
    if (norm) {
      w.bind(op.results[0]!, writeNorm(w, norm, op));
      continue;
    }
    const pool = averagedPool(op, graph);
    if (pool && isAveraged(pool, graph)) {
      w.bind(op.results[0]!, w.at(pool.results[0]!));
      continue;
    }
    const rule = rules[op.name];
    if (!rule) throw new Unsupported(`writing ${op.name} as ONNX`, `${op.source[0] ?? 'the model'} needs the op ${op.name}, which is not written as ONNX${reasons[op.name] ?? ''}`);
    w.from(op.source);
    const names = [rule(op, w, graph)].flat();
    op.results.forEach((r, i) => w.bind(r, names[i]!));
  }
}

/** A norm over groups of channels as an instance norm over the groups, which alone has the name of the node that the op came from: a file that is read and written again keeps its names. */
function writeNorm(w: Writer, { x, groups, epsilon }: InstanceNorm, op: Op): string {
  const { dtype } = x.type;
  w.from([]);
  const flat = w.node('Reshape', [w.at(x), w.ints([0, groups, -1])]);
  // No initializers, which would be read as parameters.
  const same = (one: number): string => w.constant(filled(dtype, [groups], one));
  const [one, zero] = [same(1), same(0)];
  w.from(op.source);
  const normal = w.node('InstanceNormalization', [flat, one, zero], { epsilon: { float: epsilon } });
  w.from([]);
  return reshapeTo(w, normal, op.results[0]!);
}

/** What to do about ops that have no form. */
const reasons: Readonly<Record<string, string>> = {
  randomUniform: ': import the model for inference, where dropout passes everything', randomNormal: ': import the model for inference, where noise is off',
  fused: ': write the graph before passes fuse it',
};
