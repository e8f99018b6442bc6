/** Data for training: readers of common formats, shuffling, augmentation, batches. Runs in browsers too. */
export { type Augmentation } from './augment.ts';
export { batchesOf, type Batch, type BatchOptions, type Epoch } from './batches.ts';
export { joinDomains } from './domains.ts';
export { readCsv, type CsvTable } from './csv.ts';
export { inflate, isGzip } from './gzip.ts';
export { readIdx } from './idx.ts';
export { readNpz } from './npz.ts';
export { plainNormalisation, standardisation, type Normalisation, type Samples, type Wanted } from './samples.ts';
