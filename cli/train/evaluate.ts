/** How good a model is on a set of samples. */
import type { LossSpec } from '../../passes/train/options.ts';
import type { Epoch } from '../../runtime/data/index.ts';
import type { Tensor, TypedArray } from '../../runtime/tensor.ts';
import type { Trainer } from '../../runtime/trainer.ts';

export interface Evaluation {
  /** The plain mean over all samples: no smoothing, no class weights. */
  readonly loss: number;
  /** Share of right answers; undefined where targets are no classes. */
  readonly accuracy: number | undefined;
}

/** Evaluates all samples of an epoch whose last batch is filled up. */
export async function evaluate(trainer: Trainer, epoch: Epoch, loss: LossSpec, names: { readonly x: string; readonly y: string }): Promise<Evaluation> {
  const sum = { loss: 0, right: 0, terms: 0 };
  const given = (inputs: Record<string, TypedArray>): Record<string, TypedArray> => Object.fromEntries(trainer.entries.eval.inputs.map((i) => [i.name, inputs[i.name]!]));
  for (let b = 0; b < epoch.batches; b++) {
    const { x, y, count } = epoch.at(b);
    const outputs = await trainer.evaluate(given({ [names.x]: x, [names.y]: y }));
    if (loss.kind === 'output') {
      sum.loss += count * Number(outputs[loss.name]!.data[0]);
      sum.terms += count;
    } else addTerms(sum, loss, outputs[trainer.entries.eval.outputs[0]!.name]!, y, count);
  }
  return { loss: sum.loss / sum.terms, accuracy: loss.kind === 'crossEntropy' ? sum.right / sum.terms : undefined };
}

/** Adds the losses of a batch's first `count` samples. */
function addTerms(sum: { loss: number; right: number; terms: number }, loss: Exclude<LossSpec, { readonly kind: 'output' }>, output: Tensor, y: TypedArray, count: number): void {
  const x = output.data as Float32Array;
  const perSample = x.length / output.shape[0]!;
  if (loss.kind !== 'crossEntropy') {
    for (let i = 0; i < count * perSample; i++) sum.loss += elementLoss(loss, x[i]!, Number(y[i]));
    sum.terms += count * perSample;
    return;
  }
  const axis = loss.axis ?? 1;
  const classes = output.shape[axis]!;
  const inner = output.shape.slice(axis + 1).reduce((n, d) => n * d, 1);
  const positions = (count * perSample) / classes;
  for (let p = 0; p < positions; p++) {
    const start = Math.floor(p / inner) * classes * inner + (p % inner);
    const logits = Array.from({ length: classes }, (_, c) => x[start + c * inner]!);
    const wanted = loss.target === 'probabilities' ? largest(Array.from({ length: classes }, (_, c) => Number(y[start + c * inner]))) : Number(y[p]);
    if (wanted === loss.ignoreIndex) continue;
    const top = largest(logits);
    sum.loss += Math.log(logits.reduce((n, v) => n + Math.exp(v - logits[top]!), 0)) + logits[top]! - logits[wanted]!;
    sum.right += Number(top === wanted);
    sum.terms++;
  }
}

const largest = (xs: readonly number[]): number => xs.reduce((best, v, i) => (v > xs[best]! ? i : best), 0);

function elementLoss(loss: Exclude<LossSpec, { readonly kind: 'output' | 'crossEntropy' }>, x: number, y: number): number {
  const d = Math.abs(x - y);
  switch (loss.kind) {
    case 'mse':
      return d * d;
    case 'mae':
      return d;
    case 'huber': {
      const near = Math.min(d, loss.delta ?? 1);
      return near * (d - near / 2);
    }
    case 'binaryCrossEntropy':
      return Math.max(x, 0) - x * y + Math.log1p(Math.exp(-Math.abs(x)));
  }
}
