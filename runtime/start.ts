/** From an opened artifact to running threads with the weights in memory. */
import type { OpenArtifact } from './artifact.ts';
import type { ByteSource } from './bytes.ts';
import { InputError, RunError } from './error.ts';
import type { Executor, Failure } from './executor.ts';
import { canBlock, chooseModule, enableRevectorizer, memoryLimits, noThreads, unsharedModule, type Features } from './features.ts';
import type { Manifest } from './manifest.ts';
import { startOwned } from './owned.ts';
import { startPool } from './pool.ts';
import { readHeader } from './safetensors.ts';
import { sampleTensors, worstDifference } from './selfcheck.ts';
import type { LoadOptions } from './session.ts';
import { byteLength, bytesOf, tensorOver, type Tensor } from './tensor.ts';
import { NoGpu } from './webgpu/error.ts';

const pageSize = 65536;

/** What runs, and the manifest of it: that of the artifact, or of the one for WebAssembly that it brings along. */
export interface Started {
  readonly manifest: Manifest;
  readonly executor: Executor;
  readonly features: Features | 'webgpu';
}

/** Picks the backend and the module, starts GPU or threads, and fills the memory. Adds to `notices` what the caller should know. */
export async function start(artifact: OpenArtifact, options: LoadOptions, notices: string[]): Promise<Started> {
  const { manifest } = artifact;
  const { backend } = options;
  if (manifest.backend !== 'wgsl') {
    if (backend === 'webgpu') throw new InputError('backend: this artifact was compiled for WebAssembly alone; compile the model with --backend wgsl');
    return startWasm(artifact, options, notices);
  }
  if (backend === 'wasm') {
    const other = await artifact.fallback();
    if (!other) throw new InputError('backend: this artifact was compiled for WebGPU alone; compile the model without --no-fallback, or for wasm');
    return startWasm(other, options, notices);
  }
  const { startGpu } = await import('./webgpu/start.ts');
  const own: string[] = [];
  try {
    const executor = await startGpu(artifact, options.gpu, own);
    await readWeights(artifact, executor);
    notices.push(...own);
    return { manifest, executor, features: 'webgpu' };
  } catch (error) {
    // A GPU that is missing or fails is no reason to stop; an artifact that is damaged is.
    const other = backend === undefined && (error instanceof NoGpu || error instanceof RunError) ? await artifact.fallback() : undefined;
    if (!other) throw error;
    notices.push(`WebAssembly in place of WebGPU: ${error instanceof NoGpu ? error.reason : (error as Error).message}`);
    return startWasm(other, options, notices);
  }
}

async function startWasm(artifact: OpenArtifact, options: LoadOptions, notices: string[]): Promise<Started> {
  const { manifest } = artifact;
  if (options.sync && !canBlock()) throw new InputError('sync: this thread may not wait for others (the main thread of a page never may, and no thread without shared memory); leave it out and use run()');
  const wide = (options.wide ?? false) && manifest.modules.some((m) => m.features === 'wide') && enableRevectorizer();
  if (options.wide && !wide) notices.push('wide vectors: not available here or not compiled into this artifact; the ordinary module is used');
  const chosen = chooseModule(manifest.modules, { features: options.features, wide });
  const binary = await artifact.module(chosen.file);
  const failure = failureOf(manifest);
  const threads = threadCount(manifest, options, notices);
  const limits = memoryLimits(binary, chosen.memoryFlag);
  const pagesFor = (n: number): number => Math.max(limits.min, Math.ceil((manifest.memory.scratch + manifest.memory.scratchPerThread * n) / pageSize));

  const why = noThreads();
  if (why !== undefined) {
    notices.push(`one thread: ${why}`);
    // eslint-disable-next-line no-console -- a page has no other place for it
    console.warn(`tilewright: ${notices.at(-1)}`);
    const executor = await startOwned(await compileModule(unsharedModule(binary, chosen.memoryFlag), chosen.file), pagesFor(1), failure);
    await readWeights(artifact, executor);
    return { manifest, executor, features: chosen.features };
  }

  const memory = sharedMemory(pagesFor(threads));
  const pool = async (file: string, bytes: Uint8Array): Promise<Executor> => startPool({ module: await compileModule(bytes, file), memory, threads, sync: options.sync ?? false, failure });
  if (chosen.features !== 'wide') {
    const executor = await pool(chosen.file, binary);
    await readWeights(artifact, executor);
    return { manifest, executor, features: chosen.features };
  }
  // Pools over one memory wake together, so one ends before the next starts.
  const ordinary = chooseModule(manifest.modules, { wide: false });
  const ordinaryBinary = await artifact.module(ordinary.file);
  const reference = await pool(ordinary.file, ordinaryBinary);
  await readWeights(artifact, reference);
  const expected = await runSample(manifest, reference).finally(() => reference.close());
  const executor = await pool(chosen.file, binary);
  await resetState(artifact, executor);
  const difference = await runSample(manifest, executor).then((got) => worstDifference(expected, got), () => Infinity);
  await resetState(artifact, executor);
  if (difference <= wideTolerance) return { manifest, executor, features: 'wide' };
  notices.push(`wide vectors: results differ from the ordinary module by ${difference.toPrecision(2)} of their magnitude; the ordinary module is used`);
  await executor.close();
  return { manifest, executor: await pool(ordinary.file, ordinaryBinary), features: ordinary.features };
}

/** Both modules add in nearly the same order; a wrong one is off by far more. */
const wideTolerance = 1e-3;

async function runSample(manifest: Manifest, executor: Executor): Promise<Tensor[]> {
  const sample = sampleTensors(manifest.inputs);
  const writes = manifest.inputs.map((i) => ({ address: i.address, bytes: bytesOf(sample[i.name]!.data) }));
  const reads = manifest.outputs.map((o) => ({ address: o.address, bytes: byteLength(o) }));
  const results = await executor.run(writes, reads);
  return manifest.outputs.map((o, i) => tensorOver(o, results[i]!));
}

function sharedMemory(pages: number): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (error) {
    throw new InputError(`cannot allocate the ${Math.ceil((pages * pageSize) / 2 ** 20)} MiB that the model needs: ${String(error)}`);
  }
}

async function compileModule(binary: Uint8Array, file: string): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(binary as Uint8Array<ArrayBuffer>);
  } catch (error) {
    throw new InputError(`${file} is not a WebAssembly module that this engine accepts: ${String(error)}`);
  }
}

function threadCount(manifest: Manifest, options: LoadOptions, notices: string[]): number {
  if (options.threads !== undefined && (!Number.isInteger(options.threads) || options.threads < 1)) throw new InputError(`threads is ${options.threads}, expected a whole number of at least 1`);
  const os = globalThis.process?.getBuiltinModule?.('node:os');
  const cores = os ? os.availableParallelism() : navigator.hardwareConcurrency;
  const { maxThreads } = manifest.memory;
  if (options.threads !== undefined && options.threads > maxThreads) notices.push(`threads: ${options.threads} were asked for, this artifact was compiled for at most ${maxThreads} (the option maxThreads of compile)`);
  return Math.min(options.threads ?? cores, maxThreads);
}

/** Streams the weights into memory; where they cannot be had, the threads end. */
async function readWeights(artifact: OpenArtifact, executor: Executor): Promise<void> {
  if (artifact.manifest.weights.length === 0) return;
  try {
    const source = await artifact.weights();
    await fillFrom(source, artifact.manifest.weights, executor).finally(() => source.close());
  } catch (error) {
    await executor.close();
    throw error;
  }
}

/** Puts state that a sample run has changed back to where it starts. */
async function resetState(artifact: OpenArtifact, executor: Executor): Promise<void> {
  const { state = [] } = artifact.manifest;
  if (state.length === 0) return;
  for (const s of state) await executor.fill(s.address, byteLength(s), (_, into) => Promise.resolve(void into.fill(0)));
  await readWeights(artifact, executor);
}

/** Reads tensors in file order, after checking that the file holds what the manifest says. */
async function fillFrom(source: ByteSource, weights: Manifest['weights'], executor: Executor): Promise<void> {
  const header = await readHeader(source);
  const places = weights.map((w) => {
    const stored = header.get(w.name);
    if (!stored) throw new InputError(`${source.name} lacks the tensor ${JSON.stringify(w.name)}; it does not belong to this manifest`);
    if (stored.bytes !== w.bytes) throw new InputError(`${source.name}: tensor ${JSON.stringify(w.name)} has ${stored.bytes} bytes, the manifest expects ${w.bytes}`);
    return { ...w, offset: stored.offset };
  });
  places.sort((a, b) => a.offset - b.offset);
  for (const p of places) await executor.fill(p.address, p.bytes, (at, into) => source.read(p.offset + at, into));
}

const failureOf = (manifest: Manifest): Failure => (message, index) => {
  const step = manifest.steps[index];
  if (!step) return new RunError(`the module failed: ${message}`);
  const from = step.source.length > 0 ? `, from ${step.source.join(', ')}` : '';
  return new RunError(`step ${index} (${step.name}${from}) failed: ${message}`);
};
