/** Outputs of a run: printed, as JSON, or written to files. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../ir/diagnostic.ts';
import { reason } from '../../runtime/bytes.ts';
import { writeNpy, type Tensor } from '../../runtime/index.ts';
import { describe } from '../../runtime/tensor.ts';
import { makeFolders } from '../driver/folder.ts';
import { numbersOf, preview, say, sayJson, table } from '../print.ts';

/** What the command line says about outputs. */
export interface OutputOptions {
  /** Prints so many of the largest elements of each row. */
  readonly top?: number;
  /** Names for those, by class. */
  readonly labels: readonly string[] | undefined;
  /** Folder to write each output to, as NAME.npy. */
  readonly output?: string;
  readonly json?: boolean;
}

/** Writes and prints the outputs of a run; `facts` join them in JSON. */
export function showOutputs(outputs: Readonly<Record<string, Tensor>>, { top, labels, output, json }: OutputOptions, facts: Readonly<Record<string, unknown>>): void {
  if (output !== undefined) writeOutputs(output, outputs);
  if (!json) return printOutputs(outputs, top, labels);
  const tensors = Object.fromEntries(Object.entries(outputs).map(([name, t]) => [name, {
    dtype: t.dtype, shape: t.shape, data: isWide(t) ? Array.from(t.data as BigInt64Array) : numbersOf(t),
    ...(top !== undefined && { top: rowsOf(t).map((row) => best(row, top).map(({ x, i, chance }) => ({ class: labels?.[i] ?? i, probability: chance, score: x }))) }),
  }]));
  sayJson({ outputs: tensors, ...facts });
}

function writeOutputs(folder: string, outputs: Readonly<Record<string, Tensor>>): void {
  try {
    makeFolders(folder);
    // A name may hold what a file name cannot; names that become equal by that are numbered.
    const taken = new Set<string>();
    for (const [name, t] of Object.entries(outputs)) {
      const base = name.replace(/[^\w.-]+/g, '_');
      let file = base;
      for (let n = 2; taken.has(file); n++) file = `${base}.${n}`;
      taken.add(file);
      writeFileSync(join(folder, `${file}.npy`), writeNpy(t));
    }
  } catch (e) {
    throw new UserError(`cannot write outputs to ${folder}: ${reason(e)}`);
  }
}

const isWide = (t: Tensor): boolean => t.dtype === 'i64' || t.dtype === 'u64';

function printOutputs(outputs: Readonly<Record<string, Tensor>>, top: number | undefined, labels: readonly string[] | undefined): void {
  for (const [name, t] of Object.entries(outputs)) {
    if (top === undefined) {
      say(`${name} ${describe(t)}  ${preview(t)}`);
      continue;
    }
    say(`${name} ${describe(t)}`);
    const rows = rowsOf(t);
    rows.forEach((row, n) => {
      if (rows.length > 1) say(`  row ${n}`);
      const cells = best(row, top).map(({ x, i, chance }) => [labels?.[i] ?? String(i), `${(100 * chance).toFixed(1)} %`, x.toPrecision(5)]);
      for (const line of table(['class', 'probability', 'score'], cells, [1, 2])) say(`  ${line}`);
    });
  }
}

/** Names of classes, one a line. */
export function readLabels(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split(/\r?\n/);
  } catch (e) {
    throw new UserError(`cannot read ${path}: ${reason(e)}`);
  }
}

/** The elements of each row along the innermost axis: one row a sample. */
function rowsOf(t: Tensor): number[][] {
  const numbers = numbersOf(t);
  const width = t.shape.at(-1) ?? 1;
  return width === 0 ? [] : Array.from({ length: numbers.length / width }, (_, r) => numbers.slice(r * width, (r + 1) * width));
}

/** The k largest scores of a row with their probabilities: as they are where they add up to 1, else their softmax. */
function best(scores: readonly number[], k: number): { readonly x: number; readonly i: number; readonly chance: number }[] {
  const sum = scores.reduce((a, b) => a + b, 0);
  const areProbabilities = scores.every((x) => x >= 0) && Math.abs(sum - 1) < 1e-3;
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const total = scores.reduce((a, b) => a + Math.exp(b - largest), 0);
  const ranked = scores.map((x, i) => ({ x, i, chance: areProbabilities ? x : Math.exp(x - largest) / total }));
  return ranked.sort((a, b) => b.x - a.x || a.i - b.i).slice(0, k);
}
