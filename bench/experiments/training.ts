/** Trains one network from many seeds: compiled once, its state set anew for each. */
import { onnxBytes } from '../../frontend/onnx/write.ts';
import { initialValues, type ZooModel } from '../../frontend/zoo/index.ts';
import { compile } from '../../index.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import { cosineSchedule, loadSession, loadTrainer, NonFiniteLoss, withWarmup, type Checkpoint, type Epoch, type Samples, type Tensor, type Trainer } from '../../runtime/index.ts';

export const threads = 2;

export interface Setup {
  readonly model: ZooModel;
  readonly train: TrainOptions;
  readonly batch: number;
  readonly lr: number;
  readonly epochs: number;
}

/** A network that is being trained; close it. */
export class Training implements AsyncDisposable {
  readonly #setup: Setup;
  readonly #trainer: Trainer;
  readonly #start: Checkpoint;

  private constructor(setup: Setup, trainer: Trainer, start: Checkpoint) {
    this.#setup = setup;
    this.#trainer = trainer;
    this.#start = start;
  }

  static async of(setup: Setup): Promise<Training> {
    const bytes = onnxBytes(setup.model, (w) => initialValues(w, 0));
    const artifact = await compile(bytes, { dims: { n: setup.batch }, train: setup.train, features: ['relaxed'] });
    const trainer = await loadTrainer(artifact, { threads });
    return new Training(setup, trainer, await trainer.checkpoint());
  }

  /** What the step takes, for `batchesOf`. */
  get inputs(): { readonly x: Trainer['entries']['step']['inputs'][number]; readonly y: Trainer['entries']['step']['inputs'][number] } {
    const find = (name: string): Trainer['entries']['step']['inputs'][number] => this.#trainer.entries.step.inputs.find((i) => i.name === name)!;
    return { x: find('x'), y: find('y') };
  }

  /** Trains from a seed, with a tenth of the steps of warm-up and a cosine after it. Returns all state by name; undefined where the loss became infinite. */
  async run(seed: number, batches: (epoch: number) => Epoch): Promise<ReadonlyMap<string, Tensor> | undefined> {
    const { model, lr, epochs } = this.#setup;
    const fresh = new Map(model.weights.map((w) => [w.name, initialValues(w, seed)]));
    const state = new Map([...this.#start.state].map(([name, t]) => [name, fresh.has(name) ? ({ ...t, data: fresh.get(name)! }) : t]));
    await this.#trainer.restore({ ...this.#start, state });
    await this.#trainer.setSeed(seed);
    const steps = epochs * batches(0).batches;
    const warmup = Math.round(steps / 10);
    const schedule = withWarmup(warmup, cosineSchedule(steps - warmup));
    try {
      for (let epoch = 0; epoch < epochs; epoch++) {
        const { batches: count, at } = batches(epoch);
        for (let b = 0; b < count; b++) {
          const { x, y } = at(b);
          await this.#trainer.trainStep({ x, y, lr: lr * schedule(this.#trainer.step) });
        }
      }
    } catch (e) {
      if (e instanceof NonFiniteLoss) return undefined;
      throw e;
    }
    return (await this.#trainer.checkpoint()).state;
  }

  /** Share of samples that the network reads, by running statistics and without dropout. */
  async accuracy({ x, y }: Samples): Promise<number> {
    const { batch } = this.#setup;
    return accuracyBy(batch, { x, y }, async (input) => (await this.#trainer.evaluate({ x: input })) as { logits: Tensor });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#trainer.close();
  }
}

/** Share of samples that a network with given weights reads. */
export async function accuracyOf(model: ZooModel, weights: (name: string) => Float32Array, samples: Pick<Samples, 'x' | 'y'>): Promise<number> {
  const batch = 128;
  const artifact = await compile(onnxBytes(model, (w) => weights(w.name)), { dims: { n: batch }, features: ['relaxed'] });
  await using session = await loadSession(artifact, { threads });
  return await accuracyBy(batch, samples, async (x) => (await session.run({ x })) as { logits: Tensor });
}

/** Runs batches whose last one is filled up with zeros, which do not count. Bytes go from 0 to 1. */
async function accuracyBy(batch: number, { x, y }: Pick<Samples, 'x' | 'y'>, run: (x: Float32Array) => Promise<{ readonly logits: Tensor }>): Promise<number> {
  const count = x.shape[0]!;
  const size = x.data.length / count;
  const scale = x.dtype === 'u8' ? 1 / 255 : 1;
  let right = 0;
  for (let from = 0; from < count; from += batch) {
    const input = new Float32Array(batch * size);
    for (let k = 0; k < Math.min(batch, count - from) * size; k++) input[k] = Number(x.data[from * size + k]) * scale;
    const { logits } = await run(input);
    const classes = logits.shape[1]!;
    for (let i = 0; i < Math.min(batch, count - from); i++) {
      const row = (logits.data as Float32Array).subarray(i * classes, (i + 1) * classes);
      if (row.indexOf(Math.max(...row)) === Number(y.data[from + i])) right++;
    }
  }
  return right / count;
}
