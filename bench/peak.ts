/** The register-only peak: a tile of 6 x 8 sums fed from first-level cache, the ceiling of any kernel with the same instructions. */
import { Asm, type E, type Features } from '../backends/wasm/asm.ts';

const [rows, vectors, unroll, steps, calls] = [6, 2, 2, 256, 1000];

/** A function that runs the loop once and returns its speed in GFLOP/s. */
export function peakLoop(features: Features): () => number {
  const asm = new Asm(features);
  asm.m.setMemory(4, 4, undefined, [], false, false, '0');
  const name = asm.fn('peak', ['i32', 'i32', 'i32', 'i32'], undefined, (f, [a, b, n, c]) => {
    const sums = Array.from({ length: rows }, () => Array.from({ length: vectors }, () => f.vlocal()));
    const panel = Array.from({ length: vectors }, () => f.vlocal());
    const t = f.vlocal();
    const body: E[] = [];
    for (let u = 0; u < unroll; u++) {
      panel.forEach((l, j) => body.push(f.vset(l, asm.vload(b!, 16 * (u * vectors + j)))));
      sums.forEach((row, i) => {
        body.push(f.vset(t, asm.vload1(a!, 4 * (u * rows + i), f)));
        row.forEach((l, j) => body.push(f.vset(l, asm.vmadd(f.vget(t), f.vget(panel[j]!), f.vget(l)))));
      });
    }
    const top = f.label('k');
    body.push(f.inc(a!, 4 * rows * unroll), f.inc(b!, 16 * vectors * unroll), asm.m.br(top, f.tee(n!, asm.sub(f.get(n!), asm.i32(unroll)))));
    return [asm.m.loop(top, asm.m.block(null, body)), ...sums.flatMap((row, i) => row.map((l, j) => asm.vstore(c!, 16 * (i * vectors + j), f.vget(l))))];
  });
  asm.m.addFunctionExport(name, 'peak');
  const binary = asm.m.emitBinary();
  asm.m.dispose();
  const peak = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(binary))).exports['peak'] as (a: number, b: number, n: number, c: number) => void;
  return () => {
    const start = performance.now();
    for (let i = 0; i < calls; i++) peak(0, 65536, steps, 131072);
    return (2 * rows * vectors * 4 * steps * calls) / (performance.now() - start) / 1e6;
  };
}
