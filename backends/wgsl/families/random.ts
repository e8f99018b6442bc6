/** Counter-based random numbers; the rule is in ir/ops/sequence/random.ts. */
import { num } from '../../../ir/op.ts';
import { dtypes, rowMajor } from '../../../ir/type.ts';
import { narrowed } from '../map.ts';
import { address } from '../writer.ts';
import type { ElementEmitter } from './index.ts';

export const randomElement: ElementEmitter = (e, op, index) => {
  const { w } = e;
  const { dtype, shape } = op.results[0]!.type;
  const seed = e.at(op.operands[0]!, []);
  const normal = op.name === 'randomNormal';
  const perBlock = normal ? 2 : 4;
  const element = w.let('e', address(index, rowMajor(shape)));
  const stream = `${num(op.attrs, 'stream')}u`;
  // The seed fits 32 bits: its high word is its sign.
  const words = w.let('words', w.call('philox', `u32(${element} / ${perBlock})`, stream, `u32(${seed})`, `u32(${seed} >> 31u)`));
  const at = w.let('k', `${element} % ${perBlock}`);
  if (!normal) {
    const bits = { 32: 24, 16: dtype === 'bf16' ? 8 : 11 }[dtypes[dtype].bits]!;
    return [`f32(${words}[${at}] >> ${32 - bits}u) * ${2 ** -bits}`];
  }
  const u = w.let('u', `(f32(${words}[2 * ${at}] >> 8u) + 1.0) * 5.9604645e-8`);
  const v = w.let('v', `f32(${words}[2 * ${at} + 1] >> 8u) * 5.9604645e-8`);
  return [narrowed(w, `sqrt(-2.0 * ${w.call('log_f', u)}) * ${w.call('cos_f', `6.2831853 * ${v}`)}`, dtype)];
};
