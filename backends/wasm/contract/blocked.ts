/** Kernels made of row blocks and panels: the frame that packed matrix products and direct convolutions share. */
import { dtypes } from '../../../ir/type.ts';
import { panelColumns, storedColumns } from '../../../ir/ops/packing/panels.ts';
import type { Asm, E, Fn, Local, Ty } from '../asm.ts';
import type { KernelCode } from '../kernel.ts';
import type { Cut } from './cut.ts';
import type { Epilogue } from './epilogue.ts';
import { outerOffset, type TileSpace } from './space.ts';
import { maxRows } from './micro.ts';
import { momentsKey, takeMoments, type BlockMoments } from './moments.ts';
import { tileLoops } from './tiles.ts';

/** What fills the table of row pointers of a block. */
export interface Fill {
  readonly table: Local;
  /** First row of the block, counted over all outer blocks. */
  readonly first: Local;
  readonly count: number;
  /** Thread-private memory of `fillBytes` beside the table. */
  readonly area: Local;
  /** The outer block, its own first row, and the whole panels of the block. */
  readonly outer: Local;
  readonly start: Local;
  readonly from: Local;
  readonly to: Local;
  /** Whether the block has the narrower last panel. */
  readonly hasLast: () => E;
}

export interface Blocked {
  readonly key: string;
  /** Kernel operands; the result's pointer follows them. */
  readonly operands: number;
  readonly space: TileSpace;
  readonly epilogue: Epilogue;
  readonly groups: number;
  /** Columns of one group. */
  readonly columns: number;
  readonly taps: number;
  /** Bytes of a row that one tap reads. */
  readonly run: number;
  readonly cut: Cut;
  /** Bytes of the operand that one row adds. */
  readonly rowBytes: number;
  readonly fillBytes: number;
  /** Whether `fill` packs the panels into its area. */
  readonly packsPanels?: boolean;
  fill(f: Fn, pointers: readonly Local[], fill: Fill): E[];
  /** Moments of blocks of rows, of which `cut` takes whole ones. */
  readonly moments?: BlockMoments | undefined;
  /** Address of the packed matrix of group 0; called after `fill`. */
  panels(f: Fn, pointers: readonly Local[], fill: Pick<Fill, 'from' | 'area'>): E;
}

/** Emits the kernel. Scratch: the table of row pointers, then the area of `fill`. */
export function blockedKernel(asm: Asm, k: Blocked): KernelCode {
  const { cut, space } = k;
  const tableBytes = Math.ceil((cut.rowBlock * k.taps * 4) / 64) * 64;
  const fn = asm.fn(`blocked ${k.key}${momentsKey(k.moments)}`, Array.from({ length: k.operands + (k.moments ? 5 : 3) }, (): Ty => 'i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [panelBlock, groupBlock, rowBlock, outer, first, from, to, group, groupEnd, table, area, b, c, start, index] = Array.from({ length: 15 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const digit = (to: Local, size: number): E[] => (size === 1
      ? [f.set(to, asm.i32(0))]
      : [f.set(to, m.i32.rem_u(f.get(chunk!), asm.i32(size))), f.set(chunk!, m.i32.div_u(f.get(chunk!), asm.i32(size)))]);
    const wholePanels = Math.floor(k.columns / panelColumns);
    const lastColumns = k.columns % panelColumns;
    const kTotal = (k.taps * k.run) / 4;
    const groupBytes = 4 * kTotal * storedColumns(k.columns);
    const elementBytes = dtypes[k.epilogue.dtype].bytes;
    const view = space.tensors[0]!;
    const columnBytes = view.columnStride * elementBytes;
    const operandBase = k.epilogue.operands.map(() => local());

    const firstPanel = (block: E): E => m.i32.div_u(asm.times(block, wholePanels), asm.i32(cut.panelBlocks));
    const hasLast = (): E => m.i32.eq(f.get(panelBlock), asm.i32(cut.panelBlocks - 1));

    /** The moments of what was stored. Where a block has all columns of its groups, they follow each other. */
    const overBlocks = (moments: BlockMoments, rows: number): E[] => {
      const wholeGroups = cut.panelBlocks === 1;
      const count = wholeGroups ? asm.times(asm.sub(f.get(groupEnd), asm.times(f.get(groupBlock), cut.groupBlock)), k.columns) : asm.sub(m.select(hasLast(), asm.i32(k.columns), asm.times(f.get(to), panelColumns)), asm.times(f.get(from), panelColumns));
      const channel = (): E => asm.add(asm.times(f.get(group), k.columns), asm.times(f.get(from), panelColumns));
      const take = f.repeat(index, 0, rows / moments.pixels, 1, [takeMoments(f, moments, pointers.slice(k.operands + 1), {
        from: asm.add(f.get(c), asm.add(asm.times(f.get(index), moments.pixels * view.rowStride), asm.times(channel(), columnBytes))),
        channel, channels: count, block: () => asm.add(m.i32.div_u(f.get(first), asm.i32(moments.pixels)), f.get(index)),
      })]);
      const firstGroup = (): E => asm.times(f.get(groupBlock), cut.groupBlock);
      return wholeGroups ? [f.set(group, firstGroup()), take] : [f.loop(group, firstGroup(), () => f.get(groupEnd), 1, [take])];
    };

    /** Everything for row blocks of one size; `rows` is static so that the tiles are. */
    const block = (rows: number): E[] => [
      ...k.fill(f, pointers, { table, first, count: rows, area, outer, start, from, to, hasLast }),
      f.loop(group, f.get(group), () => f.get(groupEnd), 1, [
        f.set(b, asm.add(k.panels(f, pointers, { from, area }), asm.times(f.get(group), groupBytes))),
        ...tileLoops(f, {
          rows, from, to, panelsPerPass: cut.panelsPerPass, lastColumns, wholePanels,
          hasLast,
          table: () => f.get(table), taps: k.taps, tapStride: () => asm.i32(4 * rows), run: k.run,
          rowOffset: () => asm.times(f.get(group), k.run),
          b: () => f.get(b), panelBytes: kTotal * panelColumns * 4,
          c: () => asm.add(f.get(c), asm.times(f.get(group), k.columns * columnBytes)), rowStride: view.rowStride,
          extra: k.epilogue.operands.map((o, i) => {
            const bytes = o.columnStride * dtypes[o.dtype].bytes;
            const base = operandBase[i]!;
            return { pointer: () => (bytes === 0 || k.groups === 1 ? f.get(base) : asm.add(f.get(base), asm.times(f.get(group), k.columns * bytes))), rowStride: space.tensors[1 + i]!.rowStride, columnBytes: bytes };
          }),
          columnBytes, epilogue: k.epilogue,
        }),
      ]),
      ...(k.moments ? overBlocks(k.moments, rows) : []),
    ];
    const lastRows = space.rows - (cut.rowBlocks - 1) * cut.rowBlock;
    const at = (tensor: number, pointer: Local): E => {
      const v = space.tensors[tensor]!;
      return asm.add(asm.add(f.get(pointer), outerOffset(f, space, v.outerStrides, outer)), asm.mul(f.get(start), asm.i32(v.rowStride)));
    };
    return [
      ...digit(panelBlock, cut.panelBlocks), ...digit(groupBlock, cut.groupBlocks), ...digit(rowBlock, cut.rowBlocks), f.set(outer, f.get(chunk!)),
      f.set(table, f.get(scratch!)), f.set(area, asm.plus(f.get(scratch!), tableBytes)),
      f.set(start, asm.mul(f.get(rowBlock), asm.i32(cut.rowBlock))),
      f.set(first, asm.add(asm.mul(f.get(outer), asm.i32(space.rows)), f.get(start))),
      f.set(from, firstPanel(f.get(panelBlock))),
      f.set(to, firstPanel(asm.plus(f.get(panelBlock), 1))),
      f.set(group, asm.times(f.get(groupBlock), cut.groupBlock)),
      f.set(groupEnd, asm.plus(f.get(group), cut.groupBlock)),
      f.if(m.i32.gt_u(f.get(groupEnd), asm.i32(k.groups)), [f.set(groupEnd, asm.i32(k.groups))]),
      f.set(c, at(0, pointers[k.operands]!)),
      ...k.epilogue.operands.map((o, i) => f.set(operandBase[i]!, at(1 + i, pointers[o.operand]!))),
      ...(lastRows === cut.rowBlock
        ? block(cut.rowBlock)
        : [f.if(m.i32.eq(f.get(rowBlock), asm.i32(cut.rowBlocks - 1)), block(lastRows), cut.rowBlocks > 1 ? block(cut.rowBlock) : undefined)]),
    ];
  });
  return { fn, chunks: space.outer * cut.rowBlocks * cut.groupBlocks * cut.panelBlocks, scratchBytes: tableBytes + k.fillBytes, vertexBytes: tableBytes + k.fillBytes + vertexBytes(asm, k) };
}

/** Bytes of a pass of panels and of the rows that stay beside it, or pass by: what they read, and what they and the epilogue read and write of the result. */
function vertexBytes(asm: Asm, { cut, ...k }: Blocked): number {
  const panels = Math.min(cut.panelBlock, cut.panelsPerPass);
  const columns = Math.min(k.columns, panels * panelColumns);
  const rows = cut.keepsRows ? cut.rowBlock : Math.min(cut.rowBlock, maxRows(asm));
  const varying = k.epilogue.operands.filter((o) => o.varies).reduce<number>((n, o) => n + dtypes[o.dtype].bytes, dtypes[k.epilogue.dtype].bytes);
  return (k.packsPanels ? 0 : k.taps * k.run * columns) + rows * (k.rowBytes + columns * varying);
}

