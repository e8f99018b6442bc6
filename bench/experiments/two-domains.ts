/** Two domains of pictures and one network: what becomes of batch norm where each batch is normalized by domain and running statistics are shared. */
import { join } from 'node:path';
import { measure } from '../../cli/driver/measure.ts';
import { importModel } from '../../frontend/index.ts';
import { onnxBytes } from '../../frontend/onnx/write.ts';
import { Network, type ZooModel, type ZooNorm } from '../../frontend/zoo/index.ts';
import { convnet } from '../../frontend/zoo/convnet.ts';
import { findNorms } from '../../passes/norm/find-norms.ts';
import { judgeStatistics, NormData } from '../../passes/norm/judge-statistics.ts';
import { nodeOf, sharedStatistics } from '../../passes/norm/lint-norms.ts';
import { batchesOf, type Epoch, type Samples, type Tensor } from '../../runtime/index.ts';
import { writeChart } from '../plot.ts';
import { mnist, optdigits } from './data.ts';
import { figures, seedsText, spread, writeRuns, writeTable } from './report.ts';
import { accuracyOf, Training } from './training.ts';

const widths = [16, 32];
const [batch, epochs, lr] = [64, 2, 0.05];
const domains = ['mnist', 'optdigits'] as const;

/** One network for the whole batch, or a tower for each half of it, with shared weights; `own`: each tower has running statistics of its own. */
function network(norm: ZooNorm, form: 'whole' | 'towers' | 'sharing towers', training = true): ZooModel {
  const net = new Network(training);
  const x = net.input([1, 28, 28]);
  const tower = (half: typeof x, domain?: string): typeof x => convnet(net, half, { widths, norm, classes: 10, ...(domain !== undefined && { domain }) });
  if (form === 'whole') return net.finish('digits', tower(x));
  const halves = net.nodes('Split', 'domains', [x], 2, { axis: 0, num_outputs: 2 }).map((name) => ({ name, shape: x.shape }));
  const logits = halves.map((half, d) => tower(half, form === 'towers' ? `.${domains[d]!}` : undefined));
  return net.finish('digits', net.node('Concat', 'both', logits, logits[0]!.shape, { axis: 0 }));
}

/** Batches whose first half is of the first domain. */
function halves(inputs: Training['inputs'], samples: readonly Samples[], seed: number): (epoch: number) => Epoch {
  const half = (t: { readonly name: string; readonly dtype: Training['inputs']['x']['dtype']; readonly shape: readonly number[] }): Training['inputs']['x'] => ({ ...t, shape: [batch / 2, ...t.shape.slice(1)] });
  const parts = samples.map((s) => batchesOf(s, { x: half(inputs.x), y: half(inputs.y), classes: 10 }, { seed }));
  return (epoch) => {
    const both = parts.map((p) => p(epoch));
    return {
      batches: Math.min(...both.map((e) => e.batches)),
      at(b) {
        const [first, second] = both.map((e) => e.at(b)) as [ReturnType<Epoch['at']>, ReturnType<Epoch['at']>];
        return { x: Float32Array.from([...(first.x as Float32Array), ...(second.x as Float32Array)]), y: BigInt64Array.from([...(first.y as BigInt64Array), ...(second.y as BigInt64Array)]), count: batch };
      },
    };
  };
}

interface Found {
  readonly seed: number;
  readonly variant: string;
  readonly accuracies: readonly [number, number];
}

/** Runs the experiment on the first `samples` pictures of each domain. */
export async function twoDomains(data: string, seeds: readonly number[], samples: number, tests: number): Promise<void> {
  const train = [await mnist(data, 'train', samples), optdigits(data, 'tra', samples)];
  const test = [await mnist(data, 't10k', tests), optdigits(data, 'tes', tests)];
  const found: Found[] = [];
  const predicted: { readonly seed: number; readonly offset: number; readonly omitted: number }[] = [];
  const setup = (model: ZooModel) => ({ model, batch, lr, epochs, train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 5e-4 } } }) as const;
  const judge = async (seed: number, variant: string, norm: ZooNorm, weights: (domain: number) => (name: string) => Float32Array): Promise<void> => {
    const own = await Promise.all(test.map((t, d) => accuracyOf(network(norm, 'whole', false), weights(d), t)));
    found.push({ seed, variant, accuracies: own as [number, number] });
    console.error(`seed ${seed}, ${variant}: ${own.map((a, d) => `${domains[d]!} ${(100 * a).toFixed(2)} %`).join(', ')}`);
  };
  const batchNorm: ZooNorm = { kind: 'batch' };
  const layerProxy: ZooNorm = { kind: 'layer', proxy: {} };
  for (const [variant, norm] of [['batch norm, mixed batches', batchNorm], ['layer norm with Proxy Norm', layerProxy]] as const) {
    await using training = await Training.of(setup(network(norm, 'whole')));
    for (const seed of seeds) {
      const state = (await training.run(seed, halves(training.inputs, train, seed)))!;
      await judge(seed, variant, norm, () => (name) => state.get(name)!.data as Float32Array);
    }
  }
  // Running statistics have no part in training: one run serves both ways of keeping them.
  await using towers = await Training.of(setup(network(batchNorm, 'towers')));
  for (const seed of seeds) {
    const feed = halves(towers.inputs, train, seed);
    const state = (await towers.run(seed, feed))!;
    const own = (d: number) => (name: string): Float32Array => data32(state, name.replace('.running', `.${domains[d]!}.running`)) ?? data32(state, name)!;
    const shared = (name: string): Float32Array => (name.includes('.running') ? own(0)(name).map((v, c) => (v + own(1)(name)[c]!) / 2) : data32(state, name)!);
    await judge(seed, 'batch norm by domain, shared statistics', batchNorm, () => shared);
    await judge(seed, 'batch norm by domain, separate statistics', batchNorm, own);
    predicted.push({ seed, ...(await prediction(shared, feed(0))) });
  }
  report(found, predicted, samples);
}

const data32 = (state: ReadonlyMap<string, Tensor>, name: string): Float32Array | undefined => state.get(name)?.data as Float32Array | undefined;

/** What `check --data` says of the towers that share their statistics: the largest figures over the norms. */
async function prediction(weights: (name: string) => Float32Array, epoch: Epoch): Promise<{ readonly offset: number; readonly omitted: number }> {
  const model = importModel(onnxBytes(network({ kind: 'batch' }, 'sharing towers'), (w) => weights(w.name)), { dims: { n: batch } });
  const sharing = sharedStatistics(findNorms(model.graph, model.statistics), model.statistics).map((s) => s.norms.map(nodeOf));
  let norms: NormData[] = [];
  const batches = Array.from({ length: epoch.batches }, (_, b) => ({ x: epoch.at(b).x }));
  await measure(model, batch, batches, (list) => {
    norms = list.map((n) => new NormData(n));
    return (i, moments) => norms[i]!.add(moments);
  });
  const findings = judgeStatistics(norms, sharing).filter((f) => f.rule === 'shared-statistics');
  const most = (figure: string): number => Math.max(...findings.map((f) => f.figures![figure]!));
  return { offset: most('offset'), omitted: most('omittedVariance') };
}

/** What the legend of a picture has room for. */
const shortName = (variant: string): string => variant.replace('batch norm, ', '').replace('batch norm ', '').replace('layer norm with Proxy Norm', 'LN+PN').replace(' statistics', '');

function report(found: readonly Found[], predicted: readonly { readonly seed: number; readonly offset: number; readonly omitted: number }[], samples: number): void {
  const variants = [...new Set(found.map((f) => f.variant))];
  const range = (list: readonly number[]): string => (list.length === 1 ? list[0]!.toFixed(2) : `${Math.min(...list).toFixed(2)} to ${Math.max(...list).toFixed(2)}`);
  writeRuns('two-domains', ['seed', 'variant', ...domains], found.map((f) => [f.seed, f.variant.replaceAll(',', ';'), ...f.accuracies]));
  writeTable('two-domains', ['', 'MNIST, %', 'optdigits, %', '`check` on the training data'], variants.map((v) => {
    const runs = found.filter((f) => f.variant === v);
    const says = v.endsWith('shared statistics') ? `\`shared-towers\`: off by ${range(predicted.map((p) => p.offset))} deviations, ${range(predicted.map((p) => 100 * p.omitted))} % of the variance missing` : 'nothing about sharing';
    return [v, spread(runs.map((f) => f.accuracies[0])), spread(runs.map((f) => f.accuracies[1])), says];
  }), `Test accuracy, ${seedsText([...new Set(found.map((f) => f.seed))])}, after ${epochs} epochs of ${samples} pictures of each domain at most.`);
  writeChart(join(figures, 'two-domains.svg'), 'Two domains, one network', domains.map((domain, d) => ({
    title: `Test accuracy on ${domain}`, x: 'seed', y: 'accuracy, %', lines: variants.map((v) => ({ name: shortName(v), points: found.filter((f) => f.variant === v).map((f): [number, number] => [f.seed, 100 * f.accuracies[d]!]) })),
  })));
}
