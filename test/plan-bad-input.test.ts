/** What tilewright plan refuses, and what it says: exit code 2 for input that is wrong, 3 for a plan that does not fit. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { example, root, tilewright } from './cli-harness.ts';
import { encodeModel, node, value } from './onnx-encode.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-plan-bad-'));
afterAll(() => rmSync(folder, { recursive: true }));
let written = 0;
const write = (data: unknown): string => {
  const file = join(folder, `input${written++}.json`);
  writeFileSync(file, typeof data === 'string' ? data : JSON.stringify(data));
  return file;
};
const plan = (...args: string[]): ReturnType<typeof tilewright> => tilewright(['plan', ...args]);

interface TargetFile { name?: string; constants: Record<string, { value: unknown; unit: string; source?: string }> }
const target = (change: (t: TargetFile) => void): string => {
  const t = JSON.parse(readFileSync(join(root, 'targets/mk2.json'), 'utf8')) as TargetFile;
  change(t);
  return write(t);
};

describe('tilewright plan refuses', { timeout: 60_000 }, () => {
  test.each<[string, (t: TargetFile) => void, string]>([
    ['a missing constant', (t) => delete t.constants['exchange'], 'constant "exchange" (bytes a cycle) is missing'],
    ['a constant that is no number', (t) => (t.constants['sync']!.value = '150'), 'constant "sync" needs a number as its value, in cycles'],
    ['another unit', (t) => (t.constants['bytesPerTile']!.unit = 'KiB'), 'constant "bytesPerTile" has the unit "KiB", expected "bytes"'],
    ['no tiles', (t) => (t.constants['tiles']!.value = 0), 'constant "tiles" is 0, expected more than zero (tiles)'],
    ['a negative number of tiles', (t) => (t.constants['tiles']!.value = -4), 'constant "tiles" is -4, expected more than zero (tiles)'],
    ['half a tile', (t) => (t.constants['tiles']!.value = 1.5), 'constant "tiles" is 1.5, expected a whole number (tiles)'],
    ['a constant without a source', (t) => delete t.constants['clock']!.source, 'constant "clock" (cycles a second) says no source'],
    ['an unknown constant', (t) => (t.constants['speed'] = { value: 1, unit: 'm/s', source: 'x' }), 'there is no constant "speed"'],
    ['no name', (t) => delete t.name, 'field "name" is missing'],
  ])('a target file with %s', async (_, change, message) => {
    const done = await plan(example, '--target', target(change));
    expect(done).toMatchObject({ code: 2, stdout: '' });
    expect(done.stderr).toContain(message);
  });

  test.each<[string, readonly string[], string]>([
    ['an unknown target', ['--target', 'mk9'], 'no target "mk9"; there are bow, cpu, gpu, mk1, mk2'],
    ['a target file that is not there', ['--target', 'none.json'], 'none.json cannot be read as a target'],
    ['zero tiles', ['--tiles', '0'], "'--tiles <n>' argument '0' is invalid"],
    ['a negative number of tiles', ['--tiles', '-4'], "'--tiles <n>' argument '-4' is invalid"],
    ['no bytes', ['--tile-memory', '0'], "'--tile-memory <size>' argument '0' is invalid"],
    ['no room for temporaries', ['--temporary', '0'], "'--temporary <share>' argument '0' is invalid. expected a share of a tile, above 0 and at most 1"],
    ['more room for temporaries than a tile has', ['--temporary', '1.5'], "'--temporary <share>' argument '1.5' is invalid"],
    ['micro-batches of no batch', ['--train', '--micro-batch', '4'], '--micro-batch 4 goes with --batch'],
    ['micro-batches that do not divide the batch', ['--train', '--batch', '16', '--micro-batch', '5'], 'a batch of 16 does not divide into micro-batches of 5'],
    ['micro-batches that --fit is to choose', ['--train', '--fit', '--batch', '16', '--micro-batch', '4'], '--fit chooses the micro-batch: leave out --micro-batch'],
    ['a step of training that is not asked for', ['--micro-batch', '4'], '--micro-batch goes with --train'],
    ['a comparison with nothing', ['--difference', 'x.json'], '--difference goes with --against'],
    ['a plan that is not there', ['--against', 'none.json'], 'none.json cannot be read as a plan'],
  ])('%s', async (_, args, message) => {
    const done = await plan(example, ...args);
    expect(done).toMatchObject({ code: 2, stdout: '' });
    expect(done.stderr).toContain(message);
  });

  test('a model that is not there', async () => {
    expect(await plan('none.onnx')).toMatchObject({ code: 2, stderr: expect.stringContaining('none.onnx does not exist') as string });
  });

  test('a plan of another model, or one that is none, to compare with', async () => {
    const other = join(folder, 'other.onnx');
    writeFileSync(other, encodeModel({ nodes: [node('Relu', ['x'], ['y'])], inputs: [value('x', 'f32', [4, 4])], outputs: [value('y', 'f32', [4, 4])] }));
    const file = join(folder, 'other.json');
    expect(await plan(other, '--tiles', '4', '--json', file)).toMatchObject({ code: 0 });
    const done = await plan(example, '--against', file);
    expect(done).toMatchObject({ code: 2, stdout: '' });
    expect(done.stderr).toMatch(/other\.json was made for another model \(.*SHA-256 [0-9a-f]{12}…\), and .*mnist_cntk\.onnx has SHA-256/);
    expect(await plan(example, '--against', write({ version: 2 }))).toMatchObject({ code: 2, stderr: expect.stringContaining('is no tile plan of version 1') as string });
  });
});

test('a tile memory too small for any vertex names the op, the bytes of its smallest slices and what a tile has', { timeout: 60_000 }, async () => {
  // A convolution over 8·14·14·2 bytes: least is gathered where each of 4 tiles has its share of the out-channels and reads all of them; mk2 leaves 4 % of 300 bytes free.
  const done = await plan(example, '--tiles', '4', '--tile-memory', '300');
  expect(done.code).toBe(3);
  expect(done.stdout).toContain('the tile memory is too small for Conv(Convolution110) (fused): its smallest slices take 3136 bytes at once, a tile has 288');
});
