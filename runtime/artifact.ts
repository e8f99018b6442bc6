/** Opens an artifact: a folder, a URL or an object in memory. What it says is checked before it is used. */
import { fileSource, memorySource, readAll, urlSource, type ByteSource } from './bytes.ts';
import { control } from './control.ts';
import { InputError } from './error.ts';
import type { InputValue } from './inputs.ts';
import type { Manifest } from './manifest.ts';
import { byteLength, dtypeFacts, elementCount, type Tensor } from './tensor.ts';
import { checkProgram } from './webgpu/check-program.ts';
import { storesHalves, wordBytes } from './webgpu/words.ts';

/** Asked for when run() gets other shapes, or other values of bound inputs, than the artifact was compiled for. */
export interface SpecialisationRequest {
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly bound: Readonly<Record<string, InputValue>>;
}
/** Rejects with InputError where the model cannot be compiled for these inputs. */
export type Recompile = (wanted: SpecialisationRequest) => Promise<ArtifactObject>;

/** Says in words which op of a training step first produced a number that is not finite, from the step's inputs and the state before it. */
export type Explain = (inputs: Readonly<Record<string, InputValue>>, state: ReadonlyMap<string, Tensor>) => Promise<string>;

/** An artifact in memory. */
export interface ArtifactObject {
  readonly manifest: Manifest;
  /** Module binaries by file name. */
  readonly modules: Readonly<Record<string, Uint8Array>>;
  /** Texts of shaders by file name, where the artifact is for WebGPU. */
  readonly shaders?: Readonly<Record<string, string>>;
  /** The bytes of weights.safetensors, in pieces that follow each other, or a source to read them from. */
  readonly weights: Uint8Array | ByteSource;
  /** The same model for WebAssembly, where this artifact is for WebGPU and was compiled with one. */
  readonly fallback?: ArtifactObject;
  /** Compiles another specialisation of the same model; absent where the compiler is not at hand. */
  readonly recompile?: Recompile;
  /** Finds out where a loss that is not finite comes from; absent where the compiler is not at hand. */
  readonly explain?: Explain;
}

export interface OpenArtifact extends Pick<ArtifactObject, 'recompile' | 'explain'> {
  readonly manifest: Manifest;
  module(file: string): Promise<Uint8Array>;
  /** Texts of shaders by file name. */
  shaders(): Promise<Readonly<Record<string, string>>>;
  weights(): Promise<ByteSource>;
  /** The artifact for WebAssembly that this one, for WebGPU, brings along; undefined where there is none. */
  fallback(): Promise<OpenArtifact | undefined>;
}

export async function openArtifact(source: string | URL | ArtifactObject): Promise<OpenArtifact> {
  if (typeof source === 'object' && 'manifest' in source) {
    return {
      manifest: checkManifest(source.manifest, 'the artifact'),
      ...(source.recompile && { recompile: source.recompile }),
      ...(source.explain && { explain: source.explain }),
      async module(file) {
        const binary = source.modules[file];
        if (!binary) throw new InputError(`the artifact has no module ${file}`);
        return binary;
      },
      shaders: async () => source.shaders ?? {},
      weights: async () => (source.weights instanceof Uint8Array ? memorySource(source.weights, 'weights.safetensors') : source.weights),
      fallback: async () => source.fallback && openArtifact(source.fallback),
    };
  }
  const at = locate(source);
  const text = new TextDecoder().decode(await readAll(at('manifest.json')));
  const where = String(at('manifest.json'));
  const manifest = checkManifest(parse<Manifest>(text, where), where);
  return {
    manifest,
    module: (file) => readAll(at(plainName(file, where))),
    shaders: async () => parse<Record<string, string>>(new TextDecoder().decode(await readAll(at('shaders.json'))), String(at('shaders.json'))),
    async weights() {
      const place = at('weights.safetensors');
      return typeof place === 'string' ? fileSource(place) : urlSource(place);
    },
    fallback: async () => (manifest.fallback === undefined ? undefined : openArtifact(at(plainName(manifest.fallback, where)))),
  };
}

/** Maps a file name to its place: a path in Node for folders and file: URLs, a URL otherwise. */
function locate(source: string | URL): (file: string) => string | URL {
  const node = globalThis.process?.getBuiltinModule?.('node:url');
  if (typeof source === 'string' && node && !/^[a-z][a-z0-9+.-]+:\/\//i.test(source)) return (file) => `${source.replace(/[/\\]+$/, '')}/${file}`;
  const base = source instanceof URL ? source : new URL(source, (globalThis as { location?: { href: string } }).location?.href);
  if (node && base.protocol === 'file:') return locate(node.fileURLToPath(base));
  const folder = new URL(base);
  if (!folder.pathname.endsWith('/')) folder.pathname += '/';
  return (file) => new URL(file, folder);
}

function parse<T>(text: string, where: string): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new InputError(`${where} is not JSON; is this the folder that \`tilewright compile\` wrote?`);
  }
}

function plainName(file: string, where: string): string {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/.test(file)) throw new InputError(`${where} names ${JSON.stringify(file)}, which is not a plain file name`);
  return file;
}

const pageLimit = 65536 * 65536;

/** Checks a manifest from outside: its kind, and that all that it places lies inside the memory it describes. */
function checkManifest(manifest: Manifest, where: string): Manifest {
  const bad = (why: string): never => {
    throw new InputError(`${where} is not a manifest that this runtime can use: ${why}`);
  };
  if (manifest?.format !== 'tilewright') bad('it does not say "format": "tilewright"');
  if (manifest.version !== 1) bad(`its version is ${String(manifest.version)}, expected 1`);
  if ((manifest.backend as string) === 'tiles') bad('it is one of a tile program, which `tilewright run` executes on simulated tiles');
  for (const key of ['inputs', 'outputs', 'bound', 'weights', 'modules', 'steps'] as const) if (!Array.isArray(manifest[key])) bad(`${key} is missing`);
  const { memory } = manifest;
  const counts = [memory?.scratch, memory?.scratchPerThread, memory?.maxThreads];
  if (!counts.every((n) => Number.isSafeInteger(n) && n >= 0) || memory.maxThreads < 1) bad('memory is missing or malformed');
  if (manifest.backend !== 'wgsl' && memory.scratch + memory.scratchPerThread > pageLimit) bad(`it needs ${memory.scratch + memory.scratchPerThread} bytes of memory, WebAssembly has ${pageLimit}`);
  const inside = (name: string, address: number, bytes: number): void => {
    if (!Number.isSafeInteger(address) || address < control.size || address + bytes > memory.scratch) bad(`${JSON.stringify(name)} lies outside the memory (address ${address}, ${bytes} bytes)`);
  };
  if (manifest.backend === 'wgsl') checkProgram(manifest, bad);
  const halves = storesHalves(manifest.gpu);
  for (const io of [...manifest.inputs, ...manifest.outputs]) {
    if (!(io.dtype in dtypeFacts) || !Array.isArray(io.shape) || !io.shape.every((d) => Number.isSafeInteger(d) && d >= 0)) bad(`the type of ${JSON.stringify(io.name)} is malformed`);
    inside(io.name, io.address, manifest.backend === 'wgsl' ? wordBytes(io.dtype, halves) * elementCount(io.shape) : byteLength(io));
  }
  for (const w of manifest.weights) {
    if (!Number.isSafeInteger(w.bytes) || w.bytes < 0) bad(`the size of ${JSON.stringify(w.name)} is malformed`);
    inside(w.name, w.address, w.dtype === undefined ? w.bytes : (wordBytes(w.dtype, halves) * w.bytes) / dtypeFacts[w.dtype].bytes);
  }
  return manifest;
}
