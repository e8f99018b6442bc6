/** The check command, and compile --norm, as a user runs them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-check-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Writes a model with batch normalizations in training form of x [n,4,3]; returns its path. */
function write(name: string, model: Partial<TestModel>): string {
  const file = join(folder, `${name}.onnx`);
  writeFileSync(file, encodeModel({
    nodes: [], outputs: [value('y', 'f32')], inputs: [value('x', 'f32', ['n', 4, 3])],
    initializers: [floats('one', [4], [1, 1, 1, 1]), floats('zero', [4], [0, 0, 0, 0]), floats('mean', [4], [0, 0, 0, 0]), floats('var', [4], [1, 1, 1, 1])],
    ...model,
  }));
  return file;
}
const norm = (name: string, from: string, to: string, attributes: Record<string, number | { readonly float: number }> = {}): ReturnType<typeof node> =>
  node('BatchNormalization', [from, 'one', 'zero', 'mean', 'var'], [to, `${name}.mean`, `${name}.var`], { training_mode: 1, ...attributes }, { name });
const relu = node('Relu', ['u'], ['y']);

interface Report { readonly batchIndependent: boolean; readonly findings: readonly { readonly rule: string; readonly nodes: readonly string[]; readonly reason: string; readonly remedy: string }[] }
async function check(...args: readonly string[]): Promise<Report & { readonly code: number | null }> {
  const { code, stdout, stderr } = await tilewright(['check', ...args, '--json']);
  expect(stdout, stderr).not.toBe('');
  return { code, ...(JSON.parse(stdout) as Report) };
}

describe('check', () => {
  test('a batch normalization in training: exit code 1, the node, the reason and the remedy', async () => {
    const { code, batchIndependent, findings } = await check(write('bn', { nodes: [norm('bn', 'x', 'u'), relu] }));
    expect([code, batchIndependent]).toEqual([1, false]);
    expect(findings.map((f) => [f.rule, f.nodes])).toEqual([['batch-dependence', ['BatchNormalization(bn)']], ['training-inference-mismatch', ['BatchNormalization(bn)']]]);
    expect(findings[0]!.reason).toMatch(/joins the samples of a batch/);
    expect(findings[0]!.remedy).toMatch(/--norm group:4\+proxy/);
  });

  test('the same in inference, and rewritten: exit code 0', async () => {
    const file = write('same', { nodes: [norm('bn', 'x', 'u'), relu] });
    for (const more of [['--inference'], ['--norm', 'group:2+proxy'], ['--norm', 'frozen']]) expect(await check(file, ...more)).toMatchObject({ code: 0, batchIndependent: true, findings: [] });
  });

  test.each([
    ['momentum', { momentum: 1 }, /never updates/],
    ['momentum', { momentum: { float: 0 } }, /last batch alone/],
    ['epsilon', { epsilon: { float: 0 } }, /divides by zero/],
  ] as const)('%s of %j', async (rule, attributes, reason) => {
    const given = Object.fromEntries(Object.entries(attributes).map(([k, v]) => [k, typeof v === 'number' ? { float: v } : v]));
    const { findings } = await check(write('attribute', { nodes: [norm('bn', 'x', 'u', given), relu] }));
    expect(findings.find((f) => f.rule === rule)).toMatchObject({ nodes: ['BatchNormalization(bn)'], reason: expect.stringMatching(reason) as string });
  });

  test('statistics that two normalizations share', async () => {
    const { findings } = await check(write('shared', { nodes: [norm('a', 'x', 'p'), node('Relu', ['p'], ['q']), norm('b', 'q', 'u'), relu] }));
    expect(findings.filter((f) => f.rule.startsWith('shared')).map((f) => [f.rule, f.nodes, /"(mean|var)"/.exec(f.reason)?.[1]])).toEqual([
      ['shared-statistics', ['BatchNormalization(a)', 'BatchNormalization(b)'], 'mean'],
    ]);
  });

  test('statistics that the towers of one network share', async () => {
    const two = [value('x', 'f32', ['n', 4, 3]), value('z', 'f32', ['n', 4, 3])];
    const { findings } = await check(write('towers', { inputs: two, nodes: [norm('a', 'x', 'p'), norm('b', 'z', 'q'), node('Add', ['p', 'q'], ['u']), relu] }));
    expect(findings.filter((f) => f.rule.startsWith('shared')).map((f) => [f.rule, f.nodes])).toEqual([['shared-towers', ['BatchNormalization(a)', 'BatchNormalization(b)']]]);
  });

  test('a norm that sees a part of the batch', async () => {
    const halves = node('Split', ['x'], ['p', 'q'], { axis: 0, num_outputs: 2 });
    const { findings } = await check(write('parts', { nodes: [halves, norm('a', 'p', 'u'), norm('b', 'q', 'v'), node('Concat', ['u', 'v'], ['y'], { axis: 0 })] }));
    expect(findings.find((f) => f.rule === 'part-of-the-batch')).toMatchObject({ nodes: ['BatchNormalization(a)', 'BatchNormalization(b)'], reason: expect.stringMatching(/part of the batch/) as string });
    const whole = await check(write('whole', { nodes: [norm('bn', 'x', 'u'), relu] }));
    expect(whole.findings.some((f) => f.rule === 'part-of-the-batch')).toBe(false);
  });

  test('frozen statistics beside others that follow the batch', async () => {
    const frozen = node('BatchNormalization', ['q', 'one', 'zero', 'fixed.mean', 'fixed.var'], ['u'], {}, { name: 'frozen' });
    const initializers = [floats('one', [4], [1, 1, 1, 1]), floats('zero', [4], [0, 0, 0, 0]), ...['mean', 'fixed.mean'].map((n) => floats(n, [4], [0, 0, 0, 0])), ...['var', 'fixed.var'].map((n) => floats(n, [4], [1, 1, 1, 1]))];
    const { findings } = await check(write('frozen', { nodes: [norm('a', 'x', 'p'), node('Relu', ['p'], ['q']), frozen, relu], initializers }));
    expect(findings.find((f) => f.rule === 'frozen-statistics')?.nodes).toEqual(['BatchNormalization(frozen)']);
  });

  test('a batch axis that cannot be found', async () => {
    const file = write('scalar', { nodes: [node('Relu', ['x'], ['y'])], inputs: [value('x', 'f32', [])] });
    expect(await tilewright(['check', file])).toMatchObject({ code: 2, stderr: expect.stringMatching(/batch axis cannot be found/) as string });
  });
});

describe('--norm', () => {
  const file = write('norm', { nodes: [norm('bn', 'x', 'u'), relu] });
  test('compiles a rewritten model', async () => {
    const { code, stdout } = await tilewright(['compile', file, '--norm', 'group:2+proxy', '--stop-after', 'fold-constants']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/moments .*axes=\[2,3\]/);
  });
  test.each([
    [['--norm', 'group:3'], /4 channels, which do not divide into 3 groups; give one of 1, 2, 4/],
    [['--norm', 'grouped'], /unknown normalization "grouped"/],
    [['--norm', 'layer', '--norm-samples', '9'], /--norm-samples needs --norm with \+proxy/],
    [['--norm-eps', '0.1'], /--norm-eps needs --norm/],
  ] as const)('refuses %j', async (args, message) => {
    expect(await tilewright(['compile', file, ...args, '-o', join(folder, 'out')])).toMatchObject({ code: 2, stderr: expect.stringMatching(message) as string });
  });
});
