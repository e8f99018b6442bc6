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

export interface Manifest {
  readonly format: 'tilewright';
  readonly version: 1;
  /** Name of the ONNX graph. */
  readonly model: string;
  readonly producer: string;
  readonly backend: 'wasm';
  readonly inputs: readonly IoEntry[];
  readonly outputs: readonly IoEntry[];
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
