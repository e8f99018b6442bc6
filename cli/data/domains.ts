/** Data sets of several domains, as one: each sample remembers which it is of. */
import { UserError } from '../../ir/diagnostic.ts';
import { joinDomains, type Samples } from '../../runtime/data/index.ts';
import { readData, type Reading } from './files.ts';

/** Reads what `readData` takes; for a model with statistics of `count` domains, that many data sets joined with `+`, in the order of their numbers. */
export async function readDomains(spec: string, reading: Reading, count: number | undefined): Promise<Samples> {
  if (count === undefined) return readData(spec, reading);
  const specs = spec.split('+');
  if (specs.length !== count) throw new UserError(`data ${JSON.stringify(spec)}: the model keeps statistics of ${count} domains; give ${count} data sets joined with +, as A.idx,A-labels.idx+B.idx,B-labels.idx (found ${specs.length})`);
  const sets: Samples[] = [];
  let { classNames } = reading;
  for (const one of specs) {
    const samples = await readData(one, { ...reading, ...(classNames && { classNames }) });
    classNames ??= samples.classNames;
    sets.push(samples);
  }
  return joinDomains(sets);
}
