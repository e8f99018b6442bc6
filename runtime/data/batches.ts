/** Batches of samples, as a training step takes them. */
import { InputError } from '../error.ts';
import { dtypeFacts, elementCount, type TensorInfo, type TypedArray } from '../tensor.ts';
import { blend, blendOf, blends, checkAugmentation, moved, type Augmentation, type Key } from './augment.ts';
import { checkSamples, countOf, plainNormalisation, type Normalisation, type Samples, type Wanted } from './samples.ts';
import { shuffled } from './shuffle.ts';

export interface BatchOptions {
  /** Shuffling and augmentation follow from it; a whole number. */
  readonly seed?: number;
  /** Every epoch has an order of its own. On unless given. */
  readonly shuffle?: boolean;
  /** Bytes are divided by 255, other values taken as they are, unless given. */
  readonly normalisation?: Normalisation;
  readonly augmentation?: Augmentation;
  /** What becomes of samples that fill no batch: left out (`drop`, the default), or filled up with copies of the last one (`pad`). */
  readonly rest?: 'drop' | 'pad';
}

export interface Batch {
  readonly x: TypedArray;
  readonly y: TypedArray;
  /** Domains of the samples, for a model that takes them. */
  readonly domain?: BigInt64Array;
  /** Samples that count: all but those that fill up the last batch. */
  readonly count: number;
}

/** Batches of an epoch at random access. */
export interface Epoch {
  readonly batches: number;
  at(batch: number): Batch;
}

/**
 * Checks samples against what a model takes and returns their epochs. A batch depends on seed, epoch and its number alone: training can stop and go on anywhere.
 */
export function batchesOf(samples: Samples, wanted: Wanted, options: BatchOptions = {}): (epoch: number) => Epoch {
  checkSamples(samples, wanted);
  const { seed = 0, shuffle = true, rest = 'drop', augmentation = {} } = options;
  if (!Number.isSafeInteger(seed) || seed < 0) throw new InputError(`the seed is ${seed}, expected a whole number from 0 to 2^53 - 1`);
  const shape = wanted.x.shape.slice(1);
  checkAugmentation(augmentation, shape);
  const domains = wanted.domain && samples.domains;
  if (wanted.domain && !domains) throw new InputError(`${samples.name}: the samples do not say which domain they are of, which the input ${JSON.stringify(wanted.domain.name)} takes`);
  if (domains && blends(augmentation)) throw new InputError('mixup and cutmix blend samples of different domains, whose statistics are kept apart; leave them out');
  const size = wanted.x.shape[0] ?? 1;
  const count = countOf(samples);
  const batches = rest === 'pad' ? Math.ceil(count / size) : Math.floor(count / size);
  if (batches === 0) throw new InputError(`${samples.name}: ${count} samples do not fill one batch of ${size}`);
  const normalisation = options.normalisation ?? plainNormalisation(samples);
  const stored = storedSamples(samples, shape, normalisation.scale);
  const finish = normaliser(normalisation, shape);

  return (epoch) => {
    const order = shuffle ? shuffled(count, seed, epoch) : undefined;
    const keyOf = (index: number): Key => ({ seed, epoch, index });
    const shifted = (index: number): Float32Array => moved(stored(index), shape, augmentation, keyOf(index));
    return {
      batches,
      at(batch) {
        const x = emptyOf(wanted.x);
        const y = emptyOf(wanted.y);
        const domain = domains && new BigInt64Array(size);
        for (let i = 0; i < size; i++) {
          const place = Math.min(batch * size + i, count - 1);
          const index = order ? order[place]! : place;
          if (domain) domain[i] = BigInt(domains[index]!);
          const mix = blendOf(augmentation, shape, count, keyOf(index));
          const own = shifted(index);
          putSample(x, i, finish(mix ? blend(own, shifted(mix.partner), shape, mix) : own));
          addTarget(y, i, samples, index, wanted, mix?.share ?? 1);
          if (mix) addTarget(y, i, samples, mix.partner, wanted, 1 - mix.share);
        }
        return { x, y, ...(domain && { domain }), count: Math.min(size, count - batch * size) };
      },
    };
  };
}

function emptyOf(info: TensorInfo): TypedArray {
  const held = ['f32', 'f64', 'i64', 'i32', 'i16', 'i8', 'u8', 'bool'].includes(info.dtype);
  if (!held) throw new InputError(`batches of ${info.dtype} cannot be made of data files (input ${JSON.stringify(info.name)}); feed trainStep in code`);
  return new dtypeFacts[info.dtype].array(elementCount(info.shape));
}

/** Reads a sample as numbers, scaled. */
function storedSamples({ x }: Samples, shape: readonly number[], scale: number): (index: number) => Float32Array {
  const size = elementCount(shape);
  return (index) => Float32Array.from(x.data.subarray(index * size, (index + 1) * size) as ArrayLike<number | bigint>, (v) => Number(v) * scale);
}

/** Subtracts means and divides by deviations, in place. */
function normaliser({ mean, std }: Normalisation, shape: readonly number[]): (sample: Float32Array) => Float32Array {
  const channels = Math.max(mean.length, std.length);
  if (channels > 1 && channels !== shape[0]) throw new InputError(`there are ${channels} means or deviations, but samples of [${shape.join(',')}] have ${shape[0]} channels`);
  if (mean.every((m) => m === 0) && std.every((s) => s === 1)) return (sample) => sample;
  const plane = elementCount(shape) / channels;
  return (sample) => {
    for (let c = 0; c < channels; c++) {
      const [m, s] = [mean[mean.length > 1 ? c : 0]!, std[std.length > 1 ? c : 0]!];
      for (let i = c * plane; i < (c + 1) * plane; i++) sample[i] = (sample[i]! - m) / s;
    }
    return sample;
  };
}

function putSample(x: TypedArray, i: number, sample: Float32Array): void {
  const start = i * sample.length;
  if (x instanceof BigInt64Array || x instanceof BigUint64Array) sample.forEach((v, k) => (x[start + k] = BigInt(v)));
  else x.set(sample, start);
}

/** Adds a share of a sample's target to that of a batch: an index as it is, a class as a probability, numbers scaled. */
function addTarget(y: TypedArray, i: number, { y: targets }: Samples, index: number, { y: info, classes }: Wanted, share: number): void {
  const own = targets.data.length / targets.shape[0]!;
  const size = elementCount(info.shape.slice(1));
  if (y instanceof BigInt64Array || y instanceof BigUint64Array) {
    for (let k = 0; k < size; k++) y[i * size + k] = BigInt(targets.data[index * own + k]!);
  } else if (classes !== undefined) {
    const at = i * size + Number(targets.data[index]);
    y[at] = y[at]! + share;
  } else {
    for (let k = 0; k < size; k++) y[i * size + k] = y[i * size + k]! + share * Number(targets.data[index * own + k]);
  }
}
