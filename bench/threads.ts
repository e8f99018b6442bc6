/**
 * Trains the networks of bench:train, the residual ones on batches of 16, from one seed on 1, 2 and 3 threads, and compares losses, outputs and all state to the bit.
 * npm run bench:threads -- [--steps 200] [--threads 1,2,3] [--only TEXT]
 */
import { createHash } from 'node:crypto';
import { compile } from '../cli/driver/compile.ts';
import { bestFeatures } from '../cli/model.ts';
import { loadTrainer } from '../runtime/index.ts';
import { commandLine } from './options.ts';
import { convnet, numbers, resnet20 } from './train-networks.ts';

const { options } = commandLine('npm run bench:threads', '', { steps: 200, threads: [1, 2, 3], only: '' });
const { steps } = options;
/** Samples of a step of the residual networks: enough for kernels to be cut into chunks for every thread. */
const resnetBatch = 16;
/** Steps between two looks at all state. */
const every = 50;

for (const network of [resnet20('group', resnetBatch), resnet20('batch', resnetBatch), convnet()].filter((n) => n.name.includes(options.only))) {
  const optimizer = { kind: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 5e-4, gc: {}, agc: { lambda: 0.02 } } as const;
  const artifact = await compile(network.model, { file: network.name, features: [bestFeatures()], train: { loss: { kind: 'crossEntropy' }, optimizer } });
  const digests: string[] = [];
  for (const threads of options.threads) {
    await using trainer = await loadTrainer(artifact, { threads });
    if (trainer.threads !== threads) throw new Error(`the trainer runs on ${trainer.threads} threads, ${threads} were asked for`);
    const hash = createHash('sha256');
    const add = (data: ArrayBufferView): void => void hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    const began = performance.now();
    let last = 0;
    for (let k = 0; k < steps; k++) {
      const x = numbers(network.input.reduce((n, d) => n * d), 1000 + k);
      const { loss, outputs } = await trainer.trainStep({ x, y: BigInt64Array.from({ length: network.input[0] }, (_, i) => BigInt((i * 7 + k) % network.classes)), lr: 0.02 });
      last = loss;
      add(Float64Array.of(loss));
      for (const t of Object.values(outputs)) add(t.data);
      if ((k + 1) % every === 0 || k === steps - 1) for (const t of (await trainer.checkpoint()).state.values()) add(t.data);
    }
    digests.push(hash.digest('hex').slice(0, 32));
    console.log(`${network.name}: ${steps} steps on ${threads} ${threads === 1 ? 'thread' : 'threads'}, last loss ${last}, ${digests.at(-1)}, ${((performance.now() - began) / 1000).toFixed(1)} s`);
  }
  const same = new Set(digests).size === 1;
  console.log(`  ${same ? 'equal to the bit' : 'they differ'}`);
  if (!same) process.exitCode = 1;
}
