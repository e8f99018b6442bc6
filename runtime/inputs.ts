/** Checks what a caller passes to run() and turns it into bytes. */
import { checkValue, shown } from './check-input.ts';
import { InputError } from './error.ts';
import type { DTypeName, Manifest } from './manifest.ts';
import { bytesOf, describe, dtypeFacts, elementCount, tensorFromBytes, toBFloat16, toFloat16, type Tensor, type TensorInfo, type TensorOf, type TypedArray } from './tensor.ts';

/** Numbers, possibly nested; nested ones must have the input's shape. */
export type Numbers = number | bigint | boolean | readonly Numbers[];

/** What run() takes for one input: a tensor, the typed array of its dtype in row-major order, or plain numbers. */
export type InputValue = Tensor | TypedArray | Numbers;

/** What run() takes for an input of a known dtype. */
export type InputOf<D extends DTypeName> = TensorOf<D> | TensorOf<D>['data'] | Numbers;

/** Says which inputs are missing or unknown, and which are of a kind that no input has. Bound inputs may be left out. */
export function checkInputs(manifest: Pick<Manifest, 'inputs' | 'bound'>, given: unknown): asserts given is Readonly<Record<string, InputValue>> {
  if (typeof given !== 'object' || given === null || Array.isArray(given) || ArrayBuffer.isView(given)) {
    throw new InputError(`the inputs are ${shown(given)}, expected an object with a value for each input: ${listInputs(manifest)}`);
  }
  const known = [...manifest.inputs, ...manifest.bound].map((i) => i.name);
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const near = closest(name, known);
    throw new InputError(`there is no input ${quote(name)}${near ? ` (did you mean ${quote(near)}?)` : ''}; the inputs are ${listInputs(manifest)}`);
  }
  const values = given as Readonly<Record<string, unknown>>;
  const missing = manifest.inputs.filter((i) => values[i.name] === undefined);
  if (missing.length > 0) throw new InputError(`missing ${missing.length === 1 ? 'input' : 'inputs'} ${missing.map((i) => `${quote(i.name)} (${describe(i)})`).join(', ')}`);
  for (const i of [...manifest.inputs, ...manifest.bound]) if (values[i.name] !== undefined) checkValue(i, values[i.name]);
}

/** The shape that a value states: that of a tensor or of nested arrays; undefined for a flat list of elements. */
export function statedShape(value: InputValue): readonly number[] | undefined {
  if (isTensor(value)) return value.shape;
  if (!Array.isArray(value) || !Array.isArray(value[0])) return undefined;
  const shape: number[] = [];
  for (let at: Numbers | undefined = value as Numbers; Array.isArray(at); at = (at as readonly Numbers[])[0]) shape.push((at as readonly Numbers[]).length);
  return shape;
}

/** The value as bytes in memory; views share the caller's memory. */
export function inputBytes(info: TensorInfo, value: InputValue): Uint8Array {
  const shape = statedShape(value);
  if (shape && (shape.length !== info.shape.length || shape.some((d, i) => d !== info.shape[i]))) {
    throw new InputError(`input ${quote(info.name)} has shape [${shape.join(',')}], expected ${describe(info)}`);
  }
  if (isTensor(value)) {
    if (value.dtype !== info.dtype) throw new InputError(`input ${quote(info.name)} is ${value.dtype}, expected ${describe(info)}`);
    return arrayBytes(info, value.data);
  }
  if (ArrayBuffer.isView(value)) return arrayBytes(info, value);
  const flat = (Array.isArray(value) ? value.flat(Infinity) : [value]) as (number | bigint | boolean)[];
  checkCount(info, flat.length);
  return bytesOf(fromNumbers(info, flat));
}

/** The value as a tensor. A value without a shape of its own has that of `info` where the count fits, else it is a vector (or a scalar) of what it has. */
export function tensorOf(info: TensorInfo, value: InputValue): Tensor {
  const stated = statedShape(value);
  const count = ArrayBuffer.isView(value) ? (value).length : Array.isArray(value) ? value.length : 1;
  const shape = stated ?? (count === elementCount(info.shape) ? info.shape : [count]);
  return tensorFromBytes({ dtype: info.dtype, shape }, inputBytes({ ...info, shape }, value));
}

/** Whether a value given for a bound input equals the one that the artifact was compiled for. */
export function equalsBound(bound: Manifest['bound'][number], value: InputValue): boolean {
  const given = tensorOf(bound, value);
  if (given.shape.length !== bound.shape.length || given.shape.some((d, i) => d !== bound.shape[i])) return false;
  const want = inputBytes(bound, bound.value.map((x) => (typeof x === 'string' ? parseNumber(bound, x) : x)));
  const got = bytesOf(given.data);
  return want.length === got.length && want.every((b, i) => b === got[i]);
}

const parseNumber = (info: TensorInfo, text: string): number | bigint => (dtypeFacts[info.dtype].array === BigInt64Array || dtypeFacts[info.dtype].array === BigUint64Array ? BigInt(text) : Number(text));

function isTensor(value: InputValue): value is Tensor {
  return typeof value === 'object' && !Array.isArray(value) && !ArrayBuffer.isView(value) && 'dtype' in value && 'shape' in value && 'data' in value;
}

function arrayBytes(info: TensorInfo, data: ArrayBufferView & { readonly length?: number }): Uint8Array {
  const { array } = dtypeFacts[info.dtype];
  const kind = data.constructor.name;
  // A Buffer and a clamped array are bytes too; Float16Array holds the bits that f16 wants.
  const fits = data instanceof array || (info.dtype === 'u8' && kind === 'Uint8ClampedArray') || (info.dtype === 'f16' && kind === 'Float16Array');
  if (!fits) throw new InputError(`input ${quote(info.name)} is a ${kind}, expected a ${array.name} for ${describe(info)}`);
  checkCount(info, data.length ?? 0);
  return bytesOf(data);
}

function checkCount(info: TensorInfo, count: number): void {
  const want = elementCount(info.shape);
  if (count !== want) throw new InputError(`input ${quote(info.name)} has ${count} elements, expected ${want} for ${describe(info)}`);
}

function fromNumbers(info: TensorInfo, values: readonly (number | bigint | boolean)[]): TypedArray {
  const facts = dtypeFacts[info.dtype];
  const out = new facts.array(values.length);
  const bad = (x: unknown, why: string): never => {
    throw new InputError(`input ${quote(info.name)}: ${String(x)} ${why} ${describe(info)}`);
  };
  for (const [i, x] of values.entries()) {
    if (typeof x !== 'number' && typeof x !== 'bigint' && typeof x !== 'boolean') bad(x, 'is not a number, as needed for');
    if (out instanceof BigInt64Array || out instanceof BigUint64Array) {
      if (typeof x === 'number' && !Number.isSafeInteger(x)) bad(x, 'is not a whole number that can be held exactly, as needed for');
      const big = BigInt(x);
      if ((out instanceof BigInt64Array ? BigInt.asIntN(64, big) : BigInt.asUintN(64, big)) !== big) bad(x, 'is out of range for');
      out[i] = big;
      continue;
    }
    const n = Number(x);
    if (facts.range) {
      if (!Number.isInteger(n)) bad(x, 'is not a whole number, as needed for');
      if (n < facts.range[0] || n > facts.range[1]) bad(x, 'is out of range for');
      out[i] = n;
    } else if (info.dtype === 'f16') out[i] = toFloat16(n);
    else if (info.dtype === 'bf16') out[i] = toBFloat16(n);
    else if (info.dtype === 'f32' || info.dtype === 'f64') out[i] = n;
    else bad(x, 'must be given as bits in a Uint8Array for');
  }
  return out;
}

const quote = (s: string): string => JSON.stringify(s);

const listInputs = (manifest: Pick<Manifest, 'inputs' | 'bound'>): string =>
  manifest.inputs.map((i) => `${quote(i.name)} (${describe(i)})`).join(', ') || 'none';

/** The known name that differs least, where at most a third of it differs. */
export function closest(name: string, known: readonly string[]): string | undefined {
  const scored = known.map((k) => ({ k, d: editDistance(name.toLowerCase(), k.toLowerCase()) })).sort((a, b) => a.d - b.d);
  const best = scored[0];
  return best && best.d < best.k.length && best.d <= Math.ceil(best.k.length / 3) ? best.k : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}
