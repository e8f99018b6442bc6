/** How a training run looks: a bar on a terminal, a line an epoch everywhere. */
import { say } from '../print.ts';
import type { EpochMetrics } from './metrics.ts';
import type { StepProgress } from './run.ts';

export interface Shown {
  step(progress: StepProgress, loss: number): void;
  epoch(metrics: EpochMetrics): void;
  end(): void;
}

export interface ShownRun {
  readonly epochs: number;
  readonly stepsPerEpoch: number;
  readonly batch: number;
  /** The step that the run starts from. */
  readonly from: number;
  /** Nothing goes to stdout. */
  readonly quiet: boolean;
}

const barWidth = 20;
const redrawMs = 100;

/** The bar goes to stderr, and only to a terminal; lines go to stdout. */
export function showTraining(run: ShownRun): Shown {
  const began = performance.now();
  const bar = process.stderr.isTTY;
  let drawn = 0;
  const clear = (): void => {
    if (bar) process.stderr.write('\r\x1b[K');
  };
  return {
    step({ epoch, done, of, step }, loss) {
      const now = performance.now();
      if (!bar || (now - drawn < redrawMs && done < of)) return;
      drawn = now;
      const rate = (step - run.from) / ((now - began) / 1000);
      const left = (run.epochs * run.stepsPerEpoch - step) / rate;
      const filled = Math.round((barWidth * done) / of);
      process.stderr.write(`\r\x1b[Kepoch ${epoch + 1}/${run.epochs} ${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)} step ${done}/${of}  loss ${loss.toFixed(4)}  ${(rate * run.batch).toFixed(0)} samples/s  ${duration(left)} left`);
    },
    epoch(m) {
      clear();
      if (run.quiet) return;
      const found = m.evalLoss === undefined ? '' : `  evaluation loss ${m.evalLoss.toFixed(4)}${m.evalAccuracy === undefined ? '' : `  accuracy ${(100 * m.evalAccuracy).toFixed(2)} %`}`;
      say(`epoch ${m.epoch}/${run.epochs}  step ${m.step}  loss ${m.loss.toFixed(4)}${found}  ${m.seconds.toFixed(1)} s`);
    },
    end: clear,
  };
}

function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  return s >= 3600 ? `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m` : `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`;
}
