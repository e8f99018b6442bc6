/** Tables of numbers as text. */
import { InputError } from '../error.ts';

export interface CsvTable {
  /** Names of columns, where the first line has any that is not a number. */
  readonly names: readonly string[] | undefined;
  readonly columns: number;
  readonly rows: number;
  /** Row-major. */
  readonly data: Float64Array;
}

/** Reads numbers separated by commas, semicolons or tabs; empty lines are skipped. What is no number, and rows of another length, are InputErrors that name the line. */
export function readCsv(text: string, name = 'csv'): CsvTable {
  const lines = text.split(/\r?\n/).map((line, i) => ({ line, number: i + 1 })).filter(({ line }) => line.trim() !== '');
  const [first] = lines;
  if (!first) throw new InputError(`${name} has no rows`);
  const separator = [',', ';', '\t'].find((s) => first.line.includes(s)) ?? ',';
  const cells = (line: string): string[] => line.split(separator).map((c) => c.trim().replace(/^"(.*)"$/, '$1'));
  const head = cells(first.line);
  const names = head.some((c) => !isNumber(c)) ? head : undefined;
  const body = names ? lines.slice(1) : lines;
  if (body.length === 0) throw new InputError(`${name} has a line of column names, but no rows`);
  const data = new Float64Array(body.length * head.length);
  for (const [row, { line, number }] of body.entries()) {
    const found = cells(line);
    if (found.length !== head.length) throw new InputError(`${name}, line ${number}: ${found.length} columns, expected ${head.length} as in line ${first.number}`);
    for (const [c, cell] of found.entries()) {
      if (!isNumber(cell)) throw new InputError(`${name}, line ${number}, column ${c + 1}${names ? ` (${names[c]})` : ''}: ${JSON.stringify(cell)} is not a number`);
      data[row * head.length + c] = Number(cell);
    }
  }
  return { names, columns: head.length, rows: body.length, data };
}

const isNumber = (cell: string): boolean => cell !== '' && Number.isFinite(Number(cell));
