import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { graphText } from '../ir/text.ts';
import { filled } from '../ir/builder.ts';
import { verify } from '../ir/verify.ts';
import type { DType, TensorType } from '../ir/type.ts';
import { applyRules, simplifyRules } from '../passes/simplify.ts';
import { algebraRules } from '../passes/rules/algebra.ts';
import type { Pattern, PatternRule } from '../passes/rules/pattern.ts';
import type { Rule } from '../passes/rules/rule.ts';
import { generator } from '../ir/generator.ts';
import { difference, randomInputs, randomTensor } from './ir/tensors.ts';
import { testTarget } from './ir/target.ts';

/** Units in the last place that a rule marked `rounding` may be apart. */
const roundingUlps = 4;
const epsilon: Partial<Record<DType, number>> = { f64: 2 ** -52, f32: 2 ** -23, f16: 2 ** -10 };

/** Applies one rule and compares both sides on random inputs, special values included. */
function check(rule: Rule, graph: Graph, random: () => number): void {
  verify(graph);
  const rewritten = applyRules(graph, testTarget, [rule]);
  expect(rewritten, `the rule does not apply to\n${graphText(graph)}`).not.toBe(graph);
  verify(rewritten);
  for (let i = 0; i < 4; i++) {
    const inputs = randomInputs(graph, random, true);
    const [before, after] = [evaluate(graph, inputs).outputs, evaluate(rewritten, inputs).outputs];
    for (const [name, want] of before) {
      const relative = rule.exactness === 'exact' ? 0 : roundingUlps * (epsilon[want.dtype] ?? 0);
      expect(difference(after.get(name)!, want, relative), `${graphText(graph)}becomes\n${graphText(rewritten)}`).toBeUndefined();
    }
  }
}

describe('rewrite rules keep the values', () => {
  it.each(simplifyRules.filter((r) => r.cases.length > 0))('$name', (rule) => {
    const random = generator(1);
    for (const text of rule.cases) check(rule, parseGraph(text), random);
  });

  it.each(algebraRules.map((rule) => ({ name: rule.name, rule })))('$name', ({ rule }) => {
    const random = generator(2);
    for (const dtype of dtypesOf(rule)) for (let i = 0; i < 8; i++) check(rule, instance(rule, dtype, random), random);
  });

  it('covers every rule', () => {
    const checked = new Set<Rule>([...algebraRules, ...simplifyRules.filter((r) => r.cases.length > 0)]);
    expect(simplifyRules.filter((r) => !checked.has(r)).map((r) => r.name)).toEqual([]);
    expect(new Set(simplifyRules.map((r) => r.name)).size).toBe(simplifyRules.length);
  });
});

function dtypesOf(rule: PatternRule): DType[] {
  switch (rule.only) {
    case 'float': return ['f32', 'f64', 'f16'];
    case 'integer': return ['i32', 'i64', 'u8'];
    case 'bool': return ['bool'];
    default: return ['f32', 'i32'];
  }
}

/** The left side of a rule as a graph: variables become inputs or constants of random shapes that broadcast together. */
function instance(rule: PatternRule, dtype: DType, random: () => number): Graph {
  const b = new Builder('left');
  const values = new Map<string, Value>();
  const full = [2, 3, 4];
  const shape = (): number[] => {
    const kind = Math.floor(random() * 4);
    if (kind === 0) return [];
    if (kind === 1) return full.map((d) => (random() < 0.5 ? 1 : d));
    return kind === 2 ? full.slice(Math.floor(random() * 3)) : full;
  };
  const build = (p: Pattern, type: DType): Value => {
    if (p.kind === 'number') return b.constant(filled(type, shape(), p.value));
    if (p.kind === 'call') return b.one(p.op, p.args.map((a, i) => build(a, operandType(p.op, i, type))));
    let value = values.get(p.name);
    if (!value) {
      const of: TensorType = { dtype: type, shape: shape() };
      value = p.kind === 'constant' ? b.constant(randomTensor(of, random)) : b.input(of, p.name);
      values.set(p.name, value);
    }
    return value;
  };
  // A literal alone must not decide everything: the left side keeps at least one variable, so inputs exist.
  const left = build(rule.left, dtype);
  return b.finish([{ name: 'y', value: left }]);
}

const operandType = (op: string, at: number, type: DType): DType => {
  if (op === 'select') return at === 0 ? 'bool' : 'f32';
  return (op === 'eq' || op === 'ne') && type === 'bool' ? 'f32' : type;
};
