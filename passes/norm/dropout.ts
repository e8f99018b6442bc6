/** Recognises dropout as it is lowered: elements that a uniform draw spares, times the reciprocal of the share that it spares. */
import type { Op, Value } from '../../ir/graph.ts';
import { uniform } from '../rules/pattern.ts';
import type { Tensor } from '../../ir/type.ts';

/** Ops that make up a dropout, and what it drops elements of. */
export interface Dropout {
  readonly of: Value;
  readonly ops: readonly Op[];
}

/**
 * The dropout whose result an op gives: select(draw ≥ p, x · 1 / (1 - p), 0), or with a mode that is known in a run alone a select of that or x. `def` finds the op that gives a value.
 * Undefined for other ops.
 */
export function dropoutOf(op: Op, def: (v: Value) => Op | undefined): Dropout | undefined {
  if (op.name !== 'select') return undefined;
  const [condition, kept, other] = op.operands as [Value, Value, Value];
  const inner = def(kept);
  const whole = inner && dropoutOf(inner, def);
  if (whole?.of === other) return { of: other, ops: [...whole.ops, op] };
  const zero = def(other);
  if (inner?.name !== 'mul' || zero?.name !== 'constant' || uniform(zero.attrs['value'] as Tensor) !== 0) return undefined;
  const ratio = drawnRatio(condition, def);
  const [x, scale] = inner.operands as [Value, Value];
  return ratio && isShare(scale, ratio, def) ? { of: x, ops: [inner, op] } : undefined;
}

/** p of a mask draw ≥ p, which may be all true outside of training. */
function drawnRatio(mask: Value, def: (v: Value) => Op | undefined): Value | undefined {
  const op = def(mask);
  if (op?.name === 'or') return drawnRatio(op.operands[0]!, def);
  return op?.name === 'ge' && def(op.operands[0]!)?.name === 'randomUniform' ? op.operands[1] : undefined;
}

/** Whether a value is 1 / (1 - p). */
function isShare(v: Value, ratio: Value, def: (v: Value) => Op | undefined): boolean {
  const op = def(v);
  if (op?.name === 'cast') return isShare(op.operands[0]!, ratio, def);
  const rest = op?.name === 'div' ? def(op.operands[1]!) : undefined;
  return rest?.name === 'sub' && rest.operands[1] === ratio;
}
