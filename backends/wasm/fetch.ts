/** Bringing memory into cache. */
import type { Asm, E } from './asm.ts';

/** Places from which lines are fetched at once: a core follows several streams faster than one. */
const streams = 4;

/** Brings `bytes` (less a rest below 256) from an address on into cache, a load a line, for code that itself would ask for them too late and a few at a time. */
export function fetch(asm: Asm, from: E, bytes: E): E[] {
  const fn = asm.fn('fetch', ['i32', 'i32'], 'i32', (f, [at, bytes]) => {
    const { m } = asm;
    const [seen, end] = [f.local('i32'), f.local('i32')];
    const places = [at!, ...Array.from({ length: streams - 1 }, () => f.local('i32'))];
    const top = f.label('line');
    return [
      f.set(bytes!, asm.times(m.i32.div_u(f.get(bytes!), asm.i32(64 * streams)), 64)),
      ...places.slice(1).map((p, i) => f.set(p, asm.add(f.get(places[i]!), f.get(bytes!)))),
      f.set(end, asm.add(f.get(at!), f.get(bytes!))),
      f.if(f.get(bytes!), [m.loop(top, m.block(null, [
        ...places.map((p) => f.set(seen, m.i32.or(f.get(seen), m.i32.load(0, 4, f.get(p))))),
        ...places.map((p) => f.inc(p, 64)),
        m.br(top, m.i32.lt_u(f.get(at!), f.get(end))),
      ]))]),
      f.get(seen),
    ];
  });
  return [asm.m.drop(asm.call(fn, [from, bytes], 'i32'))];
}
