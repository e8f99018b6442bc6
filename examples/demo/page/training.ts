/** Live training: data, steps, and how well held-out digits are read. */
import { batchesOf, inflate, isGzip, loadTrainer, readIdx, type Checkpoint, type Epoch, type Samples, type Trainer } from '../../../runtime/index.ts';
import type { LoadOptions } from '../../../runtime/session.ts';
import { lasting } from './lasting.ts';

/** Share of the samples that is held out. */
const heldOut = 0.1;
const rate = 0.01;
/** Steps between two checkpoints. They are kept in memory: a GPU that is lost takes all state with it that lies there alone. */
const keptEvery = 5;

export interface Training {
  readonly notices: readonly string[];
  /** Of all steps that the state has seen: after a lost GPU no more than those before the last checkpoint. */
  readonly losses: readonly number[];
  /** One step on the next batch; its loss. */
  step(): Promise<number>;
  /** Share of the held-out digits that are read right, and how many those are. */
  accuracy(): Promise<{ readonly share: number; readonly count: number }>;
  /** Scores of one picture, values 0 to 255. */
  scores(picture: Float32Array): Promise<Float32Array>;
  close(): Promise<void>;
}

/** A training from the seeded weights of an artifact, which goes on from its last checkpoint where the GPU is lost. */
export function startTraining(artifact: URL, samples: Samples, backend: NonNullable<LoadOptions['backend']> | undefined): Training {
  const losses: number[] = [];
  const losts: string[] = [];
  let notices: readonly string[] = [];
  let kept: Checkpoint | undefined;
  const trainer = lasting(async () => {
    const opened = await loadTrainer(artifact, { lr: rate, ...(backend && { backend }) });
    try {
      if (kept) await opened.restore(kept);
      kept ??= await opened.checkpoint();
      return { data: dataFor(opened, samples), trainer: opened, close: () => opened.close() };
    } catch (e) {
      await opened.close();
      throw e;
    } finally {
      notices = opened.notices;
      losses.length = kept?.step ?? 0;
    }
  }, ({ message }) => void losts.push(`training loaded again, from step ${kept?.step ?? 0}: ${message}`));
  type Opened = Parameters<Parameters<typeof trainer.use>[0]>[0];
  const evaluate = async ({ trainer: on }: Opened, x: Float32Array): Promise<Float32Array> => Object.values(await on.evaluate({ x }))[0]!.data as Float32Array;
  return {
    get notices() {
      return [...notices, ...losts];
    },
    losses,
    step: () => trainer.use(async ({ trainer: on, data: { epochs } }) => {
      const perEpoch = epochs(0).batches;
      const next = epochs(Math.floor(losses.length / perEpoch)).at(losses.length % perEpoch);
      const { loss } = await on.trainStep({ x: next.x, y: next.y });
      losses.push(loss);
      if (losses.length % keptEvery === 0) kept = await on.checkpoint();
      return loss;
    }),
    accuracy: () => trainer.use(async (opened) => {
      const { judged, batch } = opened.data;
      let right = 0;
      for (let b = 0; b < judged.batches; b++) {
        const { x, y } = judged.at(b);
        const scores = await evaluate(opened, x as Float32Array);
        for (let i = 0; i < batch; i++) if (best(scores.subarray(10 * i, 10 * i + 10)) === Number(y[i])) right++;
      }
      return { share: right / (judged.batches * batch), count: judged.batches * batch };
    }),
    scores: (picture) => trainer.use(async (opened) => {
      const pictures = new Float32Array(opened.data.batch * picture.length);
      pictures.set(picture.map((p) => p / 255));
      return (await evaluate(opened, pictures)).subarray(0, 10);
    }),
    close: () => trainer.close(),
  };
}

/** The samples as a trainer takes them: shuffled anew in each epoch, and those held out in their order. */
function dataFor(trainer: Trainer, samples: Samples): { readonly batch: number; readonly epochs: (epoch: number) => Epoch; readonly judged: Epoch } {
  const { inputs } = trainer.entries.step;
  const [x, y] = [inputs.find((i) => i.name === 'x')!, inputs.find((i) => i.name === 'y')!];
  const batch = x.shape[0]!;
  const wanted = { x, y, classes: 10 };
  const [learnt, apart] = split(samples, batch);
  return { batch, epochs: batchesOf(learnt, wanted), judged: batchesOf(apart, wanted, { shuffle: false })(0) };
}

/** Index of the largest. */
export const best = (scores: Float32Array): number => scores.reduce((top, s, i) => (s > scores[top]! ? i : top), 0);

/** Samples to learn from, and those held out: whole batches, one at least. */
function split({ x, y, name }: Samples, batch: number): [Samples, Samples] {
  const count = x.shape[0]!;
  const apart = Math.max(batch, Math.floor((heldOut * count) / batch) * batch);
  const size = x.data.length / count;
  const part = (from: number, to: number): Samples => ({
    name, x: { ...x, shape: [to - from, ...x.shape.slice(1)], data: x.data.subarray(from * size, to * size) }, y: { ...y, shape: [to - from], data: y.data.subarray(from, to) },
  });
  return [part(0, count - apart), part(count - apart, count)];
}

/** Reads two idx files, images and labels in either order, gzipped or not. */
export async function readDigits(files: readonly { readonly name: string; readonly bytes: Uint8Array }[]): Promise<Samples> {
  const tensors = await Promise.all(files.map(async ({ name, bytes }) => readIdx(isGzip(bytes) ? await inflate(bytes, 'gzip', name) : bytes, name)));
  const labels = tensors.find((t) => t.shape.length === 1);
  const images = tensors.find((t) => t.shape.length === 3);
  if (tensors.length !== 2 || !labels || !images) throw new Error(`choose two idx files, one of images (count, height, width) and one of labels; ${files.map((f, i) => `${f.name} has the shape [${tensors[i]!.shape.join(',')}]`).join(', ') || 'none was chosen'}`);
  return { x: images, y: labels, name: files.map((f) => f.name).join(', ') };
}
