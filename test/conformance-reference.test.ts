/** Official ONNX node tests through the importer and the interpreter: a choice that touches every file of frontend/onnx/ops. The whole set is `npm run conformance`. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { judge, onnxTolerance } from '../bench/judge.ts';
import { runCase } from '../bench/onnx-case.ts';

const root = join(import.meta.dirname, '../../shared/onnx-backend/node');

/** Folders without `test_`, by topic. */
const cases: Readonly<Record<string, readonly string[]>> = {
  arithmetic: ['pow_types_int32_float32', 'mod_mixed_sign_int32', 'mod_int64_fmod', 'bitshift_right_uint32', 'clip_default_max', 'clip_min_greater_than_max', 'mean_example', 'cumsum_1d_reverse_exclusive', 'det_nd', 'swiglu'],
  activations: ['elu', 'selu', 'gelu_tanh_1', 'prelu_broadcast', 'shrink_soft', 'hardmax_one_hot', 'softmax_axis_1', 'logsoftmax_large_number', 'mish', 'hardswish'],
  logic: ['where_long_example', 'isinf_negative', 'cast_FLOAT_to_FLOAT8E4M3FN', 'cast_e8m0_FLOAT_to_FLOAT8E8M0', 'castlike_FLOAT_to_FLOAT16', 'bitcast_float32_to_int32'],
  reductions: ['reduce_log_sum_exp_default_axes_keepdims_random', 'reduce_max_empty_set', 'reduce_l2_negative_axes_keep_dims_random', 'reduce_sum_empty_axes_input_noop', 'argmax_negative_axis_keepdims_example_select_last_index'],
  movement: ['reshape_zero_and_negative_dim', 'reshape_allowzero_reordered', 'slice_neg_steps', 'slice_start_out_of_bounds', 'wrap_pad', 'reflect_pad', 'constant_pad_negative_axes', 'split_1d_uneven_split_opset18', 'tile', 'expand_dim_changed', 'depthtospace_crd_mode_example', 'center_crop_pad_crop_and_pad', 'shape_start_negative_1', 'unsqueeze_unsorted_axes'],
  generators: ['range_int32_type_negative_delta', 'eyelike_with_dtype', 'tril_out_neg', 'hammingwindow_symmetric', 'melweightmatrix', 'constantofshape_int_shape_zero'],
  'gather and scatter': ['gather_negative_indices', 'gathernd_example_int32_batch_dim1', 'scatter_elements_with_reduction_max', 'scatternd_multiply', 'tensorscatter_circular', 'onehot_with_negative_axis', 'reversesequence_batch', 'maxunpool_export_with_output_shape', 'compress_1', 'nonzero_example'],
  'matrix products': ['matmul_bcast', 'gemm_all_attributes', 'einsum_batch_diagonal', 'einsum_sum', 'matmulinteger'],
  convolutions: ['conv_with_autopad_same', 'basic_deform_conv_without_padding', 'deform_conv_with_multiple_offset_groups', 'convtranspose_output_shape', 'convtranspose_autopad_same', 'convtranspose_dilations', 'col2im_dilations', 'convinteger_with_padding', 'causal_conv_with_state_basic'],
  pools: ['maxpool_2d_ceil', 'maxpool_with_argmax_2d_precomputed_strides', 'maxpool_with_argmax_2d_precomputed_pads', 'averagepool_2d_ceil_last_window_starts_on_pad', 'averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True', 'lppool_2d_same_lower'],
  norms: ['batchnorm_epsilon', 'batchnorm_example_training_mode', 'instancenorm_epsilon', 'layer_normalization_4d_axis1', 'rms_normalization_3d_axis1_epsilon', 'group_normalization_epsilon', 'mvn', 'l1normalization_axis_1', 'lrn'],
  quantisation: ['quantizelinear_axis', 'quantizelinear_blocked_asymmetric', 'dequantizelinear_blocked', 'dynamicquantizelinear_min_adjusted', 'qlinearconv', 'qlinearmatmul_3D_uint8_float32'],
  recurrent: ['lstm_with_peepholes', 'lstm_batchwise', 'gru_seq_length', 'simple_rnn_with_initial_bias'],
  losses: ['sce_NCd1d2d3d4d5_mean_weight_log_prob', 'sce_NCd1_mean_weight_negative_ii', 'nllloss_NCd1d2_with_weight_reduction_mean', 'nllloss_NC'],
  attention: ['attention_3d_gqa_with_past_and_present', 'attention_4d_causal_nonpad_attn_mask_composition', 'attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal', 'attention_4d_softcap_neginf_mask_poison', 'flexattention_score_mod', 'rotary_embedding_with_interleaved_rotary_dim', 'linear_attention_gated_delta_gqa'],
  resize: ['resize_downsample_scales_cubic_antialias', 'resize_downsample_sizes_nearest_not_larger', 'resize_tf_crop_and_resize_extrapolation_value', 'resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric', 'resize_upsample_scales_cubic_A_n0p5_exclude_outside', 'upsample_nearest'],
  sampling: ['gridsample_reflection_padding', 'gridsample_bicubic_align_corners_1_additional_1', 'gridsample_volumetric_nearest_align_corners_0', 'affine_grid_3d_align_corners', 'roialign_aligned_true'],
  'control flow': ['if', 'loop11', 'scan_sum', 'scan9_multi_state', 'range_float_type_positive_delta_expanded'],
  signals: ['dft_axis', 'dft_irfft', 'stft_with_window'],
  search: ['top_k_smallest', 'nonmaxsuppression_two_batches', 'tfidfvectorizer_tf_batch_onlybigrams_skip5'],
  optimizers: ['adagrad_multiple', 'adam', 'nesterov_momentum'],
};

const absent = !existsSync(root);
describe.skipIf(absent)(absent ? 'official node tests (skipped: ../shared/onnx-backend/node is not there)' : 'official node tests', () => {
  for (const [topic, names] of Object.entries(cases)) {
    it.each(names)(`${topic}: %s`, async (name) => {
      const result = await runCase(join(root, `test_${name}`), 'reference');
      if (result.kind === 'refused') throw new Error(result.reason);
      expect(result.outputs.length).toBeGreaterThan(0);
      for (const { name: output, got, want } of result.outputs) expect(judge(got, want, onnxTolerance), output).toMatchObject({ ok: true });
    });
  }
});
