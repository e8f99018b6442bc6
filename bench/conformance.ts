/**
 * Runs official ONNX backend tests: npm run conformance -- FOLDER [--backend wasm|reference|wgsl] [--filter TEXT] [--json FILE]
 *
 * A test passes (all values right), fails (wrong value, crash, wrong shape or type), or is refused (Unsupported, naming the op or type and why).
 * Inputs are bound at compile time only where the compiler says that their values decide shapes; all others reach run().
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exceptions } from './conformance-exceptions.ts';
import { judge, judgeBy, onnxTolerance } from './judge.ts';
import { isFloat, sizeOf } from '../ir/type.ts';
import { openGpu } from '../runtime/index.ts';
import { runCase, type CaseBackend, type CaseResult } from './onnx-case.ts';
import { commandLine, oneOf, stop, text } from './options.ts';

interface Row {
  readonly test: string;
  readonly outcome: 'passed' | 'failed' | 'refused';
  readonly ulp: number;
  /** Kernels that ran; dispatches, on a GPU. */
  readonly kernels: number;
  readonly bound: readonly string[];
  /** What was refused, by name. */
  readonly feature: string;
  readonly reason: string;
}

const { options, operands: [folder = ''], usage } = commandLine('npm run conformance', 'FOLDER', { backend: oneOf('wasm', 'reference', 'wgsl'), filter: text('TEXT'), json: text('FILE'), verbose: false });
if (!existsSync(folder)) stop(`there is no folder ${folder}; ${usage}`);
const gpu = options.backend === 'wgsl' ? await openGpu() : undefined;
const backend: CaseBackend = gpu ?? (options.backend === 'reference' ? 'reference' : 'wasm');
if (gpu) console.log(`GPU: ${gpu.adapter}`);

const rows: Row[] = [];
for (const test of readdirSync(folder).sort()) {
  const path = join(folder, test);
  if (!existsSync(join(path, 'model.onnx')) || (options.filter !== undefined && !test.includes(options.filter))) continue;
  const row = await evaluate(test, path);
  rows.push(row);
  if (row.outcome === 'failed' || options.verbose) console.log(`${row.outcome.padEnd(8)}${test}  ${row.reason}`);
  else if (process.stderr.isTTY) process.stderr.write(`\r${rows.length} tests`);
}
if (process.stderr.isTTY) process.stderr.write('\r');

const refusals = new Map<string, number>();
for (const r of rows) if (r.outcome === 'refused') refusals.set(r.feature, (refusals.get(r.feature) ?? 0) + 1);
for (const [feature, n] of [...refusals].sort((a, b) => b[1] - a[1])) console.log(`refused ${String(n).padStart(4)}  ${feature}`);
// What runs on a GPU are dispatches.
if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(gpu ? rows.map(({ kernels: dispatches, ...row }) => ({ ...row, dispatches })) : rows, null, 1));
const count = (outcome: Row['outcome']): number => rows.filter((r) => r.outcome === outcome).length;
console.log(`${count('passed')} passed, ${count('failed')} failed, ${count('refused')} refused`);
process.exitCode = count('failed') === 0 ? 0 : 1;
gpu?.close();

async function evaluate(test: string, path: string): Promise<Row> {
  const base = { test, ulp: 0, kernels: 0, bound: [] as readonly string[], feature: '' };
  let result: CaseResult;
  try {
    result = await runCase(path, backend);
  } catch (e) {
    return { ...base, outcome: 'failed', reason: `crashed: ${e instanceof Error ? (e.stack ?? e.message) : String(e)}`.split('\n').slice(0, 3).join(' | ') };
  }
  if (result.kind === 'refused') return { ...base, outcome: 'refused', feature: result.feature, reason: result.reason };
  let ulp = 0;
  for (const { name, got, want } of result.outputs) {
    const exception = exceptions[test];
    const verdict = exception?.check ? judgeBy(exception.check, got, want) : judge(got, want, exception?.tolerance ?? onnxTolerance);
    ulp = Math.max(ulp, verdict.ulp);
    if (!verdict.ok) return { ...base, outcome: 'failed', ulp, kernels: result.kernels, bound: result.bound, reason: `${name}: ${verdict.reason}` };
  }
  // An output without elements needs no kernel.
  const floats = result.outputs.some((o) => isFloat(o.want.dtype) && sizeOf(o.want.shape) > 0);
  if (floats && options.backend !== 'reference' && result.kernels === 0) return { ...base, outcome: 'failed', ulp, bound: result.bound, reason: 'no kernel executed' };
  return { ...base, outcome: 'passed', ulp, kernels: result.kernels, bound: result.bound, reason: '' };
}
