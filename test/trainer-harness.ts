/** Trainers that run on the interpreter, over small ONNX models. */
import { wasmTarget } from '../cli/driver/target.ts';
import { importModel } from '../frontend/index.ts';
import { filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, State } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import type { TrainOptions } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import type { Engine, StateInfo } from '../runtime/engine.ts';
import { tensorOf, type InputValue } from '../runtime/inputs.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';

/** Numbers between -scale and scale that follow no pattern. */
export const spread = (n: number, scale = 1, from = 1): number[] => Array.from({ length: n }, (_, i) => scale * Math.sin(from + 2.3 * i));

export const batch = 4;

/** Inputs of 3, a hidden layer of 5, 2 classes. */
export const tinyModel: TestModel = {
  name: 'tiny',
  nodes: [node('Gemm', ['x', 'w1', 'b1'], ['h'], { transB: 1 }), node('Relu', ['h'], ['r']), node('Gemm', ['r', 'w2', 'b2'], ['logits'], { transB: 1 })],
  inputs: [value('x', 'f32', [batch, 3])],
  outputs: [value('logits', 'f32', [batch, 2])],
  initializers: [floats('w1', [5, 3], spread(15)), floats('b1', [5], spread(5, 0.1)), floats('w2', [2, 5], spread(10, 1, 3)), floats('b2', [2], [0, 0])],
};

/** The k-th batch: points of two classes, apart by their first number. */
export function tinyBatch(k: number): { readonly x: Float32Array; readonly y: BigInt64Array } {
  const y = BigInt64Array.from({ length: batch }, (_, i) => BigInt((i + k) % 2));
  return { x: Float32Array.from(spread(batch * 3, 0.5, k), (v, i) => v + (i % 3 === 0 ? (y[Math.floor(i / 3)] === 0n ? 1 : -1) : 0)), y };
}

const options: TrainOptions = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' } };

/** An engine that computes on the interpreter. */
export function referenceEngine(model: TestModel = tinyModel, train: TrainOptions = options): Engine {
  const imported = importModel(encodeModel(model), { file: 'tiny.onnx' });
  const { graph } = trainingStep(imported.graph, imported.statistics, train, wasmTarget);
  const running = new Set(imported.statistics.map((s) => imported.graph.state.find((t) => t.value === s.state)!.name));
  const trained = graph.state.filter((s) => graph.updates.some((u) => u.state === s.value));
  const role = ({ name }: State): StateInfo['role'] =>
    name === 'train.step' ? 'counter' : name === 'train.seed' ? 'seed' : running.has(name) ? 'statistic' : name.endsWith('.average') ? 'average'
    : imported.graph.state.some((s) => s.name === name) ? 'parameter' : 'moment';
  let state = new Map(graph.state.map((s) => [s.name, s.init === 'zero' ? filled(s.value.type.dtype, s.value.type.shape, 0) : s.init]));
  const typesOf = (g: Graph): Engine['step'] => ({
    inputs: g.inputs.map((v) => ({ name: v.name!, ...v.type })),
    outputs: g.outputs.map((o) => ({ name: o.name, ...o.value.type })),
  });
  const entries = { step: typesOf(graph), eval: typesOf(imported.graph) };
  return {
    model: 'tiny', threads: 1, notices: [], ...entries,
    state: trained.map((s) => ({ name: s.name, ...s.value.type, role: role(s) })),
    run(entry, inputs: Readonly<Record<string, InputValue>>) {
      const of = entry === 'step' ? graph : imported.graph;
      const given = Object.fromEntries(entries[entry].inputs.map((i) => [i.name, tensorOf(i, inputs[i.name]!)]));
      const result = evaluate(of, given, { state: new Map(of.state.map((s) => [s.value, state.get(s.name)!])) });
      const next = new Map(state);
      for (const [v, t] of result.state) next.set(of.state.find((s) => s.value === v)!.name, t);
      state = next;
      return Promise.resolve(Object.fromEntries(result.outputs));
    },
    read: (names) => Promise.resolve(new Map(names.map((n) => [n, state.get(n)!]))),
    write(changed) {
      state = new Map([...state, ...changed]);
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
}

/** Tensors as plain data, for comparisons to the last bit. */
export const bits = (state: ReadonlyMap<string, Tensor>): Record<string, number[]> =>
  Object.fromEntries([...state].map(([name, t]) => [name, Array.from(new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength))]));
