/**
 * Compiles one model to a folder in this process and prints what footprint.ts wants to know, as JSON: node bench/compile-once.ts MODEL FOLDER
 *
 * Where NAME.safetensors beside the model holds inputs (`input/...`), their shapes are taken, and their values where the compiler asks for them.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { compile } from '../cli/driver/compile.ts';
import { importModel } from '../frontend/index.ts';
import type { Graph } from '../ir/graph.ts';
import { bytesOf, type Tensor } from '../ir/type.ts';
import { readSafetensors } from '../runtime/index.ts';
import { withBoundInputs } from './onnx-case.ts';
import { commandLine } from './options.ts';

const { operands: [model = '', folder = ''] } = commandLine('node bench/compile-once.ts', 'MODEL FOLDER', {});
const data = model.replace(/\.onnx$/, '.safetensors');
const recorded = existsSync(data) ? await readSafetensors(readFileSync(data)) : new Map<string, Tensor>();
const inputs = Object.fromEntries([...recorded].flatMap(([key, t]) => (key.startsWith('input/') ? [[key.slice('input/'.length), t]] : [])));
const shapes = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, t.shape]));

const begun = performance.now();
const { result } = await withBoundInputs(inputs, async (values) => {
  const artifact = await compile(model, { shapes, values });
  await artifact.save(folder);
  return { artifact, values };
});
const time = performance.now() - begun;
const { artifact: { manifest, program }, values } = result;
console.log(JSON.stringify({
  modules: manifest.modules.map((m) => ({ file: m.file, bytes: statSync(join(folder, m.file)).size })),
  memory: { ...manifest.memory, scheduleBytes: program.memory.scheduleBytes },
  weights: weightBytes(importModel(model, { shapes, values }).graph),
  ms: time,
}));

/** Bytes of initializers and constants as the importer finds them. */
function weightBytes(graph: Graph): number {
  const constants = graph.ops.reduce((n, op) => n + (op.name === 'constant' ? bytesOf(op.results[0]!.type) : 0), 0);
  return graph.state.reduce((n, s) => n + bytesOf(s.value.type), constants);
}
