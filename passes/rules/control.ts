/** Rules about branches and loops whose course is known, and what their regions capture. */
import type { Builder } from '../../ir/builder.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { capturedInput, firstCaptured } from '../../ir/regions.ts';
import type { Facts } from '../../ir/rewrite.ts';
import type { Rule } from './rule.ts';

/** Constants of up to this many elements are copied into the regions that read them. */
const smallConstant = 16;

/** Writes the ops of a region into `b`, its inputs replaced, and returns the values of its outputs. */
function inline(region: Graph, operands: readonly Value[], b: Builder): Value[] {
  const at = new Map(region.inputs.map((v, i) => [v, operands[i]!]));
  const get = (v: Value): Value => at.get(v) ?? v;
  for (const op of region.ops) b.op(op.name, op.operands.map(get), op.attrs, op.regions, op.results.map((r) => r.name)).forEach((v, i) => at.set(op.results[i]!, v));
  return region.outputs.map((o) => get(o.value));
}

const branchRule: Rule = {
  name: 'if(true, x) = then(x), if(false, x) = else(x)',
  roots: ['if'],
  exactness: 'exact',
  apply: (op, b, facts) => {
    const condition = facts.constant(op.operands[0]!);
    return condition && inline(op.regions[Number(condition.data[0]) ? 0 : 1]!, op.operands.slice(1), b);
  },
  cases: [
    'graph @m(%x: f32[3]) { %c = constant {value=bool[](0)} : bool[] %0 = if %c, %x (%a: f32[3]) { %1 = neg %a : f32[3] return %1 } (%b: f32[3]) { %2 = exp %b : f32[3] return %2 } : f32[3] return %0 }',
  ],
};

const singleTripRule: Rule = {
  name: 'loop of one trip = its body',
  roots: ['loop'],
  exactness: 'exact',
  apply: (op, b) => {
    const body = op.regions[0]!;
    if (num(op.attrs, 'trips') !== 1) return undefined;
    const carried = num(op.attrs, 'carried');
    const [, ...made] = inline(body, [b.scalar(0n, 'i64'), ...op.operands.slice(2)], b);
    return made.map((v, i) => (i < carried ? v : b.reshape(v, [1, ...v.type.shape])));
  },
  cases: [
    `graph @m(%x: f32[3], %y: f32[3]) { %n = constant {value=i64[](1)} : i64[] %t = constant {value=bool[](1)} : bool[]
       %0, %1 = loop %n, %t, %x, %y {trips=1, carried=1, scans=1} (%i: i64[], %c: f32[3], %k: f32[3]) {
         %go = constant {value=bool[](1)} : bool[] %2 = add %c, %k : f32[3] %3 = exp %2 : f32[3] return %go, %2, %3
       } : f32[3], f32[1,3] return "a" = %0, "b" = %1 }`,
  ],
};

const captureRule: Rule = {
  name: 'a captured small constant = the constant inside; what is captured and not read = nothing',
  roots: ['if', 'loop'],
  exactness: 'exact',
  apply: (op, b, facts) => {
    const dropped = op.operands.flatMap((v, i) => (i >= firstCaptured(op) && (isSmall(v, facts) || !op.regions.some((g) => reads(g, capturedInput(g, i)))) ? [i] : []));
    if (dropped.length === 0) return undefined;
    const regions = op.regions.map((g) => ({
      ...g,
      inputs: g.inputs.filter((v) => !dropped.some((i) => capturedInput(g, i) === v)),
      ops: [
        ...dropped.flatMap((i): Op[] => {
          const [value, input] = [facts.constant(op.operands[i]!), capturedInput(g, i)];
          return value && reads(g, input) ? [{ name: 'constant', operands: [], attrs: { value }, results: [input], regions: [], source: [] }] : [];
        }),
        ...g.ops,
      ],
    }));
    return b.op(op.name, op.operands.filter((_, i) => !dropped.includes(i)), op.attrs, regions);
  },
  cases: [
    `graph @m(%p: bool[], %x: f32[3], %y: f32[3]) { %k = constant {value=f32[](2)} : f32[]
       %0 = if %p, %x, %k, %y (%a: f32[3], %b: f32[], %u: f32[3]) { %1 = mul %a, %b : f32[3] return %1 } (%c: f32[3], %d: f32[], %v: f32[3]) { return %c } : f32[3] return %0 }`,
    `graph @m(%x: f32[3]) { %n = constant {value=i64[](3)} : i64[] %t = constant {value=bool[](1)} : bool[] %k = constant {value=f32[](2)} : f32[]
       %0 = loop %n, %t, %x, %k {trips=3, carried=1, scans=0} (%i: i64[], %c: f32[3], %b: f32[]) {
         %go = constant {value=bool[](1)} : bool[] %2 = mul %c, %b : f32[3] return %go, %2
       } : f32[3] return %0 }`,
  ],
};

const isSmall = (v: Value, facts: Facts): boolean => (facts.constant(v)?.data.length ?? Infinity) <= smallConstant;
const reads = (g: Graph, v: Value): boolean => g.outputs.some((o) => o.value === v) || g.ops.some((o) => o.operands.includes(v));

export const controlRules: readonly Rule[] = [branchRule, singleTripRule, captureRule];
