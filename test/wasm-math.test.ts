/** The wasm backend's mathematical functions against Math in float64, over the whole range of their arguments. */
import { describe, expect, it } from 'vitest';
import { Asm, type E, type Features } from '../backends/wasm/asm.ts';
import { callDouble } from '../backends/wasm/math/double.ts';
import { callVector, inlineVector } from '../backends/wasm/math/vector.ts';
import { emitVec } from '../backends/wasm/elementwise/index.ts';
import type { Op } from '../ir/graph.ts';

/** Adds tables to a module that imports its memory, and runs it. */
function instantiate(asm: Asm, exported: string): { memory: WebAssembly.Memory; go: (n: number) => void } {
  const { m } = asm;
  m.addFunctionExport(exported, 'go');
  const binary = asm.finish(16, 16) as Uint8Array<ArrayBuffer>;
  expect(m.validate()).toBe(1);
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory } });
  m.dispose();
  return { memory, go: instance.exports['go'] as (n: number) => void };
}

const inAt = 0x10000;
const outAt = 0x80000;

/** Runs `body(pointer)` for every 16-byte group of the inputs. */
function loopOver(features: Features, bytes: number, body: (asm: Asm, load: E, store: (v: E) => E) => E): (x: Float32Array | Float64Array) => Float32Array | Float64Array {
  const asm = new Asm(features, 1024);
  const { m } = asm;
  const fn = asm.fn('go', ['i32'], undefined, (f, [n]) => {
    const p = f.local('i32');
    const ptr = (at: number): E => m.i32.add(f.get(p), m.i32.const(at));
    const load = bytes === 16 ? m.v128.load(0, 4, ptr(inAt)) : m.f64.load(0, 8, ptr(inAt));
    const store = (v: E): E => (bytes === 16 ? m.v128.store(0, 4, ptr(outAt), v) : m.f64.store(0, 8, ptr(outAt), v));
    return [f.loop(p, m.i32.const(0), () => f.get(n!), bytes, [body(asm, load, store)])];
  });
  const { memory, go } = instantiate(asm, fn);
  return (x) => {
    const Array = bytes === 16 ? Float32Array : Float64Array;
    new Array(memory.buffer, inAt, x.length).set(x);
    go(x.byteLength);
    return new Array(memory.buffer, outAt, x.length).slice();
  };
}

const erf = (x: number): number => {
  // Series for small arguments, continued fraction for large ones: slow and independent.
  const a = Math.abs(x);
  if (a < 1.5) {
    let term = a;
    let sum = a;
    for (let n = 1; n < 120; n++) sum += (term *= (-a * a) / n) / (2 * n + 1);
    return Math.sign(x) * sum * (2 / Math.sqrt(Math.PI));
  }
  let t = 0;
  for (let k = 600; k >= 1; k--) t = k / 2 / (a + t);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + t));
};
const sigmoid = (x: number): number => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)));

const truth: Record<string, (x: number) => number> = {
  exp: Math.exp, expm1: Math.expm1, log: Math.log, log1p: Math.log1p, sin: Math.sin, cos: Math.cos, tan: Math.tan, asin: Math.asin, acos: Math.acos, atan: Math.atan,
  sinh: Math.sinh, cosh: Math.cosh, tanh: Math.tanh, asinh: Math.asinh, acosh: Math.acosh, atanh: Math.atanh, erf, sigmoid,
};

/** Every exponent, both signs, the ends of the range, and many ordinary numbers; a multiple of four of them. */
function arguments32(): Float32Array {
  const xs: number[] = [0, -0, 1, -1, Infinity, -Infinity, NaN, 3.4028234e38, -3.4028234e38, 1e-45, -1e-45, 1.1754944e-38];
  for (let e = -149; e < 128; e++) for (const s of [1, -1, 1.37, -1.83]) xs.push(s * 2 ** e);
  for (let i = 0; i < 20000; i++) xs.push((i - 10000) / 97);
  for (let i = 0; i < 4000; i++) xs.push((i - 2000) / 999);
  for (let i = 0; i < 2000; i++) xs.push((i - 1000) * 61.7);
  while (xs.length % 4) xs.push(0.5);
  return Float32Array.from(xs);
}

/** Distance in units of the last place of the larger magnitude; the smallest unit is that of subnormals. */
function ulps(got: number, want: number, precision: 24 | 53): number {
  if (Object.is(got, want) || got === want || (Number.isNaN(got) && Number.isNaN(want))) return 0;
  if (!Number.isFinite(got) || !Number.isFinite(want)) return Infinity;
  const least = precision === 24 ? -149 : -1074;
  return Math.abs(got - want) / 2 ** Math.max(Math.floor(Math.log2(Math.abs(want))) - precision + 1, least);
}

function worst(got: ArrayLike<number>, xs: ArrayLike<number>, f: (x: number) => number, precision: 24 | 53): { at: number; got: number; want: number; error: number } {
  let bad = { at: 0, got: 0, want: 0, error: 0 };
  for (let i = 0; i < xs.length; i++) {
    const want = precision === 24 && !Number.isFinite(Math.fround(f(xs[i]!))) ? Math.fround(f(xs[i]!)) : f(xs[i]!);
    const error = ulps(got[i]!, want, precision);
    if (!(error <= bad.error)) bad = { at: xs[i]!, got: got[i]!, want, error };
  }
  return bad;
}

describe('functions of four f32 lanes', () => {
  const xs = arguments32();
  for (const features of ['simd', 'relaxed'] as const) {
    for (const name of ['exp', 'expm1', 'log', 'log1p', 'tanh', 'erf', 'sigmoid']) {
      const bound = name === 'erf' ? 5 : 3;
      it(`${name} is within ${bound} units in the last place, ${features}`, () => {
        const got = loopOver(features, 16, (asm, load, store) => store(callVector(asm, name, load)))(xs);
        const bad = worst(got, xs, truth[name]!, 24);
        // Below e^-87 sigmoid flushes to zero.
        if (name === 'sigmoid' && bad.error > bound) expect(bad.want).toBeLessThan(1.7e-38);
        else expect(bad).toMatchObject({ error: expect.toSatisfy((e: number) => e <= bound) as number });
      });
    }
    for (const name of ['sin', 'cos']) {
      it(`${name} is right to 1e-7 for every argument, ${features}`, () => {
        const value = { type: { dtype: 'f32', shape: [] }, name: undefined } as const;
        const op: Op = { name, operands: [value], attrs: {}, results: [value], regions: [], source: [] };
        const asm = new Asm(features, 1024);
        const { m } = asm;
        const fn = asm.fn('go', ['i32'], undefined, (f, [n]) => {
          const p = f.local('i32');
          return [f.loop(p, m.i32.const(0), () => f.get(n!), 16, [
            m.v128.store(0, 4, m.i32.add(f.get(p), m.i32.const(outAt)), emitVec(f, op, [[m.v128.load(0, 4, m.i32.add(f.get(p), m.i32.const(inAt)))]])[0]!),
          ])];
        });
        const { memory, go } = instantiate(asm, fn);
        new Float32Array(memory.buffer, inAt, xs.length).set(xs);
        go(xs.byteLength);
        const got = new Float32Array(memory.buffer, outAt, xs.length);
        let bad = { x: 0, got: 0, want: 0, error: 0 };
        for (let i = 0; i < xs.length; i++) {
          const want = truth[name]!(xs[i]!);
          const error = Number.isNaN(want) && Number.isNaN(got[i]!) ? 0 : Math.abs(got[i]! - want);
          if (!(error <= bad.error)) bad = { x: xs[i]!, got: got[i]!, want, error };
        }
        expect(bad).toMatchObject({ error: expect.toSatisfy((e: number) => e <= 1e-7) as number });
      });
    }
  }
  it('the inlined form gives the same bits as the called one', () => {
    const called = loopOver('simd', 16, (asm, load, store) => store(callVector(asm, 'sigmoid', load)))(xs);
    const asm = new Asm('simd', 1024);
    const { m } = asm;
    const fn = asm.fn('go', ['i32'], undefined, (f, [n]) => {
      const p = f.local('i32');
      return [f.loop(p, m.i32.const(0), () => f.get(n!), 16, [
        m.v128.store(0, 4, m.i32.add(f.get(p), m.i32.const(outAt)), inlineVector(f, 'sigmoid', [m.v128.load(0, 4, m.i32.add(f.get(p), m.i32.const(inAt)))])[0]!),
      ])];
    });
    const { memory, go } = instantiate(asm, fn);
    new Float32Array(memory.buffer, inAt, xs.length).set(xs);
    go(xs.byteLength);
    expect(new Int32Array(memory.buffer, outAt, xs.length)).toEqual(new Int32Array(called.buffer));
  });
});

describe('functions of f64', () => {
  const xs = Float64Array.from(arguments32());
  // The bound of each function: where a reference implementation differs by rounding of intermediate steps, a few units; absolute for circular ones.
  for (const [name, f] of Object.entries(truth)) {
    it(`${name} is right`, () => {
      const got = loopOver('plain', 8, (asm, load, store) => store(callDouble(asm, name, [load])))(xs);
      let bad = { x: 0, got: 0, want: 0, error: 0 };
      for (let i = 0; i < xs.length; i++) {
        const want = f(xs[i]!);
        const close = ulps(got[i]!, want, 53) <= 16 || Math.abs(got[i]! - want) < (name === 'tan' ? 1e-13 * (1 + want * want) : 4e-15);
        if (!close && !(Number.isNaN(want) && Number.isNaN(got[i]!))) bad = { x: xs[i]!, got: got[i]!, want, error: ulps(got[i]!, want, 53) };
      }
      expect(bad.error, JSON.stringify(bad)).toBe(0);
    });
  }
  const two = (name: string, f: (x: number, y: number) => number, close: (got: number, want: number) => boolean): void => {
    it(`${name} is right`, () => {
      const special = [0, -0, 1, -1, 0.5, -0.5, 2, -2, 3, -3, 7.25, -1e10, 1e300, 1e-300, Infinity, -Infinity, NaN, 65, -65, 1.5];
      const asm = new Asm('plain', 1024);
      const { m } = asm;
      const fn = asm.fn('go', ['i32'], undefined, (g, [n]) => {
        const p = g.local('i32');
        const at = (k: number): E => m.i32.add(g.get(p), m.i32.const(k));
        return [g.loop(p, m.i32.const(0), () => g.get(n!), 8, [m.f64.store(0, 8, at(outAt), callDouble(asm, name, [m.f64.load(0, 8, at(inAt)), m.f64.load(0, 8, at(inAt + 0x8000))]))])];
      });
      const { memory, go } = instantiate(asm, fn);
      const pairs = special.flatMap((x) => special.map((y) => [x, y] as const));
      new Float64Array(memory.buffer, inAt, pairs.length).set(pairs.map(([x]) => x));
      new Float64Array(memory.buffer, inAt + 0x8000, pairs.length).set(pairs.map(([, y]) => y));
      go(pairs.length * 8);
      const got = new Float64Array(memory.buffer, outAt, pairs.length);
      pairs.forEach(([x, y], i) => {
        const want = f(x, y);
        expect(close(got[i]!, want) || (Number.isNaN(want) && Number.isNaN(got[i]!)), `${name}(${x}, ${y}) = ${got[i]!}, not ${want}`).toBe(true);
      });
    });
  };
  const relative = (got: number, want: number): boolean => got === want || Math.abs(got - want) <= 1e-12 * Math.abs(want) + 1e-300;
  two('pow', (x, y) => (x === 1 || y === 0 ? 1 : Math.abs(x) === 1 && Math.abs(y) === Infinity ? 1 : x ** y), relative);
  two('fmod', (x, y) => x % y, Object.is);
  two('atan2', Math.atan2, relative);
  two('mod', (x, y) => (x % y !== 0 && x % y < 0 !== y < 0 ? (x % y) + y : x % y), relative);
});
