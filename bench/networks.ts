/**
 * The speed of whole networks beside another runtime: `npm run bench -- FOLDER [--threads 1,2] [--runs 10] [--against onnxruntime-web] [--wide] [--sync]
 * [--only name,name]`. Prints a line a model and number of threads: medians of interleaved runs, their ratio, and what a second thread gives.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commandLine, stop, text } from './options.ts';

interface Result { readonly runtime: string; readonly threads: number; readonly median: number; readonly fastest: number; readonly difference: number }

const { options, operands: [folder = ''], usage } = commandLine('npm run bench', 'FOLDER', { threads: [1, 2], runs: 10, against: 'onnxruntime-web', wide: false, sync: false, only: text('NAME,NAME') });
if (!existsSync(folder)) stop(`there is no folder ${folder}; ${usage}`);
const only = options.only?.split(',') ?? [];
const entry = fileURLToPath(new URL('../cli/tilewright.js', import.meta.url));

console.log('| model | threads | ours, ms | theirs, ms | ratio | fastest: ours, theirs | against 1 thread |\n|---|---|---|---|---|---|---|');
for (const file of readdirSync(folder).filter((name) => name.endsWith('.onnx')).sort()) {
  const model = basename(file, '.onnx');
  if (only.length > 0 && !only.includes(model)) continue;
  const args = [entry, 'bench', join(folder, file), '--threads', options.threads.join(), '--against', options.against, '--runs', String(options.runs), '--json', ...(options.wide ? ['--wide'] : []), ...(options.sync ? ['--sync'] : [])];
  const { results } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })) as { readonly results: readonly Result[] };
  const ours = results.filter((r) => r.runtime.startsWith('tilewright'));
  for (const r of ours) {
    const single = ours.find((o) => o.threads === 1);
    for (const peer of results.filter((p) => p.threads === r.threads && !p.runtime.startsWith('tilewright'))) {
      const scaling = single && r.threads > 1 ? `${(single.median / r.median).toFixed(2)}x` : '';
      console.log(`| ${model} | ${r.threads} | ${r.median.toFixed(1)} | ${peer.median.toFixed(1)} | ${(peer.median / r.median).toFixed(2)}x | ${r.fastest.toFixed(1)}, ${peer.fastest.toFixed(1)} | ${scaling} |`);
    }
  }
}
