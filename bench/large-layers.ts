/** Layers whose operands are larger than a core's caches, as ONNX models of one layer each. */
import { encodeModel, floats, int64s, node, value, type TestModel } from '../test/onnx-encode.ts';
import { numbers } from './train-networks.ts';

export interface Layer { readonly name: string; readonly model: Uint8Array }

/** Products of large operands, computed and constant, elementwise chains of few and of many tensors, a norm, a softmax, a transpose, a convolution. */
export function largeLayers(): Layer[] {
  const layer = (name: string, m: Omit<TestModel, 'name'>): Layer => ({ name, model: encodeModel({ ...m, name } satisfies TestModel) });
  const [rows, columns] = [1024, 2048];
  const many = Array.from({ length: 10 }, (_, i) => `x${i}`);
  return [
    layer('product 1024x2048x2048', { nodes: [repeated, node('MatMul', ['x', 'w'], ['y'])], inputs: [value('x', 'f32', [rows, columns])], outputs: [value('y', 'f32', [rows, columns])], initializers: repeats(columns, columns) }),
    layer('product 197x3072x3072', { nodes: [repeated, node('MatMul', ['x', 'w'], ['y'])], inputs: [value('x', 'f32', [197, 3072])], outputs: [value('y', 'f32', [197, 3072])], initializers: repeats(3072, 3072) }),
    layer('product of inputs 1024x1024x2048', { nodes: [node('MatMul', ['x', 'z'], ['y'])], inputs: [value('x', 'f32', [rows, columns]), value('z', 'f32', [columns, rows])], outputs: [value('y', 'f32', [rows, rows])], initializers: [] }),
    layer('relu(x·y + z) of 16 MiB', { nodes: [node('Mul', ['x', 'y'], ['p']), node('Add', ['p', 'z'], ['s']), node('Relu', ['s'], ['r'])], inputs: ['x', 'y', 'z'].map((n) => value(n, 'f32', [columns, columns])), outputs: [value('r', 'f32', [columns, columns])], initializers: [] }),
    layer('sum of 10 tensors of 8 MiB', { nodes: [node('Sum', many, ['y'])], inputs: many.map((n) => value(n, 'f32', [rows, columns])), outputs: [value('y', 'f32', [rows, columns])], initializers: [] }),
    layer('softmax over 16 rows of 1 MiB', { nodes: [node('Softmax', ['x'], ['y'], { axis: -1 })], inputs: [value('x', 'f32', [16, 262144])], outputs: [value('y', 'f32', [16, 262144])], initializers: [] }),
    layer('transpose of 16 MiB', { nodes: [node('Transpose', ['x'], ['t'], { perm: [1, 0] }), node('Add', ['t', 'z'], ['y'])], inputs: [value('x', 'f32', [columns, columns]), value('z', 'f32', [columns, columns])], outputs: [value('y', 'f32', [columns, columns])], initializers: [] }),
    layer('1x1 convolution of 256 to 256 channels on 112x112', { nodes: [node('Conv', ['x', 'w'], ['y'], { kernel_shape: [1, 1] })], inputs: [value('x', 'f32', [1, 256, 112, 112])], outputs: [value('y', 'f32', [1, 256, 112, 112])], initializers: [floats('w', [256, 256, 1, 1], weights(256 * 256))] }),
    layer('3x3 convolution of 64 to 64 channels on 224x224', { nodes: [node('Conv', ['x', 'w'], ['y'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] })], inputs: [value('x', 'f32', [1, 64, 224, 224])], outputs: [value('y', 'f32', [1, 64, 224, 224])], initializers: [floats('w', [64, 64, 3, 3], weights(64 * 64 * 9))] }),
  ];
}

/** A matrix of weights as a block that repeats, which compiling makes a constant of: large constants take long to write. */
const block = 64;
const repeated = node('Tile', ['block', 'repeats'], ['w']);
const repeats = (rows: number, columns: number): NonNullable<TestModel['initializers']> => [floats('block', [block, block], weights(block * block)), int64s('repeats', [2], [rows / block, columns / block])];

const weights = (count: number): number[] => Array.from(numbers(count, 5), (v) => v / 64);
