/** What a caller sees when a worker thread ends by itself: an error in bounded time, never a wait without end. Real processes. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-lost-'));
afterAll(() => rmSync(folder, { recursive: true }));
const root = join(import.meta.dirname, '..');
const script = join(folder, 'script.mts');
writeFileSync(script, `
  import { load } from '${root}/runtime/index.ts';
  import { tinyArtifact, tinyInput, tinyResult } from '${root}/test/tiny-artifact.ts';
  const [method, threads] = process.argv.slice(2);
  const s = await load(tinyArtifact(), { threads: Number(threads), sync: method === 'runSync' });
  const outcome = [];
  for (let i = 0; i < 3; i++) {
    try {
      const { y } = method === 'runSync' ? s.runSync({ x: tinyInput(i) }) : await s.run({ x: tinyInput(i) });
      outcome.push(y.data.every((v, k) => v === tinyResult(tinyInput(i))[k]) ? 'right' : 'wrong');
    } catch (e) {
      outcome.push(e.name + ': ' + e.message);
    }
  }
  await s.close();
  console.log(JSON.stringify(outcome));
`);

/** How a worker ends when it has woken up \`wakes\` times for a run: code that runs in each worker before its own. */
const endings: Readonly<Record<string, string>> = {
  'that exits': 'process.exit(7)',
  'out of memory': 'const all = []; for (;;) all.push(new Array(1e6).fill(0.5))',
  'that throws': 'throw new Error("from outside")',
};
const preload = (wakes: number, ending: string): string => {
  const file = join(folder, `preload-${wakes}.cjs`);
  writeFileSync(file, `const { isMainThread } = require('node:worker_threads');
    if (!isMainThread) {
      const wait = Atomics.wait;
      let woken = 0;
      Atomics.wait = (...args) => { const result = wait(...args); if (result === 'ok' && ++woken === ${wakes}) { ${ending}; } return result; };
    }`);
  return file;
};

function outcomeOf(method: string, threads: number, wakes: number, ending: string): string[] {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--no-warnings', '--max-old-space-size=256', script, method, String(threads)], {
    encoding: 'utf8', timeout: 20_000, env: { ...process.env, NODE_OPTIONS: `--require ${preload(wakes, ending)}` },
  });
  expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as string[];
}

describe.each(['run', 'runSync'])('%s with a worker', (method) => {
  test.each(Object.entries(endings))('%s at its second run', (_, ending) => {
    const outcome = outcomeOf(method, 3, 2, ending);
    expect(outcome[0]).toBe('right');
    expect(outcome[1]).toMatch(/^RunError: .*(a worker thread ended|ERR_WORKER_OUT_OF_MEMORY|memory limit|from outside|thread \d failed)/);
    expect(outcome[2]).toMatch(/an earlier run failed, which closed the session/);
  });
});
