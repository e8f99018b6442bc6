/** Layouts are judged by what the ops that read them pay, too. */
import { describe, expect, it } from 'vitest';
import { readTarget } from '../cli/driver/target-file.ts';
import { evaluate } from '../ir/evaluate.ts';
import { parseGraph } from '../ir/parse.ts';
import { run, type Spread } from '../ir/tiles.ts';
import { Chooser } from '../passes/tile/choose.ts';
import { Outlook } from '../passes/tile/outlook.ts';
import { withConstants } from '../passes/tile/target.ts';
import { difference } from './ir/tensors.ts';
import { planned, runPlan, tensorOf } from './tiles-harness.ts';

const tiles = 4;
const target = withConstants(readTarget('mk2'), { tiles });
const perCycle = target.constants.exchange;
const onOne: Spread = { base: 0, dims: [], axes: [{ by: [], combs: [run(0, 64)] }, { by: [], combs: [run(0, 64)] }] };
const rows: Spread = { base: 0, dims: [{ name: 'm', parts: tiles, stride: 1 }], axes: [{ by: [0], combs: [0, 16, 32, 48].map((from) => run(from, 16)) }, { by: [], combs: [run(0, 64)] }] };

describe('what comes after a layout', () => {
  it('costs nothing where an elementwise op works in place, and no less than leaving tiles idle where all lies on one', () => {
    const graph = parseGraph('graph @g(%x: f32[64,64]) { %a = exp %x : f32[64,64] return "a" = %a }');
    const outlook = new Outlook(graph, target, new Chooser(target, 2 ** 20));
    expect(outlook.cyclesAfter(graph.inputs[0]!, rows)).toBe(0);
    expect(outlook.cyclesAfter(graph.inputs[0]!, onOne)).toBeGreaterThan(0);
  });

  it('costs the exchange of what a product reads elsewhere, at most', () => {
    const graph = parseGraph('graph @g(%x: f32[64,64], %w: f32[64,64]) { %y = contract %x, %w {spec="mk,kn->mn"} : f32[64,64] return "y" = %y }');
    const chooser = new Chooser(target, 2 ** 20);
    const outlook = new Outlook(graph, target, chooser);
    const [x] = graph.inputs;
    for (const way of chooser.waysOf(graph.ops[0]!).slice(0, 1)) expect(outlook.cyclesAfter(x!, way.needs[0]!)).toBe(0);
    expect(outlook.cyclesAfter(x!, onOne)).toBeGreaterThan(0);
    expect(outlook.cyclesAfter(x!, onOne)).toBeLessThanOrEqual((64 * 64 * 4) / perCycle);
  });

  it('counts each reader, those of a reshape in between too', () => {
    const read = (text: string): number => {
      const graph = parseGraph(`graph @g(%x: f32[64,64], %w: f32[64,64]) { ${text} }`);
      return new Outlook(graph, target, new Chooser(target, 2 ** 20)).cyclesAfter(graph.inputs[0]!, { ...rows, axes: [rows.axes[1]!, rows.axes[0]!] });
    };
    const product = (of: string, as: string): string => `%${as} = contract %${of}, %w {spec="mk,kn->mn"} : f32[64,64]`;
    const one = read(`${product('x', 'y')} return "y" = %y`);
    expect(one).toBeGreaterThan(0);
    expect(read(`${product('x', 'y')} ${product('x', 'z')} return "y" = %y, "z" = %z`)).toBeCloseTo(2 * one);
    expect(read(`%a = reshape %x {shape=[64,1,64]} : f32[64,1,64] %b = reshape %a {shape=[64,64]} : f32[64,64] ${product('b', 'y')} return "y" = %y`)).toBeCloseTo(one);
  });

  it('changes no number', () => {
    const graph = parseGraph('graph @g(%x: f32[8,64], %w: f32[64,64], %v: f32[64,32]) { %a = contract %x, %w {spec="mk,kn->mn"} : f32[8,64] %b = relu %a : f32[8,64] %c = contract %b, %v {spec="mk,kn->mn"} : f32[8,32] %s = reduceSum %c {axes=[0]} : f32[32] return "c" = %c, "s" = %s }');
    const inputs = Object.fromEntries(graph.inputs.map((v, k) => [v.name!, tensorOf(v.type, (i) => Math.sin(i * 1.7 + k))]));
    const t = planned(graph, 16);
    const found = runPlan(t, t.planned.plan, inputs);
    for (const [name, want] of evaluate(graph, inputs).outputs) expect(difference(found.outputs.get(name)!, want, 1e-4, 1e-4)).toBeUndefined();
  });
});
