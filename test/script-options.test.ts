/** Command lines of measuring scripts: mistakes are a line and exit code 2. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const bench = join(import.meta.dirname, '../bench');
const script = (name: string, ...args: string[]): { status: number | null; out: string; lines: string[] } => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(bench, name), ...args], { encoding: 'utf8', timeout: 30_000 });
  return { status, out: stdout, lines: stderr.split('\n').filter((l) => l !== '') };
};

test('no script reads its command line by itself', () => {
  const own = readdirSync(bench).filter((f) => f.endsWith('.ts') && f !== 'options.ts' && /parseArgs|process\.argv/.test(readFileSync(join(bench, f), 'utf8')));
  // It is asked for a time, and has no options.
  expect(own).toEqual(['first-result.ts']);
});

test.each([
  ['an unknown option', 'gradients.ts', ['--bogus'], "Unknown option '--bogus'; usage: npm run gradients -- [--json]"],
  ['an operand too many', 'gradients.ts', ['more'], 'more is one too many; usage: npm run gradients -- [--json]'],
  ['an option without its value', 'check-plan.ts', ['plan.json', '--model'], "Option '--model <value>' argument missing; usage: npm run check-plan -- plan.json [--model model.onnx] [--json]"],
  ['a missing operand', 'check-plan.ts', [], 'usage: npm run check-plan -- plan.json [--model model.onnx] [--json]'],
  ['a number that is none', 'footprint.ts', ['.', '--runs', '1.5'], '--runs takes a whole number from 1, not 1.5; usage: npm run footprint -- MODEL|FOLDER... [--threads 2] [--runs 3] [--no-peer] [--json]'],
  ['a list with something else in it', 'networks.ts', ['.', '--threads', '1,x'], expect.stringMatching(/^--threads takes whole numbers from 1, not 1,x; usage: npm run bench -- FOLDER/)],
  ['a word that is none of the choices', 'gemm.ts', ['--features', 'fast'], expect.stringMatching(/^--features takes one of relaxed, plain, simd, wide, not fast; usage/)],
  ['a folder that is not there', 'networks.ts', ['nowhere'], expect.stringMatching(/^there is no folder nowhere; usage/)],
  ["a user's mistake that a script meets later", 'tile-plan.ts', ['nowhere.onnx'], expect.stringContaining('nowhere.onnx')],
] as const)('%s is a line and exit code 2', (_, name, args, line) => {
  const { status, out, lines } = script(name, ...args);
  expect({ status, out, lines }).toEqual({ status: 2, out: '', lines: [line] });
});

test('--help prints the usage', () => {
  expect(script('gradients.ts', '--help')).toEqual({ status: 0, out: 'usage: npm run gradients -- [--json]\n', lines: [] });
});
