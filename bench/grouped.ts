/**
 * Speed of grouped convolutions with few channels a group, forward and both gradients, against the register-only peak, on one thread: the shapes of ResNeXt-50 32x4d and of an EfficientNet-B0
 * with groups of 16. Every kernel that the passes make of a convolution counts, but for changes of layout and the packing of weights. npm run bench:grouped -- [--only TEXT] [--runs 10] [--samples 16]
 */
import { wasmTarget } from '../cli/driver/target.ts';
import { bestFeatures } from '../cli/model.ts';
import { table } from '../cli/print.ts';
import { Builder } from '../ir/builder.ts';
import type { Graph } from '../ir/graph.ts';
import { sizeOf, tensorType } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { commandLine } from './options.ts';
import { compileVariants, profiled } from './pairs.ts';
import { peakLoop } from './peak.ts';
import { numbers } from './train-networks.ts';

const { options: { only, runs, samples } } = commandLine('npm run bench:grouped', '', { only: '', runs: 10, samples: 16 });

interface Shape { readonly channels: number; readonly group: number; readonly size: number; readonly kernel: number; readonly stride: number }
const shape = (channels: number, group: number, size: number, kernel: number, stride: number): Shape => ({ channels, group, size, kernel, stride });
const networks: Readonly<Record<string, readonly Shape[]>> = {
  'ResNeXt-50 32x4d': [shape(128, 4, 56, 3, 1), shape(256, 8, 56, 3, 2), shape(256, 8, 28, 3, 1), shape(512, 16, 28, 3, 2), shape(512, 16, 14, 3, 1), shape(1024, 32, 14, 3, 2), shape(1024, 32, 7, 3, 1)],
  'EfficientNet-B0, groups of 16': [
    shape(32, 16, 112, 3, 1), shape(96, 16, 112, 3, 2), shape(144, 16, 56, 3, 1), shape(144, 16, 56, 5, 2), shape(240, 16, 28, 5, 1), shape(240, 16, 28, 3, 2), shape(480, 16, 14, 3, 1), shape(480, 16, 14, 5, 1), shape(672, 16, 14, 5, 1), shape(672, 16, 14, 5, 2), shape(1152, 16, 7, 5, 1), shape(1152, 16, 7, 3, 1),
  ],
};
const parts = ['forward', 'data gradient', 'weight gradient'] as const;

/** One of the three products of a convolution, as a graph of its operands. */
function product(part: (typeof parts)[number], s: Shape): Graph {
  const pad = (s.kernel - 1) >> 1;
  const result = Math.floor((s.size + 2 * pad - s.kernel) / s.stride) + 1;
  const x = tensorType('f32', [samples, s.channels, s.size, s.size]);
  const w = tensorType('f32', [s.channels, s.group, s.kernel, s.kernel]);
  const y = tensorType('f32', [samples, s.channels, result, result]);
  const geometry = { strides: [s.stride, s.stride], pads: [pad, pad, pad, pad], dilations: [1, 1], groups: s.channels / s.group };
  const b = new Builder('grouped');
  const made = { forward: () => b.one('conv', [b.input(x, 'p'), b.input(w, 'q')], geometry), 'data gradient': () => b.one('convData', [b.input(y, 'p'), b.input(w, 'q')], { ...geometry, size: [s.size, s.size] }), 'weight gradient': () => b.one('convWeight', [b.input(x, 'p'), b.input(y, 'q')], { ...geometry, kernel: [s.kernel, s.kernel] }) };
  return b.finish([{ name: 'result', value: made[part]() }]);
}

const peak = peakLoop(bestFeatures());
for (let i = 0; i < 20; i++) peak();
for (const [name, shapes] of Object.entries(networks)) {
  const rows: string[][] = [];
  for (const s of shapes) {
    const label = `${s.channels} channels in groups of ${s.group}, ${s.kernel}x${s.kernel}${s.stride > 1 ? `/${s.stride}` : ''} on ${s.size}x${s.size}`;
    if (!`${name} ${label}`.includes(only)) continue;
    const cells: string[] = [];
    for (const part of parts) {
      const graph = product(part, s);
      const inputs = Object.fromEntries(graph.inputs.map((v, i) => [v.name!, numbers(sizeOf(v.type.shape), i + 1)]));
      const before = peak();
      const kernels = (await profiled(compileVariants(new Map([[part, runPipeline(graph, wasmTarget)]]), true), inputs, 1, runs, 3)).get(part)!;
      const near = Math.max(before, peak());
      const ms = [...kernels].filter(([kind]) => !/^(copy|packConv|transpose)/.test(kind)).reduce((n, [, t]) => n + t, 0);
      const result = Math.ceil(s.size / s.stride);
      const speed = (2 * samples * s.channels * s.group * s.kernel ** 2 * result ** 2) / ms / 1e6;
      cells.push(ms.toFixed(2), speed.toFixed(1), `${((100 * speed) / near).toFixed(0)} %`);
    }
    rows.push([label, ...cells]);
  }
  if (rows.length === 0) continue;
  console.log(`${name}, ${samples} samples, 1 thread`);
  for (const line of table(['', ...parts.flatMap((p) => [`${p}, ms`, 'GFLOP/s', 'of peak'])], rows, [1, 2, 3, 4, 5, 6, 7, 8, 9])) console.log(line);
}
