/** What is wrong with a model is said in one message that names file, node and cause; nothing else is ever thrown. Every case is a real file. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { Unsupported, UserError } from '../ir/diagnostic.ts';
import { encodeModel, external, field, floats, int64s, join, node, raw, sequence, value, varint, type TestModel } from './onnx-encode.ts';

const folder = mkdtempSync(path(tmpdir(), 'bad-input-'));
const home = path(folder, 'model');
mkdirSync(home);
afterAll(() => rmSync(folder, { recursive: true }));

/** The message that importing a file with these bytes gives. */
function messageOf(bytes: Uint8Array, kind: new (...args: never[]) => Error = UserError): string {
  const file = path(home, 'model.onnx');
  writeFileSync(file, bytes);
  let error: unknown;
  try {
    importModel(file);
  } catch (e) {
    error = e;
  }
  expect(error).toBeInstanceOf(kind);
  const { message } = error as Error;
  expect(message).toContain('model.onnx');
  expect(message).not.toMatch(/\n|undefined|\[object/);
  return message;
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const x = value('x', 'f32', [2, 3]);
const y = value('y', 'f32', [2, 3]);
const good: TestModel = { nodes: [node('Add', ['x', 'w'], ['y'], {}, { name: 'sum' })], inputs: [x], outputs: [y], initializers: [floats('w', [3], [1, 2, 3])] };
const goodBytes = encodeModel(good);
const png = Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 13]);
// A string of 200 bytes in field 1, where a model has its IR version.
const otherProtobuf = join(field(1, utf8('a'.repeat(200))), field(2, utf8('b')), field(7, utf8('not a graph')));

test('the model that the cases below break is good', () => {
  writeFileSync(path(home, 'good.onnx'), goodBytes);
  expect(importModel(path(home, 'good.onnx')).graph.outputs.map((o) => o.name)).toEqual(['y']);
});

test.each<[string, Uint8Array, RegExp]>([
  ['an empty file', new Uint8Array(), /is empty \(0 bytes\), not an ONNX model/],
  ['a file cut in its graph', goodBytes.subarray(0, goodBytes.length - 20), /is truncated or damaged: graph is \d+ bytes long, but \d+ bytes remain/],
  ['a file cut before its graph', encodeModel(good).subarray(0, 14), /has no graph|truncated/],
  ['a picture', png, /is a PNG image, not an ONNX model/],
  ['a Git LFS pointer', utf8('version https://git-lfs.github.com/spec/v1\noid sha256:00\n'), /is a Git LFS pointer/],
  ['text', utf8('this is not a model at all, it is a line of text'), /is not an ONNX model/],
  ['protobuf of something else', otherProtobuf, /is not an ONNX model: .*ir_version has protobuf wire type 2/],
  ['protobuf with no graph', Uint8Array.from([8, 8]), /has no graph/],
])('%s', (_, bytes, message) => {
  expect(messageOf(bytes)).toMatch(message);
});

test('random bytes are never a model and never crash the reader', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), (bytes) => void messageOf(bytes)),
    { numRuns: 300, seed: 1 },
  );
});

test('a model cut anywhere, or with one byte changed, imports or gives a UserError', () => {
  const tryImport = (bytes: Uint8Array): void => {
    try {
      importModel(bytes);
    } catch (e) {
      if (!(e instanceof UserError)) throw e;
    }
  };
  for (let n = 0; n < goodBytes.length; n++) tryImport(goodBytes.subarray(0, n));
  for (let i = 0; i < goodBytes.length; i++) {
    for (const x of [0, 1, 0x7f, 0x80, 0xff, goodBytes[i]! ^ 1, goodBytes[i]! ^ 8]) {
      const bytes = goodBytes.slice();
      bytes[i] = x;
      tryImport(bytes);
    }
  }
});

/** A model whose graph holds an If whose branch holds an If, and so on. Each level is three messages. */
function nested(levels: number): Uint8Array {
  // Built inside out in one buffer from the end, so that 10,000 levels take linear time.
  const parts: Uint8Array[] = [];
  let length = 0;
  const wrap = (number: number): void => {
    const head = join(varint(number * 8 + 2), varint(length));
    parts.unshift(head);
    length += head.length;
  };
  for (let i = 0; i < levels; i++) for (const number of [6, 5, 1]) wrap(number);
  wrap(7);
  return join(Uint8Array.from([8, 8]), field(8, Uint8Array.from([16, 21])), ...parts);
}

test('a nesting depth of 10,000', () => {
  expect(messageOf(nested(10_000))).toMatch(/nested too deeply: messages are nested more than 100 deep, at byte \d+/);
});

const graphs: readonly [string, Partial<TestModel>, RegExp][] = [
  ['a cycle', { nodes: [node('Add', ['x', 'b'], ['a'], {}, { name: 'first' }), node('Relu', ['a'], ['b'], {}, { name: 'second' }), node('Neg', ['b'], ['y'])] }, /the graph has a cycle: Add node "first" -> Relu node "second" -> Add node "first"/],
  ['a node that reads its own output', { nodes: [node('Add', ['x', 'y'], ['y'])] }, /cycle: Add node "y" -> Add node "y"/],
  ['a tensor that nothing defines', { nodes: [node('Add', ['x', 'ghost'], ['y'])] }, /Add node "y" reads "ghost", which no input, initializer or node defines/],
  ['an output that nothing defines', { outputs: [value('z', 'f32')] }, /output "z".*no input, initializer or node defines it/],
  ['a name defined by two nodes', { nodes: [node('Relu', ['x'], ['y'], {}, { name: 'p' }), node('Neg', ['x'], ['y'], {}, { name: 'q' })] }, /"y" is defined twice, by Relu node "p" and by Neg node "q"/],
  ['a node that redefines an initializer', { nodes: [node('Neg', ['x'], ['w']), node('Add', ['x', 'w'], ['y'])] }, /Neg node "w" defines "w", which is already the name of an input or initializer/],
  ['an initializer twice', { initializers: [floats('w', [3], [1, 2, 3]), floats('w', [3], [1, 2, 3])] }, /initializer "w" is listed twice/],
  ['an input twice', { inputs: [x, x] }, /input "x" is listed twice/],
  ['an output twice', { outputs: [y, y] }, /output "y" is listed twice/],
  ['too many inputs', { nodes: [node('Relu', ['x', 'w'], ['y'], {}, { name: 'act' })] }, /Relu node "act" has 2 inputs; in opset 21 it takes 1/],
  ['too few inputs', { nodes: [node('Add', ['x'], ['y'])] }, /Add node "y" has 1 input; in opset 21 it takes 2/],
  ['too many outputs', { nodes: [node('Relu', ['x'], ['y', 'z'])] }, /Relu node "y" has 2 outputs; in opset 21 it takes 1/],
  ['a required input left out', { nodes: [node('Add', ['', 'x'], ['y'])] }, /Add node "y" \(opset 21\): input 0 is left out/],
  ['an attribute of another kind', { nodes: [node('Softmax', ['x'], ['y'], { axis: 'last' })] }, /Softmax node "y" \(opset 21\): attribute axis must be an int, but is a string/],
  ['shapes that do not broadcast', { initializers: [floats('w', [4], [1, 2, 3, 4])] }, /Add node "sum" \(opset 21\).*f32\[2,3\], f32\[4\]/],
  ['an output declared with another shape', { outputs: [value('y', 'f32', [3, 2])] }, /gives "y" the type f32\[2,3\], but the model declares it as f32\[3,2\]/],
  ['an output declared with another element type', { outputs: [value('y', 'i64', [2, 3])] }, /gives "y" the type f32\[2,3\], but the model declares it as i64\[2,3\]/],
  ['an inner value declared with another shape', { nodes: [...good.nodes, node('Relu', ['y'], ['z'])], outputs: [value('z', 'f32')], valueInfo: [value('y', 'f32', [6])] }, /Add node "sum" gives "y" the type f32\[2,3\], but the model declares it as f32\[6\]/],
  ['no opset', { opsets: {} }, /imports no opset/],
  ['opset 0', { opsets: { '': 0 } }, /imports opset 0; opsets are numbered from 1/],
  ['an op older than its opset', { nodes: [node('Gelu', ['x'], ['y'])], opsets: { '': 13 } }, /Gelu node "y".*exists from opset 20 on, but the model imports opset 13/],
  ['an input without a rank', { inputs: [value('x', 'f32')] }, /input "x" does not declare a shape, not even its rank; give the shape of this input/],
];

test.each(graphs)('%s', (_, change, message) => {
  expect(messageOf(encodeModel({ ...good, ...change }))).toMatch(message);
});

test.each<[string, Partial<TestModel>, RegExp]>([
  ['an unknown op', { nodes: [node('Frobnicate', ['x'], ['y'], {}, { name: 'f' })] }, /Frobnicate node "f": the op Frobnicate is not known/],
  ['an unknown domain', { nodes: [node('Relu', ['x'], ['y'], {}, { domain: 'com.acme' })], opsets: { '': 21, 'com.acme': 1 } }, /the domain "com\.acme" is not known/],
  ['an opset of the future', { opsets: { '': 99 } }, /imports opset 99; opsets 1 to 28 are supported/],
  ['string inputs', { inputs: [value('x', 'string', [2, 3])] }, /input "x" holds strings/],
  ['sequence inputs', { inputs: [sequence('x', 'f32')] }, /input "x" is a sequence; inputs have to be tensors/],
  ['complex numbers', { initializers: [{ ...floats('w', [3], [1, 2, 3]), dataType: 14 }] }, /initializer "w" has element type complex64/],
  ['a field of a newer ONNX', { extra: field(99, utf8('new')) }, /a field with number 99, which ModelProto does not have.*newer ONNX/],
])('%s is refused by name', (_, change, message) => {
  expect(messageOf(encodeModel({ ...good, ...change }), Unsupported)).toMatch(message);
});

test('functions that call each other tenfold are stopped before they fill the memory', () => {
  const call = (from: string, to: string, op: string, domain: string) => node(op, [from], [to], {}, { domain });
  const functions = Array.from({ length: 12 }, (_, k) => {
    const nodes = Array.from({ length: 10 }, (_, i) => call(`v${i}`, `v${i + 1}`, k === 11 ? 'Relu' : `F${k + 1}`, k === 11 ? '' : 'bomb'));
    return { name: `F${k}`, domain: 'bomb', inputs: ['v0'], outputs: ['v10'], nodes };
  });
  expect(messageOf(encodeModel({ ...good, nodes: [call('x', 'y', 'F0', 'bomb')], functions, opsets: { '': 21, bomb: 1 } }))).toMatch(/comes to more than \d+ nodes when its functions are inlined/);
});

const bytes = (n: number): Uint8Array => new Uint8Array(n);
test.each<[string, Partial<TestModel>, RegExp]>([
  ['shorter than its shape', { initializers: [raw('w', 'f32', [3], bytes(8))] }, /initializer "w" has type f32\[3\], which takes 12 bytes, but its data has 8/],
  ['longer than its shape', { initializers: [raw('w', 'f32', [3], bytes(16))] }, /initializer "w" has type f32\[3\], which takes 12 bytes, but its data has 16/],
  ['without data', { initializers: [raw('w', 'f32', [3], bytes(0))] }, /initializer "w" has type f32\[3\], which takes 3 values, but its float_data has 0/],
  ['of too many typed values', { initializers: [{ ...raw('w', 'f32', [3], bytes(0)), floatData: [1, 2, 3, 4] }] }, /takes 3 values, but its float_data has 4/],
  ['of 2^40 elements', { initializers: [raw('w', 'f32', [2 ** 20, 2 ** 20], bytes(12))] }, /initializer "w": its shape \[1048576,1048576\] has 1099511627776 elements/],
  ['whose size overflows', { initializers: [raw('w', 'f32', [2 ** 50, 2 ** 50], bytes(12))] }, /initializer "w": its shape .* elements/],
  ['of a negative size', { initializers: [raw('w', 'f32', [-3], bytes(12))] }, /initializer "w": dimension 0 is -3/],
  ['of no element type', { initializers: [{ ...raw('w', 'f32', [3], bytes(12)), dataType: 0 }] }, /initializer "w" has no element type/],
  ['i64 shorter than its shape', { initializers: [int64s('w', [3], [1, 2])] }, /takes 24 bytes, but its data has 16/],
])('an initializer %s', (_, change, message) => {
  expect(messageOf(encodeModel({ ...good, ...change }))).toMatch(message);
});

const twelve = new Uint8Array(Float32Array.of(4, 5, 6).buffer);
const withExternal = (entries: Readonly<Record<string, string>>): Uint8Array => encodeModel({ ...good, initializers: [external('w', 'f32', [3], entries)] });

test('external data is read from the folder of the model', () => {
  writeFileSync(path(home, 'w.bin'), join(bytes(4), twelve));
  const file = path(home, 'model.onnx');
  writeFileSync(file, withExternal({ location: 'w.bin', offset: '4', length: '12' }));
  expect(importModel(file).graph.state[0]!.init).toEqual({ dtype: 'f32', shape: [3], data: Float32Array.of(4, 5, 6) });
});

test.each<[string, Readonly<Record<string, string>>, RegExp]>([
  ['in a folder above', { location: '../secret.bin' }, /initializer "w" of type f32\[3\] is stored outside the model, at "\.\.\/secret\.bin": a path with \.\. is refused/],
  ['in a folder above, by a detour', { location: 'sub/../../secret.bin' }, /a path with \.\. is refused/],
  ['at an absolute path', { location: path(folder, 'secret.bin') }, /an absolute path is refused/],
  ['behind a link that leaves the folder', { location: 'link.bin' }, /it is a link that leaves the model's folder/],
  ['in a linked folder', { location: 'linked/secret.bin' }, /it is a link that leaves the model's folder/],
  ['that is missing', { location: 'none.bin' }, /at "none\.bin": there is no such file in the model's folder/],
  ['that is a folder', { location: 'sub' }, /is a folder, not a file/],
  ['without a location', { offset: '0' }, /external_data has no location/],
  ['beyond the end of its file', { location: 'w.bin', offset: '8', length: '12' }, /bytes 8 to 20 are asked for, but the file has 16/],
  ['at an offset beyond the end', { location: 'w.bin', offset: '99' }, /bytes 99 .*but the file has 16/],
  ['at an offset that is no number', { location: 'w.bin', offset: '-4' }, /offset "-4" and length "" must be whole numbers/],
  ['of another length than its shape', { location: 'w.bin', length: '8' }, /the tensor takes 12 bytes, but 8 are stored/],
])('external data %s', (_, entries, message) => {
  writeFileSync(path(folder, 'secret.bin'), twelve);
  writeFileSync(path(home, 'w.bin'), join(bytes(4), twelve));
  mkdirSync(path(home, 'sub'), { recursive: true });
  rmSync(path(home, 'link.bin'), { force: true });
  symlinkSync(path(folder, 'secret.bin'), path(home, 'link.bin'));
  rmSync(path(home, 'linked'), { force: true });
  symlinkSync(folder, path(home, 'linked'));
  expect(messageOf(withExternal(entries))).toMatch(message);
});

test('a file that does not exist, and a folder', () => {
  expect(() => importModel(path(home, 'nothing.onnx'))).toThrow(/nothing\.onnx: there is no such file/);
  expect(() => importModel(home)).toThrow(/is a folder, not a file/);
});
