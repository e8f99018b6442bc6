/** Every op through the wasm backend against the interpreter: random shapes, layouts, dtypes, and all feature sets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Features } from '../backends/wasm/asm.ts';
import { Builder, IllTyped } from '../ir/builder.ts';
import { evaluateOp } from '../ir/evaluate.ts';
import type { Attrs, Op } from '../ir/graph.ts';
import { ops } from '../ir/ops/index.ts';
import { isFloat, sizeOf, type DType, type Tensor } from '../ir/type.ts';
import type { AxesCase } from './axes-harness.ts';
import { contractionAxesCases } from './axes-cases/contraction.ts';
import { elementwiseAxesCases } from './axes-cases/elementwise.ts';
import { indexingAxesCases } from './axes-cases/indexing.ts';
import { movementAxesCases } from './axes-cases/movement.ts';
import { reductionAxesCases } from './axes-cases/reduction.ts';
import { sequenceAxesCases } from './axes-cases/sequence.ts';
import { windowAxesCases } from './axes-cases/window.ts';
import { indexingGradients } from './gradient-cases/indexing.ts';
import type { Instance } from './gradient-harness.ts';
import { converted, difference, programOf, runOnce, type Layout } from './wasm-harness.ts';

const features: readonly Features[] = ['plain', 'simd', 'relaxed'];
const layouts = (op: Op): fc.Arbitrary<(Layout | undefined)[]> => fc.tuple(...[...op.operands, ...op.results].map((v): fc.Arbitrary<Layout | undefined> => {
  const rank = v.type.shape.length;
  const axes = [...Array(rank).keys()];
  return fc.option(fc.record({ order: fc.shuffledSubarray(axes, { minLength: rank, maxLength: rank }), gap: fc.constantFrom(0, 0, 3) }), { nil: undefined });
}));

/** The op on converted operands, or undefined where it does not take that dtype. */
function applied(name: string, instance: Instance, dtype: DType): { op: Op; operands: Tensor[] } | undefined {
  const operands = instance.operands.map((t) => (t.dtype === 'f64' ? converted(t, dtype) : t));
  const attrs: Attrs = { ...instance.attrs };
  // What is put around integers is an integer.
  if (name === 'pad' && !isFloat(dtype) && !Number.isInteger(attrs['value'] ?? 0)) return undefined;
  const b = new Builder('op');
  try {
    b.op(name, operands.map((t) => b.input({ dtype: t.dtype, shape: t.shape })), attrs);
  } catch (e) {
    if (e instanceof IllTyped) return undefined;
    throw e;
  }
  return { op: b.ops[0]!, operands };
}

function check(op: Op, operands: readonly Tensor[], layout: readonly (Layout | undefined)[], set: Features, slack = 1): void {
  const want = evaluateOp(op, operands);
  const { results } = runOnce(programOf(op, layout), new Map(op.operands.map((v, i) => [v, operands[i]!])), set);
  results.forEach((got, i) => {
    const problem = difference(got, want[i]!, slack);
    const title = `${op.name} ${JSON.stringify(op.attrs, (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v))} on ${set}, layouts ${JSON.stringify(layout)}`;
    expect(problem && `${title}: result ${i}: ${problem}`).toBeUndefined();
  });
}

const cases: readonly (AxesCase | (typeof indexingGradients)[number])[] = [
  ...elementwiseAxesCases, ...movementAxesCases, ...reductionAxesCases, ...windowAxesCases, ...indexingAxesCases, ...sequenceAxesCases, ...contractionAxesCases,
  ...indexingGradients.filter((c) => c.op.startsWith('scatter')),
];

describe('ops in random layouts', () => {
  const dtypes: readonly DType[] = ['f32', 'f64', 'i32', 'i64', 'u8', 'f16'];
  cases.forEach((c, k) => {
    it(`${c.op}${c.note === undefined ? '' : ` (${c.note})`}, case ${k}`, () => {
      fc.assert(fc.property(c.instance, fc.constantFrom(...dtypes), fc.constantFrom(...features), fc.infiniteStream(fc.nat(1_000_000)), (instance, dtype, set, stream) => {
        const a = applied(c.op, instance, dtype);
        if (!a) return;
        const [layout] = fc.sample(layouts(a.op), { numRuns: 1, seed: stream.next().value as number });
        check(a.op, a.operands, layout!, set, c.op === 'cumProd' || c.op === 'reduceProd' ? 10 : 1);
      }), { numRuns: 40, seed: 5 });
    });
  });
});

/** Values that matter to elementwise ops of a dtype. */
function samples(dtype: DType, count: number, salt: number): Tensor {
  const floats = [0, -0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, 7.25, -7.75, 100, -100, 1e-3, 1e-9, 88, -88, 1e6, -1e6, Infinity, -Infinity, NaN, 0.25, 2];
  const ints = [0, 1, 2, 3, 5, 7, 31, 33, 100, 127, -1, -2, -3, -5, -7, -100, -128];
  const pick = (i: number): number => {
    const list = isFloat(dtype) ? floats : ints;
    return list[(i * (2 * salt + 1) + salt * 7) % list.length]!;
  };
  const t = converted({ dtype: 'f64', shape: [count], data: Float64Array.from({ length: count }, (_, i) => (dtype === 'bool' ? (i >> salt) % 2 : dtype.startsWith('u') ? Math.abs(pick(i)) : pick(i))) }, dtype);
  return t;
}

describe('elementwise ops on every dtype', () => {
  const types: readonly DType[] = ['f64', 'f32', 'f16', 'bf16', 'f8e4m3fn', 'f8e5m2', 'i64', 'i32', 'i16', 'i8', 'i4', 'u64', 'u32', 'u16', 'u8', 'bool'];
  for (const def of ops.values()) {
    if (def.family !== 'map') continue;
    it(def.name, () => {
      for (const dtype of types) {
        const targets: readonly DType[] = def.name === 'cast' || def.name === 'bitcast' ? types : ['f32'];
        for (const to of targets) {
          for (const saturate of def.name === 'cast' ? [false, true] : [false]) {
            const count = 27;
            const operands = def.operands.map((_, i) => (def.name === 'select' && i === 0 ? samples('bool', count, 1) : samples(dtype, count, i)));
            const attrs = { ...('to' in def.attrs && { to }), ...('saturate' in def.attrs && { saturate }) };
            const a = applied(def.name, { operands, attrs }, dtype);
            if (!a) continue;
            for (const set of features) check(a.op, a.operands, [], set, 1);
          }
        }
      }
    });
  }
});

describe('shapes that are cut into chunks', () => {
  const random = (dtype: DType, shape: readonly number[], salt = 1): Tensor => {
    const data = new Float64Array(sizeOf(shape));
    let state = salt * 7919 + 1;
    for (let i = 0; i < data.length; i++) {
      state = (Math.imul(state, 1103515245) + 12345) | 0;
      data[i] = ((state >>> 8) % 2000) / 1000 - 1;
    }
    return converted({ dtype: 'f64', shape, data }, dtype);
  };
  const last = (rank: number): Layout => ({ order: [0, ...Array.from({ length: rank - 2 }, (_, i) => i + 2), 1], gap: 0 });
  const table: readonly [name: string, shapes: readonly (readonly number[])[], attrs: Attrs, layouts: readonly (Layout | undefined)[]][] = [
    ['add', [[3, 65, 47, 13], [65, 1, 1]], {}, []],
    ['add', [[3, 65, 47, 13], [65, 1, 1]], {}, [last(4), undefined, last(4)]],
    ['exp', [[70000]], {}, []],
    ['copy', [[2, 37, 41, 29]], {}, [undefined, last(4)]],
    ['copy', [[2, 37, 41, 29]], {}, [last(4), undefined]],
    ['transpose', [[130, 129]], { perm: [1, 0] }, []],
    ['reduceSum', [[64, 3001]], { axes: [1] }, []],
    ['reduceSum', [[3001, 67]], { axes: [0] }, []],
    ['reduceMax', [[2, 130, 17, 19]], { axes: [2, 3] }, [last(4), undefined]],
    ['reduceSum', [[2, 130, 17, 19]], { axes: [2, 3] }, []],
    ['moments', [[6, 5, 50, 30]], { axes: [1, 3] }, []],
    ['moments', [[6, 70, 50]], { axes: [0, 2] }, [last(3), undefined, undefined]],
    ['maxPool', [[1, 70, 33, 35]], { kernel: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1] }, [last(4), last(4), last(4)]],
    ['sumPool', [[1, 70, 33, 35]], { kernel: [3, 2], strides: [1, 2], pads: [0, 1, 1, 0], dilations: [2, 1] }, [last(4), last(4)]],
    ['gather', [[1000, 64]], { axis: 0 }, []],
    ['topK', [[4, 3000]], { axis: 1, k: 1500 }, []],
    ['topK', [[4, 3000]], { axis: 1, k: 5, largest: false }, []],
    ['cumSum', [[40, 1200]], { axis: 1 }, []],
    ['argMax', [[300, 100]], { axis: 1 }, []],
    ['pad', [[3, 70, 90]], { lo: [0, 2, 3], hi: [1, 5, 4], mode: 'reflect' }, []],
  ];
  for (const [name, shapes, attrs, layout] of table) {
    it(`${name} of ${JSON.stringify(shapes)} ${layout.length > 0 ? 'channels last' : ''}`, () => {
      const operands = shapes.map((s, i) => random('f32', s, i + 1));
      if (name === 'gather') operands.push({ dtype: 'i64', shape: [500], data: BigInt64Array.from({ length: 500 }, (_, i) => BigInt((i * 37) % 1000)) });
      const a = applied(name, { operands, attrs }, 'f32')!;
      for (const set of features) check(a.op, a.operands, layout, set, 4);
    });
  }
});
