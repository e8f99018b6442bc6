import { describe, test } from 'vitest';
import { rows } from '../bench/kernel.ts';
import type { Attrs } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { sizeOf, tensorType } from '../ir/type.ts';
import { broadcastAt, eachIndex, expectKernel, fuse, randomArray, randomNumbers } from './contract-harness.ts';

/** Einstein summation by the definition: for every value of all letters, result += a · b. */
function einsum(spec: string, aShape: readonly number[], bShape: readonly number[], a: Float64Array, b: Float64Array): { readonly shape: number[]; readonly y: Float64Array } {
  const [, left, right, result] = /^(\w*),(\w*)->(\w*)$/.exec(spec) as unknown as [string, string, string, string];
  const letters = [...new Set([...result, ...left, ...right])];
  const size = (l: string): number => (left.includes(l) ? aShape[left.indexOf(l)]! : bShape[right.indexOf(l)]!);
  const shape = [...result].map(size);
  const y = new Float64Array(sizeOf(shape));
  const at = (word: string, dims: readonly number[], index: readonly number[]): number => [...word].reduce((n, l, i) => n * dims[i]! + index[letters.indexOf(l)]!, 0);
  eachIndex(letters.map(size), (index) => (y[at(result, shape, index)]! += a[at(left, aShape, index)]! * b[at(right, bShape, index)]!));
  return { shape, y };
}

const contractions: readonly (readonly [string, readonly number[], readonly number[]])[] = [
  ['mk,kn->mn', [7, 9], [9, 5]],
  ['mk,nk->mn', [13, 33], [17, 33]],
  ['km,kn->mn', [9, 14], [9, 10]],
  ['km,kn->nm', [9, 14], [9, 10]],
  ['bhtd,bhsd->bhts', [2, 3, 10, 8], [2, 3, 11, 8]],
  ['bhts,bhsd->bhtd', [2, 3, 10, 11], [2, 3, 11, 8]],
  ['bthd,bshd->bhts', [2, 9, 3, 8], [2, 10, 3, 8]],
  ['bmk,kn->bmn', [3, 5, 6], [6, 20]],
  ['mk,bkn->bmn', [5, 6], [3, 6, 20]],
  ['i,j->ij', [6], [7]],
  ['i,i->', [60], [60]],
  ['ik,k->i', [30, 40], [40]],
  ['k,kj->j', [40], [40, 30]],
  ['abc,cbd->ad', [4, 5, 6], [6, 5, 7]],
  ['abc,bcd->bad', [4, 5, 6], [5, 6, 7]],
  ['mkx,kn->mn', [4, 5, 3], [5, 7]],
  ['bm,bn->mnb', [9, 4], [9, 5]],
];

describe.each(['plain', 'simd', 'relaxed', 'wide'] as const)('contract, %s', (features) => {
  test.each(contractions)('%s of %s by %s', (spec, aShape, bShape) => {
    const next = randomNumbers(spec.length + sizeOf(aShape));
    const a = randomArray(sizeOf(aShape), next);
    const b = randomArray(sizeOf(bShape), next);
    const { shape, y } = einsum(spec, aShape, bShape, a, b);
    const types = [tensorType('f32', aShape), tensorType('f32', bShape)];
    const plain = fuse({ name: 'contract', attrs: { spec }, operands: types }, [], (_, v) => v);
    expectKernel(features, plain, types.map(rows), [a, b], rows(tensorType('f32', shape)), y);
    if (shape.length === 0) return;
    const bias = randomArray(shape.at(-1)!, next);
    const op = fuse({ name: 'contract', attrs: { spec }, operands: types }, [tensorType('f32', [shape.at(-1)!])], (build, v, [e]) => build.unary('relu', build.add(v, e!)));
    const want = new Float64Array(y.length);
    eachIndex(shape, (index, at) => (want[at] = Math.max(0, y[at]! + bias[broadcastAt([shape.at(-1)!], index)]!)));
    expectKernel(features, op, [...types, tensorType('f32', [shape.at(-1)!])].map(rows), [a, b, bias], rows(tensorType('f32', shape)), want, undefined, y);
  });
});

/** conv, convData and convWeight all sum x[n,(g i),h·s+t·d-p] · w[(g o),i,t] · y[n,(g o),h] over what the result lacks. */
function convolutions(x: readonly number[], w: readonly number[], attrs: { readonly strides: readonly number[]; readonly pads: readonly number[]; readonly dilations: readonly number[]; readonly groups: number }) {
  const y = opDef('conv').infer([tensorType('f32', x), tensorType('f32', w)], attrs, [])[0]!.shape;
  const shapes = { x, w, y };
  const visit = (each: (at: { readonly x: number; readonly w: number; readonly y: number }) => void): void => {
    eachIndex(y, ([n, o, ...h], at) => eachIndex(w.slice(1), ([i, ...t], tap) => {
      const read = h.map((v, d) => v * attrs.strides[d]! + t[d]! * attrs.dilations[d]! - attrs.pads[d]!);
      if (read.some((v, d) => v < 0 || v >= x[d + 2]!)) return;
      const c = Math.floor(o! / (w[0]! / attrs.groups)) * w[1]! + i!;
      each({ x: read.reduce((s, v, d) => s * x[d + 2]! + v, n! * x[1]! + c), w: o! * sizeOf(w.slice(1)) + tap, y: at });
    }));
  };
  return { shapes, visit };
}

const convolutionCases = [
  { x: [2, 4, 7, 8], w: [6, 2, 3, 2], strides: [2, 1], pads: [1, 0, 1, 1], dilations: [1, 2], groups: 2 },
  { x: [1, 3, 9], w: [5, 3, 4], strides: [3], pads: [2, 1], dilations: [1], groups: 1 },
  { x: [1, 2, 4, 5, 6], w: [3, 2, 2, 3, 2], strides: [1, 2, 2], pads: [1, 1, 0, 0, 1, 1], dilations: [1, 1, 1], groups: 1 },
  { x: [2, 3, 8, 8], w: [3, 1, 3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 3 },
] as const;

describe('convolutions over operands that are not packed', () => {
  test.each(convolutionCases)('$x by $w, strides $strides, groups $groups', (c) => {
    const next = randomNumbers(sizeOf(c.x));
    const attrs = { strides: c.strides, pads: c.pads, dilations: c.dilations, groups: c.groups };
    const { shapes, visit } = convolutions(c.x, c.w, attrs);
    const data = { x: randomArray(sizeOf(shapes.x), next), w: randomArray(sizeOf(shapes.w), next), y: randomArray(sizeOf(shapes.y), next) };
    const cases: readonly (readonly [string, 'x' | 'w' | 'y', readonly ('x' | 'w' | 'y')[], Attrs])[] = [
      ['conv', 'y', ['x', 'w'], attrs],
      ['convData', 'x', ['y', 'w'], { ...attrs, size: c.x.slice(2) }],
      ['convWeight', 'w', ['x', 'y'], { ...attrs, kernel: c.w.slice(2) }],
    ];
    for (const [name, result, operands, all] of cases) {
      const want = new Float64Array(sizeOf(shapes[result]));
      visit((at) => (want[at[result]]! += operands.reduce((p, o) => p * data[o][at[o]]!, 1)));
      const types = operands.map((o) => tensorType('f32', shapes[o]));
      const op = fuse({ name, attrs: all, operands: types }, [], (_, v) => v);
      expectKernel('simd', op, types.map(rows), operands.map((o) => data[o]), rows(tensorType('f32', shapes[result])), want);
    }
  });
});
