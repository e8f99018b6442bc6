/** Runs a program of compute shaders: the memory of an artifact in GPU buffers, one command buffer a run. */
import { control } from '../control.ts';
import { InputError, RunError } from '../error.ts';
import type { Executor } from '../executor.ts';
import type { DTypeName, GpuProgram, GpuStep, IoEntry, Manifest } from '../manifest.ts';
import { dtypeFacts } from '../tensor.ts';
import type { Patch, Range } from '../worker.ts';
import { bounded, isClosed, patience, type OpenDevice } from './device.ts';
import { record, walkCalls, type CallTree } from './calls.ts';
import { LostGpu, NoGpu } from './error.ts';
import type { Pipeline } from './pipelines.ts';
import { timeByQueue, TimeStamps } from './timestamps.ts';
import { mapRead, usage, type GpuBindGroup, type GpuBuffer, type GpuCommandEncoder, type GpuDevice } from './types.ts';
import { checkFloats, fromWords, storesHalves, toWords, wordBytes } from './words.ts';

const chunkBytes = 1 << 24;

/** A tensor that the host reads or writes; `start` as segments count it. */
interface Place { readonly name: string; readonly dtype: DTypeName; readonly start: number; readonly width: number }
/** A range of one GPU buffer. */
interface Span { readonly buffer: GpuBuffer; readonly offset: number; readonly bytes: number }

/** Makes the buffers and bind groups of an artifact. Memory that the GPU does not have is a NoGpu with numbers. */
export async function makeExecutor(open: OpenDevice, manifest: Manifest, pipelines: readonly Pipeline[]): Promise<Executor> {
  const { device } = open;
  const program = manifest.gpu!;
  device.pushErrorScope('out-of-memory');
  device.pushErrorScope('validation');
  const buffers = program.segments.map((s) => device.createBuffer({ size: Math.max(256, s.bytes), usage: usage.storage | usage.copySource | usage.copyTarget | (s.kind === 'gate' ? usage.indirect : 0), label: s.kind }));
  const errors = await bounded(Promise.all([device.popErrorScope(), device.popErrorScope()]), patience.device, 'the GPU did not make its buffers');
  const error = errors.find((e) => e !== null);
  if (error) {
    for (const b of buffers) b.destroy();
    throw new NoGpu(`the GPU ${open.adapter} has no room for the ${Math.ceil(program.segments.reduce((n, s) => n + s.bytes, 0) / 2 ** 20)} MiB that the model needs: ${error.message}`);
  }
  const groups = new Map<string, GpuBindGroup>();
  const tree = (steps: readonly GpuStep[]): CallTree[] => steps.map((s): CallTree => {
    if ('repeat' in s) return { repeat: s.repeat, body: tree(s.body) };
    const { pipeline, layout } = pipelines[s.shader]!;
    const key = `${s.shader} ${s.bindings.join(' ')}`;
    let group = groups.get(key);
    if (!group) {
      group = device.createBindGroup({ layout, entries: s.bindings.map(([segment, offset, size], binding) => ({ binding, resource: { buffer: buffers[segment]!, offset, size } })) });
      groups.set(key, group);
    }
    return { pipeline, group, x: s.workgroups[0], y: s.workgroups[1], ...(s.indirect && { from: { buffer: buffers[s.indirect[0]]!, offset: s.indirect[1] } }), step: s.step };
  });
  device.pushErrorScope('validation');
  const entries = program.entries.map(tree);
  const invalid = await bounded(device.popErrorScope(), patience.device, 'the GPU did not take its bindings');
  if (invalid) throw new InputError(`the artifact does not fit this GPU (${open.adapter}): ${invalid.message}`);
  return new GpuExecutor(open, manifest, buffers, entries);
}

class GpuExecutor implements Executor {
  readonly threads = 1;
  readonly #open: OpenDevice;
  readonly #device: GpuDevice;
  readonly #manifest: Manifest;
  readonly #program: GpuProgram;
  readonly #buffers: readonly GpuBuffer[];
  readonly #entries: readonly (readonly CallTree[])[];
  readonly #places = new Map<number, Place>();
  /** Whether f16 is stored as such. */
  readonly #halves: boolean;
  readonly #times: TimeStamps | undefined;
  #entry = 0;
  #staging: GpuBuffer | undefined;
  #failure: RunError | undefined;
  #fail: (error: RunError) => void = () => {};
  readonly #failed: Promise<never>;
  #closed = false;

  constructor(open: OpenDevice, manifest: Manifest, buffers: readonly GpuBuffer[], entries: readonly (readonly CallTree[])[]) {
    this.#open = open;
    this.#device = open.device;
    this.#manifest = manifest;
    this.#program = manifest.gpu!;
    this.#halves = storesHalves(this.#program);
    this.#buffers = buffers;
    this.#entries = entries;
    this.#failed = new Promise((_, reject) => {
      this.#fail = (error) => {
        this.#failure ??= error;
        reject(error);
      };
    });
    this.#failed.catch(() => {});
    void open.device.lost.then(({ reason, message }) => {
      if (!this.#closed) this.#fail(new LostGpu(`the GPU device was lost (${reason || 'unknown'}): ${message}`));
    });
    if (open.own) open.device.onuncapturederror = (event) => this.#fail(new RunError(`the GPU reports an error: ${event.error.message}`));
    const named: readonly { readonly name: string; readonly address: number; readonly dtype?: DTypeName; readonly shape?: readonly number[] }[] = [...manifest.inputs, ...manifest.outputs, ...(manifest.state ?? []), ...manifest.weights, ...(manifest.entries ?? []).flatMap((e): readonly IoEntry[] => [...e.inputs, ...e.outputs])];
    // Tensors without elements lie nowhere.
    for (const t of named) if (!t.shape?.includes(0)) this.#places.set(t.address, this.#place(t));
    if (manifest.profile >= 0 && open.device.features.has('timestamp-query')) this.#times = new TimeStamps(open.device, manifest.steps.length);
  }

  async fill(address: number, bytes: number, read: (at: number, into: Uint8Array) => Promise<void>): Promise<void> {
    this.#check();
    const place = this.#at(address);
    const { bytes: width } = dtypeFacts[place.dtype];
    for (let at = 0; at < bytes; at += chunkBytes) {
      const chunk = new Uint8Array(Math.min(chunkBytes, bytes - at));
      await read(at, chunk);
      this.#write(place, (at / width) * place.width, toWords(place.name, place.dtype, chunk, wholeWords(place.dtype), this.#halves));
    }
  }

  async read(ranges: readonly Range[], into?: readonly Uint8Array<ArrayBuffer>[]): Promise<readonly Uint8Array<ArrayBuffer>[]> {
    const results = await this.#submit(ranges, () => {});
    into?.forEach((array, i) => array.set(results[i]!));
    return into ?? results;
  }

  async run(writes: readonly Patch[], reads: readonly Range[]): Promise<Uint8Array<ArrayBuffer>[]> {
    this.#check();
    for (const w of writes) {
      if (w.address === control.entry) this.#entry = new Int32Array(w.bytes.slice().buffer)[0]!;
      else if (w.address !== this.#manifest.profile && w.bytes.length > 0) {
        const place = this.#at(w.address);
        if (this.#program.floatInputs?.includes(place.name)) checkFloats(place.name, w.bytes, this.#program.integerInputs);
        this.#write(place, 0, toWords(place.name, place.dtype, w.bytes, place.dtype === 'i64' ? this.#program.integerInputs : [0, this.#program.integerInputs[1]], this.#halves));
      }
    }
    const calls = this.#entries[this.#entry]!;
    const tensors = reads.filter((r) => r.address !== this.#manifest.profile);
    const byQueue = this.#manifest.profile >= 0 && !this.#times ? await timeByQueue(this.#device, calls, this.#manifest.steps.length, (done) => this.#within(done)) : undefined;
    const results = await this.#submit(tensors, (encoder) => {
      if (byQueue) return;
      if (this.#times) return this.#times.record(encoder, calls);
      const pass = encoder.beginComputePass();
      walkCalls(calls, (c) => record(pass, c));
      pass.end();
    });
    const times = tensors.length < reads.length ? (byQueue ?? (await this.#within(this.#times!.read()))) : undefined;
    return reads.map((r) => (r.address === this.#manifest.profile ? new Uint8Array(times!.buffer) : results.shift()!));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#staging?.destroy();
    this.#times?.destroy();
    for (const b of this.#buffers) b.destroy();
    if (this.#open.own) this.#device.destroy();
  }

  /** Submits what `encode` records and copies of the ranges, and waits for them. */
  async #submit(ranges: readonly Range[], encode: (encoder: GpuCommandEncoder) => void): Promise<Uint8Array<ArrayBuffer>[]> {
    this.#check();
    let size = 0;
    const copies = ranges.map((r) => {
      if (r.bytes === 0) return undefined;
      const place = this.#at(r.address);
      const bytes = (r.bytes / dtypeFacts[place.dtype].bytes) * place.width;
      const at = size;
      // Copies take whole words.
      size += Math.ceil(bytes / 4) * 4;
      return { place, at, bytes, spans: this.#spans(place.start, Math.ceil(bytes / 4) * 4) };
    });
    const staging = this.#stage(size);
    const encoder = this.#device.createCommandEncoder();
    encode(encoder);
    for (const c of copies) {
      let at = c?.at ?? 0;
      for (const s of c?.spans ?? []) {
        encoder.copyBufferToBuffer(s.buffer, s.offset, staging, at, s.bytes);
        at += s.bytes;
      }
    }
    this.#device.queue.submit([encoder.finish()]);
    await this.#within(staging.mapAsync(mapRead, 0, Math.max(4, size)));
    const mapped = staging.getMappedRange(0, Math.max(4, size));
    const results = copies.map((c) => (c ? fromWords(c.place.dtype, mapped.slice(c.at, c.at + c.bytes), this.#halves) : new Uint8Array(0)));
    staging.unmap();
    this.#check();
    return results;
  }

  #check(): void {
    if (!this.#closed && isClosed(this.#device)) this.#fail(new LostGpu('the GPU device was lost (destroyed): it was closed'));
    if (this.#failure) throw this.#failure;
  }

  #stage(size: number): GpuBuffer {
    if (this.#staging && this.#staging.size >= size) return this.#staging;
    this.#staging?.destroy();
    this.#staging = this.#device.createBuffer({ size: Math.max(256, size), usage: usage.mapRead | usage.copyTarget });
    return this.#staging;
  }

  /** Waits for the GPU, no longer than a run may take, and not for one that is lost. */
  #within<T>(promise: Promise<T>): Promise<T> {
    const failed = async (e: unknown): Promise<never> => {
      // Of a lost device, what was under way is told before the loss.
      if (!this.#failure) await bounded(this.#failed, patience.loss, '').catch(() => {});
      const error: RunError = this.#failure ?? new RunError(`the GPU failed: ${e instanceof Error ? e.message : String(e)}`);
      throw error;
    };
    return bounded(Promise.race([promise, this.#failed]).catch(failed), patience.run, 'the GPU did not finish its work');
  }

  #at(address: number): Place {
    const place = this.#places.get(address);
    if (!place) throw new InputError(`the artifact has no tensor at address ${address}`);
    return place;
  }

  #place({ name, address, dtype }: { readonly name: string; readonly address: number; readonly dtype?: DTypeName }): Place {
    if (dtype === undefined) throw new InputError(`the manifest does not say the element type of ${JSON.stringify(name)}`);
    return { name, dtype, start: address - control.size, width: wordBytes(dtype, this.#halves) };
  }

  /** Writes words of a tensor, from a byte of its memory on. */
  #write(place: Place, from: number, words: Uint8Array<ArrayBuffer>): void {
    let at = 0;
    for (const s of this.#spans(place.start + from, words.length)) {
      this.#device.queue.writeBuffer(s.buffer, s.offset, words, at, s.bytes);
      at += s.bytes;
    }
  }

  /** What a range of memory is in GPU buffers. */
  #spans(from: number, bytes: number): Span[] {
    const spans: Span[] = [];
    for (let at = from; at < from + bytes;) {
      const index = this.#program.segments.findIndex((s) => at >= s.start && at < s.start + s.bytes);
      const segment = this.#program.segments[index];
      if (!segment) throw new InputError(`the artifact has no memory at address ${at}`);
      const end = Math.min(from + bytes, segment.start + segment.bytes);
      spans.push({ buffer: this.#buffers[index]!, offset: at - segment.start, bytes: end - at });
      at = end;
    }
    return spans;
  }
}

/** Weights were proved when the artifact was compiled. */
const wholeWords = (dtype: DTypeName): readonly [number, number] => (dtype === 'u64' ? [0, 2 ** 32 - 1] : [-(2 ** 31), 2 ** 31 - 1]);
