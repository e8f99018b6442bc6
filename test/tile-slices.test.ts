import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Op, Value } from '../ir/graph.ts';
import { sizeOf } from '../ir/type.ts';
import { countOf, elementsOf, type Comb, type Division, type Spread } from '../ir/tiles.ts';
import { clipped, combOf, contains, digits, has, scaled, shared, sumOf, union } from '../passes/tile/comb.ts';
import { divisionOf } from '../passes/tile/divisions.ts';
import { combAt, divisionFrom, equalParts, operandSpread, resultSpread } from '../passes/tile/divide.ts';
import { walkOf } from '../passes/tile/walk.ts';

const comb = fc.tuple(fc.nat(20), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 5 })).map(([base, n, step, m, gap]): Comb => ({ base, levels: [{ n: m, step: (n - 1) * step + 1 + gap }, { n, step }].filter((l) => l.n > 1) }));
const setOf = (c: Comb): Set<number> => new Set(elementsOf(c));

describe('combs', () => {
  test('a sum holds every sum of elements, and a scaled comb just the scaled elements', () => {
    fc.assert(fc.property(comb, comb, fc.constantFrom(-3, -1, 1, 2, 5), (a, b, times) => {
      const sum = sumOf([a, b]);
      for (const x of elementsOf(a)) for (const y of elementsOf(b)) expect(has(sum, x + y)).toBe(true);
      expect(setOf(scaled(a, times, 7))).toEqual(new Set(elementsOf(a).map((x) => x * times + 7)));
    }));
  });

  test('clipping, union and the number of shared elements agree with sets', () => {
    fc.assert(fc.property(comb, comb, fc.integer({ min: 1, max: 60 }), (a, b, size) => {
      const inside = elementsOf(a).filter((x) => x < size);
      const clip = clipped(a, size);
      for (const x of inside) expect(has(clip, x)).toBe(true);
      if (countOf(clip) > 0) expect(Math.max(...elementsOf(clip))).toBeLessThan(size);
      expect(contains(union(a, b), a) && contains(union(a, b), b)).toBe(true);
      expect(shared(a, b)).toBe(elementsOf(a).filter((x) => setOf(b).has(x)).length);
    }));
  });

  test('digits of a comb are exact where they exist', () => {
    fc.assert(fc.property(comb, fc.constantFrom([8, 8], [4, 4, 4], [16, 6], [5, 20]), (c, radix) => {
      const found = digits(c, radix);
      if (!found) return;
      const [first, ...rest] = found;
      let values = elementsOf(first!);
      rest.forEach((d, i) => (values = values.flatMap((v) => elementsOf(d).map((x) => v * radix[i + 1]! + x))));
      expect(values).toEqual(elementsOf(c));
    }));
    expect(digits({ base: 0, levels: [{ n: 32, step: 1 }] }, [4, 16])).toEqual([{ base: 0, levels: [{ n: 2, step: 1 }] }, { base: 0, levels: [{ n: 16, step: 1 }] }]);
    expect(digits({ base: 3, levels: [{ n: 4, step: 1 }] }, [4, 5])).toBeUndefined();
  });

  test('equal parts cover a range once and differ by one grain at most', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 8 }), (size, parts, grain) => {
      const list = equalParts(size, parts, grain);
      expect(list.flatMap(elementsIn)).toEqual(Array.from({ length: size }, (_, i) => i));
      const counts = list.map((c) => Math.ceil(countOf(c) / grain));
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
    }));
    expect(combOf([0, 2, 4, 10, 12, 14])).toEqual({ base: 0, levels: [{ n: 2, step: 10 }, { n: 3, step: 2 }] });
  });
});

const elementsIn = (c: Comb): number[] => (countOf(c) === 0 ? [] : elementsOf(c));

interface Case { readonly name: string; build(b: Builder): Value; readonly reads: (out: readonly number[], op: Op) => (readonly number[])[][] }

/** Which elements of each operand an element of the result depends on, by plain loops. */
const cases: readonly Case[] = [
  { name: 'convolution of stride 2', build: (b) => b.one('conv', [b.input({ dtype: 'f32', shape: [2, 4, 9, 8] }), b.input({ dtype: 'f32', shape: [6, 4, 3, 3] })], { strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 }), reads: convReads(2, 1, 1, 1) },
  { name: 'convolution in groups, dilated', build: (b) => b.one('conv', [b.input({ dtype: 'f32', shape: [2, 4, 9, 8] }), b.input({ dtype: 'f32', shape: [6, 2, 3, 3] })], { strides: [1, 1], pads: [2, 2, 2, 2], dilations: [2, 2], groups: 2 }), reads: convReads(1, 2, 2, 2) },
  { name: 'a product of matrices', build: (b) => b.one('contract', [b.input({ dtype: 'f32', shape: [6, 5] }), b.input({ dtype: 'f32', shape: [5, 7] })], { spec: 'mk,kn->mn' }), reads: ([m, n]) => [Array.from({ length: 5 }, (_, k) => [m!, k]), Array.from({ length: 5 }, (_, k) => [k, n!])] },
  { name: 'a transpose', build: (b) => b.one('transpose', [b.input({ dtype: 'f32', shape: [4, 6, 5] })], { perm: [2, 0, 1] }), reads: ([c, a, x]) => [[[a!, x!, c!]]] },
  { name: 'a broadcast addition', build: (b) => b.one('add', [b.input({ dtype: 'f32', shape: [4, 6] }), b.input({ dtype: 'f32', shape: [1, 6] })]), reads: ([x, y]) => [[[x!, y!]], [[0, y!]]] },
  { name: 'a sum', build: (b) => b.one('reduceSum', [b.input({ dtype: 'f32', shape: [4, 6, 5] })], { axes: [1] }), reads: ([x, z]) => [Array.from({ length: 6 }, (_, y) => [x!, y, z!])] },
  { name: 'a reshape that splits channels', build: (b) => b.one('reshape', [b.input({ dtype: 'f32', shape: [2, 8, 3] })], { shape: [2, 4, 2, 3] }), reads: ([n, g, c, w]) => [[[n!, g! * 2 + c!, w!]]] },
  { name: 'a concatenation', build: (b) => b.one('concat', [b.input({ dtype: 'f32', shape: [3, 4] }), b.input({ dtype: 'f32', shape: [3, 5] })], { axis: 1 }), reads: ([x, y]) => [y! < 4 ? [[x!, y!]] : [], y! < 4 ? [] : [[x!, y! - 4]]] },
  { name: 'a slice backwards', build: (b) => b.one('slice', [b.input({ dtype: 'f32', shape: [9, 4] })], { starts: [8, 0], sizes: [4, 4], steps: [-2, 1] }), reads: ([x, y]) => [[[8 - 2 * x!, y!]]] },
  {
    name: 'the data gradient of a strided convolution',
    build: (b) => b.one('convData', [b.input({ dtype: 'f32', shape: [2, 6, 5, 4] }), b.input({ dtype: 'f32', shape: [6, 4, 3, 3] })], { strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1, size: [9, 8] }),
    reads: ([n, i, h, w]) => {
      const dy: number[][] = [];
      const weights: number[][] = [];
      for (let o = 0; o < 6; o++) for (let y = 0; y < 3; y++) for (let x = 0; x < 3; x++) {
        const [p, q] = [(h! + 1 - y) / 2, (w! + 1 - x) / 2];
        if (!Number.isInteger(p) || !Number.isInteger(q) || p < 0 || p >= 5 || q < 0 || q >= 4) continue;
        dy.push([n!, o, p, q]);
        weights.push([o, i!, y, x]);
      }
      return [dy, weights];
    },
  },
];

function convReads(stride: number, dilation: number, pad: number, groups: number): Case['reads'] {
  return ([n, o, h, w], op) => {
    const [xs, ws] = op.operands.map((v) => v.type.shape) as [number[], number[]];
    const each = ws[0]! / groups;
    const x: number[][] = [];
    const weights: number[][] = [];
    for (let i = 0; i < ws[1]!; i++) for (let y = 0; y < ws[2]!; y++) for (let z = 0; z < ws[3]!; z++) {
      const [p, q] = [h! * stride + y * dilation - pad, w! * stride + z * dilation - pad];
      if (p < 0 || q < 0 || p >= xs[2]! || q >= xs[3]!) continue;
      x.push([n!, Math.floor(o! / each) * ws[1]! + i, p, q]);
      weights.push([o!, i, y, z]);
    }
    return [x, weights];
  };
}

function* partsOf(d: { readonly dims: Division['dims'] }): Generator<number[]> {
  const total = d.dims.reduce((n, x) => n * x.parts, 1);
  for (let i = 0; i < total; i++) {
    let rest = i;
    const at = d.dims.map(() => 0);
    for (let k = d.dims.length - 1; k >= 0; k--) {
      at[k] = rest % d.dims[k]!.parts;
      rest = Math.floor(rest / d.dims[k]!.parts);
    }
    yield at;
  }
}

const sliceOf = (s: Spread, at: readonly number[]): Comb[] => s.axes.map((c) => combAt(c, s.dims, at));

function* indices(combs: readonly Comb[]): Generator<number[]> {
  const lists = combs.map(elementsIn);
  const total = lists.reduce((n, l) => n * l.length, 1);
  for (let i = 0; i < total; i++) {
    let rest = i;
    const at = lists.map(() => 0);
    for (let k = lists.length - 1; k >= 0; k--) {
      at[k] = lists[k]![rest % lists[k]!.length]!;
      rest = Math.floor(rest / lists[k]!.length);
    }
    yield at;
  }
}

describe('slices from axes', () => {
  for (const c of cases) {
    test(`${c.name}: results are covered, and no part reads outside its slices`, () => {
      const b = new Builder('case');
      const result = c.build(b);
      const op = b.ops.at(-1)!;
      const walk = walkOf(op);
      fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 4 }), { minLength: walk.vars.length, maxLength: walk.vars.length }), (wanted) => {
        // Reduced dims stay whole here: each part then makes its results alone.
        const parts = walk.vars.map((v, i) => (v.role === 'reduce' ? 1 : Math.min(v.size, wanted[i]!)));
        const sizes = walk.vars.map((v, i) => Math.ceil(v.size / parts[i]!));
        const division = divisionOf(walk, { parts, sizes, estimate: { compute: 0, merge: 0, operands: [], result: 0, partial: 0, macs: 0, vertex: '' }, cycles: 0, temporary: 0 });
        const made = resultSpread(walk, division, result.type.shape);
        const needs = op.operands.map((v, k) => operandSpread(walk, division, k, v.type.shape));
        const seen = new Set<string>();
        for (const at of partsOf(division)) {
          const slices = needs.map((n) => sliceOf(n, at));
          for (const out of indices(sliceOf(made, at))) {
            expect(seen.has(out.join())).toBe(false);
            seen.add(out.join());
            c.reads(out, op).forEach((list, k) => list.forEach((e) => {
              if (!e.every((x, axis) => has(slices[k]![axis]!, x))) throw new Error(`result ${out.join()} reads ${e.join()} of operand ${k}, outside ${JSON.stringify(slices[k])}`);
            }));
          }
        }
        expect(seen.size).toBe(sizeOf(result.type.shape));
      }), { numRuns: 12 });
    });
  }

  test('an elementwise op, a sum and a reshape take over the division of their operand and read it where it lies', () => {
    const b = new Builder('inherit');
    const x = b.input({ dtype: 'f32', shape: [4, 32, 6] });
    b.one('reshape', [x], { shape: [4, 8, 4, 6] });
    const home: Spread = {
      base: 3, dims: [{ name: 'n', parts: 2, stride: 4 }, { name: 'c', parts: 4, stride: 1 }],
      axes: [{ by: [0], combs: equalParts(4, 2) }, { by: [1], combs: equalParts(32, 4) }, { by: [], combs: equalParts(6, 1) }],
    };
    const walk = walkOf(b.ops[0]!);
    const division = divisionFrom(walk, 0, home)!;
    expect(operandSpread(walk, division, 0, x.type.shape).axes.map((c) => c.combs)).toEqual(home.axes.map((c) => c.combs));
    const made = resultSpread(walk, division, [4, 8, 4, 6]);
    expect(made.axes[1]!.combs).toEqual(equalParts(8, 4));
    const uneven = { ...home, axes: [home.axes[0]!, { by: [1], combs: equalParts(32, 4, 5) }, home.axes[2]!] };
    expect(divisionFrom(walk, 0, uneven)).toBeUndefined();
  });
});
