/** Names what looks like a batch normalization and is none that can be rewritten. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { openRegions } from '../../ir/regions.ts';
import { sizeOf } from '../../ir/type.ts';
import { opsOfNorms, type BatchNorm } from './find-norms.ts';
import { rootPower } from './match-norm.ts';
import { overBatch, Structure } from './structure.ts';

/** A part of a model that stays as it is. */
export interface LeftNorm {
  /** The ONNX node in which data meets the deviation. */
  readonly node: string;
  readonly reason: string;
}

/** Where data is multiplied or divided by a root of what was computed of the batch, or of one weight a channel, without being one of the norms that were found. */
export function leftNorms(graph: Graph, norms: readonly BatchNorm[]): LeftNorm[] {
  const open = openRegions(graph);
  const s = new Structure(open);
  const known = opsOfNorms(open, norms);
  const left = new Map<string, LeftNorm>();
  for (const { op } of s.placed) {
    const inside = op.operands[0];
    if (!inside || known.has(op) || rootPower(s, op) === undefined) continue;
    const ofBatch = comesFromBatch(s, inside);
    if (!ofBatch && !(sizeOf(inside.type.shape) > 1 && comesFromWeights(s, inside))) continue;
    const met = meeting(s, op, ofBatch);
    const node = met && (met.source[0] ?? met.name);
    if (met && node !== undefined && !known.has(met) && !left.has(node)) left.set(node, { node, reason: reasonOf(s, op, inside, ofBatch) });
  }
  return [...left.values()];
}

/** Whether a value of one number a channel is made of a reduction over the batch. */
function comesFromBatch(s: Structure, v: Value): boolean {
  const seen = new Set<Value>([v]);
  for (const u of seen) {
    const op = s.def(u);
    if (!op || s.parameters.has(u)) continue;
    if (['reduceSum', 'moments'].includes(op.name)) {
      if (overBatch(op)) return true;
      continue;
    }
    if (opDef(op.name).family === 'map' || op.name === 'reshape') op.operands.forEach((o) => seen.add(o));
  }
  return false;
}

/** Whether a value is made of weights element by element: what reduces them is no running statistic. */
function comesFromWeights(s: Structure, v: Value): boolean {
  const op = s.def(v);
  if (!s.parameters.has(v)) return false;
  return (s.isKept(v) && sizeOf(v.type.shape) > 1) || (op !== undefined && opDef(op.name).family === 'map' ? op.operands : op?.name === 'reshape' ? op.operands : []).some((o) => comesFromWeights(s, o));
}

/** The first product or quotient of a root with data that has channels on axis 1. */
function meeting(s: Structure, root: Op, ofBatch: boolean): Op | undefined {
  const channels = sizeOf(root.results[0]!.type.shape);
  const reached = new Set<Value>(root.results);
  for (const { op } of s.placed) {
    if (!op.operands.some((v) => reached.has(v)) || (opDef(op.name).family !== 'map' && op.name !== 'reshape')) continue;
    const [result] = op.results as [Value];
    const { shape } = result.type;
    if (sizeOf(shape) === channels) {
      reached.add(result);
      continue;
    }
    if (s.parameters.has(result) || !['mul', 'div'].includes(op.name) || shape[1] !== channels) continue;
    const data = op.operands.find((v) => !reached.has(v));
    if (data && (ofBatch || !s.parameters.has(data))) return op;
  }
  return undefined;
}

function reasonOf(s: Structure, root: Op, inside: Value, ofBatch: boolean): string {
  const bare = s.def(s.peel(inside));
  if (bare && ['max', 'clamp'].includes(bare.name)) return 'its variance is bounded from below, where a normalization adds an epsilon';
  const added = s.placed.some(({ op }) => op.name === 'add' && op.operands.includes(root.results[0]!) && op.operands.some((v) => v !== root.results[0] && s.number(v) !== undefined));
  if (added) return 'its epsilon is added to the deviation, not to the variance';
  const variance = bare?.name === 'add' ? bare.operands.find((v) => s.number(v) === undefined) : inside;
  if (ofBatch && variance && s.statistic(variance)?.kind !== 'variance') return 'its variance is not the mean of the squared distances from the mean over all samples and positions (without correction for their number)';
  return 'it is not (x - mean) / √(variance + ε) · scale + shift, each with one number a channel';
}
