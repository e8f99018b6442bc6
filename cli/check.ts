/** tilewright check: whether the samples of a batch influence each other, and what is wrong with normalizations. */
import type { Command } from 'commander';
import { importModel, type ImportedModel } from '../frontend/index.ts';
import { UserError } from '../ir/diagnostic.ts';
import { samplesFirst, type BatchAxes } from '../passes/batch-independence/batch-axes.ts';
import { proofBatches, proveBatchIndependence, type BatchIndependence } from '../passes/batch-independence.ts';
import { findNorms } from '../passes/norm/find-norms.ts';
import { lintNorms, type Finding } from '../passes/norm/lint-norms.ts';
import { followsBatch, showNorm, type NormSpec } from '../passes/norm/options.ts';
import { rewriteNorms, type NormalizedModel } from '../passes/norm/rewrite-norms.ts';
import { batchOf } from '../passes/train/sample-factors.ts';
import { wasmTarget } from './driver/target.ts';
import { readTensors } from './inputs.ts';
import { checkOnData, sayData, type DataReport } from './check/data.ts';
import { normOf, normOptions, rewriteFacts, showRewrite, type NormOptions } from './norm.ts';
import { batchAxisOption, channelOptions, dimOption, jsonOption, positive, refuseOption, samplesOption, valueOption } from './options.ts';
import { note, say, sayJson } from './print.ts';
import { boundBatch } from './train/model.ts';

interface Options extends NormOptions {
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly batchAxis?: BatchAxes;
  readonly inference?: boolean;
  readonly data?: readonly string[];
  readonly batch?: number;
  readonly mean?: number[];
  readonly std?: number[];
  readonly json?: boolean;
}

/** Adds the command. */
export function checkCommand(program: Command): void {
  const command = program
    .command('check')
    .description('prove that no sample of a batch influences another, and report pitfalls of batch normalization; exit code 0: batch-independent, 1: not')
    .argument('<model>', 'an .onnx file')
    .addOption(dimOption())
    .addOption(valueOption())
    .addOption(batchAxisOption())
    .option('--inference', 'judge the model as it works in inference, whatever mode it was exported in')
    .addOption(samplesOption('also judge batches and running statistics on samples'))
    .option('--batch <n>', 'with --data: samples of a batch (default: 64)', positive)
    .addOption(jsonOption());
  for (const option of channelOptions('with --data: ')) command.addOption(option);
  normOptions(command).action(run);
}

async function run(path: string, options: Options): Promise<void> {
  for (const option of ['batch', 'mean', 'std'] as const) refuseOption(options.data === undefined && options[option] !== undefined, `--${option}`, 'goes with --data');
  refuseOption(options.data !== undefined && options.batchAxis !== undefined, '--batch-axis', 'does not go with --data: samples of files are on the first axis');
  const spec = normOf(options);
  const { models, fixed, warnings } = specialisations(path, options);
  const rewrites = spec && models.map((m) => rewriteNorms(m, spec, wasmTarget, { ...(options.inference && { inference: true }) }));
  const [model, other] = rewrites ?? models;
  const rewrite = rewrites?.[0];
  const [first, second] = models;
  const verdict = proveBatchIndependence(model!.graph, wasmTarget, other?.graph, second && [first!, second]);
  const report = options.data && (await onData(path, { ...options, data: options.data }));
  // Norms that follow the batch in another way are what they were made of, with what is odd about that: the rewritten form shows less.
  const followed = spec && followsBatch(spec) && !options.inference ? spec : undefined;
  const linted = lintNorms(followed ? first! : model!, { ...(followed && { spec: followed }), ...(options.batch !== undefined && { batch: options.batch }) });
  const findings = [...(verdict.proved ? [] : [dependence(verdict, followed ? first! : model!, followed)]), ...linted, ...(report?.findings ?? [])];
  process.exitCode = verdict.proved ? 0 : 1;
  for (const w of warnings) note(`warning: ${w}`);
  if (fixed !== undefined) note(`the model has a fixed batch of ${fixed}: numbers that were computed from it on export count as constants`);
  if (options.json) return sayJson({ model: path, ...(spec && { norm: showNorm(spec) }), ...(spec && rewrite && { norms: rewriteFacts(rewrite, spec) }), batchIndependent: verdict.proved, findings, ...(report && { data: { samples: report.samples, batch: report.batch, norms: report.norms } }), warnings });
  say(`${path}: ${verdict.proved ? 'batch-independent, proved' : 'not batch-independent'}`);
  if (spec && rewrite) showRewrite(rewrite, spec).forEach(say);
  if (report) sayData(report);
  for (const f of findings) {
    say(`${f.rule}: ${f.nodes.slice(0, 3).join(', ')}${f.nodes.length > 3 ? ` and ${f.nodes.length - 3} more` : ''}`);
    say(`  ${f.reason}`);
    say(`  remedy: ${f.remedy}`);
  }
}

/** Judges the model as its file has it: a rewrite has no statistics yet that data could be compared with. */
function onData(path: string, options: Options & { readonly data: readonly string[] }): Promise<DataReport> {
  refuseOption(options.norm !== undefined, '--norm', 'does not go with --data: data is compared with the statistics that the model has');
  const { batch = 64, data, mean, std } = options;
  const model = importModel(path, { dims: { ...boundBatch(path, batch, options.dim ?? {}).dims }, ...(options.inference && { inference: true }) });
  return checkOnData(model, { data, ...(mean && { mean }), ...(std && { std }) }, batch);
}

/** The model at two batch sizes, or at its own where that is fixed. */
function specialisations(path: string, options: Options): { readonly models: readonly ImportedModel[]; readonly fixed: number | undefined; readonly warnings: readonly string[] } {
  const values = options.value && readTensors(options.value);
  const axes = options.batchAxis ?? {};
  const at = (sizes: Readonly<Record<string, number>>): ImportedModel => {
    const model = importModel(path, { dims: { ...sizes, ...options.dim }, ...(values && { values }), ...(options.inference && { inference: true }) });
    return { ...model, graph: samplesFirst(model.graph, axes) };
  };
  const first = at({});
  const input = first.inputs.find((i) => i.dims.length > 0 && axes[i.name] !== 'none');
  const place = Number(axes[input?.name ?? ''] ?? 0);
  const axis = input?.dims[place];
  if (!input) throw new UserError(`${path}: the batch axis cannot be found: ${first.inputs[0] ? `the input "${first.inputs[0].name}" is a scalar` : 'the model has no inputs'}; samples are followed from the first axis of every input that has one, or from that of --batch-axis INPUT=AXIS`);
  const symbol = axis ?? `${input.name}.${place}`;
  if (typeof symbol === 'number' || options.dim?.[symbol] !== undefined) return { models: [first], fixed: batchOf(first.graph), warnings: first.warnings };
  // Ghost batches have to divide the batch.
  const part = options.norm?.kind === 'ghost' ? (options.norm.size ?? 1) : 1;
  const models = proofBatches.map((n) => at({ [symbol]: n * part }));
  return { models, fixed: undefined, warnings: models[0]!.warnings };
}

function dependence(verdict: Extract<BatchIndependence, { proved: false }>, { graph, statistics }: NormalizedModel, spec: NormSpec | undefined): Finding {
  const { op, reason } = verdict;
  const norm = findNorms(graph, statistics).find((n) => (n.form === 'training' || spec) && n.last.source.join() === op.source.join());
  const remedy = norm
    ? 'rewrite the batch normalizations (--norm group:4+proxy, or another norm of one sample), or judge the model as it works in inference (--inference)'
    : 'let the op work along another axis; if the batch is meant to be joined there, train without micro-batches';
  const parts = norm && spec?.kind === 'ghost' ? `it normalizes parts of ${spec.size ?? 1} samples of the batch by themselves: a sample depends on the others of its part` : undefined;
  const domain = norm && spec?.kind === 'domains' ? 'it joins the samples of a domain: a sample depends on the others of its domain in the batch' : undefined;
  return { rule: 'batch-dependence', nodes: [op.source.join(', ') || op.name], reason: parts ?? domain ?? reason, remedy };
}
