/** Runs a tile program step by step on the interpreter, over one memory with the plan's addresses: what a plan does wrong gives wrong numbers here. */
import { evaluateOp } from '../ir/evaluate.ts';
import type { Op, Value } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import type { Step, TileProgram } from '../ir/tile.ts';
import { dtypes, type Tensor, type TypedArray } from '../ir/type.ts';

/** The op with the trailing results that the plan dropped because nothing reads them. */
function whole(op: Op): Op {
  const types = opDef(op.name).infer(op.operands.map((v) => v.type), op.attrs, op.regions);
  return { ...op, results: types.map((type, i) => op.results[i] ?? { type, name: undefined }) };
}

/** Output tensors of a program for inputs by name. Temps start as 0xcb bytes. */
export function runProgram(program: TileProgram, inputs: Readonly<Record<string, Tensor>>): Map<string, Tensor> {
  const memory = new ArrayBuffer(Math.max(...program.buffers.map((b) => b.address + b.bytes)) + 64);
  new Uint8Array(memory).fill(0xcb);
  /** The buffer of a value, and where its elements lie there in row-major order. */
  const cells = (v: Value): { view: TypedArray; at: Int32Array } => {
    const place = program.placements.get(v);
    if (!place) throw new Error(`no placement for ${v.name ?? 'a value'}`);
    const buffer = program.buffers[place.buffer]!;
    const { bytes, array } = dtypes[v.type.dtype];
    const View = array as unknown as new (b: ArrayBuffer, offset: number, length: number) => TypedArray;
    const view = new View(memory, buffer.address, Math.floor(buffer.bytes / bytes));
    let at = Int32Array.of(place.offset);
    v.type.shape.forEach((d, axis) => {
      const next = new Int32Array(at.length * d);
      for (let k = 0, outer = 0; outer < at.length; outer++) for (let i = 0; i < d; i++) next[k++] = at[outer]! + i * place.strides[axis]!;
      at = next;
    });
    if (at.some((offset) => offset < 0 || offset >= view.length)) throw new Error(`${v.name ?? 'a value'} leaves its buffer`);
    return { view, at };
  };
  const read = (v: Value): Tensor => {
    const { view, at } = cells(v);
    const data = new dtypes[v.type.dtype].array(at.length);
    for (let i = 0; i < data.length; i++) data[i] = view[at[i]!]!;
    return { ...v.type, data };
  };
  const write = (v: Value, t: Tensor): void => {
    const { view, at } = cells(v);
    for (let i = 0; i < t.data.length; i++) view[at[i]!] = t.data[i]!;
  };
  const scalar = (v: Value): number => Number(read(v).data[0]);
  const run = (steps: readonly Step[]): void => {
    for (const step of steps) {
      if (step.kind === 'kernel') {
        const results = evaluateOp(whole(step.op), step.op.operands.map(read));
        step.op.results.forEach((r, i) => write(r, results[i]!));
      } else if (step.kind === 'if') {
        run(scalar(step.condition) !== 0 ? step.then : step.otherwise);
      } else if (step.kind === 'loop') {
        for (let i = 0; scalar(step.proceed) !== 0 && i < scalar(step.limit); i++) {
          write(step.index, { dtype: 'i64', shape: [], data: new BigInt64Array([BigInt(i)]) });
          run(step.body);
        }
      } else {
        const rows = step.from.map(read);
        step.to.forEach((to, k) => {
          if (!('stack' in to)) return write(to, rows[k]!);
          const stack = read(to.stack);
          (stack.data as Uint8Array).set(rows[k]!.data as Uint8Array, scalar(to.index) * rows[k]!.data.length);
          write(to.stack, stack);
        });
      }
    }
  };
  for (const { value, tensor } of program.contents) if (tensor !== 'zero') write(value, tensor);
  for (const v of program.graph.inputs) write(v, inputs[v.name!]!);
  for (const entry of program.entries) run(entry.steps);
  return new Map(program.graph.outputs.map((o) => [o.name, read(o.value)]));
}
