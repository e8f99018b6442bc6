/** The wire format of protobuf: enough to walk a file's structure and to write parts of it anew. */
import { InputError } from './error.ts';

export interface Field {
  readonly number: number;
  readonly wire: number;
  /** A varint's number; 0 for other wire types. */
  readonly value: number;
  /** What a length-delimited field holds. */
  readonly content: Uint8Array;
  /** All of it, with its tag. */
  readonly whole: Uint8Array;
}

/** The fields of a message; `name` is the file's, for errors. What is no message is an InputError. */
export function* fieldsOf(bytes: Uint8Array, name: string): Generator<Field> {
  for (let at = 0; at < bytes.length; ) {
    const start = at;
    const [tag, afterTag] = varint(bytes, at, name);
    const wire = tag % 8;
    let value = 0;
    let from = afterTag;
    if (wire === 0) [value, at] = varint(bytes, afterTag, name);
    else if (wire === 1) at = afterTag + 8;
    else if (wire === 5) at = afterTag + 4;
    else if (wire === 2) {
      const [length, content] = varint(bytes, afterTag, name);
      [from, at] = [content, content + length];
    } else throw broken(name, start);
    if (at > bytes.length) throw broken(name, start);
    yield { number: Math.floor(tag / 8), wire, value, content: bytes.subarray(from, at), whole: bytes.subarray(start, at) };
  }
}

function varint(bytes: Uint8Array, at: number, name: string): [value: number, end: number] {
  let value = 0;
  for (let i = 0, scale = 1; i < 10; i++, scale *= 128) {
    const byte = bytes[at + i];
    if (byte === undefined) break;
    value += (byte & 127) * scale;
    if (byte < 128) return [value, at + i + 1];
  }
  throw broken(name, at);
}

/** The numbers of a packed field. */
export function varints(bytes: Uint8Array, name: string): number[] {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const [value, end] = varint(bytes, at, name);
    out.push(value);
    at = end;
  }
  return out;
}

const broken = (name: string, at: number): InputError => new InputError(`${name} is not an ONNX model that can be read: its structure breaks off at byte ${at}`);

/** A length-delimited field: a string, bytes or a message. */
export function lengthDelimited(number: number, content: readonly Uint8Array[]): Uint8Array[] {
  return [encodeVarint(number * 8 + 2), encodeVarint(sizeOf(content)), ...content];
}

/** A field that holds a whole number. */
export const varintField = (number: number, value: number): Uint8Array[] => [encodeVarint(number * 8), encodeVarint(value)];

function encodeVarint(n: number): Uint8Array {
  const bytes: number[] = [];
  for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
  return Uint8Array.from([...bytes, n]);
}

/** Bytes of all chunks together. */
export const sizeOf = (chunks: readonly Uint8Array[]): number => chunks.reduce((n, c) => n + c.byteLength, 0);
