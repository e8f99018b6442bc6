/** A GPU that goes away while it trains. */
import { LostGpu } from '../../runtime/webgpu/error.ts';

/** What the caller of a training run is told: of a lost GPU also how to go on, from the checkpoints of `folder` where there are any. Other errors as they are. */
export function tellLostGpu(error: unknown, folder: string | undefined): unknown {
  if (!(error instanceof LostGpu)) return error;
  const next = folder === undefined ? 'What was learned since the start is lost: --checkpoint FOLDER with --checkpoint-every STEPS keeps it' : `Go on from the last checkpoint with --resume ${folder}`;
  return new LostGpu(`${error.message}. ${next}`, { cause: error });
}
