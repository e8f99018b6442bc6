import { InvalidArgumentError } from 'commander';
import type { Augmentation } from '../../runtime/data/index.ts';
import { number, positive } from '../options.ts';

/** `crop:4,flip,mixup:0.2,cutmix:1`. */
export function augmentation(text: string): Augmentation {
  const all: { -readonly [K in keyof Augmentation]: Augmentation[K] } = {};
  for (const part of text.split(',')) {
    const [name, value] = part.split(':') as [string, string | undefined];
    const needed = (): string => {
      if (value === undefined) throw new InvalidArgumentError(`${name} needs a number, as ${name}:${name === 'crop' ? 4 : 0.2}`);
      return value;
    };
    if (name === 'flip' && value === undefined) all.flip = true;
    else if (name === 'crop') all.crop = positive(needed());
    else if (name === 'mixup' || name === 'cutmix') all[name] = number(needed());
    else throw new InvalidArgumentError(`unknown augmentation ${part}; known are crop:PIXELS, flip, mixup:ALPHA, cutmix:ALPHA`);
  }
  return all;
}
