/** Random tensors: Philox 4x32-10, as ir/ops/sequence/random.ts defines the values. */
import { num } from '../../ir/op.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, type DType } from '../../ir/type.ts';
import type { Asm, E, Fn, Local } from './asm.ts';
import { storeElement } from './dtype.ts';
import { eachNumber, offsetOfNumber } from './elements.ts';
import { kernelKey, type Emitter } from './kernel.ts';
import { callDouble } from './math/double.ts';

/** Elements of a chunk: a multiple of a block's four. */
const perChunk = 4096;
const significands: Readonly<Partial<Record<DType, number>>> = { f32: 24, f16: 11, bf16: 8 };

export const emitRandom: Emitter = (asm, op, operands, results) => {
  const y = results[0]!;
  const { dtype } = y.type;
  const normal = op.name === 'randomNormal';
  const perBlock = normal || dtype === 'f64' ? 2 : 4;
  const { m } = asm;
  return eachNumber(asm, kernelKey(op, operands, results), y.type.shape, 2, perChunk, 16, dtypes[dtype].bytes, (f, n, ptrs, scratch) => {
    const index = m.i32.and(f.get(n), asm.i32(perBlock - 1));
    const at = f.local('i32');
    // The words of a block are made at its first element, which is where a chunk starts.
    const block = f.if(m.i32.eqz(index), [asm.call(philox(asm), [m.i32.div_u(f.get(n), asm.i32(perBlock)), asm.i32(num(op.attrs, 'stream') | 0), f.get(ptrs[0]!), f.get(scratch)])]);
    const place = asm.add(f.get(ptrs[1]!), offsetOfNumber(f, y, n));
    const words = f.set(at, asm.add(f.get(scratch), asm.times(m.i32.and(f.get(n), asm.i32(perBlock - 1)), 16 / perBlock)));
    return [block, words, storeValue(f, y, place, at, normal)];
  });
};

function storeValue(f: Fn, y: Placed, place: E, at: Local, normal: boolean): E {
  const { asm } = f;
  const { m } = asm;
  const { dtype } = y.type;
  const word = (k: number, shift: number): E => m.f64.convert_u.i32(m.i32.shr_u(m.i32.load(4 * k, 4, f.get(at)), asm.i32(shift)));
  const k = (x: number): E => m.f64.const(x);
  const store = (v: E): E => storeElement(asm, dtype, place, dtype === 'f64' ? v : m.f32.demote(v));
  if (normal) {
    const u = m.f64.mul(m.f64.add(word(0, 8), k(1)), k(2 ** -24));
    const v = m.f64.mul(word(1, 8), k(2 ** -24));
    return store(m.f64.mul(m.f64.sqrt(m.f64.mul(k(-2), callDouble(asm, 'log', [u]))), callDouble(asm, 'cos', [m.f64.mul(k(2 * Math.PI), v)])));
  }
  if (dtype === 'f64') return store(m.f64.mul(m.f64.add(m.f64.mul(word(0, 6), k(2 ** 27)), word(1, 5)), k(2 ** -53)));
  const bits = significands[dtype] ?? 24;
  return store(m.f64.mul(word(0, 32 - bits), k(2 ** -bits)));
}

/** Writes the four words of counter (block, 0, stream, 0) under the key that lies at an address. */
function philox(asm: Asm): string {
  return asm.fn('philox', ['i32', 'i32', 'i32', 'i32'], undefined, (f, [block, stream, key, out]) => {
    const { m } = asm;
    const c = [0, 1, 2, 3].map(() => f.local('i32'));
    const [k0, k1, round] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const [p, q] = [f.local('i64'), f.local('i64')];
    const product = (factor: bigint, x: Local): E => m.i64.mul(m.i64.const(factor), m.i64.extend_u(f.get(x)));
    const high = (x: Local): E => m.i32.wrap(m.i64.shr_u(f.get(x), m.i64.const(32n)));
    const low = (x: Local): E => m.i32.wrap(f.get(x));
    return [
      f.set(c[0]!, f.get(block!)),
      f.set(c[2]!, f.get(stream!)),
      f.set(k0, m.i32.load(0, 4, f.get(key!))),
      f.set(k1, m.i32.load(4, 4, f.get(key!))),
      f.repeat(round, 0, 10, 1, [
        f.set(p, product(0xd2511f53n, c[0]!)),
        f.set(q, product(0xcd9e8d57n, c[2]!)),
        f.set(c[0]!, m.i32.xor(m.i32.xor(high(q), f.get(c[1]!)), f.get(k0))),
        f.set(c[2]!, m.i32.xor(m.i32.xor(high(p), f.get(c[3]!)), f.get(k1))),
        f.set(c[1]!, low(q)),
        f.set(c[3]!, low(p)),
        f.inc(k0, 0x9e3779b9 | 0),
        f.inc(k1, 0xbb67ae85 | 0),
      ]),
      ...c.map((l, i) => m.i32.store(4 * i, 4, f.get(out!), f.get(l))),
    ];
  });
}
