/**
 * Runs training goldens: npm run goldens -- FOLDER [--backend reference] [--only TEXT] [--verbose]
 *
 * A case passes where loss, outputs, every gradient, every updated parameter, running statistics and averages of three steps are within its tolerance, the trained
 * parameters are those that it lists, and the inferred units are its own. Cases that say so train after a rewrite of their norms.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readCase } from './golden-case.ts';
import { onWasm } from './golden-wasm.ts';
import { onReference, runGolden, type Executor } from './golden-run.ts';

const executors: Readonly<Record<string, Executor>> = { reference: onReference, wasm: onWasm(1), 'wasm-2': onWasm(2) };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { backend: { type: 'string', default: 'reference' }, only: { type: 'string' }, verbose: { type: 'boolean', default: false } },
});
const folder = positionals[0];
const execute = executors[values.backend];
if (folder === undefined || !existsSync(folder) || !execute) {
  console.error(`usage: npm run goldens -- FOLDER [--backend ${Object.keys(executors).join('|')}] [--only TEXT] [--verbose]`);
  process.exit(2);
}

let [passed, failed] = [0, 0];
for (const name of readdirSync(folder).sort()) {
  const path = join(folder, name);
  if (!existsSync(join(path, 'case.json')) || (values.only !== undefined && !name.includes(values.only))) continue;
  const problems: string[] = [];
  try {
    const c = await readCase(path);
    const result = await runGolden(c, execute);
    problems.push(...result.problems);
    console.log(`${problems.length === 0 ? 'passed' : 'failed'}   ${name}: ${result.compared} tensors, at most ${result.worst.error.toFixed(4)} of the tolerance (${result.worst.name})`);
    for (const note of result.notes) console.log(`           note: ${note}`);
  } catch (e) {
    problems.push(`${e instanceof Error ? (e.stack ?? e.message) : String(e)}`);
    console.log(`failed   ${name}`);
  }
  for (const p of values.verbose ? problems : problems.slice(0, 5)) console.log(`           ${p}`);
  if (problems.length === 0) passed++;
  else failed++;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
