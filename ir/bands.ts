/** The rules that the region of a `bands` op keeps (docs/ir.md), and how its result is cut. Emitters rely on them. */
import { isContractRoot } from './fused.ts';
import type { Op, Value } from './graph.ts';
import { num, nums } from './op.ts';
import { geometryOf } from './ops/packing/geometry.ts';
import { sameShape } from './type.ts';

/** A band: result rows, the rows of the value in between that they read, and how many of what the kernel reads lies above and below that value. */
export interface Band {
  readonly first: number;
  readonly count: number;
  readonly from: number;
  readonly rows: number;
  readonly above: number;
  readonly below: number;
}

/** The convolution or contraction of a plain or fused op; undefined for other ops. */
export function contractRoot(op: Op): Op | undefined {
  if (op.name !== 'fused') return isContractRoot(op) ? op : undefined;
  return op.attrs['kind'] === 'contract' ? op.regions[0]!.ops.find(isContractRoot) : undefined;
}

/** The operand of a plain or fused convolution that the convolution reads as its data; undefined where its epilogue reads that too. */
export function dataOperand(op: Op): Value | undefined {
  const root = contractRoot(op);
  if (!root) return undefined;
  const data = root.operands[0]!;
  if (op === root) return data;
  const region = op.regions[0]!;
  const alone = region.ops.every((o) => o === root || !o.operands.includes(data)) && region.outputs.every((o) => o.value !== data);
  return alone ? op.operands[region.inputs.indexOf(data)] : undefined;
}

/** Why `second` cannot be computed in bands after `first`, or undefined. */
export function pairProblem(first: Op, second: Op): string | undefined {
  const [point, depth] = [contractRoot(first), contractRoot(second)];
  if (point?.name !== 'convPacked' || depth?.name !== 'convPacked') return 'the ops are not two packed convolutions';
  const geometry = geometryOf(point.attrs);
  const pointwise = geometry.algorithm === 'direct' && geometry.groups === 1 && sameShape(geometry.kernel, [1, 1]) && [...nums(point.attrs, 'strides')].every((s) => s === 1) && nums(point.attrs, 'pads').every((p) => p === 0);
  if (!pointwise) return 'the first convolution is not of 1x1 pixels';
  const { algorithm, kernel } = geometryOf(depth.attrs);
  if (algorithm !== 'depthwise' || kernel.length !== 2 || nums(depth.attrs, 'pads').some((p) => p < 0)) return 'the second convolution is not depthwise over two axes';
  const [between] = first.results;
  if (second.operands.filter((v) => v === between).length !== 1 || dataOperand(second) !== between) return 'the second convolution does not read the first, and that alone';
  return undefined;
}

/** The bands of one image of a depthwise convolution's result; undefined where one of them reads nothing. */
export function bandsOf(second: Op, bands: number): Band[] | undefined {
  const { attrs, operands } = contractRoot(second)!;
  const [stride, pad, dilation] = [nums(attrs, 'strides')[0]!, nums(attrs, 'pads')[0]!, nums(attrs, 'dilations')[0]!];
  const span = (geometryOf(attrs).kernel[0]! - 1) * dilation + 1;
  const height = operands[0]!.type.shape[2]!;
  const result = second.results[0]!.type.shape[2]!;
  const block = Math.ceil(result / bands);
  const list = Array.from({ length: Math.ceil(result / block) }, (_, i): Band => {
    const first = i * block;
    const count = Math.min(block, result - first);
    const start = first * stride - pad;
    const end = start + (count - 1) * stride + span;
    const [from, to] = [Math.max(0, start), Math.min(height, end)];
    return { first, count, from, rows: to - from, above: from - start, below: end - to };
  });
  return list.every((b) => b.rows > 0) ? list : undefined;
}

/** Why the region of a `bands` op is not one that it may hold, or undefined. */
export function bandsProblem(op: Op): string | undefined {
  const region = op.regions[0]!;
  const [first, second, ...others] = region.ops;
  if (!first || !second || others.length > 0) return `a region of two ops expected, ${region.ops.length} found`;
  if (region.outputs.length !== 1 || region.outputs[0]!.value !== second.results[0]) return 'the result is not that of the second op';
  return pairProblem(first, second) ?? (num(op.attrs, 'bands') >= 1 && bandsOf(second, num(op.attrs, 'bands')) ? undefined : `the result cannot be cut into ${num(op.attrs, 'bands')} bands`);
}
