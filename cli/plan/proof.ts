/** Whether samples may be computed a few at a time. */
import { importModel, type ImportedModel } from '../../frontend/index.ts';
import { UserError } from '../../ir/diagnostic.ts';
import { proofBatches, proveBatchIndependence } from '../../passes/batch-independence.ts';
import { rewriteNorms } from '../../passes/norm/rewrite-norms.ts';
import { batchOf } from '../../passes/train/sample-factors.ts';
import { wasmTarget } from '../driver/target.ts';
import { boundBatch } from '../train/model.ts';
import type { Wanted } from './build.ts';

/** Names the op that joins samples, and why; undefined where no sample influences another, so that micro-batches give the result of the whole batch. */
export function joinOf(wanted: Omit<Wanted, 'batch'>): string | undefined {
  const at = (n: number): ImportedModel => importModel(wanted.model, { dims: boundBatch(wanted.model, n, wanted.dims ?? {}).dims, ...(wanted.values && { values: wanted.values }) });
  const imported = [at(proofBatches[0]), at(proofBatches[1])] as const;
  const [model, other] = imported.map((m) => (wanted.norm ? rewriteNorms(m, wanted.norm, wasmTarget).graph : m.graph));
  const verdict = batchOf(model!) === batchOf(other!) ? proveBatchIndependence(model!, wasmTarget) : proveBatchIndependence(model!, wasmTarget, other, imported);
  return verdict.proved ? undefined : `${verdict.op.source[0] ?? verdict.op.name}: ${verdict.reason}`;
}

/** Refuses micro-batches of a step that they would change. `what` the user asked for. */
export function requireProof(wanted: Omit<Wanted, 'batch'>, what: string): void {
  const join = joinOf(wanted);
  if (join === undefined) return;
  throw new UserError(`${what}, which changes the result of this model: ${join}. Rewrite its normalizations (--norm group:32 or --norm group:4+proxy), or plan a batch at once: with --fit name it by --batch`);
}
