/** `compile --target`: artifacts of tile programs, and how they run. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { parseTileProgram } from '../ir/tile-parse.ts';
import { planFromJson } from '../passes/tile/json.ts';
import { parseTarget } from '../passes/tile/target.ts';
import { load, readNpy, readSafetensors, writeNpy, type Tensor } from '../runtime/index.ts';
import { example, tilewright } from './cli-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-tiles-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const picture: Tensor = { dtype: 'f32', shape: [1, 1, 28, 28], data: Float32Array.from({ length: 784 }, (_, i) => 128 + 100 * Math.sin(i)) };
writeFileSync(at('x.npy'), writeNpy(picture));
const machine = ['--target', 'mk2', '--tiles', '64', '--tile-memory', '256KiB'];

describe('compile --target', () => {
  test('writes a tile program that runs to the numbers of the model', async () => {
    const made = await tilewright(['compile', example, ...machine, '--print-after', 'place', '-o', at('out')]);
    expect(made, made.stderr).toMatchObject({ code: 0 });
    const files = { text: readFileSync(join(at('out'), 'program.txt'), 'utf8'), plan: JSON.parse(readFileSync(join(at('out'), 'plan.json'), 'utf8')) as unknown, weights: await readSafetensors(readFileSync(join(at('out'), 'weights.safetensors'))) };
    expect(made.stdout).toContain(`// after place\n${files.text}`);
    const { plan } = parseTileProgram(files.text, files.weights);
    expect(plan).toEqual(planFromJson(files.plan, 'plan.json'));
    expect(plan).toMatchObject({ target: 'mk2', tiles: 64, bytesPerTile: 256 * 1024 });
    const { target } = JSON.parse(readFileSync(join(at('out'), 'manifest.json'), 'utf8')) as { target: unknown };
    expect(parseTarget(target, 'manifest.json').constants).toMatchObject({ tiles: 64, bytesPerTile: 262144 });

    const ran = await tilewright(['run', at('out'), '-i', at('x.npy'), '--output', at('results')]);
    expect(ran, ran.stderr).toMatchObject({ code: 0 });
    const want = [...evaluate(importModel(example).graph, { Input3: picture }).outputs];
    for (const [name, t] of want) Array.from(t.data as Float32Array).forEach((x, i) => expect(readNpy(readFileSync(join(at('results'), `${name}.npy`))).data[i]).toBeCloseTo(x, 2));
    await expect(load(at('out'))).rejects.toThrow(/tile program, which `tilewright run` executes/);
  }, 60_000);

  test('refuses what does not fit, and programs that were changed', async () => {
    const narrow = await tilewright(['compile', example, '--target', 'mk2', '--tiles', '2', '--tile-memory', '16KiB', '-o', at('narrow')]);
    expect(narrow).toMatchObject({ code: 3, stderr: expect.stringMatching(/does not fit 2 tiles of 16384 bytes .*\d+ over/) as string });
    const program = join(at('out'), 'program.txt');
    const text = readFileSync(program, 'utf8');
    writeFileSync(program, text.replace(/= relu /, '= neg '));
    expect(await tilewright(['run', at('out'), '-i', at('x.npy')])).toMatchObject({ code: 2, stderr: expect.stringMatching(/program\.txt: the plan was made for another graph/) as string });
    writeFileSync(program, text.replace('compute', 'compote'));
    expect(await tilewright(['run', at('out'), '-i', at('x.npy')])).toMatchObject({ code: 2, stderr: expect.stringMatching(/program\.txt .*line \d+: .*found compote/) as string });
  }, 60_000);

  test.each([
    [['--print-after', 'place'], /give --target/],
    [[...machine, '--print-after', 'fuse'], /of the tile program for mk2 only its text is printed/],
    [[...machine, '--backend', 'wgsl'], /--backend does not go with the tile program that --target mk2 makes/],
    [['--target', 'cpu', '--print-after', 'place', '--profile'], /--profile does not go with the tile program that --print-after place and --stop-after place make/],
    [['--target', 'cpu', '--print-after', 'place,fuse'], /leave out place to see the graph after fuse/],
    [['--target', 'mk9'], /no target "mk9"/],
  ])('%j is refused', async (args, message) => {
    expect(await tilewright(['compile', example, ...args, '-o', at('none')])).toMatchObject({ code: 2, stderr: expect.stringMatching(message) as string });
  });
});
