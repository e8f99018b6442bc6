/** Tests judged by another tolerance than ONNX's own, each with its derivation. */
import type { Tolerance } from './judge.ts';

export const exceptions: Readonly<Record<string, { readonly tolerance: Tolerance; readonly why: string }>> = {};
