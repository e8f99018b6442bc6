/** What outlives a run: new values of state are brought home, outputs are held to the end. */
import type { Copy } from '../../../ir/tiles.ts';
import { bytesOf } from '../../../ir/type.ts';
import { exchange } from './exchange.ts';
import type { Lowering } from './lowering.ts';

/** Copies new values of state that do not overwrite the old ones to where those lie. */
export function bringStateHome(l: Lowering): void {
  const copies: Copy[] = [];
  let [largest, bytes] = [0, 0];
  for (const u of l.graph.updates) {
    const [from, to] = [l.home(u.value), l.home(u.state)];
    if (l.root(from) === to) continue;
    l.touch(from);
    copies.push({ from: from.id, to: to.id });
    largest += to.bytes;
    bytes += bytesOf(u.state.type);
  }
  if (copies.length > 0) exchange(l, copies, largest, bytes);
}

/** Holds state, constants and outputs to the last step, and nothing longer. */
export function holdToEnd(l: Lowering): void {
  const last = Math.max(0, l.now - 1);
  for (const b of l.buffers) b.death = b.kind === 'state' || b.kind === 'constant' ? last : Math.min(b.death, last);
  for (const o of l.graph.outputs) {
    const b = l.root(l.home(o.value));
    b.death = last;
    if (b.kind === 'activation') b.kind = 'output';
  }
}
