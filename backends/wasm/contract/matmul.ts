/** Products of two computed f32 operands, of any spec and any layout: panels of the right operand are packed per chunk, rows of the left are read in place. */
import { str } from '../../../ir/op.ts';
import { panelColumns, storedColumns } from '../../../ir/ops/packing/panels.ts';
import type { Placed } from '../../../ir/tile.ts';
import { dtypes, sizeOf } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { blockedKernel, type Fill } from './blocked.ts';
import { cutProduct } from './cut.ts';
import { epilogueOf } from './epilogue.ts';
import type { Contraction } from './fused.ts';
import { maxRows } from './micro.ts';
import { packAnyPanel, packEvenPanel, packFourRows, packRow, packTransposedPanel } from './pack-panels.ts';
import { evenRows } from './rows.ts';
import { broadcastTo, mergedStride, outerOffset, tileSpace, type TileSpace } from './space.ts';

/** A summed axis (or several walked as one), with its strides in both operands, in elements. */
interface Summed { readonly size: number; readonly left: number; readonly right: number }

/** A product as a batch of matrix products. */
interface Product {
  readonly left: number;
  readonly right: number;
  readonly space: TileSpace;
  readonly columns: number;
  readonly columnStride: number;
  readonly summed: readonly Summed[];
  readonly k: number;
}

/** Emits a `contract` of two f32 operands, plain or fused; undefined where it is no batch of matrix products (an operand has a letter of its own to sum). */
export function matmul(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode | undefined {
  if (k.root.results[0]!.type.dtype !== 'f32' || sizeOf(result.type.shape) === 0) return undefined;
  const product = chooseSides(k, operands, result);
  if (!product || product.k === 0) return undefined;
  const { space, columns, summed } = product;
  const inner = summed.at(-1)!;
  const inPlace = summed.length === 1 && (inner.left === 1 || inner.size === 1);
  const whole = Math.floor(columns / panelColumns);
  const cut = cutProduct(asm.division, { outer: space.outer, rows: space.rows, columns, k: product.k, rowMultiple: maxRows(asm), inPlace });
  const panelBytes = 4 * panelColumns * product.k;
  const panelArea = Math.ceil((4 * product.k * (cut.panelBlock * panelColumns + storedColumns(columns % panelColumns))) / 64) * 64;
  const rowArea = inPlace ? 0 : 4 * product.k * cut.rowBlock;
  const leftView = space.tensors.at(-2)!;
  const rightView = space.tensors.at(-1)!;

  const fill = (f: Fn, pointers: readonly Local[], { table, start, count, area, outer, from, to, hasLast }: Fill): E[] => {
    const [base, panel, packed, i, source] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    const column = 4 * product.columnStride;
    /** Packs all k of one panel, a run of the innermost summed axis after the other. */
    const pack = (emit: (run: Run) => E): E[] => overRuns(f, summed, (s) => s.right, base, packed, emit);
    const wholePanel = pack(({ from: at, to: target }) => {
      if (product.columnStride === 1) return asm.call(packEvenPanel(asm), [at, asm.i32(4 * inner.right), asm.i32(inner.size), target]);
      if (inner.right === 1) return asm.call(packTransposedPanel(asm), [at, asm.i32(column), asm.i32(inner.size), target]);
      return asm.call(packAnyPanel(asm), [at, asm.i32(4 * inner.right), asm.i32(column), asm.i32(inner.size), asm.i32(panelColumns), asm.i32(panelColumns), target]);
    });
    const rest = columns % panelColumns;
    const lastPanel = pack(({ from: at, to: target }) => asm.call(packAnyPanel(asm), [at, asm.i32(4 * inner.right), asm.i32(column), asm.i32(inner.size), asm.i32(rest), asm.i32(storedColumns(rest)), target]));
    const matrix = (pointer: number, view: typeof leftView): E => asm.add(f.get(pointers[pointer]!), outerOffset(f, space, view.outerStrides, outer));
    const panelsOut = [
      f.set(packed, f.get(area)),
      ...(whole > 0
        ? [f.loop(panel, f.get(from), () => f.get(to), 1, [f.set(base, asm.add(matrix(product.right, rightView), asm.times(f.get(panel), panelColumns * column))), ...wholePanel])]
        : []),
      ...(rest > 0 ? [f.if(hasLast(), [f.set(base, asm.add(matrix(product.right, rightView), asm.i32(whole * panelColumns * column))), ...lastPanel])] : []),
    ];
    if (inPlace) return [...panelsOut, ...evenRows(f, table, () => matrix(product.left, leftView), start, count, leftView.rowStride)];
    const packRows = (emit: (run: Run) => E, atOnce: number): E[] => [
      f.set(base, f.get(source)),
      ...overRuns(f, summed, (s) => s.left, base, packed, emit, 1),
      f.inc(packed, 4 * product.k * (atOnce - 1)),
      f.inc(source, leftView.rowStride * atOnce),
    ];
    const fours = asm.simd && leftView.rowStride === 4 ? Math.floor(count / 4) : 0;
    const rows = [
      f.set(packed, asm.plus(f.get(area), panelArea)),
      f.set(source, asm.add(matrix(product.left, leftView), asm.mul(f.get(start), asm.i32(leftView.rowStride)))),
      ...(fours > 0 ? [f.repeat(i, 0, fours, 1, packRows(({ from: at, to: target }) => asm.call(packFourRows(asm), [at, asm.i32(4 * inner.left), asm.i32(inner.size), target, asm.i32(4 * product.k)]), 4))] : []),
      f.repeat(i, 4 * fours, count, 1, packRows(({ from: at, to: target }) => asm.call(packRow(asm), [at, asm.i32(4 * inner.left), asm.i32(inner.size), target]), 1)),
    ];
    const zero = f.local('i32');
    return [...panelsOut, ...rows, f.set(zero, asm.i32(0)), ...evenRows(f, table, () => asm.plus(f.get(area), panelArea), zero, count, 4 * product.k)];
  };
  return blockedKernel(asm, {
    key: kernelKey(k.op, operands, [result]),
    operands: operands.length, space, epilogue: epilogueOf(k.op, k.root, k.extra, space), groups: 1, columns, taps: 1, run: 4 * product.k, cut, rowBytes: 4 * product.k,
    fillBytes: panelArea + rowArea, packsPanels: true, fill,
    panels: (f, _, { from, area }) => asm.sub(f.get(area), asm.times(f.get(from), panelBytes)),
  });
}

interface Run { readonly from: E; readonly to: E }

/** Loops over all summed axes but the innermost; `emit` packs one run of that. Advances `packed` past what was written, `columns` floats a step. */
function overRuns(f: Fn, summed: readonly Summed[], stride: (s: Summed) => number, base: Local, packed: Local, emit: (run: Run) => E, columns: number = panelColumns): E[] {
  const inner = summed.at(-1)!;
  let code: E[] = [emit({ from: f.get(base), to: f.get(packed) }), f.inc(packed, 4 * columns * inner.size)];
  for (const s of summed.slice(0, -1).reverse()) {
    const i = f.local('i32');
    code = [f.repeat(i, 0, s.size, 1, [...code, f.inc(base, 4 * stride(s))]), f.inc(base, -4 * stride(s) * s.size)];
  }
  return code;
}

/** The result's columns should lie side by side, and the left operand's rows too: takes the better of the two ways round. */
function chooseSides(k: Contraction, operands: readonly Placed[], result: Placed): Product | undefined {
  const ways = [describe(k, operands, result, false), describe(k, operands, result, true)].filter((p) => p !== undefined);
  const cost = (p: Product): number => {
    const scattered = p.space.tensors[0]!.columnStride === 1 || p.columns === 1 ? 0 : 4;
    const inner = p.summed.at(-1)!;
    const copied = p.summed.length === 1 && (inner.left === 1 || inner.size === 1) ? 0 : 1;
    return scattered + copied + (p.columns < 4 && p.space.rows > p.columns ? 2 : 0);
  };
  return ways.sort((p, q) => cost(p) - cost(q))[0];
}

/** Reads the spec with its operands as they are, or the other way round. */
function describe(k: Contraction, operands: readonly Placed[], result: Placed, swap: boolean): Product | undefined {
  const [, first, second, out] = /^(\w*),(\w*)->(\w*)$/.exec(str(k.root.attrs, 'spec')) as unknown as [string, string, string, string];
  const [left, right] = swap ? [k.roots[1]!, k.roots[0]!] : [k.roots[0]!, k.roots[1]!];
  const [a, b] = swap ? [second, first] : [first, second];
  const [pa, pb] = [operands[left]!, operands[right]!];
  if ([...a].some((l) => !b.includes(l) && !out.includes(l)) || [...b].some((l) => !a.includes(l) && !out.includes(l))) return undefined;
  const size = (l: string): number => (a.includes(l) ? pa.type.shape[a.indexOf(l)]! : pb.type.shape[b.indexOf(l)]!);
  const strideIn = (word: string, strides: readonly number[], l: string): number => (word.includes(l) && size(l) !== 1 ? strides[word.indexOf(l)]! : 0);
  const byResult = (letters: string[]): string[] => letters.filter((l) => size(l) !== 1).sort((p, q) => strideIn(out, result.strides, q) - strideIn(out, result.strides, p));

  const batch = byResult([...out].filter((l) => a.includes(l) && b.includes(l)));
  const rows = byResult([...out].filter((l) => a.includes(l) && !b.includes(l)));
  const columnLetters = byResult([...out].filter((l) => !a.includes(l) && b.includes(l)));
  const tensors = [result, ...k.extra.map((i) => operands[i]!)].map((p) => ({ word: out, strides: broadcastTo(result.type.shape, p.type.shape, p.strides), bytes: dtypes[p.type.dtype].bytes }));
  const all = [...tensors, { word: a, strides: pa.strides, bytes: 4 }, { word: b, strides: pb.strides, bytes: 4 }];

  // Columns: as many letters as every tensor that has columns walks evenly; the others count as batch.
  let count = columnLetters.length;
  const even = (from: number): boolean => [...tensors, all.at(-1)!].every((t) => mergedStride(columnLetters.slice(from).map(size), columnLetters.slice(from).map((l) => strideIn(t.word, t.strides, l))) !== undefined);
  while (count > 0 && even(count - 1)) count--;
  const columnsOf = columnLetters.slice(count);
  const outer = [...batch, ...columnLetters.slice(0, count)];
  const columnStride = (t: (typeof all)[number]): number => (columnsOf.length === 0 ? 1 : strideIn(t.word, t.strides, columnsOf.at(-1)!));

  const inner = tileSpace(rows.map(size), all.map((t) => ({ rowStrides: rows.map((l) => strideIn(t.word, t.strides, l)), columnStride: columnStride(t), bytes: t.bytes })));
  const space: TileSpace = {
    ...inner,
    outerSizes: [...outer.map(size), ...inner.outerSizes],
    outer: inner.outer * sizeOf(outer.map(size)),
    tensors: inner.tensors.map((v, i) => ({ ...v, outerStrides: [...outer.map((l) => strideIn(all[i]!.word, all[i]!.strides, l) * all[i]!.bytes), ...v.outerStrides] })),
  };
  const summed = mergeSummed([...a].filter((l) => b.includes(l) && !out.includes(l) && size(l) !== 1).map((l): Summed => ({ size: size(l), left: strideIn(a, pa.strides, l), right: strideIn(b, pb.strides, l) })));
  return { left, right, space, columns: sizeOf(columnsOf.map(size)), columnStride: columnStride(all.at(-1)!), summed, k: sizeOf(summed.map((s) => s.size)) };
}

/** Orders summed axes so that the left operand's elements follow each other, and walks neighbours as one where both operands allow. */
function mergeSummed(axes: readonly Summed[]): Summed[] {
  const merged: Summed[] = [];
  for (const s of [...axes].sort((p, q) => q.left - p.left)) {
    const last = merged.at(-1);
    if (last && last.left === s.left * s.size && last.right === s.right * s.size) merged[merged.length - 1] = { size: last.size * s.size, left: s.left, right: s.right };
    else merged.push(s);
  }
  return merged.length > 0 ? merged : [{ size: 1, left: 1, right: 1 }];
}
