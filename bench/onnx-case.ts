/** Runs one official ONNX backend test: a folder with model.onnx and test_data_set_0. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { decodeModel } from '../frontend/onnx/decode.ts';
import { readModelFile } from '../frontend/onnx/external.ts';
import { importModel, readTensorFile, UnboundInputs, type ImportOptions } from '../frontend/index.ts';
import { compile } from '../index.ts';
import { Unsupported, UserError } from '../ir/diagnostic.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Tensor } from '../ir/type.ts';
import { load, type SharedGpu } from '../runtime/index.ts';
import type { GpuStep } from '../runtime/manifest.ts';

export type CaseResult =
  | { readonly kind: 'ran'; readonly kernels: number; readonly bound: readonly string[]; readonly outputs: readonly { readonly name: string; readonly got: Tensor; readonly want: Tensor }[] }
  | { readonly kind: 'refused'; readonly feature: string; readonly reason: string };

/** What runs a test; a GPU is one for all tests of a process. */
export type CaseBackend = 'wasm' | 'reference' | SharedGpu;

/**
 * Compiles and runs the test. Inputs reach run(), but for those that the compiler asks for by name because their values decide shapes. A refusal
 * (Unsupported) is a result; anything else that is thrown is the caller's to report.
 */
export async function runCase(folder: string, backend: CaseBackend): Promise<CaseResult> {
  try {
    const model = join(folder, 'model.onnx');
    const { given, wanted } = readData(join(folder, 'test_data_set_0'), model);
    return await runModel(model, given, wanted, backend);
  } catch (e) {
    if (e instanceof Unsupported) return { kind: 'refused', feature: e.feature, reason: e.message };
    throw e;
  }
}

/** The test's tensors. Where a file holds no tensor (a sequence, an optional), the model's own refusal counts, if there is one. */
function readData(data: string, model: string): { given: Tensor[]; wanted: Tensor[] } {
  try {
    return { given: readAll(data, 'input'), wanted: readAll(data, 'output') };
  } catch (e) {
    if (!(e instanceof UserError)) throw e;
    try {
      importModel(model);
    } catch (refusal) {
      if (!(refusal instanceof UnboundInputs)) throw refusal;
    }
    throw new Unsupported('outputs that are no tensors', `${model}: ${e.message}`);
  }
}

async function runModel(model: string, given: readonly Tensor[], wanted: readonly Tensor[], backend: CaseBackend): Promise<CaseResult> {
  const names = declaredInputs(model, given);
  const inputs = Object.fromEntries(names.map((name, i) => [name, given[i]!]));
  const shapes = Object.fromEntries(names.map((name, i) => [name, given[i]!.shape]));
  const { result, bound } = await withBoundInputs(inputs, (values) => {
    const options: ImportOptions = { shapes, values };
    if (typeof backend === 'object') return throughGpu(model, options, inputs, backend);
    return backend === 'wasm' ? throughWasm(model, options, inputs) : throughReference(model, options, inputs);
  });
  return { kind: 'ran', kernels: result.kernels, bound, outputs: result.outputs.map(([name, got], i) => ({ name, got, want: wanted[i]! })).slice(0, wanted.length) };
}

/** Calls `attempt` with no bound input; whenever the compiler names inputs whose values it needs, those alone are bound and it is called again. */
export async function withBoundInputs<T>(
  inputs: Readonly<Record<string, Tensor>>,
  attempt: (values: Readonly<Record<string, Tensor>>) => T | Promise<T>,
): Promise<{ readonly result: T; readonly bound: readonly string[] }> {
  const bound = new Set<string>();
  for (;;) {
    try {
      const result = await attempt(Object.fromEntries(Object.entries(inputs).filter(([name]) => bound.has(name))));
      return { result, bound: [...bound] };
    } catch (e) {
      const news = e instanceof UnboundInputs ? e.inputs.filter((n) => n in inputs && !bound.has(n)) : [];
      if (news.length === 0) throw e;
      for (const n of news) bound.add(n);
    }
  }
}

async function throughWasm(model: string, options: ImportOptions, inputs: Readonly<Record<string, Tensor>>): Promise<Ran> {
  const artifact = await compile(model, options);
  await using session = await load(artifact, { threads: 1, sync: true });
  const given = Object.fromEntries(session.inputs.map((i) => [i.name, inputs[i.name]!]));
  const outputs = session.runSync(given);
  return { kernels: artifact.manifest.steps.length, outputs: session.outputs.map((o) => [o.name, outputs[o.name]!]) };
}

/** `kernels`: dispatches of the run. */
async function throughGpu(model: string, options: ImportOptions, inputs: Readonly<Record<string, Tensor>>, gpu: SharedGpu): Promise<Ran> {
  const artifact = await compile(model, { ...options, backend: 'wgsl' });
  await using session = await load(artifact, { gpu });
  const given = Object.fromEntries(session.inputs.map((i) => [i.name, inputs[i.name]!]));
  const outputs = await session.run(given);
  const count = (steps: readonly GpuStep[]): number => steps.reduce((n, s) => n + ('repeat' in s ? s.repeat * count(s.body) : 1), 0);
  return { kernels: count(artifact.manifest.gpu!.entries[0]!), outputs: session.outputs.map((o) => [o.name, outputs[o.name]!]) };
}

function throughReference(model: string, options: ImportOptions, inputs: Readonly<Record<string, Tensor>>): Ran {
  const { graph } = importModel(model, options);
  const { outputs } = evaluate(graph, inputs);
  return { kernels: graph.ops.length, outputs: [...outputs] };
}

interface Ran {
  readonly kernels: number;
  readonly outputs: readonly (readonly [string, Tensor])[];
}

/** Names of the inputs that the test gives, in the order of its files. */
function declaredInputs(model: string, given: readonly Tensor[]): string[] {
  const { graph } = decodeModel(readModelFile(model), model, dirname(model));
  const initialized = new Set(graph.initializers.map((t) => t.name));
  const names = graph.inputNames.filter((name) => !initialized.has(name));
  if (names.length < given.length) throw new Error(`${model} declares ${names.length} inputs, the test gives ${given.length}`);
  return names.slice(0, given.length);
}

function readAll(folder: string, prefix: 'input' | 'output'): Tensor[] {
  if (!existsSync(folder)) throw new Error(`${folder} is absent`);
  const count = readdirSync(folder).filter((f) => f.startsWith(`${prefix}_`)).length;
  return Array.from({ length: count }, (_, i) => readTensorFile(join(folder, `${prefix}_${i}.pb`)).tensor);
}
