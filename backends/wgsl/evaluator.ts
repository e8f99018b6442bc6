/** Values of a kernel's body, element by element: each is an expression of the values it is made from, down to reads of the operands. */
import { invariant } from '../../ir/diagnostic.ts';
import { isMap } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { toRef } from '../../ir/number.ts';
import { tensorAttr } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { sizeOf } from '../../ir/type.ts';
import { elementOf } from './families/index.ts';
import type { Body, Kernel } from './kernel.ts';
import { literal } from './literal.ts';
import { mapExpression } from './map.ts';
import { registerOf } from './types.ts';
import type { Writer } from './writer.ts';

/** Expressions for the position of an element, one an axis. */
export type Index = readonly string[];

export class Evaluator {
  readonly w: Writer;
  readonly #kernel: Kernel;
  readonly #inputs = new Map<Value, number>();
  readonly #definitions = new Map<Value, Op>();
  /** What is known in the block that is being written and in those around it, innermost last. */
  readonly #known: Map<Value, Map<string, string>>[] = [new Map()];

  constructor(kernel: Kernel, body: Body) {
    this.w = kernel.w;
    this.#kernel = kernel;
    body.inputs.forEach((v, i) => {
      if (!this.#inputs.has(v)) this.#inputs.set(v, i);
    });
    for (const op of body.ops) for (const r of op.results) this.#definitions.set(r, op);
  }

  /** The value's element at an index: a name or a literal. */
  at(v: Value, index: Index): string {
    const at = index.map((i, axis) => (v.type.shape[axis] === 1 ? '0' : i));
    const key = at.join();
    for (const block of this.#known) {
      const known = block.get(v)?.get(key);
      if (known !== undefined) return known;
    }
    this.#compute(v, at, key);
    return this.#known.at(-1)!.get(v)!.get(key)!;
  }

  /** Makes an element known under a name: what `at` then gives. */
  set(v: Value, index: Index, name: string): void {
    this.#note(v, index.map((i, axis) => (v.type.shape[axis] === 1 ? '0' : i)).join(), name);
  }

  /** Writes a block whose values are forgotten at its end. */
  scoped(write: () => void): void {
    this.#known.push(new Map());
    write();
    this.#known.pop();
  }

  /** A loop as `Writer.loop` writes it. */
  loop(hint: string, count: number, body: (i: string) => void): void {
    this.w.loop(hint, count, (i) => this.scoped(() => body(i)));
  }

  /** Nested loops, the first outermost. */
  loops(hint: string, counts: readonly number[], body: (at: readonly string[]) => void, before: readonly string[] = []): void {
    const [count, ...rest] = counts;
    if (count === undefined) body(before);
    else this.loop(hint, count, (i) => this.loops(hint, rest, body, [...before, i]));
  }

  #compute(v: Value, index: Index, key: string): void {
    const input = this.#inputs.get(v);
    if (input !== undefined) {
      this.#note(v, key, this.w.let('x', this.#kernel.load(input, index)));
      return;
    }
    const op = this.#definitions.get(v);
    invariant(op, 'a value of a kernel is an operand or has a definition');
    if (op.name === 'constant') {
      this.#note(v, key, this.#constant(op, index));
    } else if (isMap(op)) {
      const args = op.operands.map((x) => this.at(x, index.slice(index.length - x.type.shape.length)));
      this.#note(v, key, this.w.let('t', mapExpression(this.w, op, args)));
    } else {
      const values = elementOf[opDef(op.name).family](this, op, index);
      op.results.forEach((r, i) => this.#note(r, key, this.w.let('t', values[i]!)));
    }
  }

  #constant(op: Op, index: Index): string {
    const t = tensorAttr(op.attrs, 'value');
    invariant(sizeOf(t.shape) === 1, 'constants within a kernel have one element');
    invariant(index.every((i) => i === '0'), 'one element has one index');
    return this.w.let('c', literal(this.w, registerOf(t.dtype), toRef(t).data[0]!));
  }

  #note(v: Value, key: string, name: string): void {
    const block = this.#known.at(-1)!;
    const values = block.get(v) ?? new Map<string, string>();
    values.set(key, name);
    block.set(v, values);
  }
}
