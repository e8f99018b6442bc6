import { isContractRoot, isMap, isReduceRoot } from '../ir/fused.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';
import { isFloat, sizeOf } from '../ir/type.ts';
import { singleClusters } from './fuse/clusters.ts';
import { growContract } from './fuse/grow.ts';
import { onTrainingSteps } from './train/forward-end.ts';

/** Elements from which a tensor is worth more than the arithmetic that makes it; large tensors that a rebuilt value reads, and ops that make it, at most. */
export const largeElements = 4096;
const mostLeaves = 1;
const mostOps = 16;
/** Elementwise ops that cost more than reading what they gave. */
export const dear: ReadonlySet<string> = new Set(['exp', 'expm1', 'log', 'log1p', 'sin', 'cos', 'tan', 'asin', 'acos', 'atan', 'sinh', 'cosh', 'asinh', 'acosh', 'atanh', 'pow', 'mod', 'fmod', 'atan2']);

/**
 * In a training step, computes elementwise values of the forward pass once more where the backward pass reads them, instead of keeping them: what a norm's affine and an activation's inner values are
 * follows from the norm's input, which is in memory anyway. Values that a product reads are computed once more where the backward pass reads anyway what they come from; otherwise they stay as they are,
 * and so do masks of products' epilogues. Runs before fusion, which puts the copies into their readers.
 */
export const rebuildCheapValues = (graph: Graph, _target: Target): Graph => onTrainingSteps(graph, rebuild);

function rebuild(graph: Graph, end: number): Graph {
  const c = singleClusters(graph);
  const epilogues = new Set(graph.ops.filter(isContractRoot).flatMap((op) => [...growContract(op, c)].slice(1)));
  const isLarge = (v: Value): boolean => sizeOf(v.type.shape) >= largeElements;
  const computable = (op: Op): boolean => isMap(op) && !dear.has(op.name) && !epilogues.has(op) && isLarge(op.results[0]!) && isFloat(op.results[0]!.type.dtype);
  /** What nothing but elementwise ops and reductions read need not be in memory. */
  const rebuildable = (op: Op): boolean => computable(op) && !c.returned(op.results[0]!) && c.readers(op.results[0]!).every((r) => isMap(r) || isReduceRoot(r));
  const isForward = (op: Op): boolean => c.index(op) <= end;
  const readByEpilogues = (op: Op): boolean => c.readers(op.results[0]!).some((r) => epilogues.has(r));

  /** What the backward pass reads anyway costs nothing to read there once more; what is in memory for others is computed from it, too. */
  const readAnyway = (v: Value): boolean => c.readers(v).some((r) => !isForward(r) && isMap(r));

  /** The ops that make a value out of what is in memory, in order; undefined where they are too many, or read too much. `from`: which ops may be among them. */
  const recipe = (v: Value, from: (op: Op) => boolean, leaf: (v: Value) => boolean): readonly Op[] | undefined => {
    const ops = new Set<Op>();
    const leaves = new Set<Value>();
    const visit = (x: Value): boolean => {
      const op = c.definition(x);
      if (!isLarge(x)) return true;
      if (op && from(op)) {
        if (ops.has(op)) return true;
        ops.add(op);
        return ops.size <= mostOps && op.operands.every(visit);
      }
      // The result of a product that one op alone reads is not in memory: that op is computed with it.
      if (op && isContractRoot(op) && c.readers(x).length === 1) return false;
      leaves.add(x);
      return leaves.size <= mostLeaves && leaf(x);
    };
    return visit(v) ? [...ops].sort((p, q) => c.index(p) - c.index(q)) : undefined;
  };

  const copies = new Map<Value, Value>();
  const out: Op[] = [];
  const copyOf = (v: Value): Value => {
    const op = c.definition(v);
    const ops = !op || !isForward(op) || !computable(op) ? undefined
      : (rebuildable(op) ? recipe(v, rebuildable, () => true) : undefined) ?? recipe(v, computable, readAnyway);
    for (const old of ops ?? []) {
      const [r] = old.results as [Value];
      if (copies.has(r)) continue;
      const copy: Value = { type: r.type, name: undefined };
      copies.set(r, copy);
      out.push({ ...old, operands: old.operands.map((x) => copies.get(x) ?? x), results: [copy] });
    }
    return ops ? copies.get(v)! : v;
  };
  for (const op of graph.ops) {
    const reads = !isForward(op) && isMap(op) && !epilogues.has(op) && !readByEpilogues(op);
    const operands = reads ? op.operands.map(copyOf) : op.operands;
    out.push(operands.every((v, i) => v === op.operands[i]) ? op : { ...op, operands });
  }
  return copies.size === 0 ? graph : { ...graph, ops: out };
}
