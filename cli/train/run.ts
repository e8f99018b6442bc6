/** The loop of a training run: epochs, evaluations, checkpoints. What it needs is given; nothing here reads options or prints. */
import type { LossSpec } from '../../passes/train/options.ts';
import type { Epoch } from '../../runtime/data/index.ts';
import { InputError } from '../../runtime/error.ts';
import type { StepResult, Trainer } from '../../runtime/trainer.ts';
import { evaluate, type Evaluation } from './evaluate.ts';
import type { EpochMetrics } from './metrics.ts';

export interface Run {
  readonly trainer: Trainer;
  readonly epochs: number;
  /** Batches to train on, by epoch (from 0). */
  readonly training: (epoch: number) => Epoch;
  readonly evaluation: Epoch | undefined;
  readonly loss: LossSpec;
  /** Names of the inputs that take samples, targets and domains. */
  readonly inputs: { readonly x: string; readonly y: string; readonly domain?: string | undefined };
  readonly rate: (step: number) => number;
  /** Evaluate with the moving averages of the weights. */
  readonly average: boolean;
  readonly checkpoint: { readonly folder: string; /** Steps between checkpoints; each epoch ends with one as well. */ readonly every: number | undefined } | undefined;
  /** What makes batches what they are: a checkpoint of other settings is refused. */
  readonly settings: Readonly<Record<string, string>>;
  /** Whether to stop after the step that is running. */
  readonly stopped: () => boolean;
  readonly onStep?: (progress: StepProgress, result: StepResult) => void;
  readonly onEpoch?: (metrics: EpochMetrics) => void | Promise<void>;
}

export interface StepProgress {
  readonly epoch: number;
  /** Batches of the epoch so far, and in all. */
  readonly done: number;
  readonly of: number;
  readonly step: number;
}

/** Where a run stands in its data. */
export interface Position {
  readonly epoch: number;
  readonly batch: number;
  /** Sum of the losses of this epoch's batches so far. */
  readonly lossSum: number;
}

export const start: Position = { epoch: 0, batch: 0, lossSum: 0 };

/** Trains from a position to the end, or until it is stopped. Returns where it stands. */
export async function train(run: Run, from: Position): Promise<Position> {
  let at = from;
  const { trainer } = run;
  let saved = -1;
  const save = async (): Promise<void> => {
    if (!run.checkpoint || saved === trainer.step) return;
    await trainer.save(run.checkpoint.folder, notesOf(at, run.settings));
    saved = trainer.step;
  };
  if (trainer.step === 0) await save();
  while (at.epoch < run.epochs) {
    const epoch = run.training(at.epoch);
    const began = performance.now();
    while (at.batch < epoch.batches) {
      const { x, y, domain } = epoch.at(at.batch);
      const result = await trainer.trainStep({ [run.inputs.x]: x, [run.inputs.y]: y, ...(domain && { [run.inputs.domain!]: domain }), lr: run.rate(trainer.step) });
      at = { ...at, batch: at.batch + 1, lossSum: at.lossSum + result.loss };
      run.onStep?.({ epoch: at.epoch, done: at.batch, of: epoch.batches, step: trainer.step }, result);
      if (run.stopped()) {
        await save();
        return at;
      }
      // The checkpoint at the end of an epoch stands at the start of the next one.
      if (run.checkpoint?.every !== undefined && at.batch < epoch.batches && trainer.step % run.checkpoint.every === 0) await save();
    }
    const seconds = (performance.now() - began) / 1000;
    const found = run.evaluation && (await evaluated(run, run.evaluation));
    const loss = at.lossSum / epoch.batches;
    await run.onEpoch?.({ epoch: at.epoch + 1, step: trainer.step, lr: run.rate(trainer.step - 1), loss, evalLoss: found?.loss, evalAccuracy: found?.accuracy, seconds });
    at = { epoch: at.epoch + 1, batch: 0, lossSum: 0 };
    await save();
  }
  return at;
}

function evaluated(run: Run, epoch: Epoch): Promise<Evaluation> {
  const work = (): Promise<Evaluation> => evaluate(run.trainer, epoch, run.loss, run.inputs);
  return run.average ? run.trainer.averaged(work) : work();
}

function notesOf(at: Position, settings: Readonly<Record<string, string>>): Record<string, string> {
  return { epoch: String(at.epoch), batch: String(at.batch), lossSum: String(at.lossSum), ...Object.fromEntries(Object.entries(settings).map(([k, v]) => [`setting.${k}`, v])) };
}

/** The position that a checkpoint's notes tell; an InputError where its batches were other ones. */
export function positionOf(notes: Readonly<Record<string, string>>, settings: Readonly<Record<string, string>>, from: string): Position {
  const [epoch, batch, lossSum] = [notes['epoch'], notes['batch'], notes['lossSum']].map(Number) as [number, number, number];
  if (![epoch, batch].every((n) => Number.isSafeInteger(n) && n >= 0) || Number.isNaN(lossSum)) throw new InputError(`the checkpoint of ${from} does not say where its data stood: it was not saved by tilewright train`);
  for (const [name, value] of Object.entries(settings)) {
    const before = notes[`setting.${name}`];
    if (before !== value) throw new InputError(`the checkpoint of ${from} was made with ${name} ${before ?? 'unknown'}, this run has ${value}: its batches would be other ones; give the same, or start without --resume`);
  }
  return { epoch, batch, lossSum };
}
