/** Chooses how a contraction is computed. */
import type { Op } from '../../../ir/graph.ts';
import { sizeOf } from '../../../ir/type.ts';
import { emitElements } from '../elements.ts';
import { bodyOf, Kernel, type KernelCode, type Located } from '../kernel.ts';
import type { Site } from '../machine.ts';
import { registerOf } from '../types.ts';
import { emitDots, isDots } from './dots.ts';
import { emitTiles, tilingFor, vectorOf } from './tiles.ts';
import { rootOf, viewOf } from './view.ts';

/** Tiles where the result has enough rows and columns, shared sums where it is small, else an invocation for each element (depthwise convolutions, integers). */
export function emitContraction(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] {
  const body = bodyOf(op);
  const root = rootOf(body);
  const [y] = results;
  if (!root || !y || results.length !== 1 || registerOf(root.operands[0]!.type.dtype) !== 'f32' || sizeOf(y.type.shape) === 0) return emitElements(op, operands, results, site);
  const kernel = new Kernel(op, operands, results, site);
  const view = viewOf(kernel, body, root);
  if (!view || view.k === 0) return emitElements(op, operands, results, site);
  const tiling = tilingFor(view, site.machine, vectorOf(kernel, root) === 'vec4<f16>' ? 8 : 16);
  if (tiling) return [emitTiles(kernel, body, root, view, tiling)];
  return isDots(view) ? [emitDots(kernel, body, root, view)] : emitElements(op, operands, results, site);
}
