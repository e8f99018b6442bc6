/** A thin assembler over Binaryen: modules, functions with typed locals, structured loops, and vectors that fall back to scalars. */
import binaryen from 'binaryen';
import { usualDivision, type Division } from '../../ir/tile.ts';

/** A Binaryen expression. Expressions are trees: each may be used once. */
export type E = number;
/** Four f32 (or i32) lanes: one v128 expression, or four scalar expressions where the module has no SIMD. */
export type Vec = readonly E[];
export type Ty = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';
export type LaneTy = 'f32' | 'i32';

/** Binaryen's value types. */
export const types: Readonly<Record<Ty, number>> = { i32: binaryen.i32, i64: binaryen.i64, f32: binaryen.f32, f64: binaryen.f64, v128: binaryen.v128 };

/** `plain`: no SIMD; `simd`: 128-bit; `relaxed`: with relaxed madd; `wide`: relaxed, shaped for V8's revectorizer. */
export type Features = 'plain' | 'simd' | 'relaxed' | 'wide';

// Binaryen's JavaScript API has no named method for relaxed operations; its C API is exported with an underscore.
const raw = binaryen as unknown as {
  _BinaryenSIMDTernary(module: number, op: number, a: number, b: number, c: number): number;
  RelaxedMaddVecF32x4: number;
};

/** A local variable. */
export interface Local { readonly index: number; readonly type: Ty }
/** A vector local: one v128 local or four scalar ones. */
export interface VLocal { readonly indices: readonly number[]; readonly lane: LaneTy }

/** One module under construction. Functions are deduplicated by key. */
export class Asm {
  readonly m: binaryen.Module;
  readonly features: Features;
  /** What kernels are cut by. */
  readonly division: Division;
  readonly #functions = new Map<string, string>();
  #count = 0;
  readonly #data: Uint8Array[] = [];
  readonly #dataAt = new Map<string, number>();
  readonly #dataBase: number;
  #dataEnd: number;

  /** `dataBase`: address (a multiple of 16) where constant tables of the code start. */
  constructor(features: Features, dataBase = 0, division: Division = usualDivision) {
    this.features = features;
    this.division = division;
    this.#dataBase = dataBase;
    this.#dataEnd = dataBase;
    this.m = new binaryen.Module();
    // No more than is used: some proposals that binaryen knows change how imports are written, which engines do not read yet.
    const { Atomics, BulkMemory, BulkMemoryOpt, NontrappingFPToInt, RelaxedSIMD, SIMD128, SignExt } = binaryen.Features;
    const vectors = (this.simd ? SIMD128 : 0) | (this.relaxed ? RelaxedSIMD : 0);
    this.m.setFeatures(Atomics | BulkMemory | BulkMemoryOpt | NontrappingFPToInt | SignExt | vectors);
    // Loads and stores look their memory up when they are made; `finish` sets its real size.
    this.#setMemory(1, 1, []);
  }

  /** Sets the memory's limits (pages of 64 KiB), adds the constant tables, and returns the binary. The module imports a shared memory `env.memory`. */
  finish(initialPages: number, maximumPages: number): Uint8Array {
    const { base, bytes } = this.tables;
    this.#setMemory(initialPages, maximumPages, bytes.length > 0 ? [{ offset: this.i32(base), data: bytes }] : []);
    return this.m.emitBinary();
  }
  #setMemory(initial: number, maximum: number, segments: { offset: E; data: Uint8Array }[]): void {
    this.m.setMemory(initial, maximum, null, segments, true);
    this.m.addMemoryImport('0', 'env', 'memory', true);
  }

  get simd(): boolean { return this.features !== 'plain'; }
  get relaxed(): boolean { return this.features === 'relaxed' || this.features === 'wide'; }
  get wide(): boolean { return this.features === 'wide'; }

  /**
   * Adds a function, or returns the name of the one already added under this key. `build` gets the function with its parameters as locals and
   * returns its body's statements; with a `result`, the last statement is the value.
   */
  fn(key: string, params: readonly Ty[], result: Ty | undefined, build: (f: Fn, params: readonly Local[]) => readonly E[]): string {
    const known = this.#functions.get(key);
    if (known !== undefined) return known;
    const name = `f${this.#count++}_${key.replace(/[^A-Za-z0-9_]+/g, '_').slice(0, 40)}`;
    this.#functions.set(key, name);
    const f = new Fn(this, params);
    const body = build(f, params.map((type, index) => ({ index, type })));
    const resultType = result === undefined ? binaryen.none : types[result];
    const all = [...f.prologue, ...body];
    this.m.addFunction(name, binaryen.createType(params.map((p) => types[p])), resultType, [...f.locals], this.m.block(null, all, resultType));
    return name;
  }

  /** Places a constant table in memory (equal tables share a place) and returns its address. */
  data(bytes: Uint8Array): number {
    const key = Buffer.from(bytes).toString('latin1');
    const known = this.#dataAt.get(key);
    if (known !== undefined) return known;
    const at = this.#dataEnd;
    this.#dataAt.set(key, at);
    const padded = new Uint8Array(Math.ceil(bytes.length / 16) * 16);
    padded.set(bytes);
    this.#data.push(padded);
    this.#dataEnd += padded.length;
    return at;
  }
  /** The tables placed so far: bytes to put at `base`. */
  get tables(): { readonly base: number; readonly bytes: Uint8Array } {
    const bytes = new Uint8Array(this.#dataEnd - this.#dataBase);
    let at = 0;
    for (const d of this.#data) {
      bytes.set(d, at);
      at += d.length;
    }
    return { base: this.#dataBase, bytes };
  }

  call(fn: string, args: readonly E[], result?: Ty): E {
    return this.m.call(fn, [...args], result === undefined ? binaryen.none : types[result]);
  }

  // Scalars
  i32(x: number): E { return this.m.i32.const(x); }
  f32(x: number): E { return this.m.f32.const(x); }
  add(a: E, b: E): E { return this.m.i32.add(a, b); }
  sub(a: E, b: E): E { return this.m.i32.sub(a, b); }
  mul(a: E, b: E): E { return this.m.i32.mul(a, b); }
  /** a + k without an instruction for 0. */
  plus(a: E, k: number): E { return k === 0 ? a : this.m.i32.add(a, this.i32(k)); }
  /** a · k, as a shift where it can be. */
  times(a: E, k: number): E {
    if (k === 1) return a;
    if (k > 0 && (k & (k - 1)) === 0) return this.m.i32.shl(a, this.i32(Math.log2(k)));
    return this.m.i32.mul(a, this.i32(k));
  }

  // Vectors of f32 (v*) or of either lane type
  vsplat(x: number): Vec {
    return this.simd ? [this.m.f32x4.splat(this.f32(x))] : [this.f32(x), this.f32(x), this.f32(x), this.f32(x)];
  }
  #zip(a: Vec, b: Vec, simd: (a: E, b: E) => E, plain: (a: E, b: E) => E): Vec {
    return this.simd ? [simd(a[0]!, b[0]!)] : a.map((x, i) => plain(x, b[i]!));
  }
  vadd(a: Vec, b: Vec): Vec { return this.#zip(a, b, (x, y) => this.m.f32x4.add(x, y), (x, y) => this.m.f32.add(x, y)); }
  vsub(a: Vec, b: Vec): Vec { return this.#zip(a, b, (x, y) => this.m.f32x4.sub(x, y), (x, y) => this.m.f32.sub(x, y)); }
  vmul(a: Vec, b: Vec): Vec { return this.#zip(a, b, (x, y) => this.m.f32x4.mul(x, y), (x, y) => this.m.f32.mul(x, y)); }
  vdiv(a: Vec, b: Vec): Vec { return this.#zip(a, b, (x, y) => this.m.f32x4.div(x, y), (x, y) => this.m.f32.div(x, y)); }
  /** a · b + c, fused where the module may use relaxed SIMD. */
  vmadd(a: Vec, b: Vec, c: Vec): Vec {
    if (this.relaxed) return [raw._BinaryenSIMDTernary((this.m as unknown as { ptr: number }).ptr, raw.RelaxedMaddVecF32x4, a[0]!, b[0]!, c[0]!)];
    return this.vadd(this.vmul(a, b), c);
  }
  /** Loads 4 lanes at a pointer local + constant offset (bytes). */
  vload(ptr: Local, offset: number, lane: LaneTy = 'f32'): Vec {
    const p = (): E => this.m.local.get(ptr.index, binaryen.i32);
    if (this.simd) return [this.m.v128.load(offset, 4, p())];
    return [0, 4, 8, 12].map((d) => this.m[lane].load(offset + d, 4, p()));
  }
  /** Loads one lane into all four. */
  vload1(ptr: Local, offset: number, f: Fn, lane: LaneTy = 'f32'): Vec {
    const p = (): E => this.m.local.get(ptr.index, binaryen.i32);
    if (this.simd) return [this.m.v128.load32_splat(offset, 4, p())];
    const t = f.local(lane);
    return [f.tee(t, this.m[lane].load(offset, 4, p())), f.get(t), f.get(t), f.get(t)];
  }
  vstore(ptr: Local, offset: number, v: Vec, lane: LaneTy = 'f32'): E {
    const p = (): E => this.m.local.get(ptr.index, binaryen.i32);
    if (this.simd) return this.m.v128.store(offset, 4, p(), v[0]!);
    return this.m.block(null, v.map((x, i) => this.m[lane].store(offset + 4 * i, 4, p(), x)));
  }
}

/** A function under construction. */
export class Fn {
  readonly asm: Asm;
  readonly locals: number[] = [];
  /** Statements that run before the body: hoisted constants. */
  readonly prologue: E[] = [];
  readonly #params: number;
  readonly #constants = new Map<number, VLocal>();
  #label = 0;
  constructor(asm: Asm, params: readonly Ty[]) {
    this.asm = asm;
    this.#params = params.length;
  }

  #new(type: number): number {
    this.locals.push(type);
    return this.#params + this.locals.length - 1;
  }
  local(type: Ty): Local { return { index: this.#new(types[type]), type }; }
  vlocal(lane: LaneTy = 'f32'): VLocal {
    return { indices: this.asm.simd ? [this.#new(binaryen.v128)] : [0, 1, 2, 3].map(() => this.#new(types[lane])), lane };
  }
  get(l: Local): E { return this.asm.m.local.get(l.index, types[l.type]); }
  set(l: Local, e: E): E { return this.asm.m.local.set(l.index, e); }
  tee(l: Local, e: E): E { return this.asm.m.local.tee(l.index, e, types[l.type]); }
  vget(l: VLocal): Vec {
    const type = this.asm.simd ? binaryen.v128 : types[l.lane];
    return l.indices.map((i) => this.asm.m.local.get(i, type));
  }
  vset(l: VLocal, v: Vec): E {
    const sets = l.indices.map((i, k) => this.asm.m.local.set(i, v[k]!));
    return sets.length === 1 ? sets[0]! : this.asm.m.block(null, sets);
  }
  /** A vector of a constant, splatted once at the start of the function where the module has SIMD. */
  vconst(x: number): Vec {
    if (!this.asm.simd) return this.asm.vsplat(x);
    // -0 and 0 are one key of a Map: -0 is not hoisted.
    if (Object.is(x, -0)) return this.asm.vsplat(x);
    let local = this.#constants.get(x);
    if (!local) {
      local = this.vlocal();
      this.#constants.set(x, local);
      this.prologue.push(this.vset(local, this.asm.vsplat(x)));
    }
    return this.vget(local);
  }
  /** Evaluates e once; `use` may read it any number of times. */
  bind(type: Ty, e: E, use: (get: () => E) => E, result: Ty = type): E {
    const t = this.local(type);
    return this.asm.m.block(null, [this.set(t, e), use(() => this.get(t))], types[result]);
  }
  inc(l: Local, by: number): E { return this.set(l, this.asm.plus(this.get(l), by)); }
  label(prefix: string): string { return `${prefix}${this.#label++}`; }

  /** for (i = from; i < to; i += step) — signed, the test comes first. `to` is evaluated each round: pass a local or a constant. */
  loop(i: Local, from: E, to: () => E, step: number, body: readonly E[]): E {
    const m = this.asm.m;
    const top = this.label('l');
    const out = this.label('o');
    return m.block(out, [
      this.set(i, from),
      m.loop(top, m.block(null, [m.br(out, m.i32.ge_s(this.get(i), to())), ...body, this.inc(i, step), m.br(top)])),
    ]);
  }
  /** A loop with a constant trip count of at least 1, the test last. */
  repeat(i: Local, from: number, to: number, step: number, body: readonly E[]): E {
    const m = this.asm.m;
    if (from >= to) return m.nop();
    const top = this.label('r');
    return m.block(null, [
      this.set(i, this.asm.i32(from)),
      m.loop(top, m.block(null, [...body, m.br(top, m.i32.lt_s(this.tee(i, this.asm.plus(this.get(i), step)), this.asm.i32(to)))])),
    ]);
  }
  if(cond: E, then: readonly E[], otherwise?: readonly E[]): E {
    const m = this.asm.m;
    return m.if(cond, m.block(null, [...then]), otherwise ? m.block(null, [...otherwise]) : undefined);
  }
}
