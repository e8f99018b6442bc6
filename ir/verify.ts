/** Checks that a graph is well-formed and well-typed. Every graph between two passes must be. */
import { InternalError } from './diagnostic.ts';
import { bandsProblem } from './bands.ts';
import { fusedProblem } from './fused.ts';
import type { Attr, Graph, Op, Value } from './graph.ts';
import { TypeProblem, type AttrSpec } from './op.ts';
import { ops as opTable } from './ops/index.ts';
import { momentBlocksProblem } from './moment-blocks.ts';
import { slabsProblem } from './slabs.ts';
import { printGraph } from './text.ts';
import { dtypes, sameType, showType, sizeOf, type Tensor, type TensorType } from './type.ts';

/** A graph that breaks a rule of the IR: a bug of whoever built it. `line` is the guilty line (from 1) of `text`, the whole graph printed. */
export class VerifyError extends InternalError {
  readonly line: number;
  readonly text: string;
  constructor(line: number, text: string, problem: string) {
    super(`line ${line}: ${problem}\n  ${text.split('\n')[line - 1]?.trim() ?? ''}`);
    this.line = line;
    this.text = text;
  }
}

/** Throws a VerifyError at the first rule broken: definition before use, one definition each, types as inferred, attributes as declared, regions, updates. */
export function verify(graph: Graph): void {
  const where = problemIn(graph);
  if (!where) return;
  const printed = printGraph(graph);
  const line = where.at === 'return' ? printed.returns.get(where.in) : printed.lines.get(where.at ?? where.in);
  const name = (v: Value): string => printed.names.get(v) ?? '%?';
  throw new VerifyError(line ?? 1, printed.text, where.problem(name));
}

type Naming = (v: Value) => string;
/** What is wrong, and where: at an op, at the `return`, or (undefined) in the header of a graph. */
interface Finding { readonly in: Graph; readonly at: Op | 'return' | undefined; readonly problem: (name: Naming) => string }

function problemIn(graph: Graph): Finding | undefined {
  const found = (at: Finding['at'], problem: string | ((name: Naming) => string)): Finding => ({ in: graph, at, problem: typeof problem === 'string' ? () => problem : problem });
  const defined = new Set<Value>();
  for (const v of graph.inputs) {
    if (defined.has(v)) return found(undefined, (n) => `${n(v)} is defined twice`);
    defined.add(v);
    const problem = typeProblem(v.type);
    if (problem) return found(undefined, (n) => `${n(v)}: ${problem}`);
  }
  const stateNames = new Set<string>();
  for (const s of graph.state) {
    const problem = defined.has(s.value) ? 'defined twice' : stateNames.has(s.name) ? `there are two states ${s.name}` : (typeProblem(s.value.type) ?? initProblem(s.init, s.value.type));
    if (problem) return found(undefined, (n) => `${n(s.value)}: ${problem}`);
    defined.add(s.value);
    stateNames.add(s.name);
  }
  for (const op of graph.ops) {
    const undefinedOperand = op.operands.find((v) => !defined.has(v));
    if (undefinedOperand) return found(op, (n) => `${n(undefinedOperand)} is used before it is defined`);
    const inside = op.regions.map(regionProblem).find((f) => f !== undefined);
    if (inside) return inside;
    const problem = opProblem(op);
    if (problem) return found(op, problem);
    for (const v of op.results) {
      if (defined.has(v)) return found(op, (n) => `${n(v)} is defined twice`);
      defined.add(v);
    }
  }
  const outputNames = new Set<string>();
  for (const { name, value } of graph.outputs) {
    if (!defined.has(value)) return found('return', (n) => `${n(value)} is returned but never defined`);
    if (name !== '' && outputNames.has(name)) return found('return', `there are two outputs ${name}`);
    outputNames.add(name);
  }
  const states = new Set(graph.state.map((s) => s.value));
  const updated = new Set<Value>();
  for (const { state, value } of graph.updates) {
    if (!states.has(state)) return found('return', (n) => `${n(state)} is updated but is not state`);
    if (updated.has(state)) return found('return', (n) => `${n(state)} is updated twice`);
    if (!defined.has(value)) return found('return', (n) => `${n(value)} is never defined`);
    if (!sameType(state.type, value.type)) return found('return', (n) => `${n(state)} is ${showType(state.type)}, its new value ${n(value)} is ${showType(value.type)}`);
    updated.add(state);
  }
  return undefined;
}

function regionProblem(region: Graph): Finding | undefined {
  if (region.state.length > 0 || region.updates.length > 0) return { in: region, at: undefined, problem: () => 'a region has no state of its own' };
  return problemIn(region);
}

function opProblem(op: Op): string | undefined {
  const def = opTable.get(op.name);
  if (!def) return `there is no op ${op.name}`;
  const variadic = def.operands.at(-1)?.endsWith('...') === true;
  const least = def.operands.length - (variadic ? 1 : 0);
  if (op.operands.length < least || (!variadic && op.operands.length > least)) return `${op.name} takes ${variadic ? 'at least ' : ''}${least} operands, ${op.operands.length} given`;
  for (const [key, spec] of Object.entries(def.attrs)) {
    const value = op.attrs[key];
    if (value === undefined) return `${op.name} needs the attribute ${key}`;
    if (!fits(value, spec)) return `attribute ${key} must be a ${spec.kind}`;
    if (spec.kind === 'tensor') {
      const problem = initProblem(value as Tensor, value as Tensor);
      if (problem) return `attribute ${key}: ${problem}`;
    }
  }
  const unknown = Object.keys(op.attrs).find((k) => !(k in def.attrs));
  if (unknown !== undefined) return `${op.name} has no attribute ${unknown}`;
  let types: readonly TensorType[];
  try {
    types = def.infer(op.operands.map((v) => v.type), op.attrs, op.regions);
  } catch (e) {
    if (e instanceof TypeProblem) return `${op.name}: ${e.message}`;
    throw e;
  }
  if (types.length !== op.results.length) return `${op.name} has ${types.length} results, ${op.results.length} named`;
  const wrong = types.findIndex((t, i) => !sameType(t, op.results[i]!.type));
  if (wrong >= 0) return `result ${wrong} is ${showType(types[wrong]!)}, not ${showType(op.results[wrong]!.type)}`;
  return regionProblems[op.name]?.(op);
}

/** The rules of ops whose regions kernels compute as one. */
const regionProblems: Readonly<Record<string, ((op: Op) => string | undefined) | undefined>> = { fused: fusedProblem, bands: bandsProblem, slabs: slabsProblem, momentBlocks: momentBlocksProblem };

function fits(value: Attr, spec: AttrSpec): boolean {
  switch (spec.kind) {
    case 'numbers': return Array.isArray(value) && value.every((x) => typeof x === 'number');
    case 'strings': return Array.isArray(value) && value.every((x) => typeof x === 'string');
    case 'tensor': return typeof value === 'object' && 'data' in value;
    default: return typeof value === spec.kind;
  }
}

function typeProblem(t: TensorType): string | undefined {
  if (!(t.dtype in dtypes)) return `there is no type ${t.dtype}`;
  return t.shape.every((d) => Number.isInteger(d) && d >= 0) ? undefined : `${showType(t)} has a dimension that is not a natural number`;
}

function initProblem(init: Tensor | 'zero', type: TensorType): string | undefined {
  if (init === 'zero') return undefined;
  if (!sameType(init, type)) return `its tensor is ${showType(init)}, not ${showType(type)}`;
  const problem = typeProblem(init);
  if (problem) return problem;
  if (!(init.data instanceof dtypes[init.dtype].array)) return `the elements of ${showType(init)} are in the wrong kind of array`;
  return init.data.length === sizeOf(init.shape) ? undefined : `${init.data.length} elements for ${showType(init)}`;
}
