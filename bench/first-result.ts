/**
 * Time from opening a model to its first result, in a process of its own: node bench/first-result.ts tilewright FOLDER THREADS, or
 * node bench/first-result.ts onnxruntime-web MODEL THREADS ARTIFACT (for the types of the inputs). Prints milliseconds; the import of the runtime counts.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Manifest } from '../runtime/manifest.ts';
import { sampleTensors } from '../runtime/selfcheck.ts';

const [runtime, path, threads, manifestFolder] = process.argv.slice(2);
if (path === undefined || (runtime !== 'tilewright' && runtime !== 'onnxruntime-web')) throw new Error('usage: first-result.ts tilewright|onnxruntime-web PATH THREADS [ARTIFACT]');
const manifest = JSON.parse(readFileSync(join(manifestFolder ?? path, 'manifest.json'), 'utf8')) as Manifest;
const inputs = sampleTensors(manifest.inputs);

const begun = performance.now();
if (runtime === 'tilewright') {
  const { load } = await import('../runtime/index.ts');
  const session = await load(path, { threads: Number(threads) });
  await session.run(inputs);
} else {
  const { openPeer } = await import('../cli/peers.ts');
  const peer = await openPeer('onnxruntime-web', path, Number(threads));
  await peer.run(inputs);
}
console.log(performance.now() - begun);
process.exit(0);
