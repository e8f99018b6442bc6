/** Kernels of the packing ops, for weights that are computed or updated at run time. */
import { num, str } from '../../../ir/op.ts';
import { convGeometry, winogradTile, type ConvGeometry } from '../../../ir/ops/packing/geometry.ts';
import { matmulShape } from '../../../ir/ops/packing/matmul.ts';
import { panelColumns, panelFloats, storedColumns } from '../../../ir/ops/packing/panels.ts';
import { winograd } from '../../../ir/ops/packing/winograd.ts';
import { invariant } from '../../../ir/diagnostic.ts';
import { sizeOf } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';
import { kernelKey, type Emitter, type KernelCode } from '../kernel.ts';
import { packAnyPanel } from './pack-panels.ts';

/** Emits `packMatmul`, of an operand of any strides: one chunk a panel. */
export const packMatmulKernel: Emitter = (asm, op, [b], [packed]) => {
  const spec = str(op.attrs, 'spec');
  const shape = matmulShape(spec, b!.type.shape);
  invariant(shape, 'a packed product has the shape of a matrix product');
  const names = spec.slice(spec.indexOf(',') + 1, spec.indexOf('->'));
  const axes = shape.letters.map((l, i) => ({ size: shape.sizes[i]!, stride: 4 * b!.strides[names.indexOf(l)]! }));
  const [rows, columns] = [axes.slice(0, shape.kAxes), axes.slice(shape.kAxes)];
  const panels = Math.ceil(shape.n / panelColumns);
  const fn = asm.fn(`pack ${kernelKey(op, [b!], [packed!])}`, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [panel, , from, to]) => {
    const { m } = asm;
    const [row, column, stored, target, i] = Array.from({ length: 5 }, () => f.local('i32')) as [Local, Local, Local, Local, Local];
    return [
      f.set(stored, m.select(m.i32.eq(f.get(panel!), asm.i32(panels - 1)), asm.i32(storedColumns(shape.n) - (panels - 1) * panelColumns), asm.i32(panelColumns))),
      f.set(target, asm.add(f.get(to!), asm.mul(f.get(panel!), asm.i32(4 * panelColumns * shape.k)))),
      f.repeat(row, 0, shape.k, 1, [
        f.set(column, asm.times(f.get(panel!), panelColumns)),
        f.loop(i, asm.i32(0), () => f.get(stored), 1, [
          m.f32.store(0, 4, f.get(target), m.if(
            m.i32.lt_u(f.get(column), asm.i32(shape.n)),
            m.f32.load(0, 4, asm.add(f.get(from!), asm.add(linear(f, row, rows), linear(f, column, columns)))),
            asm.f32(0),
          )),
          f.inc(target, 4),
          f.inc(column, 1),
        ]),
      ]),
    ];
  });
  return { fn, chunks: panels, scratchBytes: 0, vertexBytes: 2 * 4 * panelColumns * shape.k };
};

/** Byte offset of a flat row-major index over some axes. */
function linear(f: Fn, index: Local, axes: readonly { readonly size: number; readonly stride: number }[]): E {
  const { asm } = f;
  const { m } = asm;
  let below = 1;
  let sum: E = asm.i32(0);
  for (const axis of [...axes].reverse()) {
    const digit = m.i32.rem_u(m.i32.div_u(f.get(index), asm.i32(below)), asm.i32(Math.max(1, axis.size)));
    sum = asm.add(sum, asm.mul(digit, asm.i32(axis.stride)));
    below *= Math.max(1, axis.size);
  }
  return sum;
}

/** Emits `packConv`; the weight is row-major. */
export const packConvKernel: Emitter = (asm, op, [w], [packed]) => {
  const geometry = convGeometry(str(op.attrs, 'algorithm'), w!.type.shape, num(op.attrs, 'groups'));
  invariant(w!.type.shape.every((d, i) => d === 1 || w!.strides[i] === sizeOf(w!.type.shape.slice(i + 1))), 'a weight to pack is row-major');
  const key = `pack ${kernelKey(op, [w!], [packed!])}`;
  if (winogradTile(geometry.algorithm) > 0) return winogradWeights(asm, key, geometry);
  return geometry.algorithm === 'depthwise' ? depthwiseWeights(asm, key, geometry) : directWeights(asm, key, geometry);
};

/** One chunk a group and panel. */
function directWeights(asm: Asm, key: string, g: ConvGeometry): KernelCode {
  const panels = Math.ceil(g.fanOut / panelColumns);
  const last = g.fanOut - (panels - 1) * panelColumns;
  const columnBytes = 4 * g.fanIn * g.taps;
  const fn = asm.fn(key, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [chunk, , from, to]) => {
    const { m } = asm;
    const [group, panel, columns, stored, tap, source, target] = Array.from({ length: 7 }, () => f.local('i32')) as [Local, Local, Local, Local, Local, Local, Local];
    const isLast = (): E => m.i32.eq(f.get(panel), asm.i32(panels - 1));
    return [
      f.set(group, m.i32.div_u(f.get(chunk!), asm.i32(panels))),
      f.set(panel, m.i32.rem_u(f.get(chunk!), asm.i32(panels))),
      f.set(columns, m.select(isLast(), asm.i32(last), asm.i32(panelColumns))),
      f.set(stored, m.select(isLast(), asm.i32(storedColumns(last)), asm.i32(panelColumns))),
      f.set(source, asm.add(f.get(from!), asm.mul(asm.add(asm.times(f.get(group), g.fanOut), asm.times(f.get(panel), panelColumns)), asm.i32(columnBytes)))),
      f.set(target, asm.add(f.get(to!), asm.add(asm.mul(f.get(group), asm.i32(4 * panelFloats(g.taps * g.fanIn, g.fanOut))), asm.mul(f.get(panel), asm.i32(panelColumns * columnBytes))))),
      f.repeat(tap, 0, g.taps, 1, [
        asm.call(packAnyPanel(asm), [f.get(source), asm.i32(4 * g.taps), asm.i32(columnBytes), asm.i32(g.fanIn), f.get(columns), f.get(stored), f.get(target)]),
        f.inc(source, 4),
        f.set(target, asm.add(f.get(target), asm.times(f.get(stored), 4 * g.fanIn))),
      ]),
    ];
  });
  return { fn, chunks: g.groups * panels, scratchBytes: 0, vertexBytes: 2 * panelColumns * columnBytes };
}

/** One chunk for all: these weights are small. */
function depthwiseWeights(asm: Asm, key: string, g: ConvGeometry): KernelCode {
  const blocks = Math.ceil(g.groups / 4);
  const fn = asm.fn(key, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [, , from, to]) => {
    const { m } = asm;
    const block = f.local('i32');
    const columns = m.select(m.i32.eq(f.get(block), asm.i32(blocks - 1)), asm.i32(g.groups - 4 * (blocks - 1)), asm.i32(4));
    return [f.repeat(block, 0, blocks, 1, [
      asm.call(packAnyPanel(asm), [f.get(from!), asm.i32(4), asm.i32(4 * g.taps), asm.i32(g.taps), columns, asm.i32(4), f.get(to!)]),
      f.inc(from!, 16 * g.taps),
      f.inc(to!, 16 * g.taps),
    ])];
  });
  return { fn, chunks: 1, scratchBytes: 0 };
}

/** One chunk a panel: G g Gᵀ for each of its filters, spread over the positions. */
function winogradWeights(asm: Asm, key: string, g: ConvGeometry): KernelCode {
  const { weight, side } = winograd(winogradTile(g.algorithm) as 2 | 4);
  const panels = Math.ceil(g.fanOut / panelColumns);
  const positionBytes = 4 * panelFloats(g.fanIn, g.fanOut);
  const fn = asm.fn(key, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [panel, , from, to]) => {
    const { m } = asm;
    const [channel, column, columns, stored, source, target, row] = Array.from({ length: 7 }, () => f.local('i32')) as [Local, Local, Local, Local, Local, Local, Local];
    const taps = Array.from({ length: 9 }, () => f.local('f32'));
    const half = Array.from({ length: 3 * side }, () => f.local('f32'));
    const combine = (factors: readonly number[], terms: readonly Local[]): E => terms.reduce<E | undefined>((sum, t, i) => {
      if (factors[i] === 0) return sum;
      const term = factors[i] === 1 ? f.get(t) : m.f32.mul(f.get(t), asm.f32(factors[i]!));
      return sum === undefined ? term : m.f32.add(sum, term);
    }, undefined) ?? asm.f32(0);
    const last = panels - 1;
    return [
      f.set(columns, m.select(m.i32.eq(f.get(panel!), asm.i32(last)), asm.i32(g.fanOut - last * panelColumns), asm.i32(panelColumns))),
      f.set(stored, m.select(m.i32.eq(f.get(panel!), asm.i32(last)), asm.i32(storedColumns(g.fanOut) - last * panelColumns), asm.i32(panelColumns))),
      f.set(row, asm.add(f.get(to!), asm.mul(f.get(panel!), asm.i32(4 * panelColumns * g.fanIn)))),
      f.repeat(channel, 0, g.fanIn, 1, [
        f.set(source, asm.add(f.get(from!), asm.add(asm.mul(f.get(panel!), asm.i32(36 * panelColumns * g.fanIn)), asm.mul(f.get(channel), asm.i32(36))))),
        f.set(target, f.get(row)),
        f.loop(column, asm.i32(0), () => f.get(columns), 1, [
          ...taps.map((l, i) => f.set(l, m.f32.load(4 * i, 4, f.get(source)))),
          ...half.map((l, i) => f.set(l, combine(weight[Math.floor(i / 3)]!, [0, 1, 2].map((k) => taps[3 * k + (i % 3)]!)))),
          ...Array.from({ length: side * side }, (_, p) => m.f32.store(p * positionBytes, 4, f.get(target), combine(weight[p % side]!, half.slice(3 * Math.floor(p / side), 3 * Math.floor(p / side) + 3)))),
          f.inc(source, 36 * g.fanIn),
          f.inc(target, 4),
        ]),
        f.set(row, asm.add(f.get(row), asm.times(f.get(stored), 4))),
      ]),
    ];
  });
  return { fn, chunks: panels, scratchBytes: 0, vertexBytes: 4 * (9 + side * side) * panelColumns * g.fanIn };
}
