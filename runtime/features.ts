/** What the engine can run, found by validating tiny modules, and small edits of module binaries. */
import { InputError } from './error.ts';
import type { Manifest } from './manifest.ts';

export type Features = Manifest['modules'][number]['features'];

const header = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
/** A module with one function () -> () of the given body. */
const withBody = (...body: number[]): Uint8Array<ArrayBuffer> =>
  new Uint8Array([...header, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, body.length + 4, 1, body.length + 2, 0, ...body, 0x0b]);
const v128Zero = [0xfd, 12, ...new Array<number>(16).fill(0)];
const drop = 0x1a;

/** Whether 128-bit SIMD validates. */
export const hasSimd = (): boolean => WebAssembly.validate(withBody(...v128Zero, drop));
/** Whether `f32x4.relaxed_madd` validates. */
export const hasRelaxedSimd = (): boolean => WebAssembly.validate(withBody(...v128Zero, ...v128Zero, ...v128Zero, 0xfd, 0x85, 0x02, drop));
/** Why threads cannot share a memory here; undefined where they can. */
export function noThreads(): string | undefined {
  if ((globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated === false) {
    return 'this page is not cross-origin isolated, so memory cannot be shared (send the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)';
  }
  // Where this global is hidden, engines may still make a shared memory, and then refuse to send it to a worker.
  if (typeof SharedArrayBuffer === 'undefined') return 'this browser does not let workers share memory';
  if (!WebAssembly.validate(new Uint8Array([...header, 5, 4, 1, 3, 1, 1]))) return 'this engine has no shared WebAssembly memory';
  return undefined;
}

/** Whether this thread may sleep until others have done their part: not the main thread of a page. */
export function canBlock(): boolean {
  if (noThreads() !== undefined) return false;
  try {
    // The cell differs from the expected value, so a thread that may wait returns at once.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1);
    return true;
  } catch {
    return false;
  }
}

/** The first module of the manifest that this engine runs; `wide` ones only if asked for. */
export function chooseModule(modules: Manifest['modules'], wanted: { readonly features?: Features | undefined; readonly wide: boolean }): Manifest['modules'][number] {
  const runs: Readonly<Record<Features, () => boolean>> = {
    wide: () => wanted.wide && hasRelaxedSimd(),
    relaxed: hasRelaxedSimd,
    simd: hasSimd,
    plain: () => true,
  };
  const found = modules.find((m) => (wanted.features === undefined || m.features === wanted.features) && runs[m.features]());
  if (found) return found;
  const have = modules.map((m) => m.features);
  if (wanted.features === undefined) throw new InputError(`this engine runs none of the artifact's modules (${have.join(', ')}); compile with --features plain`);
  if (!have.includes(wanted.features)) throw new InputError(`the artifact has no module ${wanted.features}, it has ${have.join(', ')}; compile with --features ${wanted.features}`);
  throw new InputError(`this engine does not run the module ${wanted.features}, it runs ${have.filter((f) => runs[f]()).join(', ') || 'none of the others'}; leave features out`);
}

/** Turns on V8's revectorizer for modules compiled from now on; false where there is no V8 or no way to its flags. */
export function enableRevectorizer(): boolean {
  const v8 = globalThis.process?.getBuiltinModule?.('node:v8');
  if (!v8 || !globalThis.process.versions['v8']) return false;
  v8.setFlagsFromString('--experimental-wasm-revectorize');
  return true;
}

/** Bits of a memory type's limits flag. */
const shared = 3;
const unshared = 1;

/** A copy of the module whose memory import is not shared, for engines without threads. */
export function unsharedModule(binary: Uint8Array, memoryFlag: number): Uint8Array {
  if (binary[memoryFlag] !== shared) throw new InputError(`manifest.json does not fit the module: no shared memory import at byte ${memoryFlag}`);
  const copy = binary.slice();
  copy[memoryFlag] = unshared;
  return copy;
}

/** Pages that the memory import asks for: read after the limits flag. */
export function memoryLimits(binary: Uint8Array, memoryFlag: number): { readonly min: number; readonly max: number } {
  let at = memoryFlag + 1;
  const next = (): number => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = binary[at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  return { min: next(), max: next() };
}

/** Cores that this process may use. */
export function cores(): number {
  const os = globalThis.process?.getBuiltinModule?.('node:os');
  return os ? os.availableParallelism() : navigator.hardwareConcurrency;
}
