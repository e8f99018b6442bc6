/** tilewright inspect: what is in a model or an artifact. */
import type { Command } from 'commander';
import { wasmTarget } from './driver/target.ts';
import { countGraph } from '../ir/count.ts';
import { graphText } from '../ir/text.ts';
import { showType, sizeOf } from '../ir/type.ts';
import { plan } from '../passes/plan.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { importModel } from '../frontend/index.ts';
import type { NodeView } from '../frontend/onnx/model.ts';
import { openArtifact } from '../runtime/artifact.ts';
import type { Manifest } from '../runtime/manifest.ts';
import { describe } from '../runtime/tensor.ts';
import { readTensors } from './inputs.ts';
import { isArtifact, readModelGraph } from './model.ts';
import { dimOption, jsonOption, refuseOption, valueOption } from './options.ts';
import { amount, bytes, note, say, sayJson } from './print.ts';
import { inspectTraining } from './train/inspect.ts';
import { refuseStepOptions, withStepOptions, type StepOptions } from './train/options.ts';

interface Options extends StepOptions {
  readonly train?: boolean;
  readonly ir?: boolean;
  readonly locations?: boolean;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly json?: boolean;
}

/** Adds the command. */
export function inspectCommand(program: Command): void {
  const command = program
    .command('inspect')
    .description('print inputs, outputs, ops, parameters, multiply-adds and memory of a model or an artifact')
    .argument('<model>', 'an .onnx file, or the folder that compile wrote')
    .option('--ir', 'print the IR after the import (.onnx only)')
    .option('--locations', 'with --ir: the ONNX nodes that each op came from')
    .addOption(dimOption())
    .addOption(valueOption())
    .addOption(jsonOption())
    .option('--train', 'show a training step, with the options below: parameters with their units; with --ir forward, backward and update (.onnx only)');
  withStepOptions(command).action(run);
}

async function run(model: string, options: Options, command: Command): Promise<void> {
  if (!options.train) refuseStepOptions(command);
  else if (!isArtifact(model)) return inspectTraining(model, options);
  if (isArtifact(model)) {
    refuseOption(options.ir === true, '--ir', 'goes with an .onnx model: an artifact holds no IR');
    refuseOption(options.dim !== undefined || options.value !== undefined, '--dim and --value', 'go with an .onnx model: an artifact has its shapes already');
    inspectArtifact(model, (await openArtifact(model)).manifest, options.json ?? false);
  } else inspectModel(model, options);
}

function inspectModel(path: string, options: Options): void {
  const binding = {
    ...(options.dim && { dims: options.dim }),
    ...(options.value && { values: readTensors(options.value) }),
  };
  const imported = importModel(path, binding);
  const { graph } = imported;
  if (options.ir) {
    say(graphText(graph, { locations: options.locations ?? false }));
    return;
  }
  const { memory, entries } = plan(runPipeline(graph, wasmTarget), wasmTarget);
  const statistics = [...new Set(imported.statistics.map((s) => s.state))].reduce((n, v) => n + sizeOf(v.type.shape), 0);
  const facts = {
    model: graph.name,
    producer: imported.producer,
    opsets: imported.opsets,
    inputs: imported.inputs.map((declared, i) => ({ name: declared.name, type: showType(graph.inputs[i]!.type), declared: declared.dims })),
    outputs: graph.outputs.map((o) => ({ name: o.name, type: showType(o.value.type) })),
    dims: imported.dims,
    ops: count(readModelGraph(path).nodes.map((n: NodeView) => n.opType)),
    coreOps: count(graph.ops.map((op) => op.name)),
    ...countGraph(graph),
    parameters: countGraph(graph).parameters - statistics,
    statistics,
    memory: { weights: memory.constants + memory.state, activations: memory.temps, io: memory.io },
    steps: entries.reduce((n, e) => n + e.steps.length, 0),
    warnings: imported.warnings,
  };
  if (options.json) return sayJson(facts);
  for (const w of imported.warnings) note(`warning: ${w}`);
  say(`${path}: ${facts.model}${facts.producer ? `, made by ${facts.producer}` : ''}, opset ${Object.entries(facts.opsets).map(([d, v]) => `${d === '' ? '' : `${d} `}${v}`).join(', ')}`);
  for (const i of facts.inputs) say(`input          ${i.name} ${i.type}${i.declared.some((d) => typeof d !== 'number') ? ` declared [${i.declared.map((d) => d ?? '?').join(',')}]` : ''}`);
  for (const o of facts.outputs) say(`output         ${o.name} ${o.type}`);
  say(`ops            ${listed(facts.ops)}`);
  say(`core ops       ${listed(facts.coreOps)}`);
  say(`parameters     ${amount(facts.parameters)}${statistics > 0 ? `, and ${amount(statistics)} running statistics` : ''}`);
  say(`multiply-adds  ${amount(facts.multiplyAdds)}`);
  say(`activations    ${amount(facts.activations)} elements, ${bytes(facts.activationBytes)} computed in a run`);
  say(`steps          ${facts.steps} after fusion`);
  say(`memory         ${bytes(facts.memory.weights)} weights, ${bytes(facts.memory.activations)} activations (${bytes(facts.memory.io)} inputs and outputs among them)`);
}

function inspectArtifact(folder: string, manifest: Manifest, json: boolean): void {
  if (json) return sayJson(manifest);
  say(`${folder}: ${manifest.model}, ${manifest.producer}, modules ${manifest.modules.map((m) => m.features).join(', ')}`);
  for (const i of manifest.inputs) say(`input   ${i.name} ${describe(i)}`);
  for (const b of manifest.bound) say(`bound   ${b.name} ${describe(b)} = ${b.value.slice(0, 8).join(' ')}${b.value.length > 8 ? ' …' : ''}`);
  for (const o of manifest.outputs) say(`output  ${o.name} ${describe(o)}`);
  const { memory } = manifest;
  say(`steps   ${manifest.steps.length}, ${amount(manifest.steps.reduce((n, s) => n + s.flops, 0))} floating-point operations`);
  say(`memory  ${bytes(memory.weights)} weights, ${bytes(memory.activations)} activations (live at once: ${bytes(memory.liveBound)}; ${bytes(memory.io)} inputs and outputs among them), ${bytes(memory.scratchPerThread)} scratch a thread`);
}

/** Names with how often each occurs, most frequent first. */
function count(names: readonly string[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const n of names) counts.set(n, (counts.get(n) ?? 0) + 1);
  return Object.fromEntries([...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)));
}

const listed = (counts: Readonly<Record<string, number>>): string => Object.entries(counts).map(([name, n]) => `${name} ${n}`).join(', ');
