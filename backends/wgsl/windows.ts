/** Ops that read one element of an operand for each of their own, where that operand takes more bindings than a shader has: kernels that see its windows by turns, each of which writes what it sees. */
import type { Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { elementsOf } from './bindings.ts';
import { bodyOf, type Body, type Located } from './kernel.ts';
import type { Site } from './machine.ts';
import { cutsOf, fits, type PlacedOp } from './slices.ts';
import { bytesOfWord } from './types.ts';

/** Most kernels of an op. */
const mostKernels = 4096;
/** Ops of other families than elementwise ones and moves that read an element of each operand once at most; indices are read by all kernels. */
const reading: ReadonlySet<string> = new Set(['gather', 'gatherElements', 'gatherNd', 'dynamicSlice', 'dynamicUpdate']);
const readsOnce = (op: Op): boolean => op.name === 'constant' || reading.has(op.name) || ['map', 'move'].includes(opDef(op.name).family);

/** The kernels' ops of an op whose operands are read apart, as few as possible; undefined where the op is none of these, or where they would be too many. */
export function windowsOf(given: PlacedOp, site: Site): readonly PlacedOp[] | undefined {
  const body = bodyOf(given.op);
  if (!body.ops.every(readsOnce)) return undefined;
  const paths = pathsOf(body);
  const once = body.inputs.map((v) => paths.get(v) === 1 && !isIndex(body, v));
  for (const { slices, results } of slicings(given)) {
    for (let share = site.machine.bindings - 1; share >= 1; share--) {
      const kernels = slices.flatMap((s) => seenByTurns(s, once, results, share, site) ?? [undefined]);
      if (kernels.length <= mostKernels && kernels.every((k) => k !== undefined)) return kernels;
    }
  }
  return undefined;
}

/** The op whole, then in slices; last whole again, with windows of its result as well: each element is still written once, so that the result may lie where an operand does. */
function* slicings(whole: PlacedOp): Generator<{ readonly slices: readonly PlacedOp[]; readonly results: boolean }> {
  yield { slices: [whole], results: false };
  for (const slices of cutsOf(whole)) yield { slices, results: false };
  if (whole.results.length === 1) yield { slices: [whole], results: true };
}

/** A slice as kernels, each of which sees as much of what is larger than a binding as `share` bindings hold; undefined where their tensors do not fit. */
function seenByTurns(slice: PlacedOp, once: readonly boolean[], results: boolean, share: number, site: Site): PlacedOp[] | undefined {
  let seen: PlacedOp[] = [slice];
  const byTurns = (list: 'operands' | 'results', i: number): void => {
    if (seen.length > mostKernels) return;
    const windows = windowsInto(slice[list][i]!, share * site.machine.bindingBytes, site.machine.bindingBytes);
    if (windows.length > 1) seen = seen.flatMap((s) => windows.map((w) => ({ ...s, [list]: s[list].map((o, k) => (k === i ? w : o)) })));
  };
  slice.operands.forEach((_, i) => once[i] && byTurns('operands', i));
  if (results) slice.results.forEach((_, i) => byTurns('results', i));
  return seen.every((s) => fits(s, site, true)) ? seen : undefined;
}

/** Windows of so many bytes into a tensor that is larger than a binding; they start where bindings can, as seen from its buffer. */
function windowsInto(x: Located, bytes: number, binding: number): readonly Located[] {
  const [from, to] = elementsOf(x);
  const step = bytes / bytesOfWord(x.word);
  if ((to - from) * bytesOfWord(x.word) <= binding) return [x];
  const start = Math.floor(from / step) * step;
  return Array.from({ length: Math.ceil((to - start) / step) }, (_, k) => ({ ...x, window: { from: Math.max(from, start + k * step), to: Math.min(to, start + (k + 1) * step), first: k === 0 } }));
}

/** In how many ways outputs are made of each value. */
function pathsOf({ ops, outputs }: Body): ReadonlyMap<Value, number> {
  const paths = new Map<Value, number>();
  const add = (v: Value, n: number): void => void paths.set(v, (paths.get(v) ?? 0) + n);
  for (const o of outputs) add(o, 1);
  for (const op of ops.toReversed()) {
    const own = op.results.reduce((n, r) => n + (paths.get(r) ?? 0), 0);
    for (const v of new Set(op.operands)) add(v, own);
  }
  return paths;
}

/** Whether a value says where other operands are read. */
const isIndex = ({ ops }: Body, v: Value): boolean => ops.some((op) => reading.has(op.name) && op.operands.indexOf(v) > 0 && !(op.name === 'dynamicUpdate' && op.operands[1] === v));
