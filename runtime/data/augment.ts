/** Changes to samples that a model should not mind. Each is keyed by seed, epoch and the sample's index: neither the batch nor a pause changes what a sample becomes. */
import { InputError } from '../error.ts';
import { draws, purposes, type Draws } from './random.ts';

export interface Augmentation {
  /** Pads by this many zeros on each side, then crops to the old size somewhere. */
  readonly crop?: number;
  /** Mirrors half of the samples from left to right. */
  readonly flip?: boolean;
  /** Blends each sample and its target with another's; the share comes from Beta(mixup, mixup) (Zhang et al., arXiv 1710.09412). */
  readonly mixup?: number;
  /** Replaces a rectangle by that of another sample; its area comes from Beta(cutmix, cutmix), targets are blended by area (Yun et al., arXiv 1905.04899). */
  readonly cutmix?: number;
}

/** Whether targets become blends, which a loss has to take as probabilities. */
export const blends = (a: Augmentation): boolean => a.mixup !== undefined || a.cutmix !== undefined;

/** Checks an augmentation against the shape of a sample. */
export function checkAugmentation(a: Augmentation, sample: readonly number[]): void {
  const spatial = a.crop !== undefined || a.flip || a.cutmix !== undefined;
  if (spatial && sample.length !== 3) throw new InputError(`crop, flip and cutmix are for samples of [channels,height,width]; the model's are [${sample.join(',')}]`);
  for (const [what, x] of [['mixup', a.mixup], ['cutmix', a.cutmix]] as const) if (x !== undefined && !(x > 0 && Number.isFinite(x))) throw new InputError(`${what} is ${x}, expected a positive number`);
  if (a.crop !== undefined && !(Number.isInteger(a.crop) && a.crop >= 1)) throw new InputError(`crop is ${a.crop}, expected a whole number of pixels of at least 1`);
}

/** What an augmented sample is keyed by. */
export interface Key {
  readonly seed: number;
  readonly epoch: number;
  readonly index: number;
}

/** Shifts and mirrors a sample [channels,height,width] as its key says. */
export function moved(sample: Float32Array, shape: readonly number[], a: Augmentation, { seed, epoch, index }: Key): Float32Array {
  if (a.crop === undefined && !a.flip) return sample;
  const [channels, height, width] = shape as [number, number, number];
  const pad = a.crop ?? 0;
  const offset = draws(seed, purposes.crop, epoch, index);
  const [dy, dx] = pad > 0 ? [offset.below(2 * pad + 1) - pad, offset.below(2 * pad + 1) - pad] : [0, 0];
  const mirror = (a.flip ?? false) && draws(seed, purposes.flip, epoch, index).uniform() < 0.5;
  const out = new Float32Array(sample.length);
  for (let c = 0; c < channels; c++) {
    for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
      for (let x = 0; x < width; x++) {
        const from = (mirror ? width - 1 - x : x) + dx;
        if (from >= 0 && from < width) out[(c * height + y) * width + x] = sample[(c * height + y + dy) * width + from]!;
      }
    }
  }
  return out;
}

/** How a sample is blended: with which other, the share that stays, and for cutmix the rectangle that is replaced. */
export interface Blend {
  readonly partner: number;
  readonly share: number;
  readonly box?: { readonly top: number; readonly left: number; readonly bottom: number; readonly right: number };
}

/** The blend of a sample; where mixup and cutmix are both asked for, each gets half of the samples. */
export function blendOf(a: Augmentation, shape: readonly number[], count: number, { seed, epoch, index }: Key): Blend | undefined {
  if (!blends(a)) return undefined;
  const draw = draws(seed, purposes.mix, epoch, index);
  const partner = draw.below(count);
  const cut = a.cutmix !== undefined && (a.mixup === undefined || draw.uniform() < 0.5);
  const share = symmetricBeta((cut ? a.cutmix : a.mixup)!, draw);
  if (!cut) return { partner, share };
  const [, height, width] = shape as [number, number, number];
  const side = Math.sqrt(1 - share);
  const [h, w] = [Math.floor(height * side), Math.floor(width * side)];
  const [y, x] = [draw.below(height), draw.below(width)];
  const box = { top: Math.max(0, y - (h >> 1)), left: Math.max(0, x - (w >> 1)), bottom: Math.min(height, y + h - (h >> 1)), right: Math.min(width, x + w - (w >> 1)) };
  return { partner, share: 1 - ((box.bottom - box.top) * (box.right - box.left)) / (height * width), box };
}

/** Blends `other` into a sample. */
export function blend(sample: Float32Array, other: Float32Array, shape: readonly number[], { share, box }: Blend): Float32Array {
  if (!box) return sample.map((v, i) => share * v + (1 - share) * other[i]!);
  const [channels, height, width] = shape as [number, number, number];
  const out = sample.slice();
  for (let c = 0; c < channels; c++) {
    for (let y = box.top; y < box.bottom; y++) {
      const row = (c * height + y) * width;
      out.set(other.subarray(row + box.left, row + box.right), row + box.left);
    }
  }
  return out;
}

/** A number from Beta(a, a), by Jöhnk's rejection. Logarithms keep tiny powers apart. */
function symmetricBeta(a: number, draw: Draws): number {
  for (;;) {
    const [x, y] = [Math.log(1 - draw.uniform()) / a, Math.log(1 - draw.uniform()) / a];
    const larger = Math.max(x, y);
    const sum = larger + Math.log(Math.exp(x - larger) + Math.exp(y - larger));
    if (sum <= 0) return Math.exp(x - sum);
  }
}
