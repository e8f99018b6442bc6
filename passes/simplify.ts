import type { Graph } from '../ir/graph.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { algebraRules } from './rules/algebra.ts';
import { controlRules } from './rules/control.ts';
import { conversionRules } from './rules/conversions.ts';
import { epilogueRules } from './rules/epilogues.ts';
import { moveRules } from './rules/moves.ts';
import { partRules } from './rules/parts.ts';
import type { Rule } from './rules/rule.ts';
import { updateRules } from './rules/updates.ts';

/** All rules, in the order in which they are tried. */
export const simplifyRules: readonly Rule[] = [...controlRules, ...conversionRules, ...algebraRules, ...moveRules, ...partRules, ...updateRules, ...epilogueRules];

/** Sweeps until nothing changes; the bound only guards against rules that undo each other. */
const maxSweeps = 16;

/**
 * Applies the rewrite rules until none applies: identities of arithmetic and logic, data movement that need not happen, branches whose condition is known.
 * Values stay equal up to the sign of a zero, and to rounding where a rule says so. It does not evaluate anything: fold-constants does.
 */
export const simplify = (graph: Graph, target: Target): Graph => applyRules(graph, target, simplifyRules);

/** The same with other rules. */
export function applyRules(graph: Graph, target: Target, rules: readonly Rule[]): Graph {
  const byRoot = new Map<string, Rule[]>();
  for (const rule of rules) for (const root of rule.roots) byRoot.set(root, [...(byRoot.get(root) ?? []), rule]);
  const everywhere = byRoot.get('*') ?? [];
  let current = graph;
  for (let sweep = 0; sweep < maxSweeps; sweep++) {
    const next = rewriteOps(current, (op, b, facts) => {
      for (const rule of [...(byRoot.get(op.name) ?? []), ...everywhere]) {
        const values = rule.apply(op, b, facts);
        if (values) return values;
      }
      return undefined;
    });
    if (next === current) return current;
    current = eliminateDeadCode(next, target);
  }
  return current;
}
