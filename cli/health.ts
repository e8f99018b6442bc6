/** tilewright health: how the power of each normalization's result is split over channels, samples and positions. */
import { writeFileSync } from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import { importModel, type ImportedModel } from '../frontend/index.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, randomModel } from '../frontend/zoo/index.ts';
import { UserError } from '../ir/diagnostic.ts';
import { PowerSums } from '../passes/norm/channel-statistics.ts';
import { parseNorms, showNorm, type NormKind, type NormSpec } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { reason } from '../runtime/bytes.ts';
import { inputBatches, randomBatches, type DataBatches } from './data/inputs-of-model.ts';
import { measure } from './driver/measure.ts';
import { wasmTarget } from './driver/target.ts';
import { healthPage, type VariantPower } from './health/page.ts';
import { readTensor } from './inputs.ts';
import { channelOptions, jsonOption, positive, refuseOption, samplesOption, wholeNumber } from './options.ts';
import { note, say, sayJson, table, withProgress } from './print.ts';
import { boundBatch } from './train/model.ts';

interface Options {
  readonly data?: readonly string[];
  readonly mean?: number[];
  readonly std?: number[];
  readonly random?: boolean;
  readonly layers: number;
  readonly channels: number;
  readonly size: number;
  readonly norms?: readonly NormSpec[];
  readonly normReference?: string;
  readonly batch: number;
  readonly samples: number;
  readonly seed: number;
  readonly output?: string;
  readonly json?: boolean;
}

/** Adds the command. */
export function healthCommand(program: Command): void {
  const command = program
    .command('health')
    .description('split the power of what each normalization gives over channels, samples and positions (P1 to P4), by depth')
    .argument('[model]', 'an .onnx file; with --random alone, a random network')
    .addOption(samplesOption('samples'))
    .option('--random', 'standard normal samples in place of data; without a model, of a network of random weights')
    .option('--layers <n>', 'of the random network', positive, 40)
    .option('--channels <n>', 'of the random network', positive, 64)
    .option('--size <n>', 'height and width of the random network’s pictures', positive, 8)
    .option('--norms <list>', 'normalizations to compare, as --norm writes them: batch,layer,layer+proxy (default: the model’s own)', normList)
    .option('--norm-reference <file>', 'with virtual among --norms: samples (.npy, .pb) whose statistics it uses')
    .option('--batch <n>', 'samples of a batch', positive, 64)
    .option('--samples <n>', 'most samples to look at', positive, 1024)
    .option('--seed <n>', 'of random samples and weights', wholeNumber, 0)
    .option('-o, --output <file>', 'an HTML page with four panels over depth')
    .addOption(jsonOption());
  for (const option of channelOptions('with --data: ')) command.addOption(option);
  command.action(run);
}

async function run(path: string | undefined, options: Options, command: Command): Promise<void> {
  const model = opened(path, options, command);
  const most = Math.max(1, Math.floor(options.samples / options.batch));
  // A random network has as many samples as the article’s: one batch.
  const { batches }: DataBatches = options.random ? randomBatches(model, options.batch, path === undefined ? 1 : most, options.seed) : await inputBatches(model, { data: options.data!, ...(options.mean && { mean: options.mean }), ...(options.std && { std: options.std }) }, options.batch, most);
  const wanted = specsOf(options) ?? [undefined];
  const problems: { readonly norm: string; readonly error: UserError }[] = [];
  const variants = await withProgress('measuring', async (report) => {
    const out: VariantPower[] = [];
    for (const [i, norm] of wanted.entries()) {
      report(norm ? showNorm(norm) : 'as it is', i, wanted.length);
      try {
        out.push(await variantPower(model, norm, options, batches));
      } catch (e) {
        if (!(e instanceof UserError)) throw e;
        problems.push({ norm: norm ? showNorm(norm) : 'as it is', error: e });
      }
    }
    return out;
  });
  const [first] = problems;
  if (first && variants.length === 0) throw first.error;
  for (const { norm, error } of problems) note(`${norm} is not measured: ${error.message}`);
  const samples = batches.length * options.batch;
  const title = path ?? `a random network of ${options.layers} layers`;
  const about = `${samples} ${options.random ? 'standard normal samples' : `samples of ${options.data!.join(' and ')}`} in batches of ${options.batch}. The mean of y², y being what a normalization gives before scale and shift, is P1 + P2 + P3 + P4.${problems.map(({ norm }) => ` ${norm} could not be measured.`).join('')}`;
  if (options.output !== undefined) writePage(options.output, healthPage(`Health of ${title}`, about, variants));
  if (options.json) return sayJson({ model: title, samples, batch: options.batch, variants, notMeasured: problems.map(({ norm, error }) => ({ norm, reason: error.message })) });
  for (const { norm, layers } of variants) {
    say(`${title}: ${norm}`);
    for (const line of table(['node', 'channels', 'P1', 'P2', 'P3', 'P4', 'sum'], layers.map((l) => [l.node, String(l.channels), ...[l.p1, l.p2, l.p3, l.p4, l.p1 + l.p2 + l.p3 + l.p4].map((p) => p.toFixed(4))]), [1, 2, 3, 4, 5, 6])) say(`  ${line}`);
  }
  if (options.output !== undefined) say(`wrote ${options.output}`);
}

/** The model, for batches of the size asked for. */
function opened(path: string | undefined, options: Options, command: Command): ImportedModel {
  refuseOption(options.random === true && options.data !== undefined, '--random', 'takes the place of --data; give one of them');
  if (path !== undefined) {
    for (const option of ['layers', 'channels', 'size']) refuseOption(command.getOptionValueSource(option) === 'cli', `--${option}`, 'is of the random network, which stands for no model');
    if (!options.random && !options.data) throw new UserError('health needs samples: give --data SAMPLES, or --random for standard normal ones');
    return importModel(path, { dims: boundBatch(path, options.batch, {}).dims });
  }
  if (!options.random) throw new UserError('health needs a model, or --random for a random network');
  refuseOption(options.mean !== undefined || options.std !== undefined, '--mean and --std', 'go with --data');
  const model = randomModel(options.layers, [options.channels, options.size, options.size]);
  return importModel(onnxBytes(model, (w) => initialValues(w, options.seed)), { dims: { n: options.batch }, file: model.name });
}

/** The norms to compare; virtual ones with their reference batch. */
function specsOf({ norms, normReference: file }: Options): readonly NormSpec[] | undefined {
  refuseOption(file !== undefined && !norms?.some((n) => n.kind === 'virtual'), '--norm-reference', 'needs virtual among --norms');
  const reference = file === undefined ? undefined : readTensor(file);
  return norms?.map((n) => (n.kind === 'virtual' && reference ? { ...n, reference } : n));
}

/** Norms whose statistics are not those of their input in a batch or a sample alone: they are measured by what they give. */
const measuredByResult: ReadonlySet<NormKind> = new Set(['none', 'renorm', 'ghost', 'virtual', 'domains']);

/** Measures a model, rewritten where a norm is given. */
async function variantPower(model: ImportedModel, norm: NormSpec | undefined, { batch, random }: Options, batches: DataBatches['batches']): Promise<VariantPower> {
  const rewritten = norm && rewriteNorms(model, norm, wasmTarget);
  const byResult = norm && rewritten && measuredByResult.has(norm.kind) && rewritten.normalized.length > 0 ? { normalized: rewritten.normalized, before: model.graph } : undefined;
  if (norm?.kind === 'domains' && !random) throw new UserError('files of samples do not say which domain each sample belongs to; compare statistics by domain on random samples (--random), whose domains take turns');
  const domain = norm?.kind === 'domains' ? { domain: BigInt64Array.from({ length: batch }, (_, i) => BigInt(i % (norm.size ?? 1))) } : undefined;
  let sums: readonly PowerSums[] = [];
  const { norms, left } = await measure({ ...model, ...rewritten }, batch, made(batches.map((make) => () => ({ ...make(), ...domain }))), (found) => {
    sums = found.map((n) => new PowerSums(n));
    return (i, moments) => sums[i]!.add(moments);
  }, byResult);
  for (const { node, why } of left) note(`${node} ${why}, and is not measured`);
  return { norm: norm ? showNorm(norm) : 'as it is', layers: norms.map(({ node, channels }, i) => ({ node, channels, ...sums[i]!.parts() })) };
}

function* made<T>(makers: readonly (() => T)[]): Generator<T> {
  for (const make of makers) yield make();
}

function writePage(path: string, page: string): void {
  try {
    writeFileSync(path, page);
  } catch (e) {
    throw new UserError(`cannot write ${path}: ${reason(e)}`);
  }
}

function normList(text: string): NormSpec[] {
  try {
    return parseNorms(text);
  } catch (e) {
    if (e instanceof UserError) throw new InvalidArgumentError(e.message);
    throw e;
  }
}
