/** Gradient cases of contractions and convolutions. */
import fc from 'fast-check';
import { between, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';
import { geometries, type Geometry } from './spatial.ts';

/** A random spec over up to six letters, each in one operand or both, kept or summed. */
export const specs: fc.Arbitrary<{ spec: string; a: number[]; b: number[] }> = fc
  .array(fc.record({ size: fc.integer({ min: 1, max: 3 }), where: fc.constantFrom('a', 'b', 'ab', 'ab'), kept: fc.boolean(), order: fc.array(fc.nat(99), { minLength: 3, maxLength: 3 }) }), { maxLength: 6 })
  .map((axes) => {
    const letters = axes.map((x, i) => ({ ...x, letter: String.fromCharCode(97 + i) }));
    const ordered = (chosen: typeof letters, by: number): typeof letters => [...chosen].sort((p, q) => p.order[by]! - q.order[by]!);
    const a = ordered(letters.filter((l) => l.where !== 'b'), 0);
    const b = ordered(letters.filter((l) => l.where !== 'a'), 1);
    const result = ordered(letters.filter((l) => l.kept), 2);
    const text = (ls: typeof letters): string => ls.map((l) => l.letter).join('');
    return { spec: `${text(a)},${text(b)}->${text(result)}`, a: a.map((l) => l.size), b: b.map((l) => l.size) };
  });

/** Geometry and channels of a convolution. */
export const convolutions = fc.record({ g: geometries, batch: fc.integer({ min: 1, max: 2 }), groups: fc.integer({ min: 1, max: 2 }), inputs: fc.integer({ min: 1, max: 2 }), outputs: fc.integer({ min: 1, max: 2 }) });
type Convolution = typeof convolutions extends fc.Arbitrary<infer T> ? T : never;

const x = (c: Convolution): number[] => [c.batch, c.groups * c.inputs, ...c.g.input];
const w = (c: Convolution): number[] => [c.groups * c.outputs, c.inputs, ...c.g.kernel];
const y = (c: Convolution): number[] => [c.batch, c.groups * c.outputs, ...c.g.out];
const attrs = (c: Convolution): Geometry['sweep'] & { groups: number } => ({ ...c.g.sweep, groups: c.groups });

/** The three ops of a convolution: operand shapes and attributes. */
export const convolutionOps: readonly { op: string; of: (c: Convolution) => { shapes: [number[], number[]]; attrs: NonNullable<Instance['attrs']> } }[] = [
  { op: 'conv', of: (c) => ({ shapes: [x(c), w(c)], attrs: attrs(c) }) },
  { op: 'convData', of: (c) => ({ shapes: [y(c), w(c)], attrs: { ...attrs(c), size: c.g.input } }) },
  { op: 'convWeight', of: (c) => ({ shapes: [x(c), y(c)], attrs: { ...attrs(c), kernel: c.g.kernel } }) },
];

/** An instance of an op of two operands, with values from a generator. */
export const pairOf = (shapes: readonly [readonly number[], readonly number[]], attrs: NonNullable<Instance['attrs']>, value: fc.Arbitrary<number>): fc.Arbitrary<Instance> =>
  fc.tuple(tensors(shapes[0], value), tensors(shapes[1], value)).map((operands) => ({ operands, attrs }));

export const contractionGradients: readonly GradientCase[] = [
  { op: 'contract', instance: specs.chain(({ spec, a, b }) => pairOf([a, b], { spec }, between(-1, 1))), runs: 60 },
  ...convolutionOps.map(({ op, of }): GradientCase => ({
    op,
    instance: convolutions.chain((c) => pairOf(of(c).shapes, of(c).attrs, between(-1, 1))),
    runs: 20,
  })),
];
