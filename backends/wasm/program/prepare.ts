/** From the steps of a tile program to kernels with addresses. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import type { MoveTarget, Placed, Placement, Step, TileProgram } from '../../../ir/tile.ts';
import { dtypes, rowMajor, sizeOf } from '../../../ir/type.ts';
import type { Asm, E, Fn } from '../asm.ts';
import { emitCopy } from '../copy.ts';
import { costOf } from '../../../ir/cost.ts';
import { emitOp } from '../emitters.ts';
import type { KernelCode } from '../kernel.ts';
import type { StepRow } from '../../../runtime/manifest.ts';
import type { Args, Node, ProgramLayout } from './node.ts';

/** Turns steps into nodes, emitting their kernels. */
export class Preparation {
  scratch = 0;
  readonly #asm: Asm;
  readonly #program: TileProgram;
  readonly #layout: ProgramLayout;
  readonly #rows: StepRow[];
  readonly #buffers: ReadonlyMap<number, number>;
  constructor(asm: Asm, program: TileProgram, layout: ProgramLayout, rows: StepRow[]) {
    this.#asm = asm;
    this.#program = program;
    this.#layout = layout;
    this.#rows = rows;
    this.#buffers = new Map(program.buffers.map((b) => [b.id, b.address]));
  }

  prepare(steps: readonly Step[]): Node[] {
    return steps.flatMap((step) => this.#step(step));
  }

  #step(step: Step): Node[] {
    switch (step.kind) {
      case 'kernel': return this.#kernel(step.op);
      case 'if': return [{ kind: 'if', condition: this.#address(step.condition), then: this.prepare(step.then), otherwise: this.prepare(step.otherwise) }];
      case 'loop':
        return [{ kind: 'loop', index: this.#address(step.index), limit: this.#address(step.limit), proceed: this.#address(step.proceed), body: this.prepare(step.body) }];
      case 'move': return this.#move(step.op, step.from, step.to);
    }
  }

  #kernel(op: Op): Node[] {
    const operands = op.operands.map((v) => this.#placed(v));
    const results = op.results.map((v) => this.#placed(v));
    const code = emitOp(this.#asm, op, operands, results);
    if (code.chunks === 0) return [];
    const addresses = [...op.operands, ...op.results].map((v) => this.#address(v));
    return [this.#node(code, op, () => addresses.map((a) => this.#asm.i32(a)))];
  }

  #node(code: KernelCode, op: Op, args: Args): Node {
    this.scratch = Math.max(this.scratch, code.scratchBytes);
    const row = this.#rows.length;
    const cost = costOf(op);
    this.#rows.push({ name: nameOf(op), source: op.source, chunks: code.chunks, ...cost, ...vertexOf(code, cost.bytes, this.#asm.division.bytesPerTile) });
    return { kind: 'kernel', code, args, row };
  }

  #move(op: Op, from: readonly Value[], to: readonly MoveTarget[]): Node[] {
    const pairs = from.flatMap((source, i) => {
      const target = to[i];
      invariant(target !== undefined, 'a move has as many targets as sources');
      if (!('stack' in target) && this.#address(source) === this.#address(target) && String(this.#placed(source).strides) === String(this.#placed(target).strides)) return [];
      return [{ source, target, placed: this.#target(target) }];
    });
    const copies = pairs.map(({ source, placed }) => emitCopy(this.#asm, this.#placed(source), placed.place));
    const direct = (i: number): Node[] => {
      const code = copies[i]!;
      return code.chunks === 0 ? [] : [this.#node(code, op, (f) => [this.#asm.i32(this.#address(pairs[i]!.source)), placedAddress(f, pairs[i]!.placed)])];
    };
    // A target that lies where another copy still has to read.
    const hazard = pairs.some(({ placed }, i) => pairs.some(({ source }, j) => j >= i && overlaps(this.#range(source), placed.range)));
    if (!hazard) return pairs.flatMap((_, i) => direct(i));
    let offset = 0;
    const nodes: Node[] = [];
    const later: Node[] = [];
    const row = this.#rows.length;
    for (const { source, placed } of pairs) {
      const dense = { type: source.type, strides: rowMajor(source.type.shape) };
      const at = offset;
      offset += Math.ceil((sizeOf(source.type.shape) * dtypes[source.type.dtype].bytes) / 64) * 64;
      const inward = emitCopy(this.#asm, this.#placed(source), dense);
      const outward = emitCopy(this.#asm, dense, placed.place);
      if (inward.chunks === 0) continue;
      nodes.push({ kind: 'kernel', code: inward, args: (f, scratch) => [this.#asm.i32(this.#address(source)), this.#asm.plus(f.get(scratch), at)], row });
      later.push({ kind: 'kernel', code: outward, args: (f, scratch) => [this.#asm.plus(f.get(scratch), at), placedAddress(f, placed)], row });
    }
    this.scratch = Math.max(this.scratch, offset);
    this.#rows.push({ name: 'move', source: op.source, chunks: 1, flops: 0, bytes: 2 * offset });
    return [{ kind: 'sequence', nodes: [...nodes, ...later], row }];
  }

  #target(target: MoveTarget): MovePlace {
    if (!('stack' in target)) return { place: this.#placed(target), address: this.#address(target), range: this.#range(target) };
    const stack = this.#placed(target.stack);
    const { dtype, shape } = stack.type;
    return {
      place: { type: { dtype, shape: shape.slice(1) }, strides: stack.strides.slice(1) },
      address: this.#address(target.stack),
      range: this.#range(target.stack),
      row: { index: this.#address(target.index), bytes: stack.strides[0]! * dtypes[dtype].bytes },
    };
  }

  #placement(v: Value): Placement {
    const p = this.#program.placements.get(v);
    invariant(p !== undefined, `value ${v.name ?? '(unnamed)'} has no place`);
    return p;
  }
  #placed(v: Value): Placed {
    return { type: v.type, strides: this.#placement(v).strides };
  }
  /** Address of a value's first element. */
  #address(v: Value): number {
    const p = this.#placement(v);
    const buffer = this.#buffers.get(p.buffer);
    invariant(buffer !== undefined, `there is no buffer ${p.buffer}`);
    return this.#layout.data + buffer + p.offset * dtypes[v.type.dtype].bytes;
  }
  /** First byte and end of the memory that a value's elements span. */
  #range(v: Value): readonly [number, number] {
    const { strides } = this.#placed(v);
    const { bytes } = dtypes[v.type.dtype];
    if (sizeOf(v.type.shape) === 0) return [0, 0];
    const reach = (sign: 1 | -1): number => v.type.shape.reduce((n, d, i) => n + (sign * strides[i]! > 0 ? (d - 1) * strides[i]! : 0), 0);
    return [this.#address(v) + reach(-1) * bytes, this.#address(v) + (reach(1) + 1) * bytes];
  }
}

/** What a row says of the vertices of a kernel, whose op reads and writes so many bytes in all. */
function vertexOf({ vertexBytes, uncut, chunks, scratchBytes }: KernelCode, all: number, limit: number): Pick<StepRow, 'vertex' | 'relaxed'> {
  const vertex = Math.ceil(vertexBytes ?? all + scratchBytes);
  if (vertex <= limit) return { vertex };
  return { vertex, relaxed: uncut ?? (chunks === 1 ? 'it runs as one chunk' : 'its chunks may read any part of its operands') };
}

interface MovePlace {
  readonly place: Placed;
  readonly address: number;
  readonly range: readonly [number, number];
  /** The row of a stack: where its index lies (an i64), and how far rows are apart. */
  readonly row?: { readonly index: number; readonly bytes: number };
}

function placedAddress(f: Fn, p: MovePlace): E {
  const { asm } = f;
  if (!p.row) return asm.i32(p.address);
  return asm.add(asm.i32(p.address), asm.times(asm.m.i32.load(0, 4, asm.i32(p.row.index)), p.row.bytes));
}

const overlaps = (a: readonly [number, number], b: readonly [number, number]): boolean => a[0] < b[1] && b[0] < a[1];

/** A fused op goes by its root. */
function nameOf(op: Op): string {
  if (op.name !== 'fused' && op.name !== 'bands' && op.name !== 'slabs' && op.name !== 'momentBlocks') return op.name;
  return `${op.name === 'fused' ? (op.attrs['kind'] as string) : op.name}(${(op.regions[0]?.ops ?? []).filter((o) => o.name !== 'constant').map(nameOf).join(' ')})`;
}
