/** Rules about writes at places that are known: those that fill a box need no indices. */
import type { Builder } from '../../ir/builder.ts';
import type { Value } from '../../ir/graph.ts';
import { str } from '../../ir/op.ts';
import type { Tensor } from '../../ir/type.ts';
import { exactRule as rule, type Rule } from './rule.ts';

/** The rules of this file. */
export const updateRules: readonly Rule[] = [
  rule('scatterNd(x, i, u) = concat(x before, u, x after) where i counts through a box', 'scatterNd', {
    apply: (op, b, facts) => {
      const [x, indices, updates] = op.operands as [Value, Value, Value];
      const places = facts.constant(indices);
      if (!places || str(op.attrs, 'reduction') !== 'none') return undefined;
      const starts = startsOfBox(places, x.type.shape);
      return starts && [inserted(b, x, updates, starts)];
    },
    cases: [
      'graph @m(%x: f32[4,3], %u: f32[2,3]) { %i = constant {value=i64[2,1](1, 2)} : i64[2,1] %0 = scatterNd %x, %i, %u {reduction="none"} : f32[4,3] return %0 }',
      'graph @m(%x: f32[2,2], %u: f32[2,2]) { %i = constant {value=i64[2,1](-2, -1)} : i64[2,1] %0 = scatterNd %x, %i, %u {reduction="none"} : f32[2,2] return %0 }',
      'graph @m(%x: i32[3,4], %u: i32[2,2]) { %i = constant {value=i64[2,2,2](1, 1, 1, 2, 2, 1, 2, 2)} : i64[2,2,2] %0 = scatterNd %x, %i, %u {reduction="none"} : i32[3,4] return %0 }',
      'graph @m(%x: f32[3,4,2], %u: f32[1,3,2]) { %i = constant {value=i64[1,3,2](1, 0, 1, 1, 1, 2)} : i64[1,3,2] %0 = scatterNd %x, %i, %u {reduction="none"} : f32[3,4,2] return %0 }',
    ],
  }),
];

/** Where the box starts if the index tuples, one axis of theirs for each coordinate, count through one in order; undefined otherwise. */
function startsOfBox(indices: Tensor, shape: readonly number[]): readonly number[] | undefined {
  const sizes = indices.shape.slice(0, -1);
  const depth = indices.shape.at(-1)!;
  if (sizes.length !== depth || indices.data.length === 0) return undefined;
  const coordinate = (tuple: number, axis: number): number => {
    const at = Number(indices.data[tuple * depth + axis]);
    return at < 0 ? at + shape[axis]! : at;
  };
  const starts = sizes.map((_, axis) => coordinate(0, axis));
  const at = new Array<number>(depth).fill(0);
  for (let tuple = 0; tuple * depth < indices.data.length; tuple++) {
    if (at.some((p, axis) => coordinate(tuple, axis) !== starts[axis]! + p)) return undefined;
    for (let axis = depth - 1; axis >= 0 && ++at[axis]! === sizes[axis]; axis--) at[axis] = 0;
  }
  return starts;
}

/** x with a block in it: along each axis that the block does not fill, what lies before and after it is joined to it. */
function inserted(b: Builder, x: Value, block: Value, starts: readonly number[]): Value {
  const size = block.type.shape;
  const open = starts.map((_, axis) => axis).filter((axis) => size[axis] !== x.type.shape[axis]);
  return open.reduceRight((inner, axis, i) => {
    // The axes outside this one are cut to the block's range, those inside are whole already.
    const outer = new Set(open.slice(0, i));
    const part = (from: number, to: number): Value[] => {
      if (from === to) return [];
      const begin = x.type.shape.map((_, k) => (k === axis ? from : outer.has(k) ? starts[k]! : 0));
      return [b.slice(x, begin, x.type.shape.map((d, k) => (k === axis ? to - from : outer.has(k) ? size[k]! : d)))];
    };
    const start = starts[axis]!;
    return b.concat([...part(0, start), inner, ...part(start + size[axis]!, x.type.shape[axis]!)], axis);
  }, block);
}
