/** Chains of elementwise ops: the part of a fused region before or after its root, or a whole `map` region. */
import { InternalError } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { tensorAttr } from '../../../ir/op.ts';
import { dtypes, sizeOf, type Tensor } from '../../../ir/type.ts';
import type { E, Fn, Vec } from '../asm.ts';
import { computeType, constantOf } from '../dtype.ts';
import { decodeFloat } from '../../../ir/number.ts';
import { emitScalar } from './scalar.ts';
import { constantVec, emitVec, isVectorOp, laneOf, type VecOptions } from './vector.ts';

/** Readers of values that are ready (locals): each call gives a new expression. */
export type VecValues = Map<Value, () => Vec>;
export type ScalarValues = Map<Value, () => E>;

/** Whether a chain can run on lanes. Ops that move nothing (`copy`, `broadcast`, `reshape`) count as identities. */
export const isVectorChain = (ops: readonly Op[]): boolean => ops.every((op) => op.name === 'constant' || identities.has(op.name) || isVectorOp(op));
const identities: ReadonlySet<string> = new Set(['copy', 'broadcast', 'reshape']);

/**
 * Emits a chain on four lanes. `values` holds what it reads and gets all that it computes; returned are the statements to run. A value that is
 * read once is computed where it is read, so the readers of intermediate values must be called at most as often as the chain and `outputs` read them.
 */
export function vecChain(f: Fn, ops: readonly Op[], values: VecValues, outputs: readonly Value[], options: Pick<VecOptions, 'inline'> = {}): E[] {
  return chain(ops, outputs, {
    has: (v) => values.has(v),
    read: (v) => values.get(v)!(),
    define: (v, get) => values.set(v, get),
    constant: (t) => () => constantVec(f, t.dtype, Number(scalarOf(t))),
    apply: (op, args, constants) => emitVec(f, op, args, { ...options, constants }),
    store(v, e) {
      const local = f.vlocal(laneOf(v.type.dtype));
      return { set: f.vset(local, e), get: () => f.vget(local) };
    },
  });
}

/** Emits a chain on one element, of any dtype. */
export function scalarChain(f: Fn, ops: readonly Op[], values: ScalarValues, outputs: readonly Value[]): E[] {
  return chain(ops, outputs, {
    has: (v) => values.has(v),
    read: (v) => values.get(v)!(),
    define: (v, get) => values.set(v, get),
    constant: (t) => () => constantOf(f.asm, t.dtype, scalarOf(t)),
    apply: (op, args) => emitScalar(f, op, args),
    store(v, e) {
      const local = f.local(computeType(v.type.dtype));
      return { set: f.set(local, e), get: () => f.get(local) };
    },
  });
}

interface Mode<T> {
  has(v: Value): boolean;
  read(v: Value): T;
  define(v: Value, get: () => T): void;
  constant(t: Tensor): () => T;
  apply(op: Op, args: readonly T[], constants: readonly (number | undefined)[]): T;
  store(v: Value, e: T): { readonly set: E; readonly get: () => T };
}

function chain<T>(ops: readonly Op[], outputs: readonly Value[], mode: Mode<T>): E[] {
  const readers = new Map<Value, number>();
  for (const v of [...ops.flatMap((op) => op.operands), ...outputs]) readers.set(v, (readers.get(v) ?? 0) + 1);
  const constants = new Map<Value, number>();
  const steps: E[] = [];
  for (const op of ops) {
    const result = op.results[0]!;
    if (op.name === 'constant') {
      const t = tensorAttr(op.attrs, 'value');
      if (sizeOf(t.shape) !== 1) throw new InternalError('a constant inside a fused region has one element');
      constants.set(result, Number(scalarOf(t)));
      mode.define(result, mode.constant(t));
      continue;
    }
    if (identities.has(op.name)) {
      const source = op.operands[0]!;
      const known = constants.get(source);
      if (known !== undefined) constants.set(result, known);
      if (!mode.has(source)) throw new InternalError(`${op.name} in a chain reads a value that is not ready`);
      // An identity may be read often, its source was counted once: keep it.
      if (known !== undefined || (readers.get(result) ?? 0) <= 1) mode.define(result, () => mode.read(source));
      else {
        const kept = mode.store(result, mode.read(source));
        steps.push(kept.set);
        mode.define(result, kept.get);
      }
      continue;
    }
    const value = mode.apply(op, op.operands.map((v) => mode.read(v)), op.operands.map((v) => constants.get(v)));
    if ((readers.get(result) ?? 0) === 1) {
      mode.define(result, () => value);
      continue;
    }
    const kept = mode.store(result, value);
    steps.push(kept.set);
    mode.define(result, kept.get);
  }
  return steps;
}

/** The one element of a tensor as a number. */
export function scalarOf(t: Tensor): number | bigint {
  const x = t.data[0]!;
  return dtypes[t.dtype].kind === 'float' && dtypes[t.dtype].bits < 32 ? decodeFloat(t.dtype, Number(x)) : x;
}
