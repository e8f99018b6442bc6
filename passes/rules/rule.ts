/** What a rewrite rule is. */
import type { Builder } from '../../ir/builder.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Facts } from '../../ir/rewrite.ts';

/** How the two sides compare. `exact`: equal up to the sign of zero and the payload of a NaN; `rounding`: a few units in the last place apart. */
export type Exactness = 'exact' | 'rounding';

export interface Rule {
  /** The algebra, `left = right`. */
  readonly name: string;
  /** Ops that the rule rewrites. */
  readonly roots: readonly string[];
  readonly exactness: Exactness;
  /** The right side, one value per result of the op, or undefined where the rule does not apply. */
  apply(op: Op, b: Builder, facts: Facts): readonly Value[] | undefined;
  /** Graphs, as text, in which the rule applies: the machine check evaluates both sides. Rules made from patterns generate theirs. */
  readonly cases: readonly string[];
}

/** A rule about one op that keeps the bits. */
export const exactRule = (name: string, root: string, body: Pick<Rule, 'apply' | 'cases'>): Rule => ({ name, roots: [root], exactness: 'exact', ...body });

/** The op that defines the first operand, if it has this name. */
export function under(op: Op, name: string, facts: Facts): Op | undefined {
  const def = facts.definition(op.operands[0]!);
  return def?.name === name ? def : undefined;
}
/** The first operand. */
export const firstOperand = (op: Op): Value => op.operands[0]!;
/** The shape of the first result. */
export const shapeOf = (op: Op): readonly number[] => op.results[0]!.type.shape;
