/** Samples with their targets, held in memory as their files store them. */
import { InputError } from '../error.ts';
import { describe, elementCount, type Tensor, type TensorInfo } from '../tensor.ts';

/** The first axis of both tensors counts samples. Bytes stay bytes until a batch is made of them. */
export interface Samples {
  readonly x: Tensor;
  readonly y: Tensor;
  /** The domain of each sample, counted from 0, where there are several. */
  readonly domains?: Int32Array;
  /** What the classes are called, where the source names them. */
  readonly classNames?: readonly string[];
  /** Where they came from, for messages. */
  readonly name: string;
}

/** Number of samples. */
export const countOf = (samples: Samples): number => samples.x.shape[0] ?? 0;

/** What a model wants of its data: types of its batches, and how many classes targets name (undefined where targets are numbers). */
export interface Wanted {
  readonly x: TensorInfo;
  readonly y: TensorInfo;
  readonly classes: number | undefined;
  /** The input that names each sample's domain, and how many there are. */
  readonly domain?: { readonly name: string; readonly count: number };
  /** A class index that stands for "no target". */
  readonly ignoreIndex?: number;
}

/** Checks that samples fit a model before it sees the first: counts, sizes, labels in range. */
export function checkSamples(samples: Samples, wanted: Wanted): void {
  const { x, y, name } = samples;
  const bad = (why: string): never => {
    throw new InputError(`${name}: ${why}`);
  };
  const count = countOf(samples);
  if (count === 0) bad('there are no samples');
  if ((y.shape[0] ?? 0) !== count) bad(`there are ${count} samples and ${y.shape[0] ?? 0} targets; their numbers must agree`);
  const size = elementCount(x.shape.slice(1));
  const modelSize = elementCount(wanted.x.shape.slice(1));
  if (size !== modelSize) bad(`a sample is [${x.shape.slice(1).join(',')}], ${size} numbers, but the input ${JSON.stringify(wanted.x.name)} takes ${describe({ ...wanted.x, shape: wanted.x.shape.slice(1) })}, ${modelSize} numbers`);
  if (wanted.classes === undefined) {
    const targets = elementCount(y.shape.slice(1));
    const modelTargets = elementCount(wanted.y.shape.slice(1));
    if (targets !== modelTargets) bad(`a target has ${targets} ${targets === 1 ? 'number' : 'numbers'}, but the loss compares ${modelTargets}`);
    return;
  }
  const positions = elementCount(wanted.y.shape.slice(1));
  // Probabilities of classes take an index a sample as well.
  if (wanted.y.dtype === 'i64' && elementCount(y.shape.slice(1)) !== positions) bad(`a sample has ${elementCount(y.shape.slice(1))} labels, but the model gives ${positions} answers a sample`);
  checkLabels(samples, wanted.classes, wanted.ignoreIndex);
}

function checkLabels({ y, name }: Samples, classes: number, ignoreIndex: number | undefined): void {
  const perSample = elementCount(y.shape.slice(1));
  for (let i = 0; i < y.data.length; i++) {
    const label = Number(y.data[i]);
    if (label === ignoreIndex || (Number.isInteger(label) && label >= 0 && label < classes)) continue;
    throw new InputError(`${name}: the label of sample ${Math.floor(i / perSample)} is ${label}, but the model has classes 0 to ${classes - 1}${label === classes ? '; labels count from 0' : ''}`);
  }
}

/** How raw values become a model's input: (raw · scale - mean) / std, with one mean and std, or one a channel. */
export interface Normalisation {
  readonly scale: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** Bytes go from 0 to 1, everything else stays as it is. */
export const plainNormalisation = (samples: Samples): Normalisation => ({ scale: samples.x.dtype === 'u8' ? 1 / 255 : 1, mean: [0], std: [1] });

/** Mean and standard deviation of each channel over all samples; `channels` is 1 for samples without that axis. */
export function standardisation(samples: Samples, channels: number): Normalisation {
  const { scale } = plainNormalisation(samples);
  const { data } = samples.x;
  const plane = elementCount(samples.x.shape.slice(1)) / channels;
  const perChannel = Array.from({ length: channels }, (_, c) => {
    let [sum, squares] = [0, 0];
    for (let start = c * plane; start < data.length; start += channels * plane) for (let i = start; i < start + plane; i++) sum += Number(data[i]);
    const n = data.length / channels;
    const mean = sum / n;
    for (let start = c * plane; start < data.length; start += channels * plane) for (let i = start; i < start + plane; i++) squares += (Number(data[i]) - mean) ** 2;
    // A channel that never changes has nothing to divide by.
    return { mean: mean * scale, std: Math.sqrt(squares / n) * scale || 1 };
  });
  return { scale, mean: perChannel.map((c) => c.mean), std: perChannel.map((c) => c.std) };
}
