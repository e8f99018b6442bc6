/** What commands run: an artifact's folder, or an ONNX model that is compiled first. */
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { compile, type Artifact, type CompileOptions } from './driver/compile.ts';
import { UserError } from '../ir/diagnostic.ts';
import { UnboundInputs } from '../frontend/index.ts';
import { decodeModel } from '../frontend/onnx/decode.ts';
import { readModelFile } from '../frontend/onnx/external.ts';
import type { GraphView } from '../frontend/onnx/model.ts';
import { hasRelaxedSimd, hasSimd, type Features } from '../runtime/features.ts';
import type { Manifest } from '../runtime/manifest.ts';
import type { Tensor } from '../runtime/tensor.ts';
import type { OpenInput } from './inputs.ts';

/** Whether a path names an artifact's folder; a path that names nothing is a UserError. */
export function isArtifact(path: string): boolean {
  if (!existsSync(path)) throw new UserError(`${path} does not exist; give an ONNX model or the folder that \`tilewright compile\` wrote`);
  if (!statSync(path).isDirectory()) return false;
  if (!existsSync(join(path, 'manifest.json'))) throw new UserError(`${path} holds no manifest.json; give an ONNX model or the folder that \`tilewright compile\` wrote`);
  return true;
}

/** Inputs of an artifact, bound ones included. */
export const artifactInputs = (manifest: Manifest): OpenInput[] => [...manifest.inputs, ...manifest.bound].map((i) => ({ name: i.name, dtype: i.dtype, dims: i.shape }));

/** The graph of a model as its file, or its bytes, have it. */
export const readModelGraph = (model: string | Uint8Array): GraphView =>
  (typeof model === 'string' ? decodeModel(readModelFile(model), model, dirname(model)) : decodeModel(model, 'the model', undefined)).graph;

/** Inputs of a model as declared; initializers that are listed as inputs have values already and are left out. */
export function modelInputs(graph: GraphView): OpenInput[] {
  const initialized = new Set(graph.initializers.map((t) => t.name));
  return graph.inputs.filter((v) => !initialized.has(v.name)).map((v) => ({ name: v.name, dtype: v.type?.dtype === 'string' ? undefined : v.type?.dtype, dims: v.type?.dims }));
}

/** The best feature set that this engine runs: all that has to be emitted for a model that runs here and now. */
export const bestFeatures = (): Features => (hasRelaxedSimd() ? 'relaxed' : hasSimd() ? 'simd' : 'plain');

/** Compiles for the shapes of given inputs; where the values of some decide shapes, those are bound. */
export async function compileFor(path: string, options: CompileOptions, inputs: Readonly<Record<string, Tensor>>): Promise<Artifact> {
  const given = Object.fromEntries(Object.entries(inputs).filter(([name]) => options.values?.[name] === undefined).map(([name, t]) => [name, t.shape]));
  const shaped: CompileOptions = { ...options, shapes: { ...given, ...options.shapes } };
  try {
    return await compile(path, shaped);
  } catch (e) {
    if (!(e instanceof UnboundInputs) || !e.inputs.every((name) => inputs[name])) throw e;
    return compileFor(path, { ...options, values: { ...options.values, ...Object.fromEntries(e.inputs.map((name) => [name, inputs[name]!])) } }, inputs);
  }
}
