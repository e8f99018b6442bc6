/** From an ONNX model and options to the graph that is planned. */
import { readFileSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { importModel } from '../../frontend/index.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import type { NormSpec } from '../../passes/norm/options.ts';
import { rewriteNorms } from '../../passes/norm/rewrite-norms.ts';
import { parseTarget, type TileTarget } from '../../passes/tile/target.ts';
import { prepare, simplified } from '../../passes/tile/prepare.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import { trainingStep } from '../../passes/train/pipeline.ts';
import { wasmTarget } from '../driver/target.ts';
import { boundBatch } from '../train/model.ts';

/** What is planned. */
export interface Wanted {
  readonly model: string;
  readonly batch: number;
  readonly dtype: 'f16' | 'f32';
  readonly norm?: NormSpec;
  readonly train?: TrainOptions;
  readonly dims?: Readonly<Record<string, number>>;
  readonly values?: Readonly<Record<string, Tensor>>;
}

/** The folder of targets: two folders up in a checkout, three in the package. */
const folders = ['../../targets/', '../../../targets/'].map((path) => new URL(path, import.meta.url));

/** A target by its name, or by the path of a file that holds one. */
export function readTarget(name: string): TileTarget {
  if (name.endsWith('.json')) {
    try {
      return parseTarget(JSON.parse(readFileSync(name, 'utf8')), name);
    } catch (e) {
      if (e instanceof UserError) throw e;
      throw new UserError(`${name} cannot be read as a target: ${e instanceof Error ? e.message : String(e)}`);
    }
  }
  for (const folder of folders) {
    let names: string[];
    try {
      names = readdirSync(folder).filter((f) => f.endsWith('.json')).map((f) => basename(f, '.json'));
    } catch {
      continue;
    }
    if (!names.includes(name)) throw new UserError(`there is no target ${JSON.stringify(name)}; there are ${names.join(', ')}, or give the path of a .json file of your own`);
    return parseTarget(JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')), `targets/${name}.json`);
  }
  throw new UserError('the folder of targets is missing from this installation');
}

/** The simplified graph of a model at a batch, ready to be prepared at any level of recomputation. */
export function buildGraph(wanted: Wanted): Graph {
  const bound = boundBatch(wanted.model, wanted.batch, wanted.dims ?? {});
  const imported = importModel(wanted.model, { dims: bound.dims, ...(wanted.values && { values: wanted.values }), ...(!wanted.train && { inference: true }) });
  const model = wanted.norm ? rewriteNorms(imported, wanted.norm, wasmTarget) : imported;
  const graph = wanted.train
    ? trainingStep(model.graph, model.statistics, { ...wanted.train, ...(bound.batch !== undefined && { batch: bound.batch }) }, wasmTarget).graph
    : model.graph;
  return simplified(graph, wasmTarget, { dtype: wanted.dtype });
}

/** The ops that tiles run. */
export const prepared = (graph: Graph, recompute: Recompute): Graph => prepare(graph, wasmTarget, { recompute });
