/** How all ops of a graph are run. */
import { beamSearch, type Layouts } from './beam.ts';
import type { Program } from './program.ts';

/** States of the joint search: with more, what it finds changes by less than a thousandth. */
const width = 8;

/** The layouts of fewest cycles of a joint search and of choosing each op by itself. `alone`: of the latter. */
export function chooseLayouts(program: Program, alone: boolean, onProgress?: (done: number, of: number) => void): Layouts {
  const single = beamSearch(program, 1, onProgress);
  if (alone) return single;
  const joint = beamSearch(program, width);
  return joint.cycles < single.cycles ? joint : single;
}
