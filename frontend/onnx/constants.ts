/** Values known at compile time: evaluates the ops that define them, lazily and once, from constants, initializers and bound inputs. */
import { UserError } from '../../ir/diagnostic.ts';
import { evaluateOp } from '../../ir/evaluate.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { showType, sizeOf, type Tensor } from '../../ir/type.ts';
import { NeedsValue } from './lowering.ts';
import { definitionIn, type Frame, type Session } from './scope.ts';

/** Largest tensor that is computed while importing. */
const maxElements = 2 ** 26;

/** The tensors of compile-time values. */
export interface Constants {
  /** The value's tensor; throws NeedsValue where it depends on inputs. */
  tensor(frame: Frame, v: Value, what: string): Tensor;
  isConstant(frame: Frame, v: Value): boolean;
  /** Whether a float initializer has a part in it: training changes it. */
  dependsOnWeights(frame: Frame, v: Value): boolean;
}

export function newConstants(session: Session): Constants {
  const known = new Map<Value, Tensor>();
  const isState = (v: Value): boolean => session.stateInit.has(v);
  // Whoever seeds a graph draws other numbers in each run.
  const isConstant = judge(isState, (operands, op) => operands.every((known) => known) && !(session.seeded && opDef(op.name).family === 'random'));
  const dependsOnWeights = judge(isState, (operands) => operands.some((weight) => weight));

  const leaf = (frame: Frame, v: Value): Tensor => {
    const outer = frame.outer.get(v);
    return outer && frame.parent ? evaluate(frame.parent, outer) : session.stateInit.get(v)!;
  };
  const evaluate = (frame: Frame, v: Value): Tensor => {
    const stack = [v];
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      if (known.has(top)) {
        stack.pop();
        continue;
      }
      const op = definitionIn(frame, top);
      if (!op) {
        known.set(top, leaf(frame, top));
        continue;
      }
      const pending = op.operands.filter((x) => !known.has(x));
      if (pending.length > 0) {
        stack.push(...pending);
        continue;
      }
      for (const r of op.results) {
        if (sizeOf(r.type.shape) > maxElements) throw new UserError(`${op.source.join(', ')}: ${showType(r.type)} would have to be computed at compile time, which is limited to ${maxElements} elements`);
      }
      const results = evaluateOp(op, op.operands.map((x) => known.get(x)!));
      op.results.forEach((r, i) => known.set(r, results[i]!));
    }
    return known.get(v)!;
  };

  return {
    isConstant,
    dependsOnWeights,
    tensor(frame, v, what) {
      if (!isConstant(frame, v)) throw new NeedsValue(what, [...inputsOf(frame, v, session)].sort());
      return evaluate(frame, v);
    },
  };
}

/** Judges values by those of the model's graph that no op defines (`leaf`), and results by the verdicts on their operands. */
function judge(leaf: (v: Value) => boolean, combine: (operands: readonly boolean[], op: Op) => boolean): (frame: Frame, v: Value) => boolean {
  const verdicts = new Map<Value, boolean>();
  const judged = (frame: Frame, v: Value): boolean => {
    // Depth first without recursion: chains of shape arithmetic get long.
    const stack = [v];
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      if (verdicts.has(top)) {
        stack.pop();
        continue;
      }
      const op = definitionIn(frame, top);
      if (!op) {
        const outer = frame.outer.get(top);
        verdicts.set(top, outer && frame.parent ? judged(frame.parent, outer) : leaf(top));
        continue;
      }
      const pending = op.operands.filter((x) => !verdicts.has(x));
      if (pending.length > 0) stack.push(...pending);
      else for (const r of op.results) verdicts.set(r, combine(op.operands.map((x) => verdicts.get(x)!), op));
    }
    return verdicts.get(v)!;
  };
  return judged;
}

/** Names of the model's inputs that a value depends on. */
function inputsOf(frame: Frame, v: Value, session: Session): Set<string> {
  const names = new Set<string>();
  const seen = new Set<Value>();
  const stack: { frame: Frame; v: Value }[] = [{ frame, v }];
  while (stack.length > 0) {
    const at = stack.pop()!;
    if (seen.has(at.v)) continue;
    seen.add(at.v);
    const name = session.inputNames.get(at.v);
    const outer = at.frame.outer.get(at.v);
    if (name !== undefined) names.add(name);
    if (outer && at.frame.parent) stack.push({ frame: at.frame.parent, v: outer });
    for (const operand of definitionIn(at.frame, at.v)?.operands ?? []) stack.push({ frame: at.frame, v: operand });
  }
  return names;
}
