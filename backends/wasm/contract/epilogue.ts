import type { Fn, Local, Vec } from '../asm.ts';

/** Elementwise code that runs on a finished tile before it is stored. */
export interface Epilogue {
  readonly key: string;
  /** One entry per parameter that the micro-kernel gets for it. */
  readonly params: readonly string[];
  apply(f: Fn, acc: Vec, params: readonly Local[], vector: number): Vec;
  nextRow(f: Fn, params: readonly Local[]): number[];
}

export const identity: Epilogue = { key: 'identity', params: [], apply: (_f, acc) => acc, nextRow: () => [] };
