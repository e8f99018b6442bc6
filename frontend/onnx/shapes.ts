/** Concrete input types: symbolic dimensions are bound by name, inferred from given shapes, or become 1. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { sameShape, sizeOf, type DType, type TensorType } from '../../ir/type.ts';
import type { DeclaredType, ValueView } from './model.ts';
import { maxElements } from './tensor.ts';

export interface InputTypes {
  readonly types: ReadonlyMap<string, TensorType>;
  /** Every symbol (or `input.axis` of a dimension without a name) with its size. */
  readonly dims: Readonly<Record<string, number>>;
  readonly warnings: readonly string[];
}

/** What a caller knows of an input: its shape, and its dtype where the value itself was given. */
export interface GivenInput {
  readonly shape: readonly number[];
  readonly dtype?: DType;
}

/** Resolves the inputs of a graph. A dimension without a name is called `input.axis`. Throws UserError where sizes contradict each other. */
export function resolveInputs(inputs: readonly ValueView[], given: ReadonlyMap<string, GivenInput>, dims: Readonly<Record<string, number>>, file: string): InputTypes {
  const sizes = new Map<string, { readonly size: number; readonly from: string }>();
  const bind = (symbol: string, size: number, from: string): void => {
    const before = sizes.get(symbol);
    if (before && before.size !== size) throw new UserError(`${file}: dimension "${symbol}" is ${before.size} by ${before.from}, but ${size} by ${from}`);
    if (!before) sizes.set(symbol, { size, from });
  };
  const symbols = new Set<string>();
  for (const v of inputs) v.type?.dims?.forEach((d, i) => typeof d !== 'number' && symbols.add(symbolOf(v, d, i)));
  for (const [symbol, size] of Object.entries(dims)) {
    if (!symbols.has(symbol)) {
      throw new UserError(`${file} has no symbolic dimension "${symbol}"${symbols.size > 0 ? `; it has ${[...symbols].map((s) => `"${s}"`).join(', ')}` : '; all its input dimensions are fixed'}`);
    }
    if (!Number.isSafeInteger(size) || size < 0) throw new UserError(`dimension "${symbol}" cannot be ${size}; give a whole number of at least 0`);
    bind(symbol, size, `--dim ${symbol}=${size}`);
  }
  for (const v of inputs) {
    const shape = given.get(v.name)?.shape;
    const declared = v.type?.dims;
    if (!shape || !declared) continue;
    const fits = shape.length === declared.length && declared.every((d, i) => typeof d !== 'number' || d === shape[i]);
    if (!fits) throw new UserError(`${file}: input "${v.name}" has shape ${showDims(v)}, but [${shape.join(',')}] was given`);
    declared.forEach((d, i) => typeof d !== 'number' && bind(symbolOf(v, d, i), shape[i]!, `the shape of input "${v.name}"`));
  }

  const guessed = [...symbols].filter((s) => !sizes.has(s));
  for (const symbol of guessed) bind(symbol, 1, 'default');
  const types = new Map<string, TensorType>();
  for (const v of inputs) types.set(v.name, concrete(v, given.get(v.name), (d, i) => (typeof d === 'number' ? d : sizes.get(symbolOf(v, d, i))!.size), file));
  return {
    types,
    dims: Object.fromEntries([...sizes].map(([symbol, { size }]) => [symbol, size])),
    warnings: guessed.length === 0 ? [] : [`${guessed.map((s) => `"${s}"`).join(', ')} ${guessed.length === 1 ? 'is' : 'are'} not bound and taken as 1; bind with ${guessed.map((s) => `--dim ${s}=N`).join(' ')}`],
  };
}

/** `[n,3,?,?]`: declared dimensions for messages. */
export const showDims = (v: { readonly type: DeclaredType | undefined }): string => (v.type?.dims ? `[${v.type.dims.map((d) => d ?? '?').join(',')}]` : '[...]');

const symbolOf = (v: ValueView, d: string | undefined, axis: number): string => d ?? `${v.name}.${axis}`;

function concrete(v: ValueView, given: GivenInput | undefined, size: (d: number | string | undefined, axis: number) => number, file: string): TensorType {
  const type = v.type;
  const what = `${file}: input "${v.name}"`;
  if (type && type.kind !== 'tensor') throw new Unsupported(`${type.kind} inputs`, `${what} is ${type.kind === 'optional' || type.kind === 'opaque' ? 'an' : 'a'} ${type.kind}; inputs have to be tensors`);
  const dtype = type?.dtype ?? given?.dtype;
  if (dtype === undefined) throw new UserError(`${what} has no element type`);
  if (dtype === 'string') throw new Unsupported('string inputs', `${what} holds strings; inputs have to be numbers or bools`);
  if (given?.dtype && given.dtype !== dtype) throw new UserError(`${what} has element type ${dtype}, but a value of ${given.dtype} was given`);
  const shape = type?.dims?.map(size) ?? given?.shape;
  if (!shape) throw new UserError(`${what} does not declare a shape, not even its rank; give the shape of this input`);
  if (sizeOf(shape) > maxElements) throw new UserError(`${what} has shape [${shape.join(',')}], ${sizeOf(shape)} elements; a tensor may have at most ${maxElements}`);
  return { dtype, shape };
}

/** Compares an inferred type with a declared one. Shapes contradict only where both are concrete in every dimension. */
export function checkDeclared(name: string, inferred: TensorType, declared: DeclaredType, where: string): void {
  const concreteDims = declared.dims?.every((d) => typeof d === 'number') ? (declared.dims) : undefined;
  const kindDiffers = declared.kind !== 'tensor' && declared.kind !== 'optional';
  const dtypeDiffers = declared.dtype !== undefined && declared.dtype !== inferred.dtype;
  const shapeDiffers = concreteDims !== undefined && !sameShape(concreteDims, inferred.shape);
  if (!kindDiffers && !dtypeDiffers && !shapeDiffers) return;
  const says = declared.kind === 'tensor' ? `${declared.dtype ?? '?'}${showDims({ type: declared })}` : `a ${declared.kind}`;
  throw new UserError(`${where} gives "${name}" the type ${inferred.dtype}[${inferred.shape.join(',')}], but the model declares it as ${says}`);
}
