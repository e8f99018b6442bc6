/** The table of all ONNX ops: op and opset -> lowering to core ops. One file per topic. */
import type { LoweringTable } from '../lowering.ts';
import { activationOps } from './activations.ts';
import { attentionOps } from './attention.ts';
import { controlFlowOps } from './control.ts';
import { convOps } from './conv.ts';
import { gatherScatterOps } from './gather-scatter.ts';
import { generateOps } from './generate.ts';
import { linearAttentionOps } from './linear-attention.ts';
import { logicOps } from './logic.ts';
import { lossOps } from './loss.ts';
import { mathOps } from './math.ts';
import { matmulOps } from './matmul.ts';
import { movementOps } from './movement.ts';
import { normOps } from './norm.ts';
import { poolOps } from './pool.ts';
import { quantOps } from './quant.ts';
import { randomOps } from './random.ts';
import { recurrentOps } from './recurrent.ts';
import { reduceOps } from './reduce.ts';
import { resizeOps } from './resize.ts';
import { samplingOps } from './sampling.ts';
import { searchOps } from './search.ts';
import { sequenceOps } from './sequence.ts';
import { signalOps } from './signal.ts';
import { trainingOps } from './training.ts';

export const lowerings: LoweringTable = {
  ...mathOps, ...activationOps, ...logicOps, ...reduceOps, ...movementOps, ...generateOps, ...gatherScatterOps,
  ...matmulOps, ...convOps, ...poolOps, ...normOps, ...quantOps, ...recurrentOps, ...lossOps, ...trainingOps,
  ...attentionOps, ...linearAttentionOps, ...resizeOps,
  ...controlFlowOps, ...sequenceOps, ...randomOps, ...signalOps, ...samplingOps, ...searchOps,
};
