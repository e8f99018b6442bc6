/** Imports an ONNX model: decodes it, binds its dimensions, and lowers its nodes to a graph of core ops. */
import { dirname } from 'node:path';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { sameShape, showType, type DType, type Tensor } from '../../ir/type.ts';
import { decodeModel } from './decode.ts';
import { readModelFile } from './external.ts';
import { initializersOf } from './initializers.ts';
import { newLowerer } from './lower.ts';
import { isTensorValue, NeedsValue, UnboundInputs, type LoweringTable } from './lowering.ts';
import type { Dim, ModelView } from './model.ts';
import { lowerings } from './ops/index.ts';
import { nameValues, newFrame, type CompileTimeRead, type Scope, type Session } from './scope.ts';
import { checkDeclared, resolveInputs, type GivenInput } from './shapes.ts';

export interface ImportOptions {
  /** Sizes of symbolic dimensions, by symbol; a dimension without a name is called `input.axis`. */
  readonly dims?: Readonly<Record<string, number>>;
  /** Values of inputs that are fixed at compile time (they decide shapes); they are no inputs of the graph any more. */
  readonly values?: Readonly<Record<string, Tensor>>;
  /** Shapes that inputs will have at run time; symbolic dimensions follow. Naming an initializer that is also an input makes it an input. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** How messages call a model that is given as bytes. */
  readonly file?: string;
  /** Normalizations use their running statistics and dropout passes everything, also in a model that was exported in training mode. */
  readonly inference?: boolean;
  /** Random ops will draw by the seed and the step of a training run: those without a seed of their own are nothing to warn of. */
  readonly seeded?: boolean;
}

/** An input as the model declares it. */
export interface DeclaredInput {
  readonly name: string;
  readonly dtype: DType;
  /** A size, a symbol, or undefined for a dimension without a name. */
  readonly dims: readonly Dim[];
}

export interface ImportedModel {
  readonly graph: Graph;
  /** Inputs that were fixed at compile time. */
  readonly bound: Readonly<Record<string, Tensor>>;
  /** State that holds running statistics; `next` is what a run in training mode makes of it. A statistic that several nodes update is listed for each. */
  readonly statistics: readonly { readonly state: Value; readonly next: Value | undefined }[];
  /** Values and rounded sizes that decided something while importing: a proof for every batch size has to know them. */
  readonly reads: readonly CompileTimeRead[];
  /** Sizes of all symbolic dimensions, given, inferred or 1. */
  readonly dims: Readonly<Record<string, number>>;
  /** The graph's inputs as declared, symbols included. */
  readonly inputs: readonly DeclaredInput[];
  /** Imported version of each domain; '' is the standard one. */
  readonly opsets: Readonly<Record<string, number>>;
  readonly irVersion: number;
  readonly producer: string;
  readonly warnings: readonly string[];
}

/**
 * Imports a model from its file or bytes. Everything that is wrong with it is a UserError that names file, node and cause; what is recognised but
 * not supported is an Unsupported; inputs whose values decide shapes are an UnboundInputs that lists them.
 */
export function importModel(source: string | Uint8Array, options: ImportOptions = {}): ImportedModel {
  const path = typeof source === 'string' ? source : undefined;
  const bytes = typeof source === 'string' ? readModelFile(source) : source;
  const folder = path === undefined ? undefined : dirname(path);
  return lowerModel(decodeModel(bytes, path ?? options.file ?? 'the model', folder), folder, options, lowerings);
}

/** Lowers a decoded model with a table of ops. */
export function lowerModel(model: ModelView, folder: string | undefined, options: ImportOptions, table: LoweringTable): ImportedModel {
  const { file, graph: view } = model;
  const values = new Map(Object.entries(options.values ?? {}));
  const given = givenInputs(model, options);
  const initializers = initializersOf(view);
  checkUnique(view.inputNames, `${file}: input`);
  checkUnique(view.outputNames, `${file}: output`);
  checkUnique(view.initializers.map((t) => t.name), `${file}: initializer`);

  // Models of IR version 3 list every initializer as an input; it stays a weight unless the caller gives a value or a shape.
  const asked = view.inputs.filter((v) => !initializers.has(v.name) || given.has(v.name));
  const resolved = resolveInputs(asked, given, options.dims ?? {}, file);
  const root = newFrame(view.name || 'main', undefined);
  const session: Session = {
    model, folder, table, root, stateInit: new Map(), initialized: new Map(), ownInitializers: initializers, stateNames: new Set(initializers.keys()), inputNames: new Map(),
    warnings: new Set([...model.warnings, ...resolved.warnings]),
    inference: options.inference ?? false, seeded: options.seeded ?? false, statistics: new Set(), reads: [], renamed: new Map(), lowered: 0,
  };
  const scope: Scope = { parent: undefined, frame: root, names: new Map(), initializers: without(initializers, given), opsets: model.opsets, attributes: new Map(), calls: [] };
  const inputs: DeclaredInput[] = [];
  for (const v of asked) {
    const type = resolved.types.get(v.name)!;
    const value = values.get(v.name);
    const made: Value = value ? root.b.constant(value, v.name) : root.b.input(type, v.name);
    scope.names.set(v.name, made);
    if (value) continue;
    session.inputNames.set(made, v.name);
    inputs.push({ name: v.name, dtype: type.dtype, dims: v.type?.dims ?? type.shape });
  }

  const lowerer = newLowerer(session);
  const outputs = explained(file, () => {
    lowerer.nodes(view.nodes, scope, file);
    return view.outputs.map(({ name, type }) => {
      const value = lowerer.lookup(scope, name, `${file}: output "${name}"`);
      if (!isTensorValue(value)) throw new Unsupported(`${value.kind} outputs`, `${file}: output "${name}" is ${value.kind === 'strings' ? 'a tensor of strings' : `of a ${value.kind} type`}; outputs have to be tensors of numbers or bools`);
      if (type) checkDeclared(name, value.type, type, `${file}: the graph`);
      return { name, value };
    });
  });
  if (outputs.length === 0) throw new UserError(`${file}: the graph has no outputs`);
  const { updates, ...graph } = nameValues(root.b.finish(outputs), root, session.renamed);
  return {
    graph: { ...graph, updates: [] },
    statistics: [
      ...updates.map((u) => ({ state: u.state, next: u.value })),
      ...[...session.statistics].filter((v) => !updates.some((u) => u.state === v)).map((state) => ({ state, next: undefined })),
    ],
    reads: session.reads.map((r) => (typeof r.from === 'number' ? r : { ...r, from: session.renamed.get(r.from) ?? r.from })),
    bound: Object.fromEntries(values),
    dims: resolved.dims,
    inputs,
    opsets: Object.fromEntries(model.opsets),
    irVersion: model.irVersion,
    producer: model.producer,
    warnings: [...session.warnings],
  };
}

/** Shapes and values that the caller gave, checked to be of inputs that exist. */
function givenInputs({ file, graph }: ModelView, options: ImportOptions): Map<string, GivenInput> {
  const given = new Map<string, GivenInput>();
  for (const [name, shape] of Object.entries(options.shapes ?? {})) given.set(name, { shape });
  for (const [name, value] of Object.entries(options.values ?? {})) {
    const shape = given.get(name)?.shape;
    if (shape && !sameShape(shape, value.shape)) throw new UserError(`${file}: input "${name}" is given the shape [${shape.join(',')}] and a value of type ${showType(value)}`);
    given.set(name, { shape: value.shape, dtype: value.dtype });
  }
  for (const name of given.keys()) {
    if (!graph.inputNames.includes(name)) throw new UserError(`${file} has no input "${name}"; its inputs are ${graph.inputNames.map((n) => `"${n}"`).join(', ') || 'none'}`);
  }
  return given;
}

/** Turns a value that is needed at compile time into what the user can do about it. */
function explained<T>(file: string, run: () => T): T {
  try {
    return run();
  } catch (e) {
    if (!(e instanceof NeedsValue)) throw e;
    const where = e.at ?? file;
    if (e.inputs.length === 0) throw new Unsupported('values that depend on a loop', `${where}: ${e.what} must be known at compile time, but depends on the iteration of a loop or on random numbers`);
    const names = e.inputs.map((n) => `"${n}"`).join(', ');
    throw new UnboundInputs(
      `${where}: ${e.what} must be known at compile time, but depends on input${e.inputs.length === 1 ? '' : 's'} ${names}; bind ${e.inputs.length === 1 ? 'its value' : 'their values'} (${e.inputs.map((n) => `--value ${n}=FILE.npy`).join(' ')}, or the option values)`,
      e.inputs,
    );
  }
}

function checkUnique(names: readonly string[], what: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw new UserError(`${what} "${name}" is listed twice; names must be unique`);
    seen.add(name);
  }
}

function without<V>(map: ReadonlyMap<string, V>, names: ReadonlyMap<string, unknown>): ReadonlyMap<string, V> {
  return new Map([...map].filter(([name]) => !names.has(name)));
}
