/**
 * Rewrites the batch norms of ResNet-50 and EfficientNet-B0, and proves that no sample influences another any more: npm run bench:rewrite -- [--norm group:4+proxy]
 *
 * Prints for each model how many norms it has, how many were rewritten, and the median time of five rewrites; exits with 1 where one was left, a proof failed, or the time is a second or more.
 */
import { wasmTarget } from '../cli/driver/target.ts';
import { table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { importModel } from '../frontend/index.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, zooModel } from '../frontend/zoo/index.ts';
import { proofBatches, proveBatchIndependence } from '../passes/batch-independence.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { commandLine, text } from './options.ts';

const { options } = commandLine('npm run bench:rewrite', '', { norm: text('NORM') });
const limit = 1000;
const rows: string[][] = [];
for (const [name, usual] of [['resnet-50', 'group:4+proxy'], ['efficientnet-b0', 'layer+proxy']] as const) {
  const norm = options.norm ?? usual;
  const zoo = zooModel(name, { training: true });
  const bytes = onnxBytes(zoo, (w) => initialValues(w, 0));
  const [model, other] = proofBatches.map((n) => importModel(bytes, { dims: { n } }));
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const began = performance.now();
    rewriteNorms(model!, parseNorm(norm), wasmTarget);
    times.push(performance.now() - began);
  }
  const [rewritten, twin] = [model!, other!].map((m) => rewriteNorms(m, parseNorm(norm), wasmTarget));
  const norms = zoo.nodes.filter((n) => n.op === 'BatchNormalization').length;
  const began = performance.now();
  const verdict = proveBatchIndependence(rewritten!.graph, wasmTarget, twin!.graph, [model!, other!]);
  const proof = performance.now() - began;
  const done = new Set(rewritten!.rewritten.map((r) => r.node)).size;
  rows.push([name, norm, String(norms), String(done), String(rewritten!.rewritten.filter((r) => r.proxy.length > 0).length), `${median(times).toFixed(0)} ms`, `${proof.toFixed(0)} ms`, verdict.proved ? 'proved' : verdict.reason]);
  if (done !== norms || !verdict.proved || median(times) >= limit) process.exitCode = 1;
}
for (const line of table(['model', 'norm', 'norms', 'rewritten', 'with proxy', 'rewriting', 'proof', 'batch independence'], rows, [2, 3, 4, 5, 6])) console.log(line);
