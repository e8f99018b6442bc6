/** Runs a training golden and compares every tensor that it records. */
import { wasmTarget } from '../cli/driver/target.ts';
import { importModel } from '../frontend/index.ts';
import { filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { showType, type Tensor } from '../ir/type.ts';
import { rewriteNorms, type NormalizedModel } from '../passes/norm/rewrite-norms.ts';
import { trainingStep, type TrainingStep } from '../passes/train/pipeline.ts';
import { averageName } from '../passes/train/average-weights.ts';
import { gradientName } from '../passes/train/extend.ts';
import { sameUnit } from '../passes/train/units.ts';
import { steps, type GoldenCase } from './golden-case.ts';

/** Runs the steps of one training session. */
export interface Trainer {
  step(inputs: Readonly<Record<string, Tensor>>): Promise<ReadonlyMap<string, Tensor>>;
  /** Names of what it trains; those that the step's graph gives gradients of, unless it says so itself. */
  trained?(): Promise<readonly string[]>;
  /** The state of a name, after the last step. */
  state(name: string): Promise<Tensor | undefined>;
  setState(name: string, value: Tensor): Promise<void>;
  close(): Promise<void>;
}

/** How a step is run. */
export type Executor = (step: TrainingStep) => Promise<Trainer>;
/** How a case is run: its step, or all of it. */
export type CaseExecutor = (step: TrainingStep, c: GoldenCase) => Promise<Trainer>;

export interface GoldenResult {
  readonly problems: readonly string[];
  /** What does not count: differences that change no number of the case. */
  readonly notes: readonly string[];
  readonly compared: number;
  /** The largest error, in parts of the tolerance. */
  readonly worst: { readonly name: string; readonly error: number };
}

/** The model of a case, its norms rewritten where the case says so. */
export function modelOf(c: GoldenCase, target = wasmTarget): NormalizedModel {
  const model = importModel(c.model, { shapes: { x: c.data.get('x')!.shape } });
  return c.rewrite ? rewriteNorms(model, c.rewrite, target) : model;
}

/** Builds the step of a case as the public interface does, with all gradients as outputs. */
export function buildStep(c: GoldenCase, target = wasmTarget): TrainingStep {
  const { graph, statistics } = modelOf(c, target);
  return trainingStep(graph, statistics, { loss: c.loss, optimizer: c.optimizer, gradients: true }, target, { verify: true });
}

/** Runs a case: three steps on one batch. */
export async function runGolden(c: GoldenCase, execute: CaseExecutor): Promise<GoldenResult> {
  const step = buildStep(c);
  const { problems, notes } = checkUnits(c, step);
  const trainer = await execute(step, c);
  const trained = (await trainer.trained?.()) ?? step.graph.outputs.flatMap((o) => (o.name.endsWith('.grad') ? [o.name.slice(0, -'.grad'.length)] : []));
  for (const name of c.parameters) if (!trained.includes(name)) problems.push(`parameter ${name} is not trained`);
  for (const name of trained) if (!c.parameters.includes(name)) problems.push(`${name} is trained, but is no parameter of the case`);
  const close = new Closeness(c.tolerance, problems);
  try {
    await resetStatistics(c, trainer);
    const expected = (key: string): Tensor => c.data.get(key) ?? { dtype: 'f32', shape: [0], data: new Float32Array(0) };
    for (let k = 0; k < steps; k++) {
      const outputs = await trainer.step({ x: c.data.get('x')!, y: c.data.get('y')!, lr: filled('f32', [], c.rate) });
      close.compare(`loss/${k}`, outputs.get('loss'), expected(`loss/${k}`));
      close.compare(`logits/${k}`, outputs.get('logits'), expected(`logits/${k}`));
      for (const name of c.parameters) {
        close.compare(`grad/${k}/${name}`, outputs.get(gradientName(name)), expected(`grad/${k}/${name}`));
        close.compare(`param/${k}/${name}`, await trainer.state(name), expected(`param/${k}/${name}`));
      }
      for (const [key, want] of c.data) {
        if (key.startsWith(`ema/${k}/`)) close.compare(key, await trainer.state(averageName(key.slice(`ema/${k}/`.length))), want);
        if (key.startsWith(`state/${k}/`)) close.compare(key, await trainer.state(key.slice(`state/${k}/`.length)), want);
      }
    }
  } finally {
    await trainer.close();
  }
  return { problems, notes, compared: close.compared, worst: close.worst };
}

/** The goldens start their running statistics at mean 0 and variance 1; the exported file holds what the export's own run left. */
async function resetStatistics(c: GoldenCase, trainer: Trainer): Promise<void> {
  for (const [key, t] of c.data) {
    if (!key.startsWith('state/0/')) continue;
    await trainer.setState(key.slice('state/0/'.length), filled(t.dtype, t.shape, key.endsWith('running_var') ? 1 : 0));
  }
}

function checkUnits(c: GoldenCase, { graph, units }: TrainingStep): { problems: string[]; notes: string[] } {
  const found: string[] = [];
  for (const { name, value } of graph.state) {
    if (!c.parameters.includes(name)) continue;
    const got = units.units.get(name);
    const want = c.units[name] && { shape: c.units[name].shape ?? value.type.shape, axes: c.units[name].axes };
    if (got && want ? !sameUnit(got, want) : got !== want) found.push(`unit of ${name}: inferred ${show(got)}, the case has ${show(want)}`);
  }
  for (const name of units.conflicts) found.push(`uses of ${name} disagree about its unit`);
  return c.usesUnits ? { problems: found, notes: [] } : { problems: [], notes: found.map((f) => `${f} (its optimizer does not go by units)`) };
}

const show = (u: { readonly shape: readonly number[]; readonly axes: readonly number[] } | undefined): string => (u ? `axes [${u.axes.join(',')}] of [${u.shape.join(',')}]` : 'none');

/** Compares tensors elementwise: |a - b| <= atol + rtol·|b|. */
class Closeness {
  readonly #tolerance: GoldenCase['tolerance'];
  readonly #problems: string[];
  compared = 0;
  worst = { name: '', error: 0 };

  constructor(tolerance: GoldenCase['tolerance'], problems: string[]) {
    this.#tolerance = tolerance;
    this.#problems = problems;
  }

  compare(name: string, got: Tensor | undefined, want: Tensor): void {
    this.compared++;
    if (!got) return void this.#problems.push(`${name} is missing`);
    if (got.data.length !== want.data.length || got.dtype !== want.dtype) return void this.#problems.push(`${name} is ${showType(got)}, expected ${showType(want)}`);
    let error = 0;
    for (let i = 0; i < want.data.length; i++) {
      const [a, b] = [Number(got.data[i]), Number(want.data[i])];
      const e = Math.abs(a - b) / (this.#tolerance.atol + this.#tolerance.rtol * Math.abs(b));
      error = Math.max(error, Number.isNaN(e) ? Infinity : e);
    }
    if (error > this.worst.error) this.worst = { name, error };
    if (error > 1) this.#problems.push(`${name} is ${error.toPrecision(3)} times the tolerance away`);
  }
}

/** Runs steps on the interpreter. */
export const onReference: Executor = ({ graph }) => Promise.resolve(referenceTrainer(graph));

function referenceTrainer(graph: Graph): Trainer {
  const state = new Map(graph.state.map((s) => [s.value, s.init === 'zero' ? filled(s.value.type.dtype, s.value.type.shape, 0) : s.init]));
  const named = (name: string): Graph['state'][number] => {
    const found = graph.state.find((s) => s.name === name);
    if (!found) throw new Error(`the step has no state ${name}`);
    return found;
  };
  return {
    step(inputs) {
      const result = evaluate(graph, inputs, { state });
      for (const [value, tensor] of result.state) state.set(value, tensor);
      return Promise.resolve(result.outputs);
    },
    state: (name) => Promise.resolve(state.get(named(name).value)!),
    setState: (name, value) => Promise.resolve(void state.set(named(name).value, value)),
    close: () => Promise.resolve(),
  };
}
