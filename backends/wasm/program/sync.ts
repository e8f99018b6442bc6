/** How the threads of a run meet: chunk counters and barriers in the control block (runtime/control.ts). */
import { control } from '../../../runtime/control.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';

/** A sleeping thread looks again after this long, so that an abort cannot be missed. */
const sleepNanoseconds = 20_000_000n;

/** Waits until all threads of the run have come here; the last one resets the chunk counter. Traps where the run was aborted. */
export function barrier(asm: Asm): E {
  const fn = asm.fn('barrier', [], undefined, (f) => {
    const { m } = asm;
    const at = (address: number): E => m.i32.const(address);
    const load = (address: number): E => m.i32.atomic.load(0, at(address));
    const generation = f.local('i32');
    const left = f.local('i32');
    const region = f.local('i32');
    const waiting = f.label('waiting');
    const aborted = (): E => f.if(load(control.abort), [m.unreachable()]);
    const threads = (): E => m.i32.load(0, 4, at(control.threads));
    return [
      f.if(m.i32.le_s(threads(), m.i32.const(1)), [m.i32.store(0, 4, at(control.chunk), m.i32.const(0)), m.i32.store(0, 4, at(control.regions), m.i32.const(0)), m.return()]),
      aborted(),
      f.set(generation, load(control.barrierGeneration)),
      f.if(m.i32.eq(m.i32.atomic.rmw.add(0, at(control.barrierCount), m.i32.const(1)), m.i32.sub(threads(), m.i32.const(1))), [
        m.i32.atomic.store(0, at(control.barrierCount), m.i32.const(0)),
        m.i32.atomic.store(0, at(control.chunk), m.i32.const(0)),
        f.loop(region, m.i32.const(0), () => regionCount(asm), 1, [m.i32.atomic.store(0, asm.plus(asm.times(f.get(region), 64), control.regions), m.i32.const(0))]),
        m.i32.atomic.store(0, at(control.barrierGeneration), m.i32.add(f.get(generation), m.i32.const(1))),
        // A thread counts itself asleep before it compares the generation, so either it is seen here or it sees the new generation.
        f.if(load(control.sleepers), [m.drop(m.memory.atomic.notify(at(control.barrierGeneration), m.i32.const(-1)))]),
        m.return(),
      ]),
      f.set(left, m.i32.load(0, 4, at(control.spins))),
      m.loop(waiting, m.block(null, [
        f.if(m.i32.ne(load(control.barrierGeneration), f.get(generation)), [aborted(), m.return()]),
        f.if(f.get(left), [f.inc(left, -1), m.br(waiting)]),
        m.drop(m.i32.atomic.rmw.add(0, at(control.sleepers), m.i32.const(1))),
        m.drop(m.memory.atomic.wait32(at(control.barrierGeneration), f.get(generation), m.i64.const(sleepNanoseconds))),
        m.drop(m.i32.atomic.rmw.sub(0, at(control.sleepers), m.i32.const(1))),
        aborted(),
        m.br(waiting),
      ])),
    ];
  });
  return asm.call(fn, []);
}

/** 0 for the first thread that comes to work which cannot be shared. */
export const takeTurn = (asm: Asm): E => asm.m.i32.atomic.rmw.add(0, asm.i32(control.chunk), asm.i32(1));

/** The chunks of a step are cut into one region a thread (64 at most), so that a thread meets in its cache what it wrote a step before. */
function regionCount(asm: Asm): E {
  const { m } = asm;
  const threads = (): E => m.i32.load(0, 4, asm.i32(control.threads));
  return m.select(m.i32.lt_s(threads(), asm.i32(control.maxRegions)), threads(), asm.i32(control.maxRegions));
}

/** Runs `work` for every chunk that this thread gets: those of its own region in order, then what is left of the others'. */
export function forChunks(f: Fn, chunks: number, chunk: Local, thread: Local, work: readonly E[]): E {
  const { m } = f.asm;
  const next = f.label('chunk');
  const take = f.asm.call(takeFunction(f.asm), [f.get(thread), m.i32.const(chunks)], 'i32');
  return m.loop(next, f.if(m.i32.ge_s(f.tee(chunk, take), m.i32.const(0)), [...work, m.br(next)]));
}

/** `(thread, chunks) -> chunk`, or -1 where none is left. */
function takeFunction(asm: Asm): string {
  return asm.fn('take chunk', ['i32', 'i32'], 'i32', (f, [thread, chunks]) => {
    const { m } = asm;
    const [regions, tried, region, from, size, taken] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    const bound = (r: E): E => m.i32.div_u(m.i32.mul(r, f.get(chunks!)), f.get(regions));
    const counter = (): E => asm.plus(asm.times(f.get(region), 64), control.regions);
    return [
      f.set(regions, regionCount(asm)),
      f.loop(tried, m.i32.const(0), () => f.get(regions), 1, [
        f.set(region, m.i32.rem_u(asm.add(f.get(thread!), f.get(tried)), f.get(regions))),
        f.set(from, bound(f.get(region))),
        f.set(size, asm.sub(bound(asm.plus(f.get(region), 1)), f.get(from))),
        // A look before the count keeps threads that find nothing from writing to each other's lines.
        f.if(m.i32.lt_s(m.i32.atomic.load(0, counter()), f.get(size)), [
          f.set(taken, m.i32.atomic.rmw.add(0, counter(), m.i32.const(1))),
          f.if(m.i32.lt_s(f.get(taken), f.get(size)), [m.return(asm.add(f.get(from), f.get(taken)))]),
        ]),
      ]),
      m.i32.const(-1),
    ];
  });
}
