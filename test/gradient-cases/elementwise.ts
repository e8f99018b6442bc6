/** Gradient cases of the elementwise ops. Ranges keep away from kinks and poles. */
import fc from 'fast-check';
import { between, shapes, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';

const away = fc.oneof(between(0.2, 2), between(-2, -0.2));
const positive = between(0.2, 3);

const unaryRanges: Readonly<Record<string, fc.Arbitrary<number>>> = {
  neg: between(-2, 2), abs: away, relu: away, sqrt: positive, rsqrt: positive, recip: away,
  exp: between(-2, 2), expm1: between(-2, 2), log: positive, log1p: between(-0.7, 3),
  sin: between(-4, 4), cos: between(-4, 4), tan: between(-1.2, 1.2), asin: between(-0.9, 0.9), acos: between(-0.9, 0.9), atan: between(-3, 3),
  sinh: between(-2, 2), cosh: between(-2, 2), tanh: between(-3, 3), asinh: between(-3, 3), acosh: between(1.2, 4), atanh: between(-0.9, 0.9),
  erf: between(-3, 3), sigmoid: between(-5, 5),
};

const unaryCases = Object.entries(unaryRanges).map(([op, range]): GradientCase => ({
  op,
  instance: shapes().chain((shape) => tensors(shape, range)).map((x): Instance => ({ operands: [x] })),
}));

/** Shapes that broadcast: a full one, and operands with axes dropped from the left or set to 1. */
export const broadcasting = (n: number): fc.Arbitrary<number[][]> => shapes(3, 3).chain((full) => {
  const part = fc.tuple(fc.integer({ min: 0, max: full.length }), fc.array(fc.boolean(), { minLength: 3, maxLength: 3 })).map(([from, ones]) => full.slice(from).map((d, i) => (ones[i] ? 1 : d)));
  return fc.tuple(...Array.from({ length: n }, () => part));
});

const pair = (x: fc.Arbitrary<number>, y: fc.Arbitrary<number>): fc.Arbitrary<Instance> =>
  broadcasting(2).chain(([s, t]) => fc.tuple(tensors(s!, x), tensors(t!, y))).map((operands) => ({ operands }));

/** Multiples of `unit` plus an offset: two operands with other offsets are never equal. */
const lattice = (unit: number, offset: number): fc.Arbitrary<number> => fc.integer({ min: -4, max: 4 }).map((k) => k * unit + offset);

const binaryCases: readonly GradientCase[] = [
  { op: 'add', instance: pair(between(-2, 2), between(-2, 2)) },
  { op: 'sub', instance: pair(between(-2, 2), between(-2, 2)) },
  { op: 'mul', instance: pair(between(-2, 2), between(-2, 2)) },
  { op: 'div', instance: pair(between(-2, 2), away) },
  { op: 'pow', instance: pair(positive, between(-2, 2)) },
  { op: 'min', instance: pair(lattice(0.5, 0), lattice(0.5, 0.2)) },
  { op: 'max', instance: pair(lattice(0.5, 0), lattice(0.5, 0.2)) },
  { op: 'mod', instance: pair(lattice(1.4, 0.3), fc.constantFrom(0.7, 1.4, -0.7)) },
  { op: 'fmod', instance: pair(lattice(1.4, 0.3), fc.constantFrom(0.7, 1.4, -0.7)) },
  { op: 'atan2', instance: pair(away, away) },
];

const ternaryCases: readonly GradientCase[] = [
  {
    op: 'select',
    instance: broadcasting(3).chain(([c, s, t]) => fc.tuple(tensors(c!, fc.constantFrom(0, 1), 'bool'), tensors(s!, between(-2, 2)), tensors(t!, between(-2, 2)))).map((operands) => ({ operands })),
  },
  {
    op: 'clamp',
    instance: broadcasting(3).chain(([s, t, u]) => fc.tuple(tensors(s!, lattice(0.5, 0)), tensors(t!, lattice(0.5, 0.1)), tensors(u!, lattice(0.5, 0.25)))).map((operands) => ({ operands })),
    runs: 60,
  },
  { op: 'cast', instance: shapes().chain((s) => tensors(s, between(-2, 2))).map((x) => ({ operands: [x], attrs: { to: 'f64' } })) },
];

export const elementwiseGradients: readonly GradientCase[] = [...unaryCases, ...binaryCases, ...ternaryCases];
