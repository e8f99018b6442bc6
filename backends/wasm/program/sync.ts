/** How the threads of a run meet: chunk counters and barriers in the control block (runtime/control.ts). */
import { control } from '../../../runtime/control.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';

/** Tests of the generation before a thread goes to sleep: some tens of microseconds. */
const spins = 20_000;
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
    const waiting = f.label('waiting');
    const aborted = (): E => f.if(load(control.abort), [m.unreachable()]);
    const threads = (): E => m.i32.load(0, 4, at(control.threads));
    return [
      f.if(m.i32.le_s(threads(), m.i32.const(1)), [m.i32.store(0, 4, at(control.chunk), m.i32.const(0)), m.return()]),
      aborted(),
      f.set(generation, load(control.barrierGeneration)),
      f.if(m.i32.eq(m.i32.atomic.rmw.add(0, at(control.barrierCount), m.i32.const(1)), m.i32.sub(threads(), m.i32.const(1))), [
        m.i32.atomic.store(0, at(control.barrierCount), m.i32.const(0)),
        m.i32.atomic.store(0, at(control.chunk), m.i32.const(0)),
        m.i32.atomic.store(0, at(control.barrierGeneration), m.i32.add(f.get(generation), m.i32.const(1))),
        m.drop(m.memory.atomic.notify(at(control.barrierGeneration), m.i32.const(-1))),
        m.return(),
      ]),
      f.set(left, m.i32.const(spins)),
      m.loop(waiting, m.block(null, [
        f.if(m.i32.ne(load(control.barrierGeneration), f.get(generation)), [aborted(), m.return()]),
        f.if(f.get(left), [f.inc(left, -1), m.br(waiting)]),
        m.drop(m.memory.atomic.wait32(at(control.barrierGeneration), f.get(generation), m.i64.const(sleepNanoseconds))),
        aborted(),
        m.br(waiting),
      ])),
    ];
  });
  return asm.call(fn, []);
}

/** Takes the next chunk of the current step. */
export const takeChunk = (asm: Asm): E => asm.m.i32.atomic.rmw.add(0, asm.i32(control.chunk), asm.i32(1));

/** Runs `work` for every chunk that this thread gets. */
export function forChunks(f: Fn, chunks: number, chunk: Local, work: readonly E[]): E {
  const { m } = f.asm;
  const next = f.label('chunk');
  return m.loop(next, f.if(m.i32.lt_u(f.tee(chunk, takeChunk(f.asm)), m.i32.const(chunks)), [...work, m.br(next)]));
}
