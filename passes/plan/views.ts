/** Reshapes, transposes and slices as views of their operand's memory. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { reshapeStrides } from '../../ir/strides.ts';
import type { Step } from '../../ir/tile.ts';
import { sizeOf } from '../../ir/type.ts';
import { orderForReshape } from '../layout.ts';
import { copied } from './copies.ts';
import type { Copies, Planning, Root } from './planning.ts';

/** Makes the result a view, copying the operand where no strides describe it; false for slices that run backwards or hold nothing. */
export function planView(p: Planning, op: Op, steps: Step[], copies: Copies): boolean {
  let v = op.operands[0]!;
  const result = op.results[0]!;
  let spot = p.spot(v);
  if (op.name === 'transpose') {
    alias(p, result, spot.root, spot.offset, (op.attrs['perm'] as readonly number[]).map((p) => spot.strides[p]!));
  } else if (op.name === 'slice') {
    const starts = op.attrs['starts'] as readonly number[];
    const by = op.attrs['steps'] as readonly number[];
    if (by.some((s) => s < 0) || sizeOf(result.type.shape) === 0) return false;
    alias(p, result, spot.root, spot.offset + starts.reduce((n, s, i) => n + s * spot.strides[i]!, 0), spot.strides.map((s, i) => s * by[i]!));
  } else {
    let strides = reshapeStrides(v.type.shape, spot.strides, result.type.shape);
    if (!strides) {
      v = copied(p, v, orderForReshape(v.type.shape, spot.strides, result.type.shape), steps, copies);
      spot = p.spot(v);
      strides = reshapeStrides(v.type.shape, spot.strides, result.type.shape);
      invariant(strides, 'plan: a reshape does not view its copy');
    }
    alias(p, result, spot.root, spot.offset, strides);
  }
  p.done.add(op);
  return true;
}

function alias(p: Planning, v: Value, root: Root, offset: number, strides: readonly number[]): void {
  p.spots.set(v, { root, offset, strides });
}
