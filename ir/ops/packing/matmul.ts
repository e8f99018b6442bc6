/** `packMatmul` and `contractPacked`: matrix products with a packed right operand. */
import { str, nums, type OpDef } from '../../op.ts';
import type { Axes } from '../../axes.ts';
import { rowMajor, sameShape, showType, sizeOf, tensorType, type TensorType } from '../../type.ts';
import { contract } from '../contraction/contract.ts';
import { arity, check, fresh, numbers } from '../helpers.ts';
import { copyStrided } from '../strided.ts';
import { wholeOperand, withWholeWeight } from './conv.ts';
import { packPanels, panelFloats, panelIndex, type Floats } from './panels.ts';
import { columnMultiple, summedMultiple, sumsFloats } from './strassen.ts';

/** How a product with a packed right operand is computed: `strassen` by 7 products of quarters, which reads the sums that `strassenSums` makes of its left operand. */
export const productAlgorithms = ['direct', 'strassen'] as const;
export type ProductAlgorithm = (typeof productAlgorithms)[number];

/** How a contraction `M... K..., b -> M... N...` reads its right operand. */
export interface MatmulShape {
  readonly k: number;
  readonly n: number;
  /** Letters of the right operand in the order K..., N..., and their sizes. */
  readonly letters: readonly string[];
  readonly sizes: readonly number[];
  /** Number of K letters, and of the left operand's axes that are rows. */
  readonly kAxes: number;
  readonly rowAxes: number;
}

/**
 * The matrix shape of a spec, or undefined where it is not of the form that a packed product takes: rows first and summed letters last in a, rows first
 * and columns last in the result, every letter of b in one of the two.
 */
export function matmulShape(spec: string, bShape: readonly number[]): MatmulShape | undefined {
  const match = /^(\w*),(\w*)->(\w*)$/.exec(spec);
  if (!match) return undefined;
  const [, a, b, result] = match as unknown as [string, string, string, string];
  if (b.length !== bShape.length) return undefined;
  const rowAxes = [...a].filter((l) => result.includes(l)).length;
  const rows = a.slice(0, rowAxes);
  const summed = a.slice(rowAxes);
  const columns = result.slice(rowAxes);
  const separate = [...rows].every((l) => !b.includes(l)) && [...summed].every((l) => b.includes(l) && !result.includes(l));
  if (!separate || result.slice(0, rowAxes) !== rows || summed.length + columns.length !== b.length || ![...columns].every((l) => b.includes(l)) || summed.length === 0) return undefined;
  const size = (l: string): number => bShape[b.indexOf(l)]!;
  const letters = [...summed, ...columns];
  return { k: sizeOf([...summed].map(size)), n: sizeOf([...columns].map(size)), letters, sizes: letters.map(size), kAxes: summed.length, rowAxes };
}

function shapeOf(spec: string, bShape: readonly number[]): MatmulShape {
  const shape = matmulShape(spec, bShape);
  check(shape !== undefined, () => `spec "${spec}" with a right operand of [${bShape.join(',')}] cannot be packed: expected rows..., summed... , ... -> rows..., columns...`);
  return shape;
}

export const packMatmul: OpDef = {
  name: 'packMatmul',
  doc: 'the elements of b, the right operand of contract with `spec`, as panels: rows are its summed letters, columns its others',
  family: 'contract',
  operands: ['b'],
  attrs: { spec: { kind: 'string', default: 'required' } },
  infer(operands, a) {
    const [b] = arity(operands, 1);
    check(b.dtype === 'f32', () => `${showType(b)} is not of type f32`);
    const { k, n } = shapeOf(str(a, 'spec'), b.shape);
    return [tensorType('f32', [panelFloats(k, n)])];
  },
  axes: wholeOperand,
  reference([b], a, [packed]) {
    const to = fresh(packed!);
    packMatrix(numbers(b!), b!.shape, str(a, 'spec'), numbers(to));
    return [to];
  },
  grad: { none: 'algorithms are chosen after differentiation' },
};

/** Lays out the right operand of a product as panels, into zeros. */
export function packMatrix(b: Floats, bShape: readonly number[], spec: string, to: Floats): void {
  const { k, n, letters, sizes, kAxes } = shapeOf(spec, bShape);
  const own = rowMajor(bShape);
  const strides = letters.map((l) => own[rightLetters(spec).indexOf(l)]!);
  const rowStep = evenStep(sizes.slice(0, kAxes), strides.slice(0, kAxes));
  const columnStep = evenStep(sizes.slice(kAxes), strides.slice(kAxes));
  if (rowStep !== undefined && columnStep !== undefined) return packPanels(b, 0, k, n, rowStep, columnStep, to, 0);
  const matrix = new Float64Array(k * n);
  copyStrided(b instanceof Float64Array ? b : new Float64Array(b), matrix, sizes, { strides }, { strides: rowMajor(sizes) });
  packPanels(matrix, 0, k, n, n, 1, to, 0);
}

export const contractPacked: OpDef = {
  name: 'contractPacked',
  doc: 'contract of a, by `spec`, with the right operand of shape `bShape` that was packed by packMatmul; for the algorithm strassen the sums of a are the third operand',
  family: 'contract',
  operands: ['a', 'packed', 'sums...'],
  attrs: { spec: { kind: 'string', default: 'required' }, bShape: { kind: 'numbers', default: 'required' }, algorithm: { kind: 'string', default: 'direct' } },
  infer(operands, attrs) {
    const algorithm = productAlgorithms.find((a) => a === str(attrs, 'algorithm'));
    check(algorithm !== undefined, () => `there is no algorithm ${str(attrs, 'algorithm')}, expected one of ${productAlgorithms.join(', ')}`);
    const [a, packed] = algorithm === 'direct' ? arity(operands, 2) : arity(operands, 3);
    check(a.dtype === 'f32', () => `${showType(a)} is not of type f32`);
    const { k, n, rowAxes } = shapeOf(str(attrs, 'spec'), nums(attrs, 'bShape'));
    if (algorithm === 'strassen') {
      check(k % summedMultiple === 0 && n % columnMultiple === 0, () => `strassen takes a sum over a multiple of ${summedMultiple} and columns in multiples of ${columnMultiple}, found ${k} and ${n}`);
      const floats = sumsFloats(sizeOf(a.shape.slice(0, rowAxes)), k);
      check(operands[2]!.dtype === 'f32' && sameShape(operands[2]!.shape, [floats]), () => `${showType(operands[2]!)} is not the sums of the left operand, expected f32[${floats}]`);
    }
    check(packed.dtype === 'f32' && sameShape(packed.shape, [panelFloats(k, n)]), () => `${showType(packed)} is not the packed operand, expected f32[${panelFloats(k, n)}]`);
    return contract.infer([a, tensorType('f32', nums(attrs, 'bShape'))], { spec: str(attrs, 'spec') }, []);
  },
  axes([a, packed, sums], attrs, results) {
    const plain = contract.axes([a!, tensorType('f32', nums(attrs, 'bShape'))], { spec: str(attrs, 'spec') }, results);
    if ('none' in plain) return plain;
    const axes = withWholeWeight(plain, packed!);
    return sums ? withWholeSums(axes, sums) : axes;
  },
  reference([a, packed], attrs, results, regions, run) {
    const bShape = nums(attrs, 'bShape');
    const { k, n, letters, sizes } = shapeOf(str(attrs, 'spec'), bShape);
    const b = fresh(tensorType('f32', bShape));
    const matrix = new Float64Array(k * n);
    for (let row = 0; row < k; row++) for (let column = 0; column < n; column++) matrix[row * n + column] = numbers(packed!)[panelIndex(row, column, k, n)]!;
    const own = rowMajor(bShape);
    copyStrided(matrix, numbers(b), sizes, { strides: rowMajor(sizes) }, { strides: letters.map((l) => own[rightLetters(str(attrs, 'spec')).indexOf(l)]!) });
    return contract.reference([a!, b], { spec: str(attrs, 'spec') }, results, regions, run);
  },
  grad: { none: 'algorithms are chosen after differentiation' },
};

/** Axes of a product that also reads sums of its left operand, which have no axes of their own. */
function withWholeSums(axes: Axes, sums: TensorType): Axes {
  const dim = { name: 'sums', size: sums.shape[0]!, role: 'whole' } as const;
  return {
    space: [...axes.space, dim],
    stages: axes.stages.map((s) => ({ ...s, pieces: s.pieces.map((p) => ({ ...p, dims: [...p.dims, dim.name], reads: [...p.reads, [{ kind: 'whole' as const, dim: dim.name }]] })) })),
  };
}

const rightLetters = (spec: string): string => spec.slice(spec.indexOf(',') + 1, spec.indexOf('->'));

/** The one stride of several axes walked as one, row-major; undefined where their elements are not evenly spaced. */
function evenStep(sizes: readonly number[], strides: readonly number[]): number | undefined {
  const axes = sizes.map((size, i) => ({ size, stride: strides[i]! })).filter((a) => a.size !== 1);
  for (let i = 0; i + 1 < axes.length; i++) if (axes[i]!.stride !== axes[i + 1]!.stride * axes[i + 1]!.size) return undefined;
  return axes.at(-1)?.stride ?? 1;
}
