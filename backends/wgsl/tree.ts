/** Joins one value of each invocation of a workgroup, pair by pair. */
import type { Kernel } from './kernel.ts';
import type { Register } from './types.ts';

/** The joined value, known to all invocations. `join` gives the text that joins two; bool travels as u32. */
export function tree(kernel: Kernel, value: string, register: Register, lanes: number, join: (a: string, b: string) => string): string {
  const { w } = kernel;
  const word = register === 'bool' ? 'u32' : register;
  const box = kernel.shared('joined', word, lanes);
  const put = (v: string): string => (register === 'bool' ? `select(0u, 1u, ${v})` : v);
  const get = (v: string): string => (register === 'bool' ? `(${v} != 0u)` : v);
  w.line(`${box}[lane] = ${put(value)};`);
  w.block(`for (var half = ${lanes / 2}; half > 0; half = half / 2)`, () => {
    w.line('workgroupBarrier();');
    w.line(`if (lane < half) { ${box}[lane] = ${put(join(get(`${box}[lane]`), get(`${box}[lane + half]`)))}; }`);
  });
  w.line('workgroupBarrier();');
  return w.let('total', get(`${box}[0]`));
}

export const treeSum = (kernel: Kernel, value: string, lanes: number): string => tree(kernel, value, 'f32', lanes, (a, b) => `${a} + ${b}`);
