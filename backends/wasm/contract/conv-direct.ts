/** Direct convolution over packed weights: an implicit matrix product that reads the input's pixels in place. */
import { invariant } from '../../../ir/diagnostic.ts';
import { nums } from '../../../ir/op.ts';
import { copiesRows, geometryOf } from '../../../ir/ops/packing/geometry.ts';
import type { Placed } from '../../../ir/tile.ts';
import { dtypes } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { blockedKernel } from './blocked.ts';
import { windowBytes, windowOf, windowRows } from './conv-window.ts';
import { cutWork } from './cut.ts';
import { epilogueOf, startingFromBias } from './epilogue.ts';
import type { Contraction } from './fused.ts';
import type { BlockMoments } from './moments.ts';
import { pixelRows, readsOutside, type Axis } from './rows.ts';
import { broadcastTo, tileSpace, type TileSpace } from './space.ts';

/** Emits a `convPacked` of algorithm `direct`, plain or as the root of a fused op. */
export function directConv(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed, moments?: BlockMoments): KernelCode {
  const geometry = geometryOf(k.root.attrs);
  const input = operands[k.roots[0]!]!;
  const packed = k.roots[1]!;
  const axes = convAxes(k, input, result);
  const space = convSpace(k, operands, result);
  const epilogue = startingFromBias(epilogueOf(k.op, k.root, k.extra, space));
  const source = k.roots[0]!;
  const shared = {
    key: kernelKey(k.op, operands, [result]),
    operands: operands.length, moments, space, epilogue, groups: geometry.groups, columns: geometry.fanOut,
    panels: (f: Fn, pointers: readonly Local[]): E => f.get(pointers[packed]!),
  };
  const work = { outer: space.outer, rows: space.rows, groups: geometry.groups, columns: geometry.fanOut, k: geometry.taps * geometry.fanIn };
  const batchBytes = 4 * input.strides[0]!;
  const [, ay, ax] = axes;

  if (copiesRows(geometry, nums(k.root.attrs, 'dilations'))) {
    // Blocks of moments are whole rows, or equal parts of one.
    // Neighbours along the innermost spatial axis are evenly spaced in every result, so rows always come whole.
    invariant(space.rows % ax.result === 0, 'rows of pixels are cut');
    const window = windowOf(axes, geometry.fanIn);
    const channelBytes = 4 * input.strides[1]!;
    const rowBytes = 4 * geometry.fanIn * ax.stride * ay.stride;
    const cut = cutWork(asm.division, { ...work, rowBytes, rowMultiple: Math.max(ax.result, moments?.pixels ?? 1) });
    return blockedKernel(asm, {
      ...shared, taps: ay.kernel, run: 4 * geometry.fanIn * ax.kernel, cut, rowBytes, fillBytes: windowBytes(window, ay, cut.rowBlock / ax.result, space.rows / ax.result / ay.result),
      fill: (f, pointers, { table, first, count, area }) => windowRows(f, { table, area, first, count, input: () => f.get(pointers[source]!), batchBytes, channels: geometry.fanIn, channelBytes, axes, window }),
    });
  }
  const run = 4 * geometry.fanIn;
  const outside = readsOutside(axes);
  const zeroBytes = outside ? run * geometry.groups : 0;
  const rowBytes = run * geometry.groups * Math.min(geometry.taps, axes.reduce((n, a) => n * a.stride, 1));
  const cut = cutWork(asm.division, { ...work, rowBytes, rowMultiple: moments?.pixels ?? 1 });
  return blockedKernel(asm, {
    ...shared, taps: geometry.taps, run, cut, rowBytes, fillBytes: zeroBytes,
    fill: (f, pointers, { table, first, count, area }) => [
      ...(outside ? [asm.m.memory.fill(f.get(area), asm.i32(0), asm.i32(zeroBytes))] : []),
      ...pixelRows(f, { table, input: () => f.get(pointers[source]!), batchBytes, axes, first, count, zero: () => f.get(area) }),
    ],
  });
}

/** Whether a packed convolution can take moments along: where it is direct, its rows of pixels that are evenly spaced in all tensors have to hold whole blocks. */
export function holdsBlocks(k: Contraction, operands: readonly Placed[], result: Placed, { pixels }: BlockMoments): boolean {
  return geometryOf(k.root.attrs).algorithm !== 'direct' || convSpace(k, operands, result).rows % pixels === 0;
}

/** The three spatial axes of a convolution (missing ones of size 1, outermost); checks the placement of its input. */
export function convAxes(k: Contraction, input: Placed, result: Placed): [Axis, Axis, Axis] {
  const rank = input.type.shape.length - 2;
  const geometry = geometryOf(k.root.attrs);
  const { kernel } = geometry;
  const [strides, pads, dilations] = [nums(k.root.attrs, 'strides'), nums(k.root.attrs, 'pads'), nums(k.root.attrs, 'dilations')];
  invariant(rank >= 1 && rank <= 3, 'a packed convolution has one to three spatial axes');
  invariant(input.type.shape[1]! === 1 || input.strides[1] === 1 || copiesRows(geometry, dilations), 'a packed convolution reads channels that lie side by side');
  const axes = kernel.map((size, i): Axis => ({
    size: input.type.shape[i + 2]!, result: result.type.shape[i + 2]!, kernel: size, stride: strides[i]!, dilation: dilations[i]!, before: pads[i]!, bytes: 4 * input.strides[i + 2]!,
  }));
  const none: Axis = { size: 1, result: 1, kernel: 1, stride: 1, dilation: 1, before: 0, bytes: 0 };
  return [none, none, ...axes].slice(-3) as [Axis, Axis, Axis];
}

/** Result pixels as rows, channels as columns. */
function convSpace(k: Contraction, operands: readonly Placed[], result: Placed): TileSpace {
  const { shape } = result.type;
  const tensors = [result, ...k.extra.map((i) => operands[i]!)].map((p) => {
    const [batch, channel, ...spatial] = broadcastTo(shape, p.type.shape, p.strides);
    return { rowStrides: [batch!, ...spatial], columnStride: shape[1] === 1 ? 1 : channel!, bytes: dtypes[p.type.dtype].bytes };
  });
  return tileSpace([shape[0]!, ...shape.slice(2)], tensors);
}
