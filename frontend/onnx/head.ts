/** The last linear layer of a model, as its file has it: what has to change for another number of classes. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { sizeOf, type Tensor } from '../../ir/type.ts';
import { attributesOf } from './attributes.ts';
import { showNode, type GraphView, type ModelView, type NodeView } from './model.ts';

/** An initializer of the head, and its axis that counts the layer's outputs. */
export interface HeadTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly axis: number;
}

export interface Head {
  readonly weight: HeadTensor;
  readonly bias: HeadTensor | undefined;
  /** Numbers that each output sums over. */
  readonly fanIn: number;
  /** Outputs of the layer. */
  readonly size: number;
  /** Values that come out of the layer, in the order of the graph. */
  readonly downstream: readonly string[];
}

/** Ops that pass logits on, one by one or joined over positions. */
const passing = new Set([
  'Identity', 'Cast', 'Dropout', 'Flatten', 'Reshape', 'Squeeze', 'Unsqueeze', 'Transpose', 'Softmax', 'LogSoftmax', 'Sigmoid', 'Tanh', 'Relu', 'LeakyRelu', 'Clip', 'HardSigmoid',
  'GlobalAveragePool', 'GlobalMaxPool', 'AveragePool', 'MaxPool', 'ReduceMean', 'ReduceMax',
]);
const scaling = new Set(['Add', 'Sub', 'Mul', 'Div']);

/**
 * Finds the Gemm, MatMul or Conv that an output comes from, through activations, pools, reshapes and the addition of a bias. Anything else on the way, and a layer whose weight or bias
 * something else reads too, is refused by the name of the node.
 */
export function findHead({ graph, file }: ModelView, output: string): Head {
  const makers = new Map(graph.nodes.flatMap((n) => n.outputs.map((o) => [o, n] as const)));
  const tensors = new Map(graph.initializers.flatMap((t) => ('kind' in t.tensor ? [] : [[t.name, t.tensor] as const])));
  const refuse = (node: NodeView, why: string): never => {
    throw new Unsupported('another number of classes', `${file}: ${showNode(node)} ${why}; only a model whose output "${output}" comes from a Gemm, MatMul or Conv with a weight of its own can get another head`);
  };
  let biasName: string | undefined;
  let value = output;
  for (;;) {
    const node = makers.get(value);
    if (!node) throw new UserError(`${file}: the output "${output}" comes from "${value}", which no node makes: there is no linear layer before it`);
    if (node.domain === '' && ['Gemm', 'MatMul', 'Conv'].includes(node.opType)) return headOf(graph, node, tensors, biasName, refuse);
    const data = node.domain === '' && scaling.has(node.opType) ? node.inputs.find((i) => !tensors.has(i)) : node.inputs[0];
    const other = node.inputs.find((i) => i !== data);
    const passes = node.domain === '' && (passing.has(node.opType) || (scaling.has(node.opType) && other !== undefined && tensors.has(other)));
    if (!passes || data === undefined) return refuse(node, 'is no layer that logits pass one by one');
    if (scaling.has(node.opType) && sizeOf(tensors.get(other!)!.shape) > 1) {
      const before = makers.get(data);
      const isBias = node.opType === 'Add' && before !== undefined && ['MatMul', 'Conv'].includes(before.opType) && biasName === undefined;
      if (!isBias) refuse(node, `has a constant "${other}" for each class`);
      biasName = other;
    }
    value = data;
  }
}

function headOf(graph: GraphView, node: NodeView, tensors: ReadonlyMap<string, Tensor>, added: string | undefined, refuse: (node: NodeView, why: string) => never): Head {
  const attrs = (n: NodeView): ReturnType<typeof attributesOf> => attributesOf(new Map([...n.attributes].map(([name, view]) => [name, { view, scope: undefined }])), showNode(n), undefined);
  const gemm = node.opType === 'Gemm';
  // The axis of outputs, in the weight as the node reads it.
  let axis = node.opType === 'Conv' ? 0 : gemm && attrs(node).int('transB', 0) !== 0 ? 0 : 1;
  if (node.opType === 'Conv' && attrs(node).int('group', 1) !== 1) refuse(node, 'has groups');
  if (gemm && attrs(node).int('transA', 0) !== 0) refuse(node, 'has its samples along another axis than the first (transA)');
  let name = node.inputs[1]!;
  const readers = new Set([node]);
  for (let maker = graph.nodes.find((n) => n.outputs.includes(name)); maker; maker = graph.nodes.find((n) => n.outputs.includes(name))) {
    if (maker.opType === 'Transpose') axis = attrs(maker).ints('perm', [1, 0])[axis]!;
    else if (maker.opType !== 'Identity') refuse(node, `takes its weight from ${showNode(maker)}`);
    readers.add(maker);
    name = maker.inputs[0]!;
  }
  const weight = tensors.get(name);
  if (!weight) return refuse(node, 'has a weight that is no initializer');
  if (weight.dtype !== 'f32' && weight.dtype !== 'f64') refuse(node, `has a weight of ${weight.dtype}`);
  if (node.opType !== 'Conv' && weight.shape.length !== 2) refuse(node, `has a weight of rank ${weight.shape.length}`);
  const size = weight.shape[axis]!;
  const biasName = added ?? (node.inputs[2] === '' ? undefined : node.inputs[2]);
  const biasTensor = biasName === undefined ? undefined : tensors.get(biasName);
  if (biasName !== undefined && !biasTensor) refuse(node, `has a bias "${biasName}" that is no initializer`);
  const wide = biasTensor && sizeOf(biasTensor.shape) > 1 ? biasTensor : undefined;
  // A bias of MatMul and Gemm goes along the last axis; one that is added to a Conv has its channels before the spatial axes.
  const biasAxis = wide?.shape.findIndex((d) => d === size) ?? -1;
  if (wide && (biasAxis < 0 || sizeOf(wide.shape) !== size)) refuse(node, `has a bias of [${wide.shape.join(',')}]`);
  for (const used of [name, ...(wide ? [biasName!] : [])]) {
    const other = graph.nodes.find((n) => n.inputs.includes(used) && !readers.has(n) && !(used === biasName && n.opType === 'Add' && n.inputs.includes(node.outputs[0]!)));
    if (other) refuse(node, `shares "${used}" with ${showNode(other)}`);
  }
  return {
    weight: { name, shape: weight.shape, axis },
    bias: wide && { name: biasName!, shape: wide.shape, axis: biasAxis },
    fanIn: sizeOf(weight.shape) / size,
    size,
    downstream: descendants(graph, node),
  };
}

function descendants(graph: GraphView, from: NodeView): string[] {
  const found = new Set(from.outputs);
  for (const n of graph.nodes) if (n.inputs.some((i) => found.has(i))) n.outputs.forEach((o) => found.add(o));
  return [...found];
}
