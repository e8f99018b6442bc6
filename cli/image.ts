/** Pictures as model inputs: decoding, resizing, normalisation. */
import { readFileSync } from 'node:fs';
import { UserError } from '../ir/diagnostic.ts';
import { reason } from '../runtime/bytes.ts';
import { describe, type Tensor } from '../runtime/tensor.ts';

/** Planes of float samples in 0..255, one per channel. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly planes: readonly Float32Array[];
}

export interface ImageOptions {
  /** Height and width to resize to, where the model leaves them open. */
  readonly size: readonly [number, number] | undefined;
  readonly layout: 'nchw' | 'nhwc' | undefined;
  /** Samples go from 0 to this before mean and std. */
  readonly scale: number | undefined;
  /** One number, or one a channel, in units of the scaled samples. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly gray: boolean;
}

export const isImage = (path: string): boolean => /\.(png|jpe?g)$/i.test(path);

/** Decodes a PNG or JPEG to red, green and blue; what is transparent becomes white. */
export async function readPicture(path: string): Promise<Picture> {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (e) {
    throw new UserError(`cannot read ${path}: ${reason(e)}`);
  }
  const { width, height, data } = await decode(path, bytes);
  const planes = [0, 1, 2].map((c) => Float32Array.from({ length: width * height }, (_, i) => {
    const alpha = data[4 * i + 3]! / 255;
    return data[4 * i + c]! * alpha + 255 * (1 - alpha);
  }));
  return { width, height, planes };
}

async function decode(path: string, bytes: Buffer): Promise<{ width: number; height: number; data: Uint8Array }> {
  const wrong = flaw(path, bytes);
  if (wrong !== undefined) throw new UserError(`${path} is not a picture that can be read: ${wrong}`);
  try {
    if (/\.png$/i.test(path)) return (await import('pngjs')).PNG.sync.read(bytes);
    return (await import('jpeg-js')).decode(bytes, { useTArray: true });
  } catch (e) {
    throw new UserError(`${path} is not a picture that can be read: ${reason(e)}`);
  }
}

/** What can be told of the bytes before decoding: decoders tell it in terms of their own. */
function flaw(path: string, bytes: Buffer): string | undefined {
  const png = /\.png$/i.test(path);
  if (bytes.length === 0) return 'it is empty';
  const signature = png ? [0x89, 0x50, 0x4e, 0x47] : [0xff, 0xd8];
  if (signature.some((b, i) => bytes[i] !== b)) return `it does not start as a ${png ? 'PNG' : 'JPEG'} file does`;
  return png && !bytes.includes('IEND') ? `it is cut off: ${bytes.length} bytes without the chunk IEND that ends a PNG file` : undefined;
}

/** One plane of luma (ITU-R BT.601). */
export function toGray(picture: Picture): Picture {
  const [r, g, b] = picture.planes;
  if (!r || !g || !b) return picture;
  return { ...picture, planes: [r.map((x, i) => 0.299 * x + 0.587 * g[i]! + 0.114 * b[i]!)] };
}

/** Bilinear, pixel centres at halves; when it shrinks, the triangle grows with the step, so that no sample is left out. */
export function resize(picture: Picture, height: number, width: number): Picture {
  if (picture.height === height && picture.width === width) return picture;
  const columns = weights(picture.width, width);
  const rows = weights(picture.height, height);
  const planes = picture.planes.map((plane) => {
    const narrow = new Float32Array(picture.height * width);
    for (let y = 0; y < picture.height; y++) {
      for (let x = 0; x < width; x++) narrow[y * width + x] = columns[x]!.taps.reduce((sum, w, k) => sum + w * plane[y * picture.width + columns[x]!.from + k]!, 0);
    }
    const out = new Float32Array(height * width);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) out[y * width + x] = rows[y]!.taps.reduce((sum, w, k) => sum + w * narrow[(rows[y]!.from + k) * width + x]!, 0);
    }
    return out;
  });
  return { width, height, planes };
}

function weights(from: number, to: number): { from: number; taps: number[] }[] {
  const step = from / to;
  const reach = Math.max(1, step);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * step;
    const first = Math.max(0, Math.floor(centre - reach));
    const last = Math.min(from, Math.ceil(centre + reach));
    const taps = Array.from({ length: last - first }, (_, k) => Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / reach));
    const sum = taps.reduce((a, b) => a + b, 0);
    return { from: first, taps: taps.map((t) => t / sum) };
  });
}

/** A dimension that the model fixes, or leaves open. */
export type OpenDim = number | string | undefined;

/** The shape that a picture gets as an input with these declared dimensions, and its layout. */
export function pictureShape(name: string, dims: readonly OpenDim[], picture: Picture, options: ImageOptions): { shape: number[]; layout: 'nchw' | 'nhwc' } {
  const fail = (why: string): never => {
    throw new UserError(`input ${JSON.stringify(name)} of shape [${dims.map((d) => d ?? '?').join(',')}] cannot take a picture: ${why}`);
  };
  const channels = (d: OpenDim): boolean => d === 1 || d === 3;
  if (dims.length < 2 || dims.length > 4) return fail('expected [height,width], or these with channels and a batch');
  const layout = options.layout ?? (dims.length > 2 && !channels(dims[dims.length - 3]) && channels(dims.at(-1)) ? 'nhwc' : 'nchw');
  const [h, w, c] = layout === 'nhwc' ? [dims.length - 3, dims.length - 2, dims.length - 1] : [dims.length - 2, dims.length - 1, dims.length - 3];
  const shape = dims.map((d) => (typeof d === 'number' ? d : 1));
  const open = (axis: number, wanted: number, what: string): number => {
    const fixed = dims[axis];
    if (typeof fixed !== 'number') return wanted;
    if (options.size && fixed !== wanted) fail(`--image-size asks for a ${what} of ${wanted}`);
    return fixed;
  };
  shape[h] = open(h, options.size?.[0] ?? picture.height, 'height');
  shape[w] = open(w, options.size?.[1] ?? picture.width, 'width');
  if (dims.length > 2) {
    shape[c] = typeof dims[c] === 'number' ? (dims[c]) : options.gray ? 1 : 3;
    if (!channels(shape[c])) fail(`its ${layout} layout has ${shape[c]} channels, expected 1 or 3; say --layout nchw or --layout nhwc`);
  }
  if (dims.length === 4 && shape[0] !== 1) fail(`it holds ${shape[0]} pictures`);
  return { shape, layout };
}

/** The picture as a tensor of a given type: resized, scaled, normalised. */
export function pictureTensor(name: string, picture: Picture, type: Pick<Tensor, 'dtype' | 'shape'>, layout: 'nchw' | 'nhwc', options: ImageOptions): Tensor {
  const { shape, dtype } = type;
  if (dtype !== 'f32' && dtype !== 'u8') throw new UserError(`input ${JSON.stringify(name)} is ${describe(type)}; a picture can be given for f32 and u8, use a .npy file`);
  const [height, width] = (layout === 'nhwc' ? shape.slice(-3, -1) : shape.slice(-2)) as [number, number];
  const channels = shape.length > 2 ? (layout === 'nhwc' ? shape.at(-1)! : shape.at(-3)!) : 1;
  const fitted = resize(channels === 1 || options.gray ? toGray(picture) : picture, height, width);
  const scale = (options.scale ?? (dtype === 'u8' ? 255 : 1)) / 255;
  const perChannel = (list: readonly number[], c: number, otherwise: number, what: string): number => {
    if (list.length > 1 && list.length !== channels) throw new UserError(`--${what} has ${list.length} numbers, input ${JSON.stringify(name)} has ${channels} channels`);
    return list[list.length > 1 ? c : 0] ?? otherwise;
  };
  const data = dtype === 'u8' ? new Uint8Array(height * width * channels) : new Float32Array(height * width * channels);
  for (let c = 0; c < channels; c++) {
    const plane = fitted.planes[c] ?? fitted.planes[0]!;
    const mean = perChannel(options.mean, c, 0, 'mean');
    const std = perChannel(options.std, c, 1, 'std');
    for (let i = 0; i < plane.length; i++) {
      const x = (plane[i]! * scale - mean) / std;
      data[layout === 'nhwc' ? i * channels + c : c * plane.length + i] = dtype === 'u8' ? Math.min(255, Math.max(0, Math.round(x))) : x;
    }
  }
  return { dtype, shape, data };
}
