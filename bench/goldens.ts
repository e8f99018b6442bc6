/**
 * Runs training goldens: npm run goldens -- FOLDER [--backend all] [--only TEXT] [--verbose] [--micro-batch N|all] [--allow-batch-dependence]
 *
 * A case passes where loss, outputs, every gradient, every updated parameter, running statistics and averages of three steps are within its tolerance, the trained
 * parameters are those that it lists, and the inferred units are its own. Cases that say so train after a rewrite of their norms. Each runs on the interpreter, and through the public
 * interface (compile, loadTrainer, trainStep) as WebAssembly on one thread and on two, unless --backend names one of these, or wgsl:
 * a GPU through WebGPU.
 *
 * With --micro-batch, one step over micro-batches of N samples (`all`: of every divisor of the batch) is compared with one over the whole batch instead: gradients have to agree to 1e-5 of the
 * largest element of each, the loss to 1e-6, and both to 1e-12 in float64. Models with batch norm have to be refused by its name; with --allow-batch-dependence they have to differ.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { openGpu } from '../runtime/index.ts';
import { readCase, type GoldenCase } from './golden-case.ts';
import { microBatches, runMicroBatch } from './golden-micro.ts';
import { onPublic } from './golden-public.ts';
import { onWasm } from './golden-wasm.ts';
import { onReference, runGolden, type CaseExecutor, type Executor } from './golden-run.ts';
import { commandLine, oneOf, stop, text } from './options.ts';

const executors: Record<string, CaseExecutor> = { reference: onReference, wasm: onPublic(1), 'wasm-2': onPublic(2) };
/** Of steps over micro-batches, which are no cases of their own. */
const microExecutors: Readonly<Record<string, Executor>> = { all: onReference, reference: onReference, wasm: onWasm(1), 'wasm-2': onWasm(2) };

const { options, operands: [folder = ''], usage } = commandLine('npm run goldens', 'FOLDER', {
  backend: oneOf('all', 'reference', 'wasm', 'wasm-2', 'wgsl'), only: text('TEXT'), verbose: false, 'micro-batch': text('N|all'), 'allow-batch-dependence': false,
});
const micro = options['micro-batch'];
if (!existsSync(folder)) stop(`there is no folder ${folder}; ${usage}`);
if (micro !== undefined && micro !== 'all' && !/^[1-9]\d*$/.test(micro)) stop(`--micro-batch takes a whole number from 1, or all, not ${micro}; ${usage}`);
const gpu = options.backend === 'wgsl' ? await openGpu() : undefined;
if (gpu) executors['wgsl'] = onPublic(gpu);
const backends = options.backend === 'all' ? Object.keys(executors) : [options.backend];

let [passed, failed] = [0, 0];
for (const name of readdirSync(folder).sort()) {
  const path = join(folder, name);
  if (!existsSync(join(path, 'case.json')) || (options.only !== undefined && !name.includes(options.only))) continue;
  const problems: string[] = [];
  try {
    const c = await readCase(path);
    if (micro !== undefined) {
      await runMicroBatches(name, c, micro);
      continue;
    }
    const found: string[] = [];
    const notes = new Set<string>();
    for (const b of backends) {
      const result = await runGolden(c, executors[b]!);
      problems.push(...result.problems.map((p) => `${b}: ${p}`));
      found.push(`${b} ${result.compared} tensors, at most ${result.worst.error.toFixed(4)} of the tolerance (${result.worst.name})`);
      result.notes.forEach((n) => notes.add(n));
    }
    console.log(`${problems.length === 0 ? 'passed' : 'failed'}   ${name}: ${found.join('; ')}`);
    for (const note of notes) console.log(`           note: ${note}`);
  } catch (e) {
    problems.push(`${e instanceof Error ? (e.stack ?? e.message) : String(e)}`);
    console.log(`failed   ${name}`);
  }
  for (const p of options.verbose ? problems : problems.slice(0, 5)) console.log(`           ${p}`);
  if (problems.length === 0) passed++;
  else failed++;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
gpu?.close();

/** Every size that divides the case's batch counts as a case of its own. */
async function runMicroBatches(name: string, c: GoldenCase, wanted: string): Promise<void> {
  for (const size of microBatches(c, wanted)) {
    const { problems, found } = await runMicroBatch(c, size, microExecutors[options.backend]!, options['allow-batch-dependence']);
    console.log(`${problems.length === 0 ? 'passed' : 'failed'}   ${name}, ${size} of ${c.data.get('x')!.shape[0]}: ${found}`);
    for (const p of problems) console.log(`           ${p}`);
    if (problems.length === 0) passed++;
    else failed++;
  }
}
