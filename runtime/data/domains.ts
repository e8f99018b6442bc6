import { InputError } from '../error.ts';
import { elementCount, type Tensor } from '../tensor.ts';
import { countOf, plainNormalisation, type Samples } from './samples.ts';

/** Joins data sets, each a domain by its place in the list. Where they differ in type, samples become f32 (bytes from 0 to 1) and targets f64. */
export function joinDomains(sets: readonly Samples[]): Samples {
  const [first] = sets;
  if (!first) throw new InputError('there are no data sets to join');
  for (const { x, y, name } of sets) {
    const count = x.shape[0] ?? 0;
    if (y.shape[0] !== count) throw new InputError(`${name}: there are ${count} samples and ${y.shape[0] ?? 0} targets; their numbers must agree`);
    for (const [what, own, wanted] of [['sample', x, first.x], ['target', y, first.y]] as const) {
      if (sizeOfEach(own) !== sizeOfEach(wanted)) throw new InputError(`${name}: a ${what} has ${sizeOfEach(own)} numbers, one of ${first.name} ${sizeOfEach(wanted)}; domains must have the same`);
    }
  }
  const domains = new Int32Array(sets.reduce((n, s) => n + countOf(s), 0));
  sets.reduce((at, s, d) => (domains.fill(d, at, at + countOf(s)), at + countOf(s)), 0);
  return {
    ...first, name: sets.map((s) => s.name).join(' + '), domains,
    x: joined(sets.map((s) => s.x), 'f32', sets.map((s) => plainNormalisation(s).scale)),
    y: joined(sets.map((s) => s.y), 'f64', sets.map(() => 1)),
  };
}

const sizeOfEach = (t: Tensor): number => elementCount(t.shape.slice(1));

/** Tensors one behind the other; of type `common`, each times its scale, where their own types differ. */
function joined(tensors: readonly Tensor[], common: 'f32' | 'f64', scales: readonly number[]): Tensor {
  const [first] = tensors as [Tensor];
  const same = tensors.every((t) => t.dtype === first.dtype);
  const length = tensors.reduce((n, t) => n + t.data.length, 0);
  const data = same ? new (first.data.constructor as new (length: number) => Tensor['data'])(length) : common === 'f32' ? new Float32Array(length) : new Float64Array(length);
  let at = 0;
  for (const [i, t] of tensors.entries()) {
    data.set((same ? t.data : Float64Array.from(t.data as ArrayLike<number | bigint>, (v) => Number(v) * scales[i]!)) as never, at);
    at += t.data.length;
  }
  return { dtype: same ? first.dtype : common, shape: [tensors.reduce((n, t) => n + t.shape[0]!, 0), ...first.shape.slice(1)], data };
}
