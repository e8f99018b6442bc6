/** tilewright new: an architecture as an ONNX model. */
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import { onnxChunks } from '../frontend/onnx/write.ts';
import { initialValues, zooModel, zooNames, type Weight, type ZooModel } from '../frontend/zoo/index.ts';
import type { ZooNorm } from '../frontend/zoo/norm.ts';
import { UserError } from '../ir/diagnostic.ts';
import { sizeOf } from '../ir/type.ts';
import { reason } from '../runtime/bytes.ts';
import { readSafetensors } from '../runtime/safetensors.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { normOf, normOptions, type NormOptions } from './norm.ts';
import { showNorm, type NormSpec } from '../passes/norm/options.ts';
import { jsonOption, positive, wholeNumber } from './options.ts';
import { amount, say, sayJson } from './print.ts';

interface Options extends NormOptions {
  readonly output: string;
  readonly classes?: number;
  readonly image?: [number, number, number];
  readonly seed: number;
  readonly training?: boolean;
  readonly weights?: string;
  readonly json?: boolean;
}

/** Adds the command. */
export function newCommand(program: Command): void {
  const command = program
    .command('new')
    .description('write an architecture as an ONNX model with seeded weights')
    .argument('<architecture>', zooNames.join(', '))
    .requiredOption('-o, --output <file>', 'the .onnx file to write')
    .option('--classes <n>', 'classes (default: 1000, or 10 for networks of small pictures)', positive)
    .option('--image <CxHxW>', 'channels, height and width of a picture (default: the architecture’s own)', imageShape)
    .option('--seed <n>', 'weights follow from it', wholeNumber, 0)
    .option('--training', 'norms follow the batch, and dropout and stochastic depth are in the graph: for `train`')
    .option('--weights <file>', 'a .safetensors file with the weights, under the names of torchvision (timm for NFNets)')
    .addOption(jsonOption());
  normOptions(command).action(run);
}

/** Norms that architectures are built with; the others are rewrites of a batch norm that is there. */
function ownNorm(norm: NormSpec | undefined): ZooNorm | undefined {
  if (!norm) return undefined;
  const { kind, weights, groups, epsilon, proxy } = norm;
  if (weights || kind === 'keep' || kind === 'renorm' || kind === 'ghost' || kind === 'virtual' || kind === 'domains') {
    throw new UserError(`architectures are not built with ${showNorm(norm)}: build one with batch norm, and give --norm or --weight-norm to train or compile`);
  }
  return { kind, ...(groups !== undefined && { groups }), ...(epsilon !== undefined && { epsilon }), ...(proxy && { proxy }) };
}

async function run(architecture: string, options: Options): Promise<void> {
  const norm = ownNorm(normOf(options));
  const model = zooModel(architecture, {
    ...(options.classes !== undefined && { classes: options.classes }), ...(options.image && { image: options.image }), ...(norm && { norm }), ...(options.training && { training: true }),
  });
  const given = options.weights === undefined ? undefined : await readWeights(options.weights, model);
  write(options.output, onnxChunks(model, (w) => given?.get(w.name) ?? initialValues(w, options.seed)));
  const parameters = model.weights.filter((w) => !w.statistic).reduce((n, w) => n + sizeOf(w.shape), 0);
  const facts = { file: options.output, architecture: model.name, parameters, input: model.inputs[0]!.dims, output: model.outputs[0]!.dims };
  if (options.json) return sayJson(facts);
  say(`wrote ${options.output}: ${model.name}, ${amount(parameters)} parameters, x [${facts.input.join(',')}] to logits [${facts.output.join(',')}]`);
}

/** Weights by name, checked to be all that the model has and no others; what PyTorch counts batches with is no weight. */
export async function readWeights(path: string, model: ZooModel): Promise<Map<string, Float32Array>> {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (e) {
    throw new UserError(`cannot read ${path}: ${reason(e)}`);
  }
  return checkedWeights(await readSafetensors(bytes, path), path, model);
}

/** Checks names and shapes. */
export function checkedWeights(tensors: ReadonlyMap<string, Tensor>, path: string, model: ZooModel): Map<string, Float32Array> {
  const wanted = new Map(model.weights.map((w) => [w.name, w]));
  const missing = model.weights.filter((w) => !tensors.has(w.name)).map((w) => w.name);
  const unknown = [...tensors.keys()].filter((name) => !wanted.has(name) && !name.endsWith('.num_batches_tracked'));
  const list = (names: readonly string[]): string => `${names.slice(0, 5).join(', ')}${names.length > 5 ? ` and ${names.length - 5} more` : ''}`;
  if (missing.length > 0) throw new UserError(`${path} lacks weights of ${model.name}: ${list(missing)}; give a file that has them all`);
  if (unknown.length > 0) throw new UserError(`${path} has weights that ${model.name} does not have: ${list(unknown)}`);
  return new Map(model.weights.map((w) => [w.name, elements(w, tensors.get(w.name)!, path)]));
}

function elements(weight: Weight, t: Tensor, path: string): Float32Array {
  const given = t.shape.join(',');
  if (given !== weight.shape.join(',')) throw new UserError(`${path}: ${weight.name} has shape [${given}], the model wants [${weight.shape.join(',')}]; is it for another number of classes or another picture?`);
  if (!(t.data instanceof Float32Array)) throw new UserError(`${path}: ${weight.name} is ${t.dtype}, expected f32`);
  return t.data;
}

/** Writes under another name first: a file that is there is whole. */
function write(path: string, chunks: Iterable<Uint8Array>): void {
  const part = `${path}.part`;
  try {
    const file = openSync(part, 'w');
    try {
      for (const chunk of chunks) for (let at = 0; at < chunk.length;) at += writeSync(file, chunk, at);
    } finally {
      closeSync(file);
    }
    renameSync(part, path);
  } catch (e) {
    rmSync(part, { force: true });
    throw e instanceof UserError ? e : new UserError(`cannot write ${path}: ${reason(e)}`);
  }
}

function imageShape(text: string): [number, number, number] {
  const parts = text.split('x').map(positive);
  if (parts.length !== 3) throw new InvalidArgumentError('expected CHANNELSxHEIGHTxWIDTH, as in 3x224x224');
  return parts as [number, number, number];
}
