/** The check command, and compile --norm, as a user runs them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { tilewright } from './cli-harness.ts';
import { writeNpy } from '../runtime/npy.ts';
import { encodeModel, floats, int64s, node, value, type TestModel } from './onnx-encode.ts';

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

  test('statistics of one sample: a fixed batch, batches of data, parts of one', async () => {
    const one = (r: Report): readonly (readonly string[])[] => r.findings.filter((f) => f.rule === 'batch-of-one').map((f) => f.nodes);
    const fixed = write('fixed', { nodes: [norm('bn', 'x', 'u'), relu], inputs: [value('x', 'f32', [1, 4, 3])] });
    const file = write('one', { nodes: [norm('bn', 'x', 'u'), relu] });
    const data = join(folder, 'x.npy');
    writeFileSync(data, writeNpy({ dtype: 'f32', shape: [4, 4, 3], data: Float32Array.from({ length: 48 }, (_, i) => Math.sin(i)) }));
    const batch = ['BatchNormalization(bn)'];
    expect(one(await check(fixed))).toEqual([batch]);
    expect(one(await check(file, '--data', data, '--batch', '1'))).toEqual([batch]);
    expect(one(await check(file, '--data', data, '--batch', '2'))).toEqual([]);
    expect(one(await check(file, '--norm', 'ghost:1'))).toEqual([batch]);
    expect(one(await check(file, '--norm', 'ghost:2'))).toEqual([]);
    expect(one(await check(fixed, '--norm', 'layer'))).toEqual([]);
  });

  test.each([
    ['renorm', /joins the samples of a batch/, /by statistics of the batch, brought near the running ones, in training and by running statistics in inference/],
    ['ghost:2', /normalizes parts of 2 samples of the batch by themselves: a sample depends on the others of its part/, /by statistics of parts of 2 samples of the batch in training/],
    ['domains:2', /joins the samples of a domain/, /by statistics of the samples of its domain in the batch in training and by the running statistics of its domain in inference/],
  ] as const)('norms rewritten to %s are linted', async (spec, mixing, mismatch) => {
    const file = write('follows', { nodes: [norm('a', 'x', 'p', { momentum: { float: 1 } }), node('Relu', ['p'], ['q']), norm('b', 'q', 'u', { epsilon: { float: 0 } }), relu] });
    const { code, findings } = await check(file, '--norm', spec);
    const of = (rule: string): Report['findings'] => findings.filter((f) => f.rule === rule);
    expect(code).toBe(1);
    expect(of('batch-dependence')).toMatchObject([{ nodes: ['BatchNormalization(a)'], reason: expect.stringMatching(mixing) as string, remedy: expect.stringMatching(/--norm group:4\+proxy/) as string }]);
    expect(of('training-inference-mismatch')).toMatchObject([{ nodes: ['BatchNormalization(a)', 'BatchNormalization(b)'], reason: expect.stringMatching(mismatch) as string }]);
    expect([of('shared-statistics').length, of('momentum')[0]?.nodes, of('epsilon')[0]?.nodes]).toEqual([1, ['BatchNormalization(a)'], ['BatchNormalization(b)']]);
    expect(await check(file, '--norm', spec, '--inference')).toMatchObject({ code: 0, batchIndependent: true });
  });

  test('samples on another axis, and an input that holds none', async () => {
    // y = mean of x over its first axis, t times: over the samples where they are first, over something else where they are second.
    const mean = write('second', { inputs: [value('x', 'f32', [5, 'n', 4]), value('t', 'f32', [4])], nodes: [node('ReduceMean', ['x'], ['m'], { keepdims: 0 }, { name: 'mean' }), node('Mul', ['m', 't'], ['y'])].map((n, i) => (i === 0 ? { ...n, inputs: ['x', 'axis'] } : n)),
      initializers: [int64s('axis', [1], [0])] });
    const refused = await tilewright(['check', mean]);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/"t" is f32\[4\].*--value t=FILE\.npy.*--batch-axis t=none.*--batch-axis t=AXIS/s) as string });
    expect(await check(mean, '--batch-axis', 'x=1', '--batch-axis', 't=none')).toMatchObject({ code: 0, batchIndependent: true });
    expect(await check(mean, '--batch-axis', 'x=0', '--batch-axis', 't=none')).toMatchObject({ code: 1, findings: [{ rule: 'batch-dependence', nodes: ['ReduceMean(mean)'] }] });
    expect(await tilewright(['check', mean, '--batch-axis', 'x=3'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/"x" is f32\[5,1,4\] and has no axis 3/) as string });
    expect(await tilewright(['check', mean, '--batch-axis', 'z=1'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/no input "z".*"x", "t"/) as string });
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
