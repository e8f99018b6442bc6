/** Compares a training step over micro-batches with one over the whole batch. */
import { wasmTarget } from '../cli/driver/target.ts';
import { filled } from '../ir/builder.ts';
import { UserError } from '../ir/diagnostic.ts';
import type { Tensor } from '../ir/type.ts';
import { findNorms } from '../passes/norm/find-norms.ts';
import type { NormalizedModel } from '../passes/norm/rewrite-norms.ts';
import { targetName } from '../passes/train/add-loss.ts';
import { lossName } from '../passes/train/differentiate.ts';
import { trainingStep, type TrainingStep } from '../passes/train/pipeline.ts';
import type { GoldenCase } from './golden-case.ts';
import { modelOf, onReference, type Executor } from './golden-run.ts';
import { widen, widenModel } from './widen.ts';

/** Largest difference of a gradient, in parts of its largest magnitude, and of the loss. */
const bounds = { f32: { gradient: 1e-5, loss: 1e-6 }, f64: { gradient: 1e-12, loss: 1e-12 } } as const;

/** The outcome for one size of micro-batch. */
export interface MicroResult {
  readonly microBatch: number;
  readonly problems: readonly string[];
  /** What was found, in a line. */
  readonly found: string;
}

/** Divisors of the batch: all of them, or one that is asked for. */
export function microBatches(c: GoldenCase, wanted: string): number[] {
  const batch = c.data.get('x')!.shape[0]!;
  const divisors = Array.from({ length: batch }, (_, i) => i + 1).filter((d) => batch % d === 0);
  return wanted === 'all' ? divisors : divisors.filter((d) => d === Number(wanted));
}

/**
 * Runs one step of a case over the whole batch and over micro-batches: on the executor in float32, and on the interpreter in float64. A model whose batch norms join samples has to be
 * refused by the name of one; with `allow` its gradients have to differ.
 */
export async function runMicroBatch(c: GoldenCase, microBatch: number, execute: Executor, allow: boolean): Promise<MicroResult> {
  const model = modelOf(c);
  const joins = findNorms(model.graph, model.statistics).filter((n) => n.form === 'training');
  const batch = c.data.get('x')!.shape[0]!;
  if (joins.length > 0 && !allow) {
    const refusal = refused(() => stepOf(c, model, microBatch, false));
    const names = joins.flatMap((n) => n.last.source);
    const named = refusal !== undefined && names.some((name) => refusal.includes(name));
    return { microBatch, problems: named ? [] : [refusal === undefined ? 'batch norm is not refused' : `the refusal names no batch norm: ${refusal}`], found: `refused: ${refusal?.split(';')[0] ?? ''}` };
  }
  const apart = [await difference(c, model, microBatch, execute, allow), await difference(wideCase(c), widenModel(model), microBatch, onReference, allow)] as const;
  const found = `gradients ${apart[0].gradient.toExponential(1)} apart (${apart[0].name}), loss ${apart[0].loss.toExponential(1)}; in float64 ${apart[1].gradient.toExponential(1)}, ${apart[1].loss.toExponential(1)}`;
  if (joins.length > 0 && microBatch < batch) return { microBatch, problems: apart[1].gradient > bounds.f32.gradient ? [] : ['batch norm over micro-batches gives the same gradients'], found: `differs: ${found}` };
  const problems = apart.flatMap((a, i) => {
    const bound = i === 0 ? bounds.f32 : bounds.f64;
    return [...(a.gradient <= bound.gradient ? [] : [`${a.name} is ${a.gradient.toExponential(2)} away`]), ...(a.loss <= bound.loss ? [] : [`the loss is ${a.loss.toExponential(2)} away`])];
  });
  return { microBatch, problems, found };
}

function stepOf(c: GoldenCase, { graph, statistics }: NormalizedModel, microBatch: number | undefined, allow: boolean): TrainingStep {
  return trainingStep(graph, statistics, { loss: c.loss, optimizer: c.optimizer, gradients: true, ...(microBatch !== undefined && { microBatch }), ...(allow && { joinWithinMicroBatch: true }) }, wasmTarget, { verify: true });
}

function refused(make: () => unknown): string | undefined {
  try {
    make();
    return undefined;
  } catch (e) {
    if (e instanceof UserError) return e.message;
    throw e;
  }
}

const wideCase = (c: GoldenCase): GoldenCase => ({ ...c, data: new Map([...c.data].map(([key, t]) => [key, widen(t)])) });

interface Apart { readonly gradient: number; readonly name: string; readonly loss: number }

async function difference(c: GoldenCase, model: NormalizedModel, microBatch: number, execute: Executor, allow: boolean): Promise<Apart> {
  const [whole, parts] = [await oneStep(c, stepOf(c, model, undefined, false), execute), await oneStep(c, stepOf(c, model, microBatch, allow), execute)];
  let worst = { gradient: 0, name: '' };
  for (const [name, want] of whole) {
    if (!name.endsWith('.grad')) continue;
    const apart = largest(want, (i) => Number(want.data[i]) - Number(parts.get(name)?.data[i]));
    const gradient = apart === 0 ? 0 : apart / largest(want, (i) => Number(want.data[i]));
    if (!(gradient <= worst.gradient)) worst = { gradient: Number.isNaN(gradient) ? Infinity : gradient, name };
  }
  const [a, b] = [whole, parts].map((m) => Number(m.get(lossName)!.data[0])) as [number, number];
  return { ...worst, loss: Math.abs(a - b) / Math.abs(a) };
}

const largest = (t: Tensor, at: (i: number) => number): number => Array.from({ length: t.data.length }, (_, i) => Math.abs(at(i))).reduce((m, x) => (x > m || Number.isNaN(x) ? x : m), 0);

async function oneStep(c: GoldenCase, step: TrainingStep, execute: Executor): Promise<ReadonlyMap<string, Tensor>> {
  const trainer = await execute(step);
  try {
    return await trainer.step({ x: c.data.get('x')!, [targetName]: c.data.get('y')!, lr: filled('f32', [], c.rate) });
  } finally {
    await trainer.close();
  }
}
