/** Sizes and pads of sliding windows, as convolutions and pools read them from a node. */
import type { LowerContext } from '../lowering.ts';

/** A window over trailing spatial axes. `lo` and `hi` are the pads that the node declares (or that auto_pad gives). */
export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly lo: readonly number[];
  readonly hi: readonly number[];
  /** Sizes of the result. */
  readonly out: readonly number[];
  /** What `hi` has to be so that exactly `out` windows fit; above it where ceil_mode adds a window, and negative where the input's end is not read. */
  readonly reach: readonly number[];
}

/** Elements that a dilated kernel spans. */
export const extent = (kernel: number, dilation: number): number => (kernel - 1) * dilation + 1;

/** Reads strides, pads, dilations, auto_pad and ceil_mode for a window over `spatial` sizes. */
export function readWindow(cx: LowerContext, spatial: readonly number[], kernel: readonly number[]): Window {
  const { attrs } = cx.node;
  const rank = spatial.length;
  const strides = list(cx, 'strides', rank, 1);
  const dilations = list(cx, 'dilations', rank, 1);
  if (kernel.length !== rank) cx.bad(`kernel_shape [${kernel.join(', ')}] does not fit ${rank} spatial axes`);
  if ([...kernel, ...strides, ...dilations].some((n) => n < 1)) cx.bad('kernel_shape, strides and dilations have to be positive');
  const auto = attrs.string('auto_pad', 'NOTSET');
  const ceil = attrs.int('ceil_mode', 0) !== 0;
  const pads = attrs.ints('pads', new Array<number>(2 * rank).fill(0));
  if (pads.length !== 2 * rank || pads.some((p) => p < 0)) cx.bad(`pads [${pads.join(', ')}]: expected ${2 * rank} sizes of at least 0`);
  const lo: number[] = [];
  const hi: number[] = [];
  const out: number[] = [];
  spatial.forEach((size, i) => {
    const span = extent(kernel[i]!, dilations[i]!);
    const stride = strides[i]!;
    switch (auto) {
      case 'SAME_UPPER':
      case 'SAME_LOWER': {
        const n = Math.ceil(size / stride);
        const pad = Math.max(0, (n - 1) * stride + span - size);
        const less = Math.floor(pad / 2);
        lo.push(auto === 'SAME_UPPER' ? less : pad - less);
        hi.push(auto === 'SAME_UPPER' ? pad - less : less);
        out.push(n);
        return;
      }
      case 'NOTSET':
      case 'VALID': {
        const before = auto === 'VALID' ? 0 : pads[i]!;
        const after = auto === 'VALID' ? 0 : pads[i + rank]!;
        const steps = (size + before + after - span) / stride;
        const up = ceil && auto === 'NOTSET';
        let n = (up ? Math.ceil(steps) : Math.floor(steps)) + 1;
        // A window that ceil_mode adds has to start inside the input or the padding before it.
        if (up && (n - 1) * stride >= size + before) n--;
        lo.push(before);
        hi.push(after);
        out.push(Math.max(0, n));
        return;
      }
      default:
        cx.bad(`auto_pad is "${auto}": expected NOTSET, SAME_UPPER, SAME_LOWER or VALID`);
    }
  });
  const reach = spatial.map((size, i) => (out[i]! - 1) * strides[i]! + extent(kernel[i]!, dilations[i]!) - size - lo[i]!);
  return { kernel, strides, dilations, lo, hi, out, reach };
}

/** A per-axis attribute with a default for every axis. */
export function list(cx: LowerContext, name: string, rank: number, otherwise: number): readonly number[] {
  const values = cx.node.attrs.ints(name, new Array<number>(rank).fill(otherwise));
  if (values.length !== rank) cx.bad(`${name} [${values.join(', ')}] does not fit ${rank} spatial axes`);
  return values;
}

/** Pads for a core op: where the input's end is not read, no (negative) pad is needed, since sizes round down. */
export const corePads = (w: Window): number[] => [...w.lo, ...w.reach.map((r) => Math.max(r, 0))];
