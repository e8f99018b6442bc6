/** Times of dispatches: by stamps of the GPU where it has the feature timestamp-query, else by the host's clock. */
import { record, walkCalls, type Call, type CallTree } from './calls.ts';
import { mapRead, usage, type GpuBuffer, type GpuCommandEncoder, type GpuDevice, type GpuQuerySet } from './types.ts';

/** Stamps of one set: WebGPU's limit. */
const perSet = 4096;

/** A pass for each dispatch, with a stamp before and after. */
export class TimeStamps {
  readonly #device: GpuDevice;
  readonly #steps: number;
  #sets: GpuQuerySet[] = [];
  #resolved: GpuBuffer | undefined;
  #staging: GpuBuffer | undefined;
  /** The step of each pair of stamps of the last run. */
  #pairs: number[] = [];

  constructor(device: GpuDevice, steps: number) {
    this.#device = device;
    this.#steps = steps;
  }

  /** Records the calls with stamps around each. */
  record(encoder: GpuCommandEncoder, calls: readonly CallTree[]): void {
    this.#pairs = [];
    walkCalls(calls, (c) => {
      const at = this.#pairs.length * 2;
      const set = this.#set(Math.floor(at / perSet));
      this.#pairs.push(c.step);
      const pass = encoder.beginComputePass({ timestampWrites: { querySet: set, beginningOfPassWriteIndex: at % perSet, endOfPassWriteIndex: (at % perSet) + 1 } });
      record(pass, c);
      pass.end();
    });
    const bytes = Math.max(256, this.#pairs.length * 16);
    if (!this.#resolved || this.#resolved.size < bytes) {
      this.#resolved?.destroy();
      this.#staging?.destroy();
      this.#resolved = this.#device.createBuffer({ size: Math.ceil(bytes / 256) * 256, usage: usage.queryResolve | usage.copySource });
      this.#staging = this.#device.createBuffer({ size: Math.ceil(bytes / 256) * 256, usage: usage.mapRead | usage.copyTarget });
    }
    const stamps = this.#pairs.length * 2;
    for (let first = 0; first < stamps; first += perSet) encoder.resolveQuerySet(this.#set(first / perSet), 0, Math.min(perSet, stamps - first), this.#resolved, first * 8);
    if (stamps > 0) encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging!, 0, stamps * 8);
  }

  /** Start and end of every step of the last run in milliseconds; of a step that ran several times the first start, and an end that adds up its times. 0 where it did not run. */
  async read(): Promise<Float64Array<ArrayBuffer>> {
    const times = new Float64Array(2 * this.#steps);
    if (this.#pairs.length === 0) return times;
    await this.#staging!.mapAsync(mapRead);
    const stamps = new BigUint64Array(this.#staging!.getMappedRange().slice(0));
    this.#staging!.unmap();
    const zero = stamps[0]!;
    this.#pairs.forEach((step, i) => {
      // A start of 0 would read as a step that was not reached.
      const start = Number(stamps[2 * i]! - zero) / 1e6 + 1e-6;
      const took = Number(stamps[2 * i + 1]! - stamps[2 * i]!) / 1e6;
      if (times[2 * step] === 0) times.set([start, start], 2 * step);
      times[2 * step + 1]! += took;
    });
    return times;
  }

  destroy(): void {
    this.#resolved?.destroy();
    this.#staging?.destroy();
    for (const s of this.#sets) s.destroy();
  }

  #set(i: number): GpuQuerySet {
    return (this.#sets[i] ??= this.#device.createQuerySet({ type: 'timestamp', count: perSet }));
  }
}

/**
 * Runs the calls one by one, each after the GPU has finished the one before, and gives what `TimeStamps.read` gives: times of the host's clock, from the submission until the host hears of the end.
 * `finished` submits a call and waits for its end.
 */
export async function timeByQueue(calls: readonly CallTree[], steps: number, finished: (call: Call) => Promise<unknown>): Promise<Float64Array<ArrayBuffer>> {
  const times = new Float64Array(2 * steps);
  const all: Call[] = [];
  walkCalls(calls, (c) => all.push(c));
  const zero = performance.now();
  for (const call of all) {
    const start = performance.now();
    await finished(call);
    const at = 2 * call.step;
    if (times[at] === 0) times.set([start - zero, start - zero], at);
    times[at + 1]! += performance.now() - start;
  }
  return times;
}
