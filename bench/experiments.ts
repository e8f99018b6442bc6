/**
 * Runs the experiments of docs/experiments.md and writes their tables and pictures: npm run experiments -- [two-domains] [micro-batches] [clipping] [--data ../shared/datasets] [--seeds 5] [--samples 6000] [--tests 2000]
 *
 * Seeds are 0 to 4. Fewer seeds or samples are for trying it out: the page then shows those.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { clippingExperiment } from './experiments/clipping.ts';
import { microBatchExperiment } from './experiments/micro-batches.ts';
import { twoDomains } from './experiments/two-domains.ts';
import { commandLine, stop, text } from './options.ts';

const experiments = { 'two-domains': twoDomains, 'micro-batches': microBatchExperiment, clipping: clippingExperiment } as const;
const { options, operands } = commandLine('npm run experiments', `[${Object.keys(experiments).join('|')}...]`, { data: text('FOLDER'), seeds: 5, samples: 6000, tests: 2000 });
const data = options.data ?? join(import.meta.dirname, '../../shared/datasets');
const wanted = operands.length > 0 ? operands : Object.keys(experiments);
const unknown = wanted.find((name) => !(name in experiments));
if (unknown !== undefined) stop(`there is no experiment ${unknown}; there are ${Object.keys(experiments).join(', ')}`);
if (!existsSync(data)) stop(`there is no folder ${data}; name the one that holds mnist/ and optdigits/ with --data`);
const seeds = Array.from({ length: options.seeds }, (_, i) => i);
for (const name of wanted as (keyof typeof experiments)[]) {
  const began = performance.now();
  await experiments[name](data, seeds, options.samples, options.tests);
  console.log(`${name}: ${((performance.now() - began) / 1000).toFixed(0)} s\n`);
}
