/** Convolution and its gradients, each expressed by the other two. */
import { at, plain, put, type Axes, type Dim, type Piece } from '../../axes.ts';
import type { Attrs } from '../../graph.ts';
import { num, nums, str, type OpDef } from '../../op.ts';
import { showType, sizeOf, tensorType, type TensorType } from '../../type.ts';
import { arity, check, namesOf, nth, readDims, requireNumeric, requireSameDType, writeDims } from '../helpers.ts';
import { forwardWalk, phaseWalks, requireOutputs, sweepAttrs, sweepsOf, type Sweep } from '../spatial.ts';
import { convAlgorithms } from '../packing/geometry.ts';
import { convolve, convolveBack, convolveWeight, type ConvSizes } from './conv-reference.ts';
import { multilinear } from './multilinear.ts';

const convAttrs = { ...sweepAttrs, groups: { kind: 'number', default: 1 } } as const;
const geometry = (a: Attrs): Attrs => ({ strides: nums(a, 'strides'), pads: nums(a, 'pads'), dilations: nums(a, 'dilations'), groups: num(a, 'groups') });
const spatial = (t: TensorType): readonly number[] => t.shape.slice(2);

export const conv: OpDef = {
  name: 'conv',
  doc: 'y[n,(g o),h] = Σ_i,y x[n,(g i),h·s+y·d-p] · w[(g o),i,y] over 1 to 3 spatial axes h, zero outside x',
  family: 'conv',
  operands: ['x', 'w'],
  attrs: convAttrs,
  infer(operands, a) {
    const [x, w] = arity(operands, 2);
    requireOperands(x, w);
    const s = sizesOf(x, w, spatial(x), a);
    checkGroups('x', x, s.groups);
    check(x.shape[1] === w.shape[1]! * s.groups, () => `${showType(x)} has ${x.shape[1]} channels, expected ${w.shape[1]! * s.groups}: ${s.groups} groups of ${w.shape[1]}, as ${showType(w)} says`);
    return [tensorType(x.dtype, [x.shape[0]!, w.shape[0]!, ...s.sweeps.map((v) => v.out)])];
  },
  axes([x, w], a) {
    const s = sizesOf(x!, w!, spatial(x!), a);
    const walk = forwardWalk(s.sweeps, '0', 'parallel', 'reduce');
    const { n, g, i, o } = channelDims(s, { i: 'reduce', o: 'parallel' });
    return oneProduct([n, g, o, ...walk.outs, i, ...walk.taps], {
      reads: [[plain('n'), grouped('i', s.inputs), ...walk.reads], [grouped('o', s.outputs), plain('i'), ...readDims(walk.taps)]],
      writes: [put('n'), { terms: groupTerms('o', s.outputs), plus: 0 }, ...writeDims(walk.outs)],
    });
  },
  reference([x, w], a, [y]) {
    const s = sizesOf(x!, w!, spatial(x!), a);
    return [multilinear([x!, w!], y!, termsOf(s), (p, q) => convolve(p, q, s))];
  },
  grad: {
    build(b, op, [dy]) {
      const [x, w] = [nth(op.operands, 0), nth(op.operands, 1)];
      if (!dy) return [undefined, undefined];
      return [
        b.one('convData', [dy, w], { ...geometry(op.attrs), size: spatial(x.type) }),
        b.one('convWeight', [x, dy], { ...geometry(op.attrs), kernel: spatial(w.type) }),
      ];
    },
  },
};

export const convData: OpDef = {
  name: 'convData',
  doc: 'x[n,(g i),h·s+y·d-p] = Σ_o,h,y dy[n,(g o),h] · w[(g o),i,y]: the transpose of conv, for an x of spatial sizes `size`',
  family: 'conv',
  operands: ['dy', 'w'],
  attrs: { ...convAttrs, size: { kind: 'numbers', default: 'required' } },
  infer(operands, a) {
    const [dy, w] = arity(operands, 2);
    const size = nums(a, 'size');
    requireOperands(dy, w);
    check(size.length === dy.shape.length - 2 && size.every((d) => Number.isInteger(d) && d >= 1), () => `size=[${size.join(',')}] must hold a positive integer for each of ${dy.shape.length - 2} spatial axes`);
    const s = sizesOf(dy, w, size, a);
    check(dy.shape[1] === w.shape[0], () => `${showType(dy)} has ${dy.shape[1]} channels, expected ${w.shape[0]}, the first axis of ${showType(w)}`);
    requireOutputs(s.sweeps, spatial(dy));
    return [tensorType(dy.dtype, [dy.shape[0]!, w.shape[1]! * s.groups, ...size])];
  },
  axes([dy, w], a) {
    const s = sizesOf(dy!, w!, nums(a, 'size'), a);
    const { n, g, i, o } = channelDims(s, { i: 'parallel', o: 'reduce' });
    const walks = phaseWalks(s.sweeps);
    const pieces = walks.map((walk): Piece => ({
      dims: namesOf([n, g, i, ...walk.outs, o, ...walk.taps]),
      reads: [[plain('n'), grouped('o', s.outputs), ...walk.reads], [grouped('o', s.outputs), plain('i'), ...walk.kernel]],
      writes: [put('n'), { terms: groupTerms('i', s.inputs), plus: 0 }, ...walk.places],
      indexed: [],
    }));
    return { space: distinct([n, g, i, o, ...walks.flatMap((v) => [...v.outs, ...v.taps])]), stages: [{ pieces, combine: 'sum', product: true }] };
  },
  reference([dy, w], a, [x]) {
    const s = sizesOf(dy!, w!, nums(a, 'size'), a);
    return [multilinear([dy!, w!], x!, termsOf(s), (p, q) => convolveBack(p, q, s))];
  },
  grad: {
    build(b, op, [dx]) {
      const [dy, w] = [nth(op.operands, 0), nth(op.operands, 1)];
      if (!dx) return [undefined, undefined];
      return [
        b.one('conv', [dx, w], geometry(op.attrs)),
        b.one('convWeight', [dx, dy], { ...geometry(op.attrs), kernel: spatial(w.type) }),
      ];
    },
  },
};

export const convWeight: OpDef = {
  name: 'convWeight',
  doc: 'w[(g o),i,y] = Σ_n,h x[n,(g i),h·s+y·d-p] · dy[n,(g o),h]: the gradient of conv with respect to a w of spatial sizes `kernel`; with `parts` > 0 that many partial sums over equal shares of the samples, along an axis of their own before the others. `algorithm` says how a backend computes it',
  family: 'conv',
  operands: ['x', 'dy'],
  attrs: { ...convAttrs, kernel: { kind: 'numbers', default: 'required' }, parts: { kind: 'number', default: 0 }, algorithm: { kind: 'string', default: 'direct' } },
  infer(operands, a) {
    const [x, dy] = arity(operands, 2);
    requireOperands(x, dy);
    const s = weightSizes(x, dy, a);
    checkGroups('x', x, s.groups);
    checkGroups('dy', dy, s.groups);
    check(x.shape[0] === dy.shape[0], () => `${showType(x)} and ${showType(dy)} differ in batch size`);
    requireOutputs(s.sweeps, spatial(dy));
    const parts = num(a, 'parts');
    check(Number.isInteger(parts) && parts >= 0 && (parts === 0 || s.batch % parts === 0), () => `parts=${parts} must be a divisor of the batch of ${s.batch}, or 0`);
    checkAlgorithm(s, parts, str(a, 'algorithm'));
    return [tensorType(x.dtype, [...(parts > 0 ? [parts] : []), dy.shape[1]!, s.inputs, ...nums(a, 'kernel')])];
  },
  axes([x, dy], a) {
    const s = weightSizes(x!, dy!, a);
    const walk = forwardWalk(s.sweeps, '0', 'reduce', 'parallel');
    const { n, g, i, o } = channelDims(s, { n: 'reduce', i: 'parallel', o: 'parallel' });
    const parts = num(a, 'parts');
    const share = s.batch / Math.max(1, parts);
    const sample = parts > 0 ? at([['p', share], ['n', 1]]) : plain('n');
    return oneProduct([...(parts > 0 ? [{ name: 'p', size: parts, role: 'parallel' } as const] : []), g, o, i, ...walk.taps, { ...n, size: share }, ...walk.outs], {
      reads: [[sample, grouped('i', s.inputs), ...walk.reads], [sample, grouped('o', s.outputs), ...readDims(walk.outs)]],
      writes: [...(parts > 0 ? [put('p')] : []), { terms: groupTerms('o', s.outputs), plus: 0 }, put('i'), ...writeDims(walk.taps)],
    });
  },
  reference([x, dy], a, [w]) {
    const s = weightSizes(x!, dy!, a);
    const parts = Math.max(1, num(a, 'parts'));
    const own = { ...s, batch: s.batch / parts };
    const sums = (p: Float64Array, q: Float64Array): Float64Array => {
      const out = new Float64Array(sizeOf(w!.shape));
      const share = (t: Float64Array, i: number): Float64Array => t.subarray((i * t.length) / parts, ((i + 1) * t.length) / parts);
      for (let i = 0; i < parts; i++) share(out, i).set(convolveWeight(share(p, i), share(q, i), own));
      return out;
    };
    return [multilinear([x!, dy!], w!, own.batch * s.sweeps.reduce((n, v) => n * v.out, 1), sums)];
  },
  grad: {
    build(b, op, [dw]) {
      const [x, dy] = [nth(op.operands, 0), nth(op.operands, 1)];
      if (!dw) return [undefined, undefined];
      return [
        b.one('convData', [dy, dw], { ...geometry(op.attrs), size: spatial(x.type) }),
        b.one('conv', [x, dw], geometry(op.attrs)),
      ];
    },
  },
};

function requireOperands(a: TensorType, b: TensorType): void {
  requireNumeric(a);
  requireSameDType(a, b);
  check(a.shape.length === b.shape.length && a.shape.length >= 3 && a.shape.length <= 5, () => `${showType(a)} and ${showType(b)} must have one rank of 3 to 5: two axes and 1 to 3 spatial ones`);
  for (const t of [a, b]) check(t.shape.every((d, i) => d > 0 || (t === a && i === 0)), () => `${showType(t)} has an axis without elements`);
}

/** Sizes of conv and convData: `first` is x or dy, `input` the spatial sizes of x. */
function sizesOf(first: TensorType, w: TensorType, input: readonly number[], a: Attrs): ConvSizes {
  const groups = groupsOf(a);
  check(w.shape[0]! % groups === 0, () => `${showType(w)} has ${w.shape[0]} outputs, which ${groups} groups do not divide`);
  return { batch: first.shape[0]!, groups, inputs: w.shape[1]!, outputs: w.shape[0]! / groups, sweeps: sweepsOf(input, spatial(w), a) };
}
function weightSizes(x: TensorType, dy: TensorType, a: Attrs): ConvSizes {
  const groups = groupsOf(a);
  return { batch: x.shape[0]!, groups, inputs: x.shape[1]! / groups, outputs: dy.shape[1]! / groups, sweeps: sweepsOf(spatial(x), nums(a, 'kernel'), a) };
}
/** Winograd takes 3x3 kernels, strides, dilations and groups of 1, channels in multiples of 4, and gives partial sums. */
function checkAlgorithm(s: ConvSizes, parts: number, algorithm: string): void {
  const known = convAlgorithms.find((k) => k === algorithm);
  check(known !== undefined && known !== 'depthwise', () => `there is no algorithm ${algorithm} for weight gradients, expected direct, winograd2 or winograd4`);
  if (known === 'direct') return;
  const fits = s.groups === 1 && parts > 0 && s.inputs % 4 === 0 && s.outputs % 4 === 0 && s.sweeps.length === 2 && s.sweeps.every((v) => v.kernel === 3 && v.stride === 1 && v.dilation === 1);
  check(fits, () => 'Winograd takes 3x3 kernels, strides, dilations and groups of 1, channels in multiples of 4, and parts > 0');
}
function groupsOf(a: Attrs): number {
  const groups = num(a, 'groups');
  check(Number.isInteger(groups) && groups >= 1, () => `groups=${groups} must be a positive integer`);
  return groups;
}
function checkGroups(name: string, t: TensorType, groups: number): void {
  check(t.shape[1]! % groups === 0, () => `${name}: ${showType(t)} has ${t.shape[1]} channels, which ${groups} groups do not divide`);
}

/** Products that make one element of conv or convData, at most. */
const termsOf = (s: ConvSizes): number => Math.max(s.inputs, s.outputs) * s.sweeps.reduce((n: number, v: Sweep) => n * v.kernel, 1);

function channelDims(s: ConvSizes, roles: { readonly n?: Dim['role']; readonly i: Dim['role']; readonly o: Dim['role'] }): Record<'n' | 'g' | 'i' | 'o', Dim> {
  return {
    n: { name: 'n', size: s.batch, role: roles.n ?? 'parallel' },
    g: { name: 'g', size: s.groups, role: 'parallel' },
    i: { name: 'i', size: s.inputs, role: roles.i },
    o: { name: 'o', size: s.outputs, role: roles.o },
  };
}

/** Terms of a channel axis merged from the group and a channel of the group. */
const groupTerms = (dim: string, size: number): readonly (readonly [string, number])[] => [['g', size], [dim, 1]];
const grouped = (dim: string, size: number) => at(groupTerms(dim, size));

function oneProduct(space: readonly Dim[], piece: Pick<Piece, 'reads' | 'writes'>): Axes {
  return { space, stages: [{ pieces: [{ dims: namesOf(space), ...piece, indexed: [] }], combine: 'sum', product: true }] };
}

/** Pieces share the phases of an axis: each dim once. */
function distinct(dims: readonly Dim[]): Dim[] {
  return [...new Map(dims.map((d) => [d.name, d])).values()];
}
