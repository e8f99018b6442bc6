/**
 * Bandwidth of norm-affine-activation(-proxy) on 32x64x56x56 with channels side by side, as networks have it, against a copy of the same bytes. Bytes are counted as two reads and a write forward, in
 * inference form and in a training step, and as four reads and a write backward: all steps after the loss. A pass over so much memory takes up to twice as long where its pages lie badly, so
 * the copy (a loop of loads and stores over all threads) and the norms are entries of one module over one memory and take turns, and several memories are opened one after the other.
 * npm run bench:norm -- [--threads 1,2] [--runs 7] [--memories 5] [--only TEXT] [--profile]
 */
import { wasmTarget } from '../cli/driver/target.ts';
import { table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { importModel } from '../frontend/index.ts';
import type { Graph } from '../ir/graph.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { passes, runPipeline, type Pass } from '../passes/pipeline.ts';
import { addLoss } from '../passes/train/add-loss.ts';
import { declareParameters } from '../passes/train/declare-parameters.ts';
import { differentiate } from '../passes/train/differentiate.ts';
import { joinAffine } from '../passes/join-affine.ts';
import { encodeModel, node, raw, value, type TestNode } from '../test/onnx-encode.ts';
import { commandLine } from './options.ts';
import { compileVariants, open, type Variants } from './pairs.ts';
import { numbers } from './train-networks.ts';

const { options } = commandLine('npm run bench:norm', '', { threads: [1, 2], runs: 7, memories: 5, only: '', profile: false });
const { runs } = options;
const warmUp = 3;
const shape = [32, 56, 56, 64];
const elements = shape.reduce((n, d) => n * d, 1);
const channels = 64;
const data = numbers(elements, 5);
type Activation = 'relu' | 'silu';

const cases = (['group:4', 'group:4+proxy'] as const).flatMap((norm) => (['relu', 'silu'] as const).map((activation) => ({ norm, activation, name: `${norm} ${activation}` }))).filter((c) => c.name.includes(options.only));
/** The square of the sum of y · dy: its gradient depends on all of y, as in a network, so that nothing of the backward pass can run before the forward pass is done. */
const lossNodes = [
  node('Mul', ['y', 'dy'], ['product']), node('ReduceSum', ['product', 'samples'], ['over.samples']), node('ReduceSum', ['over.samples'], ['sum'], { keepdims: 0 }), node('Mul', ['sum', 'sum'], ['total']),
];

type Kind = 'copy' | 'forward' | 'training';
/** What is timed: the copy, forward in inference form, and both passes of a training step. */
const parts = ['copy', 'forward', 'forward of training', 'backward'] as const;
type Part = (typeof parts)[number];
interface Step { readonly name: string; readonly source: readonly string[] }
/** Reads and writes of a whole tensor that a part counts as. */
const tensors = { 'copy': 2, 'forward': 3, 'forward of training': 3, 'backward': 5 } as const satisfies Record<Part, number>;

const shown = parts.filter((part) => part !== 'copy');
for (const threads of options.threads) {
  const rows: string[][] = [];
  for (const c of cases) {
    const nodes = normNodes(c.activation);
    const graphs = new Map<Kind, Graph>([
      ['copy', graphOf([node('Neg', ['x'], ['y'])]).graph],
      ['forward', rewritten(graphOf(nodes), c.norm, true).graph],
      ['training', gradient(rewritten(graphOf([...nodes, ...lossNodes], true), c.norm, false))],
    ]);
    const variants = compileVariants(new Map([...graphs].map(([kind, graph]) => [kind, runPipeline(graph, wasmTarget)])), true);
    const times: Record<Part, number[]>[] = [];
    for (let i = 0; i < options.memories; i++) times.push(await timesOf(variants, threads));
    const cells = shown.map((part) => {
      // Of each memory the median of its runs, each against the copy beside it.
      const shares = times.map((t) => median(t[part].map((ms, i) => (t.copy[i]! / ms) * (tensors[part] / tensors.copy))));
      return [median(times.map((t) => median(t[part]))).toFixed(2), `${percent(median(shares))} (${percent(Math.min(...shares))} to ${percent(Math.max(...shares))})`];
    });
    rows.push([c.name, median(times.map((t) => median(t.copy))).toFixed(2), ...cells.flat()]);
  }
  console.log(`${threads} ${threads === 1 ? 'thread' : 'threads'}, 32x64x56x56 (${(elements * 4 / 2 ** 20).toFixed(0)} MiB a tensor), milliseconds; of a copy: median of ${options.memories} memories and range`);
  for (const line of table(['norm', 'copy', ...shown.flatMap((part) => [part, 'of a copy'])], rows, [1, 2, 3, 4, 5, 6, 7])) console.log(line);
}

/** Milliseconds of each part, run by run, over one memory in which they take turns. */
async function timesOf(variants: Variants, threads: number): Promise<Record<Part, number[]>> {
  const opening = await open(variants, { start: Float32Array.of(1), x: data, dy: data }, threads);
  const times: Record<Part, number[]> = { 'copy': [], 'forward': [], 'forward of training': [], 'backward': [] };
  const { entries, steps } = variants.artifact.manifest;
  for (let run = 0; run < warmUp + runs; run++) {
    const sums: Record<Part, number> = { 'copy': 0, 'forward': 0, 'forward of training': 0, 'backward': 0 };
    for (const [k, kind] of (variants.names as readonly Kind[]).entries()) {
      await opening.time(kind);
      const kernels = await opening.kernels(kind);
      const [first] = entries![k]!.steps;
      let after = false;
      kernels.forEach((ms, i) => {
        const step = steps[first + i]!;
        after ||= isLoss(step);
        if (!isCounted(step)) return;
        const part: Part = kind !== 'training' ? kind : after ? 'backward' : 'forward of training';
        sums[part] += ms;
        if (options.profile && run === warmUp && ms > 0.02) console.log(`${ms.toFixed(2).padStart(7)} ${part}: ${step.name}`);
      });
    }
    if (run >= warmUp) for (const part of parts) times[part].push(sums[part]);
  }
  await opening.close();
  return times;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

/** Copies between the layouts of inputs, outputs and kernels are none of the norm's. */
function isCounted({ name, source }: Step): boolean {
  return name !== 'copy' && !source.includes('Abs(started)') && !isLoss({ name, source });
}

/** The loss stands between the passes. */
function isLoss({ source }: Step): boolean {
  return source.some((name) => /ReduceSum|Mul\((product|total)\)/.test(name));
}

function normNodes(activation: Activation): TestNode[] {
  const norm = [node('Transpose', ['x'], ['t'], { perm: [0, 3, 1, 2] }), node('BatchNormalization', ['t', 'scale', 'shift', 'mean', 'variance'], ['n'], { epsilon: 1e-5 })];
  const act = activation === 'relu' ? [node('Relu', ['n'], ['a'])] : [node('Sigmoid', ['n'], ['s']), node('Mul', ['n', 's'], ['a'])];
  return [...norm, ...act, node('Transpose', ['a'], ['y'], { perm: [0, 2, 3, 1] })];
}

/** A model of the input `x`, or (`trained`) of `x` and `dy`. Its first step is a small one: the first thread notes times, and all threads have come when it begins the second step. */
function graphOf(nodes: readonly TestNode[], trained = false): Parameters<typeof rewriteNorms>[0] {
  const perChannel = (name: string, make: (v: number) => number): ReturnType<typeof raw> => raw(name, 'f32', [channels], numbers(channels, name.length).map(make));
  const statistics = nodes.some((n) => n.op === 'BatchNormalization')
    ? [perChannel('scale', (v) => 1 + v / 2), perChannel('shift', (v) => v), perChannel('mean', (v) => v), perChannel('variance', (v) => 1.5 + v)]
    : [];
  const last = nodes.at(-1)!.outputs[0]!;
  return importModel(encodeModel({
    name: 'norm', nodes: [node('Abs', ['start'], ['started']), ...nodes], inputs: [value('start', 'f32', [1]), ...(trained ? ['x', 'dy'] : ['x']).map((name) => value(name, 'f32', shape))],
    outputs: [value('started', 'f32', [1]), value(last, 'f32', trained ? [] : shape)],
    initializers: [...statistics, raw('samples', 'i64', [1], BigInt64Array.of(0n))],
  }), { file: 'norm' });
}

function rewritten(model: Parameters<typeof rewriteNorms>[0], norm: string, inference: boolean): Parameters<typeof rewriteNorms>[0] {
  return rewriteNorms(model, parseNorm(norm), wasmTarget, { inference });
}

/** The forward pass of a training step in which `x` is a parameter. */
function prepare(model: Parameters<typeof rewriteNorms>[0]): Graph {
  const x = model.graph.inputs.find((v) => v.name === 'x')!;
  const graph: Graph = { ...model.graph, inputs: model.graph.inputs.filter((v) => v !== x), state: [...model.graph.state, { value: x, name: 'x', init: { dtype: 'f32', shape, data } }] };
  const simplified = ['simplify', 'fold-constants', 'eliminate-common-subexpressions'].map((name) => passes.find((p) => p.name === name)!);
  const pass = (name: string, run: Pass['run']): Pass => ({ name, run });
  return runPipeline(declareParameters(graph, [], {}), wasmTarget, { passes: [...simplified, pass('join-affine', joinAffine), simplified[0]!, pass('add-loss', (g) => addLoss(g, { kind: 'output', name: 'total' }, undefined))] });
}
/** Loss and the gradients of x, scale, shift and the proxy. */
function gradient(model: Parameters<typeof rewriteNorms>[0]): Graph {
  return joinAffine(differentiate(prepare(model)));
}
