/** The table of all ONNX ops: op and opset -> lowering to core ops. One file per topic. */
import type { LoweringTable } from '../lowering.ts';
import { activationOps } from './activations.ts';
import { convOps } from './conv.ts';
import { gatherScatterOps } from './gather-scatter.ts';
import { generateOps } from './generate.ts';
import { logicOps } from './logic.ts';
import { lossOps } from './loss.ts';
import { mathOps } from './math.ts';
import { matmulOps } from './matmul.ts';
import { movementOps } from './movement.ts';
import { normOps } from './norm.ts';
import { poolOps } from './pool.ts';
import { quantOps } from './quant.ts';
import { recurrentOps } from './recurrent.ts';
import { reduceOps } from './reduce.ts';
import { trainingOps } from './training.ts';

export const lowerings: LoweringTable = {
  ...mathOps, ...activationOps, ...logicOps, ...reduceOps, ...movementOps, ...generateOps, ...gatherScatterOps,
  ...matmulOps, ...convOps, ...poolOps, ...normOps, ...quantOps, ...recurrentOps, ...lossOps, ...trainingOps,
};
