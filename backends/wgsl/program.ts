/** From a tile program to shaders and dispatches. */
import { Unsupported, UserError, invariant } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Buffer, Entry, MoveTarget, Step, TileProgram } from '../../ir/tile.ts';
import { rowMajor, sizeOf } from '../../ir/type.ts';
import { num } from '../../ir/op.ts';
import type { Dispatch, GpuProgram, GpuStep, Segment, StepRow } from '../../runtime/manifest.ts';
import { costOf } from '../../ir/cost.ts';
import { emitOp } from './emitters.ts';
import { dispatchSize, Kernel, type KernelCode, type Located } from './kernel.ts';
import { Gates, setGate } from './gates.ts';
import type { Machine, Site } from './machine.ts';
import { Memory, MoreScratch } from './memory.ts';
import { partsOf } from './parts.ts';
import { nameOf, ShaderFiles } from './shader-files.ts';
import { scratchBytes } from './sort.ts';
import { wordOf } from './types.ts';
import { inputBounds, type InputBounds } from './ranges.ts';

/** What the backend makes of a program. */
export interface WgslModule {
  /** Texts by file name. */
  readonly shaders: Readonly<Record<string, string>>;
  readonly gpu: GpuProgram;
  readonly steps: readonly StepRow[];
  /** Of each entry: its first row, and the one after its last. */
  readonly entrySteps: readonly (readonly [number, number])[];
}

/**
 * Emits the shaders of all entries for machines that offer this much. Everything that WebGPU cannot do (64-bit floats, integers that are not proved to fit 32 bits, loops that nothing bounds) is Unsupported, with the op and the
 * ONNX nodes that it came from.
 */
export function emitWgsl(program: TileProgram, machine: Machine): WgslModule {
  const bounds = inputBounds(program.entries.map((e) => e.graph ?? program.graph));
  for (let scratch = scratchBytes(program, machine);;) {
    try {
      return emitWith(program, machine, bounds, scratch);
    } catch (e) {
      if (!(e instanceof MoreScratch)) throw e;
      scratch = e.bytes;
    }
  }
}

/** Emits with so many bytes of scratch. */
function emitWith(program: TileProgram, machine: Machine, bounds: InputBounds, scratch: number): WgslModule {
  const memory = new Memory(program.buffers, { bufferBytes: machine.bufferBytes, scratch });
  const emission = new Emission(program, { machine, memory }, bounds.rounds);
  const rows: StepRow[] = emission.rows;
  const entries = program.entries.map((entry) => emission.entry(entry));
  const segments = memory.segments();
  return {
    shaders: emission.files.texts(),
    gpu: {
      segments,
      entries: entries.map((e) => e.dispatches),
      shaders: emission.files.list(),
      limits: limitsOf(segments, emission),
      features: machine.f16 ? ['shader-f16'] : [],
      integerInputs: [bounds.lo, bounds.hi],
      ...(bounds.floats.length > 0 && { floatInputs: bounds.floats }),
    },
    steps: rows,
    entrySteps: entries.map((e) => e.rows),
  };
}

/** Most rounds of a loop that ends by a condition: each is recorded, whether it runs or not. */
const mostRounds = 4096;

/** What an adapter has to offer beyond what all do. */
function limitsOf(segments: readonly Segment[], emission: Emission): GpuProgram['limits'] {
  return {
    maxBufferSize: Math.max(0, ...segments.map((s) => s.bytes)),
    maxStorageBufferBindingSize: emission.largestBinding,
    maxStorageBuffersPerShaderStage: emission.mostBindings,
    maxComputeWorkgroupStorageSize: emission.mostWorkgroupBytes,
    maxComputeInvocationsPerWorkgroup: emission.mostInvocations,
  };
}

interface Emitted { readonly dispatches: readonly GpuStep[]; readonly rows: readonly [number, number] }

class Emission {
  readonly rows: StepRow[] = [];
  readonly files = new ShaderFiles();
  largestBinding = 0;
  mostBindings = 0;
  mostWorkgroupBytes = 0;
  mostInvocations = 0;
  readonly #program: TileProgram;
  readonly #site: Site;
  readonly #buffers: ReadonlyMap<number, Buffer>;
  readonly #gates: Gates;
  /** The flag of the gate that the steps being emitted are behind. */
  #within: Located | undefined;
  /** Most rounds of loops that end by a condition. */
  readonly #rounds: ReadonlyMap<Op, number>;

  constructor(program: TileProgram, site: Site, rounds: ReadonlyMap<Op, number>) {
    this.#program = program;
    this.#site = site;
    this.#rounds = rounds;
    this.#buffers = new Map(program.buffers.map((b) => [b.id, b]));
    this.#gates = new Gates(site);
  }

  entry(entry: Entry): Emitted {
    const first = this.rows.length;
    const dispatches = this.#steps(entry.steps);
    return { dispatches, rows: [first, this.rows.length] };
  }

  #steps(steps: readonly Step[]): GpuStep[] {
    return steps.flatMap((step): GpuStep[] => {
      switch (step.kind) {
        case 'kernel': return this.#kernel(step.op);
        case 'loop': return this.#loop(step);
        case 'move': return step.from.flatMap((v, i) => this.#move(step.op, v, step.to[i]!));
        case 'if': return this.#if(step);
      }
    });
  }

  #kernel(op: Op): Dispatch[] {
    if (op.results.every((r) => sizeOf(r.type.shape) === 0)) return [];
    const located = (v: Value): Located => this.#located(v);
    try {
      const parts = partsOf({ op, operands: op.operands.map(located), results: op.results.map(located) }, this.#site);
      return this.#add(op, parts.flatMap((s) => emitOp(s.op, s.operands, s.results, this.#site)));
    } catch (e) {
      if (!(e instanceof Unsupported) || op.source.length === 0 || e.message.includes(op.source[0]!)) throw e;
      throw new Unsupported(e.feature, `${nameOf(op)} of ${op.source.join(', ')}: ${e.message}`);
    }
  }

  /** `cost`: of what is no op of a graph. */
  #add(op: Op, kernels: readonly KernelCode[], cost?: { readonly flops: number; readonly bytes: number }): Dispatch[] {
    if (kernels.length === 0) return [];
    const row = this.rows.length;
    const vertex = Math.max(...kernels.map((k) => k.workgroupBytes));
    this.rows.push({ name: nameOf(op), source: op.source, chunks: kernels.reduce((n, k) => n + k.workgroups, 0), ...(cost ?? costOf(op)), ...(vertex > 0 && { vertex }) });
    return kernels.map((k): Dispatch => {
      const bindings = k.bindings.map((p): Dispatch['bindings'][number] => [p.segment, p.offset, p.bytes]);
      this.largestBinding = Math.max(this.largestBinding, ...bindings.map(([, , bytes]) => bytes));
      this.mostBindings = Math.max(this.mostBindings, bindings.length);
      this.mostWorkgroupBytes = Math.max(this.mostWorkgroupBytes, k.workgroupBytes);
      this.mostInvocations = Math.max(this.mostInvocations, k.workgroupSize);
      const shader = this.files.add(op, row, k);
      const workgroups = dispatchSize(k.workgroups);
      if (workgroups[1] > 65535) throw new UserError(`${nameOf(op)}${op.source.length > 0 ? ` of ${op.source.join(', ')}` : ''} needs ${k.workgroups} workgroups, more than a dispatch has`);
      return { shader, bindings, workgroups, step: row };
    });
  }

  /** Both branches, each behind a gate. */
  #if(step: Extract<Step, { kind: 'if' }>): GpuStep[] {
    const condition = this.#located(step.condition);
    const branch = (steps: readonly Step[], when: (c: string) => string): GpuStep[] => this.#behind(step.op, () => this.#steps(steps), [condition], when);
    return [...branch(step.then, (c) => c), ...branch(step.otherwise, (c) => `!${c}`)];
  }

  /** The body as often as the loop runs, or may run: then each round is behind a gate. Its index counts on the GPU. */
  #loop(step: Extract<Step, { kind: 'loop' }>): GpuStep[] {
    const trips = num(step.op.attrs, 'trips');
    const start = this.#counter(step.op, step.index, false);
    const round = (): GpuStep[] => [...this.#steps(step.body), ...this.#counter(step.op, step.index, true)];
    if (trips >= 0) return [...start, { repeat: trips, body: round() }];
    const most = this.#rounds.get(step.op) ?? Infinity;
    if (!(most <= mostRounds)) throw refused(step.op, `a loop that may run ${most < 2 ** 31 - 1 ? `${most} rounds, more than ${mostRounds},` : 'any number of rounds'}`);
    const [proceed, index, limit] = [step.proceed, step.index, step.limit].map((v) => this.#located(v)) as [Located, Located, Located];
    return [...start, { repeat: Math.max(0, most), body: this.#behind(step.op, round, [proceed, index, limit], (go, i, n) => `${go} && ${i} < ${n}`) }];
  }

  /** What `emit` emits, behind a gate that is open where the condition is true. */
  #behind(op: Op, emit: () => GpuStep[], operands: readonly Located[], when: (...values: string[]) => string): GpuStep[] {
    const within = this.#within;
    this.#within = this.#gates.flag();
    const { gate, steps } = this.#gates.close(this.#within, emit());
    this.#within = within;
    if (steps.length === 0) return [];
    const set: Op = { name: 'gate', operands: [], attrs: {}, results: [], regions: [], source: op.source };
    return [...this.#add(set, [setGate(this.#site, op, gate, within, operands, when)], { flops: 0, bytes: 4 * (1 + 3 * gate.sizes.length) }), ...steps];
  }

  /** Sets a loop's index to 0, or counts on. */
  #counter(op: Op, index: Value, counts: boolean): Dispatch[] {
    const at = this.#located(index);
    const name = counts ? 'next round' : 'first round';
    const kernel = new Kernel({ ...op, name, regions: [] }, counts ? [at] : [], [at], this.#site);
    kernel.store(0, [], counts ? `${kernel.load(0, [])} + 1` : '0');
    return this.#add({ name, operands: [], attrs: {}, results: [index], regions: [], source: op.source }, [kernel.finish(1, 1)], { flops: 0, bytes: 4 });
  }

  /** A copy, into a row of a stack where the target is one. */
  #move(op: Op, from: Value, to: MoveTarget): Dispatch[] {
    const copy = (result: Value): Op => ({ name: 'copy', operands: [from], attrs: {}, results: [result], regions: [], source: op.source });
    if (!('stack' in to)) return this.#kernel(copy(to));
    const row = { dtype: to.stack.type.dtype, shape: to.stack.type.shape.slice(1) };
    if (sizeOf(row.shape) === 0) return [];
    const stack = this.#located(to.stack);
    const kernel = new Kernel({ ...op, name: 'stack', regions: [] }, [this.#located(from), this.#located(to.index)], [stack], this.#site);
    const { w } = kernel;
    const count = sizeOf(row.shape);
    const grid = kernel.elements(count);
    const strides = rowMajor(row.shape);
    const index = row.shape.map((d, axis) => w.let('i', `(element / ${strides[axis]!}) % ${d}`));
    kernel.store(0, [w.let('round', kernel.load(1, [])), ...index], kernel.load(0, index));
    return this.#add({ name: 'stack', operands: [from], attrs: {}, results: [to.stack], regions: [], source: op.source }, [kernel.finish(...grid)], { flops: 0, bytes: 8 * count });
  }

  #located(v: Value): Located {
    const p = this.#program.placements.get(v);
    invariant(p, `value ${v.name ?? '(unnamed)'} has no place`);
    return { type: v.type, strides: p.strides, address: this.#buffers.get(p.buffer)!.address, offset: p.offset, word: wordOf(v.type.dtype, this.#site.machine.f16) };
  }
}

const refused = (op: Op, what: string): Unsupported =>
  new Unsupported(`${op.name} on WebGPU`, `${op.name}${op.source.length > 0 ? ` of ${op.source.join(', ')}` : ''}: ${what} is not supported on WebGPU; compile the model for wasm`);
