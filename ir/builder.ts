/** Builds graphs op by op; types are inferred, never given. */
import { InternalError } from './diagnostic.ts';
import type { Attr, Attrs, Graph, Op, State, Value } from './graph.ts';
import { encodeFloat } from './number.ts';
import { TypeProblem } from './op.ts';
import { opDef } from './ops/index.ts';
import { broadcastShapes, dtypes, isFloat, sameShape, showType, sizeOf, type DType, type Tensor, type TensorType } from './type.ts';

/** Thrown where operands do not fit an op: a bug of a pass, or a contradiction in the model that the importer reports with its node. */
export class IllTyped extends InternalError {}

/** Collects ops; `finish` returns the graph. Ops carry the current `source` (set it around the lowering of an ONNX node). */
export class Builder {
  source: readonly string[] = [];
  readonly #name: string;
  readonly #inputs: Value[] = [];
  readonly #state: State[] = [];
  readonly #ops: Op[] = [];
  readonly #updates: { state: Value; value: Value }[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  input(type: TensorType, name?: string): Value {
    const value: Value = { type, name };
    this.#inputs.push(value);
    return value;
  }

  state(name: string, type: TensorType, init: Tensor | 'zero'): Value {
    const value: Value = { type, name };
    this.#state.push({ value, name, init });
    return value;
  }

  /** Takes over values of another graph as they are (a pass that keeps its inputs and state). */
  adopt(graph: Pick<Graph, 'inputs' | 'state'>): void {
    this.#inputs.push(...graph.inputs);
    this.#state.push(...graph.state);
  }

  update(state: Value, value: Value): void {
    this.#updates.push({ state, value });
  }

  /** Appends an op as it is, with its own result values. */
  append(op: Op): void {
    this.#ops.push(op);
  }

  get ops(): readonly Op[] {
    return this.#ops;
  }

  /** Adds an op, infers its result types, returns its results. `names` name the results. */
  op(name: string, operands: readonly Value[], attrs: Attrs = {}, regions: readonly Graph[] = [], names: readonly (string | undefined)[] = []): Value[] {
    const def = opDef(name);
    const full: Record<string, Attr> = {};
    for (const [key, spec] of Object.entries(def.attrs)) {
      const given = attrs[key] ?? (spec.default === 'required' ? undefined : spec.default);
      if (given === undefined) throw new IllTyped(`${name}: attribute ${key} is missing`);
      full[key] = given;
    }
    for (const key of Object.keys(attrs)) if (!(key in def.attrs)) throw new IllTyped(`${name} has no attribute ${key}`);
    const types = operands.map((v) => v.type);
    let results: readonly TensorType[];
    try {
      results = def.infer(types, full, regions);
    } catch (e) {
      if (e instanceof TypeProblem) throw new IllTyped(`${name}(${types.map(showType).join(', ')}): ${e.message}`);
      throw e;
    }
    const values = results.map((type, i): Value => ({ type, name: names[i] }));
    this.#ops.push({ name, operands: [...operands], attrs: full, results: values, regions: [...regions], source: this.source });
    return values;
  }

  /** An op with one result. */
  one(name: string, operands: readonly Value[], attrs: Attrs = {}, resultName?: string): Value {
    const [value] = this.op(name, operands, attrs, [], [resultName]);
    if (!value) throw new InternalError(`${name} has no result`);
    return value;
  }

  constant(value: Tensor, name?: string): Value {
    return this.one('constant', [], { value }, name);
  }

  /** A constant of one number, of rank 0 unless `shape` says otherwise. */
  scalar(x: number | bigint, dtype: DType, shape: readonly number[] = []): Value {
    return this.constant(filled(dtype, shape, x));
  }

  finish(outputs: readonly { readonly name: string; readonly value: Value }[]): Graph {
    return { name: this.#name, inputs: this.#inputs, state: this.#state, ops: this.#ops, outputs: [...outputs], updates: this.#updates };
  }

  // Elementwise shorthands. A number stands for a scalar constant of the other operand's dtype.
  unary(name: string, x: Value, attrs: Attrs = {}): Value {
    return this.one(name, [x], attrs);
  }
  binary(name: string, a: Value | number, b: Value | number): Value {
    const dtype = typeof a === 'number' ? (b as Value).type.dtype : a.type.dtype;
    return this.one(name, [typeof a === 'number' ? this.scalar(a, dtype) : a, typeof b === 'number' ? this.scalar(b, dtype) : b]);
  }
  add(a: Value | number, b: Value | number): Value { return this.binary('add', a, b); }
  sub(a: Value | number, b: Value | number): Value { return this.binary('sub', a, b); }
  mul(a: Value | number, b: Value | number): Value { return this.binary('mul', a, b); }
  div(a: Value | number, b: Value | number): Value { return this.binary('div', a, b); }
  pow(a: Value | number, b: Value | number): Value { return this.binary('pow', a, b); }
  min(a: Value | number, b: Value | number): Value { return this.binary('min', a, b); }
  max(a: Value | number, b: Value | number): Value { return this.binary('max', a, b); }
  neg(x: Value): Value { return this.unary('neg', x); }
  select(cond: Value, a: Value | number, b: Value | number): Value {
    const dtype = typeof a === 'number' ? (b as Value).type.dtype : a.type.dtype;
    return this.one('select', [cond, typeof a === 'number' ? this.scalar(a, dtype) : a, typeof b === 'number' ? this.scalar(b, dtype) : b]);
  }
  cast(x: Value, to: DType, saturate = false): Value {
    return x.type.dtype === to ? x : this.one('cast', [x], { to, saturate });
  }

  // Shape shorthands: identities add no op.
  reshape(x: Value, shape: readonly number[]): Value {
    return sameShape(x.type.shape, shape) ? x : this.one('reshape', [x], { shape });
  }
  transpose(x: Value, perm: readonly number[]): Value {
    return perm.every((p, i) => p === i) ? x : this.one('transpose', [x], { perm });
  }
  broadcast(x: Value, shape: readonly number[]): Value {
    return sameShape(x.type.shape, shape) ? x : this.one('broadcast', [x], { shape });
  }
  slice(x: Value, starts: readonly number[], sizes: readonly number[], steps: readonly number[] = sizes.map(() => 1)): Value {
    return sameShape(x.type.shape, sizes) && steps.every((s) => s === 1) ? x : this.one('slice', [x], { starts, sizes, steps });
  }
  concat(xs: readonly Value[], axis: number): Value {
    return xs.length === 1 ? xs[0]! : this.one('concat', xs, { axis });
  }
  contract(spec: string, a: Value, b: Value): Value {
    return this.one('contract', [a, b], { spec });
  }

  /** Reduces over axes; `keepdims` puts 1s back. No axes: x itself. */
  reduce(name: 'reduceSum' | 'reduceProd' | 'reduceMax' | 'reduceMin', x: Value, axes: readonly number[], keepdims = false): Value {
    if (axes.length === 0) return x;
    const y = this.one(name, [x], { axes: [...axes].sort((p, q) => p - q) });
    return keepdims ? this.reshape(y, x.type.shape.map((d, i) => (axes.includes(i) ? 1 : d))) : y;
  }

  /** What softmax subtracts before it takes exponentials, as 1s along the axes: the maximum, through which no gradient goes, as the result does not depend on it. */
  peak(x: Value, axes: readonly number[]): Value {
    const kept = x.type.shape.map((d, i) => (axes.includes(i) ? 1 : d));
    return axes.length === 0 ? x : this.reshape(this.one('reduceMax', [x], { axes: [...axes].sort((p, q) => p - q), detached: true }), kept);
  }

  /** Sums a cotangent down to the shape its value was broadcast from. */
  sumTo(g: Value, shape: readonly number[]): Value {
    const from = g.type.shape;
    if (sameShape(from, shape)) return g;
    const extra = from.length - shape.length;
    const axes = from.flatMap((d, i) => (i < extra || (shape[i - extra] === 1 && d !== 1) ? [i] : []));
    return this.reshape(this.reduce('reduceSum', g, axes), shape);
  }

  /** A constant of zeros, as a broadcast scalar. */
  zeros(type: TensorType): Value {
    return this.broadcast(this.scalar(0, type.dtype), type.shape);
  }

  /** The broadcast of several shapes; throws where they do not broadcast. */
  broadcastShape(...values: readonly Value[]): number[] {
    const shape = broadcastShapes(values.map((v) => v.type.shape));
    if (!shape) throw new IllTyped(`shapes do not broadcast: ${values.map((v) => showType(v.type)).join(', ')}`);
    return shape;
  }
}

/** A tensor with every element x. */
export function filled(dtype: DType, shape: readonly number[], x: number | bigint): Tensor {
  const facts = dtypes[dtype];
  const data = new facts.array(sizeOf(shape));
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) data.fill(BigInt(x));
  else if (isFloat(dtype) && facts.bytes < 4) data.fill(encodeFloat(dtype, Number(x)));
  else data.fill(Number(x));
  return { dtype, shape: [...shape], data };
}
