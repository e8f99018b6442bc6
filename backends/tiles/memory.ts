/** Memories of tiles: one ArrayBuffer each, poisoned wherever no live buffer lies. */
import { InternalError } from '../../ir/diagnostic.ts';
import { dtypes, type DType, type Tensor, type TypedArray } from '../../ir/type.ts';

/** Every byte of poisoned memory: NaN in every float format of two bytes and more, and one that no arithmetic makes. */
const poison = 0xff;

/** Memory that was read before anything was written to it, or after its buffer died. */
export class PoisonRead extends Error {}

/** The memory of all tiles. Ranges are checked against the bytes that a tile has. */
export class TileMemories {
  readonly #tiles: readonly ArrayBuffer[];
  readonly #bytes: number;
  /** The end of what was written on each tile. */
  readonly used: Int32Array;

  /** `bytes`: of each tile. */
  constructor(tiles: number, bytes: number) {
    this.#bytes = bytes;
    this.#tiles = Array.from({ length: tiles }, () => new Uint8Array(bytes).fill(poison).buffer);
    this.used = new Int32Array(tiles);
  }

  /** `count` elements, to be read before the next write. Throws a PoisonRead where one of them is a float or bool and poisoned, unless `unchecked`. */
  read(tile: number, offset: number, dtype: DType, count: number, unchecked = false): TypedArray {
    const { array, bytes } = dtypes[dtype];
    this.#check(tile, offset, bytes * count);
    const memory = this.#tiles[tile]!;
    const aligned = offset % bytes === 0;
    const [buffer, from] = aligned ? [memory, offset] : [memory.slice(offset, offset + bytes * count), 0];
    if (!unchecked) {
      const at = poisoned(dtype, buffer, from, count);
      if (at >= 0) throw new PoisonRead(`element ${at} of ${count} at address ${offset} of tile ${tile} is poisoned`);
    }
    return viewOf(buffer, array, from, count);
  }

  write(tile: number, offset: number, data: TypedArray): void {
    this.#check(tile, offset, data.byteLength);
    new Uint8Array(this.#tiles[tile]!, offset, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.used[tile] = Math.max(this.used[tile]!, offset + data.byteLength);
  }

  /** Poisons a range on every tile. */
  poison(offset: number, bytes: number): void {
    for (const [tile, memory] of this.#tiles.entries()) {
      this.#check(tile, offset, bytes);
      new Uint8Array(memory, offset, bytes).fill(poison);
    }
  }

  #check(tile: number, offset: number, bytes: number): void {
    if (tile < 0 || tile >= this.#tiles.length) throw new InternalError(`there is no tile ${tile} of ${this.#tiles.length}`);
    if (offset < 0 || offset + bytes > this.#bytes) throw new InternalError(`bytes ${offset} to ${offset + bytes} are outside the ${this.#bytes} bytes of tile ${tile}`);
  }
}

type Words = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;
const words: Readonly<Record<1 | 2 | 4 | 8, { readonly array: new (buffer: ArrayBuffer, offset: number, length: number) => Words; readonly poison: number | bigint }>> = {
  1: { array: Uint8Array, poison }, 2: { array: Uint16Array, poison: 0xffff }, 4: { array: Uint32Array, poison: 0xffffffff }, 8: { array: BigUint64Array, poison: 0xffffffffffffffffn },
};

/** The first poisoned element; -1 where there is none, or where the bits are a value like any other (integers, floats of a byte). */
function poisoned(dtype: DType, buffer: ArrayBuffer, offset: number, count: number): number {
  const { kind, bytes } = dtypes[dtype];
  if (kind !== 'bool' && (kind !== 'float' || bytes === 1)) return -1;
  const { array, poison: bits } = words[bytes];
  const list = new array(buffer, offset, count);
  if (bytes !== 4) return (list as { indexOf(x: number | bigint): number }).indexOf(bits);
  for (let i = 0; i < count; i++) if (list[i] === bits) return i;
  return -1;
}

function viewOf(buffer: ArrayBuffer, array: new (length: number) => TypedArray, offset: number, count: number): TypedArray {
  return new (array as unknown as new (buffer: ArrayBuffer, offset: number, length: number) => TypedArray)(buffer, offset, count);
}

/** A tensor to be filled, poisoned. */
export function poisonedTensor(dtype: DType, shape: readonly number[], count: number): Tensor {
  const buffer = new Uint8Array(count * dtypes[dtype].bytes).fill(poison).buffer;
  return { dtype, shape, data: viewOf(buffer, dtypes[dtype].array, 0, count) };
}
