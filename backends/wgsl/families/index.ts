/** One element of each result of an op, by family, as WGSL. */
import { InternalError } from '../../../ir/diagnostic.ts';
import type { Op } from '../../../ir/graph.ts';
import type { OpFamily } from '../../../ir/op.ts';
import type { Evaluator, Index } from '../evaluator.ts';
import { contractElement, convElement } from './contract.ts';
import { indexElement, scatterElement } from './indexing.ts';
import { moveElement } from './move.ts';
import { randomElement } from './random.ts';
import { reduceElement } from './reduce.ts';
import { scanElement } from './scan.ts';
import { resampleElement, windowElement } from './window.ts';

/** Writes what an element needs and gives an expression for it, one a result. All results of an op have one shape. */
export type ElementEmitter = (e: Evaluator, op: Op, index: Index) => readonly string[];

const none: ElementEmitter = (_, op) => {
  throw new InternalError(`${op.name} has no element of its own`);
};

export const elementOf: Readonly<Record<OpFamily, ElementEmitter>> = {
  constant: none,
  map: none,
  reduce: reduceElement,
  contract: contractElement,
  conv: convElement,
  window: windowElement,
  resample: resampleElement,
  move: moveElement,
  index: indexElement,
  scatter: scatterElement,
  scan: scanElement,
  // Sorting writes where an element goes: sort.ts.
  sort: none,
  random: randomElement,
  region: none,
};
