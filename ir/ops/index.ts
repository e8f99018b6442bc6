/** The table of all core ops. */
import { InternalError } from '../diagnostic.ts';
import type { OpDef } from '../op.ts';
import { elementwiseOps } from './elementwise.ts';
import { movementOps } from './movement.ts';
import { reductionOps } from './reduction.ts';
import { indexingOps } from './indexing.ts';
import { contractionOps } from './contraction.ts';
import { windowOps } from './window.ts';
import { sequenceOps } from './sequence.ts';
import { controlOps } from './control.ts';
import { packingOps } from './packing.ts';

export const ops: ReadonlyMap<string, OpDef> = new Map(
  [...elementwiseOps, ...movementOps, ...reductionOps, ...indexingOps, ...contractionOps, ...windowOps, ...sequenceOps, ...controlOps, ...packingOps].map((d) => [d.name, d]),
);

/** The definition of an op; an unknown name is a bug (the text parser checks names first). */
export function opDef(name: string): OpDef {
  const def = ops.get(name);
  if (!def) throw new InternalError(`there is no op ${name}`);
  return def;
}
