/** From an ONNX model and options to a trainer, and to what its data has to be. */
import { modelInputs, readModelGraph } from '../model.ts';
import { compile, type Artifact, type CompileOptions } from '../driver/compile.ts';
import { recomputed, type MemoryFit } from '../driver/fit-memory.ts';
import { bytes } from '../print.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import type { Wanted } from '../../runtime/data/index.ts';
import type { Manifest } from '../../runtime/manifest.ts';
import type { Trainer } from '../../runtime/trainer.ts';

/** Compiles a model's training step for a batch. */
export function compileTraining(model: string | Uint8Array, train: TrainOptions, batch: number | undefined, options: CompileOptions): Promise<Artifact> {
  const bound = boundBatch(model, batch, options.dims ?? {});
  return compile(model, { ...options, dims: bound.dims, train: { ...train, ...(bound.batch !== undefined && { batch: bound.batch }) } });
}

/** How a model gets its batch: a symbolic one is bound as that dimension, a fixed one is rebound (`batch`). */
export function boundBatch(model: string | Uint8Array, batch: number | undefined, given: Readonly<Record<string, number>>): { readonly dims: Readonly<Record<string, number>>; readonly batch: number | undefined } {
  const dims: Record<string, number> = { ...given };
  let rebound: number | undefined;
  for (const input of modelInputs(readModelGraph(model))) {
    const first = input.dims?.[0];
    if (typeof first === 'number') {
      if (batch !== undefined && batch !== first) rebound = batch;
    } else if (input.dims !== undefined && input.dims.length > 0) dims[first ?? `${input.name}.0`] ??= batch ?? defaultBatch;
  }
  return { dims, batch: rebound };
}

/** How a step was kept under a limit of memory. */
export function showFit({ samples, bytes: taken, limit, recompute, trials: [whole] }: MemoryFit): string {
  const parts = samples === whole!.samples ? `all ${samples} samples at once` : `${samples} of ${whole!.samples} samples at a time`;
  const again = recompute ? `, and the backward pass computes ${recomputed[recompute]} again` : '';
  return `memory: ${parts}${again}; arena ${bytes(taken)} of ${bytes(limit)}${taken === whole!.bytes ? '' : ` (${bytes(whole!.bytes)} for all at once${recompute ? ', nothing computed again' : ''})`}`;
}

const defaultBatch = 64;

/** What a training step wants of its data: the model's input, that of its domains (`--norm domains:N`), and the target of the loss (or the model's second input, where the model computes its loss). */
export function wantedOf(trainer: Trainer, { loss }: TrainOptions, state: Manifest['state'] = []): Wanted {
  const { inputs, outputs } = trainer.entries.step;
  const domain = domainOf(trainer, state);
  const own = inputs.filter((i) => i.name !== 'lr' && i.name !== domain?.name && (loss.kind === 'output' || i.name !== 'y'));
  const [x, second] = own;
  const y = loss.kind === 'output' ? second : inputs.find((i) => i.name === 'y');
  const expected = loss.kind === 'output' ? 2 : 1;
  if (!x || !y || own.length !== expected) {
    throw new UserError(`the model has the inputs ${own.map((i) => JSON.stringify(i.name)).join(', ') || 'none'}; tilewright train feeds ${expected === 1 ? 'one input' : 'two inputs, samples and targets'}. For others, feed trainStep in code`);
  }
  if (loss.kind !== 'crossEntropy') return { x, y, classes: undefined, ...(domain && { domain }) };
  const judged = outputs.find((o) => o.name !== 'loss')!;
  return { x, y, classes: judged.shape[loss.axis ?? 1]!, ...(domain && { domain }), ...(loss.ignoreIndex !== undefined && { ignoreIndex: loss.ignoreIndex }) };
}

/** The input that names domains and their number, by the statistics that the model keeps of each. */
function domainOf({ entries }: Trainer, state: NonNullable<Manifest['state']>): Wanted['domain'] {
  const input = entries.step.inputs.find((i) => i.name === 'domain');
  const kept = state.find((s) => s.name.endsWith('.domain_mean'));
  return input && kept && { name: input.name, count: kept.shape[0]! };
}
