/** Joins one value of each invocation of a workgroup: pair by pair in its memory, or within subgroups first, where the adapter has them. */
import type { Kernel } from './kernel.ts';
import type { Register } from './types.ts';

/** Most invocations of a subgroup. All take part in all exchanges, as control flow has to be the same for them in a way that compilers can see. */
const widest = 128;

/**
 * The joined value, known to all invocations. `join` gives the text that joins two; bool travels as u32. With subgroups, invocations exchange values within theirs, and memory holds one value a subgroup: the
 * runtime takes that form where it finds that subgroups follow each other along a workgroup.
 */
export function tree(kernel: Kernel, value: string, register: Register, lanes: number, join: (a: string, b: string) => string): string {
  const { w } = kernel;
  const word = register === 'bool' ? 'u32' : register;
  const box = kernel.shared('joined', word, lanes);
  const put = (v: string): string => (register === 'bool' ? `select(0u, 1u, ${v})` : v);
  const get = (v: string): string => (register === 'bool' ? `(${v} != 0u)` : v);
  const both = (a: string, b: string): string => put(join(get(a), get(b)));
  const name = w.name('join_lanes');
  const head = `fn ${name}(own: ${word}, lane: i32) -> ${word} {`;
  kernel.helper(
    `${head}
  ${box}[lane] = own;
  for (var half = ${lanes / 2}; half > 0; half = half / 2) {
    workgroupBarrier();
    if (lane < half) { ${box}[lane] = ${both(`${box}[lane]`, `${box}[lane + half]`)}; }
  }
  workgroupBarrier();
  return ${box}[0];
}`,
    `${head}
  var joined_up = own;
  let width = min(subgroup_width, ${lanes}u);
  for (var reach = ${Math.min(widest, lanes) / 2}u; reach > 0u; reach = reach / 2u) {
    let other = subgroupShuffleXor(joined_up, reach);
    joined_up = select(joined_up, ${both('joined_up', 'other')}, reach < width);
  }
  let subgroup = lane / i32(width);
  if (subgroup_lane == 0u) { ${box}[subgroup] = joined_up; }
  workgroupBarrier();
  joined_up = ${box}[0];
  for (var i = 1; i < ${lanes} / i32(width); i++) { joined_up = ${both('joined_up', `${box}[i]`)}; }
  return joined_up;
}`,
  );
  return w.let('total', get(`${name}(${put(value)}, lane)`));
}

export const treeSum = (kernel: Kernel, value: string, lanes: number): string => tree(kernel, value, 'f32', lanes, (a, b) => `${a} + ${b}`);
