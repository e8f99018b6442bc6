/** Exchanges: what tiles send each other between computations. */
import type { Op, Value } from '../../../ir/graph.ts';
import type { Copy } from '../../../ir/tiles.ts';
import { dtypes } from '../../../ir/type.ts';
import type { Choice } from '../choose.ts';
import { exchangeCycles } from '../cost.ts';
import { largestSlice, totalElements } from '../divide.ts';
import { copySenders, programBytes, programKey } from '../exchange-code.ts';
import { timesOf } from '../serial.ts';
import { streamedBytes } from '../step-cycles.ts';
import type { Lowering, Read } from './lowering.ts';

/** Brings operands to where an op reads them, those for which `wanted` holds, in one exchange; those that lie there already are read in place. */
export function gather(l: Lowering, op: Op, choice: Choice, wanted: (k: number) => boolean): Read[] {
  const reads: Read[] = [];
  const copies: Copy[] = [];
  let [largest, bytes] = [0, 0];
  const known = new Map<Value, Read['buffer']>();
  op.operands.forEach((v, k) => {
    if (!wanted(k)) return;
    const home = l.home(v);
    const slice = choice.needs[k]!;
    if (choice.local[k]) {
      reads.push({ buffer: home, slice });
      return;
    }
    let buffer = known.get(v);
    if (!buffer) {
      buffer = l.newBuffer(v.type, `${home.value}.copy`, 'gather', slice, []);
      known.set(v, buffer);
      copies.push({ from: home.id, to: buffer.id });
      const size = dtypes[v.type.dtype].bytes;
      largest += largestSlice(slice) * size;
      bytes += totalElements(slice) * size;
      l.touch(home);
    }
    reads.push({ buffer, slice });
  });
  if (copies.length > 0) exchange(l, copies, largest, bytes, wanted(0) ? streamedBytes(choice) : 0);
  return reads;
}

/** Adds an exchange. `largest`: bytes that a tile receives at most; `bytes`: all tiles together; `streamed`: of the largest, those that pairs of tiles receive together. */
export function exchange(l: Lowering, copies: readonly Copy[], largest: number, bytes: number, streamed = 0): void {
  const sent = Math.max(0, ...copies.filter((c) => !c.merge).map((c) => l.buffers[c.from]!.bytes / timesOf(l.buffers[c.to]!.spread)));
  const code = copies.reduce((n, x) => {
    const [from, to] = [l.buffers[x.from]!, l.buffers[x.to]!];
    return n + l.once(programKey(from, to, x.merge === true), () => programBytes(l.target, copySenders(from, to, x.merge === true)));
  }, 0);
  l.push({ kind: 'exchange', index: l.now, copies, bytes, largest, cycles: { compute: 0, exchange: exchangeCycles(l.target, largest, streamed, sent), sync: 0 }, code });
}
