/**
 * Judges the nine architectures of ONNX's light models at inner tensors: npm run light -- FOLDER [--filter TEXT] [--tensors 16] [--seed 1] [--verbose]
 *
 * A light model makes its weights with ConstantOfShape, so its recorded output says little. Here seeded random weights take their place, tensors spread
 * over the depth become outputs, and the model runs through the passes, the plan and wasm on 2 threads. The interpreter, on the graph as imported, is the truth.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { artifactOf } from '../cli/driver/compile.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { generator } from '../ir/generator.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { sizeOf, type Tensor, type TensorType } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { load } from '../runtime/index.ts';
import { commandLine, stop, text } from './options.ts';

const { options, operands: [folder = ''], usage } = commandLine('npm run light', 'FOLDER', { filter: text('TEXT'), tensors: 16, seed: 1, verbose: false });
if (!existsSync(folder)) stop(`there is no folder ${folder}; ${usage}`);

let passed = 0;
let failed = 0;
for (const file of readdirSync(folder).sort()) {
  if (!file.endsWith('.onnx') || (options.filter !== undefined && !file.includes(options.filter))) continue;
  const begun = performance.now();
  const report = await judgeModel(join(folder, file)).catch((e: unknown) => ({ problem: e instanceof Error ? e.message : String(e), summary: '' }));
  if (report.problem === undefined) passed++;
  else failed++;
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(`${report.problem === undefined ? 'passed' : 'FAILED'}  ${file.replace(/\.onnx$/, '')}  ${report.problem ?? report.summary} (${seconds} s)`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

async function judgeModel(model: string): Promise<{ readonly problem: string | undefined; readonly summary: string }> {
  const imported = importModel(model);
  const random = generator(options.seed);
  const probes = withProbes(withRandomWeights(imported.graph, random), options.tensors);
  const inputs = Object.fromEntries(probes.graph.inputs.map((v) => [v.name!, normal(v.type, random)]));
  const want = evaluate(probes.graph, inputs).outputs;
  const artifact = await artifactOf({ imported, graph: runPipeline(probes.graph, wasmTarget) }, { features: ['relaxed'] });
  await using session = await load(artifact, { threads: 2 });
  const got = await session.run(inputs);

  let worst = { share: 0, text: '' };
  for (const [name, tensor] of want) {
    const error = largestError(got[name]!.data as Float32Array, tensor.data as Float32Array);
    const tolerance = toleranceOf(probes.terms.get(name)!);
    if (options.verbose) console.log(`  ${name}: error ${error.toExponential(1)}, tolerance ${tolerance.toExponential(1)}, ${tensor.data.length} elements`);
    if (!(error <= tolerance)) return { problem: `${name} is off by ${error.toExponential(2)} of its largest magnitude, tolerance ${tolerance.toExponential(2)}`, summary: '' };
    for (const [what, wrong] of [['zeros', tensor.data.map(() => 0 as never)], ['reversed values', tensor.data.slice().reverse()]] as const) {
      if (tensor.data.length > 1 && largestError(wrong as Float32Array, tensor.data as Float32Array) <= tolerance) return { problem: `the check is blind: ${what} pass for ${name}`, summary: '' };
    }
    if (error / tolerance >= worst.share) worst = { share: error / tolerance, text: `largest error ${error.toExponential(1)} of ${tolerance.toExponential(1)} at ${name}` };
  }
  return { problem: undefined, summary: `${want.size} tensors, ${worst.text}` };
}

/**
 * The share of a tensor's largest magnitude that it may be off by. A sum of K products in float32 is off by about √K · 2^-24 of its magnitude; errors of
 * different sums are independent, so along a path they add as squares: √(ΣK) · 2^-24. The factor 8 covers the largest of many elements and Winograd's
 * transforms, each of which multiplies an error by less than 3.
 */
function toleranceOf(terms: number): number {
  return 8 * Math.sqrt(terms) * 2 ** -24;
}

/** The largest difference, relative to the largest expected magnitude; NaN where a value is not finite. */
function largestError(got: Float32Array, want: Float32Array): number {
  let magnitude = 0;
  let error = 0;
  for (let i = 0; i < want.length; i++) {
    magnitude = Math.max(magnitude, Math.abs(want[i]!));
    error = Math.max(error, Math.abs(got[i]! - want[i]!));
  }
  return got.length === want.length && Number.isFinite(magnitude) ? error / magnitude : NaN;
}

/** The graph with state of random values in place of the weights that ConstantOfShape makes. */
function withRandomWeights(graph: Graph, random: () => number): Graph {
  const isWeight = (op: Op): boolean => op.name === 'broadcast' && op.source.some((s) => s.startsWith('ConstantOfShape'));
  const state = graph.ops.filter(isWeight).map((op, i) => {
    const value = op.results[0]!;
    return { value, name: value.name ?? `weight.${i}`, init: value.type.shape.length > 1 ? he(value.type, random) : aroundOne(value.type, random) };
  });
  return { ...graph, state: [...graph.state, ...state], ops: graph.ops.filter((op) => !isWeight(op)) };
}

/** Uniform of variance 2 / fan-in: magnitudes neither grow nor fade through ReLUs. */
function he(type: TensorType, random: () => number): Tensor {
  const bound = Math.sqrt((6 * type.shape[0]!) / sizeOf(type.shape));
  return { ...type, data: Float32Array.from({ length: sizeOf(type.shape) }, () => (2 * random() - 1) * bound) };
}

/** Uniform in 0.5 to 1.5: right for scales and variances, harmless for means and biases. */
function aroundOne(type: TensorType, random: () => number): Tensor {
  return { ...type, data: Float32Array.from({ length: sizeOf(type.shape) }, () => 0.5 + random()) };
}

/** Standard normal numbers, by Box and Muller. */
function normal(type: TensorType, random: () => number): Tensor {
  return { ...type, data: Float32Array.from({ length: sizeOf(type.shape) }, () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())) };
}

interface Probes {
  readonly graph: Graph;
  /** By output name: the terms that are summed by contractions on the path to it that sums most. */
  readonly terms: ReadonlyMap<string, number>;
}

/** Makes `count` values between the model's stages outputs, evenly over the depth, and the logits too: softmax hides what is wrong with small ones. */
function withProbes(graph: Graph, count: number): Probes {
  const terms = new Map<Value, number>(graph.inputs.map((v) => [v, 0]));
  const stages: Value[] = [];
  let logits: Value | undefined;
  for (const op of graph.ops) {
    const above = op.operands.flatMap((v) => terms.get(v) ?? []);
    if (above.length === 0) continue;
    for (const r of op.results) terms.set(r, Math.max(...above) + fanIn(op));
    if (['relu', 'maxPool', 'sumPool', 'concat'].includes(op.name)) stages.push(op.results[0]!);
    if (op.name === 'contract' || op.name === 'conv' || (op.name === 'add' && op.operands.includes(logits!))) logits = op.results[0];
  }
  const taken = Math.min(count, stages.length);
  const spread = Array.from({ length: taken }, (_, i) => stages[Math.floor(((i + 0.5) * stages.length) / taken)]!);
  const outputs = new Map(graph.outputs.map((o) => [o.value, o.name]));
  for (const [i, v] of [...spread, ...(logits ? [logits] : [])].entries()) if (!outputs.has(v)) outputs.set(v, `inner.${i}${v.name === undefined ? '' : `.${v.name}`}`);
  const list = [...outputs].map(([value, name]) => ({ name, value }));
  return { graph: { ...graph, outputs: list }, terms: new Map(list.map((o) => [o.name, terms.get(o.value) ?? 0])) };
}

/** Terms of one sum of a contraction; 0 for other ops. */
function fanIn(op: Op): number {
  const [, weight] = op.operands;
  if (op.name !== 'conv' && op.name !== 'contract') return 0;
  return sizeOf(weight!.type.shape) / (op.name === 'conv' ? weight!.type.shape[0]! : op.results[0]!.type.shape.at(-1)!);
}
