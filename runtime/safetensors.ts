/** The safetensors format: an 8-byte header length, a JSON header with dtype, shape and offsets of each tensor, then the data. */
import type { ByteSource } from './bytes.ts';
import { memorySource } from './bytes.ts';
import { InputError } from './error.ts';
import type { DTypeName } from './manifest.ts';
import { byteLength, bytesOf, tensorFromBytes, type Tensor } from './tensor.ts';

const names: Readonly<Record<string, DTypeName>> = {
  F64: 'f64', F32: 'f32', F16: 'f16', BF16: 'bf16', F8_E4M3: 'f8e4m3fn', F8_E5M2: 'f8e5m2', F8_E8M0: 'f8e8m0',
  I64: 'i64', I32: 'i32', I16: 'i16', I8: 'i8', U64: 'u64', U32: 'u32', U16: 'u16', U8: 'u8', BOOL: 'bool',
};
/** Types that the format has no name for are stored as bytes. */
const fileNames: Readonly<Partial<Record<DTypeName, string>>> = {
  ...Object.fromEntries(Object.entries(names).map(([file, ours]) => [ours, file])),
  f8e4m3fnuz: 'U8', f8e5m2fnuz: 'U8', f4e2m1: 'U8', i4: 'I8', i2: 'I8', u4: 'U8', u2: 'U8',
};

export interface StoredTensor {
  readonly dtype: DTypeName;
  readonly shape: readonly number[];
  /** Offset of the first byte in the file. */
  readonly offset: number;
  readonly bytes: number;
}

const maxHeader = 100 * 1024 * 1024;

/** Reads and checks the header: names, types, sizes that agree with shapes, offsets inside the file. */
export async function readHeader(source: ByteSource): Promise<ReadonlyMap<string, StoredTensor>> {
  const bad = (why: string): never => {
    throw new InputError(`${source.name} is not a valid safetensors file: ${why}`);
  };
  if (source.size !== undefined && source.size < 8) bad(`it has ${source.size} bytes, the header alone needs 8`);
  const prefix = new Uint8Array(8);
  await source.read(0, prefix);
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (length > maxHeader || (source.size !== undefined && 8 + length > source.size)) bad(`the header claims ${length} bytes`);
  const text = new Uint8Array(length);
  await source.read(8, text);
  const entries = parseJson(text);
  if (entries === undefined) return bad('the header is not a JSON object');
  const table = new Map<string, StoredTensor>();
  for (const [name, raw] of Object.entries(entries)) {
    if (name === '__metadata__') continue;
    const e = raw as { dtype?: unknown; shape?: unknown; data_offsets?: unknown } | null;
    const dtype = typeof e?.dtype === 'string' ? names[e.dtype] : undefined;
    if (dtype === undefined) return bad(`tensor ${JSON.stringify(name)} has the unknown dtype ${JSON.stringify(e?.dtype)}`);
    const { shape, data_offsets: range } = e!;
    if (!isCounts(shape) || !isCounts(range) || range.length !== 2) return bad(`tensor ${JSON.stringify(name)} has a malformed shape or offsets`);
    const [from, to] = range as [number, number];
    if (to - from !== byteLength({ dtype, shape })) bad(`tensor ${JSON.stringify(name)} has ${to - from} bytes, its shape ${dtype}[${shape.join(',')}] needs ${byteLength({ dtype, shape })}`);
    if (source.size !== undefined && 8 + length + to > source.size) bad(`tensor ${JSON.stringify(name)} ends at byte ${8 + length + to}, the file has ${source.size}`);
    table.set(name, { dtype, shape, offset: 8 + length + from, bytes: to - from });
  }
  return table;
}

/** The free text beside the tensors of a file whose header has been checked; anything but text is left out. */
export function readMetadata(bytes: Uint8Array): Record<string, string> {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const metadata = parseJson(bytes.subarray(8, 8 + length))?.['__metadata__'];
  return Object.fromEntries(Object.entries(metadata ?? {}).filter((e): e is [string, string] => typeof e[1] === 'string'));
}

/** All tensors of a file held in memory. */
export async function readSafetensors(bytes: Uint8Array, name = 'safetensors'): Promise<Map<string, Tensor>> {
  const table = await readHeader(memorySource(bytes, name));
  return new Map([...table].map(([key, t]) => [key, tensorFromBytes(t, bytes.subarray(t.offset, t.offset + t.bytes))]));
}

/** The file as chunks, header first; tensor data is not copied. Every tensor starts at a multiple of 8 bytes. `metadata` is the format's free text beside the tensors. */
export function safetensorsChunks(tensors: readonly (Tensor & { readonly name: string })[], metadata?: Readonly<Record<string, string>>): Uint8Array[] {
  // Widest elements first keeps each tensor aligned without gaps, which the format forbids.
  const order = [...tensors].sort((a, b) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let at = 0;
  for (const t of order) {
    header[t.name] = { dtype: fileNames[t.dtype], shape: t.shape, data_offsets: [at, at + t.data.byteLength] };
    at += t.data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const head = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  return [head, ...order.map((t) => bytesOf(t.data))];
}

/** The file in one piece. */
export function writeSafetensors(tensors: readonly (Tensor & { readonly name: string })[]): Uint8Array {
  return joined(safetensorsChunks(tensors));
}

/** Concatenates byte arrays. */
export function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(chunks.reduce((n, c) => n + c.byteLength, 0));
  let at = 0;
  for (const c of chunks) {
    out.set(c, at);
    at += c.byteLength;
  }
  return out;
}

function parseJson(text: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

const isCounts = (x: unknown): x is number[] => Array.isArray(x) && x.every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
