/** Refuses what run() cannot take as an input, before anything is computed or compiled for it. */
import { InputError } from './error.ts';
import type { InputValue } from './inputs.ts';
import { describe, dtypeFacts, elementCount, type TensorInfo } from './tensor.ts';

/**
 * Checks that a value is of a kind that an input may have: a tensor whose shape and data agree and whose dtype is the input's, a typed array, or numbers that
 * are nested evenly. Whether it has the input's shape is not asked. Throws InputError with the input's name, what was found and what is expected.
 */
export function checkValue(info: TensorInfo, value: unknown): asserts value is InputValue {
  const refuse = (found: string): never => {
    throw new InputError(`input ${JSON.stringify(info.name)} ${found}, expected ${describe(info)}: a tensor { dtype, shape, data }, a typed array or numbers`);
  };
  if (isNumber(value)) return;
  if (Array.isArray(value)) return checkNested(value, refuse);
  if (typeof value !== 'object' || value === null) return refuse(`is ${shown(value)}`);
  if (ArrayBuffer.isView(value)) return;
  if (!('dtype' in value && 'shape' in value && 'data' in value)) return refuse(`is ${shown(value)}`);
  const { dtype, shape, data } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeFacts, dtype)) return refuse(`is a tensor of the dtype ${shown(dtype)}`);
  if (!Array.isArray(shape) || !shape.every((d) => Number.isSafeInteger(d) && d >= 0)) return refuse(`is a tensor whose shape is ${Array.isArray(shape) ? `[${shape.map(shown).join(',')}]` : shown(shape)}`);
  if (!ArrayBuffer.isView(data)) return refuse(`is a tensor whose data is ${shown(data)}, not a typed array`);
  if (dtype !== info.dtype) return refuse(`is ${dtype}`);
  const count = (data as { readonly length?: number }).length;
  const wanted = elementCount(shape as number[]);
  if (count !== undefined && count !== wanted) refuse(`is a tensor whose shape [${shape.join(',')}] has ${wanted} elements and whose data has ${count}`);
}

const isNumber = (x: unknown): boolean => typeof x === 'number' || typeof x === 'bigint' || typeof x === 'boolean';

/** All elements of an array are numbers, or all are arrays of one length that are so themselves. */
function checkNested(value: readonly unknown[], refuse: (found: string) => never): void {
  let level = [value];
  for (let depth = 1; ; depth++) {
    const inner: (readonly unknown[])[] = [];
    const nested = Array.isArray(level[0]?.[0]);
    for (const list of level) {
      if (list.length !== level[0]!.length) refuse(`is ragged: arrays at depth ${depth} have ${level[0]!.length} and ${list.length} elements`);
      // By index: a hole is not an element of for...of with a value of its own kind.
      for (let i = 0; i < list.length; i++) {
        const x = list[i];
        if (Array.isArray(x) !== nested) refuse(`is ragged: at depth ${depth} some elements are arrays and some are not`);
        if (nested) inner.push(x as readonly unknown[]);
        else if (!isNumber(x)) refuse(`holds ${shown(x)} at depth ${depth}, index ${i}`);
      }
    }
    if (inner.length === 0) return;
    level = inner;
  }
}

/** A value in a few words. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value)}`;
  if (typeof value === 'function') return 'a function';
  if (typeof value !== 'object' || value === null) return String(value);
  if (Array.isArray(value)) return 'an array';
  const name = (value as { readonly constructor?: { readonly name?: string } }).constructor?.name ?? '';
  const keys = Object.keys(value);
  if (name !== '' && name !== 'Object') return `a ${name}`;
  return keys.length === 0 ? 'an object without properties' : `an object with the properties ${keys.slice(0, 5).join(', ')}${keys.length > 5 ? ', ...' : ''}`;
}
