/** Training steps against PyTorch, on the interpreter: some of the cases that `npm run goldens` runs in full. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readCase } from '../bench/golden-case.ts';
import { onReference, runGolden } from '../bench/golden-run.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { testTarget } from './ir/target.ts';

const root = join(import.meta.dirname, '../../shared/goldens');
const absent = !existsSync(root);

describe.skipIf(absent)(absent ? 'goldens (skipped: ../shared/goldens is not there)' : 'goldens', () => {
  it.each(['mlp-label-smoothing-ignore', 'mlp-mae-lars-ema', 'mlp-clip-norm', 'convnet-bn-sgd-momentum', 'convnet-agc-gc', 'convnet-gcc-adamw-author', 'unit-axes-agc', 'transformer-adamw', 'nfnet-agc', 'rewrite-gn4-pn-silu', 'rewrite-resnet-gn4-pn-relu'])('%s', async (name) => {
    const result = await runGolden(await readCase(join(root, name)), onReference);
    expect(result.problems).toEqual([]);
    expect(result.compared).toBeGreaterThan(40);
  });
  it.each(['mlp-label-smoothing-ignore', 'convnet-bn-sgd-momentum', 'resnet-in-adamw', 'unet-mse'])('%s after the passes that compile the step', async (name) => {
    const result = await runGolden(await readCase(join(root, name)), (step) => onReference({ ...step, graph: runPipeline(step.graph, testTarget, { verify: true }) }));
    expect(result.problems).toEqual([]);
  });
});
