/**
 * Bandwidth of norm-affine-activation(-proxy) on 32x64x56x56 with channels side by side, as networks have it, against a copy of the same bytes in the same run. Bytes are counted as two
 * reads and a write forward (inference form), four reads and a write backward, whose
 * time is that of forward and backward less that of forward. The copy is a loop of loads and stores over all threads.
 * npm run bench:norm -- [--threads 1,2] [--runs 15] [--only TEXT] [--profile]
 */
import { artifactOf } from '../cli/driver/compile.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { bestFeatures } from '../cli/model.ts';
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
import { loadSession, type Session, type StepTime } from '../runtime/index.ts';
import { encodeModel, node, raw, value, type TestNode } from '../test/onnx-encode.ts';
import { commandLine } from './options.ts';
import { numbers } from './train-networks.ts';

const { options } = commandLine('npm run bench:norm', '', { threads: [1, 2], runs: 15, only: '', profile: false });
const { runs } = options;
const warmUp = 5;
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

for (const threads of options.threads) {
  const copy = await sessionOf(graphOf([node('Neg', ['x'], ['y'])]), threads);
  const rows: string[][] = [];
  for (const c of cases) {
    const nodes = normNodes(c.activation);
    const forward = await sessionOf(rewritten(graphOf(nodes), c.norm, true), threads);
    const loss = rewritten(graphOf([...nodes, ...lossNodes], true), c.norm, false);
    const backward = await sessionOf(gradient(loss), threads);
    const all = [copy, forward, backward];
    const times = all.map((): number[] => []);
    for (let i = 0; i < runs + warmUp; i++) {
      for (const [k, session] of all.entries()) {
        await session.run(inputsOf(session));
        if (i >= warmUp) times[k]!.push(timed(session).reduce((n, s) => n + s.end - s.start, 0));
      }
    }
    if (options.profile) for (const session of [forward, backward]) printSteps(session);
    const [copied, ahead, both] = times.map(median) as [number, number, number];
    const back = both - ahead;
    rows.push([c.name, copied.toFixed(2), ahead.toFixed(2), share(3, copied, ahead), back.toFixed(2), share(5, copied, back)]);
    for (const session of [forward, backward]) await session.close();
  }
  await copy.close();
  console.log(`${threads} ${threads === 1 ? 'thread' : 'threads'}, 32x64x56x56 (${(elements * 4 / 2 ** 20).toFixed(0)} MiB a tensor), milliseconds`);
  for (const line of table(['norm', 'copy', 'forward', 'of a copy', 'backward', 'of a copy'], rows, [1, 2, 3, 4, 5])) console.log(line);
}

/** Speed against a copy that moves as many bytes: `tensors` reads and writes, of which a copy has two. */
function share(tensors: number, copied: number, time: number): string {
  return `${((100 * copied * tensors) / 2 / time).toFixed(0)} %`;
}

function normNodes(activation: Activation): TestNode[] {
  const norm = [node('Transpose', ['x'], ['t'], { perm: [0, 3, 1, 2] }), node('BatchNormalization', ['t', 'scale', 'shift', 'mean', 'variance'], ['n'], { epsilon: 1e-5 })];
  const act = activation === 'relu' ? [node('Relu', ['n'], ['a'])] : [node('Sigmoid', ['n'], ['s']), node('Mul', ['n', 's'], ['a'])];
  return [...norm, ...act, node('Transpose', ['a'], ['y'], { perm: [0, 2, 3, 1] })];
}

/** A model of the input `x`, or (`trained`) of `x` and `dy`. */
function graphOf(nodes: readonly TestNode[], trained = false): Parameters<typeof rewriteNorms>[0] {
  const perChannel = (name: string, make: (v: number) => number): ReturnType<typeof raw> => raw(name, 'f32', [channels], numbers(channels, name.length).map(make));
  const statistics = nodes.some((n) => n.op === 'BatchNormalization')
    ? [perChannel('scale', (v) => 1 + v / 2), perChannel('shift', (v) => v), perChannel('mean', (v) => v), perChannel('variance', (v) => 1.5 + v)]
    : [];
  const last = nodes.at(-1)!.outputs[0]!;
  return importModel(encodeModel({
    name: 'norm', nodes, inputs: (trained ? ['x', 'dy'] : ['x']).map((name) => value(name, 'f32', shape)), outputs: [value(last, 'f32', trained ? [] : shape)],
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
function gradient(model: Parameters<typeof rewriteNorms>[0]): { graph: Graph } {
  return { graph: joinAffine(differentiate(prepare(model))) };
}

async function sessionOf({ graph }: { readonly graph: Graph }, threads: number): Promise<Session> {
  const artifact = await artifactOf({ imported: { bound: new Map(), dims: new Map(), warnings: [] }, graph: runPipeline(graph, wasmTarget) } as never, { features: [bestFeatures()], profile: true });
  return loadSession(artifact, { threads });
}

function inputsOf(session: Session): Record<string, Float32Array> {
  return Object.fromEntries(session.inputs.map((i) => [i.name, data]));
}

/** The steps that count: copies between the layouts of inputs, outputs and kernels are none of the norm's, nor is the loss. */
function timed(session: Session): readonly StepTime[] {
  return session.profile()!.filter((s) => s.name !== 'copy' && !s.source.some((name) => /ReduceSum|Mul\((product|total)\)/.test(name)));
}

function printSteps(session: Session): void {
  const steps = timed(session).filter((s) => s.end - s.start > 0.02);
  for (const line of table(['ms', 'op', 'from'], steps.map((s) => [(s.end - s.start).toFixed(2), s.name, s.source.join(', ').slice(0, 60)]), [0])) console.log(line);
}
