/** The files of shaders: one a fused op, named after it; ops that do the same work on equally placed tensors share one. */
import type { Op } from '../../ir/graph.ts';
import type { KernelCode } from './kernel.ts';
import type { GpuProgram } from '../../runtime/manifest.ts';

interface Entry { readonly file: string; readonly name: string; readonly code: string; readonly withSubgroups: string | undefined; readonly writes: readonly boolean[]; readonly sources: Set<string> }

/** A fused op goes by its kind and its ops. */
export function nameOf(op: Op): string {
  if (op.name !== 'fused') return op.name;
  return `${op.attrs['kind'] as string}(${(op.regions[0]?.ops ?? []).filter((o) => o.name !== 'constant').map((o) => o.name).join(' ')})`;
}

export class ShaderFiles {
  readonly #byCode = new Map<string, number>();
  readonly #entries: Entry[] = [];

  /** The index of the shader with this code. */
  add(op: Op, step: number, { code, withSubgroups, writes }: Pick<KernelCode, 'code' | 'withSubgroups' | 'writes'>): number {
    let index = this.#byCode.get(code);
    if (index === undefined) {
      index = this.#entries.length;
      const again = this.#entries.filter((e) => e.file.startsWith(`${prefix(step)}-`)).length;
      this.#byCode.set(code, index);
      this.#entries.push({ file: `${prefix(step)}-${slug(op)}${again > 0 ? `.${again + 1}` : ''}.wgsl`, name: nameOf(op), code, withSubgroups, writes, sources: new Set() });
    }
    for (const s of op.source) this.#entries[index]!.sources.add(s);
    return index;
  }

  list(): GpuProgram['shaders'] {
    return this.#entries.map(({ file, name, sources, writes, withSubgroups }) => ({ file, name, source: [...sources], writes, ...(withSubgroups !== undefined && { subgroups: subgroupsFile(file) }) }));
  }

  texts(): Record<string, string> {
    const texts = (e: Entry): [string, string][] => [[e.file, e.code], ...(e.withSubgroups === undefined ? [] : [[subgroupsFile(e.file), e.withSubgroups] as [string, string]])];
    return Object.fromEntries(this.#entries.flatMap((e) => texts(e).map(([file, code]) => [file, `// ${e.name}${e.sources.size > 0 ? `, from ${[...e.sources].join(', ')}` : ''}\n${code}`])));
  }
}

const subgroupsFile = (file: string): string => file.replace(/wgsl$/, 'subgroups.wgsl');
const prefix = (step: number): string => String(step).padStart(3, '0');

/** Op names and the first node, as a file name holds them. */
function slug(op: Op): string {
  const names = op.name === 'fused' ? (op.regions[0]?.ops ?? []).filter((o) => o.name !== 'constant').map((o) => o.name) : [op.name];
  const node = /\((.*)\)/.exec(op.source[0] ?? '')?.[1] ?? '';
  const text = [...names.slice(0, 3), ...(node === '' ? [] : [node])].join('-');
  return text.replace(/[^A-Za-z0-9_-]+/g, '_').slice(0, 60);
}
