import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { compile } from '../index.ts';
import { Builder } from '../ir/builder.ts';
import { Unsupported } from '../ir/diagnostic.ts';
import type { Graph, Value } from '../ir/graph.ts';
import type { DType } from '../ir/type.ts';
import { compiled } from './wgsl-harness.ts';

const digits = readFileSync(new URL('../examples/mnist_cntk.onnx', import.meta.url));

/** A graph of one op over inputs named a, b, … */
function graphOf(name: string, types: readonly (readonly [DType, readonly number[]])[], attrs: Record<string, number | string | boolean | readonly number[]> = {}): Graph {
  const b = new Builder('one');
  const results = b.op(name, types.map(([dtype, shape], i) => b.input({ dtype, shape }, 'abc'[i])), attrs);
  return b.finish(results.map((value, i) => ({ name: `y${i}`, value })));
}

describe('shaders', () => {
  test('are one a fused op, named after its ops and its first node, which a comment lists', async () => {
    const { shaders, manifest } = await compile(digits, { backend: 'wgsl' });
    expect(Object.keys(shaders!)[0]).toBe('000-conv-add-relu-Convolution28.wgsl');
    expect(shaders!['000-conv-add-relu-Convolution28.wgsl']).toMatch(/^\/\/ contract\(conv add relu\), from Conv\(Convolution28\), Add\(Plus30\), Relu\(ReLU32\)\n/);
    expect(manifest.gpu!.shaders.flatMap((s) => [s.file, ...(s.subgroups === undefined ? [] : [s.subgroups])])).toEqual(Object.keys(shaders!));
    expect(manifest.steps).toHaveLength(5);
  });

  test('are the same bytes for the same model', async () => {
    const [a, b] = [await compile(digits, { backend: 'wgsl' }), await compile(digits, { backend: 'wgsl' })];
    expect(a.shaders).toEqual(b.shaders);
    expect(a.manifest).toEqual(b.manifest);
  });

  test('that do the same work on equally placed tensors are one', async () => {
    const b = new Builder('twice');
    const x = b.input({ dtype: 'f32', shape: [300, 40] }, 'x');
    const y = b.reduce('reduceMax', b.transpose(b.unary('abs', x), [1, 0]), [1]);
    const z = b.reduce('reduceMax', b.transpose(b.unary('neg', x), [1, 0]), [1]);
    const { manifest } = await compiled(b.finish([{ name: 'y', value: y }, { name: 'z', value: z }]), false);
    const [entry] = manifest.gpu!.entries;
    expect(entry!.length).toBe(4);
    expect(manifest.gpu!.shaders.length).toBe(3);
  });

  test('bind at most eight buffers, however many a fused op reads', async () => {
    const b = new Builder('many');
    const xs = Array.from({ length: 11 }, (_, i) => b.input({ dtype: 'f32', shape: [50] }, `x${i}`));
    const { manifest } = await compiled(b.finish([{ name: 'y', value: xs.reduce((s, x) => b.add(s, x)) }]));
    expect(manifest.gpu!.entries[0]).toHaveLength(1);
    expect(manifest.gpu!.limits.maxStorageBuffersPerShaderStage).toBeLessThanOrEqual(8);
  });
});

describe('refused by name', () => {
  const refusal = async (graph: Graph): Promise<Unsupported> => {
    const error = await compiled(graph).then(() => undefined, (e: unknown) => e);
    expect(error).toBeInstanceOf(Unsupported);
    return error as Unsupported;
  };

  test('64-bit floats', async () => {
    expect((await refusal(graphOf('exp', [['f64', [4]]]))).feature).toBe('f64 on WebGPU');
  });

  test('64-bit integers that no bound of the inputs keeps in 32 bits', async () => {
    const b = new Builder('cast');
    const e = await refusal(b.finish([{ name: 'y', value: b.cast(b.unary('exp', b.input({ dtype: 'f32', shape: [4] }, 'x')), 'i64') }]));
    expect(e.feature).toBe('64-bit integers on WebGPU');
    expect(e.message).toContain('cast');
  });

  const loopOf = (limit: (b: Builder) => Value): Graph => {
    const body = new Builder('body');
    const index = body.input({ dtype: 'i64', shape: [] });
    const state = body.input({ dtype: 'f32', shape: [2] });
    const inner = body.finish([{ name: 'go', value: body.binary('lt', index, 5) }, { name: 's', value: body.add(state, 1) }]);
    const b = new Builder('loop');
    const [y] = b.op('loop', [limit(b), b.scalar(1, 'bool'), b.input({ dtype: 'f32', shape: [2] }, 'x')], { trips: -1, carried: 1, scans: 0 }, [inner]);
    return b.finish([{ name: 'y', value: y! }]);
  };

  test('loops that nothing bounds, or only large numbers', async () => {
    const asked = await refusal(loopOf((b) => b.input({ dtype: 'i64', shape: [] }, 'n')));
    expect([asked.feature, asked.message]).toEqual(['loop on WebGPU', expect.stringContaining('any number of rounds')]);
    const endless = await refusal(loopOf((b) => b.scalar(2n ** 63n - 1n, 'i64')));
    expect([endless.feature, endless.message]).toEqual(['loop on WebGPU', expect.stringContaining('any number of rounds')]);
    expect((await refusal(loopOf((b) => b.scalar(5000, 'i64')))).message).toContain('5000 rounds, more than 4096');
  });
});

describe('64-bit integers', () => {
  const bounds = async (graph: Graph): Promise<readonly number[]> => (await compiled(graph)).manifest.gpu!.integerInputs;

  test('of inputs may have as many bits as every result keeps within 32', async () => {
    expect(await bounds(graphOf('neg', [['i64', [3]]]))).toEqual([-(2 ** 30), 2 ** 30 - 1]);
    expect(await bounds(graphOf('gather', [['f32', [9]], ['i64', [3]]], { axis: 0 }))).toEqual([-(2 ** 31), 2 ** 31 - 1]);
    expect(await bounds(graphOf('mul', [['i64', [3]], ['i64', [3]]]))).toEqual([-(2 ** 15), 2 ** 15 - 1]);
  });

  test('that are cast from an input of floats bound that input, by its name', async () => {
    const { gpu } = (await compiled(graphOf('cast', [['f32', [4]]], { to: 'i64' }))).manifest;
    expect([gpu!.floatInputs, gpu!.integerInputs]).toEqual([['a'], [-(2 ** 31), 2 ** 31 - 1]]);
    expect((await compiled(graphOf('exp', [['f32', [4]]]))).manifest.gpu!.floatInputs).toBeUndefined();
  });

  test('of a sum are bounded by its terms', async () => {
    expect(await bounds(graphOf('reduceSum', [['i64', [1000]]], { axes: [0] }))).toEqual([-(2 ** 15), 2 ** 15 - 1]);
  });
});
