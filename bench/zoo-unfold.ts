/** Weights of a network that PyTorch exported with its batch norms folded into convolutions, as the weights of ours. */
import { decodeModel } from '../frontend/onnx/decode.ts';
import { readModelFile } from '../frontend/onnx/external.ts';
import type { ZooModel } from '../frontend/zoo/index.ts';
import { UserError } from '../ir/diagnostic.ts';
import type { Tensor } from '../ir/type.ts';

/**
 * A folded convolution keeps its weight, and its bias becomes the shift of the norm behind it; that norm gets mean 0 and a variance of 1 less ε, so that it does nothing else. Nodes carry
 * the path of their module (`/layer1/layer1.0/conv1/Conv`), which is the name of the weight. Weights without a norm behind them keep their names in the file.
 */
export function unfoldedWeights(file: string, model: ZooModel): Map<string, Tensor> {
  const { graph } = decodeModel(readModelFile(file), file, undefined);
  const stored = new Map(graph.initializers.map((t) => [t.name, t.tensor]));
  // Equal weights are stored once, and the others made of them by Identity.
  const aliases = new Map(graph.nodes.flatMap((n) => (n.opType === 'Identity' ? [[n.outputs[0]!, n.inputs[0]!] as const] : [])));
  const tensor = (name: string): Tensor => {
    const found = stored.get(aliases.get(name) ?? name);
    if (!found || !('data' in found)) throw new UserError(`${file}: no weight ${name}`);
    return found as Tensor;
  };
  const out = new Map<string, Tensor>();
  for (const node of graph.nodes) {
    if (node.opType !== 'Conv') continue;
    const module = pathOf(node.name.split('/').filter((p) => p !== '' && p !== 'Conv'));
    out.set(`${module}.weight`, tensor(node.inputs[1]!));
    if (node.inputs[2] !== undefined) out.set(`${module}.bias`, tensor(node.inputs[2]));
  }
  for (const node of model.nodes) {
    if (node.op !== 'BatchNormalization') continue;
    const conv = model.nodes.find((n) => n.outputs[0] === node.inputs[0])!.name;
    const shift = out.get(`${conv}.bias`);
    if (!shift) throw new UserError(`${file}: the convolution ${conv} has no bias that a norm was folded into`);
    out.delete(`${conv}.bias`);
    const filled = (x: number): Tensor => ({ dtype: 'f32', shape: shift.shape, data: new Float32Array(shift.data.length).fill(x) });
    const { epsilon } = node.attributes as { readonly epsilon: { readonly float: number } };
    const [, scale, bias, mean, variance] = node.inputs as readonly [string, string, string, string, string];
    for (const [name, t] of [[scale, filled(1)], [bias, shift], [mean, filled(0)], [variance, filled(1 - epsilon.float)]] as const) out.set(name, t);
  }
  for (const w of model.weights) if (!out.has(w.name) && (stored.has(w.name) || aliases.has(w.name))) out.set(w.name, tensor(w.name));
  return out;
}

/** `layer1`, `layer1.0`, `conv1` is `layer1.0.conv1`: a child of a sequence repeats the name of its parent. */
const pathOf = (parts: readonly string[]): string => parts.filter((part, i) => !parts[i + 1]?.startsWith(`${part}.`)).join('.');
