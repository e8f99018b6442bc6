/** tilewright compile: from a model to an artifact's folder. */
import { writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename, extname, join, resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { backendOption, f16Option, gpuLimitOption, refuseF16, refuseGpuLimit } from './backend.ts';
import { compile, compileGraph, type Backend, type CompileOptions } from './driver/compile.ts';
import { rewrittenOnnx } from './driver/export.ts';
import { checkFolder, makeFolders } from './driver/folder.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { UserError } from '../ir/diagnostic.ts';
import type { Graph } from '../ir/graph.ts';
import { graphText } from '../ir/text.ts';
import type { NormSpec } from '../passes/norm/options.ts';
import { passes } from '../passes/pipeline.ts';
import { recomputeLevels, type Recompute } from '../passes/tile/recompute.ts';
import type { TileTarget } from '../passes/tile/target.ts';
import { reason } from '../runtime/bytes.ts';
import type { Features } from '../runtime/features.ts';
import { readTensors } from './inputs.ts';
import { modelInputs, readModelGraph } from './model.ts';
import { normOf, normOptions, rewriteFacts, showRewrite, type NormOptions } from './norm.ts';
import { dimOption, featureSets, jsonOption, memoryOption, refuseOption, tileOptions, valueOption } from './options.ts';
import { kernelFacts, showRelaxed, usualTarget } from './plan/kernels.ts';
import { targetHelp, targetOf } from './plan/target.ts';
import { bytes, ms, note, say, sayJson, withProgress } from './print.ts';
import { compileForTiles } from './tiles/compile.ts';
import { showMemory, stepMemory } from './train/memory.ts';
import { compileTraining, showFit } from './train/model.ts';
import { refuseStepOptions, trainOptions, withStepOptions, type StepOptions } from './train/options.ts';

interface Options extends StepOptions, NormOptions {
  readonly train?: boolean;
  readonly inference?: boolean;
  readonly memory?: number;
  readonly onnx?: string;
  readonly output?: string;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly backend: Backend;
  readonly fallback: boolean;
  readonly f16?: boolean;
  readonly gpuLimit?: GpuLimits;
  readonly features?: Features[];
  readonly profile?: boolean;
  readonly dumpIr?: string;
  readonly printAfter?: string[];
  readonly stopAfter?: string;
  readonly locations?: boolean;
  readonly json?: boolean;
  readonly target?: string;
  readonly tiles?: number;
  readonly tileMemory?: number;
  readonly dtype?: 'f16' | 'f32';
  readonly recompute?: Recompute | 'auto';
}

/** The stage that makes a tile program, in place of the passes behind it. */
const place = 'place';

/** Adds the command. */
export function compileCommand(program: Command): void {
  const passNames = ['import', ...new Set(passes.map((p) => p.name)), place];
  const command = program
    .command('compile')
    .description('compile an ONNX model to a folder: model.wasm (or shaders), manifest.json, weights.safetensors, model.js, model.d.ts')
    .argument('<model>', 'an .onnx file')
    .option('-o, --output <folder>', 'where to write; a folder with another artifact is replaced (default: the model’s name)')
    .addOption(dimOption())
    .addOption(valueOption())
    .addOption(backendOption())
    .addOption(f16Option('. With --train it goes with --precision mixed'))
    .addOption(gpuLimitOption('every adapter'))
    .option('--no-fallback', 'with --backend wgsl: leave out the same model for WebAssembly, which load() takes where there is no GPU')
    .option('--features <list>', 'feature sets to emit modules for, best first: wide, relaxed, simd, plain', featureSets)
    .option('--inference', 'compile the model as it works in inference, whatever mode it was exported in (with --norm it is, but for --train)')
    .option('--profile', 'note the time of every step when the artifact runs')
    .option('--dump-ir <folder>', 'write the IR after the import and after each pass that changed it, one numbered file each')
    .option('--print-after <passes>', `print the IR after these passes, a list with commas: ${passNames.join(', ')}`, passList(passNames))
    .addOption(new Option('--stop-after <pass>', 'stop there and print the IR; writes no artifact').choices(passNames))
    .option('--locations', 'print the ONNX nodes that each op came from')
    .addOption(jsonOption())
    .option('--train', 'make a training artifact, with the options below: entries step and eval over one state');
  command
    .option('--target <name>', `the machine: ${targetHelp}. For cpu (the default), host and files in their form kernels are cut for its tiles and bytes, and with --backend wgsl workgroups for gpu (the default then) and files in its form; for others the folder holds a tile program, plan.json and program.txt, which \`tilewright run\` executes on simulated tiles`)
    .addOption(new Option('--dtype <dtype>', 'how a tile program stores tensors (default: f32)').choices(['f16', 'f32']))
    .addOption(new Option('--recompute <what>', 'what the backward pass of a tile program computes again (default: auto, the least that fits)').choices([...recomputeLevels, 'auto']));
  for (const option of [...tileOptions(), memoryOption()]) command.addOption(option);
  withStepOptions(normOptions(command).option('--onnx <file>', 'write the rewritten model as ONNX too, in inference form')).action(run);
}

/** Parses a list of passes with commas; given again, the option adds to the list. */
const passList = (known: readonly string[]) => (text: string, before: readonly string[] = []): string[] => {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new InvalidArgumentError(`there is no pass ${unknown}; there are ${known.join(', ')}`);
  return [...before, ...names];
};

async function run(model: string, options: Options, command: Command): Promise<void> {
  const printsIr = options.printAfter !== undefined || options.stopAfter !== undefined;
  refuseOption(options.json === true && printsIr, '--json', 'does not go with --print-after and --stop-after, which print IR; write it to files with --dump-ir');
  if (!options.train) refuseStepOptions(command);
  refuseOption(!options.train && options.memory !== undefined, '--memory', 'goes with --train');
  refuseOption(options.train === true && options.stopAfter !== undefined, '--stop-after', 'does not go with --train; inspect --train --ir prints the step');
  refuseOption(options.train === true && options.inference === true, '--inference', 'does not go with --train, which makes an entry of each');
  refuseOption(options.backend !== 'wasm' && options.features !== undefined, '--features', 'names modules of WebAssembly; it does not go with --backend wgsl');
  refuseF16(options);
  refuseGpuLimit(options);
  refuseOption(options.backend === 'wasm' && !options.fallback, '--no-fallback', 'goes with --backend wgsl');
  const norm = normOf(options);
  if (options.onnx !== undefined) {
    refuseOption(!norm, '--onnx', 'writes a model whose normalizations are rewritten: it needs --norm or --weight-norm');
    refuseOption(options.train === true, '--onnx', 'does not go with --train: the artifact holds the rewritten model, and exportOnnx puts trained weights into it');
  }
  const folder = options.output ?? basename(model, extname(model));
  const values = options.value && readTensors(options.value);
  const machine = options.target === undefined && options.tiles === undefined && options.tileMemory === undefined ? undefined : await targetOf({ ...options, target: options.target ?? (options.backend === 'wgsl' ? 'gpu' : 'cpu') });
  const placed = options.printAfter?.includes(place) === true || options.stopAfter === place;
  refuseOption(machine?.backend === 'wasm' && options.backend === 'wgsl', '--target', `${machine?.name ?? ''} cuts kernels of WebAssembly; with --backend wgsl it is gpu, or a file that says "backend": "wgsl"`);
  if (machine && (machine.backend !== options.backend || placed)) return forTiles(model, machine, folder, norm, values, options, command);
  refuseTileOptions(options, command);
  if (options.stopAfter === undefined) await checkFolder(folder);
  const started = performance.now();
  const seen = new Set<string>();
  let observed = 0;
  const base: CompileOptions = {
    ...(options.dim && { dims: options.dim }),
    ...(values && { values }),
    backend: options.backend,
    ...(machine && { target: machine }),
    fallback: options.fallback,
    ...(options.f16 && { f16: true }),
    ...(options.gpuLimit && { gpuLimits: options.gpuLimit }),
    ...(options.features && { features: options.features }),
    ...(options.profile && { profile: true }),
    ...(options.inference && { inference: true }),
    ...(norm && { norm }),
    ...((options.dumpIr !== undefined || options.printAfter) && { onGraph: (graph, pass) => {
      seen.add(pass);
      observe(graph, pass, observed++, options);
    } }),
  };
  if (options.onnx !== undefined) await writeOnnx(options.onnx, model, norm!, base);
  if (options.stopAfter !== undefined) {
    const { graph } = compileGraph(model, { ...base, stopAfter: options.stopAfter });
    if (!options.printAfter?.includes(options.stopAfter) || !seen.has(options.stopAfter)) say(graphText(graph, { locations: options.locations ?? false }));
    return noteUnchanged(seen, options);
  }
  const artifact = await withProgress(basename(model), (onProgress) =>
    options.train ? compileTraining(model, trainOptions(options), options.batch, { ...base, ...(options.memory !== undefined && { memory: options.memory }), onProgress }) : compile(model, { ...base, onProgress }));
  noteUnchanged(seen, options);
  await artifact.save(folder);
  const time = performance.now() - started;
  for (const w of artifact.warnings) note(`warning: ${w}`);
  const { manifest } = artifact;
  const cutFor = machine ?? usualTarget(options.backend, options.gpuLimit?.maxComputeWorkgroupStorageSize);
  const modules = Object.entries(artifact.modules).map(([file, binary]) => ({ file, bytes: binary.byteLength }));
  const step = manifest.state && stepMemory(artifact.program, new Map(manifest.state.map((s) => [s.name, s.role])));
  const weights = manifest.weights.reduce((n, w) => n + w.bytes, 0);
  if (options.json) {
    sayJson({ folder, ...(artifact.fit && { fit: artifact.fit }), ...(norm && artifact.norms && { norms: rewriteFacts(artifact.norms, norm) }), ms: time, inputs: manifest.inputs, outputs: manifest.outputs, dims: manifest.dims, modules, weights, kernels: kernelFacts(manifest, cutFor), memory: { ...manifest.memory, scheduleBytes: artifact.program.memory.scheduleBytes, ...(step && { step }) }, steps: manifest.steps.length, warnings: artifact.warnings });
    return;
  }
  const code = manifest.gpu ? [`${manifest.gpu.shaders.length} shaders${artifact.fallback ? ' and WebAssembly' : ''}`] : modules.map((m) => `${m.file} ${bytes(m.bytes)}`);
  say(`${folder}: ${code.join(', ')}, weights ${bytes(weights)}, ${manifest.steps.length} steps, in ${ms(time)}`);
  if (norm && artifact.norms) showRewrite(artifact.norms, norm).forEach(say);
  if (artifact.fit) say(showFit(artifact.fit));
  if (step) say(showMemory(step));
  say(`memory: ${bytes(manifest.memory.weights)} weights, ${bytes(manifest.memory.activations)} activations (${bytes(artifact.program.memory.scheduleBytes)} live at once; ${bytes(manifest.memory.io)} inputs and outputs among them), ${bytes(manifest.memory.scratchPerThread)} scratch a thread`);
  showRelaxed(kernelFacts(manifest, cutFor));
}

/** Compiles to a tile program; options that say how WebAssembly or shaders are made do not go with it. */
async function forTiles(model: string, target: TileTarget, folder: string, norm: NormSpec | undefined, values: CompileOptions['values'], options: Options, command: Command): Promise<void> {
  for (const name of ['backend', 'features', 'profile', 'memory', 'onnx', 'dumpIr']) refuseOption(command.getOptionValueSource(name) === 'cli', longOf(command, name), `does not go with the tile program that ${target.backend === 'wasm' ? `--print-after ${place} and --stop-after ${place} make` : `--target ${target.name} makes`}`);
  const asked = [...(options.printAfter ?? []), ...(options.stopAfter === undefined ? [] : [options.stopAfter])].find((name) => name !== place);
  if (asked !== undefined) throw new UserError(`of the tile program for ${target.name} only its text is printed, after ${place}; ${target.backend === 'wasm' ? `leave out ${place}` : 'leave out --target'} to see the graph after ${asked}`);
  const write = options.stopAfter === undefined;
  if (write) await checkFolder(folder);
  return compileForTiles(model, {
    target, folder, norm, values, write, dims: options.dim, batch: options.batch ?? fixedBatch(model) ?? 1, dtype: options.dtype ?? 'f32', recompute: options.recompute ?? 'auto', json: options.json ?? false,
    train: options.train ? trainOptions(options) : undefined, print: options.printAfter !== undefined || options.stopAfter !== undefined,
  });
}

/** The batch of the model's first input, where the model says it. */
function fixedBatch(model: string): number | undefined {
  const first = modelInputs(readModelGraph(model))[0]?.dims?.[0];
  return typeof first === 'number' ? first : undefined;
}

function refuseTileOptions(options: Options, command: Command): void {
  for (const name of ['dtype', 'recompute'] as const) refuseOption(options[name] !== undefined, longOf(command, name), 'goes with a --target whose tiles have memories of their own');
  refuseOption(options.printAfter?.includes(place) === true || options.stopAfter === place, place, 'makes the tile program of a target: give --target');
}

const longOf = (command: Command, name: string): string => command.options.find((o) => o.attributeName() === name)!.long!;

async function writeOnnx(file: string, model: string, norm: NormSpec, { dims, values }: CompileOptions): Promise<void> {
  if (resolve(file) === resolve(model)) throw new UserError(`--onnx ${file} is the model itself; give another file`);
  const bytes = rewrittenOnnx(model, norm, { ...(dims && { dims }), ...(values && { values }) });
  await writeFile(file, bytes).catch((e: unknown) => {
    throw new UserError(`cannot write ${file}: ${reason(e)}`);
  });
}

/** Says which passes had nothing to print. */
function noteUnchanged(seen: ReadonlySet<string>, options: Options): void {
  for (const pass of options.printAfter ?? []) if (!seen.has(pass)) note(`${pass} changed nothing`);
}

function observe(graph: Graph, pass: string, index: number, options: Options): void {
  const text = graphText(graph, { locations: options.locations ?? false });
  if (options.printAfter?.includes(pass)) say(`// after ${pass}\n${text}`);
  if (options.dumpIr === undefined) return;
  try {
    makeFolders(options.dumpIr);
    writeFileSync(join(options.dumpIr, `${String(index).padStart(2, '0')}-${pass}.ir`), text);
  } catch (e) {
    throw new UserError(`cannot write the IR to ${options.dumpIr}: ${reason(e)}`);
  }
}
