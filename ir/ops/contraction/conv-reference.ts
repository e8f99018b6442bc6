/** Convolution and its two gradients on the interpreter: patches of the input as a matrix, then matrix products. */
import { planeOf, runsOf, type Sweep } from '../spatial.ts';
import { addProduct, transposeInto } from './matmul.ts';

/** Sizes of a convolution: x is batch, groups * inputs, spatial...; w is groups * outputs, inputs, kernel.... */
export interface ConvSizes {
  readonly batch: number;
  readonly groups: number;
  /** Input channels of a group. */
  readonly inputs: number;
  /** Output channels of a group. */
  readonly outputs: number;
  readonly sweeps: readonly Sweep[];
}

/** y[n,(g o),h] = Σ x[n,(g i),h·s+y·d-p] · w[(g o),i,y]. */
export function convolve(x: Float64Array, w: Float64Array, s: ConvSizes): Float64Array {
  const { depth, columns, elements } = measure(s);
  const y = new Float64Array(s.batch * s.groups * s.outputs * columns);
  eachBlock(s, (block) => {
    const patches = new Float64Array(depth * block.columns);
    for (let plane = 0; plane < s.batch * s.groups; plane++) {
      unfold(x, plane * s.inputs * elements, s, block, patches);
      addProduct(
        { data: w, offset: (plane % s.groups) * s.outputs * depth, stride: depth },
        { data: patches, offset: 0, stride: block.columns },
        { data: y, offset: plane * s.outputs * columns + block.first, stride: columns },
        s.outputs, depth, block.columns,
      );
    }
  });
  return y;
}

/** The transpose of `convolve` with respect to x: each dy element is added, times the weight, to the elements it was made of. */
export function convolveBack(dy: Float64Array, w: Float64Array, s: ConvSizes): Float64Array {
  const { depth, columns, elements } = measure(s);
  const dx = new Float64Array(s.batch * s.groups * s.inputs * elements);
  const turned = new Float64Array(w.length);
  for (let g = 0; g < s.groups; g++) {
    transposeInto({ data: w, offset: g * s.outputs * depth, stride: depth }, s.outputs, depth, turned.subarray(g * s.outputs * depth));
  }
  eachBlock(s, (block) => {
    const patches = new Float64Array(depth * block.columns);
    for (let plane = 0; plane < s.batch * s.groups; plane++) {
      patches.fill(0);
      addProduct(
        { data: turned, offset: (plane % s.groups) * s.outputs * depth, stride: s.outputs },
        { data: dy, offset: plane * s.outputs * columns + block.first, stride: columns },
        { data: patches, offset: 0, stride: block.columns },
        depth, s.outputs, block.columns,
      );
      fold(patches, dx, plane * s.inputs * elements, s, block);
    }
  });
  return dx;
}

/** The transpose of `convolve` with respect to w. */
export function convolveWeight(x: Float64Array, dy: Float64Array, s: ConvSizes): Float64Array {
  const { depth, columns, elements } = measure(s);
  // Taps by outputs while it is summed, so that the product runs along rows of dy's transpose.
  const sums = new Float64Array(s.groups * depth * s.outputs);
  eachBlock(s, (block) => {
    const patches = new Float64Array(depth * block.columns);
    const turned = new Float64Array(block.columns * s.outputs);
    for (let plane = 0; plane < s.batch * s.groups; plane++) {
      unfold(x, plane * s.inputs * elements, s, block, patches);
      transposeInto({ data: dy, offset: plane * s.outputs * columns + block.first, stride: columns }, s.outputs, block.columns, turned);
      addProduct(
        { data: patches, offset: 0, stride: block.columns },
        { data: turned, offset: 0, stride: s.outputs },
        { data: sums, offset: (plane % s.groups) * depth * s.outputs, stride: s.outputs },
        depth, block.columns, s.outputs,
      );
    }
  });
  const dw = new Float64Array(sums.length);
  for (let g = 0; g < s.groups; g++) {
    transposeInto({ data: sums, offset: g * depth * s.outputs, stride: s.outputs }, depth, s.outputs, dw.subarray(g * depth * s.outputs));
  }
  return dw;
}

/** Columns of the patch matrix that are worked on at once: enough for long inner loops, few enough to stay in cache. */
const columnsAtOnce = 192;

/** Some output rows of a plane. */
interface Block {
  /** First output element. */
  readonly first: number;
  readonly columns: number;
  readonly runs: Int32Array;
}

function measure(s: ConvSizes): { readonly depth: number; readonly columns: number; readonly elements: number } {
  const plane = planeOf(s.sweeps);
  return { depth: s.inputs * plane.taps, columns: plane.rows * plane.width, elements: plane.input };
}

function eachBlock(s: ConvSizes, work: (block: Block) => void): void {
  const { rows, width } = planeOf(s.sweeps);
  const step = Math.max(1, Math.floor(columnsAtOnce / width));
  for (let row = 0; row < rows; row += step) {
    const end = Math.min(rows, row + step);
    work({ first: row * width, columns: (end - row) * width, runs: runsOf(s.sweeps, row, end) });
  }
}

/** patches[(i tap), column] = the input element under the tap, 0 in the padding. */
function unfold(x: Float64Array, offset: number, s: ConvSizes, block: Block, patches: Float64Array): void {
  const { taps, input, step } = planeOf(s.sweeps);
  const { runs, columns } = block;
  patches.fill(0);
  for (let i = 0; i < s.inputs; i++) {
    const from = offset + i * input;
    const to = i * taps * columns;
    for (let r = 0; r < runs.length; r += 4) {
      let p = from + runs[r + 1]!;
      const q = to + runs[r]! * columns + runs[r + 2]!;
      const end = q + runs[r + 3]!;
      for (let j = q; j < end; j++, p += step) patches[j] = x[p]!;
    }
  }
}

/** Adds patches back to the elements they came from. */
function fold(patches: Float64Array, dx: Float64Array, offset: number, s: ConvSizes, block: Block): void {
  const { taps, input, step } = planeOf(s.sweeps);
  const { runs, columns } = block;
  for (let i = 0; i < s.inputs; i++) {
    const to = offset + i * input;
    const from = i * taps * columns;
    for (let r = 0; r < runs.length; r += 4) {
      let p = to + runs[r + 1]!;
      const q = from + runs[r]! * columns + runs[r + 2]!;
      const end = q + runs[r + 3]!;
      for (let j = q; j < end; j++, p += step) dx[p]! += patches[j]!;
    }
  }
}
