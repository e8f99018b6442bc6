import { describe, expect, it } from 'vitest';
import { UserError } from '../ir/diagnostic.ts';
import type { Graph } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { VerifyError } from '../ir/verify.ts';
import { PassError, runPipeline, type Pass } from '../passes/pipeline.ts';
import { testTarget } from './ir/target.ts';

const graph = parseGraph('graph @g(%x: f32[2]) { %0 = neg %x : f32[2] %1 = exp %x : f32[2] return "y" = %0 }');
const shorter: Graph = { ...graph, ops: graph.ops.slice(0, 1) };
const pass = (name: string, run: Pass['run']): Pass => ({ name, run });

function failure(passes: readonly Pass[], verify = false): unknown {
  try {
    runPipeline(graph, testTarget, { passes, verify });
  } catch (e) {
    return e;
  }
  return undefined;
}

describe('the pipeline', () => {
  it('shows each graph that a pass changed, and stops where it is told', () => {
    const seen: string[] = [];
    const passes = [pass('same', (g) => g), pass('shorten', () => shorter), pass('same', (g) => g), pass('never', () => graph)];
    const progress: string[] = [];
    const result = runPipeline(graph, testTarget, {
      passes, stopAfter: 'shorten', onGraph: (g, name, index) => seen.push(`${index} ${name} ${g.ops.length}`), onProgress: (name, index, of) => progress.push(`${name} ${index}/${of}`),
    });
    expect(result).toBe(shorter);
    expect(seen).toEqual(['2 shorten 1']);
    expect(progress).toEqual(['same 1/4', 'shorten 2/4']);
  });

  it('hands out the graph that went into a pass that threw', () => {
    const e = failure([pass('shorten', () => shorter), pass('broken', () => { throw new TypeError('oh'); })]);
    expect(e).toBeInstanceOf(PassError);
    expect((e as PassError).message).toBe('pass broken: oh');
    expect((e as PassError).graph).toBe(shorter);
  });

  it('finds the pass that made a graph which does not verify', () => {
    const e = failure([pass('drop', (g) => ({ ...g, ops: [] }))], true);
    expect((e as PassError).pass).toBe('drop');
    expect((e as PassError).cause).toBeInstanceOf(VerifyError);
    expect((e as PassError).graph).toBe(graph);
  });

  it("lets a user's error through", () => {
    const e = failure([pass('refuse', () => { throw new UserError('no'); })]);
    expect(e).toBeInstanceOf(UserError);
  });
});
