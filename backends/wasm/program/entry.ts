/** The function of one entry: what each thread does, and where it waits for the others. */
import type { Entry } from '../../../ir/tile.ts';
import { control } from '../../../runtime/control.ts';
import type { Asm, E } from '../asm.ts';
import type { Node, ProgramLayout } from './node.ts';
import { barrier, forChunks, takeTurn } from './sync.ts';

export interface RunLayout extends ProgramLayout { readonly scratch: number; readonly scratchPerThread: number; readonly rows: number }

/** Adds the function of an entry, of the thread's number, and returns its name. */
export function addEntry(asm: Asm, entry: Entry, nodes: readonly Node[], layout: RunLayout): string {
  const { m } = asm;
  return asm.fn(`entry ${entry.name}`, ['i32'], undefined, (f, [thread]) => {
    const scratch = f.local('i32');
    const chunk = f.local('i32');
    const start = f.local('f64');
    const profiling = layout.profile >= 0;
    const mark = (row: number): E => asm.call(markFunction(asm, layout.profile), [asm.i32(row), f.get(start)]);
    const clock = (): E => f.set(start, asm.call('clock', [], 'f64'));
    const call = (node: Node & { kind: 'kernel' }): E => asm.call(node.code.fn, [f.get(chunk), f.get(scratch), ...node.args(f, scratch)]);
    const stepIs = (row: number): E => m.i32.store(0, 4, asm.i32(control.step), asm.i32(row));

    /** All the work of a node on this thread. */
    const alone = (node: Node): E[] => {
      switch (node.kind) {
        case 'kernel': {
          const work = node.code.chunks === 1 ? [f.set(chunk, asm.i32(0)), call(node)] : [f.repeat(chunk, 0, node.code.chunks, 1, [call(node)])];
          return [stepIs(node.row), ...work];
        }
        case 'sequence': return node.nodes.flatMap(alone);
        case 'if': return [f.if(m.i32.load8_u(0, 1, asm.i32(node.condition)), timedAll(node.then), timedAll(node.otherwise))];
        case 'loop': {
          const top = f.label('loop');
          return [begin(node), m.loop(top, f.if(goesOn(node), [...timedAll(node.body), advance(node), m.br(top)]))];
        }
      }
    };
    const timedAll = (list: readonly Node[]): E[] => list.flatMap((n) => (profiling && (n.kind === 'kernel' || n.kind === 'sequence') ? [clock(), ...alone(n), mark(n.row)] : alone(n)));
    const goesOn = (node: Node & { kind: 'loop' }): E => m.i32.and(
      m.i32.load8_u(0, 1, asm.i32(node.proceed)),
      m.i64.lt_s(m.i64.load(0, 8, asm.i32(node.index)), m.i64.load(0, 8, asm.i32(node.limit))),
    );
    const begin = (node: Node & { kind: 'loop' }): E => m.i64.store(0, 8, asm.i32(node.index), m.i64.const(0n));
    const advance = (node: Node & { kind: 'loop' }): E => m.i64.store(0, 8, asm.i32(node.index), m.i64.add(m.i64.load(0, 8, asm.i32(node.index)), m.i64.const(1n)));

    /** The share of this thread in a list of nodes; ends with all threads past a barrier. */
    const shared = (list: readonly Node[]): E[] => {
      const code: E[] = [];
      for (let i = 0; i < list.length;) {
        // Neighbours that cannot be shared are run by whoever comes first, without barriers between them.
        let end = i;
        while (end < list.length && isSolo(list[end]!)) end++;
        if (end > i) {
          code.push(f.if(m.i32.eqz(takeTurn(asm)), timedAll(list.slice(i, end))), barrier(asm));
          i = end;
          continue;
        }
        const node = list[i++]!;
        if (node.kind === 'kernel') {
          const work = [stepIs(node.row), forChunks(f, node.code.chunks, chunk, thread!, [call(node)]), barrier(asm)];
          code.push(...(profiling ? [clock(), ...work, f.if(m.i32.eqz(f.get(thread!)), [mark(node.row)])] : work));
        } else if (node.kind === 'if') {
          // Nobody may overwrite the condition before everybody has read it.
          const taken = f.local('i32');
          code.push(f.set(taken, m.i32.load8_u(0, 1, asm.i32(node.condition))), barrier(asm), f.if(f.get(taken), shared(node.then), shared(node.otherwise)));
        } else if (node.kind === 'loop') {
          const top = f.label('loop');
          const on = f.local('i32');
          const step = [f.if(m.i32.eqz(takeTurn(asm)), [advance(node)]), barrier(asm)];
          code.push(f.if(m.i32.eqz(takeTurn(asm)), [begin(node)]), barrier(asm));
          code.push(m.loop(top, m.block(null, [f.set(on, goesOn(node)), barrier(asm), f.if(f.get(on), [...shared(node.body), ...step, m.br(top)])])));
        }
      }
      return code;
    };
    const prepare = profiling ? [f.if(m.i32.eqz(f.get(thread!)), [m.memory.fill(asm.i32(layout.profile), asm.i32(0), asm.i32(16 * layout.rows))]), barrier(asm)] : [];
    return [f.set(scratch, asm.add(asm.i32(layout.scratch), asm.times(f.get(thread!), layout.scratchPerThread))), ...prepare, ...shared(nodes)];
  });
}

/** Whether a node is work for one thread throughout. */
function isSolo(node: Node): boolean {
  switch (node.kind) {
    case 'kernel': return node.code.chunks === 1;
    case 'sequence': return true;
    case 'if': return node.then.every(isSolo) && node.otherwise.every(isSolo);
    case 'loop': return node.body.every(isSolo);
  }
}

/** Adds the time since `start` to a step's entry: first start, and start plus the sum of durations. */
function markFunction(asm: Asm, profile: number): string {
  const { m } = asm;
  return asm.fn('mark', ['i32', 'f64'], undefined, (f, [row, start]) => {
    const p = f.local('i32');
    const now = (): E => asm.call('clock', [], 'f64');
    return [
      f.set(p, asm.add(asm.i32(profile), asm.times(f.get(row!), 16))),
      m.if(
        m.f64.eq(m.f64.load(0, 8, f.get(p)), m.f64.const(0)),
        m.block(null, [m.f64.store(0, 8, f.get(p), f.get(start!)), m.f64.store(8, 8, f.get(p), now())]),
        m.f64.store(8, 8, f.get(p), m.f64.add(m.f64.load(8, 8, f.get(p)), m.f64.sub(now(), f.get(start!)))),
      ),
    ];
  });
}
