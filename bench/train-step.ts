/**
 * Times training steps (SGD with momentum) against PyTorch from the same weights, where python3 has torch:
 * npm run bench:train -- [--threads 2] [--steps 20] [--only TEXT] [--profile] [--wide]. A JavaScript peer takes minutes a step: `npm run bench:train-peer` compares with it, on a smaller batch.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compile } from '../index.ts';
import { bestFeatures } from '../cli/model.ts';
import { table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { loadSession, type Session, type StepTime } from '../runtime/index.ts';
import { commandLine } from './options.ts';
import { convnet, numbers, resnet20, type Network } from './train-networks.ts';

const { options } = commandLine('npm run bench:train', '', { threads: 2, steps: 20, only: '', profile: false, wide: false, python: '/usr/bin/python3' });
const { threads, steps } = options;
const rate = 0.01;
/** Steps until the engine has optimised the code. */
const warmUp = 5;
const networks = [convnet(), resnet20('batch'), resnet20('group')].filter((n) => n.name.includes(options.only));

for (const network of networks) {
  const ours = await timeOurs(network);
  const theirs = timeTorch(network);
  const show = (r: Timing): string => `${median(r.times.slice(warmUp)).toFixed(1)} ms a step, losses ${[0, 1, 2, r.losses.length - 1].map((i) => r.losses[i]!.toFixed(5)).join(' ')}`;
  console.log(`${network.name}, ${threads} threads`);
  for (const notice of ours.notices) console.log(`  ${notice}`);
  console.log(`  tilewright (${ours.features} module)  ${show(ours)}`);
  console.log(theirs ? `  PyTorch ${theirs.version}  ${show(theirs)}` : '  PyTorch is not at hand (python3-torch)');
  if (network.torch.kind === 'convnet') console.log('  against a JavaScript peer (TensorFlow.js), at a smaller batch: npm run bench:train-peer');
  if (theirs) console.log(`  ratio ${(median(ours.times.slice(warmUp)) / median(theirs.times.slice(warmUp))).toFixed(2)}`);
}

interface Timing { readonly losses: readonly number[]; readonly times: readonly number[] }

async function timeOurs(network: Network): Promise<Timing & Pick<Session, 'features' | 'notices'>> {
  const artifact = await compile(network.model, {
    file: network.name, features: [...(options.wide ? ['wide' as const] : []), bestFeatures()], profile: options.profile, train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } },
  });
  const session = await loadSession(artifact, { threads, wide: options.wide });
  try {
    const y = BigInt64Array.from({ length: network.input[0] }, (_, i) => BigInt(i % network.classes));
    const inputs = { x: images(network), y, lr: Float32Array.of(rate) };
    const losses: number[] = [];
    const times: number[] = [];
    const samples: StepTime[][] = [];
    for (let i = 0; i < steps + warmUp; i++) {
      const start = performance.now();
      const { loss } = await session.run(inputs);
      times.push(performance.now() - start);
      losses.push(Number(loss!.data[0]));
      if (i >= warmUp && options.profile) samples.push([...session.profile()!]);
    }
    if (options.profile) printProfile(samples);
    return { losses, times, features: session.features, notices: session.notices };
  } finally {
    await session.close();
  }
}

function printProfile(samples: readonly StepTime[][]): void {
  // The steps of an evaluation, which the module has too, did not run.
  const rows = samples[0]!.map((s, i) => ({ s, ms: median(samples.map((t) => t[i]!.end - t[i]!.start)) })).filter((r) => r.ms > 0).sort((a, b) => b.ms - a.ms);
  const total = rows.reduce((n, r) => n + r.ms, 0);
  const shown = rows.slice(0, 40).map(({ s, ms }) => [ms.toFixed(3), (s.flops / ms / 1e6).toFixed(1), String(s.chunks), s.name, s.source.join(', ').slice(0, 80)]);
  const kinds = Map.groupBy(rows, (r) => r.s.name);
  const byKind = [...kinds].map(([name, of]) => ({ name, n: of.length, ms: of.reduce((t, r) => t + r.ms, 0) })).sort((a, b) => b.ms - a.ms);
  for (const line of table(['ms', 'steps', 'kind of op'], byKind.map((k) => [k.ms.toFixed(3), String(k.n), k.name]), [0, 1])) console.log(line);
  for (const line of table(['ms', 'GFLOP/s', 'chunks', 'op', 'from'], shown, [0, 1, 2])) console.log(line);
  console.log(`${total.toFixed(1)} ms in ${rows.length} steps`);
}

function timeTorch(network: Network): (Timing & { readonly version: string }) | undefined {
  if (!existsSync(options.python)) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'train-step-'));
  try {
    const { weights, input, classes, torch } = network;
    writeFileSync(join(folder, 'request.json'), JSON.stringify({ torch, input, classes, rate, threads, steps: steps + warmUp, weights: weights.map(({ name, shape }) => ({ name, shape })) }));
    writeFileSync(join(folder, 'data.f32'), Buffer.concat([...weights.map((w) => w.data), images(network)].map((a) => Buffer.from(a.buffer))));
    const out = execFileSync(options.python, [new URL('train-step.py', import.meta.url).pathname, join(folder, 'request.json'), join(folder, 'data.f32')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return JSON.parse(out) as Timing & { version: string };
  } catch {
    return undefined;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function images(n: Network): Float32Array {
  return numbers(n.input.reduce((p, d) => p * d, 1), 77);
}
