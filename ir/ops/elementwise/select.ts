/** Elementwise ops of three operands. */
import { isBig } from '../../number.ts';
import type { OpDef } from '../../op.ts';
import { showType } from '../../type.ts';
import { arity, check, fresh, nth, numbers, bigints, requireSameDType } from '../helpers.ts';
import { apply3, applyBig, broadcastWalk } from './apply.ts';
import { broadcastGrad, broadcastTypes, elementwiseAxes, requireAccepted } from './define.ts';

const select: OpDef = {
  name: 'select',
  doc: 'a where cond is true, else b',
  family: 'map',
  operands: ['cond', 'a', 'b'],
  attrs: {},
  infer(operands) {
    const [cond, a, b] = arity(operands, 3);
    check(cond.dtype === 'bool', () => `the condition ${showType(cond)} is not bool`);
    requireSameDType(a, b);
    return [{ dtype: a.dtype, shape: broadcastTypes(operands) }];
  },
  axes: elementwiseAxes(false),
  reference([cond, a, b], _attrs, [type]) {
    if (!isBig(a!.dtype)) return [apply3((c, x, y) => (c !== 0 ? x : y), cond!, a!, b!, type!)];
    const out = fresh(type!);
    const w = broadcastWalk([cond!, a!, b!], type!);
    const [s, t, u] = w.steps as [number, number, number, number];
    const [c, x, y, z] = [numbers(cond!), bigints(a!), bigints(b!), bigints(out)];
    w.rows(([p, q, r, o]) => {
      for (let i = 0; i < w.length; i++) z[o! + i] = c[p! + i * s] !== 0 ? x[q! + i * t]! : y[r! + i * u]!;
    });
    return [out];
  },
  grad: broadcastGrad((b, op, g) => {
    const cond = nth(op.operands, 0);
    return [undefined, b.select(cond, g, 0), b.select(cond, 0, g)];
  }),
};

const clamp: OpDef = {
  name: 'clamp',
  doc: 'min(max(x, lo), hi); NaN where any is NaN',
  family: 'map',
  operands: ['x', 'lo', 'hi'],
  attrs: {},
  infer(operands) {
    const [x, lo, hi] = arity(operands, 3);
    requireAccepted('number', x);
    requireSameDType(x, lo);
    requireSameDType(x, hi);
    return [{ dtype: x.dtype, shape: broadcastTypes(operands) }];
  },
  axes: elementwiseAxes(false),
  reference(operands, _attrs, [type]) {
    const [x, lo, hi] = operands;
    if (!isBig(x!.dtype)) return [apply3((v, l, h) => Math.min(Math.max(v, l), h), x!, lo!, hi!, type!)];
    return [applyBig((v, l, h) => { const raised = v < l ? l : v; return raised > h ? h : raised; }, operands, type!)];
  },
  // Exactly one operand gets the cotangent: hi where it cut, else lo where it raised, else x (bounds included).
  grad: broadcastGrad((b, op, g) => {
    const [x, lo, hi] = [nth(op.operands, 0), nth(op.operands, 1), nth(op.operands, 2)];
    const cut = b.binary('gt', b.max(x, lo), hi);
    const raised = b.binary('lt', x, lo);
    return [b.select(b.binary('or', cut, raised), 0, g), b.select(cut, 0, b.select(raised, g, 0)), b.select(cut, g, 0)];
  }),
};

export const ternaryOps: readonly OpDef[] = [select, clamp];
