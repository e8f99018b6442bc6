/** Describes a compiled program for the runtime. */
import { decodeFloat } from '../../ir/number.ts';
import type { Entry, TileProgram } from '../../ir/tile.ts';
import { bytesOf, dtypes, isFloat, type Tensor } from '../../ir/type.ts';
import type { Value } from '../../ir/graph.ts';
import type { ImportedModel } from '../../frontend/index.ts';
import { invariant } from '../../ir/diagnostic.ts';
import { control } from '../../runtime/control.ts';
import type { EntryPoint, IoEntry, Manifest, StateEntry } from '../../runtime/manifest.ts';

/** What the manifest says of the modules that were emitted from one program. */
export interface ModuleFacts {
  readonly modules: Manifest['modules'];
  readonly steps: Manifest['steps'];
  readonly scratch: number;
  readonly scratchPerThread: number;
  readonly maxThreads: number;
  readonly profile: number;
  readonly target?: Manifest['target'] | undefined;
  /** Of a training artifact: what its state is for, and of each entry the first step and the one after the last. */
  readonly training?: { readonly roles: ReadonlyMap<string, StateEntry['role']>; readonly entrySteps: readonly (readonly [number, number])[] } | undefined;
}

export function makeManifest(imported: Pick<ImportedModel, 'bound' | 'dims'>, program: TileProgram, facts: ModuleFacts, producer: string): Manifest {
  const { memory } = program;
  return {
    format: 'tilewright',
    version: 1,
    model: program.graph.name,
    producer,
    backend: 'wasm',
    inputs: program.graph.inputs.map((v) => ioEntry(program, v.name ?? '', v)),
    outputs: program.graph.outputs.map((o) => ioEntry(program, o.name, o.value)),
    ...(facts.training && { entries: program.entries.map((e, i) => entryPoint(program, e, facts.training!.entrySteps[i]!)), state: stateOf(program, facts.training.roles) }),
    bound: Object.entries(imported.bound).map(([name, t]) => ({ name, dtype: t.dtype, shape: t.shape, value: elements(t) })),
    dims: imported.dims,
    weights: weightsOf(program).map((t) => ({ name: t.name, address: t.address, bytes: t.data.byteLength })),
    modules: facts.modules,
    memory: {
      control: control.size,
      weights: memory.constants + memory.state,
      io: memory.io,
      activations: memory.temps,
      liveBound: memory.liveBound,
      scratch: facts.scratch,
      scratchPerThread: facts.scratchPerThread,
      maxThreads: facts.maxThreads,
    },
    ...(facts.target && { target: facts.target }),
    steps: facts.steps,
    profile: facts.profile,
  };
}

/** Initial contents of memory, with names as they stand in weights.safetensors. Zeroes need no file. */
export function weightsOf(program: TileProgram): (Tensor & { readonly name: string; readonly address: number })[] {
  return program.contents.flatMap(({ value, name, tensor }) => (tensor === 'zero' || tensor.data.length === 0 ? [] : [{ ...tensor, name, address: addressOf(program, value) }]));
}

function entryPoint(program: TileProgram, entry: Entry, steps: EntryPoint['steps']): EntryPoint {
  const { inputs, outputs } = entry.graph ?? program.graph;
  return { name: entry.name as EntryPoint['name'], inputs: inputs.map((v) => ioEntry(program, v.name ?? '', v)), outputs: outputs.map((o) => ioEntry(program, o.name, o.value)), steps };
}

/** What the first entry changes, and what the host may. */
function stateOf(program: TileProgram, roles: ReadonlyMap<string, StateEntry['role']>): StateEntry[] {
  const { state, updates } = program.graph;
  const kept = new Set(updates.map((u) => u.state));
  return state.filter((s) => kept.has(s.value)).map((s) => {
    const role = roles.get(s.name);
    invariant(role, `the state ${s.name} has no role`);
    return { ...ioEntry(program, s.name, s.value), role };
  });
}

function ioEntry(program: TileProgram, name: string, value: Value): IoEntry {
  return { name, dtype: value.type.dtype, shape: value.type.shape, address: bytesOf(value.type) === 0 ? control.size : addressOf(program, value) };
}

function addressOf(program: TileProgram, value: Value): number {
  const place = program.placements.get(value);
  invariant(place, `${value.name ?? 'a value'} of the host has no place`);
  const buffer = program.buffers.find((b) => b.id === place.buffer);
  invariant(buffer, `buffer ${place.buffer} is missing`);
  return control.size + buffer.address + place.offset * dtypes[value.type.dtype].bytes;
}

/** Elements as JSON can hold them: numbers, and text for big integers and what is not finite. */
function elements(t: Tensor): (number | string)[] {
  return Array.from(t.data as ArrayLike<number | bigint>, (x) => {
    if (typeof x === 'bigint') return String(x);
    const n = isFloat(t.dtype) && dtypes[t.dtype].bytes < 4 ? decodeFloat(t.dtype, x) : x;
    return Number.isFinite(n) && !Object.is(n, -0) ? n : String(n);
  });
}
