/** Whole programs inside the module: threads and barriers, regions, copies, profiles, and what the binary imports and exports. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { emitWasm } from '../backends/wasm/module.ts';
import type { Features } from '../backends/wasm/asm.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { tensorType, type Tensor } from '../ir/type.ts';
import { plan } from '../passes/plan.ts';
import { control } from '../runtime/control.ts';
import { byName, Cells, difference, memoryFor, random, runHere } from './wasm-harness.ts';
import { testTarget } from './ir/target.ts';

const i64 = (x: number): Tensor => ({ dtype: 'i64', shape: [], data: new BigInt64Array([BigInt(x)]) });
const bool = (x: boolean): Tensor => ({ dtype: 'bool', shape: [], data: new Uint8Array([x ? 1 : 0]) });

/** Workers run again on the inputs that were written once, so inputs keep their memory. */
const target = { ...testTarget, sharedIo: false };

const workerCode = `
  const { parentPort, workerData: { compiled, memory, thread, runs } } = require('node:worker_threads');
  const instance = new WebAssembly.Instance(compiled, { env: { memory, clock: () => performance.now() } });
  parentPort.postMessage('ready');
  parentPort.once('message', () => {
    try { for (let i = 0; i < runs; i++) instance.exports.run(thread); parentPort.postMessage('done'); }
    catch (e) { parentPort.postMessage('trap: ' + e.message); }
  });
`;

/** Runs on this many workers; returns what each said. */
async function runOn(threads: number, binary: Uint8Array, memory: WebAssembly.Memory, runs = 1): Promise<string[]> {
  const compiled = new WebAssembly.Module(binary as Uint8Array<ArrayBuffer>);
  const workers = Array.from({ length: threads }, (_, thread) => new Worker(workerCode, { eval: true, workerData: { compiled, memory, thread, runs } }));
  const next = (w: Worker): Promise<string> => new Promise((resolve, reject) => w.once('message', resolve).once('error', reject));
  await Promise.all(workers.map(next));
  const answers = workers.map(next);
  for (const w of workers) w.postMessage('go');
  const said = await Promise.all(answers);
  await Promise.all(workers.map((w) => w.terminate()));
  return said;
}

async function outputsOn(graph: Graph, inputs: Readonly<Record<string, Tensor>>, threads: number, features: Features, runs = 1): Promise<Tensor[]> {
  const program = plan(graph, target);
  const module = emitWasm(program, features, { validate: true });
  const { memory, cells } = memoryFor(program, module, byName(program, inputs), { threads });
  expect(await runOn(threads, module.binary, memory, runs)).toEqual(new Array(threads).fill('done'));
  return program.graph.outputs.map((o) => cells.read(o.value));
}

/** Wide and narrow steps in turn, so that some are shared and some are run by one thread. */
function network(): { graph: Graph; inputs: Record<string, Tensor> } {
  const b = new Builder('network');
  const x = b.input(tensorType('f32', [2, 24, 40, 40]), 'x');
  const w = b.input(tensorType('f32', [24, 24, 3, 3]), 'w');
  const y = b.unary('relu', b.one('conv', [x, w], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 }));
  const mean = b.mul(b.reduce('reduceSum', y, [2, 3], true), 1 / 1600);
  const gate = b.unary('sigmoid', b.sub(mean, b.reduce('reduceMax', mean, [1], true)));
  const z = b.mul(y, gate);
  const [top] = b.op('maxPool', [z], { kernel: [2, 2], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1] }) as [Value];
  const flat = b.reshape(b.transpose(top, [0, 2, 3, 1]), [2, 400, 24]);
  const e = b.unary('exp', b.mul(b.contract('bmk,bnk->bmn', flat, flat), 0.001));
  const p = b.div(e, b.reduce('reduceSum', e, [2], true));
  const out = b.contract('bmn,bnk->bmk', p, flat);
  return { graph: b.finish([{ name: 'out', value: out }, { name: 'gate', value: gate }]), inputs: { x: random([2, 24, 40, 40], 1), w: random([24, 24, 3, 3], 2) } };
}

/** Carried values that change places, a scan, a condition inside the body, and a run-time limit. */
function looping(size: number): Graph {
  const b = new Builder('looping');
  const a = b.input(tensorType('f32', [size]), 'a');
  const c = b.input(tensorType('f32', [size]), 'c');
  const limit = b.input(tensorType('i64', []), 'limit');
  const r = new Builder('body');
  const i = r.input(tensorType('i64', []));
  const p = r.input(tensorType('f32', [size]));
  const q = r.input(tensorType('f32', [size]));
  const branch = (f: (s: Builder, u: Value, v: Value) => Value): Graph => {
    const s = new Builder('branch');
    const [u, v] = [s.input(p.type), s.input(q.type)];
    return s.finish([{ name: 'r', value: f(s, u, v) }]);
  };
  const odd = r.binary('eq', r.binary('mod', i, 2), 1);
  const [next] = r.op('if', [odd, p, q], {}, [branch((s, u, v) => s.add(s.mul(u, 0.5), v)), branch((s, u, v) => s.sub(u, s.mul(v, 0.25)))]) as [Value];
  const row = r.mul(p, q);
  const body = r.finish([{ name: 'continue', value: r.constant(bool(true)) }, { name: 'p', value: q }, { name: 'q', value: next }, { name: 'row', value: row }]);
  const results = b.op('loop', [limit, b.constant(bool(true)), a, c], { trips: 5, carried: 2, scans: 1 }, [body]);
  return b.finish(results.map((value, k) => ({ name: `out${k}`, value })));
}

describe('a program on threads', () => {
  for (const features of ['plain', 'simd', 'relaxed'] as const) {
    it(`gives the same bits on 1, 2 and 3 threads, run after run (${features})`, async () => {
      const { graph, inputs } = network();
      const one = await outputsOn(graph, inputs, 1, features);
      const want = evaluate(graph, inputs).outputs;
      one.forEach((t, i) => expect(difference(t, want.get(graph.outputs[i]!.name)!, 20)).toBeUndefined());
      for (const threads of [2, 3]) for (const runs of [1, 20]) expect(await outputsOn(graph, inputs, threads, features, runs)).toEqual(one);
    }, 60_000);
  }
  for (const size of [5, 50_000]) {
    it(`runs loops and conditions, on values of ${size} elements`, async () => {
      const graph = looping(size);
      const inputs = { a: random([size], 1), c: random([size], 2), limit: i64(5) };
      const want = evaluate(graph, inputs).outputs;
      for (const threads of [1, 2]) {
        for (const runs of [1, 3]) {
          const got = await outputsOn(graph, inputs, threads, 'simd', runs);
          got.forEach((t, i) => expect(difference(t, want.get(`out${i}`)!)).toBeUndefined());
        }
      }
    }, 60_000);
  }
  it('traps at the next barrier where another thread failed', async () => {
    const { graph, inputs } = network();
    const program = plan(graph, target);
    const module = emitWasm(program, 'simd');
    const { memory } = memoryFor(program, module, byName(program, inputs), { threads: 2 });
    // The second thread never comes; the host tells the first one after a while.
    const cells = new Int32Array(memory.buffer);
    const first = runOn(1, module.binary, memory);
    await new Promise((resolve) => setTimeout(resolve, 300));
    Atomics.store(cells, control.abort / 4, 1);
    Atomics.add(cells, control.barrierGeneration / 4, 1);
    Atomics.notify(cells, control.barrierGeneration / 4);
    expect(await first).toEqual([expect.stringContaining('trap: ')]);
  });
});

describe('the module', () => {
  it('imports a memory and nothing else, exports run, and works on an unshared memory when told so', () => {
    const { graph, inputs } = network();
    const program = plan(graph, target);
    const module = emitWasm(program, 'simd');
    const compiled = new WebAssembly.Module(module.binary as Uint8Array<ArrayBuffer>);
    expect(WebAssembly.Module.imports(compiled)).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }]);
    expect(WebAssembly.Module.exports(compiled)).toEqual([{ name: 'run', kind: 'function' }]);
    expect(module.binary[module.memoryFlag]).toBe(3);
    const own = module.binary.slice();
    own[module.memoryFlag] = 1;
    const { memory, cells } = memoryFor(program, module, byName(program, inputs));
    const unshared = new WebAssembly.Memory({ initial: memory.buffer.byteLength / 65536, maximum: 65536 });
    new Uint8Array(unshared.buffer).set(new Uint8Array(memory.buffer));
    runHere(own, unshared);
    runHere(module.binary, memory);
    const got = new Cells(program, unshared);
    for (const o of program.graph.outputs) expect(got.read(o.value)).toEqual(cells.read(o.value));
  });
  it('is the same bytes every time', () => {
    for (const features of ['plain', 'relaxed'] as const) {
      const [a, b] = [0, 1].map(() => emitWasm(plan(network().graph, target), features).binary);
      expect(a).toEqual(b);
    }
  });
  it('notes the time of every step where it has a clock', async () => {
    const { graph, inputs } = network();
    const program = plan(graph, target);
    const module = emitWasm(program, 'simd', { profile: true, validate: true });
    const { memory } = memoryFor(program, module, byName(program, inputs), { threads: 2 });
    expect(await runOn(2, module.binary, memory, 2)).toEqual(['done', 'done']);
    const times = new Float64Array(memory.buffer, module.profile, 2 * module.steps.length);
    module.steps.forEach((s, i) => {
      expect(times[2 * i], s.name).toBeGreaterThan(0);
      expect(times[2 * i + 1]! - times[2 * i]!, s.name).toBeGreaterThanOrEqual(0);
      expect(times[2 * i + 1]! - times[2 * i]!, s.name).toBeLessThan(5000);
    });
  });
});
