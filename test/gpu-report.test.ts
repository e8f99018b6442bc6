import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { saveReport } from '../bench/gpu-report/files.ts';
import { runStages } from '../bench/gpu-report/stages.ts';
import { isSoftware, markdown, type Report } from '../bench/gpu-report/table.ts';
import { gpu, onGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

const report: Report = {
  adapter: 'nvidia hopper NVIDIA H200', software: false, quick: false, runs: 5, version: 'tilewright 1.2.3', node: 'v26.0.0', system: 'linux x64, 16 CPU threads',
  checks: [{ name: 'a|b', against: 'WebAssembly', difference: 1.5e-6, equal: true }, { name: 'c', against: 'WebAssembly', difference: 0.2, equal: false }],
  timings: [{ name: 'matmul', ms: 4.25, rate: 32345.6, unit: 'GFLOP/s', remark: '60 %' }],
  failures: [], pending: [],
};

test('the report is Markdown with the adapter, the times and what differs', () => {
  expect(markdown(report).split('\n')).toEqual([
    '# nvidia hopper NVIDIA H200', '', 'nvidia hopper NVIDIA H200, median of 5 runs; tilewright 1.2.3, Node v26.0.0, linux x64, 16 CPU threads.', '',
    '| what | ms | rate | remark |', '|---|---:|---:|---|', '| matmul | 4.250 | 32,346 GFLOP/s | 60 % |', '',
    '| result | compared with | largest difference, relative | equal |', '|---|---|---:|---|', '| a\\|b | WebAssembly | 1.5e-6 | yes |', '| c | WebAssembly | 2.0e-1 | NO |',
  ]);
});

test('the report of an adapter on the CPU, and of small sizes, says that it ranks nothing', () => {
  expect(markdown({ ...report, software: true, quick: true })).toContain('This adapter computes on the CPU. Its times rank nothing.');
  expect(markdown({ ...report, quick: true })).toContain('Small sizes: these times rank nothing.');
  expect(markdown(report)).not.toContain('rank nothing');
});

test('what a stage found is in the files when the next begins; a stage that fails is named, and those behind it still run', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-report-'));
  const [output, json] = [join(folder, 'deep/report.md'), join(folder, 'report.json')];
  const timings: Report['timings'][number][] = [];
  const seen: { readonly page: string; readonly data: Pick<Report, 'timings' | 'failures' | 'pending'> }[] = [];
  const look = (): void => void seen.push({ page: readFileSync(output, 'utf8'), data: JSON.parse(readFileSync(json, 'utf8')) as Report });
  try {
    await runStages([
      { name: 'product', run: async () => void timings.push(report.timings[0]!) },
      { name: 'inference', run: async () => { look(); throw new Error('the GPU device was lost:\nhung | reset'); } },
      { name: 'training', run: async () => { look(); timings.push({ ...report.timings[0]!, name: 'steps' }); } },
    ], (failures, pending) => saveReport({ ...report, timings, failures, pending }, { output, json }));
    look();
    expect(seen.map(({ data }) => [data.timings.map((t) => t.name), data.failures.map((f) => f.stage), data.pending])).toEqual([
      [['matmul'], [], ['inference', 'training']], [['matmul'], ['inference'], ['training']], [['matmul', 'steps'], ['inference'], []],
    ]);
    expect(seen.map(({ page }) => page.split('\n').filter((l) => /^\| (matmul|steps|inference)|^Not done/.test(l)).map((l) => l.replace(/ \| 4\.250.*/, '')))).toEqual([
      ['| matmul', 'Not done yet: inference; training.'],
      ['| matmul', '| inference | the GPU device was lost: hung \\| reset |', 'Not done yet: training.'],
      ['| matmul', '| steps', '| inference | the GPU device was lost: hung \\| reset |'],
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.each([
  ['google swiftshader SwiftShader driver 5.0.0', true], ['mesa llvmpipe (LLVM 15.0.6, 256 bits)', true], ['Microsoft Basic Render Driver', true],
  ['nvidia hopper NVIDIA H200', false], ['apple metal-3 Apple M2', false], ['intel gen-12lp Intel(R) Iris(R) Xe', false],
])('%s computes on the CPU: %s', (adapter, software) => expect(isSoftware(adapter)).toBe(software));

describe.skipIf(!gpu || !isSoftware(gpu.adapter))(onGpu('an adapter on the CPU'), () => {
  test('is refused without --quick', { timeout: 60_000 }, () => {
    const { status, stderr, stdout } = spawnSync(process.execPath, [join(import.meta.dirname, '../bench/gpu-report.ts')], { encoding: 'utf8', timeout: 50_000 });
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/computes on the CPU: its times rank nothing.*--quick/);
  });
});

describe.skipIf(process.platform !== 'linux')(process.platform === 'linux' ? 'a machine without a driver' : 'a machine without a driver (skipped: only on Linux do variables hide drivers)', () => {
  test('is told in one line, with exit code 2, where to read what it needs', { timeout: 60_000 }, () => {
    const none = '/nowhere/icd.json';
    const { status, stderr, stdout } = spawnSync(process.execPath, ['--no-warnings', join(import.meta.dirname, '../bench/gpu-report.ts')], { encoding: 'utf8', timeout: 50_000, env: { ...process.env, VK_ICD_FILENAMES: none, VK_DRIVER_FILES: none } });
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^there is no GPU adapter here: .*Vulkan.*docs\/gpu-report\.md$/m);
  });
});
