/** The k largest or smallest elements along an axis. */
import { plain, put, type Dim, type Index } from '../../axes.ts';
import { flag, num, type OpDef } from '../../op.ts';
import { showType, sizeOf, tensorType } from '../../type.ts';
import { arity, bigints, check, dimsOf, fresh, namesOf, nth, requireAxis, requireNumeric } from '../helpers.ts';

export const topK: OpDef = {
  name: 'topK',
  doc: 'values, indices = the k largest (or smallest) elements along `axis`, best first; of equal ones the lower index comes first; NaN is above all numbers; sorted=false allows any order among the k',
  family: 'sort',
  operands: ['x'],
  attrs: {
    axis: { kind: 'number', default: 'required' },
    k: { kind: 'number', default: 'required' },
    largest: { kind: 'boolean', default: true },
    sorted: { kind: 'boolean', default: true },
  },
  infer(operands, a) {
    const [x] = arity(operands, 1);
    const [axis, k] = [num(a, 'axis'), num(a, 'k')];
    requireNumeric(x);
    requireAxis(axis, x);
    check(Number.isInteger(k) && k >= 0 && k <= x.shape[axis]!, () => `k=${k} must be between 0 and ${x.shape[axis]}, the size of axis ${axis} of ${showType(x)}`);
    const shape = x.shape.map((d, i) => (i === axis ? k : d));
    return [tensorType(x.dtype, shape), tensorType('i64', shape)];
  },
  axes([x], a, [values]) {
    const axis = num(a, 'axis');
    const dims = dimsOf(values!.shape);
    const whole: Dim = { name: 't', size: x!.shape[axis]!, role: 'whole' };
    const space = [...dims, whole];
    const reads = dims.map((d, i): Index => (i === axis ? { kind: 'whole', dim: 't' } : plain(d.name)));
    const piece = { dims: namesOf(space), reads: [reads], writes: dims.map((d) => put(d.name)), indexed: [namesOf(dims)[axis]!] };
    return { space, stages: [{ pieces: [piece], combine: 'none', product: false }] };
  },
  reference([x], a, [values, indices]) {
    const [axis, k] = [num(a, 'axis'), num(a, 'k')];
    const step = sizeOf(x!.shape.slice(axis + 1));
    const length = x!.shape[axis]!;
    const [out, where] = [fresh(values!), fresh(indices!)];
    // Elements are compared and copied only, which bigints allow as numbers do.
    const [from, to, at] = [x!.data as Float64Array, out.data as Float64Array, bigints(where)];
    const sign = flag(a, 'largest') ? 1 : -1;
    for (let o = 0; o < sizeOf(x!.shape.slice(0, axis)); o++) {
      for (let i = 0; i < step; i++) {
        const start = o * length * step + i;
        const order = Array.from({ length }, (_, t) => t).sort((p, q) => sign * descending(from[start + p * step]!, from[start + q * step]!) || p - q);
        for (let r = 0; r < k; r++) {
          const place = (o * k + r) * step + i;
          to[place] = from[start + order[r]! * step]!;
          at[place] = BigInt(order[r]!);
        }
      }
    }
    return [out, where];
  },
  grad: {
    build(b, op, [dvalues]) {
      const x = nth(op.operands, 0);
      return [dvalues && b.one('scatterElements', [b.zeros(x.type), nth(op.results, 1), dvalues], { axis: num(op.attrs, 'axis'), reduction: 'add' })];
    },
  },
};

function descending(p: number, q: number): number {
  if (p > q) return -1;
  if (p < q) return 1;
  return Number(q !== q) - Number(p !== p);
}
