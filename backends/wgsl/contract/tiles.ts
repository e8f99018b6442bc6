/**
 * A product by tiles: a workgroup computes a tile of the result from panels of A and B that it copies to its memory, 8 steps of k at a time; each invocation keeps a block of 4x4 or
 * 8x8 sums in registers, as vec4 along n.
 */
import type { Op } from '../../../ir/graph.ts';
import { Evaluator } from '../evaluator.ts';
import type { Body, Kernel, KernelCode } from '../kernel.ts';
import { narrowed } from '../map.ts';
import type { Machine } from '../machine.ts';
import { KIndex, type Matrix, type ProductView } from './view.ts';

/** Invocations of a workgroup along m and n, sums of each along both, and steps of k between two copies. */
export interface Tiling { readonly lanesM: number; readonly lanesN: number; readonly sumsM: number; readonly sumsN: number; readonly steps: number }

/** Large tiles are taken where the machine's workgroups get as many each. */
const rounds = 2;

/** The tiling for a size, as large as the workgroups of the machine hold; undefined where tiles would be mostly empty. `vector`: bytes of four elements in a panel. */
export function tilingFor({ batch, m, n, k }: Pick<ProductView, 'batch' | 'm' | 'n' | 'k'>, machine: Pick<Machine, 'workgroups' | 'workgroupBytes' | 'invocations'>, vector: number): Tiling | undefined {
  if (m < 5 || n < 5 || k < 4) return undefined;
  const large = m >= 96 && n >= 96 && batch * Math.ceil(m / 128) * Math.ceil(n / 128) >= rounds * machine.workgroups;
  const lanesM = m <= 16 ? 4 : m <= 32 ? 8 : 16;
  let t: Tiling = large ? { lanesM: 16, lanesN: 16, sumsM: 8, sumsN: 8, steps: 8 } : { lanesM, lanesN: 16, sumsM: 4, sumsN: 4, steps: 8 };
  const fits = (): boolean => panelBytes(t, vector) <= machine.workgroupBytes && t.lanesM * t.lanesN <= machine.invocations;
  while (!fits()) {
    if (t.sumsM > 4) t = { ...t, sumsM: 4, sumsN: 4 };
    else if (t.lanesM * t.lanesN <= machine.invocations && t.steps > 2) t = { ...t, steps: t.steps / 2 };
    else if (t.lanesM > 2) t = { ...t, lanesM: t.lanesM / 2 };
    else if (t.lanesN > 2) t = { ...t, lanesN: t.lanesN / 2 };
    else return undefined;
  }
  return t;
}

/** Vectors of a panel's row. One more than the tile has keeps the rows of a panel in different banks. */
const panelRow = (tile: number): number => tile / 4 + 1;

/** Workgroup memory that a tiling takes: the slices of both operands that a workgroup shares. */
const panelBytes = (t: Tiling, vector: number): number => vector * t.steps * (panelRow(t.lanesM * t.sumsM) + panelRow(t.lanesN * t.sumsN));

/** Writes the kernel. The epilogue and the store of an element are a function of their own, `put`. */
export function emitTiles(kernel: Kernel, body: Body, root: Op, view: ProductView, t: Tiling): KernelCode {
  const { w } = kernel;
  const threads = t.lanesM * t.lanesN;
  const [tileM, tileN] = [t.lanesM * t.sumsM, t.lanesN * t.sumsN];
  const [tilesM, tilesN] = [Math.ceil(view.m / tileM), Math.ceil(view.n / tileN)];
  putFunction(kernel, body, root, view);

  const [rowA, rowB] = [panelRow(tileM), panelRow(tileN)];
  const vector = vectorOf(kernel, root);
  const panelA = kernel.shared('panel_a', vector, t.steps * rowA);
  const panelB = kernel.shared('panel_b', vector, t.steps * rowB);
  const wide = (v: string): string => (vector === 'vec4<f32>' ? v : `vec4<f32>(${v})`);
  const tile = w.let('tile', `group % ${tilesM * tilesN}`);
  const batch = view.batch === 1 ? '0' : w.let('which', `group / ${tilesM * tilesN}`);
  const m0 = w.let('m0', `(${tile} / ${tilesN}) * ${tileM}`);
  const n0 = w.let('n0', `(${tile} % ${tilesN}) * ${tileN}`);
  const laneM = w.let('lane_m', `lane / ${t.lanesN}`);
  const laneN = w.let('lane_n', `lane % ${t.lanesN}`);
  const copyA = copier(kernel, view.a, { batch, first: m0, panel: panelA, vector, row: rowA, width: tileM, threads, steps: t.steps, k: view.k });
  const copyB = copier(kernel, view.b, { batch, first: n0, panel: panelB, vector, row: rowB, width: tileN, threads, steps: t.steps, k: view.k });
  const vectors = t.sumsN / 4;
  const sums = Array.from({ length: t.sumsM }, (_, i) => Array.from({ length: vectors }, (_, j) => w.variable(`sum_${i}_${j}_`, 'vec4<f32>', 'vec4<f32>(0.0)')));
  w.block(`for (var k0 = 0; k0 < ${view.k}; k0 += ${t.steps})`, () => {
    copyA();
    copyB();
    w.line('workgroupBarrier();');
    w.block(`for (var step = 0; step < ${t.steps}; step++)`, () => {
      for (let j = 0; j < vectors; j++) w.line(`let b${j} = ${wide(`${panelB}[step * ${rowB} + lane_n${vectors === 1 ? '' : ` + ${j * t.lanesN}`}]`)};`);
      for (let i = 0; i < t.sumsM / 4; i++) w.line(`let a${i} = ${wide(`${panelA}[step * ${rowA} + lane_m${t.sumsM === 4 ? '' : ` + ${i * t.lanesM}`}]`)};`);
      for (let i = 0; i < t.sumsM; i++) for (let j = 0; j < vectors; j++) w.line(`${sums[i]![j]!} = fma(vec4<f32>(a${Math.floor(i / 4)}.${'xyzw'[i % 4]!}), b${j}, ${sums[i]![j]!});`);
    });
    w.line('workgroupBarrier();');
  });
  sums.forEach((row, i) => {
    const m = w.let('m', `${m0} + ${laneM} * 4 + ${Math.floor(i / 4) * t.lanesM * 4 + (i % 4)}`);
    const store = (): void => row.forEach((v, j) => {
      const n = w.let('n', `${n0} + ${laneN} * 4 + ${j * t.lanesN * 4}`);
      for (let c = 0; c < 4; c++) {
        const at = c === 0 ? n : `${n} + ${c}`;
        const call = `put(${batch}, ${m}, ${at}, ${v}.${'xyzw'[c]!});`;
        w.line(view.n % tileN === 0 ? call : `if (${at} < ${view.n}) { ${call} }`);
      }
    });
    if (view.m % tileM === 0) store();
    else w.block(`if (${m} < ${view.m})`, store);
  });
  return kernel.finish(view.batch * tilesM * tilesN, threads);
}

/** `fn put(batch, m, n, value)`: the ops after the product on one element, and its store. */
export function putFunction(kernel: Kernel, body: Body, root: Op, view: ProductView): void {
  const { w } = kernel;
  const text = w.capture(() => {
    const e = new Evaluator(kernel, body);
    const index = view.result('batch', 'm', 'n');
    e.set(root.results[0]!, index, w.let('root', narrowed(w, 'value', root.results[0]!.type.dtype)));
    kernel.store(0, index, e.at(body.outputs[0]!, index));
  });
  w.declarations.push(`fn put(batch: i32, m: i32, n: i32, value: f32) {\n${text}\n}`);
}

type Vector = 'vec4<f32>' | 'vec4<f16>';

/** What panels hold: f16 where both operands do, which halves the memory that they take. Sums are f32. */
export const vectorOf = (kernel: Kernel, root: Op): Vector => (kernel.site.machine.f16 && root.operands.every((v) => v.type.dtype === 'f16') ? 'vec4<f16>' : 'vec4<f32>');

interface Panel { readonly batch: string; readonly first: string; readonly panel: string; readonly vector: Vector; readonly row: number; readonly width: number; readonly threads: number; readonly steps: number; readonly k: number }

/** Writes what does not change with k now, and gives what copies a panel: units of four along m or n. */
function copier(kernel: Kernel, matrix: Matrix, p: Panel): () => void {
  const { w } = kernel;
  const units = p.width / 4;
  const total = units * p.steps;
  const rounds = Math.ceil(total / p.threads);
  const plans = Array.from({ length: rounds }, (_, round) => {
    const unit = w.let('unit', rounds === 1 ? 'lane' : `lane + ${round * p.threads}`);
    const step = w.let('at_k', matrix.contiguousK ? `${unit} % ${p.steps}` : `${unit} / ${units}`);
    const four = w.let('at', matrix.contiguousK ? `${unit} / ${p.steps}` : `${unit} % ${units}`);
    const reads = Array.from({ length: 4 }, (_, c) => matrix.lead(p.batch, w.let('lead', `${p.first} + ${four} * 4 + ${c}`)));
    return { unit, step, four, reads };
  });
  return () => plans.forEach(({ unit, step, four, reads }, round) => {
    const write = (): void => {
      const k = w.let('k', `k0 + ${step}`);
      const index = new KIndex(k);
      const store = (values: readonly string[]): void => w.line(`${p.panel}[${step} * ${p.row} + ${four}] = ${p.vector === 'vec4<f32>' ? `vec4<f32>(${values.join(', ')})` : `vec4<f16>(vec4<f32>(${values.join(', ')}))`};`);
      if (p.k % p.steps === 0) return store(reads.map((read) => w.let('v', read(index))));
      const v = w.variable('v', 'vec4<f32>', 'vec4<f32>(0.0)');
      w.block(`if (${k} < ${p.k})`, () => w.line(`${v} = vec4<f32>(${reads.map((read) => w.let('v', read(index))).join(', ')});`));
      w.line(`${p.panel}[${step} * ${p.row} + ${four}] = ${p.vector === 'vec4<f32>' ? v : `vec4<f16>(${v})`};`);
    };
    if ((round + 1) * p.threads <= total) write();
    else w.block(`if (${unit} < ${total})`, write);
  });
}
