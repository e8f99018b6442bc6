/** Live training: data, steps, and how well held-out digits are read. */
import { batchesOf, inflate, isGzip, loadTrainer, readIdx, type Samples, type Trainer } from '../../../runtime/index.ts';
import type { LoadOptions } from '../../../runtime/session.ts';

/** Share of the samples that is held out. */
const heldOut = 0.1;
const rate = 0.01;

export interface Training {
  readonly notices: readonly string[];
  readonly losses: readonly number[];
  /** One step on the next batch; its loss. */
  step(): Promise<number>;
  /** Share of the held-out digits that are read right, and how many those are. */
  accuracy(): Promise<{ readonly share: number; readonly count: number }>;
  /** Scores of one picture, values 0 to 255. */
  scores(picture: Float32Array): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Starts a training from the seeded weights of an artifact. */
export async function startTraining(artifact: URL, samples: Samples, backend: NonNullable<LoadOptions['backend']> | undefined): Promise<Training> {
  const trainer = await loadTrainer(artifact, { lr: rate, ...(backend && { backend }) });
  try {
    return trainingOver(trainer, samples);
  } catch (e) {
    await trainer.close();
    throw e;
  }
}

function trainingOver(trainer: Trainer, samples: Samples): Training {
  const { inputs } = trainer.entries.step;
  const [x, y] = [inputs.find((i) => i.name === 'x')!, inputs.find((i) => i.name === 'y')!];
  const [batch] = x.shape;
  const wanted = { x, y, classes: 10 };
  const [kept, apart] = split(samples, batch!);
  const epochs = batchesOf(kept, wanted);
  const judged = batchesOf(apart, wanted, { shuffle: false })(0);
  const losses: number[] = [];
  const evaluate = async (pictures: Float32Array): Promise<Float32Array> => Object.values(await trainer.evaluate({ x: pictures }))[0]!.data as Float32Array;
  return {
    notices: trainer.notices,
    losses,
    async step() {
      const perEpoch = epochs(0).batches;
      const next = epochs(Math.floor(losses.length / perEpoch)).at(losses.length % perEpoch);
      const { loss } = await trainer.trainStep({ x: next.x, y: next.y });
      losses.push(loss);
      return loss;
    },
    async accuracy() {
      let right = 0;
      for (let b = 0; b < judged.batches; b++) {
        const { x: pictures, y: labels } = judged.at(b);
        const scores = await evaluate(pictures as Float32Array);
        for (let i = 0; i < batch!; i++) if (best(scores.subarray(10 * i, 10 * i + 10)) === Number(labels[i])) right++;
      }
      return { share: right / (judged.batches * batch!), count: judged.batches * batch! };
    },
    async scores(picture) {
      const pictures = new Float32Array(batch! * picture.length);
      pictures.set(picture.map((p) => p / 255));
      return (await evaluate(pictures)).subarray(0, 10);
    },
    close: () => trainer.close(),
  };
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
