/** Writes what an experiment found: every run as CSV, a table into docs/experiments.md, a picture. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { median } from '../../cli/statistics.ts';

const docs = join(import.meta.dirname, '../../docs');
export const figures = join(docs, 'figures');

/** Median and range of shares, in per cent. */
export function spread(shares: readonly (number | undefined)[]): string {
  const found = shares.filter((s): s is number => s !== undefined);
  const lost = shares.length - found.length;
  const percent = (s: number): string => (100 * s).toFixed(2);
  const text = found.length === 0 ? '' : found.length === 1 ? percent(found[0]!) : `${percent(median(found))} (${percent(Math.min(...found))} to ${percent(Math.max(...found))})`;
  return [text, lost > 0 ? `${lost} of ${shares.length} diverged` : ''].filter((t) => t !== '').join(', ');
}

/** Which seeds a table is of. */
export const seedsText = (seeds: readonly number[]): string => (seeds.length === 1 ? `seed ${seeds[0]!}` : `median and range over the seeds ${seeds[0]!} to ${seeds.at(-1)!}`);

/** One row a run. */
export function writeRuns(name: string, head: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  mkdirSync(figures, { recursive: true });
  writeFileSync(join(figures, `${name}.csv`), `${[head, ...rows].map((r) => r.join(',')).join('\n')}\n`);
}

/** Puts a table between the marks of an experiment in docs/experiments.md, and prints it. */
export function writeTable(name: string, head: readonly string[], rows: readonly (readonly string[])[], remark: string): void {
  const lines = [head, head.map(() => '---'), ...rows].map((r) => `| ${r.join(' | ')} |`);
  const text = [remark, '', ...lines].join('\n');
  const page = join(docs, 'experiments.md');
  const [open, close] = [`<!-- ${name} -->`, `<!-- end of ${name} -->`];
  const before = readFileSync(page, 'utf8');
  const [from, to] = [before.indexOf(open), before.indexOf(close)];
  if (from < 0 || to < from) throw new Error(`docs/experiments.md lacks the marks of ${name}`);
  writeFileSync(page, `${before.slice(0, from + open.length)}\n${text}\n${before.slice(to)}`);
  console.log(text);
}
