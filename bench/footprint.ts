/**
 * Sizes and start-up times of compiled models: npm run footprint -- MODEL|FOLDER... [--threads 2] [--runs 3] [--no-peer] [--json]
 *
 * Of a folder, every .onnx file is measured, its recorded inputs (NAME.safetensors) giving shapes that it leaves open. The last line counts the models that are within
 * all bounds. Each model is compiled twice, in fresh processes; the two artifacts have to be identical byte for byte. Code is the size of each
 * module. Linear memory is set against its bounds: activations at most 1.15 x the largest sum of live bytes under the best of three orders, and the
 * whole at most 2 x the weights in the ONNX file + 1.15 x that sum. The whole is counted in bytes that the artifact places; the engine gives out whole pages of
 * 64 KiB, so that up to one page more is allocated, and that number is printed too. Load to first result is measured in fresh processes, beside onnxruntime-web.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { bytes, ms } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import type { Manifest } from '../runtime/manifest.ts';
import { commandLine, stop } from './options.ts';

const { options, operands, usage } = commandLine('npm run footprint', 'MODEL|FOLDER...', { threads: 2, runs: 3, peer: true, json: false });
const missing = operands.find((path) => !existsSync(path));
if (missing !== undefined || modelsOf(operands).length === 0) stop(`there is no ${missing ?? `model in ${operands.join(', ')}`}; ${usage}`);
const { threads } = options;
const pageBytes = 65536;

/** Bytes and milliseconds of one model. */
interface Footprint {
  readonly model: string;
  /** Bytes of code by module. */
  readonly code: Readonly<Record<string, number>>;
  readonly memory: { readonly weights: number; readonly io: number; readonly activations: number; readonly scratch: number; readonly total: number; readonly pages: number };
  /** Weights in the ONNX file. */
  readonly onnxWeights: number;
  /** Largest sum of live bytes under the best of three orders. */
  readonly live: number;
  /** Activations over that sum; at most 1.15. */
  readonly activationRatio: number;
  /** Total memory over 2 x ONNX weights + 1.15 x that sum; at most 1. */
  readonly totalRatio: number;
  readonly identical: boolean;
  /** From starting the command to its end, the artifact on disk. */
  readonly compile: number;
  readonly firstResult: number | undefined;
  readonly peerFirstResult: number | undefined;
}

const isWithin = (r: Footprint): boolean => r.identical && r.activationRatio <= 1.15 && r.totalRatio <= 1;
const results = modelsOf(operands).map(measure);
const within = results.filter(isWithin).length;
if (options.json) console.log(JSON.stringify(results, null, 1));
else console.log(`${within} within, ${results.length - within} over`);
process.exitCode = within === results.length ? 0 : 1;

function modelsOf(paths: readonly string[]): string[] {
  return paths.flatMap((path) => (statSync(path).isDirectory() ? readdirSync(path).filter((f) => f.endsWith('.onnx')).sort().map((f) => join(path, f)) : [path]));
}

function measure(model: string): Footprint {
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-footprint-'));
  try {
    const [first, second] = [join(folder, 'a'), join(folder, 'b')];
    const compiled = [compile(model, first), compile(model, second)] as const;
    const { modules, memory: facts } = compiled[0];
    const scratch = facts.scratchPerThread * threads;
    const total = facts.scratch + scratch;
    const memory = { weights: facts.weights, io: facts.io, activations: facts.activations, scratch, total, pages: Math.ceil(total / pageBytes) };
    const { weights } = compiled[0];
    const times = { ours: [] as number[], peer: [] as number[] };
    for (let i = 0; i < options.runs; i++) {
      times.ours.push(firstResult('tilewright', first));
      if (options.peer) times.peer.push(firstResult('onnxruntime-web', model, first));
    }
    const result: Footprint = {
      model: basename(model, '.onnx'),
      code: Object.fromEntries(modules.map((m) => [m.file, m.bytes])),
      memory,
      onnxWeights: weights,
      live: facts.scheduleBytes,
      activationRatio: facts.activations / facts.scheduleBytes,
      totalRatio: memory.total / (2 * weights + 1.15 * facts.scheduleBytes),
      identical: sameFiles(first, second),
      compile: Math.min(compiled[0].wall, compiled[1].wall),
      firstResult: times.ours.length > 0 ? median(times.ours) : undefined,
      peerFirstResult: times.peer.length > 0 ? median(times.peer) : undefined,
    };
    if (!options.json) print(result);
    return result;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Compiled {
  readonly modules: readonly { readonly file: string; readonly bytes: number }[];
  readonly memory: Manifest['memory'] & { readonly scheduleBytes: number };
  /** Weights in the ONNX file. */
  readonly weights: number;
  readonly wall: number;
}

function compile(model: string, folder: string): Compiled {
  const begun = performance.now();
  const text = run([join(import.meta.dirname, 'compile-once.ts'), model, folder]);
  return { ...(JSON.parse(text) as Omit<Compiled, 'wall'>), wall: performance.now() - begun };
}

function firstResult(runtime: 'tilewright' | 'onnxruntime-web', path: string, artifact = path): number {
  return Number(run([join(import.meta.dirname, 'first-result.ts'), runtime, path, String(threads), artifact]));
}

function run(args: readonly string[]): string {
  return execFileSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'inherit'] });
}

function sameFiles(a: string, b: string): boolean {
  const files = readdirSync(a).sort();
  return files.join() === readdirSync(b).sort().join() && files.every((f) => readFileSync(join(a, f)).equals(readFileSync(join(b, f))));
}

function print(r: Footprint): void {
  const holds = (ok: boolean): string => (ok ? 'holds' : 'MISSED');
  const { memory } = r;
  console.log(r.model);
  console.log(`  code          ${Object.entries(r.code).map(([file, n]) => `${file} ${bytes(n)}`).join(', ')}`);
  console.log(`  memory        ${bytes(memory.weights)} packed weights, ${bytes(memory.activations)} activations (inputs and outputs, ${bytes(memory.io)}, among them), ${bytes(memory.scratch)} scratch of ${threads} threads; ${memory.pages} pages of 64 KiB`);
  console.log(`  activations   ${r.activationRatio.toFixed(3)} x ${bytes(r.live)} live at once (at most 1.15: ${holds(r.activationRatio <= 1.15)})`);
  console.log(`  total         ${bytes(memory.total)} = ${r.totalRatio.toFixed(3)} of 2 x ${bytes(r.onnxWeights)} ONNX weights + 1.15 x ${bytes(r.live)} (at most 1: ${holds(r.totalRatio <= 1)})`);
  console.log(`  compile       ${ms(r.compile)}, two compilations ${r.identical ? 'identical' : 'DIFFER'}`);
  if (r.firstResult !== undefined) console.log(`  first result  ${ms(r.firstResult)}${r.peerFirstResult === undefined ? '' : `, onnxruntime-web ${ms(r.peerFirstResult)}`}`);
}
