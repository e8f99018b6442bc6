import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { isSoftware, markdown, type Report } from '../bench/gpu-report/table.ts';
import { gpu, onGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

const report: Report = {
  adapter: 'nvidia hopper NVIDIA H200', software: false, quick: false, runs: 5, version: 'tilewright 1.2.3', node: 'v26.0.0', system: 'linux x64, 16 CPU threads',
  checks: [{ name: 'a|b', against: 'WebAssembly', difference: 1.5e-6, equal: true }, { name: 'c', against: 'WebAssembly', difference: 0.2, equal: false }],
  timings: [{ name: 'matmul', ms: 4.25, rate: 32345.6, unit: 'GFLOP/s', remark: '60 %' }],
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
