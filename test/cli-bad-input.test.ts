/** What a user sees when an input is bad: exit code 2, one message with file and cause, no stack, nothing written. Real files, real processes. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { writeNpy } from '../runtime/index.ts';
import { digit, example, tilewright, tilewrightOnSmallDisk } from './cli-harness.ts';
import { encodeModel, external, field, floats, join as bytesOf, node, raw, value, varint, type TestModel } from './onnx-encode.ts';

const limits = [30_000, 2] as const;
const folder = mkdtempSync(join(tmpdir(), 'tilewright-cli-'));
const home = join(folder, 'home');
mkdirSync(home);
afterAll(() => rmSync(folder, { recursive: true }));

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const good: TestModel = {
  nodes: [node('Add', ['x', 'w'], ['y'], {}, { name: 'sum' })], inputs: [value('x', 'f32', [2, 3])], outputs: [value('y', 'f32', [2, 3])], initializers: [floats('w', [3], [1, 2, 3])],
};
const changed = (change: Partial<TestModel>): Uint8Array => encodeModel({ ...good, ...change });
const outside = (location: string): Uint8Array => changed({ initializers: [external('w', 'f32', [3], { location })] });
writeFileSync(join(folder, 'secret.bin'), new Uint8Array(12));
symlinkSync(join(folder, 'secret.bin'), join(home, 'link.bin'));

/** Messages inside messages, each the only content of the one around it. */
function nested(levels: number): Uint8Array {
  const parts: Uint8Array[] = [];
  let length = 0;
  for (let i = 0; i < levels; i++) {
    for (const number of [6, 5, 1]) {
      const head = bytesOf(varint(number * 8 + 2), varint(length));
      parts.unshift(head);
      length += head.length;
    }
  }
  return bytesOf(Uint8Array.from([8, 8]), field(8, Uint8Array.from([16, 21])), bytesOf(varint(7 * 8 + 2), varint(length)), ...parts);
}

const models: [string, Uint8Array, RegExp][] = [
  ['empty', new Uint8Array(), /is empty/],
  ['truncated', readFileSync(example).subarray(0, 20_000), /truncated or damaged/],
  ['random bytes', Uint8Array.from({ length: 4096 }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24), /is not an ONNX model|damaged/],
  ['a picture', readFileSync(digit), /is a PNG image, not an ONNX model/],
  ['protobuf of something else', bytesOf(field(1, utf8('a'.repeat(200))), field(2, utf8('b'))), /is not an ONNX model/],
  ['a cycle', changed({ nodes: [node('Add', ['x', 'b'], ['a'], {}, { name: 'p' }), node('Relu', ['a'], ['b'], {}, { name: 'q' }), node('Neg', ['b'], ['y'])] }), /cycle: Add node "p" -> Relu node "q"/],
  ['a missing tensor', changed({ nodes: [node('Add', ['x', 'ghost'], ['y'])] }), /Add node "y" reads "ghost"/],
  ['a duplicate name', changed({ nodes: [node('Relu', ['x'], ['y'], {}, { name: 'p' }), node('Neg', ['x'], ['y'], {}, { name: 'q' })] }), /"y" is defined twice/],
  ['a wrong arity', changed({ nodes: [node('Relu', ['x', 'w'], ['y'], {}, { name: 'act' })] }), /Relu node "act" has 2 inputs/],
  ['an unknown op', changed({ nodes: [node('Frobnicate', ['x'], ['y'], {}, { name: 'f' })] }), /Frobnicate node "f"/],
  ['an unknown domain', changed({ nodes: [node('Relu', ['x'], ['y'], {}, { domain: 'com.acme' })], opsets: { '': 21, 'com.acme': 1 } }), /domain "com\.acme"/],
  ['an opset of the future', changed({ opsets: { '': 99 } }), /imports opset 99/],
  ['shapes that contradict each other', changed({ initializers: [floats('w', [4], [1, 2, 3, 4])] }), /Add node "sum".*f32\[2,3\], f32\[4\]/],
  ['an initializer shorter than its shape', changed({ initializers: [raw('w', 'f32', [3], new Uint8Array(8))] }), /initializer "w".*12 bytes.*has 8/],
  ['an initializer longer than its shape', changed({ initializers: [raw('w', 'f32', [3], new Uint8Array(16))] }), /initializer "w".*12 bytes.*has 16/],
  ['an initializer of 2^40 elements', changed({ initializers: [raw('w', 'f32', [2 ** 20, 2 ** 20], new Uint8Array(12))] }), /initializer "w".*1099511627776 elements/],
  ['external data above the folder', outside('../secret.bin'), /a path with \.\. is refused/],
  ['external data at an absolute path', outside(join(folder, 'secret.bin')), /an absolute path is refused/],
  ['external data behind a link', outside('link.bin'), /a link that leaves the model's folder/],
  ['external data that is missing', outside('none.bin'), /there is no such file/],
  ['a nesting depth of 10,000', nested(10_000), /nested too deeply/],
];

function expectRefusal(result: { code: number | null; stdout: string; stderr: string }, message: RegExp): void {
  expect(result.stderr).toMatch(message);
  expect(result.stderr).toMatch(/^error: .*\n$/);
  expect(result.stderr).not.toMatch(/\n {4}at |undefined/);
  expect(result).toMatchObject({ code: 2, stdout: '' });
}

describe('a bad model', () => {
  test.each(models)('%s', async (_, bytes, message) => {
    const file = join(home, 'model.onnx');
    writeFileSync(file, bytes);
    const out = join(folder, 'out');
    const before = readdirSync(folder);
    const result = await tilewright(['compile', file, '-o', out], ...limits);
    expectRefusal(result, message);
    expect(result.stderr).toContain('model.onnx');
    expect(readdirSync(folder)).toEqual(before);
  });
});

const npy = (shape: number[], data: Float32Array | Float64Array): Uint8Array => writeNpy({ dtype: data instanceof Float32Array ? 'f32' : 'f64', shape, data });
const digitNpy = npy([1, 1, 28, 28], new Float32Array(784));
const replaced = (from: string, to: string): Uint8Array => Buffer.from(Buffer.from(digitNpy).toString('latin1').replace(from, to), 'latin1');

describe('a bad input file', () => {
  test.each<[string, string, Uint8Array | undefined, RegExp]>([
    ['of another dtype', 'x.npy', npy([1, 1, 28, 28], new Float64Array(784)), /x\.npy holds f64, input "Input3" is f32/],
    ['in column-major order', 'x.npy', replaced("'fortran_order': False", "'fortran_order': True "), /x\.npy.*column-major.*ascontiguousarray/],
    ['big-endian', 'x.npy', replaced('<f4', '>f4'), /x\.npy.*big-endian/],
    ['of another shape', 'x.npy', npy([1, 1, 28, 27], new Float32Array(756)), /x\.npy has shape \[1,1,28,27\], input "Input3" is \[1,1,28,28\]/],
    ['that is cut short', 'x.npy', digitNpy.subarray(0, 1000), /x\.npy.*bytes of data, its shape f32\[1,1,28,28\] needs 3136/],
    ['that is no .npy', 'x.npy', utf8('hello world, this is text'), /x\.npy is not a \.npy file/],
    ['of an unknown kind', 'x.txt', utf8('1 2 3'), /x\.txt: unknown kind of file/],
    ['that does not exist', 'none.npy', undefined, /none\.npy: it does not exist/],
    ['a picture that is none', 'x.png', utf8('not a picture'), /x\.png is not a picture that can be read: it does not start as a PNG file does/],
    ['a picture that is cut off', 'y.png', readFileSync(digit).subarray(0, 100), /y\.png is not a picture that can be read: it is cut off: 100 bytes without the chunk IEND/],
  ])('%s', async (_, name, bytes, message) => {
    const file = join(home, name);
    if (bytes) writeFileSync(file, bytes);
    expectRefusal(await tilewright(['run', example, '--input', `Input3=${file}`], ...limits), message);
  });

  test('for an input that does not exist, and none for one that does', async () => {
    const file = join(home, 'x.npy');
    writeFileSync(file, digitNpy);
    expectRefusal(await tilewright(['run', example, '--input', `Input=${file}`], ...limits), /there is no input "Input" \(did you mean "Input3"\?\); the inputs are "Input3"/);
    expectRefusal(await tilewright(['run', example], ...limits), /missing --input Input3=FILE\.npy \(f32\[1,1,28,28\]\)\n/);
    const open = join(home, 'open.onnx');
    writeFileSync(open, encodeModel({ ...good, inputs: [value('x', 'f32', ['rows', 3])], outputs: [value('y', 'f32', ['rows', 3])] }));
    expectRefusal(await tilewright(['run', open, '--dim', 'rows=4'], ...limits), /missing --input x=FILE\.npy \(f32\[4,3\]\)\n/);
    expectRefusal(await tilewright(['run', open], ...limits), /missing --input x=FILE\.npy \(f32\[rows,3\]\); rows follow from the files, or give --dim rows=SIZE\n/);
  });
});

describe('an output folder', () => {
  const compileTo = (out: string): ReturnType<typeof tilewright> => tilewright(['compile', example, '-o', out], ...limits);

  test('that holds something else is left as it is', async () => {
    const out = join(folder, 'photos');
    mkdirSync(out);
    writeFileSync(join(out, 'cat.jpg'), 'mine');
    expectRefusal(await compileTo(out), /photos: it exists and holds other files \(cat\.jpg\)/);
    expect(readdirSync(out)).toEqual(['cat.jpg']);
    expect(readFileSync(join(out, 'cat.jpg'), 'utf8')).toBe('mine');
  });

  test('that is a file is left as it is', async () => {
    const out = join(folder, 'file');
    writeFileSync(out, 'mine');
    expectRefusal(await compileTo(out), /file: it exists and is not a folder/);
    expect(readFileSync(out, 'utf8')).toBe('mine');
  });

  test('below a file cannot be made', async () => {
    writeFileSync(join(folder, 'below'), '');
    expectRefusal(await compileTo(join(folder, 'below', 'out')), /cannot write the artifact to .*a part of the path is not a folder/);
  });

  test('on a system that does not take files cannot be made', async () => {
    expectRefusal(await compileTo('/proc/tilewright/out'), /cannot write the artifact to \/proc\/tilewright\/out: \/proc takes no new folder; choose another/);
  });

  test('on a full disk leaves nothing behind', ({ skip }) => {
    const mount = join(folder, 'disk');
    mkdirSync(mount);
    const result = tilewrightOnSmallDisk(mount, 16, ['compile', example, '-o', join(mount, 'out')]);
    if (!result) return skip('this system does not let a test mount a small file system');
    expect(result.stderr).toMatch(/^error: cannot write the artifact to .*out: the disk is full\n$/);
    expect(result.status).toBe(2);
  });
});

describe('a wrong option', () => {
  test.each<[string, string[], RegExp]>([
    ['unknown command', ['frobnicate'], /unknown command 'frobnicate'/],
    ['unknown option', ['inspect', example, '--frob'], /unknown option '--frob'/],
    ['malformed --dim', ['inspect', example, '--dim', 'n'], /expected name=value/],
    ['unknown symbol', ['inspect', example, '--dim', 'n=2'], /no symbolic dimension "n"/],
    ['unknown feature set', ['compile', example, '--features', 'avx'], /unknown feature set avx/],
    ['unknown pass', ['compile', example, '--stop-after', 'magic'], /Allowed choices are import/],
    ['a model that does not exist', ['run', join(folder, 'none.onnx')], /none\.onnx does not exist/],
    ['a folder that is no artifact', ['run', home], /holds no manifest\.json/],
  ])('%s', async (_, args, message) => {
    const result = await tilewright(args, ...limits);
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(message);
    expect(result.stderr).not.toMatch(/\n {4}at /);
  });
});
