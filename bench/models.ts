/**
 * Judges real models by their recorded outputs: npm run models -- FOLDER [--filter TEXT] [--threads 1,2] [--backend wasm|wgsl] [--binding BYTES]
 *
 * FOLDER holds NAME.onnx beside NAME.safetensors with `input/…` and `output/…`. Every output element has to lie within 1e-3 of the output's largest
 * magnitude (one quantum for quantised models), on each number of threads, and all thread counts have to give the same bits.
 * `--binding`: with wgsl, for adapters whose bindings hold so many bytes, and whose buffers hold four times as many: larger tensors are split.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { decodeModel } from '../frontend/onnx/decode.ts';
import { readModelFile } from '../frontend/onnx/external.ts';
import type { GraphView } from '../frontend/onnx/model.ts';
import { compile } from '../index.ts';
import { isFloat, sameShape, showType, type Tensor } from '../ir/type.ts';
import { load, openGpu, readSafetensors, type LoadOptions } from '../runtime/index.ts';
import { numbersOf } from './judge.ts';
import { withBoundInputs } from './onnx-case.ts';
import { commandLine, oneOf, stop, text } from './options.ts';

/**
 * Added absolute tolerance by model and output. yunet's objectness is a sigmoid whose values lie below 1e-4; its recorded outputs come from a logistic
 * computed as 0.5 + r(x) in float32, so they are multiples of 2^-24 (one is exactly 0 where e^-17.3 is right): the record itself is off by up to 2^-23.
 */
const exceptions: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  yunet_n_320: { obj_8: 2 ** -23, obj_16: 2 ** -23, obj_32: 2 ** -23 },
};

const { options, operands: [folder = ''], usage } = commandLine('npm run models', 'FOLDER', { filter: text('TEXT'), threads: [1, 2], backend: oneOf('wasm', 'wgsl'), binding: 0 });
const gpuLimits = options.binding > 0 ? { maxStorageBufferBindingSize: options.binding, maxBufferSize: 4 * options.binding } : {};
if (!existsSync(folder)) stop(`there is no folder ${folder}; ${usage}`);

/** The ways in which a model runs; all have to give the same bits. */
const gpu = options.backend === 'wgsl' ? await openGpu() : undefined;
const ways: readonly { readonly name: string; readonly options: LoadOptions }[] = gpu ? [{ name: gpu.adapter, options: { gpu } }] : options.threads.map((threads) => ({ name: `${threads} threads`, options: { threads } }));

let passed = 0;
let failed = 0;
for (const file of readdirSync(folder).sort()) {
  const name = file.replace(/\.onnx$/, '');
  const data = join(folder, `${name}.safetensors`);
  if (name === file || !existsSync(data) || (options.filter !== undefined && !name.includes(options.filter))) continue;
  const problem = await judgeModel(join(folder, file), data).catch((e: unknown) => (e instanceof Error ? e.message : String(e)));
  if (problem === undefined) passed++;
  else failed++;
  console.log(`${problem === undefined ? 'passed' : 'FAILED'}  ${name}${problem === undefined ? '' : `: ${problem}`}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
gpu?.close();

/** Undefined where the model passes, else what is wrong. */
async function judgeModel(model: string, data: string): Promise<string | undefined> {
  const tensors = await readSafetensors(readFileSync(data));
  const pick = (prefix: string): Record<string, Tensor> =>
    Object.fromEntries([...tensors].flatMap(([key, t]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), t]] : [])));
  const { graph } = decodeModel(readModelFile(model), model, dirname(model));
  const inputs = pick('input/');
  const wanted = pick('output/');
  if (Object.keys(wanted).length === 0) return `${data} holds no output`;
  const shapes = Object.fromEntries(Object.entries(inputs).map(([k, t]) => [k, t.shape]));
  const { result: artifact, bound } = await withBoundInputs(inputs, (bound) => compile(model, { shapes, values: bound, ...(gpu && { backend: 'wgsl', gpuLimits }) }));
  const given = Object.fromEntries(Object.entries(inputs).filter(([name]) => !bound.includes(name)));
  let first: Record<string, Tensor> | undefined;
  for (const { name: way, options } of ways) {
    await using session = await load(artifact, options);
    const got = (await session.run(given)) as Record<string, Tensor>;
    for (const [name, want] of Object.entries(wanted)) {
      const tensor = got[name];
      if (!tensor) return `output ${name} is missing`;
      const tolerance = (exceptions[basename(model, '.onnx')]?.[name] ?? 0) + toleranceOf(want, quantumOf(graph, name));
      const problem = differs(tensor, want, tolerance);
      if (problem !== undefined) return `${way}, output ${name}: ${problem}`;
      const shuffled = { ...want, data: want.data.slice().reverse() } as Tensor;
      const zeros = { ...want, data: want.data.slice().fill(0 as never) } as Tensor;
      for (const [what, wrong] of [['zeros', zeros], ['reversed outputs', shuffled]] as const) {
        if (new Set<number | bigint>(want.data).size > 1 && differs(wrong, want, tolerance) === undefined) return `the check is blind: ${what} pass for ${name}`;
      }
    }
    first ??= got;
    for (const [name, t] of Object.entries(first)) if (!sameBits(t, got[name]!)) return `output ${name} differs between thread counts`;
  }
  return undefined;
}

/** Absolute tolerance: a thousandth of the largest magnitude, or the output's quantum where that is more. Integers are exact. */
function toleranceOf(want: Tensor, quantum: number): number {
  if (!isFloat(want.dtype)) return 0;
  return Math.max(quantum * 1.001, 1e-3 * numbersOf(want).reduce((m, x) => Math.max(m, Math.abs(x)), 0));
}

/** The scale of the DequantizeLinear that makes an output; 0 for other outputs. */
function quantumOf(graph: GraphView, output: string): number {
  const node = graph.nodes.find((n) => n.outputs.includes(output));
  if (node?.opType !== 'DequantizeLinear') return 0;
  const scale = graph.initializers.find((t) => t.name === node.inputs[1])?.tensor;
  return scale && 'data' in scale ? Math.max(...Array.from(scale.data as Float32Array)) : 0;
}

function differs(got: Tensor, want: Tensor, tolerance: number): string | undefined {
  if (got.dtype !== want.dtype || !sameShape(got.shape, want.shape)) return `got ${showType(got)}, expected ${showType(want)}`;
  const g = numbersOf(got);
  const w = numbersOf(want);
  let worst = -1;
  for (let i = 0; i < w.length; i++) if (!(Math.abs(g[i]! - w[i]!) <= tolerance) && (worst < 0 || Math.abs(g[i]! - w[i]!) > Math.abs(g[worst]! - w[worst]!))) worst = i;
  return worst < 0 ? undefined : `element ${worst} is ${g[worst]}, expected ${w[worst]} (tolerance ${tolerance.toExponential(1)})`;
}

function sameBits(a: Tensor, b: Tensor): boolean {
  return Buffer.from(a.data.buffer, a.data.byteOffset, a.data.byteLength).equals(Buffer.from(b.data.buffer, b.data.byteOffset, b.data.byteLength));
}
