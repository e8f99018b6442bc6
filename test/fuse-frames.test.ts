/** Values that rows read and what rows are reduced to reads as well: along other axes, or along axes of another number. */
import { expect, it } from 'vitest';
import { artifactOf } from '../cli/driver/compile.ts';
import { evaluate } from '../ir/evaluate.ts';
import { parseGraph } from '../ir/parse.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { load } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { generator } from '../ir/generator.ts';
import { difference, randomInputs } from './ir/tensors.ts';

const reduced = (x: string, s: string, t: string): string =>
  `graph @g(%x: f32[${x}], %s: f32[${s}]) { %a = mul %x, %s : f32[${x}] %q = abs %a : f32[${x}] %t = reduceSum %q {axes=[1]} : f32[${t}] %y = sub %t, %s : f32[${t}] return "y" = %y }`;
const rows = (x: string, s: string, t: string, kept: string): string =>
  `graph @g(%x: f32[${x}], %s: f32[${s}]) {
    %t = reduceSum %x {axes=[1]} : f32[${t}] %u = mul %t, %s : f32[${t}] %r = reshape %u {shape=[${kept}]} : f32[${kept}]
    %y = sub %x, %r : f32[${x}] %z = mul %y, %s : f32[${x}] return "z" = %z, "u" = %u }`;

it.each([
  ['columns before the sum, rows after', reduced('3,3', '3', '3')],
  ['the last of three axes before the sum, of two after', reduced('2,3,5', '5', '2,5')],
  ['one element before the sum and after', reduced('3,4', '1', '3')],
  ['one element of rows that are reduced to one', reduced('1,5', '1', '1')],
  ['rows of what comes back to rows, then columns', rows('3,3', '3', '3', '3,1')],
  ['the last of two axes of what comes back, then of three', rows('2,3,5', '5', '2,5', '2,1,5')],
  ['one element of what comes back, and of the rows', rows('2,3,5', '1', '2,5', '2,1,5')],
])('%s', async (_, text) => {
  const graph = parseGraph(text);
  const inputs = Object.fromEntries([...randomInputs(graph, generator(3))].map(([v, t]) => [v.name!, t]));
  const fused = runPipeline(graph, testTarget, { verify: true });
  await using session = await load(await artifactOf({ graph: fused, imported: { bound: {}, dims: {}, warnings: [] } }), { threads: 1 });
  const got = await session.run(inputs);
  for (const [name, want] of evaluate(graph, inputs).outputs) expect(difference(got[name] as typeof want, want, 1e-5, 1e-5), name).toBeUndefined();
});
