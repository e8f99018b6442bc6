/** Weights that a model stores in 8 bits: what of them folds while compiling, and what each run widens. */
import { describe, expect, it } from 'vitest';
import { wasmTarget, wgslTarget } from '../cli/driver/target.ts';
import { artifactOf } from '../cli/driver/compile.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { tensorAttr } from '../ir/op.ts';
import { bytesOf, sizeOf, tensorType, type Tensor } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { load } from '../runtime/index.ts';
import { difference } from './ir/tensors.ts';

const bytes = (shape: readonly number[]): Tensor => ({ dtype: 'i8', shape: [...shape], data: Int8Array.from({ length: sizeOf(shape) }, (_, i) => ((i * 37) % 251) - 125) });
const floats = (shape: readonly number[], scale: number): Tensor => ({ dtype: 'f32', shape: [...shape], data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => scale * Math.sin(1 + 2.3 * i)) });

/** A weight as DequantizeLinear gives it: (q - zero) · scale. */
function widened(b: Builder, shape: readonly number[], scale: readonly number[]): Value {
  return b.mul(b.sub(b.cast(b.constant(bytes(shape)), 'f32'), 3), b.constant({ dtype: 'f32', shape: scale, data: Float32Array.from({ length: sizeOf(scale) }, (_, i) => 0.01 + 0.001 * i) }));
}

function product(k: number, n: number): Graph {
  const b = new Builder('product');
  return b.finish([{ name: 'y', value: b.contract('mk,kn->mn', b.input(tensorType('f32', [2, k]), 'x'), widened(b, [k, n], [n])) }]);
}

function convolution(): Graph {
  const b = new Builder('convolution');
  const x = b.input(tensorType('f32', [1, 16, 9, 7]), 'x');
  return b.finish([{ name: 'y', value: b.one('conv', [x, widened(b, [24, 16, 3, 3], [24, 1, 1, 1])], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 }) }]);
}

/** Bytes of the weights that a compiled graph holds, by dtype. */
function held(graph: Graph): Record<string, number> {
  const types = [...graph.state.map((s) => s.value.type), ...graph.ops.filter((op) => op.name === 'constant').map((op) => tensorAttr(op.attrs, 'value'))];
  const sums: Record<string, number> = {};
  for (const t of types) sums[t.dtype] = (sums[t.dtype] ?? 0) + bytesOf(t);
  return sums;
}
const has = (graph: Graph, name: string): boolean => graph.ops.some((op) => op.name === name);

describe('a weight of 8 bits', () => {
  it.each([['product', product(64, 96), 64 * 96], ['convolution', convolution(), 24 * 16 * 9]] as const)('of a %s stays as it is stored where floats outgrow the budget, and each run packs it', async (_, graph, size) => {
    const compiled = runPipeline(graph, wasmTarget, { verify: true });
    expect(held(compiled)['i8']).toBe(size);
    expect(held(compiled)['f32'] ?? 0).toBeLessThan(4096);
    expect(has(compiled, 'packMatmul') || has(compiled, 'packConv')).toBe(true);

    const x = floats(graph.inputs[0]!.type.shape, 1);
    const want = evaluate(graph, { x }).outputs.get('y')!;
    expect(difference(evaluate(compiled, { x }).outputs.get('y')!, want, 1e-4, 1e-4)).toBeUndefined();
    await using session = await load(await artifactOf({ graph: compiled, imported: { bound: {}, dims: {}, warnings: [] } }), { threads: 2 });
    // The second run packs again, over memory that the first has used.
    await session.run({ x });
    expect(difference((await session.run({ x }))['y'] as Tensor, want, 1e-4, 1e-4)).toBeUndefined();
  });

  it('is widened while compiling where the budget, its size or the storage of the target allow', () => {
    const floatsAlone = (graph: Graph): void => {
      expect(held(graph)['i8'] ?? 0).toBe(0);
      expect(graph.ops.filter((op) => op.name === 'cast')).toEqual([]);
    };
    floatsAlone(runPipeline(product(64, 96), { ...wasmTarget, packBudget: 4 }));
    floatsAlone(runPipeline(product(16, 32), wasmTarget));
    floatsAlone(runPipeline(product(64, 96), wgslTarget));
  });
});
