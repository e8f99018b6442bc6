/** Running sums and products of long lines on a GPU, beside a plain loop. */
import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Tensor } from '../ir/type.ts';
import { gpu, onGpu, runOnGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

/** Lines of small whole numbers, whose sums are exact in any order; for products of ones and signs. */
const line = (rows: number, length: number, columns: number, product: boolean): Int32Array => Int32Array.from({ length: rows * length * columns }, (_, i) => (product ? (i % 7 === 3 ? -1 : 1) : ((i * 31) % 17) - 8));

describe.skipIf(!gpu)(onGpu('scans'), { timeout: 60_000 }, () => {
  const cases = [false, true].flatMap((exclusive) => [false, true].map((reverse) => [exclusive, reverse] as const));
  test.each(cases)('exclusive: %s, reverse: %s, of lines that one workgroup shares', async (exclusive, reverse) => {
    for (const [name, rows, length, columns] of [['cumSum', 3, 65, 5], ['cumSum', 2, 5000, 1], ['cumProd', 2, 300, 3]] as const) {
      for (const dtype of ['f32', 'i32'] as const) {
        const values = line(rows, length, columns, name === 'cumProd');
        const shape = [rows, length, columns];
        const x: Tensor = { dtype, shape, data: dtype === 'f32' ? Float32Array.from(values) : values };
        const b = new Builder('scan');
        const graph = b.finish([{ name: 'y', value: b.one(name, [b.input({ dtype, shape }, 'x')], { axis: 1, exclusive, reverse }) }]);
        const got = (await runOnGpu(graph, { x })).get('y')!.data;
        for (let r = 0; r < rows; r++) {
          for (let c = 0; c < columns; c++) {
            let running = name === 'cumSum' ? 0 : 1;
            for (let k = 0; k < length; k++) {
              const at = (r * length + (reverse ? length - 1 - k : k)) * columns + c;
              const next = name === 'cumSum' ? running + values[at]! : running * values[at]!;
              if (Number(got[at]) !== (exclusive ? running : next)) expect.fail(`${name} ${dtype} at ${r},${k},${c}: ${Number(got[at])}, expected ${exclusive ? running : next}`);
              running = next;
            }
          }
        }
      }
    }
  });
});
