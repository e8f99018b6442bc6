/** Gives a classifier another number of classes: its last linear layer is made anew. */
import { dirname } from 'node:path';
import { importModel } from '../../frontend/index.ts';
import { decodeModel } from '../../frontend/onnx/decode.ts';
import { findHead, type HeadTensor } from '../../frontend/onnx/head.ts';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { sizeOf } from '../../ir/type.ts';
import { draws, purposes } from '../../runtime/data/random.ts';
import { externalOf, readOnnx } from '../../runtime/export-onnx.ts';
import { patchOnnx, type Reshaping } from '../../runtime/onnx-weights.ts';
import { joined } from '../../runtime/safetensors.ts';
import type { Tensor } from '../../runtime/tensor.ts';

export interface ResetHeadOptions {
  /** The output whose layer is replaced; the model's first one unless given. */
  readonly output?: string;
  /** The new weights follow from it: a whole number, 0 unless given. */
  readonly seed?: number;
}

/**
 * The bytes of an ONNX model whose last linear layer (the Gemm, MatMul or Conv that an output comes from) has `classes` outputs and new weights: uniform within ±1/√fan-in, the bias too, as PyTorch
 * starts its linear layers. Declared shapes change along. What lies in other files moves into the bytes. A model with shapes behind that layer that are fixed to the old number is
 * refused by the name of the node.
 */
export async function resetHead(path: string, classes: number, { output, seed = 0 }: ResetHeadOptions = {}): Promise<Uint8Array> {
  if (!Number.isSafeInteger(classes) || classes < 1) throw new UserError(`a model cannot have ${classes} classes; give a whole number of at least 1`);
  const bytes = await readOnnx(path);
  const view = decodeModel(bytes, path, dirname(path));
  const judged = output ?? view.graph.outputs[0]?.name;
  if (judged === undefined || !view.graph.outputs.some((o) => o.name === judged)) throw new UserError(`${path} has no output "${judged ?? ''}"; its outputs are ${view.graph.outputs.map((o) => `"${o.name}"`).join(', ')}`);
  const head = findHead(view, judged);
  const made = (t: HeadTensor, index: number): Tensor => {
    const shape = t.shape.with(t.axis, classes);
    const draw = draws(seed, purposes.head, 0, index);
    const bound = 1 / Math.sqrt(head.fanIn);
    const { dtype } = view.graph.initializers.find((i) => i.name === t.name)!.tensor as Tensor;
    const data = new (dtype === 'f64' ? Float64Array : Float32Array)(sizeOf(shape)).map(() => bound * (2 * draw.uniform() - 1));
    return { dtype, shape, data };
  };
  const tensors = [head.weight, ...(head.bias ? [head.bias] : [])];
  const weights = new Map(tensors.map((t, i) => [t.name, made(t, i)]));
  const patched = async (declared: Reshaping['declared']): Promise<Uint8Array> => {
    const reshaping = { weights: new Set(weights.keys()), declared: new Map([...tensors.map((t) => [t.name, t.shape.with(t.axis, classes)] as const), ...declared]), stale: new Set(head.downstream) };
    return joined(await patchOnnx(bytes, weights, path, externalOf(path), reshaping));
  };
  // The outputs' sizes are left open until the importer has said what they become.
  const changing = view.graph.outputs.filter((o) => head.downstream.includes(o.name));
  const open = await patched(new Map(changing.map((o) => [o.name, (o.type?.dims ?? []).map((d) => (d === head.size ? null : undefined))])));
  const shapes = sizesThatChange(path, judged, head.size, classes, open);
  return patched(new Map(changing.map((o) => [o.name, shapes.get(o.name)!])));
}

/** New sizes of outputs by name, undefined where they stay. Checks that the class axis of the judged output is all that changes. */
function sizesThatChange(path: string, judged: string, size: number, classes: number, open: Uint8Array): Map<string, (number | undefined)[]> {
  const before = importModel(path).graph.outputs;
  let after: typeof before;
  try {
    after = importModel(open, { file: path }).graph.outputs;
  } catch (e) {
    if (!(e instanceof UserError)) throw e;
    throw new Unsupported('another number of classes', `${e.message}. With ${classes} classes instead of ${size} the model does not fit together: a shape behind its last linear layer is fixed to the old number; export it with -1 there`);
  }
  return new Map(before.map(({ name, value }, k) => {
    const [from, to] = [value.type.shape, after[k]!.value.type.shape];
    const changes = to.map((d, i) => (d === from[i] ? undefined : d));
    const changed = changes.filter((d) => d !== undefined);
    // Samples stand first, whatever their number: no axis of classes.
    const fits = from.length === to.length && changes[0] === undefined && (changed.length === 0 ? name !== judged || size === classes : changed.length === 1 && changed[0] === classes && from[to.findIndex((d, i) => d !== from[i])] === size);
    if (!fits) throw new Unsupported('another number of classes', `${path}: with ${classes} classes instead of ${size} the output "${name}" goes from [${from.join(',')}] to [${to.join(',')}]: a shape behind the last linear layer is fixed to the old number; export it with -1 there`);
    return [name, changes];
  }));
}
