import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { num, nums } from '../ir/op.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { sizeOf } from '../ir/type.ts';

/**
 * Rewrites every f32 `convData` (the data gradient of a convolution, and ConvTranspose) as a convolution of stride 1 with the flipped weight, so that it gets the kernels of
 * convolutions. Where the stride is larger, the elements of the result fall into phases, each with its own taps: all phases are channels of one convolution, and are put
 * beside each other after it. Strided and dilated ones are left as they are.
 */
export function gradientsAsConvolutions(graph: Graph, _target: Target): Graph {
  return rewriteOps(graph, (op, b) => (op.name === 'convData' && op.results[0]!.type.dtype === 'f32' ? asConvolution(op, b) : undefined));
}

/** One spatial axis: result element h is Σ over taps y = r + stride·t of dy[q - t·dilation]·w[y], where h + before = stride·q + r. */
interface Phases {
  readonly stride: number;
  readonly dilation: number;
  /** Phases that have taps, and the most taps of one. */
  readonly phases: number;
  readonly taps: number;
  /** The first q, the number of them, and where the first result lies among their elements. */
  readonly first: number;
  readonly count: number;
  readonly skip: number;
}

function asConvolution(op: Op, b: Builder): readonly Value[] | undefined {
  const [dy, w] = op.operands as [Value, Value];
  const { attrs } = op;
  const [strides, pads, dilations, size] = [nums(attrs, 'strides'), nums(attrs, 'pads'), nums(attrs, 'dilations'), nums(attrs, 'size')];
  const groups = num(attrs, 'groups');
  const [outputs, inputs, ...kernel] = w.type.shape as [number, number, ...number[]];
  if (strides.some((s, i) => s > 1 && dilations[i]! > 1) || sizeOf(op.results[0]!.type.shape) === 0 || dy.type.shape.includes(0)) return undefined;
  const axes = size.map((d, i): Phases => {
    const [stride, before] = [strides[i]!, pads[i]!];
    const first = Math.floor(before / stride);
    return { stride, dilation: dilations[i]!, phases: Math.min(stride, kernel[i]!), taps: Math.ceil(kernel[i]! / stride), first, count: Math.floor((d - 1 + before) / stride) - first + 1, skip: before - first * stride };
  });

  // The weight as [group, phase of each axis, inputs of the group, outputs of the group, taps of each axis, the last tap first].
  const rank = kernel.length;
  const whole = axes.map((a) => a.taps * a.stride);
  let v = b.reshape(w, [groups, outputs / groups, inputs, ...kernel]);
  if (whole.some((d, i) => d !== kernel[i])) v = b.one('pad', [v], { lo: new Array(3 + rank).fill(0), hi: [0, 0, 0, ...whole.map((d, i) => d - kernel[i]!)], mode: 'constant', value: 0 });
  v = b.reshape(v, [groups, outputs / groups, inputs, ...axes.flatMap((a) => [a.taps, a.stride])]);
  v = b.slice(v, [0, 0, 0, ...axes.flatMap((a) => [a.taps - 1, 0])], [groups, outputs / groups, inputs, ...axes.flatMap((a) => [a.taps, a.phases])], [1, 1, 1, ...axes.flatMap((a) => [a.taps === 1 ? 1 : -1, 1])]);
  v = b.transpose(v, [0, ...axes.map((_, i) => 4 + 2 * i), 2, 1, ...axes.map((_, i) => 3 + 2 * i)]);
  const phases = axes.map((a) => a.phases);
  const weight = b.reshape(v, [groups * sizeOf(phases) * inputs, outputs / groups, ...axes.map((a) => a.taps)]);

  const lo = axes.map((a) => (a.taps - 1) * a.dilation - a.first);
  const hi = axes.map((a, i) => a.count - dy.type.shape[2 + i]! - lo[i]! + (a.taps - 1) * a.dilation);
  const y = b.one('conv', [dy, weight], { strides: strides.map(() => 1), pads: [...lo, ...hi], dilations: [...dilations], groups });
  if (strides.every((s) => s === 1)) return [y];

  // Phases without taps are zeros.
  const counts = axes.map((a) => a.count);
  const batch = dy.type.shape[0]!;
  let z = b.reshape(y, [batch, groups, ...phases, inputs, ...counts]);
  if (phases.some((p, i) => p < strides[i]!)) z = b.one('pad', [z], { lo: new Array(3 + 2 * rank).fill(0), hi: [0, 0, ...axes.map((a) => a.stride - a.phases), 0, ...axes.map(() => 0)], mode: 'constant', value: 0 });
  z = b.transpose(z, [0, 1, 2 + rank, ...axes.flatMap((_, i) => [3 + rank + i, 2 + i])]);
  z = b.reshape(z, [batch, groups * inputs, ...axes.map((a) => a.count * a.stride)]);
  return [b.slice(z, [0, 0, ...axes.map((a) => a.skip)], [batch, groups * inputs, ...size])];
}
