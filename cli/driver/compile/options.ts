/** What a compilation can be asked for, and what follows from it for the importer and the planner. */
import type { ImportOptions } from '../../../frontend/index.ts';
import { UserError } from '../../../ir/diagnostic.ts';
import type { Graph } from '../../../ir/graph.ts';
import type { Target } from '../../../ir/tile.ts';
import type { Tensor } from '../../../ir/type.ts';
import type { NormSpec } from '../../../passes/norm/options.ts';
import type { TileTarget } from '../../../passes/tile/target.ts';
import type { TrainOptions } from '../../../passes/train/options.ts';
import type { Features } from '../../../runtime/features.ts';
import type { GpuLimits } from '../gpu.ts';
import { wasmTarget, wasmTargetOf, wgslHalfTarget, wgslTarget } from '../target.ts';

/** What an artifact runs on. */
export type Backend = 'wasm' | 'wgsl';

export interface CompileOptions {
  /** Sizes of symbolic dimensions; 1 unless given. */
  readonly dims?: Readonly<Record<string, number>>;
  /** Values of inputs that decide shapes: bound now, checked when the artifact runs. */
  readonly values?: Readonly<Record<string, Tensor>>;
  /** Shapes of inputs, from which symbolic dimensions follow. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** What the artifact runs on: WebAssembly (the default), or a GPU through WebGPU. */
  readonly backend?: Backend;
  /** With the backend wgsl: compiles the model for WebAssembly as well, which `load` takes where there is no GPU. The folder `wasm` of the artifact's holds it, weights included. */
  readonly fallback?: boolean;
  /** With the backend wgsl: what the adapter offers, where that is not WebGPU's defaults; larger tensors are split. */
  readonly gpuLimits?: GpuLimits;
  /**
   * With the backend wgsl: stores and computes in f16, which an adapter needs the feature `shader-f16` for. Sums of products and reductions stay f32, and so do inputs, outputs and state. A training
   * artifact stores f16 what its mixed precision makes f16.
   */
  readonly f16?: boolean;
  /** The machine that kernels (targets/cpu.json unless given) or workgroups (targets/gpu.json) are cut for; one of the other backend's is a UserError. */
  readonly target?: TileTarget;
  /** A module is emitted for each feature set, best first; the runtime takes the first that runs. */
  readonly features?: readonly Features[];
  /** Most threads that the artifact may use. */
  readonly maxThreads?: number;
  /** Emits a profiling build, which notes the time of every step. */
  readonly profile?: boolean;
  /** How messages call a model that is given as bytes. */
  readonly file?: string;
  /** Makes a training artifact: an entry `step` that trains by these options, and an entry `eval`, over one state. */
  readonly train?: TrainOptions;
  /**
   * Most bytes that the arena of a training step may take: it computes fewer samples at a time, and so does the evaluation, or its backward pass computes values of the forward pass again instead of keeping
   * them, or both, whichever is estimated to be fastest. Where ops of the model join samples, all are computed at once. The result is that of the step without a limit. Throws OverLimit where nothing fits.
   */
  readonly memory?: number;
  /** Called after each pass that changed the graph. */
  readonly onGraph?: (graph: Graph, pass: string, index: number) => void;
  /** Called before each stage of the compilation. */
  readonly onProgress?: (stage: string, done: number, of: number) => void;
  /** The last pass to run, or `import`; for `compileGraph`. */
  readonly stopAfter?: string;
  /** Compiles the model as it works in inference, whatever mode it was exported in: by running statistics, without dropout. With `norm` it is, but for training. */
  readonly inference?: boolean;
  /** Rewrites the model's batch normalizations. */
  readonly norm?: NormSpec;
}

/** The machine that a compilation plans for. */
export function targetOf({ backend = 'wasm', target, f16 }: CompileOptions): Target {
  if (target?.backend !== undefined && target.backend !== backend) throw new UserError(`the target ${target.name} is for the backend ${target.backend}, and the model is compiled for ${backend}`);
  return backend === 'wgsl' ? (f16 ? wgslHalfTarget : wgslTarget) : target ? wasmTargetOf(target) : wasmTarget;
}

/** What the importer is asked for. */
export function importOptions({ dims, values, shapes, file, train, inference, norm }: CompileOptions): ImportOptions {
  return { ...(!train && (inference === true || norm !== undefined) && { inference: true }), ...(train && { seeded: true }), ...(dims && { dims }), ...(values && { values }), ...(shapes && { shapes }), ...(file !== undefined && { file }) };
}
