/** Training goldens over micro-batches: as the whole batch, but for batch norm. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readCase } from '../bench/golden-case.ts';
import { microBatches, runMicroBatch } from '../bench/golden-micro.ts';
import { onReference } from '../bench/golden-run.ts';

const folder = join(import.meta.dirname, '../../shared/goldens');

describe.skipIf(!existsSync(folder))(existsSync(folder) ? 'micro-batches' : 'micro-batches (skipped: ../shared/goldens is not there)', () => {
  it.each(['rewrite-ln-pn-relu', 'mlp-label-smoothing-ignore'])('of %s give the gradients of the whole batch', async (name) => {
    const c = await readCase(join(folder, name));
    for (const size of microBatches(c, 'all')) expect((await runMicroBatch(c, size, onReference, false)).problems).toEqual([]);
  });

  it('of a model with batch norm are refused by its name, and differ where they are allowed', async () => {
    const c = await readCase(join(folder, 'convnet-bn-sgd-momentum'));
    expect(await runMicroBatch(c, 2, onReference, false)).toMatchObject({ problems: [], found: expect.stringMatching(/^refused: BatchNormalization\(/) as string });
    expect(await runMicroBatch(c, 2, onReference, true)).toMatchObject({ problems: [], found: expect.stringMatching(/^differs/) as string });
  });

  it('are the divisors of the batch', async () => {
    const c = await readCase(join(folder, 'rewrite-ln-pn-relu'));
    expect([microBatches(c, 'all'), microBatches(c, '2'), microBatches(c, '4')]).toEqual([[1, 2, 3, 6], [2], []]);
  });
});
