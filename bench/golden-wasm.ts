/** Runs training steps as WebAssembly. */
import { emitWasm } from '../backends/wasm/module.ts';
import { makeManifest, weightsOf } from '../cli/driver/manifest.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { dtypes, sameShape, rowMajor, sizeOf, type Tensor, type TensorType } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { plan } from '../passes/plan.ts';
import type { TrainingStep } from '../passes/train/pipeline.ts';
import { openArtifact } from '../runtime/artifact.ts';
import { control } from '../runtime/control.ts';
import { chunkSource } from '../runtime/bytes.ts';
import { safetensorsChunks } from '../runtime/safetensors.ts';
import { start } from '../runtime/start.ts';
import type { Executor, Trainer } from './golden-run.ts';

/** Compiles a step to one module and runs it with this many threads. */
export const onWasm = (threads: number): Executor => (step) => wasmTrainer(step, threads);

async function wasmTrainer({ graph }: TrainingStep, threads: number): Promise<Trainer> {
  const program = plan(runPipeline(graph, wasmTarget, { verify: true }), wasmTarget);
  const module = emitWasm(program, 'simd');
  const manifest = makeManifest({ bound: {}, dims: {} }, program, {
    modules: [{ features: 'simd', file: 'model.wasm', memoryFlag: module.memoryFlag }],
    steps: module.steps, scratch: module.scratch, scratchPerThread: module.scratchPerThread, maxThreads: 64, profile: -1,
  }, 'goldens');
  const weights = chunkSource(safetensorsChunks(weightsOf(program)), 'weights.safetensors');
  const { executor } = await start(await openArtifact({ manifest, modules: { 'model.wasm': module.binary }, weights }), { threads, features: 'simd' }, []);

  /** Where state lies: values of state are dense in memory, as the host reads and writes them. */
  const place = (name: string): TensorType & { readonly address: number; readonly bytes: number } => {
    const value = program.graph.state.find((s) => s.name === name)?.value;
    const at = value && program.placements.get(value);
    if (!at) throw new Error(`the step has no state ${name}`);
    if (!sameShape(at.strides.filter((_, i) => value.type.shape[i] !== 1), rowMajor(value.type.shape).filter((_, i) => value.type.shape[i] !== 1))) throw new Error(`state ${name} is not dense`);
    const { bytes } = dtypes[value.type.dtype];
    return { ...value.type, address: control.size + program.buffers.find((b) => b.id === at.buffer)!.address + at.offset * bytes, bytes: sizeOf(value.type.shape) * bytes };
  };
  // Changes of state are written before the next step, and state is read with its results.
  const writes = new Map<string, Tensor>();
  const names = graph.state.map((s) => s.name).filter((name) => program.graph.state.some((s) => s.name === name));
  let state = new Map<string, Tensor>();
  return {
    async step(inputs) {
      const patches = [
        ...[...writes].map(([name, t]) => ({ address: place(name).address, bytes: bytesOf(t) })),
        ...manifest.inputs.map((i) => ({ address: i.address, bytes: bytesOf(inputs[i.name]!) })),
      ];
      writes.clear();
      const reads = [...manifest.outputs.map((o) => ({ ...o, bytes: sizeOf(o.shape) * dtypes[o.dtype].bytes })), ...names.map(place)];
      const results = await executor.run(patches, reads);
      const tensors = results.map((r, i): Tensor => ({ dtype: reads[i]!.dtype, shape: reads[i]!.shape, data: new dtypes[reads[i]!.dtype].array(r.buffer as never) }));
      state = new Map(names.map((name, i) => [name, tensors[manifest.outputs.length + i]!]));
      return new Map(manifest.outputs.map((o, i) => [o.name, tensors[i]!]));
    },
    state: (name) => Promise.resolve(state.get(name)!),
    setState: (name, value) => Promise.resolve(void writes.set(name, value)),
    close: () => executor.close(),
  };
}

const bytesOf = (t: Tensor): Uint8Array => new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength);
