/**
 * Branches and loops whose condition is known at run time only, without a word to the host: a gate is a flag in GPU memory with the workgroups of all dispatches behind it, which a kernel of one invocation
 * sets before them; while the gate is shut these are 0. The dispatches take their workgroups from there, and their shaders know nothing of it.
 */
import type { Op } from '../../ir/graph.ts';
import type { Buffer } from '../../ir/tile.ts';
import type { GpuStep } from '../../runtime/manifest.ts';
import { Kernel, type KernelCode, type Located } from './kernel.ts';

/** Bindings start at multiples of this many bytes on every adapter. */
const alignment = 256;

/** A flag, and the workgroups of what is behind it: three words for each different number. */
export interface Gate { readonly flag: Located; readonly workgroups: Located; readonly sizes: readonly (readonly [number, number])[] }

/** The gates of a program: the GPU buffer that holds them is one more segment. `start`: its first byte, `buffers`: of the program, which flags join. */
export class Gates {
  /** First byte of their segment. */
  readonly start: number;
  readonly #segment: number;
  readonly #buffers: Map<number, Buffer>;
  #id: number;
  #bytes = 0;

  constructor(segment: number, start: number, buffers: Map<number, Buffer>) {
    this.#segment = segment;
    this.#buffers = buffers;
    this.start = Math.ceil(start / alignment) * alignment;
    this.#id = Math.max(-1, ...buffers.keys()) + 1;
  }

  /** Whether an address is one of the gates'. */
  holds(address: number): boolean {
    return this.#bytes > 0 && address >= this.start;
  }

  /** The segment, or none where there is no gate. */
  segment(): { readonly kind: 'gate'; readonly start: number; readonly bytes: number } | undefined {
    return this.#bytes === 0 ? undefined : { kind: 'gate', start: this.start, bytes: this.#bytes };
  }

  /** A flag that is set before what it guards. */
  flag(): Located {
    return this.#words(1);
  }

  /** Puts dispatches behind a flag, but for those that set gates. */
  close(flag: Located, steps: readonly GpuStep[]): { readonly gate: Gate; readonly steps: GpuStep[] } {
    const sizes: (readonly [number, number])[] = [];
    const offset = this.#bytes;
    const behind = (list: readonly GpuStep[]): GpuStep[] => list.map((s) => {
      if ('repeat' in s) return { repeat: s.repeat, body: behind(s.body) };
      if (s.indirect || s.bindings.some(([segment]) => segment === this.#segment)) return s;
      let at = sizes.findIndex(([x, y]) => x === s.workgroups[0] && y === s.workgroups[1]);
      if (at < 0) at = sizes.push(s.workgroups) - 1;
      return { ...s, indirect: [this.#segment, offset + 12 * at] };
    });
    const gated = behind(steps);
    return { gate: { flag, workgroups: this.#words(3 * sizes.length), sizes }, steps: gated };
  }

  #words(count: number): Located {
    const offset = this.#bytes;
    const bytes = Math.ceil((4 * count) / alignment) * alignment;
    this.#bytes += bytes;
    const id = this.#id++;
    this.#buffers.set(id, { id, kind: 'temp', bytes, address: this.start + offset });
    return { type: { dtype: 'u32', shape: [count] }, strides: [1], buffer: id, offset: 0, writable: true, segment: this.#segment, start: offset / 4 };
  }
}

/** The kernel that opens or shuts a gate: `when` gives the condition from the loads of `operands`. A gate within another one is shut with it. */
export function setGate(op: Op, gate: Gate, within: Located | undefined, operands: readonly Located[], when: (...values: string[]) => string): KernelCode {
  const kernel = new Kernel({ ...op, name: 'gate', regions: [] }, within ? [...operands, within] : operands, [gate.flag, gate.workgroups]);
  const { w } = kernel;
  const conditions = [`(${when(...operands.map((x, i) => kernel.load(i, x.type.shape.map(() => '0'))))})`, ...(within ? [`${kernel.load(operands.length, ['0'])} != 0u`] : [])];
  const open = w.let('open', `select(0u, 1u, ${conditions.join(' && ')})`);
  kernel.store(0, ['0'], open);
  gate.sizes.forEach(([x, y], i) => [x, y, 1].forEach((n, k) => kernel.store(1, [String(3 * i + k)], `${open} * ${n}u`)));
  return kernel.finish(1, 1);
}
