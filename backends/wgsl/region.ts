/** Regions as ops. */
import { isContractRoot } from '../../ir/fused.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { bodyOf, type Body, type Located } from './kernel.ts';
import type { PlacedOp } from './slices.ts';

/** A region as a fused op of its own. */
export function fusedOf({ inputs, ops, outputs }: Body, source: Op['source'], operands: readonly Located[], results: readonly Located[]): PlacedOp {
  const kind = ops.some(isContractRoot) ? 'contract' : 'row';
  const region: Graph = { name: kind, inputs, state: [], ops, outputs: outputs.map((value, i) => ({ name: `y${i}`, value })), updates: [] };
  const fresh = (v: Value): Value => ({ type: v.type, name: v.name });
  return { op: { name: 'fused', operands: inputs.map(fresh), results: outputs.map(fresh), attrs: { kind }, regions: [region], source }, operands, results };
}

/** An op as a fused one with an input for every op that reads one, and two for a product of a tensor with itself: each is sliced, and seen, in its own way. */
export function readApart(given: PlacedOp): PlacedOp {
  const body = bodyOf(given.op);
  const inputs: Value[] = [];
  const operands: Located[] = [];
  const named = (v: Value): Value => {
    const i = body.inputs.indexOf(v);
    if (i < 0) return v;
    const own = { ...v };
    inputs.push(own);
    operands.push(given.operands[i]!);
    return own;
  };
  const ops = body.ops.map((op) => {
    if (isContractRoot(op)) return { ...op, operands: op.operands.map(named) };
    const own = new Map([...new Set(op.operands)].map((v) => [v, named(v)]));
    return { ...op, operands: op.operands.map((v) => own.get(v)!) };
  });
  return fusedOf({ inputs, ops, outputs: body.outputs.map(named) }, given.op.source, operands, given.results);
}
