/** Sessions: a loaded artifact with its threads. */
import { openArtifact, type ArtifactObject, type OpenArtifact, type Recompile, type SpecialisationRequest } from './artifact.ts';
import { InputError, RunError } from './error.ts';
import type { Executor } from './executor.ts';
import type { Features } from './features.ts';
import { checkInputs, equalsBound, inputBytes, statedShape, type InputValue } from './inputs.ts';
import type { Manifest } from './manifest.ts';
import { specialisations, type Specialisations } from './specialisation.ts';
import { start } from './start.ts';
import { byteLength, tensorOver, type Tensor, type TensorInfo } from './tensor.ts';
import type { SharedGpu } from './webgpu/device.ts';
import type { Patch } from './worker.ts';

export interface LoadOptions {
  /** Worker threads; the cores of the machine unless given, and at most what the artifact was compiled for. Results do not depend on it. */
  readonly threads?: number;
  /**
   * What runs an artifact that holds both (`compile --backend wgsl`): WebGPU, or WebAssembly where there is no GPU that fits, with the reason among the notices. Naming one leaves no
   * choice: what is missing is then an InputError.
   */
  readonly backend?: 'webgpu' | 'wasm';
  /** Takes the module of this feature set instead of the best that the engine runs. */
  readonly features?: Features;
  /** V8 alone: uses the module shaped for 256-bit vectors where the artifact has one, after comparing it with the ordinary one. Experimental. */
  readonly wide?: boolean;
  /** Node alone: the calling thread works too and runSync exists; run() then blocks the event loop. */
  readonly sync?: boolean;
  /** Runs artifacts for WebGPU on this device, which stays open when the session is closed; a device of their own unless given. */
  readonly gpu?: SharedGpu;
  /** Compiles other specialisations when run() asks for them; an artifact in memory brings its own. */
  readonly recompile?: Recompile;
}

/** Bytes of linear memory by use. */
export interface MemoryReport {
  readonly weights: number;
  /** Inputs and outputs; they lie among the activations. */
  readonly io: number;
  readonly activations: number;
  readonly scratch: number;
  readonly total: number;
}

/** Time of one step of the last run, in milliseconds since the run began; both 0 where it was not reached. Profiling builds alone. */
export type StepTime = Manifest['steps'][number] & { readonly start: number; readonly end: number };

export interface Session {
  readonly model: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly threads: number;
  /** The module that runs, or `webgpu`. */
  readonly features: Features | 'webgpu';
  readonly memory: MemoryReport;
  /** What the caller should know: which GPU runs or why none does, threads that could not be had or that the artifact does not allow, a wide module that was not used. */
  readonly notices: readonly string[];
  /** Runs the model. Calls made at once run one after another. Rejects with InputError (the session stays usable) or RunError (it is closed). */
  run(inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>>;
  /** Runs on the calling thread; needs `load(..., { sync: true })`. */
  runSync(inputs: Readonly<Record<string, InputValue>>): Record<string, Tensor>;
  /** Times of the last run; undefined unless the artifact is a profiling build. */
  profile(): readonly StepTime[] | undefined;
  /** Waits for runs that were asked for, ends the threads and frees the memory. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Loads an artifact: the folder that `tilewright compile` wrote (a path in Node, a URL), or an artifact in memory. Weights are read straight into the
 * memory that the module works on. An idle session does not keep a Node process alive.
 */
export async function loadSession(source: string | URL | ArtifactObject, options: LoadOptions = {}): Promise<Session> {
  return openedSession(await openArtifact(source), options);
}

/** A session over an artifact that is open. */
export async function openedSession(artifact: OpenArtifact, options: LoadOptions): Promise<Session> {
  const recompile = options.recompile ?? artifact.recompile;
  const notices: string[] = [];
  const started = await start(artifact, options, notices);
  // The hook of this artifact makes its specialisations; one of them that does not fit says so instead of compiling for ever.
  const { recompile: _, ...others } = options;
  const specialise = recompile && specialisations(recompile, (other) => loadSession(other, others));
  return new LoadedSession(started.manifest, started.executor, started.features, memoryReport(started.manifest, started.executor.threads), notices, specialise);
}

function memoryReport(manifest: Manifest, threads: number): MemoryReport {
  const { weights, io, activations } = manifest.memory;
  const scratch = manifest.memory.scratchPerThread * threads;
  return { weights, io, activations, scratch, total: manifest.memory.scratch + scratch };
}

class LoadedSession implements Session {
  readonly model: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly threads: number;
  readonly features: Features | 'webgpu';
  readonly memory: MemoryReport;
  readonly notices: readonly string[];
  readonly #manifest: Manifest;
  readonly #executor: Executor;
  readonly #specialise: Specialisations | undefined;
  /** Ends when all runs asked for so far have ended. */
  #queue: Promise<unknown> = Promise.resolve();
  /** Runs asked for that have not ended. */
  #waiting = 0;
  #closed: string | undefined;
  #closing: Promise<void> | undefined;
  #failure: Error | undefined;
  #times: Float64Array | undefined;

  constructor(manifest: Manifest, executor: Executor, features: Features | 'webgpu', memory: MemoryReport, notices: readonly string[], specialise: Specialisations | undefined) {
    const info = ({ name, dtype, shape }: TensorInfo): TensorInfo => ({ name, dtype, shape });
    this.model = manifest.model;
    this.inputs = manifest.inputs.map(info);
    this.outputs = manifest.outputs.map(info);
    this.threads = executor.threads;
    this.features = features;
    this.memory = memory;
    this.notices = notices;
    this.#manifest = manifest;
    this.#executor = executor;
    this.#specialise = specialise;
  }

  async run(inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>> {
    this.#checkOpen();
    const wanted = this.#otherSpecialisation(inputs);
    if (wanted) return wanted.specialise.run(wanted, inputs);
    const writes = this.#writes(inputs);
    const execute = async (patches: readonly Patch[]): Promise<Record<string, Tensor>> => {
      try {
        if (this.#failure !== undefined) throw this.#failure;
        return this.#results(await this.#executor.run(patches, this.#reads()));
      } catch (error) {
        // Of inputs that are refused nothing has run.
        if (!(error instanceof InputError)) this.#fail(error);
        throw error;
      } finally {
        this.#waiting--;
      }
    };
    // A run that starts now writes its inputs before this call returns; one that waits keeps copies, so that callers may reuse their arrays.
    const held = this.#waiting === 0 ? writes : writes.map((w) => ({ ...w, bytes: w.bytes.slice() }));
    const result = this.#waiting++ === 0 ? execute(held) : this.#queue.then(() => execute(held));
    this.#queue = result.catch(() => {});
    return result;
  }

  runSync(inputs: Readonly<Record<string, InputValue>>): Record<string, Tensor> {
    this.#checkOpen();
    if (!this.#executor.runSync) throw new InputError('runSync needs a session loaded with { sync: true } in Node');
    if (this.#otherSpecialisation(inputs)) throw new InputError('runSync cannot compile another specialisation; use run()');
    try {
      return this.#results(this.#executor.runSync(this.#writes(inputs), this.#reads()));
    } catch (error) {
      if (error instanceof RunError) this.#fail(error);
      throw error;
    }
  }

  profile(): readonly StepTime[] | undefined {
    const times = this.#times;
    if (!times) return undefined;
    const begin = times.reduce((least, t) => (t > 0 && t < least ? t : least), Infinity);
    const since = (t: number): number => (t > 0 ? t - begin : 0);
    return this.#manifest.steps.map((step, i) => ({ ...step, start: since(times[2 * i]!), end: since(times[2 * i + 1]!) }));
  }

  close(): Promise<void> {
    this.#closed ??= 'the session is closed';
    this.#closing ??= this.#queue.then(() => this.#release());
    return this.#closing;
  }

  async #release(): Promise<void> {
    await Promise.all([this.#executor.close(), this.#specialise?.close()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) throw new InputError(`run() cannot start: ${this.#closed}`);
  }

  /** Closes the session after a failed run; runs that wait are refused with its error. */
  #fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
    this.#closed ??= 'an earlier run failed, which closed the session';
    this.#closing ??= this.#release();
    this.#closing.catch(() => {});
  }

  /** What the inputs ask for, and who can compile it; undefined where they are the ones that this artifact was compiled for. Starts nothing. */
  #otherSpecialisation(inputs: Readonly<Record<string, InputValue>>): (SpecialisationRequest & { readonly specialise: Specialisations }) | undefined {
    const manifest = this.#manifest;
    checkInputs(manifest, inputs);
    const shapes: Record<string, readonly number[]> = {};
    let same = true;
    for (const i of manifest.inputs) {
      const shape = statedShape(inputs[i.name]!) ?? i.shape;
      shapes[i.name] = shape;
      same &&= shape.length === i.shape.length && shape.every((d, k) => d === i.shape[k]);
    }
    const bound: Record<string, InputValue> = {};
    const changed: string[] = [];
    for (const b of manifest.bound) {
      const given = inputs[b.name];
      if (given === undefined) continue;
      bound[b.name] = given;
      if (!equalsBound(b, given)) changed.push(b.name);
    }
    if (same && changed.length === 0) return undefined;
    if (this.#specialise) return { shapes, bound, specialise: this.#specialise };
    if (changed.length > 0) throw new InputError(`input ${JSON.stringify(changed[0])} was bound to a value when the model was compiled, and another was given. This artifact was loaded without the compiler: compile the model with --value for that value`);
    const wrong = manifest.inputs.find((i) => shapes[i.name]!.join() !== i.shape.join())!;
    throw new InputError(`input ${JSON.stringify(wrong.name)} has shape [${shapes[wrong.name]!.join(',')}], expected ${wrong.dtype}[${wrong.shape.join(',')}]. This artifact was loaded without the compiler: for another shape, compile the model for it${Object.keys(manifest.dims).length > 0 ? ` (--dim ${Object.keys(manifest.dims)[0]}=...)` : ''}`);
  }

  #writes(inputs: Readonly<Record<string, InputValue>>): Patch[] {
    const { inputs: declared, profile, steps } = this.#manifest;
    const writes = declared.map((i) => ({ address: i.address, bytes: inputBytes(i, inputs[i.name]!) }));
    // Steps that a run does not reach have no time.
    if (profile >= 0) writes.push({ address: profile, bytes: new Uint8Array(steps.length * 16) });
    return writes;
  }

  #reads(): { address: number; bytes: number }[] {
    const { outputs, profile, steps } = this.#manifest;
    const reads = outputs.map((o) => ({ address: o.address, bytes: byteLength(o) }));
    if (profile >= 0) reads.push({ address: profile, bytes: steps.length * 16 });
    return reads;
  }

  #results(reads: readonly Uint8Array<ArrayBuffer>[]): Record<string, Tensor> {
    if (this.#manifest.profile >= 0) this.#times = new Float64Array(reads.at(-1)!.buffer);
    return Object.fromEntries(this.#manifest.outputs.map((o, i) => [o.name, tensorOver(o, reads[i]!)]));
  }
}
