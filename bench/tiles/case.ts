/** What the matrix of tile plans runs: models with recorded inputs, and training steps of the goldens. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { importModel } from '../../frontend/index.ts';
import { filled } from '../../ir/builder.ts';
import { evaluate } from '../../ir/evaluate.ts';
import type { Graph } from '../../ir/graph.ts';
import { isFloat, type Tensor } from '../../ir/type.ts';
import { readSafetensors } from '../../runtime/index.ts';
import { readCase } from '../golden-case.ts';
import { buildStep } from '../golden-run.ts';
import { judge, numbersOf, type Tolerance } from '../judge.ts';
import { withBoundInputs } from '../onnx-case.ts';

/** A graph to plan, what it is run on, and what the interpreter makes of that. */
export interface TileCase {
  readonly name: string;
  readonly graph: Graph;
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** Outputs by name, and state after the run by `state NAME`. */
  readonly wanted: ReadonlyMap<string, Tensor>;
  readonly tolerance: (want: Tensor) => Tolerance;
}

/** A case that has not been read yet. */
export interface NamedCase { readonly name: string; read(): Promise<TileCase> }

/** The models of a folder: NAME.onnx beside NAME.safetensors with `input/…`. */
export function modelCases(folder: string): NamedCase[] {
  return readdirSync(folder).filter((f) => f.endsWith('.onnx')).sort().flatMap((file) => {
    const name = basename(file, '.onnx');
    const data = join(folder, `${name}.safetensors`);
    return existsSync(data) ? [{ name, read: () => readModel(name, join(folder, file), data) }] : [];
  });
}

async function readModel(name: string, model: string, data: string): Promise<TileCase> {
  const tensors = await readSafetensors(readFileSync(data));
  const inputs = Object.fromEntries([...tensors].flatMap(([key, t]) => (key.startsWith('input/') ? [[key.slice('input/'.length), t]] : [])));
  const shapes = Object.fromEntries(Object.entries(inputs).map(([k, t]) => [k, t.shape]));
  const { result, bound } = await withBoundInputs(inputs, (values) => Promise.resolve(importModel(model, { shapes, values, inference: true })));
  const given = Object.fromEntries(Object.entries(inputs).filter(([k]) => !bound.includes(k)));
  return { name, graph: result.graph, inputs: given, wanted: reference(result.graph, given), tolerance: ofLargest };
}

/** The goldens of a folder: one training step each, gradients among its outputs. */
export function goldenCases(folder: string): NamedCase[] {
  return readdirSync(folder).filter((f) => existsSync(join(folder, f, 'case.json'))).sort().map((name) => ({ name, read: () => readGolden(name, join(folder, name)) }));
}

async function readGolden(name: string, folder: string): Promise<TileCase> {
  const c = await readCase(folder);
  const { graph } = buildStep(c);
  const inputs = { x: c.data.get('x')!, y: c.data.get('y')!, lr: filled('f32', [], c.rate) };
  return { name, graph, inputs, wanted: reference(graph, inputs), tolerance: () => c.tolerance };
}

/** A ten-thousandth of the largest magnitude, as rounding differs where sums are cut. */
const ofLargest = (want: Tensor): Tolerance => ({ rtol: 0, atol: isFloat(want.dtype) ? 1e-4 * numbersOf(want).reduce((m, x) => Math.max(m, Math.abs(x)), 1e-6) : 0 });

function reference(graph: Graph, inputs: Readonly<Record<string, Tensor>>): Map<string, Tensor> {
  const { outputs, state } = evaluate(graph, inputs);
  const names = new Map(graph.state.map((s) => [s.value, s.name]));
  return new Map([...outputs, ...[...state].map(([v, t]): [string, Tensor] => [`state ${names.get(v)!}`, t])]);
}

/** How many tensors of a run were compared with the case's; none, and what is wrong, where one is outside the case's tolerance. */
export function compare(c: TileCase, outputs: ReadonlyMap<string, Tensor>, state: ReadonlyMap<string, Tensor>): { readonly compared: number; readonly problem?: string } {
  const found = new Map([...outputs, ...[...state].map(([k, t]): [string, Tensor] => [`state ${k}`, t])]);
  for (const [name, want] of c.wanted) {
    const got = found.get(name);
    if (!got) return { compared: 0, problem: `${name} is missing` };
    const verdict = judge(got, want, c.tolerance(want));
    if (!verdict.ok) return { compared: 0, problem: `${name}: ${verdict.reason}` };
  }
  return { compared: c.wanted.size };
}
