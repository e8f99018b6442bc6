/** The axes that all reductions share. */
import type { Axes, CombineName } from '../../axes.ts';
import { dimsOf, namesOf, readDims, writeDims } from '../helpers.ts';

/** The shape with 1 in place of reduced axes. */
export const keptShape = (shape: readonly number[], axes: readonly number[]): number[] => shape.map((d, i) => (axes.includes(i) ? 1 : d));

/** One dim per operand axis; the reduced ones are missing from the result's places. */
export function reductionAxes(shape: readonly number[], axes: readonly number[], combine: CombineName): Axes {
  const space = dimsOf(shape).map((d, i) => (axes.includes(i) ? { ...d, role: 'reduce' as const } : d));
  const piece = { dims: namesOf(space), reads: [readDims(space)], writes: writeDims(space.filter((d) => d.role === 'parallel')), indexed: [] };
  return { space, stages: [{ pieces: [piece], combine, product: false }] };
}
