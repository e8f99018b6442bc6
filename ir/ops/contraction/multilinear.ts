/** Exact integer arithmetic for functions that are sums of products, on top of float64 loops. */
import { fresh } from '../helpers.ts';
import { isBig } from '../../number.ts';
import type { RefTensor } from '../../op.ts';
import { dtypes, isFloat, type TensorType } from '../../type.ts';

/**
 * Applies f, which is linear in each of its operands and sums at most `terms` products per result element. Integers come out exact modulo
 * 2^bits: where a sum might leave the exact range of float64, f is applied to limbs of the operands and the results are put together.
 */
export function multilinear(operands: readonly RefTensor[], result: TensorType, terms: number, f: (...data: Float64Array[]) => Float64Array): RefTensor {
  if (isFloat(result.dtype)) return { ...result, data: f(...operands.map(asNumbers)) };
  const bound = operands.reduce((product, t) => product * magnitude(t), terms);
  const out = fresh(result);
  if (bound < 2 ** 52) {
    const exact = f(...operands.map(asNumbers));
    if (out.data instanceof Float64Array) return { ...result, data: exact };
    for (let i = 0; i < exact.length; i++) out.data[i] = BigInt(exact[i]!);
    return out;
  }
  const { bits } = dtypes[result.dtype];
  const limb = Math.max(1, Math.floor((52 - Math.log2(terms)) / operands.length));
  const limbs = operands.map((t) => limbsOf(t, bits, limb));
  const sums = new BigInt64Array(out.data.length);
  const add = (chosen: readonly Float64Array[], shift: number): void => {
    if (shift >= bits) return;
    const next = limbs[chosen.length];
    if (next) return next.forEach((part, i) => add([...chosen, part], shift + i * limb));
    const part = f(...chosen);
    for (let i = 0; i < part.length; i++) sums[i]! += BigInt(part[i]!) << BigInt(shift);
  };
  add([], 0);
  if (out.data instanceof Float64Array) for (let i = 0; i < sums.length; i++) out.data[i] = Number(BigInt.asIntN(bits, sums[i]!));
  else out.data.set(sums);
  return out;
}

const asNumbers = (t: RefTensor): Float64Array => (t.data instanceof Float64Array ? t.data : Float64Array.from(t.data, Number));

function magnitude(t: RefTensor): number {
  let most = 0;
  for (const v of asNumbers(t)) most = Math.max(most, Math.abs(v));
  return most;
}

/** Unsigned limbs, the lowest first: t = Σ limb_i · 2^(i·width) modulo 2^bits. */
function limbsOf(t: RefTensor, bits: number, width: number): readonly Float64Array[] {
  const values = isBig(t.dtype) ? Array.from(t.data as BigInt64Array) : Array.from(t.data as Float64Array, BigInt);
  const mask = (1n << BigInt(width)) - 1n;
  const count = Math.ceil(bits / width);
  return Array.from({ length: count }, (_, i) => Float64Array.from(values, (v) => Number((BigInt.asUintN(bits, v) >> BigInt(i * width)) & mask)));
}
