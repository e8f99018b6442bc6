/** The address space of a tile program in GPU buffers. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Buffer } from '../../ir/tile.ts';
import type { Segment } from '../../runtime/manifest.ts';

/** Bindings start at multiples of this many bytes on every adapter, and so do buffers of a program. */
export const alignment = 256;

/** A range of one GPU buffer: which, the first byte in it, and how many. */
export interface Piece { readonly segment: number; readonly offset: number; readonly bytes: number }

/** What a program needs beside its own buffers. */
interface Extra {
  /** Most bytes of a GPU buffer. */
  readonly bufferBytes: number;
  /** Bytes for kernels that work in steps, free between ops. */
  readonly scratch: number;
}

/** A kernel needs more scratch than a program was given: it is emitted again with so many bytes. */
export class MoreScratch extends Error {
  readonly bytes: number;
  constructor(bytes: number) {
    super(`${bytes} bytes of scratch are needed`);
    this.bytes = bytes;
  }
}

/**
 * GPU buffers for each kind of memory: a tensor that is larger than a buffer may be lies in several, and so may one of those temporaries that share addresses. Addresses are the program's; scratch and
 * the words of gates come after them.
 */
export class Memory {
  readonly #segments: { kind: Segment['kind']; start: number; bytes: number }[] = [];
  /** First address of scratch. */
  readonly scratch: number;
  readonly #gates: number;
  #gateBytes = 0;

  constructor(buffers: readonly Buffer[], { bufferBytes, scratch }: Extra) {
    const most = Math.floor(bufferBytes / alignment) * alignment;
    const temps = buffers.filter((b) => b.kind === 'temp');
    for (const b of buffers.filter((b) => b.kind !== 'temp').sort((p, q) => p.address - q.address)) {
      const kind = b.kind === 'output' || b.kind === 'input' ? 'io' : b.kind;
      const last = this.#segments.at(-1);
      if (last?.kind === kind && b.address + b.bytes - last.start <= most) last.bytes = b.address + b.bytes - last.start;
      else this.#add(kind, b.address, b.bytes, most);
    }
    if (temps.length > 0) {
      const start = Math.min(...temps.map((b) => b.address));
      this.#add('temp', start, Math.max(...temps.map((b) => b.address + b.bytes)) - start, most);
    }
    this.scratch = this.#end();
    if (scratch > 0) this.#add('temp', this.scratch, scratch, most);
    this.#gates = this.#end();
  }

  /** All GPU buffers. */
  segments(): Segment[] {
    return [...this.#segments, ...(this.#gateBytes > 0 ? [{ kind: 'gate' as const, start: this.#gates, bytes: this.#gateBytes }] : [])];
  }

  /** The number of the GPU buffer that holds gates, which grows as they are made. */
  get gateSegment(): number {
    return this.#segments.length;
  }

  /** Memory for gates; gives its address. */
  addGates(bytes: number): number {
    const address = this.#gates + this.#gateBytes;
    this.#gateBytes += Math.ceil(bytes / alignment) * alignment;
    return address;
  }

  /** What the addresses `from` up to `to` are in GPU buffers, in pieces of at most so many bytes. */
  cut(from: number, to: number, most: number): Piece[] {
    const pieces: Piece[] = [];
    const whole = Math.max(alignment, Math.floor(most / alignment) * alignment);
    for (let at = from; at < to;) {
      const segment = this.segmentAt(at);
      const { start, bytes } = this.#segmentOf(segment);
      const end = Math.min(to, start + bytes, at + whole);
      pieces.push({ segment, offset: at - start, bytes: end - at });
      at = end;
    }
    return pieces;
  }

  /** The address of some bytes of scratch, both multiples of the alignment. MoreScratch where there are fewer. */
  scratchAt(offset: number, bytes: number): number {
    if (this.scratch + offset + bytes > this.#gates) throw new MoreScratch(offset + bytes);
    return this.scratch + offset;
  }

  segmentAt(address: number): number {
    if (address >= this.#gates) return this.gateSegment;
    const segment = this.#segments.findIndex((s) => address >= s.start && address < s.start + s.bytes);
    invariant(segment >= 0, `no buffer holds address ${address}`);
    return segment;
  }

  #segmentOf(segment: number): { readonly start: number; readonly bytes: number } {
    return this.#segments[segment] ?? { start: this.#gates, bytes: this.#gateBytes };
  }

  #end(): number {
    return Math.max(0, ...this.#segments.map((s) => Math.ceil((s.start + s.bytes) / alignment) * alignment));
  }

  #add(kind: Segment['kind'], start: number, bytes: number, most: number): void {
    for (let at = 0; at < bytes; at += most) this.#segments.push({ kind, start: start + at, bytes: Math.min(most, bytes - at) });
  }
}
