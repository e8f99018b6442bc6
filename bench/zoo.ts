/**
 * Compares the zoo's architectures with PyTorch on PyTorch's weights: npm run zoo -- FOLDER [--filter TEXT]
 *
 * FOLDER holds, for each network, either NAME.safetensors with its weights, `input/x` and `output/logits` (test/twins/zoo.py writes them), or NAME.onnx that PyTorch exported with batch
 * norms folded into convolutions, beside NAME.safetensors with `input/x` and `output/y` (shared/tools/export_models.py). The weights go into our architecture of that name, which is compiled
 * and run; every output has to lie within 1e-3 of the largest magnitude. Without FOLDER, PyTorch writes the twins first; without PyTorch the command says so and judges nothing.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkedWeights } from '../cli/new.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { zooModel, zooNames } from '../frontend/zoo/index.ts';
import { compile } from '../index.ts';
import { load, readSafetensors } from '../runtime/index.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { commandLine, stop, text } from './options.ts';
import { unfoldedWeights } from './zoo-unfold.ts';

const { options, operands, usage } = commandLine('npm run zoo', '[FOLDER]', { filter: text('TEXT') });
const made = operands[0] === undefined ? mkdtempSync(join(tmpdir(), 'tilewright-zoo-')) : undefined;
const folder = operands[0] ?? made!;
if (made !== undefined) {
  const names = options.filter === undefined ? [] : [options.filter];
  const { status } = spawnSync('python3', [join(import.meta.dirname, '../test/twins/zoo.py'), folder, ...names], { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) {
    rmSync(made, { recursive: true });
    stop('PyTorch did not write the twins; install it (python3-torch, python3-torchvision), or name a folder that holds them');
  }
} else if (!existsSync(folder)) {
  stop(`there is no folder ${folder}; ${usage}`);
}

let [passed, failed] = [0, 0];
try {
  for (const file of readdirSync(folder).sort()) {
    const name = file.replace(/\.safetensors$/, '');
    if (name === file || (options.filter !== undefined && !name.includes(options.filter))) continue;
    const ours = architectureOf(name);
    if (ours === undefined) {
      console.log(`skipped  ${name}: the zoo has no architecture of that name`);
      continue;
    }
    const { problem, error } = await judge(ours, join(folder, name)).catch((e: unknown) => ({ problem: e instanceof Error ? e.message : String(e), error: 0 }));
    if (problem === undefined) passed++;
    else failed++;
    console.log(`${problem === undefined ? 'passed' : 'FAILED'}  ${name} as ${ours}: ${problem ?? `largest difference ${error.toExponential(1)} of the largest output`}`);
  }
} finally {
  if (made !== undefined) rmSync(made, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

/** Our name for a network of PyTorch's; torchvision adds groups and width to those of ResNeXt. */
function architectureOf(name: string): string | undefined {
  const plain = (text: string): string => text.toLowerCase().replace(/_32x4d$/, '').replace(/[^a-z0-9]/g, '');
  return zooNames.find((n) => plain(n) === plain(name));
}

async function judge(architecture: string, stem: string): Promise<{ readonly problem: string | undefined; readonly error: number }> {
  const tensors = await readSafetensors(readFileSync(`${stem}.safetensors`));
  const x = tensors.get('input/x');
  const want = tensors.get('output/logits') ?? tensors.get('output/y');
  if (!x || !want) return { problem: `${stem}.safetensors holds no input/x or no output`, error: 0 };
  const model = zooModel(architecture, { image: x.shape.slice(1) as [number, number, number], classes: want.shape[1]! });
  const own = new Map([...tensors].filter(([name]) => !name.includes('/')));
  const weights = checkedWeights(own.size > 0 ? own : unfoldedWeights(`${stem}.onnx`, model), `${stem}.safetensors`, model);
  const artifact = await compile(onnxBytes(model, (w) => weights.get(w.name)!), { dims: { n: x.shape[0]! }, features: ['relaxed'] });
  await using session = await load(artifact, { threads: 2 });
  const { logits } = (await session.run({ x })) as { logits: Tensor };
  const [got, wanted] = [logits.data as Float32Array, want.data as Float32Array];
  const largest = wanted.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const error = wanted.reduce((m, v, i) => Math.max(m, Math.abs(v - got[i]!)), 0) / largest;
  const blind = wanted.reduce((m, v, i) => Math.max(m, Math.abs(v - got[got.length - 1 - i]!)), 0) / largest < 1e-3;
  if (blind) return { problem: 'the check is blind: reversed outputs pass', error };
  return { problem: error <= 1e-3 ? undefined : `largest difference ${error.toExponential(2)} of the largest output, tolerance 1e-3`, error };
}
