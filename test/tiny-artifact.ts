/** A small artifact written by hand, for tests of the runtime: independent of the compiler. */
import binaryen from 'binaryen';
import { control } from '../runtime/control.ts';
import type { ArtifactObject, Manifest } from '../runtime/index.ts';
import { writeSafetensors } from '../runtime/safetensors.ts';

const n = 1024;
const at = { w: control.size, x: control.size + 4 * n, y: control.size + 8 * n, scratch: control.size + 12 * n };

/** The value of x[0] that makes the thread which meets it trap. */
export const poison = -12345;

/**
 * Step 0 squares x in place, chunk by chunk; a barrier follows, step 1 reads squares that other threads made.
 * So y[i] = x[(i + 1) mod n]² · w[i].
 */
const source = (factor: string): string => `(module
  (import "env" "memory" (memory 1 65536 shared))
  (func $barrier (param $threads i32) (local $generation i32)
    (if (i32.atomic.load (i32.const ${control.abort})) (then (unreachable)))
    (local.set $generation (i32.atomic.load (i32.const ${control.barrierGeneration})))
    (if (i32.eq (i32.add (i32.atomic.rmw.add (i32.const ${control.barrierCount}) (i32.const 1)) (i32.const 1)) (local.get $threads))
      (then
        (i32.atomic.store (i32.const ${control.barrierCount}) (i32.const 0))
        (i32.atomic.store (i32.const ${control.chunk}) (i32.const 0))
        (i32.atomic.store (i32.const ${control.step}) (i32.const 1))
        (drop (i32.atomic.rmw.add (i32.const ${control.barrierGeneration}) (i32.const 1)))
        (if (i32.gt_s (local.get $threads) (i32.const 1))
          (then (drop (memory.atomic.notify (i32.const ${control.barrierGeneration}) (i32.const -1))))))
      (else
        (loop $again
          (if (i32.atomic.load (i32.const ${control.abort})) (then (unreachable)))
          (if (i32.eq (i32.atomic.load (i32.const ${control.barrierGeneration})) (local.get $generation))
            (then
              (drop (memory.atomic.wait32 (i32.const ${control.barrierGeneration}) (local.get $generation) (i64.const -1)))
              (br $again)))))))
  (func (export "run") (param $thread i32) (local $threads i32) (local $i i32) (local $p i32)
    (local.set $threads (i32.atomic.load (i32.const ${control.threads})))
    (block $done (loop $next
      (local.set $i (i32.atomic.rmw.add (i32.const ${control.chunk}) (i32.const 1)))
      (br_if $done (i32.ge_u (local.get $i) (i32.const ${n})))
      (local.set $p (i32.shl (local.get $i) (i32.const 2)))
      (if (f32.eq (f32.load offset=${at.x} (local.get $p)) (f32.const ${poison})) (then (unreachable)))
      (f32.store offset=${at.x} (local.get $p) (f32.mul (f32.load offset=${at.x} (local.get $p)) ${factor}))
      (br $next)))
    (call $barrier (local.get $threads))
    (block $done (loop $next
      (local.set $i (i32.atomic.rmw.add (i32.const ${control.chunk}) (i32.const 1)))
      (br_if $done (i32.ge_u (local.get $i) (i32.const ${n})))
      (local.set $p (i32.shl (local.get $i) (i32.const 2)))
      (f32.store offset=${at.y} (local.get $p)
        (f32.mul
          (f32.load offset=${at.x} (i32.shl (i32.rem_u (i32.add (local.get $i) (i32.const 1)) (i32.const ${n})) (i32.const 2)))
          (f32.load offset=${at.w} (local.get $p))))
      (br $next)))))`;

function assemble(text: string): { binary: Uint8Array; memoryFlag: number } {
  const module = binaryen.parseText(text);
  module.setFeatures(binaryen.Features.All);
  const binary = module.emitBinary();
  module.dispose();
  // The import is "env" "memory" of kind 2 (memory); the limits flag follows.
  const name = [...'\u0003env\u0006memory\u0002'].map((c) => c.charCodeAt(0));
  const found = binary.findIndex((_, i) => name.every((b, k) => binary[i + k] === b));
  return { binary, memoryFlag: found + name.length };
}

export interface TinyOptions {
  readonly maxThreads?: number;
  /** A wide module that computes x instead of x². */
  readonly brokenWide?: boolean;
}

export function tinyArtifact(options: TinyOptions = {}): ArtifactObject {
  const square = `(f32.load offset=${at.x} (local.get $p))`;
  const good = assemble(source(square));
  const wide = options.brokenWide ? assemble(source('(f32.const 1)')) : undefined;
  const w = Float32Array.from({ length: n }, (_, i) => i % 7);
  const manifest: Manifest = {
    format: 'tilewright',
    version: 1,
    model: 'tiny',
    producer: 'test',
    backend: 'wasm',
    inputs: [{ name: 'x', dtype: 'f32', shape: [2, n / 2], address: at.x }],
    outputs: [{ name: 'y', dtype: 'f32', shape: [n], address: at.y }],
    bound: [{ name: 'axis', dtype: 'i64', shape: [1], value: [1] }],
    dims: { n: 2 },
    weights: [{ name: 'w', address: at.w, bytes: 4 * n }],
    modules: [
      ...(wide ? [{ features: 'wide' as const, file: 'wide.wasm', memoryFlag: wide.memoryFlag }] : []),
      { features: 'plain', file: 'model.wasm', memoryFlag: good.memoryFlag },
    ],
    memory: { control: control.size, weights: 4 * n, io: 8 * n, activations: 0, liveBound: 0, scratch: at.scratch, scratchPerThread: 64, maxThreads: options.maxThreads ?? 64 },
    steps: [
      { name: 'square', source: ['Mul(first)'], chunks: n, flops: n, bytes: 8 * n },
      { name: 'scale', source: ['Mul(second)'], chunks: n, flops: n, bytes: 12 * n },
    ],
    profile: -1,
  };
  return { manifest, modules: { 'model.wasm': good.binary, ...(wide ? { 'wide.wasm': wide.binary } : {}) }, weights: writeSafetensors([{ name: 'w', dtype: 'f32', shape: [n], data: w }]) };
}

/** What the artifact computes, by plain loops. */
export const tinyResult = (x: Float32Array): Float32Array => x.map((_, i) => Math.fround(Math.fround(x[(i + 1) % n]! ** 2) * (i % 7)));

/** An input of the artifact. */
export const tinyInput = (seed = 1): Float32Array => Float32Array.from({ length: n }, (_, i) => ((i * 37 + seed * 11) % 101) - 50);
