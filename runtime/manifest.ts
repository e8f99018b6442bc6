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
   * parameter. `counter`: the number of updates so far. `seed`: what random numbers are drawn by, set by the host. `scale`: an automatic loss scale, and the good steps since it changed.
   */
  readonly role: 'parameter' | 'statistic' | 'moment' | 'average' | 'counter' | 'seed' | 'scale';
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

/** A machine in the form of targets/*.json: each constant with its unit, and where its number comes from. */
export interface TargetData {
  readonly name: string;
  readonly description: string;
  readonly backend?: 'wasm' | 'wgsl';
  readonly constants: Readonly<Record<string, { readonly value: number; readonly unit: string; readonly source: string }>>;
}

/** What a profile says of a step. */
export interface StepRow {
  readonly name: string;
  /** The ONNX nodes that it came from. */
  readonly source: readonly string[];
  readonly chunks: number;
  readonly flops: number;
  readonly bytes: number;
  /** Bytes of the slices of the largest part of a chunk that its loops come back to; on a GPU of workgroup memory, where what a workgroup shares lies. */
  readonly vertex?: number;
  /** Why that is more than a tile of the target has. */
  readonly relaxed?: string;
}

export interface Manifest {
  readonly format: 'tilewright';
  readonly version: 1;
  /** Name of the ONNX graph. */
  readonly model: string;
  readonly producer: string;
  readonly backend: 'wasm' | 'wgsl';
  /** What a GPU runs, where the backend is wgsl; `modules` is empty then. */
  readonly gpu?: GpuProgram;
  /** Of an artifact for WebGPU: the folder beside this file that holds the same model for WebAssembly, an artifact of its own. */
  readonly fallback?: string;
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
  /** Tensors of weights.safetensors and where they go; with their dtype where memory holds them in another form than the file. */
  readonly weights: readonly { readonly name: string; readonly address: number; readonly bytes: number; readonly dtype?: DTypeName }[];
  /** Modules by feature set, best first; the runtime takes the first that validates. `memoryFlag`: file offset of the memory import's limits flag (3 shared, 1 not). */
  readonly modules: readonly { readonly features: 'wide' | 'relaxed' | 'simd' | 'plain'; readonly file: string; readonly memoryFlag: number }[];
  readonly memory: {
    /** Control block at address 0 (threads meet here); see runtime/control.ts. */
    readonly control: number;
    readonly weights: number;
    /** Inputs and outputs; they lie among the activations, which overwrite an input after its last reader. */
    readonly io: number;
    readonly activations: number;
    /** Largest sum of live activation bytes: the floor that `activations` is judged against. */
    readonly liveBound: number;
    /** First byte of scratch; thread t has [scratch + t * scratchPerThread, ...). */
    readonly scratch: number;
    readonly scratchPerThread: number;
    readonly maxThreads: number;
  };
  /** The machine that kernels were cut for, where one was named: its `tiles` and `bytesPerTile` decide the chunks. */
  readonly target?: TargetData;
  /** In order of execution (loop bodies once), for profiles. */
  readonly steps: readonly StepRow[];
  /** Address of f64 pairs (start, end in ms) per step, in a profiling build; -1 otherwise. */
  readonly profile: number;
}

/** One GPU buffer: the part of the address space from `start` (counted as `address` is elsewhere, less the control block) of this many bytes. */
export interface Segment {
  /** `gate`: flags of branches and loops, and the workgroups that their dispatches have, 0 while they do not run. */
  readonly kind: 'constant' | 'state' | 'io' | 'temp' | 'gate';
  readonly start: number;
  readonly bytes: number;
}

/** One run of a shader. */
export interface Dispatch {
  readonly shader: number;
  /** In the order of the shader's bindings: which segment, the first byte in it, and how many. */
  readonly bindings: readonly (readonly [segment: number, offset: number, bytes: number])[];
  readonly workgroups: readonly [x: number, y: number];
  /** Where its workgroups are read instead, as three 32-bit words: which segment, and the first byte in it. In a branch or a loop of run-time length. */
  readonly indirect?: readonly [segment: number, offset: number];
  /** Its row in the manifest's list of steps. */
  readonly step: number;
}

/** A dispatch, or steps that run so many times. */
export type GpuStep = Dispatch | { readonly repeat: number; readonly body: readonly GpuStep[] };

/**
 * A program of compute shaders. In its memory every element takes 4 bytes, whatever its dtype: integers and bool as 32-bit integers, small floats as their bits. With the feature `shader-f16` f16 takes 2.
 * A tensor may lie in several segments that follow each other.
 */
export interface GpuProgram {
  readonly segments: readonly Segment[];
  /** What each entry runs, in order. */
  readonly entries: readonly (readonly GpuStep[])[];
  /** Files in the folder `shaders`, the fused op that each computes, the ONNX nodes that it came from, and of each binding whether it is written. `subgroups`: the file of the form that takes subgroups, where the device has them in order. */
  readonly shaders: readonly { readonly file: string; readonly name: string; readonly source: readonly string[]; readonly writes: readonly boolean[]; readonly subgroups?: string }[];
  /** What an adapter has to offer, by WebGPU's names. */
  readonly limits: Readonly<Record<'maxBufferSize' | 'maxStorageBufferBindingSize' | 'maxStorageBuffersPerShaderStage' | 'maxComputeWorkgroupStorageSize' | 'maxComputeInvocationsPerWorkgroup', number>>;
  /** Features that an adapter has to have, by WebGPU's names. */
  readonly features: readonly string[];
  /** Between which values 64-bit integers of inputs lie: all others were proved to fit 32 bits if these do. */
  readonly integerInputs: readonly [lo: number, hi: number];
  /** Inputs of f32 that lie between the same values, as they are cast to 64-bit integers. */
  readonly floatInputs?: readonly string[];
}
