/** Checkpoints: all of a training run's state in one safetensors file, with a digest over every byte. */
import { InputError } from './error.ts';
import { joined, readMetadata, readSafetensors, safetensorsChunks } from './safetensors.ts';
import { describe, type Tensor, type TensorInfo } from './tensor.ts';

export interface Checkpoint {
  /** Number of updates so far. */
  readonly step: number;
  /** Parameters, moments, statistics, counters and seeds, by name. */
  readonly state: ReadonlyMap<string, Tensor>;
  /** What the caller keeps beside them, as text: where the data stood, say. */
  readonly notes: Readonly<Record<string, string>>;
}

const format = 'tilewright checkpoint 1';
const digestKey = 'sha256';
const noDigest = '0'.repeat(64);
const notePrefix = 'note.';

/** A checkpoint as a file's bytes. */
export async function encodeCheckpoint({ step, state, notes }: Checkpoint): Promise<Uint8Array> {
  const tensors = [...state].map(([name, t]) => ({ ...t, name }));
  const file = (digest: string): Uint8Array => joined(safetensorsChunks(tensors, {
    format, step: String(step), [digestKey]: digest, ...Object.fromEntries(Object.entries(notes).map(([k, v]) => [notePrefix + k, v])),
  }));
  return file(await digestOf(file(noDigest)));
}

/** Reads a checkpoint; `name` is the file's, for messages. What is damaged, and what is no checkpoint, is an InputError. */
export async function decodeCheckpoint(bytes: Uint8Array, name: string): Promise<Checkpoint> {
  let tensors: Map<string, Tensor>;
  try {
    tensors = await readSafetensors(bytes, name);
  } catch (e) {
    throw new InputError(`the checkpoint ${name} is damaged or cut off (${e instanceof Error ? e.message : String(e)})`);
  }
  const metadata = readMetadata(bytes);
  if (metadata['format'] !== format) throw new InputError(`${name} is not a checkpoint of tilewright: its metadata does not say ${JSON.stringify(format)}`);
  const digest = metadata[digestKey] ?? '';
  if (digest !== await digestOf(withoutDigest(bytes, digest))) throw new InputError(`the checkpoint ${name} is damaged: its contents do not match its digest`);
  const notes = Object.entries(metadata).filter(([k]) => k.startsWith(notePrefix)).map(([k, v]) => [k.slice(notePrefix.length), v]);
  return { step: Number(metadata['step']), state: tensors, notes: Object.fromEntries(notes) as Record<string, string> };
}

/** Checks that a checkpoint has the state of a model, no more and no less. */
export function checkBelongs({ state }: Checkpoint, expected: readonly TensorInfo[], name: string): void {
  const foreign = (why: string): never => {
    throw new InputError(`the checkpoint ${name} is of another model or another optimizer: ${why}`);
  };
  for (const e of expected) {
    const found = state.get(e.name);
    if (!found) return foreign(`it lacks ${JSON.stringify(e.name)}`);
    if (describe(found) !== describe(e)) return foreign(`${JSON.stringify(e.name)} is ${describe(found)}, expected ${describe(e)}`);
  }
  const extra = [...state.keys()].find((k) => !expected.some((e) => e.name === k));
  if (extra !== undefined) return foreign(`it has ${JSON.stringify(extra)}, which the training step does not`);
}

async function digestOf(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
  return [...digest].map((b) => b.toString(16).padStart(2, '0')).join('');
}

/** The file as it was when its digest was taken: with zeros in the digest's place, which stands in the header. */
function withoutDigest(bytes: Uint8Array, digest: string): Uint8Array {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = new TextDecoder().decode(bytes.subarray(8, 8 + length)).replace(digest, noDigest);
  const blank = bytes.slice();
  blank.set(new TextEncoder().encode(header).subarray(0, length), 8);
  return blank;
}
