/** Squeeze-and-excite (Hu et al., arXiv 1709.01507): channels are scaled by a gate that sees the mean of each. */
import { activate, type Activation } from './activations.ts';
import type { Flow, Network } from './network.ts';

/** x · factor · sigmoid(fc2(φ(fc1(mean of x)))); `as` says whether the layers are linear or 1x1 convolutions, which decides the rank of their weights. */
export function squeezeExcite(net: Network, x: Flow, name: string, hidden: number, { activation, as, factor = 1 }: { readonly activation: Activation; readonly as: 'linear' | 'conv'; readonly factor?: number }): Flow {
  const channels = x.shape[0]!;
  const mean = net.globalPool(x, `${name}.pool`);
  const layer = (v: Flow, layerName: string, out: number): Flow => (as === 'conv' ? net.conv(v, layerName, { out, kernel: 1, bias: true }) : net.linear(v, layerName, out));
  const squeezed = activate(net, layer(as === 'conv' ? mean : net.flatten(mean, `${name}.flatten`), `${name}.fc1`, hidden), activation, `${name}.act`);
  const excited = layer(squeezed, `${name}.fc2`, channels);
  const gate = net.scale(net.node('Sigmoid', `${name}.gate`, [excited], excited.shape), factor, `${name}.gate`);
  const wide = as === 'conv' ? gate : net.node('Reshape', `${name}.wide`, [gate, net.indices([-1, channels, 1, 1], `${name}.form`)], [channels, 1, 1]);
  return net.node('Mul', `${name}.mul`, [x, wide], x.shape);
}
