/** The rules that the region of a `momentBlocks` op keeps (docs/ir.md). Emitters rely on them. */
import { contractRoot } from './bands.ts';
import type { Op, Value } from './graph.ts';
import { num, nums } from './op.ts';
import { copiesRows, geometryOf, winogradTile } from './ops/packing/geometry.ts';
import { sameShape } from './type.ts';

/** Why the kernel of a packed convolution, plain or fused, of a result [N, C, spatial...] cannot take moments over blocks of so many pixels that follow each other, or undefined. */
export function blockProblem(conv: Op, pixels: number): string | undefined {
  const root = contractRoot(conv)!;
  const spatial = root.results[0]!.type.shape.slice(2);
  const all = spatial.reduce((n, d) => n * d, 1);
  const row = spatial.at(-1)!;
  if (all % pixels !== 0) return `${all} pixels cannot be cut into blocks of ${pixels}`;
  const geometry = geometryOf(root.attrs);
  const { algorithm } = geometry;
  const tile = winogradTile(algorithm);
  if (tile > 0 && pixels !== all && pixels % (tile * row) !== 0) return `blocks of ${pixels} pixels are no rows of tiles`;
  if (algorithm === 'depthwise' && pixels % row !== 0) return `blocks of ${pixels} pixels are no rows`;
  if (copiesRows(geometry, nums(root.attrs, 'dilations')) && pixels % row !== 0 && row % pixels !== 0) return `blocks of ${pixels} pixels are neither rows nor parts of one`;
  return algorithm === 'direct' && pixels > 1 && conv.operands.some((v, i) => !root.operands.includes(conv.regions[0]?.inputs[i] ?? v) && variesInPart(v, spatial)) ? 'an operand varies along some axes of an image and is broadcast along others' : undefined;
}

/** Whether an operand of an epilogue is broadcast along some of the axes of an image that are longer than 1, and not along all. */
function variesInPart({ type: { shape } }: Value, spatial: readonly number[]): boolean {
  const own = spatial.flatMap((d, i) => (d > 1 ? [shape.at(i - spatial.length) ?? 1] : []));
  return own.includes(1) && own.some((d) => d > 1);
}

/** Why the region of a `momentBlocks` op is not one that it may hold, or undefined. */
export function momentBlocksProblem(op: Op): string | undefined {
  const region = op.regions[0]!;
  const [conv, view, moments, ...others] = region.ops;
  if (!conv || view?.name !== 'reshape' || moments?.name !== 'moments' || others.length > 0) return 'a region of a convolution, a reshape and moments expected';
  const root = contractRoot(conv);
  const [y] = conv.results;
  if (root?.name !== 'convPacked' || y!.type.dtype !== 'f32') return 'the first op is not a packed convolution of f32';
  const [n, channels] = y!.type.shape;
  const blocks = num(op.attrs, 'momentBlocks');
  const { shape } = view.results[0]!.type;
  if (view.operands[0] !== y || moments.operands[0] !== view.results[0]) return 'the moments are not of the result of the convolution';
  if (shape.length !== 4 || !sameShape(shape.slice(0, 3), [n!, channels!, blocks]) || !sameShape(nums(moments.attrs, 'axes'), [3])) return `the moments are not of ${blocks} blocks of pixels of each channel`;
  const results = [y, ...moments.results];
  if (region.outputs.length !== 3 || region.outputs.some((o, i) => o.value !== results[i])) return 'the results are not those of the convolution and of the moments';
  return blockProblem(conv, shape[3]!);
}
