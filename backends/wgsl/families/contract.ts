/** Matrix products and convolutions, element by element of the result: for element types and sizes that the tiled kernels do not take. */
import { num, nums, str } from '../../../ir/op.ts';
import type { Evaluator, Index } from '../evaluator.ts';
import { literal } from '../literal.ts';
import { narrowed } from '../map.ts';
import { registerOf } from '../types.ts';
import { plus, times } from '../writer.ts';
import type { ElementEmitter } from './index.ts';

/** Letters of a contraction's operands and result, and their sizes. */
export interface Letters { readonly a: string; readonly b: string; readonly result: string; readonly sizes: ReadonlyMap<string, number> }

export function lettersOf(spec: string, a: readonly number[], b: readonly number[]): Letters {
  const [, p, q, r] = /^(\w*),(\w*)->(\w*)$/.exec(spec) as unknown as [string, string, string, string];
  return { a: p, b: q, result: r, sizes: new Map([...[...p].map((l, i) => [l, a[i]!] as const), ...[...q].map((l, i) => [l, b[i]!] as const)]) };
}

export const contractElement: ElementEmitter = (e, op, index) => {
  const [x, y] = op.operands as [typeof op.operands[0], typeof op.operands[0]];
  const { a, b, result, sizes } = lettersOf(str(op.attrs, 'spec'), x.type.shape, y.type.shape);
  const at = new Map([...result].map((l, i) => [l, index[i]!]));
  const summed = [...sizes.keys()].filter((l) => !at.has(l));
  return [accumulate(e, op.results[0]!.type.dtype, (add) => e.loops('k', summed.map((l) => sizes.get(l)!), (k) => {
    const all = new Map([...at, ...summed.map((l, i) => [l, k[i]!] as const)]);
    add(e.at(x, [...a].map((l) => all.get(l)!)), e.at(y, [...b].map((l) => all.get(l)!)));
  }))];
};

/** A sum of products of a dtype. */
function accumulate(e: Evaluator, dtype: Parameters<typeof registerOf>[0], terms: (add: (a: string, b: string) => void) => void): string {
  const register = registerOf(dtype);
  const acc = e.w.variable('acc', register, literal(e.w, register, 0));
  terms((a, b) => e.w.line(`${acc} = ${acc} + ${a} * ${b};`));
  return narrowed(e.w, acc, dtype);
}

/** Writes `body` where the position `at` lies within an axis of `size` elements: without a test where it always does. */
export function within(e: Evaluator, tests: readonly { readonly at: string; readonly size: number; readonly always: boolean }[], body: () => void): void {
  const conditions = tests.filter((t) => !t.always).map((t) => `${t.at} >= 0 && ${t.at} < ${t.size}`);
  if (conditions.length === 0) body();
  else e.w.block(`if (${conditions.join(' && ')})`, () => e.scoped(body));
}

/** One spatial axis of a sweep: h = q·stride + y·dilation - lo. */
export interface SweepAxis { readonly size: number; readonly out: number; readonly kernel: number; readonly stride: number; readonly dilation: number; readonly lo: number }

/** The spatial axes of a sweep over `input` that gives `out`. */
export function sweepAxes(op: { readonly attrs: Parameters<typeof nums>[0] }, input: readonly number[], kernel: readonly number[], out: readonly number[]): SweepAxis[] {
  const [strides, pads, dilations] = [nums(op.attrs, 'strides'), nums(op.attrs, 'pads'), nums(op.attrs, 'dilations')];
  return input.map((size, i) => ({ size, out: out[i]!, kernel: kernel[i]!, stride: strides[i]!, dilation: dilations[i]!, lo: pads[i]! }));
}

/** Calls `body` with the swept positions of an output at `q` and taps at `y`, where they lie inside. */
export function forward(e: Evaluator, sweep: readonly SweepAxis[], q: Index, y: Index, body: (at: Index) => void): void {
  const at = sweep.map((s, i) => e.w.let('p', plus(plus(times(q[i]!, s.stride), times(y[i]!, s.dilation)), -s.lo)));
  within(e, sweep.map((s, i) => ({ at: at[i]!, size: s.size, always: s.lo <= 0 && (s.out - 1) * s.stride + (s.kernel - 1) * s.dilation - s.lo < s.size })), () => body(at));
}

/** Calls `body` with the outputs whose taps at `y` meet the swept position `h`. */
export function backward(e: Evaluator, sweep: readonly SweepAxis[], h: Index, y: Index, body: (q: Index) => void): void {
  const t = sweep.map((s, i) => e.w.let('p', plus(plus(h[i]!, s.lo), times(y[i]!, -s.dilation))));
  const q = sweep.map((s, i) => (s.stride === 1 ? t[i]! : e.w.let('q', `${t[i]!} / ${s.stride}`)));
  const tests = sweep.flatMap((s, i) => [`${t[i]!} >= 0`, `${q[i]!} < ${s.out}`, ...(s.stride === 1 ? [] : [`${t[i]!} % ${s.stride} == 0`])]);
  e.w.block(`if (${tests.join(' && ')})`, () => e.scoped(() => body(q)));
}

/** The group of a channel and what is left of it. */
function grouped(e: Evaluator, channel: string, perGroup: number, groups: number): readonly [group: string, rest: string] {
  if (groups === 1) return ['0', channel];
  if (perGroup === 1) return [channel, '0'];
  return [e.w.let('g', `${channel} / ${perGroup}`), e.w.let('r', `${channel} % ${perGroup}`)];
}

export const convElement: ElementEmitter = (e, op, index) => {
  const [first, second] = op.operands as [typeof op.operands[0], typeof op.operands[0]];
  const result = op.results[0]!.type;
  const groups = num(op.attrs, 'groups');
  const spatial = (shape: readonly number[]): readonly number[] => shape.slice(2);
  switch (op.name) {
    case 'conv': {
      const w = second.type.shape;
      const sweep = sweepAxes(op, spatial(first.type.shape), spatial(w), spatial(result.shape));
      const [n, o, ...q] = index as [string, string, ...string[]];
      const [g] = grouped(e, o, w[0]! / groups, groups);
      return [accumulate(e, result.dtype, (add) => e.loops('k', [w[1]!, ...spatial(w)], ([i, ...y]) =>
        forward(e, sweep, q, y, (p) => add(e.at(first, [n, plus(times(g, w[1]!), i!), ...p]), e.at(second, [o, i!, ...y])))))];
    }
    case 'convData': {
      const w = second.type.shape;
      const sweep = sweepAxes(op, nums(op.attrs, 'size'), spatial(w), spatial(first.type.shape));
      const [n, c, ...h] = index as [string, string, ...string[]];
      const outputs = w[0]! / groups;
      const [g, i] = grouped(e, c, w[1]!, groups);
      return [accumulate(e, result.dtype, (add) => e.loops('k', [outputs, ...spatial(w)], ([o, ...y]) =>
        backward(e, sweep, h, y, (q) => {
          const channel = e.w.let('o', plus(times(g, outputs), o!));
          add(e.at(first, [n, channel, ...q]), e.at(second, [channel, i, ...y]));
        })))];
    }
    default: {
      const parts = num(op.attrs, 'parts');
      const [x, dy] = [first.type.shape, second.type.shape];
      const [p, o, i, ...y] = (parts > 0 ? index : ['0', ...index]) as [string, string, string, ...string[]];
      const share = x[0]! / Math.max(1, parts);
      const sweep = sweepAxes(op, spatial(x), nums(op.attrs, 'kernel'), spatial(dy));
      const [g] = grouped(e, o, dy[1]! / groups, groups);
      return [accumulate(e, result.dtype, (add) => e.loops('k', [share, ...spatial(dy)], ([k, ...q]) => forward(e, sweep, q, y, (at) => {
        const n = e.w.let('n', plus(times(p, share), k!));
        add(e.at(first, [n, plus(times(g, x[1]! / groups), i), ...at]), e.at(second, [n, o, ...q]));
      })))];
    }
  }
};

