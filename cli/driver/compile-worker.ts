/** The thread of compileInWorker: compiles what it is given, answers once and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { ArtifactObject } from '../../runtime/artifact.ts';
import { compile } from './compile.ts';
import type { CompileAnswer, CompileRequest } from './compile-in-worker.ts';

const { model, options } = workerData as CompileRequest;
try {
  const artifact = await packed(await compile(model, options));
  parentPort?.postMessage({ artifact } satisfies CompileAnswer, weightsOf(artifact));
} catch (e) {
  const user = e instanceof UserError;
  const feature = e instanceof Unsupported ? e.feature : undefined;
  const error = { user, feature, message: e instanceof Error ? e.message : String(e), stack: e instanceof Error ? e.stack : undefined };
  parentPort?.postMessage({ error } satisfies CompileAnswer);
}

/** The artifact as plain data: weights in one piece, no hooks. */
async function packed({ manifest, modules, shaders, weights, fallback }: ArtifactObject): Promise<ArtifactObject> {
  return { manifest, modules, ...(shaders && { shaders }), weights: await joined(weights), ...(fallback && { fallback: await packed(fallback) }) };
}

async function joined(weights: ArtifactObject['weights']): Promise<Uint8Array> {
  if (weights instanceof Uint8Array) return weights.slice();
  const bytes = new Uint8Array(weights.size ?? 0);
  await weights.read(0, bytes);
  return bytes;
}

/** The memory of the weights, which changes hands instead of being copied. */
function weightsOf({ weights, fallback }: ArtifactObject): ArrayBuffer[] {
  return [(weights as Uint8Array<ArrayBuffer>).buffer, ...(fallback ? weightsOf(fallback) : [])];
}
