/** inspect --train: what a training step does to a model's parameters. */
import { wasmTarget } from '../driver/target.ts';
import { stateRoles } from '../driver/state-roles.ts';
import { importModel } from '../../frontend/index.ts';
import { graphText } from '../../ir/text.ts';
import { bytesOf, showType, sizeOf } from '../../ir/type.ts';
import { scalarsOf } from '../../passes/train/declare-parameters.ts';
import { planEntries } from '../../passes/plan.ts';
import { runPipeline } from '../../passes/pipeline.ts';
import { trainingStep } from '../../passes/train/pipeline.ts';
import { amount, bytes, note, say, sayJson, table } from '../print.ts';
import { readTensors } from '../inputs.ts';
import { showMemory, stepMemory } from './memory.ts';
import { boundBatch } from './model.ts';
import { trainOptions, type StepOptions } from './options.ts';

export interface InspectOptions extends StepOptions {
  readonly ir?: boolean;
  readonly locations?: boolean;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly json?: boolean;
}

/** Prints a step's inputs, outputs, parameters with their units, and state; with --ir the step itself, every gradient named after its parameter. */
export function inspectTraining(path: string, options: InspectOptions): void {
  const { dims, batch } = boundBatch(path, options.batch, options.dim ?? {});
  const values = readTensors(options.value ?? {});
  const imported = importModel(path, { dims, values, seeded: true });
  const { graph, units } = trainingStep(imported.graph, imported.statistics, { ...trainOptions(options), ...(batch !== undefined && { batch }) }, wasmTarget);
  if (options.ir) return say(graphText(graph, { locations: options.locations ?? false }));
  const roles = stateRoles(graph, imported);
  const updated = new Set(graph.updates.map((u) => u.state));
  const parameters = graph.state.filter((s) => updated.has(s.value) && roles.get(s.name) === 'parameter').map((s) => {
    const unit = units.units.get(s.name);
    return { name: s.name, type: showType(s.value.type), count: sizeOf(s.value.type.shape), unit: unit && { shape: unit.shape, axes: unit.axes, of: unit.kind } };
  });
  const state = Object.fromEntries(['parameter', 'statistic', 'moment', 'average'].map((role) => [role, graph.state.filter((s) => roles.get(s.name) === role && updated.has(s.value)).reduce((n, s) => n + bytesOf(s.value.type), 0)]));
  const scalars = scalarsOf(imported.graph, imported.statistics, trainOptions(options));
  const memory = stepMemory(planEntries([{ name: 'step', graph: runPipeline(graph, wasmTarget) }], wasmTarget), roles);
  const facts = {
    model: graph.name,
    inputs: graph.inputs.map((v) => ({ name: v.name, type: showType(v.type) })),
    outputs: graph.outputs.map((o) => ({ name: o.name, type: showType(o.value.type) })),
    parameters, scalars, lastLinear: units.lastLinear, conflicts: units.conflicts, stateBytes: state, memory, ops: graph.ops.length,
  };
  if (options.json) return sayJson(facts);
  for (const w of imported.warnings) note(`warning: ${w}`);
  for (const i of facts.inputs) say(`input       ${i.name} ${i.type}`);
  for (const o of facts.outputs) say(`output      ${o.name} ${o.type}`);
  say(`ops         ${facts.ops}`);
  say(`parameters  ${amount(parameters.reduce((n, p) => n + p.count, 0))} in ${parameters.length}`);
  say(`state       ${Object.entries(state).filter(([, n]) => n > 0).map(([role, n]) => `${bytes(n)} ${role}s`).join(', ')}`);
  say(showMemory(memory));
  say();
  const rows = parameters.map((p) => [p.name, p.type, p.unit ? `axes ${p.unit.axes.join(',')}${p.unit.shape.join() === p.type.replace(/.*\[|\]/g, '') ? '' : ` of [${p.unit.shape.join(',')}]`}` : 'none', p.unit?.of ?? '']);
  for (const line of table(['parameter', 'type', 'a unit spans', 'it feeds a'], rows)) say(line);
  if (units.lastLinear.length > 0) say(`\nlast linear layer: ${units.lastLinear.join(', ')}`);
  if (scalars.trained.length > 0) say(`\nsingle numbers that are trained, by their names: ${scalars.trained.join(', ')}`);
  if (scalars.kept.length > 0) say(`\nsingle numbers that stay as they are (--train-only names those to train): ${scalars.kept.join(', ')}`);
  for (const name of units.conflicts) note(`uses of ${name} disagree about its unit: it has none`);
}
