/** The graph that judges a model while it trains. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readCase } from '../bench/golden-case.ts';
import { onReference } from '../bench/golden-run.ts';
import { importModel } from '../frontend/index.ts';
import { filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Tensor } from '../ir/type.ts';
import { evaluationStep } from '../passes/train/evaluation-step.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { testTarget } from './ir/target.ts';

const root = join(import.meta.dirname, '../../shared/goldens');
const absent = !existsSync(root);

describe.skipIf(absent)(absent ? 'evaluation (skipped: ../shared/goldens is not there)' : 'evaluation', () => {
  it('reads running statistics and averages of the training step, under their names', async () => {
    const c = await readCase(join(root, 'convnet-bn-sgd-momentum'));
    const x = c.data.get('x')!;
    const trained = importModel(c.model, { shapes: { x: x.shape } });
    const step = trainingStep(trained.graph, trained.statistics, { loss: c.loss, optimizer: { ...c.optimizer, ema: 0.5 } }, testTarget, { verify: true });
    const trainer = await onReference(step);
    for (let k = 0; k < 2; k++) await trainer.step({ x, y: c.data.get('y')!, lr: filled('f32', [], c.rate) });

    const { graph } = importModel(c.model, { shapes: { x: x.shape }, inference: true });
    for (const average of [false, true]) {
      const evaluation = evaluationStep(graph, step, { loss: c.loss, average }, testTarget, { verify: true });
      const state = new Map(await Promise.all(evaluation.state.map(async (s) => [s.value, (await trainer.state(s.name))!] as const)));
      expect(evaluation.state.map((s) => s.name)).toContain(average ? '0.weight.average' : '0.weight');
      expect(evaluation.state.map((s) => s.name)).toContain('1.running_var');
      const { outputs } = evaluate(evaluation, { x, y: c.data.get('y')! }, { state });
      // The model as it would be written back: the same weights as constants, in inference.
      const values = new Map(graph.state.map((s) => [s.value, state.get(s.value)!] as [typeof s.value, Tensor]));
      const want = evaluate(graph, { x }, { state: values }).outputs.get('logits')!;
      expect(outputs.get('logits')!.data).toEqual(want.data);
      expect(Number(outputs.get('loss')!.data[0])).toBeGreaterThan(0);
    }
  });
});
