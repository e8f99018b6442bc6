/**
 * Runs the zoo's architectures, and rewritten models, in onnxruntime and compiled: npm run zoo:onnxruntime -- [--filter TEXT] [--image 64]
 *
 * Each is written as ONNX with seeded weights (gains, shifts and proxies moved off their start) and run on two images. Prints the largest difference between both results, in parts of the
 * largest output; exits with 1 where one is above 1e-3.
 */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { rewrittenOnnx } from '../cli/driver/export.ts';
import { table } from '../cli/print.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, zooModel } from '../frontend/zoo/index.ts';
import { compile } from '../index.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { load } from '../runtime/index.ts';
import { commandLine, text } from './options.ts';

const { options } = commandLine('npm run zoo:onnxruntime', '', { filter: text('TEXT'), image: 64 });
const limit = 1e-3;
/** Architecture, and what its batch norms become: built so (`new --norm`), or rewritten (`compile --norm --onnx`). */
const cases = [
  ['resnet-20', '', ''], ['resnet-50', '', ''], ['resnet-50-v2', '', ''], ['resnext-50', '', ''], ['nf-resnet-50', '', ''], ['nfnet-f0', '', ''], ['mobilenet-v2', '', ''], ['efficientnet-b0', '', ''], ['efficientnet-b0-g16', 'layer+proxy', ''],
  ['resnet-50', '', 'group:32'], ['resnet-50', '', 'group:4+proxy'], ['resnext-50', '', 'layer'], ['mobilenet-v2', '', 'layer+proxy'], ['efficientnet-b0', '', 'layer+proxy'],
] as const;

const rows: string[][] = [];
for (const [name, built, norm] of cases) {
  if (options.filter !== undefined && !`${name} ${norm}`.includes(options.filter)) continue;
  const shape = [3, options.image, options.image] as const;
  const model = zooModel(name, { image: shape, classes: 10, training: norm !== '', ...(built !== '' && { norm: parseNorm(built) as never }) });
  const plain = onnxBytes(model, (w) => initialValues(w, 0).map((v, i) => (/gain|proxy|bias/.test(w.name) ? v + 0.1 * Math.sin(i + w.name.length) : v)));
  const bytes = norm === '' ? plain : rewrittenOnnx(plain, parseNorm(norm));
  const x = Float32Array.from({ length: 2 * 3 * options.image ** 2 }, (_, i) => Math.sin(i * 1.7) + Math.cos(i * 0.31));
  const peer = await InferenceSession.create(bytes);
  const wanted = (await peer.run({ x: new Tensor('float32', x, [2, ...shape]) }))['logits']!.data as Float32Array;
  await using session = await load(await compile(bytes, { dims: { n: 2 }, features: ['relaxed'] }), { threads: 2 });
  const got = (await session.run({ x }))['logits']!.data as Float32Array;
  const largest = wanted.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const error = wanted.reduce((m, v, i) => Math.max(m, Math.abs(v - got[i]!)), 0) / largest;
  rows.push([name, built === '' ? 'as it is' : `built with ${built}`, norm, error.toExponential(1), largest.toPrecision(2)]);
  if (!(error <= limit)) process.exitCode = 1;
}
for (const line of table(['architecture', 'norms', 'rewritten to', 'largest difference', 'largest output'], rows, [3, 4])) console.log(line);
