/** Runs a program of compute shaders: the memory of an artifact in GPU buffers, one command buffer a run. */
import { control } from '../control.ts';
import { InputError, type RunError } from '../error.ts';
import type { Executor } from '../executor.ts';
import type { DTypeName, GpuProgram, IoEntry, Manifest } from '../manifest.ts';
import { dtypeFacts } from '../tensor.ts';
import type { Patch, Range } from '../worker.ts';
import { makeBuffers, mebibytes, programBytes } from './buffers.ts';
import { bounded, isClosed, lossOf, patience, wordsOf, type OpenDevice } from './device.ts';
import { bindCalls, record, walkCalls, type Call, type CallTree } from './calls.ts';
import { GpuFailure, LostGpu } from './error.ts';
import type { Pipeline } from './pipelines.ts';
import { timeByQueue, TimeStamps } from './timestamps.ts';
import { mapRead, usage, type GpuBuffer, type GpuCommandEncoder, type GpuDevice, type GpuError } from './types.ts';
import { checkFloats, fromWords, storesHalves, toWords, wordBytes } from './words.ts';

/** Bytes that are written, and that are read, at a time; every device has buffers of so many. */
const [chunkBytes, stagingBytes] = [1 << 24, 1 << 26];

/** A tensor that the host reads or writes; `start` as segments count it. */
interface Place { readonly name: string; readonly dtype: DTypeName; readonly start: number; readonly width: number }
/** A part of a tensor that is brought to the host: `bytes` of GPU memory from `from` on, which go to byte `at` of the staging buffer and byte `to` of the result with this number. */
interface Piece { readonly place: Place; readonly result: number; readonly from: number; readonly bytes: number; readonly at: number; readonly to: number }
/** A range of one GPU buffer. */
interface Span { readonly buffer: GpuBuffer; readonly offset: number; readonly bytes: number }

/** Makes the buffers and bind groups of an artifact. Memory that the GPU does not have is a NoGpu with numbers. */
export async function makeExecutor(open: OpenDevice, manifest: Manifest, pipelines: readonly Pipeline[]): Promise<Executor> {
  const program = manifest.gpu!;
  const buffers = await makeBuffers(open, program);
  return new GpuExecutor(open, manifest, buffers, await bindCalls(open, program, pipelines, buffers));
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
      if (!this.#closed) this.#fail(new LostGpu(lossOf(reason, message)));
    });
    if (open.own) open.device.onuncapturederror = (event) => this.#fail(new GpuFailure(`the GPU reports an error: ${wordsOf(event.error)}`));
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
      const words = toWords(place.name, place.dtype, chunk, wholeWords(place.dtype), this.#halves);
      await this.#within(this.#heard(() => this.#write(place, (at / width) * place.width, words)));
    }
  }

  async read(ranges: readonly Range[], into?: readonly Uint8Array<ArrayBuffer>[]): Promise<readonly Uint8Array<ArrayBuffer>[]> {
    const results = await this.#submit(ranges, () => {});
    into?.forEach((array, i) => array.set(results[i]!));
    return into ?? results;
  }

  async run(writes: readonly Patch[], reads: readonly Range[]): Promise<Uint8Array<ArrayBuffer>[]> {
    this.#check();
    const { profile, steps } = this.#manifest;
    const given: [Place, Uint8Array<ArrayBuffer>][] = [];
    for (const w of writes) {
      if (w.address === control.entry) this.#entry = new Int32Array(w.bytes.slice().buffer)[0]!;
      else if (w.address !== profile && w.bytes.length > 0) {
        const place = this.#at(w.address);
        if (this.#program.floatInputs?.includes(place.name)) checkFloats(place.name, w.bytes, this.#program.integerInputs);
        given.push([place, toWords(place.name, place.dtype, w.bytes, place.dtype === 'i64' ? this.#program.integerInputs : [0, this.#program.integerInputs[1]], this.#halves)]);
      }
    }
    await this.#within(this.#heard(() => given.forEach(([place, words]) => this.#write(place, 0, words))));
    const calls = this.#entries[this.#entry]!;
    const tensors = reads.filter((r) => r.address !== profile);
    const byQueue = profile >= 0 && !this.#times ? await timeByQueue(calls, steps.length, (call) => this.#finished(call)) : undefined;
    const results = await this.#submit(tensors, (encoder) => {
      if (byQueue) return;
      if (this.#times) return this.#times.record(encoder, calls);
      const pass = encoder.beginComputePass();
      walkCalls(calls, (c) => record(pass, c));
      pass.end();
    });
    const times = tensors.length < reads.length ? (byQueue ?? (await this.#within(this.#times!.read()))) : undefined;
    return reads.map((r) => (r.address === profile ? new Uint8Array(times!.buffer) : results.shift()!));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#staging?.destroy();
    this.#times?.destroy();
    for (const b of this.#buffers) b.destroy();
    if (this.#open.own) this.#device.destroy();
  }

  /** Submits what `encode` records, brings the ranges home, as many bytes at a time as the staging buffer takes, and waits for them. */
  async #submit(ranges: readonly Range[], encode: (encoder: GpuCommandEncoder) => void): Promise<Uint8Array<ArrayBuffer>[]> {
    this.#check();
    const results = ranges.map((r) => new Uint8Array(r.bytes));
    let work = encode;
    for (const pieces of this.#pieces(ranges)) {
      await this.#bring(pieces, results, work);
      work = () => {};
    }
    this.#check();
    return results;
  }

  /** What is read of the ranges, in groups that the staging buffer holds; one group at least. */
  #pieces(ranges: readonly Range[]): Piece[][] {
    const groups: Piece[][] = [[]];
    let at = 0;
    ranges.forEach((r, result) => {
      if (r.bytes === 0) return;
      const place = this.#at(r.address);
      const { bytes: width } = dtypeFacts[place.dtype];
      const all = (r.bytes / width) * place.width;
      for (let from = 0; from < all;) {
        if (at === stagingBytes) {
          groups.push([]);
          at = 0;
        }
        const bytes = Math.min(stagingBytes - at, all - from);
        groups.at(-1)!.push({ place, result, from, bytes, at, to: (from / place.width) * width });
        from += bytes;
        at += wholeBytes(bytes);
      }
    });
    return groups;
  }

  async #bring(pieces: readonly Piece[], results: readonly Uint8Array[], encode: (encoder: GpuCommandEncoder) => void): Promise<void> {
    const last = pieces.at(-1);
    const size = Math.max(4, last ? last.at + wholeBytes(last.bytes) : 0);
    let staging: GpuBuffer | undefined;
    let mapped: Promise<unknown> | undefined;
    const heard = this.#heard(() => {
      staging = this.#stage(size);
      const encoder = this.#device.createCommandEncoder();
      encode(encoder);
      for (const p of pieces) {
        let { at } = p;
        for (const s of this.#spans(p.place.start + p.from, wholeBytes(p.bytes))) {
          encoder.copyBufferToBuffer(s.buffer, s.offset, staging, at, s.bytes);
          at += s.bytes;
        }
      }
      this.#device.queue.submit([encoder.finish()]);
      mapped = staging.mapAsync(mapRead, 0, size);
      mapped.catch(() => {});
    });
    await this.#within(heard.then(() => mapped));
    const words = staging!.getMappedRange(0, size);
    for (const p of pieces) results[p.result]!.set(fromWords(p.place.dtype, words.slice(p.at, p.at + p.bytes), this.#halves), p.to);
    staging!.unmap();
  }

  /** Submits one dispatch and waits for its end. */
  #finished(call: Call): Promise<unknown> {
    let done: Promise<unknown> | undefined;
    const heard = this.#heard(() => {
      const encoder = this.#device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      record(pass, call);
      pass.end();
      this.#device.queue.submit([encoder.finish()]);
      done = this.#device.queue.onSubmittedWorkDone();
    });
    return this.#within(heard.then(() => done));
  }

  /** Does `work`, which hands the device something, and rejects with what the device finds wrong with it: on a shared device nobody else would be told. */
  #heard(work: () => void): Promise<void> {
    for (const filter of filters) this.#device.pushErrorScope(filter);
    let answers: Promise<GpuError | null>[] = [];
    try {
      work();
    } finally {
      answers = filters.map(() => this.#device.popErrorScope());
      for (const a of answers) a.catch(() => {});
    }
    return Promise.all(answers).then(([memory, invalid]) => {
      if (memory) throw new GpuFailure(`the GPU ${this.#open.adapter} ran out of memory: the model holds ${mebibytes(programBytes(this.#program))} of it, and a run up to ${mebibytes(stagingBytes)} more for its results (${wordsOf(memory)})`);
      if (invalid) throw new GpuFailure(`the GPU refuses what the artifact asks for: ${wordsOf(invalid)}`);
    });
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
      if (!this.#failure && !(e instanceof GpuFailure)) await bounded(this.#failed, patience.loss, '').catch(() => {});
      const error: RunError = this.#failure ?? (e instanceof GpuFailure ? e : new GpuFailure(`the GPU failed: ${wordsOf(e)}`));
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

/** Kinds of errors that a device reports. Scopes end in the other order. */
const filters = ['validation', 'out-of-memory'] as const;

/** Copies take whole words. */
const wholeBytes = (bytes: number): number => Math.ceil(bytes / 4) * 4;

/** Weights were proved when the artifact was compiled. */
const wholeWords = (dtype: DTypeName): readonly [number, number] => (dtype === 'u64' ? [0, 2 ** 32 - 1] : [-(2 ** 31), 2 ** 31 - 1]);
