/**
 * Speed of the contraction kernels against the register-only peak, one thread: npm run bench:gemm -- [--features relaxed|plain|simd|wide] [--filter TEXT].
 * Peak and kernels are measured in turns; each line is the best of its rounds.
 */
import { contraction } from '../backends/wasm/contract/index.ts';
import { Builder } from '../ir/builder.ts';
import { tensorType } from '../ir/type.ts';
import { channelsLast, instantiate, rows, type Kernel } from './kernel.ts';
import { commandLine, oneOf } from './options.ts';
import { peakLoop } from './peak.ts';

interface Case { readonly name: string; readonly flops: number; readonly kernel: Kernel }

const { options: { features, filter } } = commandLine('npm run bench:gemm', '', { features: oneOf('relaxed', 'plain', 'simd', 'wide'), filter: '' });

function gemm(m: number, n: number, k: number, algorithm: 'direct' | 'strassen' = 'direct'): Case | undefined {
  const name = `gemm ${m}x${n}x${k}${algorithm === 'direct' ? '' : ` ${algorithm}`}`;
  if (!name.includes(filter)) return undefined;
  const b = new Builder('bench');
  const a = b.input(tensorType('f32', [m, k]));
  const w = b.one('packMatmul', [b.input(tensorType('f32', [k, n]))], { spec: 'mk,kn->mn' });
  const operands = algorithm === 'direct' ? [a, w] : [a, w, b.one('strassenSums', [a], { rowAxes: 1 })];
  const y = b.one('contractPacked', operands, { spec: 'mk,kn->mn', bShape: [k, n], algorithm });
  return { name, flops: 2 * m * n * k, kernel: instantiate(features, contraction, b.ops.at(-1)!, operands.map((v) => rows(v.type)), [rows(y.type)]) };
}

/** The sums of a left operand that a product by Strassen's algorithm reads; counted are their additions. */
function sums(m: number, k: number): Case | undefined {
  const name = `strassen sums ${m}x${k}`;
  if (!name.includes(filter)) return undefined;
  const b = new Builder('bench');
  const a = b.input(tensorType('f32', [m, k]));
  const y = b.one('strassenSums', [a], { rowAxes: 1 });
  return { name, flops: m * k, kernel: instantiate(features, contraction, b.ops.at(-1)!, [rows(a.type)], [rows(y.type)]) };
}

function conv(label: string, algorithm: string, c: number, o: number, size: number, kernel: number, stride: number, groups = 1): Case | undefined {
  const name = `${label} ${algorithm} ${c}->${o} ${kernel}x${kernel}/${stride} on ${size}x${size}${groups > 1 ? ` groups ${groups}` : ''}`;
  if (!name.includes(filter)) return undefined;
  const pad = (kernel - 1) >> 1;
  const b = new Builder('bench');
  const x = b.input(tensorType('f32', [1, c, size, size]));
  const weightShape = [o, c / groups, kernel, kernel];
  const w = b.one('packConv', [b.input(tensorType('f32', weightShape))], { algorithm, groups });
  const y = b.one('convPacked', [x, w], { algorithm, groups, weightShape, strides: [stride, stride], pads: [pad, pad, pad, pad], dilations: [1, 1] });
  const flops = (2 * y.type.shape.reduce((n, d) => n * d, 1) * c * kernel * kernel) / groups;
  return { name, flops, kernel: instantiate(features, contraction, b.ops.at(-1)!, [channelsLast(x.type), rows(w.type)], [channelsLast(y.type)]) };
}

/** The weight gradient of a grouped convolution, of 16 samples in 8 partial sums. */
function weightGradient(c: number, size: number, kernel: number, stride: number, groups: number): Case | undefined {
  const name = `weight gradient ${c}->${c} ${kernel}x${kernel}/${stride} on ${size}x${size} groups ${groups}`;
  if (!name.includes(filter)) return undefined;
  const pad = (kernel - 1) >> 1;
  const result = Math.floor((size + 2 * pad - kernel) / stride) + 1;
  const b = new Builder('bench');
  const [x, dy] = [b.input(tensorType('f32', [16, c, size, size])), b.input(tensorType('f32', [16, c, result, result]))];
  const w = b.one('convWeight', [x, dy], { groups, kernel: [kernel, kernel], strides: [stride, stride], pads: [pad, pad, pad, pad], dilations: [1, 1], parts: 8, algorithm: 'direct' });
  const flops = (2 * dy.type.shape.reduce((n, d) => n * d, 1) * c * kernel * kernel) / groups;
  return { name, flops, kernel: instantiate(features, contraction, b.ops.at(-1)!, [channelsLast(x.type), channelsLast(dy.type)], [rows(w.type)]) };
}

function product(spec: string, aShape: readonly number[], bShape: readonly number[]): Case | undefined {
  const name = `contract ${spec} ${aShape.join('x')}`;
  if (!name.includes(filter)) return undefined;
  const b = new Builder('bench');
  const [x, y] = [b.input(tensorType('f32', aShape)), b.input(tensorType('f32', bShape))];
  const z = b.contract(spec, x, y);
  const letters = spec.split('->')[0]!;
  const sizes = new Map([...letters.replace(',', '')].map((l, i) => [l, [...aShape, ...bShape][i]!]));
  return { name, flops: 2 * [...sizes.values()].reduce((n, d) => n * d, 1), kernel: instantiate(features, contraction, b.ops.at(-1)!, [rows(x.type), rows(y.type)], [rows(z.type)]) };
}

const cases = [
  gemm(512, 512, 512),
  gemm(3136, 64, 64), gemm(3136, 256, 64), gemm(3136, 64, 256), gemm(784, 128, 512), gemm(784, 512, 128), gemm(196, 256, 1024), gemm(196, 1024, 256), gemm(49, 512, 2048), gemm(49, 2048, 512),
  gemm(197, 768, 768), gemm(197, 3072, 768), gemm(197, 768, 3072), gemm(1, 1000, 2048),
  ...([[197, 768, 768], [197, 2304, 768], [197, 3072, 768], [197, 768, 3072]] as const).map(([m, n, k]) => gemm(m, n, k, 'strassen')), sums(197, 768), sums(197, 3072),
  product('bthd,bshd->bhts', [1, 197, 12, 64], [1, 197, 12, 64]), product('bhts,bshd->bthd', [1, 12, 197, 197], [1, 197, 12, 64]),
  product('mk,kn->mn', [512, 512], [512, 512]), product('mk,nk->mn', [512, 512], [512, 512]), product('km,kn->mn', [512, 512], [512, 512]), product('bhtd,bhsd->bhts', [1, 4, 64, 32], [1, 4, 64, 32]),
  conv('stem', 'direct', 3, 64, 224, 7, 2),
  conv('resnet', 'direct', 64, 64, 56, 3, 1), conv('resnet', 'direct', 128, 128, 56, 3, 2), conv('resnet', 'direct', 128, 128, 28, 3, 1), conv('resnet', 'direct', 256, 256, 28, 3, 2),
  conv('resnet', 'direct', 256, 256, 14, 3, 1), conv('resnet', 'direct', 512, 512, 14, 3, 2), conv('resnet', 'direct', 512, 512, 7, 3, 1),
  conv('resnet', 'direct', 256, 512, 56, 1, 2), conv('resnet', 'direct', 1024, 2048, 14, 1, 2),
  ...(['winograd2', 'winograd4'] as const).flatMap((w) => [conv('resnet', w, 64, 64, 56, 3, 1), conv('resnet', w, 128, 128, 28, 3, 1), conv('resnet', w, 256, 256, 14, 3, 1), conv('resnet', w, 512, 512, 7, 3, 1)]),
  ...([[32, 112, 3, 1], [96, 112, 3, 2], [144, 56, 3, 1], [144, 56, 3, 2], [192, 28, 3, 1], [384, 14, 3, 1], [576, 14, 3, 2], [960, 7, 3, 1], [240, 28, 5, 1], [672, 14, 5, 1], [1152, 7, 5, 1], [96, 56, 7, 1], [768, 7, 7, 1]] as const)
    .map(([c, size, kernel, stride]) => conv('depthwise', 'depthwise', c, c, size, kernel, stride, c)),
  ...([[144, 56, 3, 1, 144], [96, 112, 3, 2, 96], [240, 28, 5, 1, 240], [1152, 7, 5, 1, 1152], [128, 56, 3, 1, 32], [128, 28, 3, 1, 8]] as const).map(([c, size, kernel, stride, groups]) => weightGradient(c, size, kernel, stride, groups)),
].filter((c) => c !== undefined);

const peak = peakLoop(features);
for (const c of cases) {
  for (let i = 0; i < 2; i++) {
    const t = c.kernel.memory(i);
    for (let j = 0; j < t.length; j++) t[j] = Math.sin(j);
  }
}
for (let i = 0; i < 20; i++) peak();
let bestPeak = 0;
console.log(`${'kernel'.padEnd(48)} GFLOP/s  of peak  chunks  module`);
for (const c of cases) {
  const repeats = Math.max(1, Math.ceil(2e8 / c.flops));
  let best = Infinity;
  let near = 0;
  for (let round = 0; round < 10; round++) {
    near = Math.max(near, peak());
    const start = performance.now();
    for (let i = 0; i < repeats; i++) c.kernel.run();
    best = Math.min(best, (performance.now() - start) / repeats);
  }
  bestPeak = Math.max(bestPeak, near);
  const speed = c.flops / best / 1e6;
  console.log(`${c.name.padEnd(48)} ${speed.toFixed(1).padStart(7)}  ${((100 * speed) / near).toFixed(0).padStart(6)}%  ${String(c.kernel.code.chunks).padStart(6)}  ${c.kernel.size}  ${best.toFixed(3)} ms`);
}
console.log(`peak ${bestPeak.toFixed(1)} GFLOP/s (${features})`);
