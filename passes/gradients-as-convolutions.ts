import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { num, nums } from '../ir/op.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { sizeOf } from '../ir/type.ts';

/** Most phases that become a convolution of their own each. */
const mostSplit = 16;

/**
 * Rewrites every f32 `convData` (the data gradient of a convolution, and ConvTranspose) as convolutions of stride 1 with the flipped weight, so that it gets the kernels of
 * convolutions. Where the stride is larger, the elements of the result fall into phases, each with its own taps. All phases are channels of one convolution where they have equally many
 * taps; else, and where the convolution is depthwise, each is a convolution of its own. They are put beside each other after it. Strided and dilated ones are left as they are.
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

  const phases = axes.map((a) => a.phases);
  const depthwise = groups > 1 && inputs === 1 && outputs === groups;
  const uneven = axes.some((a, i) => a.phases > 1 && kernel[i]! % a.stride !== 0);
  const split = sizeOf(phases) > 1 && sizeOf(phases) <= mostSplit && (uneven || depthwise);
  const all = axes.map((a): Share => ({ phase: 0, phases: a.phases, taps: a.taps }));
  const shares = split ? eachPhase(axes, kernel) : [all];
  const parts = shares.map((share) => convolve(b, dy, w, share, axes, groups));
  const y = parts.length === 1 ? parts[0]! : b.concat(parts, 1);
  if (strides.every((s) => s === 1)) return [y];

  // Phases without taps are zeros.
  const counts = axes.map((a) => a.count);
  const batch = dy.type.shape[0]!;
  const rank = kernel.length;
  // Phases by themselves come before all channels, else before those of each group.
  let z = b.reshape(y, split ? [batch, 1, ...phases, groups * inputs, ...counts] : [batch, groups, ...phases, inputs, ...counts]);
  if (phases.some((p, i) => p < strides[i]!)) z = b.one('pad', [z], { lo: new Array(3 + 2 * rank).fill(0), hi: [0, 0, ...axes.map((a) => a.stride - a.phases), 0, ...axes.map(() => 0)], mode: 'constant', value: 0 });
  z = b.transpose(z, [0, 1, 2 + rank, ...axes.flatMap((_, i) => [3 + rank + i, 2 + i])]);
  z = b.reshape(z, [batch, groups * inputs, ...axes.map((a) => a.count * a.stride)]);
  return [b.slice(z, [0, 0, ...axes.map((a) => a.skip)], [batch, groups * inputs, ...size])];
}

/** Phases of an axis that one convolution computes: the first, their number, and the most taps of one. */
interface Share {
  readonly phase: number;
  readonly phases: number;
  readonly taps: number;
}

/** Each phase by itself, the last axis first. */
function eachPhase(axes: readonly Phases[], kernel: readonly number[]): Share[][] {
  return axes.reduce<Share[][]>((list, a, i) => list.flatMap((before) => Array.from({ length: a.phases }, (_, phase) => [...before, { phase, phases: 1, taps: Math.ceil((kernel[i]! - phase) / a.stride) }])), [[]]);
}

/** The convolution of dy that gives a share of the phases, as channels in the order group, phase of each axis, input of the group. */
function convolve(b: Builder, dy: Value, w: Value, shares: readonly Share[], axes: readonly Phases[], groups: number): Value {
  const [outputs, inputs, ...kernel] = w.type.shape as [number, number, ...number[]];
  const rank = kernel.length;
  // The weight as [group, phase of each axis, inputs of the group, outputs of the group, taps of each axis, the last tap first].
  const size = shares.map((s, i) => s.taps * axes[i]!.stride);
  let v = b.reshape(w, [groups, outputs / groups, inputs, ...kernel]);
  if (size.some((d, i) => d > kernel[i]!)) v = b.one('pad', [v], { lo: new Array(3 + rank).fill(0), hi: [0, 0, 0, ...size.map((d, i) => Math.max(0, d - kernel[i]!))], mode: 'constant', value: 0 });
  if (size.some((d, i) => d < kernel[i]!)) v = b.slice(v, new Array(3 + rank).fill(0), [groups, outputs / groups, inputs, ...size], new Array(3 + rank).fill(1));
  v = b.reshape(v, [groups, outputs / groups, inputs, ...shares.flatMap((s, i) => [s.taps, axes[i]!.stride])]);
  v = b.slice(v, [0, 0, 0, ...shares.flatMap((s) => [s.taps - 1, s.phase])], [groups, outputs / groups, inputs, ...shares.flatMap((s) => [s.taps, s.phases])], [1, 1, 1, ...shares.flatMap((s) => [s.taps === 1 ? 1 : -1, 1])]);
  v = b.transpose(v, [0, ...axes.map((_, i) => 4 + 2 * i), 2, 1, ...axes.map((_, i) => 3 + 2 * i)]);
  const weight = b.reshape(v, [groups * sizeOf(shares.map((s) => s.phases)) * inputs, outputs / groups, ...shares.map((s) => s.taps)]);

  const lo = axes.map((a, i) => (shares[i]!.taps - 1) * a.dilation - a.first);
  const hi = axes.map((a, i) => a.count - dy.type.shape[2 + i]! - lo[i]! + (shares[i]!.taps - 1) * a.dilation);
  return b.one('conv', [dy, weight], { strides: axes.map(() => 1), pads: [...lo, ...hi], dilations: axes.map((a) => a.dilation), groups });
}
