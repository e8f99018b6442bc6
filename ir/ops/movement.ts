/** Ops that move elements without computing, and constants. */
import type { OpDef } from '../op.ts';
import { concat } from './movement/concat.ts';
import { pad } from './movement/pad.ts';
import { shapeOps } from './movement/shape.ts';
import { constant, iota } from './movement/source.ts';

export const movementOps: readonly OpDef[] = [constant, ...shapeOps, pad, concat, iota];
