/** Convolutions. One to three spatial axes. */
import type { Value } from '../../../ir/graph.ts';
import { sizeOf } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { alongAxis, constantOf, range, row } from './helpers.ts';
import { corePads, extent, list, readWindow } from './window.ts';

/** Checks the spatial rank and kernel_shape, and returns the kernel's sizes. */
function kernelOf(cx: LowerContext, x: Value, w: Value): readonly number[] {
  const rank = x.type.shape.length - 2;
  if (rank < 1 || w.type.shape.length !== rank + 2) cx.bad(`input [${x.type.shape.join(',')}] and weight [${w.type.shape.join(',')}]: expected the same rank of at least 3`);
  if (rank > 3) cx.unsupported(`${cx.node.opType} over ${rank} spatial axes`, 'one to three are implemented');
  const kernel = w.type.shape.slice(2);
  const declared = cx.node.attrs.ints('kernel_shape', kernel);
  if (declared.join() !== kernel.join()) cx.bad(`kernel_shape is [${declared.join(', ')}] and the weight's is [${kernel.join(', ')}]`);
  return kernel;
}

/** The convolution of x with w by the node's attributes, without a bias. */
export function convolve(cx: LowerContext, x: Value, w: Value): Value {
  const window = readWindow(cx, x.type.shape.slice(2), kernelOf(cx, x, w));
  const groups = cx.node.attrs.int('group', 1);
  if (w.type.shape[1]! * groups !== x.type.shape[1]) cx.bad(`${x.type.shape[1]} input channels, ${groups} groups and a weight of [${w.type.shape.join(',')}] do not fit`);
  return cx.b.one('conv', [x, w], { strides: window.strides, pads: corePads(window), dilations: window.dilations, groups });
}

const addBias = (cx: LowerContext, y: Value, bias: Value | undefined): Value =>
  bias ? cx.b.add(y, alongAxis(cx.b, bias, 1, y.type.shape.length)) : y;

/** The gradient of a convolution with respect to its input: sizes follow from output_shape, or from pads and output_padding. */
function convTranspose(cx: LowerContext): Value {
  const { b, node } = cx;
  const [x, w] = [cx.input(0), cx.input(1)];
  const kernel = kernelOf(cx, x, w);
  const rank = kernel.length;
  const groups = node.attrs.int('group', 1);
  const strides = list(cx, 'strides', rank, 1);
  const dilations = list(cx, 'dilations', rank, 1);
  const extra = list(cx, 'output_padding', rank, 0);
  const auto = node.attrs.string('auto_pad', 'NOTSET');
  if (!['NOTSET', 'VALID', 'SAME_UPPER', 'SAME_LOWER'].includes(auto)) cx.bad(`auto_pad is "${auto}": expected NOTSET, SAME_UPPER, SAME_LOWER or VALID`);
  const pads = node.attrs.ints('pads', new Array<number>(2 * rank).fill(0));
  const wanted = node.attrs.ints('output_shape', undefined)?.slice(-rank);
  const inputs = x.type.shape.slice(2);
  const full = inputs.map((n, i) => (n - 1) * strides[i]! + extent(kernel[i]!, dilations[i]!));
  const lo: number[] = [];
  const size = full.map((f, i) => {
    const same = auto === 'SAME_UPPER' || auto === 'SAME_LOWER';
    if (!same && !wanted) {
      const [before, after] = auto === 'VALID' ? [0, 0] : [pads[i]!, pads[i + rank]!];
      lo.push(before);
      return f - before - after + extra[i]!;
    }
    const n = wanted ? wanted[i]! : inputs[i]! * strides[i]!;
    const total = f + extra[i]! - n;
    // An odd padding has its larger half at the end for SAME_UPPER, at the start otherwise.
    const half = Math.floor(total / 2);
    lo.push(auto === 'SAME_UPPER' ? half : total - half);
    return n;
  });
  // The core op makes what lies within the full result; what a negative pad or output_padding puts around it is zeros.
  const before = lo.map((p) => Math.max(0, -p));
  const inner = size.map((n, i) => Math.min(n - before[i]!, full[i]! - Math.max(0, lo[i]!)));
  const y = b.one('convData', [x, w], {
    strides, dilations, groups, size: inner,
    pads: [...lo.map((p) => Math.max(0, p)), ...inner.map((n, i) => full[i]! - Math.max(0, lo[i]!) - n)],
  });
  const after = size.map((n, i) => n - before[i]! - inner[i]!);
  const whole = [...before, ...after].every((p) => p === 0) ? y : b.one('pad', [y], { lo: [0, 0, ...before], hi: [0, 0, ...after], mode: 'constant', value: 0 });
  return addBias(cx, whole, cx.optionalInput(2));
}

/** Sums overlapping columns into an image: the gradient of a convolution whose kernels each pick one element of the block. */
function col2im(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const image = cx.ints(cx.input(1), 'image_shape');
  const block = cx.ints(cx.input(2), 'block_shape');
  const rank = image.length;
  if (rank > 3) cx.unsupported(`Col2Im over ${rank} spatial axes`, 'one to three are implemented');
  const strides = list(cx, 'strides', rank, 1);
  const dilations = list(cx, 'dilations', rank, 1);
  const pads = node.attrs.ints('pads', new Array<number>(2 * rank).fill(0));
  const [n, rows] = x.type.shape;
  const blockSize = sizeOf(block);
  if (x.type.shape.length !== 3 || n === undefined || rows === undefined || rows % blockSize !== 0) cx.bad(`the input has shape [${x.type.shape.join(',')}]: expected N, C times ${blockSize}, L`);
  const channels = rows / blockSize;
  const counts = image.map((d, i) => Math.floor((d + pads[i]! + pads[i + rank]! - extent(block[i]!, dilations[i]!)) / strides[i]!) + 1);
  const picks = range(channels * blockSize * blockSize).map((i) => (Math.floor(i / blockSize) % blockSize === i % blockSize ? 1 : 0));
  const w = constantOf(b, x.type.dtype, [rows, 1, ...block], picks);
  return b.one('convData', [b.reshape(x, [n, rows, ...counts]), w], { strides, pads, dilations, groups: channels, size: image });
}

/** Depthwise convolution over the present input after the last k - 1 positions of the past. */
function causalConvWithState(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const [x, w] = [cx.input(0), cx.input(1)];
  const bias = cx.optionalInput(2);
  const [batch, channels, length] = x.type.shape;
  const taps = w.type.shape[2];
  if (x.type.shape.length !== 3 || batch === undefined || channels === undefined || length === undefined || taps === undefined) cx.bad('expected an input of rank 3 and a weight of rank 3');
  const past = cx.optionalInput(3) ?? b.zeros({ dtype: x.type.dtype, shape: [batch, channels, taps - 1] });
  const joined = taps === 1 ? x : b.concat([past, x], 2);
  const y = addBias(cx, b.one('conv', [joined, w], { strides: [1], pads: [0, 0], dilations: [1], groups: channels }), bias);
  const activation = node.attrs.string('activation', 'none');
  if (!['none', 'silu', 'swish'].includes(activation)) cx.bad(`activation is "${activation}": expected silu, swish or none`);
  return [activation === 'none' ? y : b.mul(y, b.unary('sigmoid', y)), b.slice(joined, [0, 0, length], [batch, channels, taps - 1])];
}

export const convOps: LoweringTable = {
  Conv: [row(1, [2, 3], (cx) => addBias(cx, convolve(cx, cx.input(0), cx.input(1)), cx.optionalInput(2)))],
  ConvTranspose: [row(1, [2, 3], convTranspose)],
  Col2Im: [row(18, 3, col2im)],
  CausalConvWithState: [row(27, [2, 4], causalConvWithState, [1, 2])],
};
