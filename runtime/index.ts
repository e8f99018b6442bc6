/** tilewright/runtime: loads and runs artifacts in Node and in browsers. Depends on nothing and knows nothing of the compiler. */
export { load } from './load.ts';
export { loadSession, type LoadOptions, type MemoryReport, type Session, type StepTime } from './session.ts';
export type { ArtifactObject, Explain, Recompile, SpecialisationRequest } from './artifact.ts';
export { memorySource, type ByteSource } from './bytes.ts';
export { InputError, RunError } from './error.ts';
export { NonFiniteState } from './finite.ts';
export { openGpu, type SharedGpu } from './webgpu/device.ts';
export { GpuFailure, LostGpu, NoGpu, ShaderError } from './webgpu/error.ts';
export type { InputOf, InputValue, Numbers } from './inputs.ts';
export type { DTypeName, IoEntry, Manifest } from './manifest.ts';
export { readNpy, writeNpy } from './npy.ts';
export { readSafetensors, writeSafetensors } from './safetensors.ts';
export type { Tensor, TensorInfo, TensorOf, TypedArray } from './tensor.ts';
export * from './data/index.ts';
export type { Checkpoint } from './checkpoint.ts';
export { constantSchedule, cosineSchedule, exponentialSchedule, stepSchedule, withWarmup, type Schedule } from './schedule.ts';
export { loadTrainer, NonFiniteLoss, type InputTensor, type LoadTrainerOptions, type StepResult, type Trainer, type TrainerOptions } from './trainer.ts';
