import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../ir/diagnostic.ts';
import type { Samples } from '../../runtime/data/index.ts';
import { isImage, readPicture, resize, toGray } from '../image.ts';
import type { Reading } from './files.ts';

/** Reads a folder that has a folder of pictures for each class. Classes count in the order of their names; pictures get the size that the model takes. */
export async function readPictures(folder: string, { sample, classNames }: Reading): Promise<Samples> {
  const [channels, height, width] = sample;
  if (sample.length !== 3 || (channels !== 1 && channels !== 3)) throw new UserError(`${folder} holds pictures, but a sample of the model is [${sample.join(',')}]; expected [1 or 3 channels,height,width]`);
  const found = readdirSync(folder, { withFileTypes: true }).filter((e) => e.isDirectory()).map((e) => e.name).sort();
  const unknown = classNames && found.find((c) => !classNames.includes(c));
  if (unknown !== undefined) throw new UserError(`${folder} has a class ${JSON.stringify(unknown)} that the training data has not`);
  const classes = classNames ?? found;
  const files = found.flatMap((c) => readdirSync(join(folder, c)).filter(isImage).sort().map((f) => ({ path: join(folder, c, f), label: classes.indexOf(c) })));
  if (files.length === 0) throw new UserError(`${folder} has no pictures (.png, .jpg) in folders named after their classes`);
  const plane = height! * width!;
  const data = new Uint8Array(files.length * channels * plane);
  for (const [i, { path }] of files.entries()) {
    const picture = await readPicture(path);
    const { planes } = resize(channels === 1 ? toGray(picture) : picture, height!, width!);
    for (let c = 0; c < channels; c++) data.set(planes[c]!.map((v) => Math.min(255, Math.max(0, Math.round(v)))), (i * channels + c) * plane);
  }
  return { name: folder, x: { dtype: 'u8', shape: [files.length, ...sample], data }, y: { dtype: 'i32', shape: [files.length], data: Int32Array.from(files, (f) => f.label) }, classNames: classes };
}
