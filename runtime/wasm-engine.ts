/** Runs the entries of a compiled training artifact. */
import type { OpenArtifact } from './artifact.ts';
import { control } from './control.ts';
import type { Engine } from './engine.ts';
import { InputError } from './error.ts';
import type { Executor } from './executor.ts';
import { checkInputs, inputBytes, type InputValue } from './inputs.ts';
import type { EntryPoint, IoEntry, Manifest, StateEntry } from './manifest.ts';
import type { LoadOptions } from './session.ts';
import { start } from './start.ts';
import { byteLength, bytesOf, tensorOver, type Tensor } from './tensor.ts';
import type { Range } from './worker.ts';

/** Starts a training artifact. One that was compiled for inference alone is an InputError. */
export async function wasmEngine(artifact: OpenArtifact, options: Pick<LoadOptions, 'threads' | 'features' | 'gpu' | 'backend'>): Promise<Engine> {
  // What cannot be trained is refused before anything starts.
  entriesOf(artifact.manifest);
  const notices: string[] = [];
  const { manifest, executor } = await start(artifact, options, notices);
  return new WasmEngine(manifest, entriesOf(manifest), executor, notices);
}

function entriesOf(manifest: Manifest): Entries {
  const entry = (name: EntryPoint['name']): { readonly index: number; readonly at: EntryPoint } => {
    const index = manifest.entries?.findIndex((e) => e.name === name) ?? -1;
    if (index < 0) throw new InputError(`this artifact of ${manifest.model} cannot be trained: it was compiled for inference; compile the model with --train`);
    return { index, at: manifest.entries![index]! };
  };
  return { step: entry('step'), eval: entry('eval') };
}

const rangeOf = (io: IoEntry): Range => ({ address: io.address, bytes: byteLength(io) });

type Entries = Readonly<Record<'step' | 'eval', { readonly index: number; readonly at: EntryPoint }>>;

class WasmEngine implements Engine {
  readonly model: string;
  readonly threads: number;
  readonly notices: readonly string[];
  readonly step: EntryPoint;
  readonly eval: EntryPoint;
  readonly state: readonly StateEntry[];
  readonly #manifest: Manifest;
  readonly #executor: Executor;
  readonly #entries: Entries;

  constructor(manifest: Manifest, entries: Entries, executor: Executor, notices: readonly string[]) {
    this.model = manifest.model;
    this.threads = executor.threads;
    this.notices = notices;
    this.step = entries.step.at;
    this.eval = entries.eval.at;
    this.state = manifest.state ?? [];
    this.#manifest = manifest;
    this.#executor = executor;
    this.#entries = entries;
  }

  async run(name: 'step' | 'eval', inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>> {
    const { index, at } = this.#entries[name];
    checkInputs({ inputs: at.inputs, bound: this.#manifest.bound }, inputs);
    const writes = [
      { address: control.entry, bytes: bytesOf(Int32Array.of(index)) },
      ...at.inputs.map((i) => ({ address: i.address, bytes: inputBytes(i, inputs[i.name]!) })),
    ];
    const results = await this.#executor.run(writes, at.outputs.map(rangeOf));
    return Object.fromEntries(at.outputs.map((o, i) => [o.name, tensorOver(o, results[i]!)]));
  }

  async read(names: readonly string[]): Promise<Map<string, Tensor>> {
    const entries = names.map((name) => this.#named(name));
    const bytes = await this.#executor.read(entries.map(rangeOf));
    return new Map(entries.map((e, i) => [e.name, tensorOver(e, bytes[i]!)]));
  }

  async write(state: ReadonlyMap<string, Tensor>): Promise<void> {
    for (const [name, tensor] of state) await this.#fill(this.#named(name), bytesOf(tensor.data));
  }

  close(): Promise<void> {
    return this.#executor.close();
  }

  #fill(entry: StateEntry, bytes: Uint8Array): Promise<void> {
    return this.#executor.fill(entry.address, bytes.byteLength, async (at, into) => into.set(bytes.subarray(at, at + into.byteLength)));
  }

  #named(name: string): StateEntry {
    const found = this.state.find((s) => s.name === name);
    if (!found) throw new InputError(`the training step has no state ${JSON.stringify(name)}`);
    return found;
  }
}
