import { isContractRoot, isMap, isReduceRoot } from '../ir/fused.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { nums } from '../ir/op.ts';
import type { Target } from '../ir/tile.ts';
import { sameShape, sizeOf } from '../ir/type.ts';
import { singleClusters, type Clusters } from './fuse/clusters.ts';
import { growContract, growRow } from './fuse/grow.ts';
import { heavy } from './fuse/siblings.ts';
import { dear, largeElements } from './rebuild-cheap-values.ts';
import { onTrainingSteps } from './train/forward-end.ts';

/** Large tensors that the sums of a group read at most (the input of a norm and the gradient of its result), and elementwise ops that they compute. */
const mostLeaves = 2;
const mostOps = 32;

/**
 * In a training step, gives the sums of a norm's backward pass elementwise ops of their own where other elementwise ops read the same values: the gradient behind an activation is then computed
 * in the pass of the sums and in the pass that makes dx, from x and dy both times, and never stored. Runs after `rebuildCheapValues` and before fusion. Sums that become rows with what reads
 * them keep their operands, and so do those of values that a product reads, which are in memory anyway.
 */
export const rebuildForSums = (graph: Graph, _target: Target): Graph => onTrainingSteps(graph, rebuild);

function rebuild(graph: Graph, end: number): Graph {
  const c = singleClusters(graph);
  const epilogues = new Set(graph.ops.filter(isContractRoot).flatMap((op) => [...growContract(op, c)].slice(1)));
  const rebuilt = new Map<Op, ReadonlyMap<Value, Op>>();
  for (const group of groups(graph.ops.slice(end + 1), c)) {
    const cone = coneOf(group, c, epilogues);
    if (!cone) continue;
    const copies = new Map<Value, Op>();
    for (const op of cone) {
      const [r] = op.results as [Value];
      copies.set(r, { ...op, operands: op.operands.map((v) => copies.get(v)?.results[0] ?? v), results: [{ type: r.type, name: undefined }] });
    }
    for (const sum of group) rebuilt.set(sum, copies);
  }
  if (rebuilt.size === 0) return graph;
  const placed = new Set<Op>();
  const ops = graph.ops.flatMap((op): Op[] => {
    const copies = rebuilt.get(op);
    if (!copies) return [op];
    const needed: Op[] = [];
    const made = new Map([...copies.values()].map((copy) => [copy.results[0]!, copy]));
    const place = (copy: Op | undefined): void => {
      if (!copy || placed.has(copy)) return;
      placed.add(copy);
      copy.operands.forEach((v) => place(made.get(v)));
      needed.push(copy);
    };
    const [x] = op.operands as [Value];
    place(copies.get(x));
    return [...needed, { ...op, operands: [copies.get(x)?.results[0] ?? x, ...op.operands.slice(1)] }];
  });
  return { ...graph, ops };
}

/** Sums over the same axes of tensors of one shape that do not become rows, by two and more. */
function groups(ops: readonly Op[], c: Clusters): Op[][] {
  const found: Op[][] = [];
  for (const op of ops) {
    if (op.name !== 'reduceSum' || sizeOf(op.operands[0]!.type.shape) < largeElements || growRow(op, c)) continue;
    const near = found.find(([first]) => first && sameShape(first.operands[0]!.type.shape, op.operands[0]!.type.shape) && sameShape(nums(first.attrs, 'axes'), nums(op.attrs, 'axes')) && shares(first, op, c));
    if (near) near.push(op);
    else found.push([op]);
  }
  return found.filter((group) => group.length > 1);
}

/** Whether two sums are of elementwise values of one large tensor. */
function shares(p: Op, q: Op, c: Clusters): boolean {
  const seen = (op: Op): ReadonlySet<Value> => {
    const values = new Set<Value>();
    const visit = (v: Value): void => {
      if (values.has(v) || sizeOf(v.type.shape) < largeElements || values.size > 2 * mostOps) return;
      values.add(v);
      const own = c.definition(v);
      if (own && isMap(own)) own.operands.forEach(visit);
    };
    visit(op.operands[0]!);
    return values;
  };
  const [a, b] = [seen(p), seen(q)];
  return [...a].some((v) => b.has(v));
}

/** The elementwise ops, in order, that make what the sums of a group read from at most two tensors in memory; undefined where there is more, or nothing that others read. */
function coneOf(group: readonly Op[], c: Clusters, epilogues: ReadonlySet<Op>): readonly Op[] | undefined {
  const full = group[0]!.operands[0]!.type.shape;
  const ops = new Set<Op>();
  const leaves = new Set<Value>();
  const own = (op: Op): boolean => isMap(op) && !dear.has(op.name) && !epilogues.has(op) && sameShape(op.results[0]!.type.shape, full)
    && !c.returned(op.results[0]!) && c.readers(op.results[0]!).every((r) => (isMap(r) && !epilogues.has(r)) || isReduceRoot(r));
  const visit = (v: Value): void => {
    const op = c.definition(v);
    if (sizeOf(v.type.shape) < largeElements || (op && ops.has(op))) return;
    if (!op || !own(op)) {
      leaves.add(v);
      return;
    }
    ops.add(op);
    op.operands.forEach(visit);
  };
  for (const sum of group) visit(sum.operands[0]!);
  if (leaves.size > mostLeaves || ops.size > mostOps) return undefined;
  // Fusion has the pass of the sums store what they make.
  if ([...ops].some((op) => heavy.has(op.name))) return undefined;
  const read = (op: Op): boolean => c.readers(op.results[0]!).some((r) => !ops.has(r) && !group.includes(r));
  return [...ops].some(read) ? [...ops].sort((p, q) => c.index(p) - c.index(q)) : undefined;
}
