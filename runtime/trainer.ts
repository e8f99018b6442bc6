/** Trainers: a loaded training artifact, its state, and what goes in and out of it. */
import { openArtifact, type ArtifactObject, type Explain, type OpenArtifact } from './artifact.ts';
import { checkBelongs, type Checkpoint } from './checkpoint.ts';
import { readCheckpoint, writeCheckpoint } from './checkpoint-files.ts';
import type { Engine, EntryInfo, StateInfo } from './engine.ts';
import { InputError, RunError } from './error.ts';
import { exportOnnx } from './export-onnx.ts';
import type { InputValue } from './inputs.ts';
import { constantSchedule, type Schedule } from './schedule.ts';
import type { LoadOptions } from './session.ts';
import { describe, type Tensor } from './tensor.ts';
import { wasmEngine } from './wasm-engine.ts';

/** The inputs and the output that training adds to a model. */
const rateName = 'lr';
const lossName = 'loss';

export interface TrainerOptions {
  /** The learning rate of steps that are given none; 0.001 unless given. */
  readonly lr?: number;
  /** What the learning rate is multiplied by, as a function of the number of updates so far. */
  readonly schedule?: Schedule;
  /** Says which op first produced a number that is not finite, from the inputs of a step and the state before it. An artifact in memory brings its own. */
  readonly explain?: Explain;
}

export type LoadTrainerOptions = TrainerOptions & Pick<LoadOptions, 'threads' | 'features' | 'gpu' | 'backend'>;

export interface StepResult {
  readonly loss: number;
  /** The model's outputs, and gradients (`NAME.grad`) where the step returns them. */
  readonly outputs: Record<string, Tensor>;
}

/** A step's loss is not finite. The state is as it was before that step. */
export class NonFiniteLoss extends RunError {}

export interface Trainer {
  readonly model: string;
  readonly threads: number;
  readonly notices: readonly string[];
  /** Inputs and outputs of a training step, and of an evaluation. */
  readonly entries: { readonly step: EntryInfo; readonly eval: EntryInfo };
  /** Number of updates so far. */
  readonly step: number;
  /**
   * One update: takes the model's inputs, the target `y` where the loss has one, and `lr`, if not the trainer's. Rejects with InputError (nothing happened) or, where the loss is
   * NaN or infinite, with NonFiniteLoss, which names the op that it came from; the state is then as it was before the step.
   */
  trainStep(inputs: Readonly<Record<string, InputValue>>): Promise<StepResult>;
  /** The model's outputs, with running statistics and without dropout. */
  evaluate(inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>>;
  /** Copies of the weights that are trained, by their names in the model. */
  parameters(): Promise<Map<string, Tensor>>;
  /** Replaces weights; the others stay. */
  setParameters(weights: Readonly<Record<string, InputTensor>> | ReadonlyMap<string, InputTensor>): Promise<void>;
  /** Runs `work` with the moving averages of the weights in their place, and puts the weights back. Needs a step that averages. */
  averaged<T>(work: () => Promise<T>): Promise<T>;
  /** Sets the seed that random ops draw by. */
  setSeed(seed: number): Promise<void>;
  /** All state as it stands, with notes of the caller's. */
  checkpoint(notes?: Readonly<Record<string, string>>): Promise<Checkpoint>;
  /** Writes a checkpoint to a folder: all of it or nothing; the previous one is kept. Returns its file. */
  save(folder: string, notes?: Readonly<Record<string, string>>): Promise<string>;
  /** Goes on from a checkpoint: the newest of a folder, a file, or one in memory. Returns the notes that were saved with it. */
  restore(from: string | Checkpoint): Promise<Readonly<Record<string, string>>>;
  /** Writes a copy of the ONNX model that was compiled (its file, or bytes that hold all of it), with the weights and running statistics as they are now. The copy is one file. */
  exportOnnx(source: string | Uint8Array, target: string): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A weight's new value: a tensor, or its elements in row-major order. */
export type InputTensor = Tensor | Float32Array | Float64Array;

/**
 * Loads a training artifact, which `tilewright compile --train` or `compile(model, { train })` made: a folder, a URL, or an artifact in memory. An idle trainer does not
 * keep a Node process alive.
 */
export async function loadTrainer(source: string | URL | ArtifactObject, options: LoadTrainerOptions = {}): Promise<Trainer> {
  return openedTrainer(await openArtifact(source), options);
}

/** A trainer over an artifact that is open. */
export async function openedTrainer(artifact: OpenArtifact, options: LoadTrainerOptions): Promise<Trainer> {
  const explain = options.explain ?? artifact.explain;
  return trainerOver(await wasmEngine(artifact, options), { ...options, ...(explain && { explain }) });
}

/** A trainer over an engine. */
export async function trainerOver(engine: Engine, options: TrainerOptions = {}): Promise<Trainer> {
  const trainer = new EngineTrainer(engine, options);
  await trainer.reload();
  return trainer;
}

class EngineTrainer implements Trainer {
  readonly model: string;
  readonly threads: number;
  readonly notices: readonly string[];
  readonly entries: Trainer['entries'];
  step = 0;
  readonly #engine: Engine;
  readonly #options: TrainerOptions;
  /** Ends when all that was asked for so far has ended. */
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(engine: Engine, options: TrainerOptions) {
    this.#engine = engine;
    this.#options = options;
    this.model = engine.model;
    this.threads = engine.threads;
    this.notices = engine.notices;
    this.entries = { step: engine.step, eval: engine.eval };
  }

  /** Reads the number of updates off the state. */
  async reload(): Promise<void> {
    const counter = this.#named('counter')[0];
    this.step = counter === undefined ? 0 : Number((await this.#engine.read([counter])).get(counter)!.data[0]);
  }

  trainStep(inputs: Readonly<Record<string, InputValue>>): Promise<StepResult> {
    return this.#next(async () => {
      const { lr = 1e-3, schedule = constantSchedule } = this.#options;
      const given = inputs[rateName] === undefined ? { ...inputs, [rateName]: lr * schedule(this.step) } : inputs;
      const { [lossName]: loss, ...outputs } = await this.#engine.run('step', given);
      const value = Number(loss?.data[0]);
      // The step itself has left its state alone then.
      if (!Number.isFinite(value)) throw new NonFiniteLoss(`the loss of step ${this.step + 1} is ${value}: ${await this.#cause(given)}. The state is as it was before that step`);
      // An automatic loss scale skips steps, and only the state knows which.
      if (this.#named('scale').length > 0) await this.reload();
      else this.step++;
      return { loss: value, outputs };
    });
  }

  evaluate(inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>> {
    return this.#next(() => this.#engine.run('eval', inputs));
  }

  parameters(): Promise<Map<string, Tensor>> {
    return this.#next(() => this.#engine.read(this.#named('parameter')));
  }

  setParameters(weights: Readonly<Record<string, InputTensor>> | ReadonlyMap<string, InputTensor>): Promise<void> {
    return this.#next(async () => {
      const given = weights instanceof Map ? (weights as ReadonlyMap<string, InputTensor>) : new Map(Object.entries(weights));
      await this.#engine.write(new Map([...given].map(([name, value]) => [name, this.#fitting(name, value)])));
    });
  }

  averaged<T>(work: () => Promise<T>): Promise<T> {
    const pairs = this.#named('average').map((average) => ({ average, name: average.replace(/\.average$/, '') }));
    if (pairs.length === 0) return Promise.reject(new InputError('this step keeps no moving averages of its weights; compile it with an optimizer that has ema'));
    return (async () => {
      const own = await this.#next(async () => {
        const state = await this.#engine.read(pairs.flatMap((p) => [p.average, p.name]));
        await this.#engine.write(new Map(pairs.map((p) => [p.name, state.get(p.average)!])));
        return new Map(pairs.map((p) => [p.name, state.get(p.name)!]));
      });
      try {
        return await work();
      } finally {
        await this.#next(() => this.#engine.write(own));
      }
    })();
  }

  setSeed(seed: number): Promise<void> {
    if (!Number.isSafeInteger(seed)) return Promise.reject(new InputError(`the seed is ${seed}, expected a whole number`));
    return this.#next(() => this.#engine.write(new Map(this.#named('seed').map((name) => [name, { dtype: 'i64', shape: [], data: BigInt64Array.of(BigInt(seed)) }]))));
  }

  checkpoint(notes: Readonly<Record<string, string>> = {}): Promise<Checkpoint> {
    return this.#next(async () => ({ step: this.step, state: await this.#engine.read(this.#engine.state.map((s) => s.name)), notes }));
  }

  async save(folder: string, notes: Readonly<Record<string, string>> = {}): Promise<string> {
    return writeCheckpoint(folder, await this.checkpoint(notes));
  }

  restore(from: string | Checkpoint): Promise<Readonly<Record<string, string>>> {
    return this.#next(async () => {
      const belongs = (c: Checkpoint, name: string): void => checkBelongs(c, this.#engine.state, name);
      const checkpoint = typeof from === 'string' ? await readCheckpoint(from, belongs) : from;
      if (typeof from !== 'string') belongs(checkpoint, 'in memory');
      await this.#engine.write(checkpoint.state);
      await this.reload();
      return checkpoint.notes;
    });
  }

  async exportOnnx(source: string | Uint8Array, target: string): Promise<void> {
    const weights = await this.#next(() => this.#engine.read([...this.#named('parameter'), ...this.#named('statistic')]));
    await exportOnnx(source, target, weights);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#queue;
    await this.#engine.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Runs work after all that was asked for before. */
  #next<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new InputError('the trainer is closed'));
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  #named(role: StateInfo['role']): string[] {
    return this.#engine.state.filter((s) => s.role === role).map((s) => s.name);
  }

  #fitting(name: string, value: InputTensor): Tensor {
    const info = this.#engine.state.find((s) => s.name === name && (s.role === 'parameter' || s.role === 'statistic'));
    if (!info) throw new InputError(`the model has no trained weight ${JSON.stringify(name)}`);
    const tensor: Tensor = ArrayBuffer.isView(value) ? { dtype: value instanceof Float32Array ? 'f32' : 'f64', shape: info.shape, data: value } : value;
    if (describe(tensor) !== describe(info) || tensor.data.length !== info.shape.reduce((n, d) => n * d, 1)) throw new InputError(`weight ${JSON.stringify(name)} is given as ${describe(tensor)} with ${tensor.data.length} elements, expected ${describe(info)}`);
    return tensor;
  }

  /** Where a number that is not finite comes from: inputs, weights, else an op. */
  async #cause(inputs: Readonly<Record<string, InputValue>>): Promise<string> {
    const badInput = this.#engine.step.inputs.find((i) => !allFinite(inputs[i.name]));
    if (badInput) return `the input ${JSON.stringify(badInput.name)} holds a number that is not finite`;
    const state = await this.#engine.read(this.#engine.state.map((s) => s.name));
    const badState = [...state].find(([, t]) => !allFinite(t));
    if (badState) return `${JSON.stringify(badState[0])} holds a number that is not finite, which an earlier update made; the learning rate may be too high`;
    if (!this.#options.explain) return 'inputs and weights are finite; load the artifact in the process that compiled it to have the op named';
    return this.#options.explain(inputs, state);
  }
}

function allFinite(value: InputValue | undefined): boolean {
  if (value === undefined) return true;
  const data = typeof value === 'object' && 'data' in value ? value.data : value;
  if (data instanceof Float32Array || data instanceof Float64Array) return data.every((x) => Number.isFinite(x));
  return typeof data === 'number' ? Number.isFinite(data) : true;
}
