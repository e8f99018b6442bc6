/** Sums over a dim that is cut: each part adds its contribution to those before it; what follows the sum within a fused op runs with the last. */
import { filled } from '../../../ir/builder.ts';
import { invariant } from '../../../ir/diagnostic.ts';
import { isContractRoot, isReduceRoot } from '../../../ir/fused.ts';
import type { Attrs, Graph, Op, Value } from '../../../ir/graph.ts';
import { opDef } from '../../../ir/ops/index.ts';
import { sizeOf, type TensorType } from '../../../ir/type.ts';
import { walkOf } from '../walk.ts';
import { partOp, retyped, shareOf, type OpCut } from './cut.ts';

/** How two contributions become one. */
const combining: Readonly<Record<string, string>> = { sum: 'add', prod: 'mul', max: 'max', min: 'min' };

/** The contributions of the parts of one op. */
export class Contributions {
  readonly #op: Op;
  readonly #cut: OpCut;
  /** The root alone, and what comes before it. */
  readonly #root: Op;
  readonly #region: Graph;
  #sums: readonly Value[] = [];
  /** Parts that have been added. */
  added = 0;
  /** The op's results, once all parts have been added. */
  results: readonly Value[] | undefined;

  constructor(op: Op, cut: OpCut) {
    this.#op = op;
    this.#cut = cut;
    this.#root = walkOf(op).root;
    this.#region = op.name === 'fused' ? op.regions[0]! : asRegion(op);
  }

  /** The ops of the next part. `read` gives its share of an operand, which is asked for where the part needs it. */
  add(read: (k: number) => Value): Op[] {
    const last = ++this.added === this.#cut.parts;
    const ops = this.#cut.combine === 'moments' ? this.#moments(read, last) : this.#plain(read, last);
    if (last) this.results = ops.at(-1)!.results;
    return ops;
  }

  #plain(read: (k: number) => Value, last: boolean): Op[] {
    const root = this.#inner();
    const fuses = isContractRoot(root) || isReduceRoot(root);
    invariant(fuses || this.#op.name !== 'fused', `tiles: ${root.name} is fused, but cannot be summed part by part`);
    const name = combining[this.#cut.combine]!;
    if (!fuses) {
      const part = partOp(this.#op, this.#cut, this.#op.operands.map((_, k) => read(k)));
      const ops = this.#sums.length === 0 ? [part] : [part, plainOp(name, [this.#sums[0]!, part.results[0]!], this.#op)];
      this.#sums = [ops.at(-1)!.results[0]!];
      return ops;
    }
    const at = this.#region.ops.indexOf(root);
    const before = this.#region.ops.slice(0, at + 1);
    const after = last ? this.#region.ops.slice(at + 1) : [];
    const sum = this.#sums[0];
    const outer = root.results[0]!;
    const carried: Value = { type: outer.type, name: undefined };
    const total: Value = { type: outer.type, name: outer.name };
    const adding: Op[] = sum ? [{ name, operands: [carried, outer], attrs: {}, results: [total], regions: [], source: [] }] : [];
    const through = (v: Value): Value => (sum && v === outer ? total : v);
    const body = [...before, ...adding, ...after.map((o) => ({ ...o, operands: o.operands.map(through) }))];
    const outputs = last ? this.#region.outputs.map((o) => ({ name: o.name, value: through(o.value) })) : [{ name: '', value: through(outer) }];
    const part = this.#assembled(body, outputs, read, sum ? [[carried, sum]] : []);
    this.#sums = part.results;
    return [part];
  }

  /** Mean and sum of squared deviations of the parts so far and of the next (Chan, Golub, LeVeque 1979). */
  #moments(read: (k: number) => Value, last: boolean): Op[] {
    const root = this.#inner();
    const at = this.#region.ops.indexOf(root);
    const part = this.#assembled(this.#region.ops.slice(0, at + 1), root.results.map((value) => ({ name: '', value })), read, []);
    const { type } = root.results[0]!;
    const before = this.added - 1;
    const ops: Op[] = [part];
    const body: Op[] = [];
    const inputs: [Value, Value][] = [];
    const fresh = (v: Value): Value => {
      const inner: Value = { type: v.type, name: undefined };
      inputs.push([inner, v]);
      return inner;
    };
    const op = (name: string, ...operands: Value[]): Value => {
      const made = plainOp(name, operands, this.#op);
      body.push(made);
      return made.results[0]!;
    };
    const scale = (v: Value, by: number): Value => {
      const constant: Value = { type: { dtype: type.dtype, shape: [] }, name: undefined };
      body.push({ name: 'constant', operands: [], attrs: { value: filled(type.dtype, [], by) }, results: [constant], regions: [], source: [] });
      return op('mul', v, constant);
    };
    let [mean, m2] = part.results as readonly [Value, Value];
    if (before > 0) {
      const [mean0, m20] = this.#sums.map(fresh) as [Value, Value];
      const [mean1, m21] = [fresh(mean), fresh(m2)];
      const n = sizeOf(shareOfReduced(root, this.#cut)) / sizeOf(type.shape);
      const delta = op('sub', mean1, mean0);
      mean = op('add', mean0, scale(delta, 1 / (before + 1)));
      m2 = op('add', op('add', m20, m21), scale(op('mul', delta, delta), (n * before) / (before + 1)));
    } else if (last) [mean, m2] = [fresh(mean), fresh(m2)];
    if (last) {
      const [a, b] = root.results as readonly [Value, Value];
      const through = (v: Value): Value => (v === a ? mean : v === b ? m2 : v);
      // Constants of the region may stand before the root.
      body.push(...this.#region.ops.slice(0, at).filter((o) => o.name === 'constant'), ...this.#region.ops.slice(at + 1).map((o) => ({ ...o, operands: o.operands.map(through) })));
      ops.push(this.#assembled(body, this.#region.outputs.map((o) => ({ name: o.name, value: through(o.value) })), read, inputs, 'map'));
    } else if (before > 0) ops.push(this.#assembled(body, [mean, m2].map((value) => ({ name: '', value })), read, inputs, 'map'));
    this.#sums = ops.at(-1)!.results;
    return ops;
  }

  /** The root as an op of the region. */
  #inner(): Op {
    return this.#op.name === 'fused' ? this.#root : this.#region.ops[0]!;
  }

  /** A fused op of some ops of the region, over shares of what they read; one op alone is not fused. */
  #assembled(body: readonly Op[], outputs: Graph['outputs'], read: (k: number) => Value, given: readonly (readonly [Value, Value])[], kind?: string): Op {
    const needed = new Set(body.flatMap((o) => o.operands));
    const map = new Map<Value, Value>();
    const inputs: Value[] = [];
    const operands: Value[] = [];
    const enter = (inner: Value, outer: Value): void => {
      const v: Value = { type: outer.type, name: inner.name };
      map.set(inner, v);
      inputs.push(v);
      operands.push(outer);
    };
    this.#region.inputs.forEach((v, k) => needed.has(v) && enter(v, read(k)));
    for (const [inner, outer] of given) enter(inner, outer);
    const root = this.#inner();
    const ops = body.map((o): Op => {
      const taken = o.operands.map((v) => map.get(v)!);
      const made = o === root ? partOp(o, this.#cut, taken) : retyped(o, taken, o.attrs);
      o.results.forEach((r, i) => map.set(r, made.results[i]!));
      return made;
    });
    const results = outputs.map((o): Value => ({ type: map.get(o.value)!.type, name: this.#op.results[0]!.name }));
    const { source } = this.#op;
    if (ops.length === 1 && ops[0]!.results.length === outputs.length) return { ...ops[0]!, operands, results, source };
    const name = kind ?? (isContractRoot(root) ? 'contract' : 'reduce');
    const region: Graph = { name: this.#region.name, inputs, state: [], ops, outputs: outputs.map((o) => ({ name: o.name, value: map.get(o.value)! })), updates: [] };
    return { name: 'fused', operands, attrs: { kind: name }, results, regions: [region], source };
  }
}

/** The share of its operand that a reduction reads in one part. */
const shareOfReduced = (root: Op, cut: OpCut): readonly number[] => {
  const { shape } = root.operands[0]!.type;
  return shareOf({ dtype: 'f32', shape: [sizeOf(shape)] }, 0, cut.parts).shape;
};

/** An op as a region of its own. */
function asRegion(op: Op): Graph {
  const inputs = op.operands.map((v): Value => ({ type: v.type, name: v.name }));
  const results = op.results.map((r): Value => ({ type: r.type, name: r.name }));
  return { name: op.name, inputs, state: [], ops: [{ ...op, operands: inputs, results }], outputs: results.map((value) => ({ name: '', value })), updates: [] };
}

function plainOp(name: string, operands: readonly Value[], like: Op, attrs: Attrs = {}): Op {
  const types: readonly TensorType[] = opDef(name).infer(operands.map((v) => v.type), attrs, []);
  return { name, operands, attrs, regions: [], source: like.source, results: types.map((type): Value => ({ type, name: undefined })) };
}
