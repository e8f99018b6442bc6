import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { graphText } from '../ir/text.ts';
import { verify } from '../ir/verify.ts';
import { passes } from '../passes/pipeline.ts';
import { generator } from '../ir/generator.ts';
import { difference, randomInputs, randomTensor } from './ir/tensors.ts';
import { testTarget } from './ir/target.ts';

/**
 * test/ir/PASS.txt holds cases `== name`, the graph before, `--`, the graph after. `BLESS=1 npx vitest run test/passes.test.ts` writes the graphs after
 * from what the pass gives: read the diff. Weights that a text does not spell out are seeded random numbers.
 */
const folder = new URL('./ir/', import.meta.url);
const bless = process.env['BLESS'] === '1';

/** Passes that regroup arithmetic may differ by rounding: a few hundred products of values below 4, in f32. */
const tolerance: Readonly<Record<string, number>> = { 'fold-affine': 2e-4 };

interface Case { readonly name: string; readonly before: string; readonly after: string }

function readCases(file: URL): Case[] {
  return readFileSync(file, 'utf8').split(/^== /m).slice(1).map((part) => {
    const [head, ...rest] = part.split('\n');
    const [before, after] = rest.join('\n').split(/^--\n/m);
    return { name: head!.trim(), before: before!.trim(), after: (after ?? '').trim() };
  });
}

const parse = (text: string): Graph => {
  const random = generator(7);
  return parseGraph(text, (_, type) => randomTensor(type, random));
};

describe.each(readdirSync(folder).filter((f) => f.endsWith('.txt')))('%s', (file) => {
  const url = new URL(file, folder);
  const name = file.replace('.txt', '');
  const pass = passes.find((p) => p.name === name);
  if (!pass) throw new Error(`there is no pass ${name}`);
  const cases = readCases(url);
  const results: Case[] = [];

  it.each(cases)('$name', ({ name: title, before, after }) => {
    const graph = parse(before);
    verify(graph);
    const result = pass.run(graph, testTarget);
    verify(result);
    // State that the text before does not spell out is not spelled out after either.
    const text = graphText(result).trim().replace(/(= ("[^"]*")) \([^)]*\)/g, (all, head: string) => (before.includes(`${head} (`) ? all : head));
    results.push({ name: title, before, after: text });

    const inputs = randomInputs(graph, generator(8));
    const [want, got] = [evaluate(graph, inputs), evaluate(result, inputs)];
    for (const [output, tensor] of want.outputs) expect(difference(got.outputs.get(output)!, tensor, tolerance[name], tolerance[name]), `output ${output}\n${text}`).toBeUndefined();
    for (const [state, tensor] of want.state) expect(difference(got.state.get(state)!, tensor, tolerance[name], tolerance[name]), `state\n${text}`).toBeUndefined();
    expect(graphText(pass.run(result, testTarget)), 'a second run changes nothing').toBe(graphText(result));
    if (!bless) expect(text, `BLESS=1 npx vitest run test/passes.test.ts writes the new text into test/ir/${file}`).toBe(after);
    if (bless && results.length === cases.length) writeFileSync(url, results.map((c) => `== ${c.name}\n${c.before}\n--\n${c.after}\n`).join('\n'));
  });
});
