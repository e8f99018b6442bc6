/** What manifest.json says: all that the runtime needs to run model.wasm. Addresses and sizes in bytes. */

export type DTypeName =
  | 'f64' | 'f32' | 'f16' | 'bf16' | 'f8e4m3fn' | 'f8e4m3fnuz' | 'f8e5m2' | 'f8e5m2fnuz' | 'f8e8m0' | 'f4e2m1'
  | 'i64' | 'i32' | 'i16' | 'i8' | 'i4' | 'i2' | 'u64' | 'u32' | 'u16' | 'u8' | 'u4' | 'u2' | 'bool';

export interface IoEntry {
  readonly name: string;
  readonly dtype: DTypeName;
  readonly shape: readonly number[];
  /** Linear-memory address of the row-major tensor. */
  readonly address: number;
}

/** A tensor that outlives a call of an entry: what training changes, and what checkpoints hold. */
export interface StateEntry extends IoEntry {
  /**
   * `parameter`: a weight that is trained. `statistic`: a running statistic of a norm. `moment`: the optimizer's. `average`: the moving average of a
   * parameter. `counter`: the number of updates so far. `seed`: what random numbers are drawn by, set by the host.
   */
  readonly role: 'parameter' | 'statistic' | 'moment' | 'average' | 'counter' | 'seed';
}

/**
 * What one call of the module runs: inference has `run`; training has `step`, which changes the state, and `eval`, which reads it. The host writes the index of the entry to
 * `control.entry` before a call.
 */
export interface EntryPoint {
  readonly name: 'run' | 'step' | 'eval';
  readonly inputs: readonly IoEntry[];
  readonly outputs: readonly IoEntry[];
  /** Its rows in the manifest's list of steps: the first, and the one after the last. */
  readonly steps: readonly [first: number, end: number];
}

export interface Manifest {
  readonly format: 'tilewright';
  readonly version: 1;
  /** Name of the ONNX graph. */
  readonly model: string;
  readonly producer: string;
  readonly backend: 'wasm';
  /** Inputs and outputs of the first entry. */
  readonly inputs: readonly IoEntry[];
  readonly outputs: readonly IoEntry[];
  /** All that a call may run; absent: `run` alone. */
  readonly entries?: readonly EntryPoint[];
  /** Tensors that entries change; absent where none does. State that starts as zeros is not among `weights`: fresh memory holds it. */
  readonly state?: readonly StateEntry[];
  /** Inputs whose values were bound at compile time: run() checks that a given value equals this one. */
  readonly bound: readonly { readonly name: string; readonly dtype: DTypeName; readonly shape: readonly number[]; readonly value: readonly (number | string)[] }[];
  /** Symbolic dimensions and the sizes they were bound to. */
  readonly dims: Readonly<Record<string, number>>;
  /** Tensors of weights.safetensors and where they go. */
  readonly weights: readonly { readonly name: string; readonly address: number; readonly bytes: number }[];
  /** Modules by feature set, best first; the runtime takes the first that validates. `memoryFlag`: file offset of the memory import's limits flag (3 shared, 1 not). */
  readonly modules: readonly { readonly features: 'wide' | 'relaxed' | 'simd' | 'plain'; readonly file: string; readonly memoryFlag: number }[];
  readonly memory: {
    /** Control block at address 0 (threads meet here); see runtime/control.ts. */
    readonly control: number;
    readonly weights: number;
    readonly io: number;
    readonly activations: number;
    /** Largest sum of live activation bytes: the floor that `activations` is judged against. */
    readonly liveBound: number;
    /** First byte of scratch; thread t has [scratch + t * scratchPerThread, ...). */
    readonly scratch: number;
    readonly scratchPerThread: number;
    readonly maxThreads: number;
  };
  /** One row per step, in order of execution (loop bodies once), for profiles. */
  readonly steps: readonly { readonly name: string; readonly source: readonly string[]; readonly chunks: number; readonly flops: number; readonly bytes: number }[];
  /** Address of f64 pairs (start, end in ms) per step, in a profiling build; -1 otherwise. */
  readonly profile: number;
}
