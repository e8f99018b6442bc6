/** What outlives the GPU that it runs on. */
import { LostGpu } from '../../../runtime/index.ts';

export interface Lasting<T> {
  /** Does some work with what is open. Where the GPU is lost meanwhile, or was before, all is opened again and the work done once more; a second loss is thrown. */
  use<R>(work: (open: T) => Promise<R>): Promise<R>;
  close(): Promise<void>;
}

/** A session or a trainer that is opened when it is first used, and again after its GPU was lost, of which `lost` is told. */
export function lasting<T extends { close(): Promise<void> }>(open: () => Promise<T>, lost: (error: LostGpu) => void): Lasting<T> {
  let current: T | undefined;
  const close = async (): Promise<void> => {
    const last = current;
    current = undefined;
    await last?.close();
  };
  return {
    async use(work) {
      try {
        return await work(current ??= await open());
      } catch (e) {
        if (!(e instanceof LostGpu)) throw e;
        await close();
        lost(e);
        return work(current = await open());
      }
    },
    close,
  };
}
