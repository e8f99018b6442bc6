/** Errors of WebGPU. */
import { InputError, RunError } from '../error.ts';

/** WebGPU is missing, no adapter was found, or the one that was lacks something: `reason`. */
export class NoGpu extends InputError {
  readonly reason: string;
  constructor(reason: string) {
    super(`${reason}; use an artifact of the model that was compiled for wasm`);
    this.reason = reason;
  }
}

/** The GPU failed, or gave no answer in time: not what was computed on it, but the device, its driver or its memory. */
export class GpuFailure extends RunError {}

/** The GPU went away during a run: load the artifact again, and restore a trainer from its last checkpoint. */
export class LostGpu extends GpuFailure {}

/** A driver rejected a shader. `shader` is its text. */
export class ShaderError extends GpuFailure {
  readonly shader: string;
  constructor(message: string, shader: string) {
    super(message);
    this.shader = shader;
  }
}
