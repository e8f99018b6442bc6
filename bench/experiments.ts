/**
 * Runs the experiments of docs/experiments.md and writes their tables and pictures: npm run experiments -- [two-domains] [micro-batches] [clipping] [--data ../shared/datasets] [--seeds 5] [--samples 6000] [--tests 2000]
 *
 * Seeds are 0 to 4. Fewer seeds or samples are for trying it out: the page then shows those.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { clippingExperiment } from './experiments/clipping.ts';
import { microBatchExperiment } from './experiments/micro-batches.ts';
import { twoDomains } from './experiments/two-domains.ts';

const experiments = { 'two-domains': twoDomains, 'micro-batches': microBatchExperiment, clipping: clippingExperiment } as const;
const { values, positionals } = parseArgs({
  allowPositionals: true, options: { data: { type: 'string', default: join(import.meta.dirname, '../../shared/datasets') }, seeds: { type: 'string', default: '5' }, samples: { type: 'string', default: '6000' }, tests: { type: 'string', default: '2000' } },
});
const wanted = positionals.length > 0 ? positionals : Object.keys(experiments);
const unknown = wanted.find((name) => !(name in experiments));
if (unknown !== undefined || !existsSync(values.data)) {
  console.error(unknown === undefined ? `there is no folder ${values.data}; name the one that holds mnist/ and optdigits/ with --data` : `there is no experiment ${unknown}; there are ${Object.keys(experiments).join(', ')}`);
  process.exit(2);
}
const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i);
for (const name of wanted as (keyof typeof experiments)[]) {
  const began = performance.now();
  await experiments[name](values.data, seeds, Number(values.samples), Number(values.tests));
  console.log(`${name}: ${((performance.now() - began) / 1000).toFixed(0)} s\n`);
}
