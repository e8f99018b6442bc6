/** The elementwise ops: family [map]. */
import type { OpDef } from '../op.ts';
import { arithmeticOps } from './elementwise/binary.ts';
import { castOps } from './elementwise/cast.ts';
import { logicOps } from './elementwise/logic.ts';
import { ternaryOps } from './elementwise/select.ts';
import { unaryOps } from './elementwise/unary.ts';

export const elementwiseOps: readonly OpDef[] = [...unaryOps, ...arithmeticOps, ...logicOps, ...ternaryOps, ...castOps];
