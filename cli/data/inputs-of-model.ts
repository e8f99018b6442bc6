/** Batches of samples for a model whose targets do not matter. */
import type { ImportedModel } from '../../frontend/index.ts';
import { initialValues } from '../../frontend/zoo/index.ts';
import { UserError } from '../../ir/diagnostic.ts';
import { batchesOf, plainNormalisation, type Samples } from '../../runtime/data/index.ts';
import type { Batch } from '../driver/measure.ts';
import { readData } from './files.ts';

export interface InputData {
  /** `[INPUT=]SAMPLES[,TARGETS]`, as `train` takes them; one for each input of the model. */
  readonly data: readonly string[];
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
}

export interface DataBatches {
  readonly batches: readonly (() => Batch)[];
  /** Samples that were left out because they fill no batch. */
  readonly rest: number;
}

/** Batches in the order of the files, at most `most` of them. */
export async function inputBatches(model: Pick<ImportedModel, 'graph'>, { data, mean, std }: InputData, batch: number, most = Infinity): Promise<DataBatches> {
  const { inputs } = model.graph;
  const names = inputs.map((v) => v.name!);
  const given = new Map(data.map((text) => {
    const named = /^([^=,]+)=(.*)$/.exec(text);
    const name = named ? named[1]! : names.length === 1 ? names[0]! : '';
    if (!names.includes(name)) throw new UserError(`--data ${text}: ${name === '' ? 'say which input it is for, as INPUT=SAMPLES' : `the model has no input "${name}"`}; its inputs are ${names.join(', ')}`);
    return [name, named ? named[2]! : text] as const;
  }));
  const missing = names.find((name) => !given.has(name));
  if (missing !== undefined) throw new UserError(`no data for the input "${missing}": give --data ${missing}=SAMPLES for each input`);
  const epochs = await Promise.all(inputs.map(async (v) => {
    const shape = [batch, ...v.type.shape.slice(1)];
    const read = await readData(given.get(v.name!)!, { sample: shape.slice(1) }, { targets: 'optional' });
    // Targets do not matter: every sample gets the number 0.
    const samples: Samples = { name: read.name, x: read.x, y: { dtype: 'f32', shape: [read.x.shape[0] ?? 0], data: new Float32Array(read.x.shape[0] ?? 0) } };
    const wanted = { x: { name: v.name!, dtype: 'f32', shape }, y: { name: 'y', dtype: 'f32', shape: [batch] }, classes: undefined } as const;
    return { name: v.name!, count: read.x.shape[0]!, epoch: batchesOf(samples, wanted, { shuffle: false, normalisation: { ...plainNormalisation(samples), ...(mean && { mean }), ...(std && { std }) } })(0) };
  }));
  const count = Math.min(most, ...epochs.map((e) => e.epoch.batches));
  return {
    batches: Array.from({ length: count }, (_, i) => () => Object.fromEntries(epochs.map((e) => [e.name, e.epoch.at(i).x]))),
    rest: Math.max(...epochs.map((e) => e.count)) - count * batch,
  };
}

/** Batches of standard normal numbers. */
export function randomBatches(model: Pick<ImportedModel, 'graph'>, batch: number, count: number, seed: number): DataBatches {
  const make = (i: number) => (): Batch => Object.fromEntries(model.graph.inputs.map((v) => {
    const shape = [batch, ...v.type.shape.slice(1)];
    return [v.name!, initialValues({ name: `${v.name!} ${i}`, shape, init: { normal: 1 }, statistic: false }, seed)];
  }));
  return { batches: Array.from({ length: count }, (_, i) => make(i)), rest: 0 };
}
