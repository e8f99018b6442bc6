/** What the pools share: their attributes, checks and walks. */
import { plain, put, type Axes, type Dim, type Piece } from '../../axes.ts';
import type { Attrs } from '../../graph.ts';
import { nums, type AttrSpec } from '../../op.ts';
import { showType, type TensorType } from '../../type.ts';
import { check, namesOf, writeDims } from '../helpers.ts';
import { forwardWalk, phaseWalks, sweepAttrs, sweepsOf, type Sweep } from '../spatial.ts';

export const poolAttrs = { kernel: { kind: 'numbers', default: 'required' }, ...sweepAttrs } as const satisfies Record<string, AttrSpec>;
export const poolGradAttrs = { ...poolAttrs, size: { kind: 'numbers', default: 'required' } } as const satisfies Record<string, AttrSpec>;

/** The attributes that a pool and its gradient have in common. */
export const geometry = (a: Attrs): Attrs => ({ kernel: nums(a, 'kernel'), strides: nums(a, 'strides'), pads: nums(a, 'pads'), dilations: nums(a, 'dilations') });
export const spatial = (t: TensorType): readonly number[] => t.shape.slice(2);

/** The sweeps of a pool over a tensor of spatial sizes `input`. */
export const poolSweeps = (input: readonly number[], a: Attrs): readonly Sweep[] => sweepsOf(input, nums(a, 'kernel'), a);

/** Checks that a tensor has batch, channels and one to three spatial axes, none of these empty. */
export function requirePlanes(t: TensorType): void {
  check(t.shape.length >= 3 && t.shape.length <= 5, () => `${showType(t)} must have rank 3 to 5: batch, channels and 1 to 3 spatial axes`);
  check(t.shape.slice(2).every((d) => d > 0), () => `${showType(t)} has a spatial axis without elements`);
}
/** Checks the spatial sizes that a pool's gradient is to give. */
export function requireSize(t: TensorType, size: readonly number[]): void {
  check(size.length === t.shape.length - 2 && size.every((d) => Number.isInteger(d) && d >= 1), () => `size=[${size.join(',')}] must hold a positive integer for each of ${t.shape.length - 2} spatial axes`);
}

const planes = (t: TensorType): Dim[] => [{ name: 'n', size: t.shape[0]!, role: 'parallel' }, { name: 'c', size: t.shape[1]!, role: 'parallel' }];

/** A reduction of each window. */
export function poolAxes(x: TensorType, sweeps: readonly Sweep[], outside: '0' | '-inf', combine: 'sum' | 'argmax'): Axes {
  const walk = forwardWalk(sweeps, outside, 'parallel', 'reduce');
  const space = [...planes(x), ...walk.outs, ...walk.taps];
  const piece: Piece = {
    dims: namesOf(space),
    reads: [[plain('n'), plain('c'), ...walk.reads]],
    writes: [put('n'), put('c'), ...writeDims(walk.outs)],
    indexed: combine === 'argmax' ? namesOf(walk.taps) : [],
  };
  return { space, stages: [{ pieces: [piece], combine, product: false }] };
}

/** The way back: each element gathers from the windows it was in, one piece per stride phase. Every operand is read like dy. */
export function poolGradAxes(operands: readonly TensorType[], sweeps: readonly Sweep[], usesTap: boolean): Axes {
  const dims = planes(operands[0]!);
  const walks = phaseWalks(sweeps);
  const pieces = walks.map((walk): Piece => ({
    dims: namesOf([...dims, ...walk.outs, ...walk.taps]),
    reads: operands.map(() => [plain('n'), plain('c'), ...walk.reads]),
    writes: [put('n'), put('c'), ...walk.places],
    indexed: usesTap ? namesOf(walk.taps) : [],
  }));
  const named = new Map([...dims, ...walks.flatMap((w) => [...w.outs, ...w.taps])].map((d) => [d.name, d]));
  return { space: [...named.values()], stages: [{ pieces, combine: 'sum', product: false }] };
}
