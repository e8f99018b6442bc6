/** The part of `check` that runs the model on data. */
import type { ImportedModel } from '../../frontend/index.ts';
import { UserError } from '../../ir/diagnostic.ts';
import { findNorms } from '../../passes/norm/find-norms.ts';
import { judgeStatistics, NormData, rms, type NormOnData } from '../../passes/norm/judge-statistics.ts';
import { nodeOf, sharedStatistics, type Finding } from '../../passes/norm/lint-norms.ts';
import { inputBatches, type InputData } from '../data/inputs-of-model.ts';
import { measure } from '../driver/measure.ts';
import { note, say, table } from '../print.ts';

/** What data says about the batch normalizations of a model. */
export interface DataReport {
  readonly samples: number;
  readonly batch: number;
  readonly norms: readonly NormOnData[];
  readonly findings: readonly Finding[];
}

/** Runs the model, in the mode that it was imported in, on all whole batches of the data. */
export async function checkOnData(model: ImportedModel, data: InputData, batch: number): Promise<DataReport> {
  const { batches, rest } = await inputBatches(model, data, batch);
  const shared = sharedStatistics(findNorms(model.graph, model.statistics).filter((n) => n.form === 'training'), model.statistics).map((s) => s.norms.map(nodeOf));
  let norms: NormData[] = [];
  const { left } = await measure(model, batch, made(batches), (found) => {
    norms = found.map((n) => new NormData(n));
    return (i, moments) => norms[i]!.add(moments);
  });
  for (const { node, why } of left) note(`${node} ${why}, and is not measured`);
  const judged = norms.filter((n) => n.norm.form.kind !== 'sample');
  if (judged.length === 0) throw new UserError('the model has no batch normalization: there is nothing that data could say about its batches; leave out --data');
  if (rest > 0) note(`${rest} samples fill no batch of ${batch} and are left out`);
  return { samples: batches.length * batch, batch, norms: judged.map((n) => n.facts()), findings: judgeStatistics(judged, shared) };
}

/** Prints a row for each normalization. */
export function sayData({ samples, batch, norms }: DataReport): void {
  say(`${samples} samples in batches of ${batch}:`);
  const rows = norms.map((n) => [
    n.node, n.spread === undefined ? '' : n.spread.toFixed(2), n.omitted.toFixed(3),
    ...(n.offsets ? [rms(n.offsets).toFixed(3), largestAt(n.offsets), rms(n.scales!).toFixed(3)] : ['', '', '']),
  ]);
  for (const line of table(['node', 'spread of means', 'omitted variance', 'offset', 'worst channel', 'scale'], rows, [1, 2, 3, 4, 5])) say(`  ${line}`);
}

/** `1.30 (5)`: the largest offset and its channel. */
function largestAt(offsets: readonly number[]): string {
  const at = offsets.reduce((best, v, c) => (Math.abs(v) > Math.abs(offsets[best]!) ? c : best), 0);
  return `${offsets[at]!.toFixed(2)} (${at})`;
}

function* made<T>(makers: readonly (() => T)[]): Generator<T> {
  for (const make of makers) yield make();
}
