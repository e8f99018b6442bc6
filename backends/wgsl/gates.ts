/**
 * Branches and loops whose condition is known at run time only, without a word to the host: a gate is a flag in GPU memory with the workgroups of all dispatches behind it, which a kernel of one invocation
 * sets before them; while the gate is shut these are 0. The dispatches take their workgroups from there, and their shaders know nothing of it.
 */
import type { Op } from '../../ir/graph.ts';
import type { Dispatch, GpuStep } from '../../runtime/manifest.ts';
import { Kernel, type KernelCode, type Located } from './kernel.ts';
import type { Site } from './machine.ts';

/** A flag, and the workgroups of what is behind it: three words for each different number. */
export interface Gate { readonly flag: Located; readonly workgroups: Located; readonly sizes: readonly (readonly [number, number])[] }

/** The gates of a program: the GPU buffer that holds them is one more. */
export class Gates {
  readonly #site: Site;

  constructor(site: Site) {
    this.#site = site;
  }

  /** A flag that is set before what it guards. */
  flag(): Located {
    return this.#words(1);
  }

  /** Puts dispatches behind a flag, but for those that set gates. */
  close(flag: Located, steps: readonly GpuStep[]): { readonly gate: Gate; readonly steps: GpuStep[] } {
    const { memory } = this.#site;
    const { gateSegment } = memory;
    const waits = (s: Dispatch): boolean => !s.indirect && s.bindings.every(([segment]) => segment !== gateSegment);
    const sizes: (readonly [number, number])[] = [];
    const sizeOf = ([x, y]: readonly [number, number]): number => sizes.findIndex((s) => s[0] === x && s[1] === y);
    const collect = (list: readonly GpuStep[]): void => list.forEach((s) => {
      if ('repeat' in s) collect(s.body);
      else if (waits(s) && sizeOf(s.workgroups) < 0) sizes.push(s.workgroups);
    });
    collect(steps);
    const workgroups = this.#words(3 * sizes.length);
    const offset = memory.cut(workgroups.address, workgroups.address + 1, 1)[0]!.offset;
    const behind = (list: readonly GpuStep[]): GpuStep[] => list.map((s) => {
      if ('repeat' in s) return { repeat: s.repeat, body: behind(s.body) };
      return waits(s) ? { ...s, indirect: [gateSegment, offset + 12 * sizeOf(s.workgroups)] } : s;
    });
    return { gate: { flag, workgroups, sizes }, steps: behind(steps) };
  }

  #words(count: number): Located {
    return { type: { dtype: 'u32', shape: [count] }, strides: [1], address: this.#site.memory.addGates(4 * count), offset: 0, word: 'u32' };
  }
}

/** The kernel that opens or shuts a gate: `when` gives the condition from the loads of `operands`. A gate within another one is shut with it. */
export function setGate(site: Site, op: Op, gate: Gate, within: Located | undefined, operands: readonly Located[], when: (...values: string[]) => string): KernelCode {
  const kernel = new Kernel({ ...op, name: 'gate', regions: [] }, within ? [...operands, within] : operands, [gate.flag, gate.workgroups], site);
  const { w } = kernel;
  const conditions = [`(${when(...operands.map((x, i) => kernel.load(i, x.type.shape.map(() => '0'))))})`, ...(within ? [`${kernel.load(operands.length, ['0'])} != 0u`] : [])];
  const open = w.let('open', `select(0u, 1u, ${conditions.join(' && ')})`);
  kernel.store(0, ['0'], open);
  gate.sizes.forEach(([x, y], i) => [x, y, 1].forEach((n, k) => kernel.store(1, [String(3 * i + k)], `${open} * ${n}u`)));
  return kernel.finish(1, 1);
}
