/** tilewright run: runs an artifact or a model on files. */
import type { Command } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import { openArtifact } from '../runtime/artifact.ts';
import { backendOption, f16Option, gpuLimitOption, gpuOf, limitsHere, loadingOf, placeOf, refuseF16, refuseGpuLimit, refuseThreads } from './backend.ts';
import type { Backend } from './driver/compile.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { isTileArtifact } from './driver/tile-artifact.ts';
import { loadSession, type LoadOptions, type Session, type Tensor } from '../runtime/index.ts';
import type { ImageOptions } from './image.ts';
import { readInputs, readTensors } from './inputs.ts';
import { artifactInputs, bestFeatures, compileFor, isArtifact, modelInputs, readModelGraph } from './model.ts';
import { channelOptions, dimOption, imageSize, inputOption, jsonOption, layout, number, positive, refuseOption, threadsOption, valueOption } from './options.ts';
import { ms, note, say, withProgress } from './print.ts';
import { readLabels, showOutputs } from './run/outputs.ts';
import { runTileArtifact } from './tiles/run.ts';

interface Options {
  readonly input?: Record<string, string>;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly imageSize?: [number, number];
  readonly layout?: 'nchw' | 'nhwc';
  readonly scale?: number;
  readonly mean?: number[];
  readonly std?: number[];
  readonly gray?: boolean;
  readonly top?: number;
  readonly labels?: string;
  readonly output?: string;
  readonly threads?: number;
  readonly backend: Backend;
  readonly gpuLimit?: GpuLimits;
  readonly f16?: boolean;
  readonly wide?: boolean;
  readonly json?: boolean;
}

/** Adds the command. */
export function runCommand(program: Command): void {
  const command = program
    .command('run')
    .description('run a model on files and print its outputs')
    .argument('<model>', 'an .onnx file, or the folder that compile wrote')
    .addOption(inputOption('pictures', 'the name may be left out if there is one input'))
    .addOption(dimOption('.onnx only; follows from the inputs'))
    .addOption(valueOption('.onnx only; found by itself for given inputs'))
    .option('--image-size <size>', 'SIZE or HEIGHTxWIDTH of pictures, where the model leaves it open', imageSize)
    .option('--layout <layout>', 'nchw or nhwc, for pictures (default: what the shape suggests)', layout)
    .option('--scale <max>', 'samples of pictures go from 0 to this (default: 1, or 255 for u8)', number)
    .option('--gray', 'turn pictures to one channel (follows from a shape with one)')
    .option('--top <k>', 'print the k largest elements of each output', positive)
    .option('--labels <file>', 'names for --top: one a line')
    .option('--output <folder>', 'write each output as NAME.npy')
    .addOption(threadsOption())
    .addOption(backendOption())
    .addOption(gpuLimitOption())
    .addOption(f16Option())
    .option('--wide', 'use 256-bit vectors where the artifact and V8 have them (experimental)')
    .addOption(jsonOption('outputs and times'));
  for (const option of channelOptions()) command.addOption(option);
  command.action(run);
}

async function run(model: string, options: Options, command: Command): Promise<void> {
  const labels = options.labels === undefined ? undefined : readLabels(options.labels);
  refuseOption(labels !== undefined && options.top === undefined, '--labels', 'names the rows of --top; give --top too');
  refuseOption(options.std?.includes(0) === true, '--std', 'must not hold 0: samples are divided by it');
  refuseF16(options, isArtifact(model));
  refuseThreads(command, options.backend);
  refuseGpuLimit(options, isArtifact(model));
  const images = imagesOf(options);
  if (isArtifact(model) && isTileArtifact(model)) {
    for (const name of ['dim', 'value', 'threads', 'wide'] as const) refuseOption(options[name] !== undefined, `--${name}`, 'does not go with a tile program, which is executed as it was planned');
    return runTileArtifact(model, options.input ?? {}, images, { ...options, labels });
  }
  const { session, tensors, compiled, loaded } = await open(model, options, images, loadingOf(command, options.backend));
  try {
    for (const notice of session.notices) if (session.features !== 'webgpu') note(notice);
    const started = performance.now();
    const outputs = await session.run(tensors);
    const time = performance.now() - started;
    showOutputs(outputs, { ...options, labels }, { compileMs: compiled, loadMs: loaded, runMs: time, threads: session.threads, features: session.features, ...gpuOf(session) });
    if (options.json) return;
    const times = [...(compiled === undefined ? [] : [`compiled in ${ms(compiled)}`]), `loaded in ${ms(loaded)}`, `ran in ${ms(time)} on ${placeOf(session)}`];
    say(times.join(', '));
  } finally {
    await session.close();
  }
}

const imagesOf = (o: Options): ImageOptions => ({ size: o.imageSize, layout: o.layout, scale: o.scale, mean: o.mean ?? [], std: o.std ?? [], gray: o.gray ?? false });

async function open(model: string, options: Options, images: ImageOptions, backend: Pick<LoadOptions, 'backend'>): Promise<{ session: Session; tensors: Record<string, Tensor>; compiled: number | undefined; loaded: number }> {
  const loading: LoadOptions = { ...backend, ...(options.threads !== undefined && { threads: options.threads }), ...(options.wide && { wide: true }) };
  if (isArtifact(model)) {
    refuseOption(options.dim !== undefined, '--dim', 'goes with an .onnx model: an artifact has its shapes already; compile it again with --dim');
    refuseOption(options.value !== undefined, '--value', 'goes with an .onnx model: an artifact has its bound inputs already; compile it again with --value');
    const tensors = await readInputs(options.input ?? {}, artifactInputs((await openArtifact(model)).manifest), images);
    const started = performance.now();
    const session = await loadSession(model, loading);
    return { session, tensors, compiled: undefined, loaded: performance.now() - started };
  }
  const declared = modelInputs(readModelGraph(model));
  const tensors = await readInputs(options.input ?? {}, declared, images);
  const missing = declared.filter((d) => !tensors[d.name] && options.value?.[d.name] === undefined).map((d) => ({ ...d, dims: d.dims?.map((x) => (typeof x === 'string' ? (options.dim?.[x] ?? x) : x)) }));
  if (missing.length > 0) {
    const open = missing.some((d) => !d.dims?.every((x) => typeof x === 'number'));
    const symbols = [...new Set(missing.flatMap((d) => (d.dims ?? []).filter((x) => typeof x === 'string')))];
    const hint = symbols.length > 0 ? `; ${symbols.join(', ')} follow from the files, or give ${symbols.map((s) => `--dim ${s}=SIZE`).join(' ')}` : open ? '; sizes that are open (?) follow from the files' : '';
    throw new UserError(`${model}: missing ${missing.map((d) => `--input ${d.name}=FILE.npy (${d.dtype ?? '?'}[${d.dims?.map((x) => x ?? '?').join(',') ?? '...'}])`).join(' ')}${hint}`);
  }
  const values = readTensors(options.value ?? {});
  const limits = await limitsHere(options);
  const started = performance.now();
  const artifact = await withProgress(model, (onProgress) =>
    compileFor(model, { ...(options.dim && { dims: options.dim }), values, backend: options.backend, ...limits, ...(options.f16 && { f16: true }), features: options.wide ? ['wide', bestFeatures()] : [bestFeatures()], onProgress }, tensors));
  for (const w of artifact.warnings) note(`warning: ${w}`);
  const compiled = performance.now() - started;
  const session = await loadSession(artifact, loading);
  return { session, tensors, compiled, loaded: performance.now() - started - compiled };
}
