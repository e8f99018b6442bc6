/**
 * Walks the protobuf wire format of a model, before protobufjs decodes it. onnx-proto knows ONNX 1.10's schema and drops newer fields in
 * silence, recurses as deep as the file says and reports damage by byte offset alone; this reader knows the current schema (onnx-schema.ts),
 * checks lengths, wire types and depth without recursion, refuses fields that nobody knows, and collects the newer ones that matter.
 */
import { schema, type FieldKind } from './onnx-schema.ts';

/** Deepest nesting of messages that is accepted; protobuf's own readers stop at 100 (33 nested subgraphs). */
export const maxDepth = 100;

/** Why bytes cannot be a model that this reader accepts. */
export class WireProblem extends Error {
  readonly kind: 'foreign' | 'truncated' | 'deep' | 'unknown field';
  constructor(kind: WireProblem['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Newer fields that onnx-proto drops: bytes by the path of their message (`functions[0]`, `graph.node[2].attribute[0].g.node[5]`), then by field name. */
export type NewerFields = ReadonlyMap<string, ReadonlyMap<string, readonly Uint8Array[]>>;

interface Frame {
  readonly message: string;
  readonly end: number;
  /** Field name and index by which the parent holds this message. */
  readonly step: string;
  readonly counts: Map<number, number>;
}

/** Checks the wire structure of a ModelProto (or another message of onnx.proto) and collects newer fields. Throws WireProblem. */
export function scan(bytes: Uint8Array, root = 'ModelProto'): { readonly newer: NewerFields; readonly ignored: readonly string[] } {
  const newer = new Map<string, Map<string, Uint8Array[]>>();
  const ignored = new Set<string>();
  const stack: Frame[] = [{ message: root, end: bytes.length, step: '', counts: new Map() }];
  let pos = 0;
  let fieldsSeen = 0;

  const fail = (why: string): never => {
    const frame = stack.at(-1)!;
    throw new WireProblem(fieldsSeen < 2 ? 'foreign' : 'truncated', `${why} at byte ${pos}, in ${where(stack)} (${frame.message})`);
  };
  const varint = (end: number): number => {
    let value = 0;
    for (let i = 0, scale = 1; i < 10; i++, scale *= 128) {
      if (pos >= end) return fail('the data ends inside a number');
      const byte = bytes[pos++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return fail('a number is longer than 10 bytes');
  };

  while (stack.length > 0) {
    const frame = stack.at(-1)!;
    if (pos === frame.end) {
      stack.pop();
      continue;
    }
    const tag = varint(frame.end);
    const number = Math.floor(tag / 8);
    const wire = tag % 8;
    const field = schema[frame.message]![number];
    if (!field) {
      const foreign = fieldsSeen < 2 || number === 0 || number > 1000 || wire === 3 || wire === 4 || wire > 5;
      throw new WireProblem(foreign ? 'foreign' : 'unknown field', `${where(stack)} has a field with number ${number}, which ${frame.message} does not have in ONNX up to IR version 14`);
    }
    if (!fits(field.kind, wire)) throw new WireProblem('foreign', `${join(where(stack), field.name)} has protobuf wire type ${wire}, which does not fit ONNX's ${frame.message}.${field.name}`);
    if (stack.length === 1) fieldsSeen++;
    if (wire !== 2) {
      if (wire === 0) varint(frame.end);
      else pos += wire === 1 ? 8 : 4;
      if (pos > frame.end) fail('the data ends inside a number');
      continue;
    }
    const length = varint(frame.end);
    if (pos + length > frame.end) fail(`${field.name} is ${length} bytes long, but ${frame.end - pos} bytes remain`);
    if (field.fate === 'ignored') ignored.add(`${frame.message}.${field.name}`);
    const index = frame.counts.get(number) ?? 0;
    frame.counts.set(number, index + 1);
    const step = field.repeated ? `${field.name}[${index}]` : field.name;
    if (field.fate === 'newer') add(newer, where(stack), field.name, bytes.subarray(pos, pos + length));
    if (!(field.kind in schema)) {
      pos += length;
      continue;
    }
    if (stack.length >= maxDepth) throw new WireProblem('deep', `messages are nested more than ${maxDepth} deep, at byte ${pos}`);
    stack.push({ message: field.kind, end: pos + length, step, counts: new Map() });
  }
  return { newer, ignored: [...ignored] };
}

/** The path of the innermost message; 'the top level' for the root. */
const where = (stack: readonly Frame[]): string => stack.slice(1).map((f) => f.step).join('.') || 'the top level';
const join = (path: string, step: string): string => `${path}.${step}`;

function fits(kind: FieldKind, wire: number): boolean {
  switch (kind) {
    case 'varint':
      return wire === 0;
    case 'varints':
      return wire === 0 || wire === 2;
    case 'float':
      return wire === 5;
    case 'floats':
      return wire === 5 || wire === 2;
    case 'doubles':
      return wire === 1 || wire === 2;
    default:
      return wire === 2;
  }
}

function add(map: Map<string, Map<string, Uint8Array[]>>, path: string, name: string, bytes: Uint8Array): void {
  let fields = map.get(path);
  if (!fields) map.set(path, (fields = new Map<string, Uint8Array[]>()));
  const list = fields.get(name);
  if (list) list.push(bytes);
  else fields.set(name, [bytes]);
}
