/** From a model and a rewrite of its normalizations to plain ONNX. */
import { exportModel, importModel, type ImportedModel, type ImportOptions } from '../../frontend/index.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { proofBatches } from '../../passes/batch-independence.ts';
import { eliminateDeadCode } from '../../passes/eliminate-dead-code.ts';
import type { NormSpec } from '../../passes/norm/options.ts';
import { rewriteNorms } from '../../passes/norm/rewrite-norms.ts';
import { foldConstants } from '../../passes/fold-constants.ts';
import { applyRules, simplifyRules } from '../../passes/simplify.ts';
import { MixedSamples, sampleAxis } from '../../passes/train/sample-factors.ts';
import { followSamples } from '../../passes/train/samples.ts';
import { wasmTarget } from './target.ts';

export interface RewrittenOptions extends ImportOptions {
  /** The file takes any number of samples though the options give a number. */
  readonly anyBatch?: boolean;
}

/**
 * The bytes of a model in inference form, with its normalizations rewritten. Where the first axis of the inputs is symbolic and samples can be followed to the outputs, the file takes any
 * number of them; other symbolic dimensions are bound as the options say.
 */
export function rewrittenOnnx(model: string | Uint8Array, norm: NormSpec | undefined, { anyBatch = false, ...options }: RewrittenOptions = {}): Uint8Array {
  const first = importModel(model, { ...options, inference: true });
  const symbol = batchSymbol(first);
  if (symbol !== undefined && (anyBatch || (options.dims?.[symbol] === undefined && options.shapes === undefined))) {
    const { shapes: _, ...rest } = options;
    const many = rewritten(importModel(model, { ...rest, dims: { ...options.dims, [symbol]: proofBatches[0] }, inference: true }), norm);
    const axisOf = sampleAxes(many);
    if (axisOf) return exportModel(many, { batch: { symbol, size: proofBatches[0], axisOf } });
  }
  return exportModel(rewritten(first, norm));
}

const rewritten = (imported: ImportedModel, norm: NormSpec | undefined): Graph => tidied(norm ? rewriteNorms(imported, norm, wasmTarget, { inference: true }).graph : imported.graph);

/** A graph without what its constants make superfluous, so that a file that is read and written again does not grow. Parameters stay, whatever their values are. */
function tidied(graph: Graph): Graph {
  const open = { ...graph, inputs: [...graph.inputs, ...graph.state.map((s) => s.value)], state: [] };
  return { ...graph, ops: applyRules(foldConstants(open, wasmTarget), wasmTarget, identities).ops };
}
const identities = simplifyRules.filter((r) => ['x + 0 = x', 'x * 1 = x', 'reshape(x) to its own shape = x', 'reshape(reshape(x)) = reshape(x)'].includes(r.name));

/** The symbol that the first axes of all inputs but scalars share. */
function batchSymbol({ inputs }: ImportedModel): string | undefined {
  const symbols = new Set(inputs.filter((input) => input.dims.length > 0).map((input) => input.dims[0] ?? `${input.name}.0`));
  const [symbol] = symbols;
  return symbols.size === 1 && typeof symbol === 'string' ? symbol : undefined;
}

/** Where values hold samples; undefined where samples cannot be followed, or where something stands for a number of them. */
function sampleAxes(graph: Graph): ((v: Value) => number | undefined) | undefined {
  try {
    const { factors, joins } = followSamples(eliminateDeadCode(graph, wasmTarget));
    const numbered = graph.ops.some((op) => ['constant', 'iota'].includes(op.name) && factors.has(op.results[0]!));
    const axes = new Map([...factors].map(([v, f]) => [v, sampleAxis(f)]));
    return joins.length > 0 || numbered ? undefined : (v) => axes.get(v);
  } catch (e) {
    if (e instanceof MixedSamples) return undefined;
    throw e;
  }
}
