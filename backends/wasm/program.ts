/** The whole program as one function: `run(thread)` walks the steps of an entry, sharing chunks with the other threads. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Entry, MoveTarget, Placed, Step, TileProgram } from '../../ir/tile.ts';
import { dtypes, rowMajor, sizeOf } from '../../ir/type.ts';
import { control } from '../../runtime/control.ts';
import type { Asm, E, Fn, Local } from './asm.ts';
import { emitCopy } from './copy.ts';
import { costOf } from './cost.ts';
import { emitOp } from './emitters.ts';
import type { KernelCode } from './kernel.ts';
import { barrier, forChunks, takeChunk } from './sync.ts';

/** What the manifest says of a step. */
export interface StepRow {
  readonly name: string;
  readonly source: readonly string[];
  readonly chunks: number;
  readonly flops: number;
  readonly bytes: number;
}

/** Where things lie that the program needs. `scratchPerThread` is known once all kernels are. */
export interface ProgramLayout {
  /** Address of the data region that buffers count from. */
  readonly data: number;
  /** Address of the step times, or -1. */
  readonly profile: number;
}

/** The pointers that a kernel gets. */
type Args = (f: Fn, scratch: Local) => E[];

/** A step made ready: what to call, or a region of such steps. */
type Node =
  | { readonly kind: 'kernel'; readonly code: KernelCode; readonly args: Args; readonly row: number }
  /** Copies through scratch, all reads before all writes; run by one thread. */
  | { readonly kind: 'sequence'; readonly nodes: readonly Node[]; readonly row: number }
  | { readonly kind: 'if'; readonly condition: number; readonly then: readonly Node[]; readonly otherwise: readonly Node[] }
  | { readonly kind: 'loop'; readonly index: number; readonly limit: number; readonly proceed: number; readonly body: readonly Node[] };

export interface EmittedProgram {
  readonly rows: readonly StepRow[];
  readonly scratchPerThread: number;
  /** Adds the functions; call it when scratch has its address. */
  finish(scratch: number): void;
}

/** Emits the kernels of all entries. The first entry is exported as `run`, the others under their names. */
export function emitProgram(asm: Asm, program: TileProgram, layout: ProgramLayout): EmittedProgram {
  const rows: StepRow[] = [];
  const state = new Preparation(asm, program, layout, rows);
  const entries = program.entries.map((entry) => ({ entry, nodes: state.prepare(entry.steps) }));
  const scratchPerThread = Math.ceil(state.scratch / 64) * 64;
  return {
    rows,
    scratchPerThread,
    finish(scratch) {
      entries.forEach(({ entry, nodes }, i) => addEntry(asm, entry, nodes, i === 0 ? 'run' : entry.name, { ...layout, scratch, scratchPerThread, rows: rows.length }));
    },
  };
}

/** Turns steps into nodes, emitting their kernels. */
class Preparation {
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
    // Results that nothing reads need no place; kernels that can leave one out are told by a pointer of 0.
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
    this.#rows.push({ name: nameOf(op), source: op.source, chunks: code.chunks, ...costOf(op) });
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

  #placed(v: Value): Placed {
    const p = this.#program.placements.get(v);
    return { type: v.type, strides: p?.strides ?? rowMajor(v.type.shape) };
  }
  /** Address of a value's first element; 0 for a value without a place. */
  #address(v: Value): number {
    const p = this.#program.placements.get(v);
    if (!p) return 0;
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
  if (op.name !== 'fused') return op.name;
  return `${op.attrs['kind'] as string}(${(op.regions[0]?.ops ?? []).filter((o) => o.name !== 'constant').map((o) => o.name).join(' ')})`;
}

interface RunLayout extends ProgramLayout { readonly scratch: number; readonly scratchPerThread: number; readonly rows: number }

function addEntry(asm: Asm, entry: Entry, nodes: readonly Node[], exported: string, layout: RunLayout): void {
  const { m } = asm;
  const fn = asm.fn(`entry ${entry.name}`, ['i32'], undefined, (f, [thread]) => {
    const scratch = f.local('i32');
    const chunk = f.local('i32');
    const start = f.local('f64');
    const profiling = layout.profile >= 0;
    const mark = (row: number): E => asm.call(markFunction(asm, layout.profile), [asm.i32(row), f.get(start)]);
    const clock = (): E => f.set(start, asm.call('clock', [], 'f64'));
    const call = (node: Node & { kind: 'kernel' }): E => asm.call(node.code.fn, [f.get(chunk), f.get(scratch), ...node.args(f, scratch)]);
    const stepIs = (row: number): E => m.i32.store(0, 4, asm.i32(control.step), asm.i32(row));

    /** All the work of a node on this thread. */
    const alone = (node: Node): E[] => {
      switch (node.kind) {
        case 'kernel': {
          const work = node.code.chunks === 1 ? [f.set(chunk, asm.i32(0)), call(node)] : [f.repeat(chunk, 0, node.code.chunks, 1, [call(node)])];
          return [stepIs(node.row), ...work];
        }
        case 'sequence': return node.nodes.flatMap(alone);
        case 'if': return [f.if(m.i32.load8_u(0, 1, asm.i32(node.condition)), timedAll(node.then), timedAll(node.otherwise))];
        case 'loop': {
          const top = f.label('loop');
          return [begin(node), m.loop(top, f.if(goesOn(node), [...timedAll(node.body), advance(node), m.br(top)]))];
        }
      }
    };
    const timedAll = (list: readonly Node[]): E[] => list.flatMap((n) => (profiling && (n.kind === 'kernel' || n.kind === 'sequence') ? [clock(), ...alone(n), mark(n.row)] : alone(n)));
    const goesOn = (node: Node & { kind: 'loop' }): E => m.i32.and(
      m.i32.load8_u(0, 1, asm.i32(node.proceed)),
      m.i64.lt_s(m.i64.load(0, 8, asm.i32(node.index)), m.i64.load(0, 8, asm.i32(node.limit))),
    );
    const begin = (node: Node & { kind: 'loop' }): E => m.i64.store(0, 8, asm.i32(node.index), m.i64.const(0n));
    const advance = (node: Node & { kind: 'loop' }): E => m.i64.store(0, 8, asm.i32(node.index), m.i64.add(m.i64.load(0, 8, asm.i32(node.index)), m.i64.const(1n)));

    /** The share of this thread in a list of nodes; ends with all threads past a barrier. */
    const shared = (list: readonly Node[]): E[] => {
      const code: E[] = [];
      for (let i = 0; i < list.length;) {
        // Neighbours that cannot be shared are run by whoever comes first, without barriers between them.
        let end = i;
        while (end < list.length && isSolo(list[end]!)) end++;
        if (end > i) {
          code.push(f.if(m.i32.eqz(takeChunk(asm)), timedAll(list.slice(i, end))), barrier(asm));
          i = end;
          continue;
        }
        const node = list[i++]!;
        if (node.kind === 'kernel') {
          const work = [stepIs(node.row), forChunks(f, node.code.chunks, chunk, [call(node)]), barrier(asm)];
          code.push(...(profiling ? [clock(), ...work, f.if(m.i32.eqz(f.get(thread!)), [mark(node.row)])] : work));
        } else if (node.kind === 'if') {
          // Nobody may overwrite the condition before everybody has read it.
          const taken = f.local('i32');
          code.push(f.set(taken, m.i32.load8_u(0, 1, asm.i32(node.condition))), barrier(asm), f.if(f.get(taken), shared(node.then), shared(node.otherwise)));
        } else if (node.kind === 'loop') {
          const top = f.label('loop');
          const on = f.local('i32');
          const step = [f.if(m.i32.eqz(takeChunk(asm)), [advance(node)]), barrier(asm)];
          code.push(f.if(m.i32.eqz(takeChunk(asm)), [begin(node)]), barrier(asm));
          code.push(m.loop(top, m.block(null, [f.set(on, goesOn(node)), barrier(asm), f.if(f.get(on), [...shared(node.body), ...step, m.br(top)])])));
        }
      }
      return code;
    };
    const prepare = profiling ? [f.if(m.i32.eqz(f.get(thread!)), [m.memory.fill(asm.i32(layout.profile), asm.i32(0), asm.i32(16 * layout.rows))]), barrier(asm)] : [];
    return [f.set(scratch, asm.add(asm.i32(layout.scratch), asm.times(f.get(thread!), layout.scratchPerThread))), ...prepare, ...shared(nodes)];
  });
  m.addFunctionExport(fn, exported);
}

/** Whether a node is work for one thread throughout. */
function isSolo(node: Node): boolean {
  switch (node.kind) {
    case 'kernel': return node.code.chunks === 1;
    case 'sequence': return true;
    case 'if': return node.then.every(isSolo) && node.otherwise.every(isSolo);
    case 'loop': return node.body.every(isSolo);
  }
}

/** Adds the time since `start` to a step's entry: first start, and start plus the sum of durations. */
function markFunction(asm: Asm, profile: number): string {
  const { m } = asm;
  return asm.fn('mark', ['i32', 'f64'], undefined, (f, [row, start]) => {
    const p = f.local('i32');
    const now = (): E => asm.call('clock', [], 'f64');
    return [
      f.set(p, asm.add(asm.i32(profile), asm.times(f.get(row!), 16))),
      m.if(
        m.f64.eq(m.f64.load(0, 8, f.get(p)), m.f64.const(0)),
        m.block(null, [m.f64.store(0, 8, f.get(p), f.get(start!)), m.f64.store(8, 8, f.get(p), now())]),
        m.f64.store(8, 8, f.get(p), m.f64.add(m.f64.load(8, 8, f.get(p)), m.f64.sub(now(), f.get(start!)))),
      ),
    ];
  });
}
