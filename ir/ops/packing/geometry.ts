/** What the packed forms of a convolution know of it, and the sizes that follow. */
import { nums, num, str } from '../../op.ts';
import type { Attrs } from '../../graph.ts';
import { check } from '../helpers.ts';
import { panelFloats } from './panels.ts';

/**
 * How a packed convolution is computed, and thereby the format of its weights (w: O x C/groups x taps):
 * - `direct`: per group, the panels of a matrix of taps·C/groups rows (taps outermost) and O/groups columns.
 * - `depthwise` (C = O = groups, one or two spatial axes): blocks of 4 channels, each taps x 4, missing channels zero.
 * - `winograd2`, `winograd4`: F(2x2,3x3) and F(4x4,3x3); for each of the 16 or 36 positions the panels of a matrix of C rows and O columns.
 */
export type ConvAlgorithm = 'direct' | 'depthwise' | 'winograd2' | 'winograd4';
export const convAlgorithms: readonly ConvAlgorithm[] = ['direct', 'depthwise', 'winograd2', 'winograd4'];

export interface ConvGeometry {
  readonly algorithm: ConvAlgorithm;
  readonly groups: number;
  /** Channels read and made by one group. */
  readonly fanIn: number;
  readonly fanOut: number;
  readonly kernel: readonly number[];
  readonly taps: number;
}

/** The geometry of a weight of shape [O, C/groups, kernel...]. */
export function convGeometry(algorithm: string, weightShape: readonly number[], groups: number): ConvGeometry {
  const [out, fanIn, ...kernel] = weightShape;
  check(out !== undefined && fanIn !== undefined && kernel.length > 0, () => `[${weightShape.join(',')}] is not the shape of a convolution's weight`);
  check(groups > 0 && out % groups === 0, () => `${out} result channels cannot be cut into ${groups} groups`);
  const known = convAlgorithms.find((a) => a === algorithm);
  check(known !== undefined, () => `there is no algorithm ${algorithm}, expected one of ${convAlgorithms.join(', ')}`);
  const taps = kernel.reduce((n, d) => n * d, 1);
  const geometry: ConvGeometry = { algorithm: known, groups, fanIn, fanOut: out / groups, kernel, taps };
  if (known === 'depthwise') check(fanIn === 1 && geometry.fanOut === 1 && kernel.length <= 2, () => `depthwise convolutions have one channel a group and at most two spatial axes, found ${fanIn} -> ${geometry.fanOut} and ${kernel.length}`);
  if (winogradTile(known) > 0) {
    check(fanIn % 4 === 0 && out % 4 === 0, () => `Winograd takes channels in multiples of 4, found ${fanIn} -> ${out}`);
    check(groups === 1 && kernel.length === 2 && kernel.every((d) => d === 3), () => `Winograd takes 3x3 kernels and one group, found [${kernel.join(',')}] and ${groups}`);
  }
  return geometry;
}

/**
 * Whether a direct convolution copies the rows that it reads, so that a row of the kernel meets pixels side by side: pays where channels are few. Such a
 * convolution reads its input in any layout; all others need channels side by side.
 */
export function copiesRows(g: ConvGeometry, dilations: readonly number[]): boolean {
  return g.algorithm === 'direct' && g.groups === 1 && g.fanIn <= 16 && g.kernel.length <= 2 && g.kernel.at(-1)! > 1 && dilations.at(-1) === 1;
}

export const geometryOf = (attrs: Attrs): ConvGeometry => convGeometry(str(attrs, 'algorithm'), nums(attrs, 'weightShape'), num(attrs, 'groups'));

/** Results per side of a Winograd tile: 2, 4, or 0 for other algorithms. */
export const winogradTile = (algorithm: ConvAlgorithm): 0 | 2 | 4 => (algorithm === 'winograd2' ? 2 : algorithm === 'winograd4' ? 4 : 0);

/** Floats of the packed weight. */
export function packedFloats(g: ConvGeometry): number {
  const tile = winogradTile(g.algorithm);
  if (tile > 0) return (tile + 2) ** 2 * panelFloats(g.fanIn, g.fanOut);
  if (g.algorithm === 'depthwise') return Math.ceil(g.groups / 4) * 4 * g.taps;
  return g.groups * panelFloats(g.taps * g.fanIn, g.fanOut);
}
