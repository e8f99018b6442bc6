/** Ops that hold regions: family [region]. A region sees no value from outside but its inputs. */
import type { Graph } from '../graph.ts';
import { bigints, check, fresh, nth, numbers } from './helpers.ts';
import { InternalError } from '../diagnostic.ts';
import { num, str, type OpDef, type RefTensor } from '../op.ts';
import { sameType, showType, type TensorType } from '../type.ts';

const ifOp: OpDef = {
  name: 'if',
  doc: 'the results of the first region where cond is true, else of the second',
  family: 'region',
  operands: ['cond', 'captured...'],
  attrs: {},
  infer(operands, _attrs, regions) {
    check(operands.length >= 1, () => 'has no condition');
    const [cond, ...captured] = operands;
    requireScalar('the condition', cond, 'bool');
    const [then, otherwise] = count(regions, 2);
    requireTypes('inputs of the then region', inputTypes(then!), captured);
    requireTypes('inputs of the else region', inputTypes(otherwise!), captured);
    requireTypes('outputs of the else region', outputTypes(otherwise!), outputTypes(then!));
    return outputTypes(then!);
  },
  axes: () => ({ none: 'holds regions: each op inside has its own' }),
  reference([cond, ...captured], _attrs, _results, [then, otherwise], run) {
    return run(numbers(cond!)[0] !== 0 ? then! : otherwise!, captured);
  },
  grad: { none: 'holds regions: the differentiate pass differentiates both branches' },
};

const loop: OpDef = {
  name: 'loop',
  doc: 'runs the region for i = 0, 1, … while i < limit and the last continue (first: start) is true; carries values on and stacks scans along a new first axis',
  family: 'region',
  operands: ['limit', 'start', 'carried...'],
  attrs: { trips: { kind: 'number', default: -1 }, carried: { kind: 'number', default: 'required' }, scans: { kind: 'number', default: 0 } },
  infer(operands, attrs, regions) {
    const [limit, start, ...rest] = operands;
    requireScalar('the limit', limit, 'i64');
    requireScalar('start', start, 'bool');
    const [body] = count(regions, 1);
    const [trips, carried, scans] = [num(attrs, 'trips'), num(attrs, 'carried'), num(attrs, 'scans')];
    check(carried <= rest.length, () => `carries ${carried} values, but has ${rest.length} operands after limit and start`);
    requireTypes('inputs of the body', inputTypes(body!), [scalar('i64'), ...rest]);
    const [go, ...made] = outputTypes(body!);
    requireScalar("the body's first output", go, 'bool');
    check(made.length === carried + scans, () => `the body returns ${made.length} values after continue, expected ${carried} carried and ${scans} scans`);
    requireTypes('carried outputs of the body', made.slice(0, carried), rest.slice(0, carried));
    check(scans === 0 || trips >= 0, () => 'stacks scans, so the number of trips must be known');
    return [...made.slice(0, carried), ...made.slice(carried).map((t) => ({ dtype: t.dtype, shape: [trips, ...t.shape] }))];
  },
  axes: () => ({ none: 'holds regions: each op inside has its own' }),
  reference([limit, start, ...rest], attrs, results, [body], run) {
    const carried = num(attrs, 'carried');
    const stacks = results.slice(carried).map(fresh);
    const captured = rest.slice(carried);
    let values: readonly RefTensor[] = rest.slice(0, carried);
    let go = numbers(start!)[0] !== 0;
    let i = 0n;
    for (; go && i < bigints(limit!)[0]!; i++) {
      const [next, ...made] = run(body!, [{ dtype: 'i64', shape: [], data: BigInt64Array.of(i) }, ...values, ...captured]);
      go = numbers(next!)[0] !== 0;
      values = made.slice(0, carried);
      made.slice(carried).forEach((row, k) => (nth(stacks, k).data as Float64Array).set(row.data as Float64Array, Number(i) * row.data.length));
    }
    const trips = num(attrs, 'trips');
    if (trips >= 0 && i !== BigInt(trips)) throw new InternalError(`a loop with trips=${trips} ran ${i} times`);
    return [...values, ...stacks];
  },
  grad: { none: 'holds regions: the differentiate pass runs the body backwards' },
};

const fused: OpDef = {
  name: 'fused',
  doc: 'the results of the region, computed by one kernel of the kind',
  family: 'region',
  operands: ['operands...'],
  attrs: { kind: { kind: 'string', default: 'required' } },
  infer(operands, attrs, regions) {
    const kind = str(attrs, 'kind');
    check(['map', 'contract', 'reduce', 'row'].includes(kind), () => `kind ${kind} is none of map, contract, reduce, row`);
    const [body] = count(regions, 1);
    requireTypes('inputs of the region', inputTypes(body!), operands);
    return outputTypes(body!);
  },
  axes: () => ({ none: 'holds a region: each op inside has its own' }),
  reference: (operands, _attrs, _results, [body], run) => run(body!, operands),
  grad: { none: 'inlined before differentiation' },
};

/** An op whose region one kernel computes in so many parts as its attribute says. */
const inParts = (name: string, doc: string): OpDef => ({
  name,
  doc,
  family: 'region',
  operands: ['operands...'],
  attrs: { [name]: { kind: 'number', default: 'required' } },
  infer(operands, _attrs, regions) {
    const [body] = count(regions, 1);
    requireTypes('inputs of the region', inputTypes(body!), operands);
    return outputTypes(body!);
  },
  axes: () => ({ none: 'holds a region: each op inside has its own' }),
  reference: (operands, _attrs, _results, [body], run) => run(body!, operands),
  grad: { none: 'made after differentiation' },
});

const bands = inParts('bands', 'the result of the region, a 1x1 convolution and the depthwise one that reads it, computed in bands of rows by one kernel');
const slabs = inParts('slabs', 'the results of the region, all of whose ops run at one index of axis 0 before they run at the next, by one kernel');
const momentBlocks = inParts('momentBlocks', 'the result of the region’s convolution, and the moments of each channel over blocks of its pixels, by one kernel');

const scalar = (dtype: TensorType['dtype']): TensorType => ({ dtype, shape: [] });
const inputTypes = (g: Graph): TensorType[] => g.inputs.map((v) => v.type);
const outputTypes = (g: Graph): TensorType[] => g.outputs.map((o) => o.value.type);

function count(regions: readonly Graph[], n: number): readonly Graph[] {
  check(regions.length === n, () => `has ${regions.length} regions, expected ${n}`);
  return regions;
}

function requireScalar(what: string, t: TensorType | undefined, dtype: TensorType['dtype']): void {
  check(t !== undefined && sameType(t, scalar(dtype)), () => `${what} is ${t ? showType(t) : 'missing'}, expected ${dtype}[]`);
}

function requireTypes(what: string, found: readonly TensorType[], expected: readonly TensorType[]): void {
  const same = found.length === expected.length && found.every((t, i) => sameType(t, expected[i]!));
  check(same, () => `${what} are (${found.map(showType).join(', ')}), expected (${expected.map(showType).join(', ')})`);
}

export const controlOps: readonly OpDef[] = [ifOp, loop, fused, bands, slabs, momentBlocks];
