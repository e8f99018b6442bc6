/** What a trainer needs of whatever runs a training artifact's entries. */
import type { InputValue } from './inputs.ts';
import type { StateEntry } from './manifest.ts';
import type { Tensor, TensorInfo } from './tensor.ts';

export interface EntryInfo {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

export type StateInfo = TensorInfo & Pick<StateEntry, 'role'>;

/** Two entries over one state. One call at a time. */
export interface Engine {
  readonly model: string;
  readonly threads: number;
  readonly notices: readonly string[];
  readonly step: EntryInfo;
  readonly eval: EntryInfo;
  readonly state: readonly StateInfo[];
  /** Runs an entry; inputs are checked against it before anything happens. A step whose loss is not finite changes no state. */
  run(entry: 'step' | 'eval', inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>>;
  /** Copies of the named state. */
  read(names: readonly string[]): Promise<Map<string, Tensor>>;
  /** Replaces the named state; types have been checked. */
  write(state: ReadonlyMap<string, Tensor>): Promise<void>;
  close(): Promise<void>;
}
