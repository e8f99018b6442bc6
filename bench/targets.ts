/**
 * The speed of kernels that are cut for two targets:
 * npm run bench:targets -- MODEL... --target cpu --against cpu:1024 [--checkout FOLDER] [--threads 1] [--rounds 30] [--steps 0] [--only TEXT]
 * A target is a name or a file, as for compile; cpu:1024 is cpu with tiles of 1024 KiB. With --checkout the second contender is what another checkout of the project compiles, for the target that it has
 * without an option. A model is an .onnx file, `layers` (layers whose operands are larger than caches), or `resnet20-group` or `resnet20-batch` (a training step). Both take turns in one process; printed are
 * the medians, and the median of a round's ratios with an interval that holds it with a probability of 95 %; with --steps N also the N steps that differ most.
 */
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { compile, type Artifact, type CompileOptions } from '../cli/driver/compile.ts';
import { bestFeatures } from '../cli/model.ts';
import { targetOf } from '../cli/plan/target.ts';
import { table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import type { TileTarget } from '../passes/tile/target.ts';
import type { InputValue } from '../runtime/index.ts';
import { sampleTensors } from '../runtime/selfcheck.ts';
import { largeLayers } from './large-layers.ts';
import { commandLine, text } from './options.ts';
import { medianInterval } from './pairs.ts';
import { numbers, resnet20 } from './train-networks.ts';
import { profiledInTurns, timedInTurns } from './turns.ts';

const { options, operands } = commandLine('npm run bench:targets', 'MODEL...', { target: 'cpu', against: 'cpu:1024', checkout: text('FOLDER'), threads: 1, rounds: 30, steps: 0, only: '' });

/** A model to compile, and what its runs get; inputs are made up where nothing is said. */
interface Case { readonly name: string; readonly model: string | Uint8Array; readonly options: CompileOptions; readonly inputs?: Readonly<Record<string, InputValue>> }
type Compile = (model: string | Uint8Array, options: CompileOptions) => Promise<Artifact>;

function casesOf(operand: string): Case[] {
  if (operand === 'layers') return largeLayers().map(({ name, model }) => ({ name, model, options: { file: name } }));
  const norm = (['group', 'batch'] as const).find((n) => operand === `resnet20-${n}`);
  if (!norm) return [{ name: operand.split('/').at(-1)!, model: operand, options: {} }];
  const { name, model, input, classes } = resnet20(norm);
  const inputs = { x: numbers(input.reduce((n, d) => n * d), 77), y: BigInt64Array.from({ length: input[0] }, (_, i) => BigInt(i % classes)), lr: Float32Array.of(0.01) };
  return [{ name: operand, model, options: { file: name, train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } } }, inputs }];
}

function machine(name: string): Promise<TileTarget> {
  const [, target, kib] = /^(.*?)(?::(\d+))?$/.exec(name) as unknown as [string, string, string | undefined];
  return targetOf({ target, ...(kib !== undefined && { tileMemory: Number(kib) * 1024 }) });
}

const own = await machine(options.target);
const names = [options.target, options.checkout ?? options.against] as const;
const other: Compile = options.checkout === undefined
  ? ((against) => (model, o) => compile(model, { ...o, target: against }))(await machine(options.against))
  : ((await import(pathToFileURL(join(resolve(options.checkout), 'cli/driver/compile.ts')).href)) as { readonly compile: Compile }).compile;

console.log(`| model | ${names[0]}, ms | ${names[1]}, ms | ratio | interval |\n|---|---|---|---|---|`);
const differing: string[] = [];
for (const c of operands.flatMap(casesOf).filter((x) => x.name.includes(options.only))) {
  const common: CompileOptions = { ...c.options, features: [bestFeatures()], profile: options.steps > 0 };
  const artifacts = new Map([['own', await compile(c.model, { ...common, target: own })], ['other', await other(c.model, common)]]);
  const inputs = c.inputs ?? sampleTensors(artifacts.get('own')!.manifest.inputs);
  const times = await timedInTurns(artifacts, inputs, { threads: options.threads, rounds: options.rounds });
  const [ours, others] = [times.get('own')!, times.get('other')!];
  const ratios = ours.map((t, i) => t / others[i]!).sort((a, b) => a - b);
  console.log(`| ${[c.name, median(ours).toFixed(2), median(others).toFixed(2), median(ratios).toFixed(3), medianInterval(ratios).map((r) => r.toFixed(3)).join(' to ')].join(' | ')} |`);
  if (options.steps > 0) differing.push(`\n${c.name}`, ...(await largestDifferences(artifacts, inputs)));
}
for (const line of differing) console.log(line);

/** The kernels whose times differ most. */
async function largestDifferences(artifacts: ReadonlyMap<string, Artifact>, inputs: Readonly<Record<string, InputValue>>): Promise<string[]> {
  const kinds = await profiledInTurns(artifacts, inputs, options.threads);
  const [own, others] = [kinds.get('own')!, kinds.get('other')!];
  const all = [...new Set([...own.keys(), ...others.keys()])].map((key) => ({ key, own: own.get(key) ?? 0, other: others.get(key) ?? 0 }));
  const most = all.sort((a, b) => Math.abs(b.own - b.other) - Math.abs(a.own - a.other)).slice(0, options.steps);
  return table(['ms', 'against', 'kernel, operations, bytes, from'], most.map((r) => [r.own.toFixed(3), r.other.toFixed(3), r.key]), [0, 1]);
}
