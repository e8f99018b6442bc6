/** Lowers nodes through the table: resolves names, checks arity, inlines local functions, builds regions, and reports errors at their node. */
import { IllTyped } from '../../ir/builder.ts';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { decodeFloat } from '../../ir/number.ts';
import { dtypes, isFloat, showType, sizeOf, type Tensor } from '../../ir/type.ts';
import { attributesOf, type BoundAttribute, type BoundSubgraph } from './attributes.ts';
import { newConstants } from './constants.ts';
import { initialized, initializersOf } from './initializers.ts';
import { isTensorValue, NeedsValue, type Bound, type LowerContext, type Lowering, type Node, type Subgraph } from './lowering.ts';
import { functionKey, showNode, type FunctionView, type NodeView } from './model.ts';
import { orderNodes } from './order.ts';
import { definitionIn, mapBound, nameValues, newFrame, type Frame, type Scope, type Session } from './scope.ts';
import { checkDeclared } from './shapes.ts';
import { rowFor, trimmed } from './table.ts';
import { maxElements } from './tensor.ts';

/** Most nodes that a model may come to after its functions are inlined and its loops unrolled. */
const maxNodes = 100_000;
/** Largest constant that is repeated inside a region instead of being captured. */
const maxRepeated = 4096;

export interface Lowerer {
  /** Lowers the nodes of a scope, in order. `where` begins errors about the nodes as a whole. */
  nodes(nodes: readonly NodeView[], scope: Scope, where: string): void;
  /** What a name stands for in a scope, brought into the scope's frame. `where` begins the error if there is no such name. */
  lookup(scope: Scope, name: string, where: string): Bound;
}

/** The lowering of one import. */
export function newLowerer(session: Session): Lowerer {
  const constants = newConstants(session);
  const { file, functions } = session.model;

  function lowerNodes(nodes: readonly NodeView[], scope: Scope, where: string): void {
    const taken = new Set([...scope.names.keys(), ...scope.initializers.keys()]);
    for (const node of orderNodes(nodes, (name) => find(scope, name) !== undefined, taken, where)) lowerNode(node, scope);
  }

  function lowerNode(node: NodeView, scope: Scope): void {
    if (++session.lowered > maxNodes) throw new UserError(`${file}: the model comes to more than ${maxNodes} nodes when its functions are inlined and its loops are unrolled`);
    const where = `${file}: ${showNode(node)}${showCalls(scope)}`;
    const attributes = bindAttributes(node, scope);
    const fn = functions.get(functionKey(node.domain, node.opType, node.overload));
    const results = fn ? callFunction(fn, node, attributes, scope, where) : applyRow(node, attributes, scope, where);
    node.outputs.forEach((name, i) => {
      if (name === '') return;
      const result = results[i];
      if (result === undefined) throw new Unsupported(`${node.opType} output ${i}`, `${where}: output ${i} ("${name}") is not supported`);
      scope.names.set(name, result);
      if (isTensorValue(result)) nameResult(result, name, scope, where);
    });
  }

  function nameResult(v: Value, name: string, scope: Scope, where: string): void {
    const size = sizeOf(v.type.shape);
    if (size > maxElements) throw new UserError(`${where}: its output "${name}" would be ${showType(v.type)}, ${size} elements; a tensor may have at most ${maxElements}`);
    const depth = scope.calls.length;
    const known = scope.frame.names.get(v);
    if (!known || depth < known.depth) scope.frame.names.set(v, { name: [...scope.calls.map((c) => c.node), name].join('/'), depth });
    const declared = scope.parent === undefined && depth === 0 ? session.model.graph.valueInfo.get(name) : undefined;
    if (declared) checkDeclared(name, v.type, declared, where);
  }

  function applyRow(node: NodeView, attributes: ReadonlyMap<string, BoundAttribute<Scope>>, scope: Scope, where: string): readonly (Bound | undefined)[] {
    const { row, opset } = rowFor(node, scope.opsets, session.table, where);
    const label = `${where} (opset ${opset})`;
    if (typeof row.lower !== 'function') throw new Unsupported(node.opType, `${label}: ${row.lower.refused}`);
    const view: Node = {
      name: node.name,
      opType: node.opType,
      domain: node.domain,
      opset,
      attrs: attributesOf(attributes, label, session.folder),
      inputs: trimmed(node.inputs).map((name) => (name === '' ? undefined : resolve(scope, name, where))),
      outputNames: node.outputs,
    };
    return guarded(row.lower, newContext(view, scope, label), label);
  }

  /** Runs a lowering; what the builder finds ill-typed becomes the user's error, and NeedsValue learns its node. */
  function guarded(lower: Lowering, cx: LowerContext, label: string): readonly (Bound | undefined)[] {
    const { b, node } = cx;
    const before = b.source;
    b.source = [`${node.opType}(${node.name})`];
    try {
      return lower(cx);
    } catch (e) {
      if (e instanceof IllTyped) {
        const types = node.inputs.map((x) => (x === undefined ? 'none' : isTensorValue(x) ? showType(x.type) : x.kind));
        throw new UserError(`${label}: its inputs (${types.join(', ')}) and attributes do not fit: ${e.message}`);
      }
      // An attribute or operand asked for more elements than an array can have.
      if (e instanceof RangeError && /array length|array buffer/i.test(e.message)) throw new UserError(`${label}: its attributes or inputs ask for a tensor too large to make (${e.message})`);
      if (e instanceof NeedsValue && e.at === undefined) throw new NeedsValue(e.what, e.inputs, label);
      throw e;
    } finally {
      b.source = before;
    }
  }

  function callFunction(fn: FunctionView, node: NodeView, attributes: ReadonlyMap<string, BoundAttribute<Scope>>, scope: Scope, where: string): readonly (Bound | undefined)[] {
    const key = functionKey(fn.domain, fn.name, fn.overload);
    if (scope.calls.some((c) => c.key === key)) throw new UserError(`${where}: the local function ${fn.domain}.${fn.name} calls itself`);
    if (node.inputs.length > fn.inputs.length) throw new UserError(`${where}: lists ${node.inputs.length} inputs, but the local function takes ${fn.inputs.length}`);
    if (node.outputs.length > fn.outputs.length) throw new UserError(`${where}: lists ${node.outputs.length} outputs, but the local function gives ${fn.outputs.length}`);
    const names = new Map<string, Bound | undefined>();
    fn.inputs.forEach((name, i) => {
      const given = node.inputs[i];
      names.set(name, given ? resolve(scope, given, where) : undefined);
    });
    const defaults = [...fn.defaults].map(([name, view]): [string, BoundAttribute<Scope>] => [name, { view, scope }]);
    const body: Scope = {
      parent: undefined,
      frame: scope.frame,
      names,
      initializers: new Map(),
      opsets: fn.opsets,
      attributes: new Map([...defaults, ...attributes]),
      calls: [...scope.calls, { key, node: node.name }],
    };
    lowerNodes(fn.nodes, body, `${file}: local function ${fn.domain}.${fn.name}`);
    return fn.outputs.slice(0, node.outputs.length).map((name) => resolve(body, name, where));
  }

  /** A name's meaning and the scope it is found in; undefined where no scope knows it. */
  function find(scope: Scope, name: string): { readonly bound: Bound | undefined; readonly frame: Frame } | undefined {
    for (let s: Scope | undefined = scope; s; s = s.parent) {
      if (s.names.has(name)) return { bound: s.names.get(name), frame: s.frame };
      const initializer = s.initializers.get(name);
      if (initializer) return { bound: initialized(initializer, session), frame: session.root };
    }
    return undefined;
  }

  function resolve(scope: Scope, name: string, where: string): Bound | undefined {
    const found = find(scope, name);
    if (!found) throw new UserError(`${where}: "${name}" is read, but no input, initializer or node defines it`);
    return found.bound && mapBound(found.bound, (v) => bring(v, found.frame, scope.frame));
  }

  /** A value of an outer frame as seen in `to`: small constants that depend on no weight are repeated there, others captured, through every frame in between. */
  function bring(v: Value, from: Frame, to: Frame): Value {
    if (from === to || !to.parent) return v;
    const outer = bring(v, from, to.parent);
    const before = to.inner.get(outer);
    if (before) return before;
    const name = nameOf(outer, to.parent);
    const repeat = sizeOf(outer.type.shape) <= maxRepeated && constants.isConstant(to.parent, outer) && !constants.dependsOnWeights(to.parent, outer);
    if (repeat) session.reads.push({ source: definitionIn(to.parent, outer)?.source ?? [], what: 'result', from: outer });
    const value: Value = repeat ? to.b.constant(constants.tensor(to.parent, outer, name ?? 'a captured value'), name) : { type: outer.type, name };
    to.inner.set(outer, value);
    if (!repeat) to.outer.set(value, outer);
    return value;
  }

  /** What a value that is captured is in the model's graph; undefined for what is made further inside. */
  function outermost(v: Value, frame: Frame): Value | undefined {
    if (frame === session.root) return v;
    const outer = frame.outer.get(v);
    return outer && frame.parent && outermost(outer, frame.parent);
  }

  function newContext(node: Node, scope: Scope, label: string): LowerContext {
    const { frame } = scope;
    const bad = (message: string): never => {
      throw new UserError(`${label}: ${message}`);
    };
    const tensor = (v: Value, what: string): Tensor => {
      const found = constants.tensor(frame, v, what);
      session.reads.push({ source: frame.b.source, what, from: v });
      return found;
    };
    const optionalInput = (i: number): Value | undefined => {
      const x = node.inputs[i];
      if (x === undefined || isTensorValue(x)) return x;
      throw new Unsupported(`${node.opType} of ${x.kind}`, `${label}: input ${i} is ${showKind(x)}, and this op takes tensors of numbers alone`);
    };
    return {
      b: frame.b,
      node,
      optionalInput,
      input: (i) => optionalInput(i) ?? bad(`input ${i} is left out, but the op requires it`),
      wants: (i) => (node.outputNames[i] ?? '') !== '',
      constant: tensor,
      numbers: (v, what) => toNumbers(tensor(v, what)),
      ints(v, what) {
        if (isFloat(v.type.dtype)) bad(`${what} must be integers, but has type ${showType(v.type)}`);
        return toNumbers(tensor(v, what));
      },
      isConstant: (v) => constants.isConstant(frame, v),
      rounds: (size, what) => void session.reads.push({ source: frame.b.source, what, from: size }),
      regions: (bodies) => lowerRegions(bodies, scope, label),
      inline: (graph, args) => lowerSubgraph(graph, args, frame, scope, label),
      unsupported(feature, why) {
        throw new Unsupported(feature, `${label}: ${feature} is not supported: ${why}`);
      },
      bad,
      warn: (message) => void session.warnings.add(`${label}: ${message}`),
      inference: session.inference,
      seeded: session.seeded,
      statistic(v, next) {
        // Only a weight of the model's graph can be carried from run to run, and only the graph itself, no subgraph, can say what it becomes; as an input it belongs to the caller.
        const weight = outermost(v, frame);
        if (!weight || !session.stateInit.has(weight)) return;
        session.statistics.add(weight);
        if (next && frame === session.root) frame.b.update(weight, next);
      },
    };
  }

  function lowerSubgraph(graph: Subgraph, args: readonly Bound[], frame: Frame, scope: Scope, label: string): Bound[] {
    const { view, scope: around } = graph as BoundSubgraph<Scope>;
    if (args.length !== view.inputs.length) throw new UserError(`${label}: its subgraph "${view.name}" has ${view.inputs.length} inputs, but the op passes ${args.length}`);
    const body: Scope = {
      parent: around,
      frame,
      names: new Map(view.inputs.map((v, i) => [v.name, args[i]!])),
      initializers: initializersOf(view),
      opsets: around.opsets,
      attributes: around.attributes,
      calls: scope.calls,
    };
    lowerNodes(view.nodes, body, `${label}, subgraph "${view.name}"`);
    return view.outputNames.map((name) => resolve(body, name, label) ?? missingOutput(name, label));
  }

  function lowerRegions(bodies: Parameters<LowerContext['regions']>[0], scope: Scope, label: string): ReturnType<LowerContext['regions']> {
    const captured = new Set<Value>();
    const lowered = bodies.map(({ graph, inputs }) => {
      const frame = newFrame(graph.name, scope.frame);
      const args = inputs.map((type, i) => frame.b.input(type, graph.inputNames[i]));
      const outputs = lowerSubgraph(graph, args, frame, scope, label).map((x, i) => {
        if (!isTensorValue(x)) throw new Unsupported(`${x.kind} out of a subgraph`, `${label}: output "${graph.outputNames[i]!}" of its subgraph is ${showKind(x)}; only tensors can leave a subgraph that is not inlined`);
        return { name: graph.outputNames[i]!, value: x };
      });
      for (const outer of frame.outer.values()) captured.add(outer);
      return { frame, outputs };
    });
    const regions = lowered.map(({ frame, outputs }): Graph => {
      const graph = frame.b.finish(outputs);
      const more = [...captured].map((outer) => frame.inner.get(outer) ?? { type: outer.type, name: nameOf(outer, scope.frame) });
      return nameValues({ ...graph, inputs: [...graph.inputs, ...more] }, frame, session.renamed);
    });
    return { regions, captured: [...captured] };
  }

  return {
    nodes: lowerNodes,
    lookup: (scope, name, where) => resolve(scope, name, where) ?? missingOutput(name, where),
  };
}

/** The node's attributes; those that refer to attributes of the function around it stand for what its caller gave, or are absent. */
function bindAttributes(node: NodeView, scope: Scope): Map<string, BoundAttribute<Scope>> {
  const bound = new Map<string, BoundAttribute<Scope>>();
  for (const [name, view] of node.attributes) {
    const attribute = view.refersTo === undefined ? { view, scope } : scope.attributes.get(view.refersTo);
    if (attribute) bound.set(name, attribute);
  }
  return bound;
}

/** The ONNX name that a value of a frame has or will get. */
const nameOf = (v: Value, frame: Frame): string | undefined => frame.names.get(v)?.name ?? v.name;

const showCalls = (scope: Scope): string => scope.calls.map((c) => ` in the function called by "${c.node}"`).reverse().join('');

const showKind = (x: Exclude<Bound, Value>): string => (x.kind === 'strings' ? 'a tensor of strings' : x.kind === 'optional' ? 'an optional' : 'a sequence');

const missingOutput = (name: string, where: string): never => {
  throw new UserError(`${where}: "${name}" is an optional input that was left out, and cannot be an output`);
};

/** Elements as numbers, integers beyond ±(2^53 - 1) clamped. */
function toNumbers(t: Tensor): number[] {
  if (t.data instanceof BigInt64Array || t.data instanceof BigUint64Array) {
    return Array.from(t.data, (x) => Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, Number(x))));
  }
  return isFloat(t.dtype) && dtypes[t.dtype].bytes < 4 ? Array.from(t.data, (x) => decodeFloat(t.dtype, x)) : Array.from(t.data);
}
