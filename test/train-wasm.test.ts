/** Training as WebAssembly: goldens on one thread and on two, and artifacts with a step and an evaluation over one state. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readCase } from '../bench/golden-case.ts';
import { runGolden, type Executor } from '../bench/golden-run.ts';
import { onWasm } from '../bench/golden-wasm.ts';
import { compile, type Artifact } from '../cli/driver/compile.ts';
import { openArtifact } from '../runtime/artifact.ts';
import { control } from '../runtime/control.ts';
import type { IoEntry } from '../runtime/manifest.ts';
import { start } from '../runtime/start.ts';
import { byteLength, bytesOf, tensorOver, type Tensor } from '../runtime/tensor.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';

const root = join(import.meta.dirname, '../../shared/goldens');
const absent = !existsSync(root);

describe.skipIf(absent)(absent ? 'goldens (skipped: ../shared/goldens is not there)' : 'goldens as WebAssembly', () => {
  it.each(['mlp-sgd', 'convnet-bn-sgd-momentum', 'resnet-gn-adam', 'unet-mse', 'separable-adam', 'transformer-adamw'])('%s, with equal bits on 1 and 2 threads', async (name) => {
    const golden = await readCase(join(root, name));
    const bits: number[][] = [];
    for (const threads of [1, 2]) {
      const seen: number[] = [];
      const watched: Executor = async (step) => {
        const trainer = await onWasm(threads)(step);
        return { ...trainer, step: async (inputs) => {
          const outputs = await trainer.step(inputs);
          for (const t of outputs.values()) seen.push(...new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength));
          return outputs;
        } };
      };
      const result = await runGolden(golden, watched);
      expect(result.problems).toEqual([]);
      bits.push(seen);
    }
    expect(bits[1]).toEqual(bits[0]);
  });
});

describe('a training artifact', () => {
  // y = BatchNorm(x · w): the norm joins the batch while it trains, and goes by its running statistics in the evaluation.
  const model = encodeModel({
    name: 'tiny',
    nodes: [
      node('MatMul', ['x', 'w'], ['h']),
      node('BatchNormalization', ['h', 'scale', 'shift', 'mean', 'var'], ['y', 'm', 'v'], { training_mode: 1, momentum: 0.5, epsilon: { float: 1e-5 } }),
    ],
    inputs: [value('x', 'f32', [4, 2])], outputs: [value('y', 'f32', [4, 3])],
    initializers: [floats('w', [2, 3], [1, -2, 0.5, 3, 1, -1]), floats('scale', [3], [1, 2, 3]), floats('shift', [3], [0, 1, 2]), floats('mean', [3], [0, 0, 0]), floats('var', [3], [1, 1, 1])],
  });
  const compiled = (): Promise<Artifact> => compile(model, { file: 'tiny.onnx', features: ['simd'], train: { loss: { kind: 'mse' }, optimizer: { kind: 'sgd', momentum: 0.9 } } });
  const x = [0.5, -1, 2, 0.25, -1.5, 1, 0.75, 3];

  async function session(artifact: Artifact): Promise<{ run(entry: 'step' | 'eval', inputs: Record<string, Float32Array>): Promise<Map<string, Tensor>>; state(): Promise<Map<string, number[]>>; close(): Promise<void> }> {
    const { manifest } = artifact;
    const { executor } = await start(await openArtifact(artifact), { threads: 2 }, []);
    const read = async (list: readonly IoEntry[], writes: { address: number; bytes: Uint8Array }[]): Promise<Map<string, Tensor>> => {
      const results = await executor.run(writes, list.map((o) => ({ address: o.address, bytes: byteLength(o) })));
      return new Map(list.map((o, i) => [o.name, tensorOver(o, results[i]!)]));
    };
    let last = new Map<string, Tensor>();
    return {
      async run(name, inputs) {
        const index = manifest.entries!.findIndex((e) => e.name === name);
        const entry = manifest.entries![index]!;
        const writes = [{ address: control.entry, bytes: bytesOf(Int32Array.of(index)) }, ...entry.inputs.map((i) => ({ address: i.address, bytes: bytesOf(inputs[i.name]!) }))];
        last = await read([...entry.outputs, ...manifest.state!], writes);
        return last;
      },
      state: () => Promise.resolve(new Map(manifest.state!.map((s) => [s.name, Array.from(last.get(s.name)!.data as Float32Array, Number)]))),
      close: () => executor.close(),
    };
  }

  it('lists its state by role, and the inputs and outputs of both entries', async () => {
    const { manifest } = await compiled();
    expect(Object.fromEntries(manifest.state!.map((s) => [s.name, s.role]))).toEqual({
      w: 'parameter', scale: 'parameter', shift: 'parameter', mean: 'statistic', var: 'statistic', 'train.step': 'counter', 'w.momentum': 'moment', 'scale.momentum': 'moment', 'shift.momentum': 'moment',
    });
    expect(manifest.entries!.map((e) => [e.name, e.inputs.map((i) => i.name), e.outputs.map((o) => o.name)])).toEqual([['step', ['x', 'y', 'lr'], ['y', 'loss']], ['eval', ['x'], ['y']]]);
    expect(manifest.entries!.map((e) => e.steps)).toEqual([[0, manifest.entries![1]!.steps[0]], [manifest.entries![1]!.steps[0], manifest.steps.length]]);
  });

  it('evaluates with the weights and statistics that its steps have made', async () => {
    const s = await session(await compiled());
    try {
      const inputs = { x: Float32Array.from(x), y: new Float32Array(12), lr: Float32Array.of(0.05) };
      const losses: number[] = [];
      for (let i = 0; i < 3; i++) losses.push(Number((await s.run('step', inputs)).get('loss')!.data[0]));
      expect(losses[2]).toBeLessThan(losses[0]!);
      const before = await s.state();
      const y = (await s.run('eval', inputs)).get('y')!.data as Float32Array;
      const at = (name: string): number[] => before.get(name)!;
      for (let n = 0; n < 4; n++) {
        for (let c = 0; c < 3; c++) {
          const h = x[2 * n]! * at('w')[c]! + x[2 * n + 1]! * at('w')[3 + c]!;
          expect(y[3 * n + c]).toBeCloseTo(((h - at('mean')[c]!) / Math.sqrt(at('var')[c]! + 1e-5)) * at('scale')[c]! + at('shift')[c]!, 4);
        }
      }
      expect(await s.state()).toEqual(before);
      expect(at('train.step')).toEqual([3]);
    } finally {
      await s.close();
    }
  });
});
