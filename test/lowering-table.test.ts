/** The table of ONNX ops: its rows against ONNX's own list of versions, and what it refuses. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Unsupported, UserError } from '../ir/diagnostic.ts';
import { lowerings } from '../frontend/onnx/ops/index.ts';
import { counted, f32, i64, runNode, type NodeCase } from './lowering-harness.ts';

const spec = join(import.meta.dirname, '../../shared/onnx-spec/Operators.md');

/** First version of each op that the spec describes, by table key. Removed and experimental ops have none. */
function firstVersions(): Map<string, number> {
  const sections = readFileSync(spec, 'utf8').split('\n### ').slice(1);
  const versions = new Map<string, number>();
  for (const text of sections) {
    const name = /<a name="([^"]+)"/.exec(text)?.[1];
    const current = Number(/available since version (\d+)/.exec(text)?.[1]);
    const others = (/Other versions of this operator: (.*)/.exec(text)?.[1] ?? '').replace(/<[^>]*>/g, '').split(',').filter((v) => v !== '').map(Number);
    if (name !== undefined && !Number.isNaN(current)) versions.set(name.replace(/\.([^.]*)$/, ':$1'), Math.min(current, ...others));
  }
  return versions;
}

const absent = !existsSync(spec);
describe.skipIf(absent)(absent ? 'the table against the spec (skipped: ../shared/onnx-spec is not there)' : 'the table against the spec', () => {
  it('has every op of ONNX, from its first version on', () => {
    const versions = firstVersions();
    expect(versions.size).toBeGreaterThan(190);
    const found = Object.fromEntries([...versions.keys()].map((key) => [key, lowerings[key]?.[0]?.since]));
    expect(found).toEqual(Object.fromEntries(versions));
  });
});

it('lists the rows of an op by ascending opset', () => {
  for (const [key, rows] of Object.entries(lowerings)) {
    const since = rows.map((r) => r.since);
    expect(since, key).toEqual([...new Set(since)].sort((a, b) => a - b));
  }
});

const refusals: readonly (NodeCase & { readonly what: string; readonly feature: string })[] = [
  { what: 'an attribute that the op does not have', op: 'Relu', opset: 14, attributes: { slope: 1 }, inputs: [counted([2])], feature: 'Relu attribute slope' },
  { what: 'an attribute of a later opset', op: 'AveragePool', opset: 11, attributes: { kernel_shape: [1], axes: [1] }, inputs: [counted([1, 1, 2])], feature: 'AveragePool attribute axes' },
  { what: 'four spatial axes', op: 'Conv', opset: 11, inputs: [counted([1, 1, 1, 1, 1, 1]), counted([1, 1, 1, 1, 1, 1])], feature: 'Conv over 4 spatial axes' },
  { what: 'sizes that depend on data', op: 'Unique', opset: 11, inputs: [counted([2])], feature: 'Unique of a run-time tensor' },
  { what: 'an op that was removed', op: 'Upsample', opset: 10, inputs: [counted([2]), f32([1], [2])], feature: 'Upsample' },
  { what: 'large determinants', op: 'Det', opset: 11, inputs: [counted([5, 5])], feature: 'Det of matrices above 4x4' },
];

it.each(refusals)('refuses $what by name', ({ feature, what: _, ...node }) => {
  const run = (): unknown => runNode(node);
  expect(run).toThrow(Unsupported);
  try {
    run();
  } catch (e) {
    expect((e as Unsupported).feature).toBe(feature);
  }
});

const mistakes: readonly (NodeCase & { readonly what: string; readonly message: RegExp })[] = [
  { what: 'an axis out of range', op: 'Gather', opset: 13, attributes: { axis: 2 }, inputs: [counted([2]), i64([], [0])], message: /Gather.*axis 2 is out of range for rank 1/ },
  { what: 'a shape of another size', op: 'Reshape', opset: 13, inputs: [counted([3]), i64([1], [4])], bound: [1], message: /3 elements and cannot take shape \[4\]/ },
  { what: 'an unknown mode', op: 'Resize', opset: 13, attributes: { mode: 'area' }, inputs: [counted([2]), undefined, f32([1], [2])], bound: [2], message: /mode is "area": expected nearest, linear, cubic/ },
  { what: 'legacy operands of different shapes', op: 'Add', opset: 6, inputs: [counted([2, 2]), counted([2])], message: /broadcast is not set/ },
];

it.each(mistakes)('reports $what at the node', ({ message, what: _, ...node }) => {
  const run = (): unknown => runNode(node);
  expect(run).toThrow(UserError);
  expect(run).toThrow(message);
});
