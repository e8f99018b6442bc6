/** Options that several commands share: how their texts are parsed, and the options themselves, which are the same wherever they stand. */
import { InvalidArgumentError, Option } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import type { Features } from '../runtime/features.ts';
import type { BatchAxes } from '../passes/batch-independence/batch-axes.ts';

const invalid = (message: string): never => {
  throw new InvalidArgumentError(message);
};

/** Collects `name=value` options that may be repeated. */
export const pairs = (text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> => {
  const at = text.indexOf('=');
  if (at < 1) invalid('expected name=value');
  const name = text.slice(0, at);
  if (name in before) invalid(`${name} is given twice`);
  return { ...before, [name]: text.slice(at + 1) };
};

/** Like `pairs`; a value without a name is kept under the empty one, for models with one input. */
const inputPairs = (text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> =>
  /^[^=]+=/.test(text) ? pairs(text, before) : { ...before, '': text };

/** Collects `symbol=size` options. */
export const dims = (text: string, before: Readonly<Record<string, number>> = {}): Record<string, number> => {
  const [name, value] = Object.entries(pairs(text))[0]!;
  return { ...before, [name]: wholeNumber(value) };
};

export const wholeNumber = (text: string): number => {
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(Number(text))) return invalid('expected a whole number');
  return Number(text);
};

export const positive = (text: string): number => {
  const n = wholeNumber(text);
  return n >= 1 ? n : invalid('expected a whole number of at least 1');
};

/** `64MiB`, `1.5GB`, `1000`: bytes. */
export const byteCount = (text: string): number => {
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?) ?([kmg]i?b|b)?$/i.exec(text) ?? invalid('expected bytes, as in 64MiB');
  const power = ['', 'k', 'm', 'g'].indexOf(unit.toLowerCase().replace(/i?b$/, ''));
  const bytes = Math.floor(Number(amount) * (unit.toLowerCase().includes('i') ? 1024 : 1000) ** power);
  return bytes >= 1 ? bytes : invalid('expected at least one byte');
};

export const number = (text: string): number => (text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : invalid('expected a number'));

export const nonNegative = (text: string): number => {
  const n = number(text);
  return n >= 0 ? n : invalid('expected a number of at least 0');
};

export const positiveNumber = (text: string): number => {
  const n = number(text);
  return n > 0 ? n : invalid('expected a positive number');
};

export const numbers = (text: string): number[] => text.split(',').map(number);

export const positives = (text: string): number[] => text.split(',').map(positive);

/** `224` or `480x640` (height x width). */
export const imageSize = (text: string): [number, number] => {
  const parts = text.split('x').map(positive);
  if (parts.length > 2) return invalid('expected SIZE or HEIGHTxWIDTH');
  return [parts[0]!, parts[1] ?? parts[0]!];
};

const known: readonly Features[] = ['wide', 'relaxed', 'simd', 'plain'];

/** `relaxed,simd`: feature sets, best first. */
export const featureSets = (text: string): Features[] => {
  const sets = text.split(',').map((f) => known.find((k) => k === f) ?? invalid(`unknown feature set ${f}; known are ${known.join(', ')}`));
  return [...new Set(sets)];
};

export const layout = (text: string): 'nchw' | 'nhwc' => {
  const lower = text.toLowerCase();
  return lower === 'nchw' || lower === 'nhwc' ? lower : invalid('expected nchw or nhwc');
};

/** Exit code where something does not fit the memory that it was given. */
export const exitOverLimit = 3;

/** `--dim`; `note` says what is special about it in a command. */
export const dimOption = (note = 'may be repeated'): Option => new Option('--dim <symbol=size>', `size of a symbolic dimension; ${note}`).argParser(dims);
/** `--value`. */
export const valueOption = (note = 'may be repeated'): Option => new Option('--value <input=file>', `value (.npy, .pb) of an input that decides shapes; ${note}`).argParser(pairs);
/** `--batch-axis`. */
export const batchAxisOption = (): Option => new Option('--batch-axis <input=axis>', 'the axis of an input that counts samples, where it is not the first, or none for an input that is the same for all samples; may be repeated').argParser(batchAxes);
/** `--input`, of pictures too or of numbers alone. */
export const inputOption = (kinds: 'pictures' | 'numbers', note: string): Option => new Option('-i, --input <name=file>', `an input: ${kinds === 'pictures' ? '.npy, .pb, .png, .jpg' : '.npy, .pb'}; ${note}`).argParser(inputPairs);
function batchAxes(text: string, before: BatchAxes | undefined): BatchAxes {
  const [, name, axis] = /^(.+)=(\d+|none)$/.exec(text) ?? [];
  if (name === undefined || axis === undefined) throw new InvalidArgumentError('expected INPUT=AXIS or INPUT=none, as in x=1');
  return { ...before, [name]: axis === 'none' ? axis : Number(axis) };
}
/** `--data` of commands that look at samples; what training takes is a list of files with targets, and its own. */
export const samplesOption = (use: string): Option =>
  new Option('--data <[input=]samples>', `${use}, as train takes them, targets optional; once for each input`).argParser((text: string, before: readonly string[] | undefined) => [...(before ?? []), text]);
/** `--mean` and `--std`. */
export const channelOptions = (when = ''): [Option, Option] => [
  new Option('--mean <list>', `${when}subtracted from samples after scaling: one number or one a channel`).argParser(numbers),
  new Option('--std <list>', `${when}divides what is left: one number or one a channel`).argParser(numbers),
];
/** `--tiles` and `--tile-memory`, beside `--target`. */
export const tileOptions = (): [Option, Option] => [
  new Option('--tiles <n>', 'another number of tiles than the target’s').argParser(positive),
  new Option('--tile-memory <size>', 'other bytes a tile, as 638976 or 256KiB').argParser(byteCount),
];
/** `--memory`. */
export const memoryOption = (): Option => new Option('--memory <bytes>', 'limit of the arena of a training step, as 64MiB: as many samples are computed at a time as stay under it').argParser(byteCount);
/** `--threads`; without a default, the cores of this machine. */
export const threadsOption = (fallback?: number): Option =>
  (fallback === undefined ? new Option('--threads <n>', 'worker threads (default: the cores of this machine)') : new Option('--threads <n>', 'worker threads').default(fallback)).argParser(positive);
/** `--json`. */
export const jsonOption = (what = 'facts'): Option => new Option('--json', `print ${what} as JSON`);

/** Reports an option that does not go with what the command was given. */
export function refuseOption(given: boolean, option: string, why: string): void {
  if (given) throw new UserError(`${option} ${why}`);
}
