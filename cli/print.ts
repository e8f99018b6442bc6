/** How results look on a terminal. Facts go to stdout, progress and notices to stderr. */
import colors from 'picocolors';
import { decodeFloat } from '../ir/number.ts';
import type { Tensor } from '../runtime/tensor.ts';

/** Prints a line of the result. */
export const say = (line = ''): void => void process.stdout.write(`${line}\n`);

/** Prints a remark that is not part of the result. */
export const note = (line: string): void => void process.stderr.write(`${colors.dim(line)}\n`);

/** Prints facts as JSON; big integers, NaN and infinities, which JSON has no numbers for, become text. */
export const sayJson = (facts: unknown): void => say(JSON.stringify(facts, (_, x: unknown) => (typeof x === 'bigint' || (typeof x === 'number' && !Number.isFinite(x)) ? String(x) : x), 1));

/** Rows with columns aligned; columns that `right` names by index are aligned to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths = head.map((h, c) => Math.max(h.length, ...rows.map((r) => (r[c] ?? '').length)));
  const line = (cells: readonly string[]): string => cells.map((x, c) => (right.includes(c) ? x.padStart(widths[c]!) : x.padEnd(widths[c]!))).join('  ').trimEnd();
  return [colors.dim(line(head)), ...rows.map(line)];
}

const units = ['', ' K', ' M', ' G', ' T'];
/** 3864000 as `3.86 M`. */
export function amount(n: number): string {
  const power = n >= 1000 ? Math.min(units.length - 1, Math.floor(Math.log10(n) / 3)) : 0;
  return power === 0 ? String(n) : `${(n / 1000 ** power).toPrecision(3)}${units[power]}`;
}

/** Bytes in binary units. */
export function bytes(n: number): string {
  const power = n >= 1024 ? Math.min(3, Math.floor(Math.log2(n) / 10)) : 0;
  return power === 0 ? `${n} B` : `${(n / 1024 ** power).toPrecision(3)} ${['B', 'KiB', 'MiB', 'GiB'][power]}`;
}

/** A number rounded to a whole one, its digits in groups: 1,472. */
export const whole = (n: number): string => Math.round(n).toLocaleString('en-US');

/** Milliseconds with three digits. */
export const ms = (t: number): string => `${t >= 100 ? t.toFixed(0) : t.toPrecision(3)} ms`;

/** A tensor's elements as numbers. */
export function numbersOf(t: Tensor): number[] {
  const small = (t.dtype === 'f16' || t.dtype === 'bf16' || t.dtype.startsWith('f8') || t.dtype === 'f4e2m1');
  return Array.from(t.data as ArrayLike<number | bigint>, (x) => (small ? decodeFloat(t.dtype, Number(x)) : Number(x)));
}

/** Six digits, without zeros that end a fraction. */
const decimals = (x: number): string => x.toPrecision(6).replace(/(\.\d*?)0+($|e)/, '$1$2').replace(/\.($|e)/, '$1');

/** The first elements, and how many more there are. */
export function preview(t: Tensor, limit = 10): string {
  const show = (x: number | bigint): string => (typeof x === 'bigint' || Number.isInteger(x) ? String(x) : decimals(x));
  const shown = t.data instanceof BigInt64Array || t.data instanceof BigUint64Array ? Array.from(t.data.subarray(0, limit)) : numbersOf({ ...t, data: t.data.subarray(0, limit) });
  const more = t.data.length - shown.length;
  return `${shown.map(show).join(' ')}${more > 0 ? ` … ${more} more` : ''}`;
}

/** A bar for long work on a terminal; nothing in a pipe. */
export async function withProgress<T>(title: string, work: (report: (stage: string, done: number, of: number) => void) => Promise<T>): Promise<T> {
  if (!process.stderr.isTTY) return work(() => {});
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar({ format: `${title} {bar} {stage}`, stream: process.stderr, clearOnComplete: true, hideCursor: true, barsize: 24 }, progress.Presets.shades_classic);
  bar.start(1, 0, { stage: '' });
  try {
    return await work((stage, done, of) => {
      bar.setTotal(of);
      bar.update(done, { stage });
      bar.render();
    });
  } finally {
    bar.stop();
  }
}
