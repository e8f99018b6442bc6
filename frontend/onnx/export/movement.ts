/** Moves, indexing and resampling as ONNX nodes. */
import { Unsupported } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { num, nums, str } from '../../../ir/op.ts';
import { sizeOf } from '../../../ir/type.ts';
import { range, tensorOf } from '../ops/helpers.ts';
import type { Rule, Writer } from './writer.ts';

const result = (op: Op): Value => op.results[0]!;
const first = (op: Op, w: Writer): string => w.at(op.operands[0]!);
const operands = (op: Op, w: Writer): string[] => op.operands.map((v) => w.at(v));

export const movementRules: Readonly<Record<string, Rule>> = {
  reshape: (op, w) => reshapeTo(w, first(op, w), result(op)),
  transpose: (op, w) => w.node('Transpose', [first(op, w)], { perm: nums(op.attrs, 'perm') }),
  copy: (op, w) => first(op, w),
  concat: (op, w) => w.node('Concat', operands(op, w), { axis: num(op.attrs, 'axis') }),
  broadcast: (op, w) => w.node('Expand', [first(op, w), w.shapeOf(result(op))]),
  slice: (op, w) => {
    const { shape } = op.operands[0]!.type;
    const [starts, sizes, steps] = ['starts', 'sizes', 'steps'].map((key) => nums(op.attrs, key)) as [readonly number[], readonly number[], readonly number[]];
    const axes = range(shape.length).filter((i) => starts[i] !== 0 || steps[i] !== 1 || sizes[i] !== shape[i]);
    if (axes.length === 0) return first(op, w);
    // An end before the first element is written so that it does not count from the back.
    const end = (i: number): number => {
      const last = starts[i]! + sizes[i]! * steps[i]!;
      return last < 0 ? -shape[i]! - 1 : last;
    };
    return w.node('Slice', [first(op, w), w.ints(axes.map((i) => starts[i]!)), w.ints(axes.map(end)), w.ints(axes), w.ints(axes.map((i) => steps[i]!))]);
  },
  pad: (op, w) => {
    const mode = str(op.attrs, 'mode');
    if (mode === 'wrap') throw new Unsupported('writing wrapping pads as ONNX', `${op.source[0] ?? 'a pad'} wraps around, which the opset that is written does not have`);
    const { dtype } = op.operands[0]!.type;
    const inputs = [first(op, w), w.ints([...nums(op.attrs, 'lo'), ...nums(op.attrs, 'hi')])];
    return w.node('Pad', mode === 'constant' ? [...inputs, w.scalar(dtype, num(op.attrs, 'value'))] : inputs, { mode });
  },
  iota: (op, w) => {
    const { dtype, shape } = result(op).type;
    const axis = num(op.attrs, 'axis');
    const inner = sizeOf(shape.slice(axis + 1));
    return w.tensor(tensorOf(dtype, shape, range(sizeOf(shape)).map((i) => Math.floor(i / inner) % shape[axis]!)));
  },
  resample: (op, w) => {
    const [size, taps] = [num(op.attrs, 'size'), num(op.attrs, 'taps')];
    const [indices, weights] = [nums(op.attrs, 'indices'), nums(op.attrs, 'weights')];
    const { dtype, shape } = op.operands[0]!.type;
    const axis = num(op.attrs, 'axis');
    const each = range(taps).map((t) => {
      const part = w.node('Gather', [first(op, w), w.ints(range(size).map((h) => indices[h * taps + t]!))], { axis });
      const factors = range(size).map((h) => weights[h * taps + t]!);
      return factors.every((f) => f === 1) ? part : w.node('Mul', [part, w.tensor(tensorOf(dtype, shape.slice(axis).map((_, i) => (i === 0 ? size : 1)), factors))]);
    });
    return each.reduce((sum, part) => w.node('Add', [sum, part]));
  },

  gather: (op, w) => w.node('Gather', operands(op, w), { axis: num(op.attrs, 'axis') }),
  gatherElements: (op, w) => w.node('GatherElements', operands(op, w), { axis: num(op.attrs, 'axis') }),
  gatherNd: (op, w) => w.node('GatherND', operands(op, w), { batch_dims: num(op.attrs, 'batchDims') }),
  scatterElements: (op, w) => w.node('ScatterElements', operands(op, w), { axis: num(op.attrs, 'axis'), reduction: str(op.attrs, 'reduction') }),
  scatterNd: (op, w) => w.node('ScatterND', operands(op, w), { reduction: str(op.attrs, 'reduction') }),
  dynamicSlice: (op, w) => {
    const { shape } = op.operands[0]!.type;
    const sizes = nums(op.attrs, 'sizes');
    const starts = w.node('Max', [w.node('Min', [w.at(op.operands[1]!), w.ints(shape.map((d, i) => d - sizes[i]!))]), w.ints(shape.map(() => 0))]);
    return w.node('Slice', [first(op, w), starts, w.node('Add', [starts, w.ints(sizes)]), w.ints(range(shape.length))]);
  },
};

/** A reshape to the shape of a value; the axis that holds samples takes what is left. */
export function reshapeTo(w: Writer, x: string, to: Value): string {
  const { shape } = to.type;
  const axis = w.batch?.axisOf(to);
  if (axis !== undefined) return w.node('Reshape', [x, w.ints(shape.with(axis, -1))]);
  return w.node('Reshape', [x, w.ints(shape)], shape.includes(0) ? { allowzero: 1 } : {});
}
