/** tilewright simulate: executes the tile program of a model, or of a step of its training, and compares it with the interpreter. */
import type { Command } from 'commander';
import { Option } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { showType, type Tensor } from '../ir/type.ts';
import { levelsOf } from '../passes/tile/fit.ts';
import { regionsInParts } from '../passes/tile/fit-parts.ts';
import { withRegions } from '../passes/tile/parts/narrow.ts';
import { digest } from '../passes/tile/plan.ts';
import { recomputeLevels, type Recompute } from '../passes/tile/recompute.ts';
import { runTiled } from './driver/simulate.ts';
import type { ImageOptions } from './image.ts';
import { readInputs, readTensors } from './inputs.ts';
import { modelInputs, readModelGraph } from './model.ts';
import { normOf, normOptions, type NormOptions } from './norm.ts';
import { dimOption, inputOption, jsonOption, refuseOption, tileOptions, valueOption, wholeNumber } from './options.ts';
import { buildGraph, prepared } from './plan/build.ts';
import { leastRecomputation, type Chosen } from './plan/least-recomputation.ts';
import { readPlan } from './plan/read.ts';
import { targetHelp, targetOf } from './plan/target.ts';
import { ms, note, preview, say, sayJson, table, whole, withProgress } from './print.ts';
import { differenceOf, madeUp, type Difference } from './simulate/judge.ts';
import { refuseStepOptions, trainOptions, withStepOptions, type StepOptions } from './train/options.ts';

interface Options extends StepOptions, NormOptions {
  readonly target: string;
  readonly tiles?: number;
  readonly tileMemory?: number;
  readonly dtype?: 'f16' | 'f32';
  readonly train?: boolean;
  readonly recompute: Recompute | 'auto';
  readonly plan?: string;
  readonly input?: Record<string, string>;
  readonly seed: number;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly json?: boolean;
}

/** Adds the command. */
export function simulateCommand(program: Command): void {
  const command = program
    .command('simulate')
    .description('execute the tile program of a model, or of a step of its training, on simulated tiles: outputs, how far they are from the interpreter’s, bytes of every tile; exit code 3: it does not fit')
    .argument('<model>', 'an .onnx file')
    .option('--target <name>', targetHelp, 'mk2')
    .addOption(new Option('--dtype <dtype>', 'how tensors are stored').choices(['f16', 'f32']).default('f32'))
    .option('--train', 'a step of training, with the options below')
    .addOption(new Option('--recompute <what>', 'what the backward pass computes again, or the least that fits').choices([...recomputeLevels, 'auto']).default('auto'))
    .option('--plan <file>', 'execute this plan of the model (tilewright plan --json) instead of a new one')
    .addOption(inputOption('pictures', 'the name may be left out if there is one input; what is not given is made up'))
    .option('--seed <n>', 'of made-up inputs', wholeNumber, 1)
    .addOption(dimOption())
    .addOption(valueOption())
    .addOption(jsonOption());
  for (const option of tileOptions()) command.addOption(option);
  normOptions(withStepOptions(command)).action(run);
}

async function run(model: string, options: Options, command: Command): Promise<void> {
  if (!options.train && command.getOptionValueSource('batch') !== 'cli') refuseStepOptions(command);
  for (const name of ['tiles', 'tileMemory', 'recompute'] as const) refuseOption(options.plan !== undefined && command.getOptionValueSource(name) === 'cli', command.options.find((o) => o.attributeName() === name)!.long!, 'does not go with --plan, which says it');
  const spec = normOf(options);
  const values = options.value && readTensors(options.value);
  const simple = buildGraph({
    model, batch: options.batch ?? 1, dtype: options.dtype ?? 'f32', ...(spec && { norm: spec }), ...(options.train && { train: trainOptions(options, { gradients: options.plan === undefined }) }),
    ...(options.dim && { dims: options.dim }), ...(values && { values }),
  });
  const [first] = simple.inputs;
  if (options.batch !== undefined && first && first.type.shape[0] !== options.batch) throw new UserError(`--batch ${options.batch}: the input ${first.name ?? ''} of ${model} is ${showType(first.type)}, whose batch is fixed`);
  const given = await readInputs(options.input ?? {}, modelInputs(readModelGraph(model)), images);
  const { graph, plan, recompute, regions } = options.plan === undefined ? leastRecomputation(simple, { model, target: await targetOf(options), levels: options.train ? levelsOf(options.recompute) : ['none'], samples: options.batch ?? 1, parts: options.recompute === 'auto' }) : planOf(simple, options.plan);
  const inputs = madeUp(simple, given, options.seed);
  const missing = simple.inputs.filter((v) => given[v.name ?? ''] === undefined).map((v) => v.name ?? '?');
  const started = performance.now();
  const { tiles, reference } = await withProgress(model, (report) => {
    report('tiles', 0, 2);
    const run = runTiled({ graph, planned: { plan } }, inputs);
    report('interpreter', 1, 2);
    return Promise.resolve({ tiles: run, reference: evaluate(simple, inputs) });
  });
  const time = performance.now() - started;
  const names = new Map(simple.state.map((s) => [s.value, s.name]));
  const results = [
    ...[...reference.outputs].map(([name, want]) => ({ name, kind: 'output', tensor: tiles.outputs.get(name)!, ...differenceOf(tiles.outputs.get(name)!, want) })),
    ...[...reference.state].map(([v, want]) => ({ name: names.get(v)!, kind: 'state', tensor: tiles.named.get(names.get(v)!)!, ...differenceOf(tiles.named.get(names.get(v)!)!, want) })),
  ];
  const used = [...tiles.used].map((n) => n + plan.memory.code);
  if (options.json) {
    sayJson({
      target: plan.target, tiles: plan.tiles, bytesPerTile: plan.bytesPerTile, recompute, ...(regions && { regions }), steps: plan.steps.length, madeUp: missing, memory: plan.memory, used, simulateMs: time,
      results: results.map(({ name, kind, tensor, largest, relative }) => ({ name, kind, dtype: tensor.dtype, shape: tensor.shape, largest, relative, ...(kind === 'output' && tensor.data.length === 1 && { value: Number(tensor.data[0]) }) })),
    });
    return;
  }
  if (missing.length > 0) note(`made up from seed ${options.seed}: ${missing.join(', ')}`);
  show(results);
  const most = used.reduce((a, b) => Math.max(a, b), 0);
  say(`\n${plan.target}, ${whole(plan.tiles)} tiles of ${whole(plan.bytesPerTile)} bytes, recompute ${recompute}${regions ? `, ${regionsInParts(regions)}` : ''}: ${plan.steps.length} steps in ${ms(time)}`);
  say(`bytes used of a tile, ${whole(plan.memory.code)} of code included: at most ${whole(most)} on tile ${used.indexOf(most)}, at least ${whole(used.reduce((a, b) => Math.min(a, b), most))}`);
  const worst = results.reduce((a, b) => (b.relative > a.relative || Number.isNaN(b.relative) ? b : a), results[0]!);
  say(`largest difference from the interpreter: ${worst.relative.toExponential(1)} of the largest element, in ${worst.name}`);
}

const images: ImageOptions = { size: undefined, layout: undefined, scale: undefined, mean: [], std: [], gray: false };

/** A plan from a file, with the graph that it was made for. */
function planOf(simple: Graph, file: string): Chosen {
  const plan = readPlan(file);
  for (const recompute of levelsOf('auto')) {
    const whole = prepared(simple, recompute);
    const { of, regions } = plan.inParts ?? { of: plan.graph, regions: undefined };
    if (digest(whole) !== of) continue;
    const graph = regions ? withRegions(whole, regions) : whole;
    if (graph && digest(graph) === plan.graph) return { graph, plan, recompute, ...(regions && { regions }) };
  }
  throw new UserError(`${file} is a plan of ${plan.model}, made for another graph than these options give (digest ${plan.graph}); give the model, --batch, --dtype and step options that it was made with`);
}

function show(results: readonly (Difference & { readonly name: string; readonly kind: string; readonly tensor: Tensor })[]): void {
  const rows = results.map((r) => [r.kind, r.name, showType(r.tensor), r.largest.toExponential(1), r.relative.toExponential(1), preview(r.tensor, 4)]);
  for (const line of table(['', 'name', 'type', 'difference', 'relative', 'value'], rows, [3, 4])) say(line);
}
