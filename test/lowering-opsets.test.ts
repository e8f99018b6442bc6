/** What ops meant in older opsets: attributes that became inputs, other defaults, other broadcasting. Expected values are worked out by hand. */
import { expect, it } from 'vitest';
import { counted, elements, f32, i64, runNode, type NodeCase } from './lowering-harness.ts';

interface Case extends NodeCase {
  readonly what: string;
  readonly shape: readonly number[];
  readonly want: readonly number[];
}

const e = Math.E;

const cases: readonly Case[] = [
  { what: 'Add aligns its second operand at `axis`', op: 'Add', opset: 6, attributes: { broadcast: 1, axis: 0 }, inputs: [counted([2, 3]), f32([2], [10, 20])], shape: [2, 3], want: [11, 12, 13, 24, 25, 26] },
  { what: 'Mul without `axis` aligns at the end', op: 'Mul', opset: 6, attributes: { broadcast: 1 }, inputs: [counted([2, 2]), f32([2], [10, 100])], shape: [2, 2], want: [10, 200, 30, 400] },
  { what: 'softmax joins all axes from `axis` on', op: 'Softmax', opset: 11, attributes: { axis: 1 }, inputs: [f32([1, 2, 2], [0, 0, 0, 0])], shape: [1, 2, 2], want: [0.25, 0.25, 0.25, 0.25] },
  { what: 'softmax takes one axis, the last', op: 'Softmax', opset: 13, inputs: [f32([1, 2, 2], [0, 0, 0, 1])], shape: [1, 2, 2], want: [0.5, 0.5, 1 / (1 + e), e / (1 + e)] },
  { what: 'hardmax marks one element of all joined axes', op: 'Hardmax', opset: 11, attributes: { axis: 1 }, inputs: [f32([1, 2, 2], [1, 4, 4, 2])], shape: [1, 2, 2], want: [0, 1, 0, 0] },
  { what: 'Slice takes attributes, and clamps ends', op: 'Slice', opset: 9, attributes: { axes: [1], starts: [-2], ends: [1000] }, inputs: [counted([2, 3])], shape: [2, 2], want: [2, 3, 5, 6] },
  { what: 'Pad takes pads and value as attributes', op: 'Pad', opset: 10, attributes: { pads: [0, 1, 0, 0], value: { float: 7 } }, inputs: [counted([2, 1])], shape: [2, 2], want: [7, 1, 7, 2] },
  { what: 'Pad 1 calls them paddings', op: 'Pad', opset: 1, attributes: { paddings: [1, 0] }, inputs: [counted([2])], shape: [3], want: [0, 1, 2] },
  { what: 'Clip bounds are attributes, either may be missing', op: 'Clip', opset: 10, attributes: { max: { float: 2 } }, inputs: [f32([3], [-5, 1, 3])], shape: [3], want: [-5, 1, 2] },
  { what: 'Reshape takes its shape as an attribute, 0 copies', op: 'Reshape', opset: 4, attributes: { shape: [0, -1] }, inputs: [counted([2, 1, 2])], shape: [2, 2], want: [1, 2, 3, 4] },
  { what: 'Squeeze axes are an attribute', op: 'Squeeze', opset: 11, attributes: { axes: [-1] }, inputs: [counted([1, 2, 1])], shape: [1, 2], want: [1, 2] },
  { what: 'Unsqueeze axes are an attribute', op: 'Unsqueeze', opset: 11, attributes: { axes: [0, 2] }, inputs: [counted([2])], shape: [1, 2, 1], want: [1, 2] },
  { what: 'Split sizes are an attribute', op: 'Split', opset: 11, attributes: { axis: 1, split: [1, 2] }, inputs: [counted([1, 3])], outputs: 2, shape: [1, 1], want: [1] },
  { what: 'ReduceSum axes are an attribute', op: 'ReduceSum', opset: 11, attributes: { axes: [0], keepdims: 0 }, inputs: [counted([2, 2])], shape: [2], want: [4, 6] },
  { what: 'ReduceMean axes are an attribute until 18', op: 'ReduceMean', opset: 13, attributes: { axes: [-1] }, inputs: [counted([2, 2])], shape: [2, 1], want: [1.5, 3.5] },
  { what: 'TopK takes k as an attribute', op: 'TopK', opset: 9, attributes: { k: 2, axis: 0 }, inputs: [f32([3], [5, 9, 7])], outputs: 2, shape: [2], want: [9, 7] },
  { what: 'Tile 1 repeats one axis', op: 'Tile', opset: 5, inputs: [counted([1, 2]), f32([], [2]), f32([], [1])], bound: [1, 2], shape: [1, 4], want: [1, 2, 1, 2] },
  { what: 'Upsample 7 takes scales as an attribute and repeats', op: 'Upsample', opset: 7, attributes: { scales: { floats: [1, 2] } }, inputs: [counted([2, 2])], shape: [2, 4], want: [1, 1, 2, 2, 3, 3, 4, 4] },
  // Asymmetric coordinates 0, 0.5, 1, 1.5: the last lies beyond the input and is clamped.
  { what: 'Upsample 9 interpolates at asymmetric coordinates', op: 'Upsample', opset: 9, attributes: { mode: 'linear' }, inputs: [f32([2], [0, 10]), f32([1], [2])], bound: [1], shape: [4], want: [0, 5, 10, 10] },
  { what: 'Resize 10 rounds down', op: 'Resize', opset: 10, inputs: [counted([3]), f32([1], [0.7])], bound: [1], shape: [2], want: [1, 2] },
  { what: 'batch norm before 14 is inference where one output is listed', op: 'BatchNormalization', opset: 9, attributes: { epsilon: { float: 0 } }, inputs: [f32([1, 2], [3, 10]), f32([2], [2, 1]), f32([2], [1, -1]), f32([2], [1, 4]), f32([2], [4, 9])], shape: [1, 2], want: [3, 1] },
  { what: 'batch norm 7 trains where statistics are listed', op: 'BatchNormalization', opset: 7, attributes: { epsilon: { float: 0 }, momentum: 0.5 }, inputs: [f32([2, 1], [1, 3]), f32([1], [1]), f32([1], [0]), f32([1], [4]), f32([1], [3])], outputs: 3, shape: [2, 1], want: [-1, 1] },
  { what: 'GroupNormalization 18 scales groups', op: 'GroupNormalization', opset: 18, attributes: { num_groups: 2, epsilon: { float: 0 } }, inputs: [f32([1, 4], [1, 3, 10, 30]), f32([2], [1, 10]), f32([2], [0, 5])], shape: [1, 4], want: [-1, 1, -5, 15] },
  { what: 'GroupNormalization 21 scales channels', op: 'GroupNormalization', opset: 21, attributes: { num_groups: 2, epsilon: { float: 0 } }, inputs: [f32([1, 4], [1, 3, 10, 30]), f32([4], [1, 2, 3, 4]), f32([4], [0, 0, 0, 1])], shape: [1, 4], want: [-1, 2, -3, 5] },
  { what: 'PRelu slopes count along channels', op: 'PRelu', opset: 6, inputs: [f32([1, 2, 1], [-1, -1]), f32([2], [2, 3])], shape: [1, 2, 1], want: [-2, -3] },
  { what: 'Gemm broadcasts C where it says so', op: 'Gemm', opset: 6, attributes: { broadcast: 1 }, inputs: [counted([1, 2]), f32([2, 2], [1, 0, 0, 1]), f32([2], [10, 20])], shape: [1, 2], want: [11, 22] },
  { what: 'Dropout is the identity in inference', op: 'Dropout', opset: 7, attributes: { ratio: 0.5 }, inputs: [counted([2])], shape: [2], want: [1, 2] },
  { what: 'Cast names its type', op: 'Cast', opset: 5, attributes: { to: 'INT64' }, inputs: [f32([2], [1.7, -1.7])], shape: [2], want: [1, -1] },
  { what: 'Concat joins axis 1 by default', op: 'Concat', opset: 3, inputs: [counted([1, 1]), counted([1, 2])], shape: [1, 3], want: [1, 1, 2] },
  { what: 'an odd one-sided spectrum comes back as a real signal', op: 'DFT', opset: 20, attributes: { inverse: 1, onesided: 1 }, inputs: [f32([2, 2], [6, 0, -1.5, Math.sqrt(3) / 2]), i64([], [3]), i64([], [0])], bound: [1, 2], shape: [3, 1], want: [1, 2, 3] },
];

it.each(cases)('$op $opset: $what', ({ shape, want, what: _, ...node }) => {
  const [got] = runNode(node);
  expect(got!.shape).toEqual(shape);
  elements(got!).forEach((x, i) => expect(x).toBeCloseTo(want[i]!, 5));
});

it('batch norm in training returns running statistics by the momentum', () => {
  const [, mean, variance] = runNode({ op: 'BatchNormalization', opset: 15, attributes: { training_mode: 1, momentum: { float: 0.75 } }, inputs: [f32([2, 1], [1, 3]), f32([1], [1]), f32([1], [0]), f32([1], [4]), f32([1], [3])], outputs: 3 });
  expect(elements(mean!)).toEqual([0.75 * 4 + 0.25 * 2]);
  expect(elements(variance!)).toEqual([0.75 * 3 + 0.25 * 1]);
});

it('ConvTranspose writes every input to its stride and lets output_padding add zeros at the end', () => {
  const x = f32([1, 1, 2], [1, 2]);
  const w = f32([1, 1, 3], [1, 10, 100]);
  const run = (attributes: NodeCase['attributes']): number[] => elements(runNode({ op: 'ConvTranspose', opset: 11, attributes: { strides: [2], ...attributes }, inputs: [x, w] })[0]!);
  expect(run({})).toEqual([1, 10, 102, 20, 200]);
  expect(run({ pads: [1, 0] })).toEqual([10, 102, 20, 200]);
  expect(run({ output_padding: [1] })).toEqual([1, 10, 102, 20, 200, 0]);
  expect(run({ auto_pad: 'SAME_UPPER' })).toEqual([1, 10, 102, 20]);
  expect(run({ auto_pad: 'SAME_LOWER' })).toEqual([10, 102, 20, 200]);
});

it('Einsum multiplies three operands, takes diagonals and broadcasts what `...` covers', () => {
  const run = (equation: string, ...inputs: NodeCase['inputs']): { shape: readonly number[]; data: number[] } => {
    const [t] = runNode({ op: 'Einsum', opset: 12, attributes: { equation }, inputs });
    return { shape: t!.shape, data: elements(t!) };
  };
  expect(run('i,j,k->', f32([2], [1, 2]), f32([2], [3, 4]), f32([1], [5]))).toEqual({ shape: [], data: [(1 + 2) * (3 + 4) * 5] });
  expect(run('ii->i', counted([2, 2]))).toEqual({ shape: [2], data: [1, 4] });
  expect(run('...ij,...jk->...ik', counted([2, 1, 2]), counted([2, 1]))).toEqual({ shape: [2, 1, 1], data: [5, 11] });
  expect(run('ba', counted([2, 3]))).toEqual({ shape: [3, 2], data: [1, 4, 2, 5, 3, 6] });
});
