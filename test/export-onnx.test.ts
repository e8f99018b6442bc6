/** Exported ONNX, run by onnxruntime: official cases, recorded outputs of real models, and rewritten models at several batch sizes. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { judge } from '../bench/judge.ts';
import { withBoundInputs } from '../bench/onnx-case.ts';
import { rewrittenOnnx } from '../cli/driver/export.ts';
import { openPeer } from '../cli/peers.ts';
import { exportModel, importModel, readTensorFile } from '../frontend/index.ts';
import { decodeModel } from '../frontend/onnx/decode.ts';
import { readModelFile } from '../frontend/onnx/external.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Tensor } from '../ir/type.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { readSafetensors } from '../runtime/safetensors.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'export-onnx-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What onnxruntime makes of a model's bytes. */
async function inOnnxruntime(bytes: Uint8Array, inputs: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>> {
  const file = join(folder, 'model.onnx');
  writeFileSync(file, bytes);
  const peer = await openPeer('onnxruntime-node', file, 1);
  try {
    return await peer.run(inputs);
  } finally {
    await peer.close();
  }
}

const official = join(import.meta.dirname, '../../shared/onnx-backend/node');
const models = join(import.meta.dirname, '../../shared/models');

/** One case or more for every op that is written. */
const cases = `abs acos acosh add add_bcast affine_grid_3d and_bcast4v2d argmax_default_axis_example_select_last_index argmin_keepdims_example asin asinh atan atanh attention_4d_causal attention_3d_gqa_softcap
  averagepool_2d_ceil averagepool_2d_dilations averagepool_2d_pads_count_include_pad averagepool_3d_default basic_conv_with_padding batchnorm_epsilon bitwise_and_i32_2d bitwise_not_3d bitwise_or_i16_4d bitwise_xor_ui64_bcast_3v1d
  cast_FLOAT_to_DOUBLE ceil celu center_crop_pad_crop_and_pad clip clip_default_inbounds col2im_pads concat_3d_axis_1 conv_with_strides_and_asymmetric_padding convtranspose_1d convtranspose_dilations convtranspose_group_2
  convtranspose_output_shape convtranspose_pads cos cosh cumsum_1d_reverse_exclusive cumsum_2d_axis_1 depthtospace_crd_mode_example det_nd dft div div_bcast dynamicquantizelinear einsum_batch_matmul einsum_sum elu equal_bcast erf exp
  expand_dim_changed eyelike_with_dtype flatten_axis2 floor gather_negative_indices gather_elements_1 gathernd_example_int32_batch_dim1 gelu_tanh_1 gemm_all_attributes gridsample_bicubic group_normalization_epsilon
  gru_defaults gru_seq_length greater_equal_bcast hammingwindow hardswish instancenorm_epsilon isinf_negative isnan layer_normalization_4d_axis2 leakyrelu less_equal log logsoftmax_axis_1 lppool_2d_dilations lrn lstm_with_peepholes
  matmul_4d max_float64 max_int32 maxpool_2d_ceil maxpool_2d_dilations maxpool_3d_default maxunpool_export_without_output_shape mean_example melweightmatrix min_example mish mod_broadcast mod_int64_fmod mod_mixed_sign_float32 mod_mixed_sign_int32
  mul_bcast mvn neg nonmaxsuppression_limit_output_size not_3d onehot_with_axis or_bcast3v1d pow_bcast_array prelu_broadcast qlinearmatmul_3D_uint8_float32 quantizelinear_axis range_float_type_positive_delta reciprocal
  reduce_l2_keepdims_random reduce_log_sum_exp_keepdims_random reduce_max_bool_inputs reduce_min_do_not_keepdims_random reduce_prod_negative_axes_keepdims_random reduce_sum_square_default_axes_keepdims_random reflect_pad edge_pad constant_pad_negative_axes
  relu reshape_zero_dim resize_downsample_scales_linear resize_upsample_sizes_cubic resize_tf_crop_and_resize reversesequence_batch rms_normalization_3d_axis1 rnn_seq_length roialign_mode_max round scan9_sum scatter_elements_with_duplicate_indices
  scatter_elements_with_reduction_max scatternd scatternd_multiply selu shrink_soft sigmoid sign simple_rnn_batchwise sin sinh slice_neg_steps slice_start_out_of_bounds softmax_axis_0 softplus softsign spacetodepth_example split_equal_parts_2d_opset13
  sqrt squeeze sub_bcast tan tanh tensorscatter_circular tfidfvectorizer_tf_only_bigrams_skip0 thresholdedrelu tile top_k top_k_smallest transpose_all_permutations_3 tril_neg triu_pos unsqueeze_three_axes where_example xor_bcast4v2d loop11 if`.split(/\s+/);

describe.skipIf(!existsSync(official))(existsSync(official) ? 'official cases' : 'official cases (skipped: ../shared/onnx-backend is not there)', () => {
  it.each(cases.filter((name) => existsSync(join(official, `test_${name}`))))('%s', async (name) => {
    const model = join(official, `test_${name}`, 'model.onnx');
    const data = join(dirname(model), 'test_data_set_0');
    const read = (kind: string): Tensor[] => readdirSync(data).filter((f) => f.startsWith(`${kind}_`)).map((_, i) => readTensorFile(join(data, `${kind}_${i}.pb`)).tensor);
    const [given, wanted] = [read('input'), read('output')];
    const names = decodeModel(readModelFile(model), model, dirname(model)).graph.inputNames.slice(0, given.length);
    const inputs = Object.fromEntries(names.map((n, i) => [n, given[i]!]));
    const shapes = Object.fromEntries(names.map((n, i) => [n, given[i]!.shape]));
    const { result: { graph } } = await withBoundInputs(inputs, (values) => importModel(model, { shapes, values }));
    const outputs = await inOnnxruntime(exportModel(graph), Object.fromEntries(graph.inputs.map((v) => [v.name!, inputs[v.name!]!])));
    graph.outputs.slice(0, wanted.length).forEach((o, i) => expect(judge(outputs[o.name]!, wanted[i]!, { atol: 1e-5, rtol: 1e-3 }).reason, o.name).toBe(''));
  });
});

describe.skipIf(!existsSync(models))(existsSync(models) ? 'models with recorded outputs' : 'models with recorded outputs (skipped: ../shared/models is not there)', () => {
  // Convolutions, pools and resizes; a network of loops and caches; a quantised one.
  it.each(['mnist_cntk', 'gtcrn_stream', 'micro_kws_m_fp32', 'micro_kws_m_qdq', 'yunet_n_320'])('%s', async (name) => {
    const tensors = await readSafetensors(readFileSync(join(models, `${name}.safetensors`)));
    const pick = (prefix: string): Record<string, Tensor> => Object.fromEntries([...tensors].flatMap(([key, t]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), t]] : [])));
    const outputs = await inOnnxruntime(rewrittenOnnx(join(models, `${name}.onnx`), undefined), pick('input/'));
    for (const [key, want] of Object.entries(pick('output/'))) {
      const largest = numbers(want).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
      expect(judge(outputs[key]!, want, { atol: name.endsWith('qdq') ? 1 / 128 : Math.max(1e-3 * largest, 2 ** -23), rtol: 0 }).reason, key).toBe('');
    }
  });
});

/** Two normalizations, one in a residual branch, for images of any number. */
const network = encodeModel({
  nodes: [
    node('Conv', ['x', 'w1'], ['a'], { pads: [1, 1, 1, 1] }), node('BatchNormalization', ['a', 'n1.weight', 'n1.bias', 'n1.mean', 'n1.var'], ['b'], {}, { name: 'n1' }), node('Relu', ['b'], ['c']),
    node('Conv', ['c', 'w2', 'b2'], ['d'], { pads: [1, 1, 1, 1] }), node('BatchNormalization', ['d', 'n2.weight', 'n2.bias', 'n2.mean', 'n2.var'], ['e'], {}, { name: 'n2' }), node('Add', ['e', 'c'], ['f']),
    node('GlobalAveragePool', ['f'], ['g']), node('Flatten', ['g'], ['h']), node('Gemm', ['h', 'w3', 'b3'], ['logits'], { transB: 1 }),
  ],
  initializers: [
    floats('w1', [4, 2, 3, 3], spread(72)), floats('w2', [4, 4, 3, 3], spread(144, 1, 5)), floats('b2', [4], spread(4)), floats('w3', [3, 4], spread(12)), floats('b3', [3], spread(3)),
    ...['n1', 'n2'].flatMap((n) => [floats(`${n}.weight`, [4], [1, 0.5, 2, -1]), floats(`${n}.bias`, [4], spread(4, 0.5)), floats(`${n}.mean`, [4], spread(4, 0.2)), floats(`${n}.var`, [4], [1, 2, 0.5, 1])]),
  ],
  inputs: [value('x', 'f32', ['batch', 2, 5, 5])],
  outputs: [value('logits', 'f32', ['batch', 3])],
});

describe('a rewritten model', () => {
  it.each(['group:2', 'layer+proxy', 'instance', 'frozen', 'none'])('with %s has our outputs, for any number of samples', async (norm) => {
    const bytes = rewrittenOnnx(network, parseNorm(norm));
    for (const n of [1, 4]) {
      const x = f32([n, 2, 5, 5], spread(n * 50, 2, n));
      const { graph } = rewriteNorms(importModel(network, { dims: { batch: n } }), parseNorm(norm), testTarget);
      const want = numbers(evaluate(graph, { x }).outputs.get('logits')!);
      const { logits } = await inOnnxruntime(bytes, { x });
      expect(logits!.shape).toEqual([n, 3]);
      want.forEach((w, i) => expect(logits!.data[i] as number).toBeCloseTo(w, 4));
    }
  });

  it('keeps its weights under their names, and the proxies beside them', () => {
    const { graph, inputs } = importModel(rewrittenOnnx(network, parseNorm('layer+proxy')), { dims: { batch: 2 } });
    expect(graph.state.map((s) => s.name)).toEqual(expect.arrayContaining(['w1', 'n1.weight', 'n1.bias', 'n1.proxy_gamma', 'n1.proxy_beta', 'w2', 'b2', 'n2.weight', 'n2.bias', 'w3', 'b3']));
    expect(inputs).toEqual([{ name: 'x', dtype: 'f32', dims: ['batch', 2, 5, 5] }]);
  });

  it('is not rewritten twice', () => {
    const once = rewrittenOnnx(network, parseNorm('layer+proxy'));
    expect(rewrittenOnnx(once, parseNorm('layer+proxy'))).toHaveLength(rewrittenOnnx(once, undefined).length);
  });

  it('has nodes of different names, also where one is named as another would be numbered', async () => {
    const named = encodeModel({
      nodes: [node('Elu', ['x'], ['a'], {}, { name: 'act' }), node('Elu', ['a'], ['y'], {}, { name: 'act_1' })],
      inputs: [value('x', 'f32', [2])],
      outputs: [value('y', 'f32')],
    });
    const { y } = await inOnnxruntime(exportModel(importModel(named).graph), { x: f32([2], [-1, 2]) });
    expect(y!.data[0]).toBeCloseTo(Math.expm1(Math.expm1(-1)), 6);
    expect(y!.data[1]).toBe(2);
  });

  it('has the batch that is asked for', () => {
    expect(importModel(rewrittenOnnx(network, parseNorm('layer'), { dims: { batch: 3 } })).inputs[0]!.dims).toEqual([3, 2, 5, 5]);
  });
});

describe('what has no form in ONNX is refused by name', () => {
  const refused = (make: (b: Builder) => ReturnType<Builder['op']>): (() => unknown) => () => {
    const b = new Builder('g');
    return exportModel(b.finish(make(b).map((v, i) => ({ name: `out${i}`, value: v }))));
  };
  it('random numbers', () => expect(refused((b) => b.op('randomUniform', [b.scalar(1, 'i64')], { shape: [3], stream: 0 }))).toThrow(/randomUniform, which is not written as ONNX: import the model for inference/));
  it('types of newer opsets', () => expect(refused((b) => [b.input({ dtype: 'i4', shape: [3] }, 'x')])).toThrow(/computes with i4/));
  it('positions of a max pool', () => expect(refused((b) => b.op('maxPool', [b.input({ dtype: 'f32', shape: [1, 1, 4] }, 'x')], { kernel: [2], strides: [2], pads: [0, 0], dilations: [1] }))).toThrow(/positions of its maxima/));
  it('wrapping pads', () => expect(refused((b) => [b.one('pad', [b.input({ dtype: 'f32', shape: [4] }, 'x')], { lo: [1], hi: [1], mode: 'wrap' })])).toThrow(/wraps around/));
});

describe('a file that was written, read and written again', () => {
  it.each(['layer+proxy', 'group:2', 'frozen'])('stays as large as it is: %s', (norm) => {
    const [scale, shift, mean, variance] = ['scale', 'shift', 'mean', 'variance'].map((name) => floats(name, [4], spread(4, 0.25).map((v) => 1 + v)));
    const model = encodeModel({
      name: 'again', inputs: [value('x', 'f32', ['n', 3, 8, 8])], outputs: [value('y', 'f32', ['n', 4])],
      initializers: [floats('w', [4, 3, 3, 3], spread(108)), scale!, shift!, mean!, variance!],
      nodes: [
        node('Conv', ['x', 'w'], ['c'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), node('BatchNormalization', ['c', 'scale', 'shift', 'mean', 'variance'], ['b']), node('Relu', ['b'], ['r']),
        node('AveragePool', ['r'], ['p'], { kernel_shape: [2, 2], strides: [2, 2] }), node('GlobalAveragePool', ['p'], ['g']), node('Flatten', ['g'], ['y']),
      ],
    });
    const first = rewrittenOnnx(model, parseNorm(norm));
    const second = rewrittenOnnx(first, undefined);
    const third = rewrittenOnnx(second, undefined);
    const nodes = (bytes: Uint8Array): string[] => decodeModel(bytes, 'again', undefined).graph.nodes.map((n) => n.opType).sort();
    expect(nodes(third)).toEqual(nodes(second));
    expect(third.length).toBeLessThanOrEqual(second.length);
    // What a reader makes of the first file takes a few nodes more than what it was made of: a mean is a sum and a division.
    expect(nodes(second).length).toBeLessThan(1.3 * nodes(first).length);
  });
});
