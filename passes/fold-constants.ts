import { evaluateOp } from '../ir/evaluate.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { rewriteOps, type Facts } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, type Tensor } from '../ir/type.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { foldDense } from './fold-dense.ts';

/** Results up to this size fold whatever they grow from; above it a result must not be larger than its operands. */
const growthLimit = 256 * 1024;
/** Bytes up to which a quantised weight is widened while compiling, whatever the budget. */
const smallWeight = 4 * 1024;
/** Larger results of weights become state, which has a name in the artifact; smaller ones constants, which emitters embed. */
const constantElements = 16;

/**
 * Evaluates ops whose operands are all constants, or state that is never updated. A result that comes from a weight is state named after it (`conv1.weight~1`);
 * packed weights fold too, and so does whatever a convolution or contraction reads as its weight; but a quantised weight that its floats would outgrow stays as the model stores it, and each
 * run widens and packs it. What else would turn little data into much (a broadcast, a mask made from an iota) stays an op, and so does control flow. Without `weights`, what comes from state stays.
 */
export function foldConstants(graph: Graph, target: Target, options: { readonly weights?: boolean } = {}): Graph {
  const kept = options.weights === false ? new Set(graph.state.map((s) => s.value)) : undefined;
  const weights = kept ? new Set<Value>() : valuesOfWeights(graph);
  const weightNames = new Map<Value, string>(graph.state.map((s) => [s.value, s.name]));
  const folded = rewriteOps(graph, (op, b, facts) => {
    if (op.results.some((r) => weights.has(r)) && outgrowsBudget(op, target)) return undefined;
    if (kept && op.operands.some((v) => kept.has(v))) return undefined;
    const operands = constantOperands(op, facts);
    if (!operands || !(worthFolding(op, operands) || op.results.some((r) => weights.has(r)))) return undefined;
    const tensors = evaluate(op, operands);
    const source = largestWeight(op, weightNames);
    return tensors.map((t, i) => {
      if (source === undefined || facts.region || t.data.length <= constantElements) return b.constant(t, op.results[i]!.name);
      const value = facts.addState(source.replace(/~\d+$/, ''), t);
      weightNames.set(value, value.name!);
      return value;
    });
  });
  return folded === graph ? graph : eliminateDeadCode(folded, target);
}

function constantOperands(op: Op, facts: Facts): Tensor[] | undefined {
  const family = opDef(op.name).family;
  if (family === 'constant' || family === 'region' || family === 'random') return undefined;
  const tensors: Tensor[] = [];
  for (const v of op.operands) {
    const t = facts.constant(v);
    if (!t) return undefined;
    tensors.push(t);
  }
  return tensors;
}

/** Values that convolutions and contractions read and that depend on no input: algorithms pack them while compiling. */
function valuesOfWeights(graph: Graph): Set<Value> {
  const varying = new Set<Value>([...graph.inputs, ...graph.updates.map((u) => u.state)]);
  for (const op of graph.ops) if (opDef(op.name).family === 'random' || op.operands.some((v) => varying.has(v))) op.results.forEach((r) => varying.add(r));
  const weights = new Set<Value>();
  for (const op of graph.ops.toReversed()) {
    const product = ['conv', 'contract'].includes(opDef(op.name).family);
    if (product || op.results.some((r) => weights.has(r))) for (const v of op.operands) if (!varying.has(v)) weights.add(v);
  }
  return weights;
}

function worthFolding(op: Op, operands: readonly Tensor[]): boolean {
  const after = op.results.reduce((n, v) => n + bytesOf(v.type), 0);
  return after <= growthLimit || after <= operands.reduce((n, t) => n + bytesOf(t), 0);
}

/** Whether a cast widens a weight beyond the budget of packed bytes. Small ones do not matter, nor do any where elements take the same bytes whatever their dtype. */
function outgrowsBudget(op: Op, target: Target): boolean {
  if (op.name !== 'cast' || target.storage) return false;
  const [before, after] = [bytesOf(op.operands[0]!.type), bytesOf(op.results[0]!.type)];
  return after > smallWeight && after > target.packBudget * before;
}

function evaluate(op: Op, operands: readonly Tensor[]): readonly Tensor[] {
  const dense = foldDense(op, operands);
  return dense ? [dense] : evaluateOp(op, operands);
}

/** The name of the largest weight among the operands. */
function largestWeight(op: Op, names: ReadonlyMap<Value, string>): string | undefined {
  const weights = op.operands.filter((v) => names.has(v)).sort((p, q) => bytesOf(q.type) - bytesOf(p.type));
  return weights[0] && names.get(weights[0]);
}
