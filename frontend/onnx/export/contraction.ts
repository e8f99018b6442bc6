/** Matrix products, convolutions and pools as ONNX nodes. */
import { Unsupported } from '../../../ir/diagnostic.ts';
import type { Attrs, Graph, Op, Value } from '../../../ir/graph.ts';
import { num, nums, str, tensorAttr } from '../../../ir/op.ts';
import { isFloat, sizeOf } from '../../../ir/type.ts';
import { range, tensorOf } from '../ops/helpers.ts';
import type { Rule, Writer } from './writer.ts';

const first = (op: Op, w: Writer): string => w.at(op.operands[0]!);
const second = (op: Op, w: Writer): string => w.at(op.operands[1]!);

export const contractionRules: Readonly<Record<string, Rule>> = {
  contract: (op, w) => {
    const spec = str(op.attrs, 'spec');
    const [a, b, out] = spec.split(/,|->/) as [string, string, string];
    const [m, k] = [a.at(-2), a.at(-1)];
    const n = out.at(-1);
    const batch = a.slice(0, -2);
    if (m !== undefined && n !== undefined && new Set([...batch, m, k, n]).size === batch.length + 3 && out === `${batch}${m}${n}`) {
      if (b === `${batch}${k}${n}`) return w.node('MatMul', [first(op, w), second(op, w)]);
      // A matrix that all of a stack are multiplied by.
      if (b === `${k}${n}` && batch.length === 0) return w.node('MatMul', [first(op, w), second(op, w)]);
      if (b === `${n}${k}` && batch.length === 0 && isFloat(op.operands[0]!.type.dtype)) return w.node('Gemm', [first(op, w), second(op, w)], { transB: 1 });
    }
    const [lead, last] = [a.slice(0, -1), a.at(-1)!];
    if (n !== undefined && lead.length > 0 && !lead.includes(n) && out === `${lead}${n}`) {
      if (b === `${last}${n}`) return w.node('MatMul', [first(op, w), second(op, w)]);
      if (b === `${n}${last}`) return w.node('MatMul', [first(op, w), w.node('Transpose', [second(op, w)], { perm: [1, 0] })]);
    }
    return w.node('Einsum', [first(op, w), second(op, w)], { equation: spec });
  },

  conv: (op, w) => {
    requireFloats(op);
    const kernel = op.operands[1]!.type.shape.slice(2);
    const { x, pads } = padded(op, w, nums(op.attrs, 'pads'), 0, () => false);
    return w.node('Conv', [x, second(op, w)], { kernel_shape: kernel, ...geometry(op.attrs), pads, group: num(op.attrs, 'groups') });
  },
  convData: (op, w) => {
    requireFloats(op);
    const kernel = op.operands[1]!.type.shape.slice(2);
    const rank = kernel.length;
    const [strides, dilations, pads, size] = ['strides', 'dilations', 'pads', 'size'].map((key) => nums(op.attrs, key)) as [readonly number[], readonly number[], readonly number[], readonly number[]];
    if (pads.slice(0, rank).some((p) => p < 0)) throw new Unsupported('writing transposed convolutions with negative pads as ONNX', `${op.source[0] ?? 'a transposed convolution'} has the pads [${pads.join(',')}]`);
    // What is left of the full result behind the last element that is wanted; less than nothing is padding of the output.
    const rest = range(rank).map((i) => (op.operands[0]!.type.shape[i + 2]! - 1) * strides[i]! + (kernel[i]! - 1) * dilations[i]! + 1 - pads[i]! - size[i]!);
    return w.node('ConvTranspose', [first(op, w), second(op, w)], {
      kernel_shape: kernel, strides, dilations, group: num(op.attrs, 'groups'),
      pads: [...pads.slice(0, rank), ...rest.map((r) => Math.max(r, 0))], output_padding: rest.map((r) => Math.max(-r, 0)),
    });
  },

  maxPool: (op, w, graph) => {
    const positions = op.results[1]!;
    if (graph.ops.some((o) => o.operands.includes(positions)) || graph.outputs.some((o) => o.value === positions)) {
      throw new Unsupported('writing the positions of a max pool as ONNX', `${op.source[0] ?? 'a max pool'} also gives the positions of its maxima, which are counted differently in ONNX`);
    }
    const kernel = nums(op.attrs, 'kernel');
    const { x, pads } = padded(op, w, nums(op.attrs, 'pads'), -Infinity, (p, i) => p >= kernel[i]!);
    return [w.node('MaxPool', [x], { kernel_shape: kernel, ...geometry(op.attrs), pads }), ''];
  },
  sumPool: (op, w, graph) => {
    const kernel = nums(op.attrs, 'kernel');
    const { shape, dtype } = op.operands[0]!.type;
    const { x, pads } = padded(op, w, nums(op.attrs, 'pads'), 0, (p, i) => p >= kernel[i]!);
    if (nums(op.attrs, 'dilations').some((d) => d !== 1)) {
      const ones = w.tensor(tensorOf(dtype, [shape[1]!, 1, ...kernel], new Array<number>(shape[1]! * sizeOf(kernel)).fill(1)));
      return w.node('Conv', [x, ones], { kernel_shape: kernel, ...geometry(op.attrs), pads, group: shape[1]! });
    }
    const mean = w.node('AveragePool', [x], { kernel_shape: kernel, strides: nums(op.attrs, 'strides'), pads, count_include_pad: 1 });
    return sizeOf(kernel) === 1 || isAveraged(op, graph) ? mean : w.node('Mul', [mean, w.scalar(dtype, sizeOf(kernel))]);
  },
};

/** Whether a pool's sums are read as averages over whole windows alone, which are one node. */
export function isAveraged(pool: Op, graph: Graph): boolean {
  const [sums] = pool.results as [Value];
  const readers = graph.ops.filter((o) => o.operands.includes(sums));
  return nums(pool.attrs, 'dilations').every((d) => d === 1) && readers.length > 0 && readers.every((o) => averagedPool(o, graph) === pool) && graph.outputs.every((o) => o.value !== sums);
}

/** The pool whose sums an op divides by the size of the window; undefined for other ops. */
export function averagedPool(op: Op, graph: Graph): Op | undefined {
  if (op.name !== 'mul') return undefined;
  const of = (v: Value): Op | undefined => graph.ops.find((o) => o.results[0] === v);
  const [a, b] = op.operands.map(of);
  const [pool, share] = a?.name === 'sumPool' ? [a, b] : [b, a];
  if (pool?.name !== 'sumPool' || share?.name !== 'constant') return undefined;
  const { data } = tensorAttr(share.attrs, 'value');
  const wanted = 1 / sizeOf(nums(pool.attrs, 'kernel'));
  return data.length === 1 && Number(data[0]) === (pool.results[0]!.type.dtype === 'f32' ? Math.fround(wanted) : wanted) ? pool : undefined;
}

const geometry = (a: Attrs): { readonly strides: readonly number[]; readonly dilations: readonly number[] } => ({ strides: nums(a, 'strides'), dilations: nums(a, 'dilations') });

/** Pads that a node does not take (negative, or `tooLarge`) go into a Pad of their own. */
function padded(op: Op, w: Writer, pads: readonly number[], value: number, tooLarge: (pad: number, axis: number) => boolean): { readonly x: string; readonly pads: readonly number[] } {
  const rank = pads.length / 2;
  const x = first(op, w);
  if (!pads.some((p, i) => p < 0 || tooLarge(p, i % rank))) return { x, pads };
  const all = [0, 0, ...pads.slice(0, rank), 0, 0, ...pads.slice(rank)];
  return { x: w.node('Pad', [x, w.ints(all), w.scalar(op.operands[0]!.type.dtype, value)], { mode: 'constant' }), pads: pads.map(() => 0) };
}

function requireFloats(op: Op): void {
  const { dtype } = op.operands[0]!.type;
  if (!isFloat(dtype)) throw new Unsupported(`writing a convolution of ${dtype} as ONNX`, `${op.source[0] ?? 'a convolution'} works on ${dtype}; ONNX convolutions are of floats`);
}
