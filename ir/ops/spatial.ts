/** Windows that sweep over spatial axes: sizes, the runs of elements under each tap, and stride phases. Shared by [conv] and [window]. */
import { at, type Dim, type Index, type Place } from '../axes.ts';
import { nums, type AttrSpec } from '../op.ts';
import type { Attrs } from '../graph.ts';
import { check } from './helpers.ts';

/** A window along one spatial axis: tap `y` of output `h` reads input `h * stride + y * dilation - lo`. */
export interface Sweep {
  readonly input: number;
  readonly out: number;
  readonly kernel: number;
  readonly stride: number;
  readonly dilation: number;
  /** Padding before the first element; negative crops. */
  readonly lo: number;
}

/** The attributes that every windowed op has. `pads` lists all paddings before, then all after; negative ones crop. */
export const sweepAttrs = {
  strides: { kind: 'numbers', default: 'required' },
  pads: { kind: 'numbers', default: 'required' },
  dilations: { kind: 'numbers', default: 'required' },
} as const satisfies Record<string, AttrSpec>;

/** The sweep of each spatial axis, checked: one to three axes, and at least one output element on each. */
export function sweepsOf(input: readonly number[], kernel: readonly number[], a: Attrs): readonly Sweep[] {
  const rank = input.length;
  const pads = nums(a, 'pads');
  check(rank >= 1 && rank <= 3, () => `has ${rank} spatial axes, expected 1 to 3`);
  requirePositive('kernel', kernel, rank);
  requirePositive('strides', nums(a, 'strides'), rank);
  requirePositive('dilations', nums(a, 'dilations'), rank);
  check(pads.length === 2 * rank && pads.every(Number.isInteger), () => `pads=[${pads.join(',')}] must hold ${2 * rank} integers, before and after each of ${rank} spatial axes`);
  return input.map((size, i) => {
    const stride = nums(a, 'strides')[i]!;
    const dilation = nums(a, 'dilations')[i]!;
    const [lo, hi] = [pads[i]!, pads[rank + i]!];
    const reach = (kernel[i]! - 1) * dilation + 1;
    check(size + lo + hi >= reach, () => `spatial axis ${i}: a window that reaches over ${reach} elements does not fit into ${size} with padding ${lo} and ${hi}, so the result would be empty`);
    return { input: size, out: Math.floor((size + lo + hi - reach) / stride) + 1, kernel: kernel[i]!, stride, dilation, lo };
  });
}

function requirePositive(name: string, list: readonly number[], rank: number): void {
  check(list.length === rank && list.every((v) => Number.isInteger(v) && v >= 1), () => `${name}=[${list.join(',')}] must hold a positive integer for each of ${rank} spatial axes`);
}

/** Checks that sweeps give these output sizes (of a gradient or of a transposed convolution's input). */
export function requireOutputs(sweeps: readonly Sweep[], found: readonly number[]): void {
  const expected = sweeps.map((s) => s.out);
  check(found.length === expected.length && found.every((d, i) => d === expected[i]), () => `the windows give spatial sizes [${expected.join(',')}], but the operand has [${found.join(',')}]`);
}

/**
 * Pieces of one plane in which a tap's elements follow each other, as flat quadruples (tap, input element, output element, count): the count
 * outputs from the given one read inputs from the given one, `stride` of the last axis apart. Elements in the padding are in no run.
 * Output rows (all axes but the last, flattened) `from` up to `to`; output elements count from row `from`.
 */
export function runsOf(sweeps: readonly Sweep[], from: number, to: number): Int32Array {
  const [d, h, w] = threeAxes(sweeps);
  const runs = new Int32Array(4 * d.kernel * h.kernel * w.kernel * (to - from));
  let n = 0;
  for (let z = 0; z < d.kernel; z++) {
    for (let y = 0; y < h.kernel; y++) {
      for (let x = 0; x < w.kernel; x++) {
        const tap = (z * h.kernel + y) * w.kernel + x;
        const first = Math.max(0, Math.ceil((w.lo - x * w.dilation) / w.stride));
        const end = Math.min(w.out, Math.floor((w.input - 1 + w.lo - x * w.dilation) / w.stride) + 1);
        if (end <= first) continue;
        for (let row = from; row < to; row++) {
          const id = Math.floor(row / h.out) * d.stride + z * d.dilation - d.lo;
          const ih = (row % h.out) * h.stride + y * h.dilation - h.lo;
          if (id < 0 || id >= d.input || ih < 0 || ih >= h.input) continue;
          runs[n++] = tap;
          runs[n++] = (id * h.input + ih) * w.input + first * w.stride + x * w.dilation - w.lo;
          runs[n++] = (row - from) * w.out + first;
          runs[n++] = end - first;
        }
      }
    }
  }
  return runs.subarray(0, n);
}

/** Rows of a plane as `runsOf` counts them, their length, and the distance of neighbouring reads. */
export function planeOf(sweeps: readonly Sweep[]): { readonly rows: number; readonly width: number; readonly step: number; readonly input: number; readonly taps: number } {
  const [d, h, w] = threeAxes(sweeps);
  return { rows: d.out * h.out, width: w.out, step: w.stride, input: d.input * h.input * w.input, taps: d.kernel * h.kernel * w.kernel };
}

const single: Sweep = { input: 1, out: 1, kernel: 1, stride: 1, dilation: 1, lo: 0 };
function threeAxes(sweeps: readonly Sweep[]): readonly [Sweep, Sweep, Sweep] {
  const [d, h, w] = [...new Array<Sweep>(3 - sweeps.length).fill(single), ...sweeps];
  return [d!, h!, w!];
}

/** Names of spatial dims and of their taps, by spatial rank. */
const spatialNames = ['d', 'h', 'w'];
const tapNames = ['z', 'y', 'x'];

/** How a windowed op walks its spatial axes forwards: the dims, the operand's indices, the result's places and the taps' own indices. */
export interface SpatialWalk {
  readonly outs: readonly Dim[];
  readonly taps: readonly Dim[];
  /** Where the swept operand is read. */
  readonly reads: readonly Index[];
}

/** `[h*s+y*d-lo]` for each spatial axis; `outRole` and `tapRole` say which of the two are reduced. */
export function forwardWalk(sweeps: readonly Sweep[], outside: '0' | '-inf', outRole: Dim['role'], tapRole: Dim['role']): SpatialWalk {
  const skip = 3 - sweeps.length;
  const outs = sweeps.map((s, i): Dim => ({ name: spatialNames[skip + i]!, size: s.out, role: outRole }));
  const taps = sweeps.map((s, i): Dim => ({ name: tapNames[skip + i]!, size: s.kernel, role: tapRole }));
  const reads = sweeps.map((s, i) => at([[outs[i]!.name, s.stride], [taps[i]!.name, s.dilation]], -s.lo, outside));
  return { outs, taps, reads };
}

/** One stride phase of each spatial axis: the elements of the swept operand that are equal modulo the strides, and the taps that meet them. */
export interface PhaseWalk extends SpatialWalk {
  /** Where those elements lie. */
  readonly places: readonly Place[];
  /** Which taps meet them, as indices of the kernel's axes. */
  readonly kernel: readonly Index[];
}

/** The transposed walk, from outputs back to the swept operand: one entry per combination of stride phases that holds any element. */
export function phaseWalks(sweeps: readonly Sweep[]): readonly PhaseWalk[] {
  let walks: readonly PhaseWalk[] = [{ outs: [], taps: [], reads: [], places: [], kernel: [] }];
  sweeps.forEach((s, i) => {
    const name = 3 - sweeps.length + i;
    const phases = phasesOf(s, spatialNames[name]!, tapNames[name]!);
    walks = walks.flatMap((w) => phases.map((p): PhaseWalk => ({
      outs: [...w.outs, p.out], taps: [...w.taps, p.tap], reads: [...w.reads, p.read], places: [...w.places, p.place], kernel: [...w.kernel, p.kernel],
    })));
  });
  return walks;
}

interface Phase { readonly out: Dim; readonly tap: Dim; readonly read: Index; readonly place: Place; readonly kernel: Index }

function phasesOf(s: Sweep, outName: string, tapName: string): readonly Phase[] {
  const common = gcd(s.stride, s.dilation);
  // From one tap of a phase to the next, and by how much the output that it comes from moves.
  const tapStep = s.stride / common;
  const outStep = s.dilation / common;
  const phases: Phase[] = [];
  for (let r = 0; r < Math.min(s.stride, s.input); r++) {
    let first = 0;
    while (first < s.kernel && (r + s.lo - first * s.dilation) % s.stride !== 0) first++;
    const met = first < s.kernel;
    const out: Dim = { name: `${outName}${r}`, size: Math.ceil((s.input - r) / s.stride), role: 'parallel' };
    const tap: Dim = { name: `${tapName}${r}`, size: met ? Math.floor((s.kernel - 1 - first) / tapStep) + 1 : 0, role: 'reduce' };
    phases.push({
      out,
      tap,
      read: at([[out.name, 1], [tap.name, -outStep]], met ? (r + s.lo - first * s.dilation) / s.stride : 0, '0'),
      place: { terms: [[out.name, s.stride]], plus: r },
      kernel: at([[tap.name, tapStep]], met ? first : 0),
    });
  }
  return phases;
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
