/** The interpreter: runs a graph op by op on plain loops. It is the oracle for kernels and shares no code with them. */
import { InternalError, UserError } from './diagnostic.ts';
import type { Graph, Op, Value } from './graph.ts';
import { fromRef, refData, settle, toRef } from './number.ts';
import type { RefTensor, RunRegion } from './op.ts';
import { opDef } from './ops/index.ts';
import { nth } from './ops/helpers.ts';
import { dtypes, sameType, showType, sizeOf, type Tensor, type TensorType } from './type.ts';

export interface EvaluateOptions {
  /** Values of state; where there is none, the state's initial value counts. */
  readonly state?: ReadonlyMap<Value, Tensor>;
  /** Sees every value as it is computed, inner ones and those of regions (once for each run of the region) too. Not to be written. */
  watch?(value: Value, tensor: RefTensor): void;
}

export interface Evaluation {
  /** By output name. */
  readonly outputs: ReadonlyMap<string, Tensor>;
  /** New values of updated state. */
  readonly state: ReadonlyMap<Value, Tensor>;
}

/** Runs a graph: float64 inside each op, every result rounded to its declared dtype. Throws a UserError where an input is missing or of another type. */
export function evaluate(graph: Graph, inputs: ReadonlyMap<Value, Tensor> | Readonly<Record<string, Tensor>>, options: EvaluateOptions = {}): Evaluation {
  const given = graph.inputs.map((value) => {
    const tensor = inputs instanceof Map ? (inputs.get(value) as Tensor | undefined) : value.name === undefined ? undefined : (inputs as Readonly<Record<string, Tensor>>)[value.name];
    return toRef(checked(`input ${value.name ?? graph.inputs.indexOf(value)}`, value, tensor));
  });
  const state = graph.state.map(({ value, name, init }): RefTensor => {
    const tensor = options.state?.get(value) ?? init;
    return tensor === 'zero' ? { ...value.type, data: refData(value.type) } : toRef(checked(`state ${name}`, value, tensor));
  });
  const wanted = [...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)];
  const results = runOps(graph, new Map([...zip(graph.inputs, given), ...zip(graph.state.map((s) => s.value), state)]), wanted, options);
  const tensors = results.map(fromRef);
  return {
    outputs: new Map(graph.outputs.map((o, i) => [o.name, tensors[i]!])),
    state: new Map(graph.updates.map((u, i) => [u.state, tensors[graph.outputs.length + i]!])),
  };
}

/** Runs one op on tensors: constant folding. */
export function evaluateOp(op: Op, operands: readonly Tensor[]): Tensor[] {
  const def = opDef(op.name);
  const [result] = op.results;
  if (def.family === 'map' && result) return [inBlocks(operands, result.type, (xs, type) => nth(def.reference(xs, op.attrs, [type], [], noRegions), 0))];
  return runOp(op, operands.map(toRef), {}).map(fromRef);
}

/** Elements of one block: its float64 copies stay in a core's cache. */
const blockSize = 8192;

/** Computes an elementwise result a block of its first axis at a time, so that weights of many megabytes need no float64 copy of themselves. */
function inBlocks(operands: readonly Tensor[], type: TensorType, compute: (operands: readonly RefTensor[], type: TensorType) => RefTensor): Tensor {
  const axis = type.shape.findIndex((d) => d > 1);
  if (axis < 0 || sizeOf(type.shape) <= blockSize) return fromRef(compute(operands.map(toRef), type));
  const whole = sizeOf(type.shape) / type.shape[axis]!;
  const rows = Math.max(1, Math.floor(blockSize / whole));
  const out = new dtypes[type.dtype].array(sizeOf(type.shape));
  // An operand that repeats along the axis is the same for every block.
  const cut = operands.map((x) => {
    const own = axis - (type.shape.length - x.shape.length);
    return own >= 0 && x.shape[own]! > 1 ? { own, row: sizeOf(x.shape) / x.shape[own]! } : toRef(x);
  });
  for (let from = 0; from < type.shape[axis]!; from += rows) {
    const n = Math.min(rows, type.shape[axis]! - from);
    const block = cut.map((c, k) => {
      if ('data' in c) return c;
      const { dtype, shape, data } = operands[k]!;
      return toRef({ dtype, shape: shape.with(c.own, n), data: data.subarray(from * c.row, (from + n) * c.row) });
    });
    const { data } = fromRef(compute(block, { dtype: type.dtype, shape: type.shape.with(axis, n) }));
    (out as Float32Array).set(data as Float32Array, from * whole);
  }
  return { ...type, data: out };
}

/** Elementwise ops hold no regions. */
const noRegions: RunRegion = () => {
  throw new InternalError('an elementwise op ran a region');
};

/** Runs ops in order and drops each value after its last use. */
function runOps(graph: Graph, values: Map<Value, RefTensor>, wanted: readonly Value[], options: EvaluateOptions): RefTensor[] {
  const last = new Map<Value, Op>();
  for (const op of graph.ops) for (const v of op.operands) last.set(v, op);
  const keep = new Set(wanted);
  const get = (v: Value): RefTensor => {
    const t = values.get(v);
    if (!t) throw new InternalError(`graph ${graph.name} reads ${v.name ?? 'a value'}: ${showType(v.type)} before it is computed`);
    return t;
  };
  for (const op of graph.ops) {
    runOp(op, op.operands.map(get), options).forEach((tensor, i) => {
      const value = op.results[i]!;
      options.watch?.(value, tensor);
      if (last.has(value) || keep.has(value)) values.set(value, tensor);
    });
    for (const v of op.operands) if (last.get(v) === op && !keep.has(v)) values.delete(v);
  }
  return wanted.map(get);
}

function runOp(op: Op, operands: readonly RefTensor[], options: EvaluateOptions): RefTensor[] {
  const def = opDef(op.name);
  const run: RunRegion = (region, inputs) => runOps(region, new Map(zip(region.inputs, inputs)), region.outputs.map((o) => o.value), options);
  const results = def.reference(operands, op.attrs, op.results.map((r) => r.type), op.regions, run);
  op.results.forEach((r, i) => {
    const found = results[i];
    if (!found || !sameType(found, r.type)) throw new InternalError(`the reference of ${op.name} gave ${found ? showType(found) : 'nothing'} for ${showType(r.type)}`);
  });
  return results.map((r) => (operands.some((x) => x.data === r.data) ? r : settle(r)));
}

function checked(what: string, value: Value, tensor: Tensor | undefined): Tensor {
  if (!tensor) throw new UserError(`${what}: ${showType(value.type)} is missing; give a tensor of that type`);
  if (!sameType(tensor, value.type)) throw new UserError(`${what} is ${showType(tensor)}, expected ${showType(value.type)}`);
  return tensor;
}

const zip = (values: readonly Value[], tensors: readonly RefTensor[]): [Value, RefTensor][] => values.map((v, i) => [v, tensors[i]!]);
