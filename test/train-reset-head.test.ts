/** Another number of classes: the last linear layer of a model made anew, trained, and read by another runtime. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compile } from '../cli/driver/compile.ts';
import { resetHead } from '../cli/driver/reset-head.ts';
import { openPeer } from '../cli/peers.ts';
import { importModel } from '../frontend/index.ts';
import { loadTrainer } from '../runtime/index.ts';
import { writeNpy } from '../runtime/npy.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value, type TestModel, type TestNode } from './onnx-encode.ts';
import { spread } from './trainer-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'reset-head-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

type Initializers = NonNullable<TestModel['initializers']>;

/** A layer of 6 features from 3 inputs, and a head for 4 classes. */
function classifier(head: readonly TestNode[], weights: Initializers, more: Partial<TestModel> = {}): TestModel {
  return {
    name: 'classifier',
    nodes: [node('Gemm', ['x', 'w1', 'b1'], ['h'], { transB: 1 }), node('Relu', ['h'], ['r']), ...head],
    inputs: [value('x', 'f32', ['n', 3])], outputs: [value('logits', 'f32', ['n', 4])],
    initializers: [floats('w1', [6, 3], spread(18)), floats('b1', [6], spread(6, 0.1)), ...weights],
    ...more,
  };
}

const kernel: Initializers = [floats('k', [4, 1, 3, 3], spread(36)), floats('kb', [4], [0, 0, 0, 0])];
const heads: Record<string, { readonly model: TestModel; readonly shapes: Readonly<Record<string, readonly number[]>>; readonly sample: readonly number[] }> = {
  'Gemm with transB': {
    model: classifier([node('Gemm', ['r', 'w', 'b'], ['logits'], { transB: 1 })], [floats('w', [4, 6], spread(24)), floats('b', [4], spread(4))]),
    shapes: { w: [7, 6], b: [7] }, sample: [3],
  },
  'Gemm without transB, weights listed as inputs': {
    model: classifier([node('Gemm', ['r', 'w', 'b'], ['logits'])], [floats('w', [6, 4], spread(24)), floats('b', [4], spread(4))], { inputs: [value('x', 'f32', ['n', 3]), value('w', 'f32', [6, 4]), value('b', 'f32', [4])] }),
    shapes: { w: [6, 7], b: [7] }, sample: [3],
  },
  'MatMul, an added bias and softmax, with declared types between': {
    model: classifier([node('MatMul', ['r', 'w'], ['m']), node('Add', ['m', 'b'], ['a']), node('Softmax', ['a'], ['logits'], { axis: -1 })], [floats('w', [6, 4], spread(24)), floats('b', [1, 4], spread(4))], { valueInfo: [value('a', 'f32', ['n', 4])] }),
    shapes: { w: [6, 7], b: [1, 7] }, sample: [3],
  },
  'MatMul with a transposed weight, no bias': {
    model: classifier([node('Transpose', ['w'], ['t'], { perm: [1, 0] }), node('MatMul', ['r', 't'], ['logits'])], [floats('w', [4, 6], spread(24))]),
    shapes: { w: [7, 6] }, sample: [3],
  },
  'a convolution before a global pool': {
    model: { name: 'pool', nodes: [node('Conv', ['x', 'k', 'kb'], ['c'], { kernel_shape: [3, 3] }), node('Relu', ['c'], ['r']), node('GlobalAveragePool', ['r'], ['p']), node('Flatten', ['p'], ['logits'])], inputs: [value('x', 'f32', ['n', 1, 5, 5])], outputs: [value('logits', 'f32', ['n', 4])], initializers: kernel },
    shapes: { k: [7, 1, 3, 3], kb: [7] }, sample: [1, 5, 5],
  },
};

describe('a new head', () => {
  it.each(Object.entries(heads))('%s: has the new shapes, trains, and gives the same numbers in another runtime', async (name, { model, shapes, sample }) => {
    const slug = name.replace(/\W+/g, '-');
    writeFileSync(at(`${slug}.onnx`), encodeModel(model));
    const bytes = await resetHead(at(`${slug}.onnx`), 7, { seed: 5 });
    const { graph } = importModel(bytes, { dims: { n: 8 } });
    expect(graph.outputs[0]!.value.type.shape).toEqual([8, 7]);
    expect(Object.fromEntries(graph.state.filter((s) => s.name in shapes).map((s) => [s.name, s.value.type.shape]))).toEqual(shapes);
    // Uniform within ±1/√fan-in, and nothing else has changed.
    const old = importModel(encodeModel(model), { dims: { n: 8 } }).graph;
    for (const s of graph.state) {
      const data = s.init === 'zero' ? [] : Array.from(s.init.data as Float32Array);
      if (s.name in shapes) {
        const bound = 1 / Math.sqrt(model === heads['a convolution before a global pool']!.model ? 9 : 6);
        expect(Math.max(...data.map(Math.abs))).toBeLessThanOrEqual(Math.fround(bound));
        expect(new Set(data).size).toBe(data.length);
      } else expect(s.init).toEqual(old.state.find((t) => t.name === s.name)!.init);
    }

    const artifact = await compile(bytes, { dims: { n: 8 }, train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd' } } });
    await using trainer = await loadTrainer(artifact, { threads: 1, lr: 0.1 });
    const x = Float32Array.from(spread(8 * sample.reduce((n, d) => n * d, 1)));
    for (let i = 0; i < 3; i++) await trainer.trainStep({ x, y: BigInt64Array.from({ length: 8 }, (_, k) => BigInt(k % 7)) });
    const ours = (await trainer.evaluate({ x }))['logits']!;
    await trainer.exportOnnx(bytes, at(`${slug}-trained.onnx`));
    const peer = await openPeer('onnxruntime-node', at(`${slug}-trained.onnx`), 1);
    const theirs = (await peer.run({ x: { dtype: 'f32', shape: [8, ...sample], data: x } }))['logits']!;
    await peer.close();
    expect(theirs.shape).toEqual([8, 7]);
    theirs.data.forEach((v, i) => expect(ours.data[i]).toBeCloseTo(Number(v), 5));
  }, 60_000);

  it('is another one for another seed, and the same for the same', async () => {
    writeFileSync(at('seeds.onnx'), encodeModel(heads['Gemm with transB']!.model));
    const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => resetHead(at('seeds.onnx'), 3, { seed })));
    expect(a).toEqual(b);
    expect(a).not.toEqual(c);
  });

  const linear: Initializers = [floats('w', [4, 6], spread(24)), floats('b', [4], spread(4))];
  const gemm = (out: string): TestNode => node('Gemm', ['r', 'w', 'b'], [out], { transB: 1 }, { name: 'head' });
  it.each<[string, TestModel, RegExp]>([
    ['a reshape to the old number', classifier([gemm('g'), node('Reshape', ['g', 's'], ['logits'], {}, { name: 'fixed' })], [...linear, { name: 's', dataType: 7, dims: [2], int64Data: [-1, 4] }]), /Reshape.*fixed.*a shape behind its last linear layer is fixed to the old number/s],
    ['a reshape that takes samples for classes', classifier([gemm('g'), node('Reshape', ['g', 's'], ['logits'])], [...linear, { name: 's', dataType: 7, dims: [2], int64Data: [-1, 4] }], { inputs: [value('x', 'f32', [4, 3])], outputs: [value('logits', 'f32', [4, 4])] }), /goes from \[4,4\] to \[7,4\]/],
    ['a norm of the logits', classifier([gemm('g'), node('LayerNormalization', ['g', 'b'], ['logits'], {}, { name: 'ln' })], linear), /LayerNormalization node "ln" is no layer/],
    ['a weight that is used twice', classifier([node('MatMul', ['r', 'q'], ['h2']), node('MatMul', ['h2', 'q'], ['logits'], {}, { name: 'again' })], [floats('q', [6, 6], spread(36))], { outputs: [value('logits', 'f32', ['n', 6])] }), /shares "q" with MatMul/],
    ['a gain for each class', classifier([gemm('g'), node('Mul', ['g', 'gain'], ['logits'], {}, { name: 'scale' })], [...linear, floats('gain', [4], [1, 2, 3, 4])]), /Mul node "scale" has a constant "gain" for each class/],
    ['no linear layer', { name: 'none', nodes: [node('Relu', ['x'], ['logits'])], inputs: [value('x', 'f32', ['n', 4])], outputs: [value('logits', 'f32', ['n', 4])] }, /no linear layer/],
  ])('is refused for %s', async (name, model, message) => {
    const file = at(`${name.replaceAll(' ', '-')}.onnx`);
    writeFileSync(file, encodeModel(model));
    await expect(resetHead(file, 7)).rejects.toThrow(message);
  });
});

const squeezenet = join(import.meta.dirname, '../../shared/models/squeezenet1_1.onnx');

describe('tilewright train --reset-head', () => {
  it.skipIf(!existsSync(squeezenet))('fine-tunes SqueezeNet for three classes, its features frozen, and the file runs elsewhere with the same numbers', async () => {
    const count = 4;
    const pictures = Uint8Array.from(spread(count * 3 * 224 * 224, 127), (v, i) => 128 + v * (i % (1 + Math.floor(i / (3 * 224 * 224))) === 0 ? 1 : 0.2));
    writeFileSync(at('x.npy'), writeNpy({ dtype: 'u8', shape: [count, 3, 224, 224], data: pictures }));
    writeFileSync(at('y.npy'), writeNpy({ dtype: 'i32', shape: [count], data: Int32Array.from([0, 1, 2, 1]) }));
    const common = ['train', squeezenet, '--data', `${at('x.npy')},${at('y.npy')}`, '--batch', '2', '--freeze', 'features.*', '--reset-head', '3', '--lr', '0.05', '--threads', '2'];
    const { code, stderr } = await tilewright([...common, '--epochs', '2', '--checkpoint', at('ck'), '-o', at('squeezenet3.onnx')], 120_000);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const [before, after] = [squeezenet, at('squeezenet3.onnx')].map((f) => importModel(f).graph);
    const changed = after!.state.filter((s, i) => Buffer.compare(bytesOf(s.init), bytesOf(before!.state[i]!.init)) !== 0).map((s) => s.name);
    expect(changed).toEqual(['classifier.1.weight', 'classifier.1.bias']);
    expect(after!.outputs[0]!.value.type.shape).toEqual([1, 3]);

    const x = { dtype: 'f32' as const, shape: [1, 3, 224, 224], data: Float32Array.from(pictures.subarray(0, 3 * 224 * 224), (v) => v / 255) };
    const peer = await openPeer('onnxruntime-node', at('squeezenet3.onnx'), 1);
    const theirs = (await peer.run({ x }))['y']!;
    await peer.close();
    const { load } = await import('../runtime/index.ts');
    const session = await load(await compile(at('squeezenet3.onnx')), { threads: 1 });
    const ours = (await session.run({ x }))['y']!;
    await session.close();
    expect(theirs.shape).toEqual([1, 3]);
    theirs.data.forEach((v, i) => expect(ours.data[i]).toBeCloseTo(Number(v), 4));

    const other = await tilewright(common.map((a) => (a === '3' ? '5' : a)).concat('--resume', at('ck')), 120_000);
    expect([other.code, other.stderr]).toEqual([2, expect.stringMatching(/classifier.1.weight.* is f32\[3,512,1,1\], expected f32\[5,512,1,1\]/)]);
  }, 240_000);
});

const bytesOf = (init: 'zero' | { readonly data: { readonly buffer: ArrayBufferLike; readonly byteOffset: number; readonly byteLength: number } }): Uint8Array =>
  init === 'zero' ? new Uint8Array() : new Uint8Array(init.data.buffer, init.data.byteOffset, init.data.byteLength);
