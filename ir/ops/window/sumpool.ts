/** Sums over windows, which average pools scale, and their transpose. */
import { nums, type OpDef } from '../../op.ts';
import { sizeOf, tensorType } from '../../type.ts';
import { multilinear } from '../contraction/multilinear.ts';
import { arity, nth, requireNumeric } from '../helpers.ts';
import { planeOf, requireOutputs, runsOf, type Sweep } from '../spatial.ts';
import { geometry, poolAttrs, poolAxes, poolGradAttrs, poolGradAxes, poolSweeps, requirePlanes, requireSize, spatial } from './window.ts';

export const sumPool: OpDef = {
  name: 'sumPool',
  doc: 'y[n,c,h] = Σ_y x[n,c,h·s+y·d-p], zero outside x',
  family: 'window',
  operands: ['x'],
  attrs: poolAttrs,
  infer(operands, a) {
    const [x] = arity(operands, 1);
    requireNumeric(x);
    requirePlanes(x);
    return [tensorType(x.dtype, [x.shape[0]!, x.shape[1]!, ...poolSweeps(spatial(x), a).map((s) => s.out)])];
  },
  axes: ([x], a) => poolAxes(x!, poolSweeps(spatial(x!), a), '0', 'sum'),
  reference([x], a, [y]) {
    const sweeps = poolSweeps(spatial(x!), a);
    return [multilinear([x!], y!, planeOf(sweeps).taps, (from) => {
      const to = new Float64Array(sizeOf(y!.shape));
      eachPair(x!.shape[0]! * x!.shape[1]!, sweeps, (p, q, n, step) => {
        for (let i = 0; i < n; i++) to[q + i]! += from[p + i * step]!;
      });
      return to;
    })];
  },
  grad: {
    build: (b, op, [dy]) => [dy && b.one('sumPoolGrad', [dy], { ...geometry(op.attrs), size: spatial(nth(op.operands, 0).type) })],
  },
};

export const sumPoolGrad: OpDef = {
  name: 'sumPoolGrad',
  doc: 'x[n,c,h·s+y·d-p] = Σ_h,y dy[n,c,h]: the transpose of sumPool, for an x of spatial sizes `size`',
  family: 'window',
  operands: ['dy'],
  attrs: poolGradAttrs,
  infer(operands, a) {
    const [dy] = arity(operands, 1);
    const size = nums(a, 'size');
    requireNumeric(dy);
    requirePlanes(dy);
    requireSize(dy, size);
    requireOutputs(poolSweeps(size, a), spatial(dy));
    return [tensorType(dy.dtype, [dy.shape[0]!, dy.shape[1]!, ...size])];
  },
  axes: (operands, a) => poolGradAxes(operands, poolSweeps(nums(a, 'size'), a), false),
  reference([dy], a, [dx]) {
    const sweeps = poolSweeps(nums(a, 'size'), a);
    return [multilinear([dy!], dx!, planeOf(sweeps).taps, (from) => {
      const to = new Float64Array(sizeOf(dx!.shape));
      eachPair(dy!.shape[0]! * dy!.shape[1]!, sweeps, (p, q, n, step) => {
        for (let i = 0; i < n; i++) to[p + i * step]! += from[q + i]!;
      });
      return to;
    })];
  },
  grad: {
    build: (b, op, [dx]) => [dx && b.one('sumPool', [dx], geometry(op.attrs))],
  },
};

/** Calls `run` with first input element, first output element, count, and distance of inputs, for all runs of all planes. */
function eachPair(planes: number, sweeps: readonly Sweep[], run: (input: number, output: number, count: number, step: number) => void): void {
  const { rows, width, step, input } = planeOf(sweeps);
  const runs = runsOf(sweeps, 0, rows);
  for (let plane = 0; plane < planes; plane++) {
    for (let r = 0; r < runs.length; r += 4) run(plane * input + runs[r + 1]!, plane * rows * width + runs[r + 2]!, runs[r + 3]!, step);
  }
}
