/**
 * Time of a training step against the limit of its arena: ResNet-20, batch 256. Steps of all limits are interleaved; the loss of each is compared with that of the step without a limit from the same
 * weights. With group norm a limit is met by fewer samples at a time, by computing values of the forward pass again, or both, with batch norm by the latter alone; shares that nothing meets are left out.
 * --quick takes two steps of every other limit, to see that it works.
 * npm run bench:memory -- [--norm group] [--threads 2] [--steps 7] [--quick] [--json] [--figure docs/figures/memory.svg]
 */
import { compile } from '../cli/driver/compile.ts';
import { bestFeatures } from '../cli/model.ts';
import { bytes, ms, say, sayJson, table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { OverLimit } from '../ir/diagnostic.ts';
import type { Recompute } from '../passes/tile/recompute.ts';
import { loadTrainer, type Trainer } from '../runtime/index.ts';
import { commandLine, oneOf, text } from './options.ts';
import { writeChart } from './plot.ts';
import { numbers, resnet20 } from './train-networks.ts';

const { options } = commandLine('npm run bench:memory', '', { norm: oneOf('group', 'batch'), threads: 2, steps: 7, quick: false, json: false, figure: text('FILE') });
const { threads, quick } = options;
const steps = quick ? 2 : options.steps;
const batch = 256;
const warmUp = quick ? 0 : 2;
const network = resnet20(options.norm);
const train = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 }, batch } as const;

interface Row {
  readonly limit: number | undefined;
  readonly samples: number;
  readonly recompute: Recompute | undefined;
  readonly arena: number;
  readonly trainer: Trainer;
  readonly times: number[];
  readonly losses: number[];
}

async function rowOf(limit: number | undefined): Promise<Row> {
  const artifact = await compile(network.model, { file: network.name, train, features: [bestFeatures()], ...(limit !== undefined && { memory: limit }) });
  return { limit, samples: artifact.fit?.samples ?? batch, recompute: artifact.fit?.recompute, arena: artifact.program.memory.temps, trainer: await loadTrainer(artifact, { threads }), times: [], losses: [] };
}

const first = await rowOf(undefined);
const rows = [first];
const shares = options.norm === 'group' ? [2, 4, 8, 12, 16, 24, 32, 48, 64, 72] : [1.25, 1.5, 1.75, 2, 2.25, 2.5];
for (const share of quick ? shares.filter((_, i) => i % 2 === 1) : shares) {
  try {
    const row = await rowOf(Math.ceil((first.arena / share) * 1.05));
    if (row.arena < rows.at(-1)!.arena) rows.push(row);
    else await row.trainer.close();
  } catch (e) {
    if (!(e instanceof OverLimit)) throw e;
  }
}
const inputs = { lr: 0.01, x: { dtype: 'f32' as const, shape: [batch, ...network.input.slice(1)], data: numbers(batch * network.input.slice(1).reduce((n, d) => n * d), 77) }, y: BigInt64Array.from({ length: batch }, (_, i) => BigInt(i % network.classes)) };
for (let k = 0; k < steps + warmUp; k++) {
  // From equal weights, for rounding grows from step to step whatever its cause.
  const weights = await first.trainer.parameters();
  for (const row of rows) {
    if (row !== first) await row.trainer.setParameters(weights);
    const start = performance.now();
    const { loss } = await row.trainer.trainStep(inputs);
    if (k >= warmUp) row.times.push(performance.now() - start);
    row.losses.push(loss);
  }
}
for (const { trainer } of rows) await trainer.close();

const shown = rows.map((r) => ({
  limit: r.limit, samples: r.samples, recompute: r.recompute, arena: r.arena, smaller: first.arena / r.arena, ms: median(r.times), slower: median(r.times) / median(first.times),
  loss: r.losses.at(-1)!, difference: Math.max(...r.losses.map((l, i) => Math.abs(l - first.losses[i]!) / Math.abs(first.losses[i]!))),
}));
if (options.json) sayJson({ network: network.name, batch, threads, node: process.version, rows: shown });
else {
  say(`${network.name} at batch ${batch}, ${threads} threads, median of ${steps} interleaved steps, Node ${process.version}`);
  const cells = shown.map((r) => [r.limit === undefined ? 'none' : bytes(r.limit), String(r.samples), r.recompute ?? '', bytes(r.arena), `${r.smaller.toFixed(1)}x`, ms(r.ms), `${r.slower.toFixed(3)}x`, r.loss.toFixed(6), r.difference.toExponential(1)]);
  for (const line of table(['limit', 'samples at a time', 'recompute', 'arena', 'smaller', 'a step', 'time', 'last loss', 'largest relative difference'], cells, [0, 1, 3, 4, 5, 6, 7, 8])) say(line);
}
if (options.figure !== undefined) {
  const points = shown.map((r): [number, number] => [r.arena / 2 ** 20, r.ms]).reverse();
  writeChart(options.figure, `A training step under a limit of memory: ${network.name}, batch ${batch}`, [{ title: `${threads} threads`, x: 'arena in MiB', y: 'ms a step', log: ['x'], lines: [{ name: 'step', points }] }]);
}
