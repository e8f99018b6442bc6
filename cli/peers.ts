/** Other runtimes to compare with, loaded only when asked for; they are no dependencies of the package. */
import { createRequire } from 'node:module';
import { UserError } from '../ir/diagnostic.ts';
import type { DTypeName, Tensor } from '../runtime/index.ts';

export type PeerName = 'onnxruntime-web' | 'onnxruntime-node';
export const peerNames: readonly PeerName[] = ['onnxruntime-web', 'onnxruntime-node'];

/** A model loaded by one runtime. */
export interface Contender {
  readonly name: string;
  readonly version: string;
  run(inputs: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>>;
  close(): Promise<void>;
}

interface OrtTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: Tensor['data'];
}
/** What onnxruntime-web and onnxruntime-node have in common, as far as it is used here. */
interface Ort {
  readonly env: { readonly wasm: { numThreads?: number }; logLevel?: string };
  readonly Tensor: new (type: string, data: Tensor['data'], dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: { create(path: string, options: object): Promise<{ run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>; release(): Promise<void> }> };
}

const ortTypes: Readonly<Partial<Record<DTypeName, string>>> = {
  f64: 'float64', f32: 'float32', f16: 'float16', i64: 'int64', i32: 'int32', i16: 'int16', i8: 'int8', u64: 'uint64', u32: 'uint32', u16: 'uint16', u8: 'uint8', bool: 'bool',
};
const ours = new Map(Object.entries(ortTypes).map(([dtype, type]) => [type, dtype as DTypeName]));

/** Loads a model in ONNX Runtime with all graph optimizations and the given number of threads. onnxruntime-web takes the number once a process. */
export async function openPeer(name: PeerName, model: string, threads: number): Promise<Contender> {
  const module = await import(name).catch(() => {
    throw new UserError(`${name} is not installed; npm install ${name}`);
  }) as Ort & { default?: Ort };
  const ort = module.InferenceSession ? module : module.default!;
  ort.env.logLevel = 'error';
  if (name === 'onnxruntime-web') ort.env.wasm.numThreads = threads;
  const settings = name === 'onnxruntime-web' ? { executionProviders: ['wasm'] } : { executionProviders: ['cpu'], intraOpNumThreads: threads, interOpNumThreads: 1 };
  const session = await ort.InferenceSession.create(model, { ...settings, graphOptimizationLevel: 'all' });
  return {
    name,
    version: versionOf(name),
    async run(inputs) {
      const feeds = Object.fromEntries(Object.entries(inputs).map(([key, t]) => [key, new ort.Tensor(ortTypes[t.dtype] ?? t.dtype, t.data, t.shape)]));
      const results = await session.run(feeds);
      return Object.fromEntries(Object.entries(results).map(([key, t]) => [key, { dtype: ours.get(t.type) ?? 'f32', shape: t.dims, data: t.data }]));
    },
    close: () => session.release(),
  };
}

/** The installed version, from the package's own description: some packages do not export theirs. */
function versionOf(name: string): string {
  const require = createRequire(import.meta.url);
  try {
    const main = require.resolve(name);
    const root = main.slice(0, main.lastIndexOf(`/node_modules/${name}/`) + `/node_modules/${name}/`.length);
    return (require(`${root}package.json`) as { version: string }).version;
  } catch {
    return 'unknown';
  }
}
