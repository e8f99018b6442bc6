/** Runs training goldens as a user would: compile, loadTrainer and trainStep of the public interface. */
import { compile } from '../cli/driver/compile.ts';
import { bestFeatures } from '../cli/model.ts';
import type { Tensor } from '../ir/type.ts';
import { loadTrainer, type SharedGpu } from '../runtime/index.ts';
import type { CaseExecutor } from './golden-run.ts';

/** Compiles the case's model to an artifact and trains it with this many threads, or on a GPU. */
export const onPublic = (where: number | SharedGpu): CaseExecutor => async (_, c) => {
  const gpu = typeof where === 'object' ? where : undefined;
  const threads = typeof where === 'number' ? where : 1;
  const artifact = await compile(c.model, {
    shapes: { x: c.data.get('x')!.shape }, train: { loss: c.loss, optimizer: c.optimizer, gradients: true }, ...(gpu ? { backend: 'wgsl' } : { features: [bestFeatures()] }), ...(c.rewrite && { norm: c.rewrite }),
  });
  const trainer = await loadTrainer(artifact, gpu ? { gpu } : { threads });
  if (trainer.threads !== threads) throw new Error(`the trainer runs on ${trainer.threads} threads, ${threads} were asked for`);
  let state: ReadonlyMap<string, Tensor> | undefined;
  return {
    trained: async () => [...(await trainer.parameters()).keys()],
    async step(inputs) {
      state = undefined;
      const { loss, outputs } = await trainer.trainStep(inputs);
      return new Map([['loss', { dtype: 'f32', shape: [], data: Float32Array.of(loss) }], ...Object.entries(outputs)]);
    },
    async state(name) {
      state ??= (await trainer.checkpoint()).state;
      return state.get(name);
    },
    setState: (name, value) => trainer.setParameters({ [name]: value }),
    close: () => trainer.close(),
  };
};
