/** How good a model is on a set of samples. */
import type { LossSpec } from '../../passes/train/options.ts';
import type { Epoch } from '../../runtime/data/index.ts';
import type { Tensor, TypedArray } from '../../runtime/tensor.ts';
import type { Trainer } from '../../runtime/trainer.ts';

export interface Evaluation {
  /** The loss that is trained, over all samples at once: class weights and smoothing included, whatever the batches. */
  readonly loss: number;
  /** Share of right answers; undefined where targets are no classes. */
  readonly accuracy: number | undefined;
}

interface Sums {
  loss: number;
  /** What the loss is divided by: terms, or the weights of their classes. */
  weight: number;
  right: number;
  terms: number;
}

/**
 * Evaluates all samples of an epoch whose last batch is filled up with copies of its last sample. A loss that the model computes is taken for the mean over the samples of its batch: what
 * the copies add is told by a batch of them alone.
 */
export async function evaluate(trainer: Trainer, epoch: Epoch, loss: LossSpec, names: { readonly x: string; readonly y: string; readonly domain?: string | undefined }): Promise<Evaluation> {
  const sums: Sums = { loss: 0, weight: 0, right: 0, terms: 0 };
  const outputsOf = (x: TypedArray, y: TypedArray, domain: TypedArray | undefined): Promise<Record<string, Tensor>> => {
    const inputs: Record<string, TypedArray> = { [names.x]: x, [names.y]: y, ...(domain && { [names.domain!]: domain }) };
    return trainer.evaluate(Object.fromEntries(trainer.entries.eval.inputs.map((i) => [i.name, inputs[i.name]!])));
  };
  for (let b = 0; b < epoch.batches; b++) {
    const { x, y, domain, count } = epoch.at(b);
    const outputs = await outputsOf(x, y, domain);
    if (loss.kind === 'output') {
      const size = trainer.entries.eval.inputs[0]!.shape[0]!;
      const mean = Number(outputs[loss.name]!.data[0]);
      const copied = count === size ? 0 : Number((await outputsOf(repeatedLast(x, size), repeatedLast(y, size), domain && repeatedLast(domain, size)))[loss.name]!.data[0]);
      sums.loss += size * mean - (size - count) * copied;
      sums.weight += count;
    } else addTerms(sums, loss, outputs[trainer.entries.eval.outputs[0]!.name]!, y, count);
  }
  return { loss: sums.loss / sums.weight, accuracy: loss.kind === 'crossEntropy' ? sums.right / sums.terms : undefined };
}

/** A batch of nothing but its last sample. */
function repeatedLast(batch: TypedArray, size: number): TypedArray {
  const sample = batch.length / size;
  const out = batch.slice();
  for (let i = 0; i < size; i++) out.copyWithin(i * sample, (size - 1) * sample);
  return out;
}

/** Adds the losses of a batch's first `count` samples, by the formulas of passes/train/loss.ts. */
function addTerms(sums: Sums, loss: Exclude<LossSpec, { readonly kind: 'output' }>, output: Tensor, y: TypedArray, count: number): void {
  const x = output.data as Float32Array;
  const perSample = x.length / output.shape[0]!;
  if (loss.kind !== 'crossEntropy') {
    for (let i = 0; i < count * perSample; i++) sums.loss += elementLoss(loss, x[i]!, Number(y[i]));
    sums.weight += count * perSample;
    return;
  }
  const axis = loss.axis ?? 1;
  const classes = output.shape[axis]!;
  const inner = output.shape.slice(axis + 1).reduce((n, d) => n * d, 1);
  const soft = loss.target === 'probabilities';
  const weightOf = (c: number): number => loss.classWeights?.[c] ?? 1;
  for (let p = 0; p < (count * perSample) / classes; p++) {
    const start = Math.floor(p / inner) * classes * inner + (p % inner);
    const column = (data: TypedArray): number[] => Array.from({ length: classes }, (_, c) => Number(data[start + c * inner]));
    const logits = column(x);
    const target = soft ? column(y) : Array.from({ length: classes }, (_, c) => Number(c === Number(y[p])));
    if (!soft && Number(y[p]) === loss.ignoreIndex) continue;
    const [top, wanted] = [largest(logits), largest(target)];
    const logSum = Math.log(logits.reduce((n, v) => n + Math.exp(v - logits[top]!), 0)) + logits[top]!;
    const smoothing = loss.labelSmoothing ?? 0;
    logits.forEach((v, c) => (sums.loss += (logSum - v) * weightOf(c) * (target[c]! * (1 - smoothing) + smoothing / classes)));
    sums.weight += soft ? 1 : weightOf(wanted);
    sums.right += Number(top === wanted);
    sums.terms++;
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
