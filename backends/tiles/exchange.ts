/** Exchanges: every part of a buffer receives its slice from parts of another. */
import { InternalError } from '../../ir/diagnostic.ts';
import { dtypes, sizeOf, type DType, type Tensor, type TypedArray } from '../../ir/type.ts';
import { atTime, partsOf, runsOf, sliceAt, type Runs } from './parts.ts';
import type { TileBuffer } from '../../ir/tiles.ts';
import { PoisonRead, poisonedTensor, type TileMemories } from './memory.ts';

export const dtypeOf = (b: TileBuffer): DType => b.dtype as DType;

/** A step that cannot be done as the plan says it. */
export class PlanFault extends Error {}

/** What one part of a buffer holds: a number of elements, `width` numbers each. */
interface Sent { readonly data: TypedArray; readonly runs: Runs }

/** What every part of a buffer holds, in order of the parts; to be read before anything is written. */
function* sentBy(memories: TileMemories, b: TileBuffer, tiles: number, iteration: number): Generator<Sent> {
  for (const { tile, runs } of receivers(b, tiles, iteration)) yield { runs, data: read(memories, b, tile, runs.starts.length * runs.length * b.width) };
}

/** The tiles of a buffer, with the elements that each has. */
function* receivers(b: TileBuffer, tiles: number, iteration: number): Generator<{ readonly tile: number; readonly runs: Runs }> {
  for (const [tile, at] of partsOf(b.spread, tiles)) yield { tile, runs: runsOf(sliceAt(b.spread, atTime(b.spread.dims, at, iteration)), b.shape) };
}

/** Elements of a buffer on a tile, to be read before the next write. Throws a PlanFault where they were never written or are gone. */
export function read(memories: TileMemories, b: TileBuffer, tile: number, count: number): TypedArray {
  try {
    return memories.read(tile, b.offset, dtypeOf(b), count);
  } catch (e) {
    if (e instanceof PoisonRead) throw new PlanFault(`buffer ${b.id} (${b.value}, ${b.kind}): ${e.message}`);
    throw e;
  }
}

/** A whole tensor, and which of its elements some tile holds. */
interface Gathered { readonly tensor: Tensor; readonly held: Uint8Array }

/** The tensor that a buffer's parts hold together. Throws a PlanFault where parts that hold the same element differ. */
function gathered(memories: TileMemories, b: TileBuffer, tiles: number, iteration: number): Gathered {
  const total = sizeOf(b.shape);
  const tensor = poisonedTensor(dtypeOf(b), b.shape, total);
  const whole = tensor.data as Float64Array;
  const held = new Uint8Array(total);
  for (const { data, runs } of sentBy(memories, b, tiles, iteration)) {
    const from = data as Float64Array;
    let i = 0;
    for (const start of runs.starts) {
      for (let n = start; n < start + runs.length; n++, i++) {
        const x = from[i]!;
        if (held[n] === 0) {
          held[n] = 1;
          whole[n] = x;
        } else if (!Object.is(whole[n], x)) throw new PlanFault(`buffer ${b.id} (${b.value}, ${b.kind}): tiles disagree about element ${n}: ${whole[n]} and ${x}`);
      }
    }
  }
  return { tensor, held };
}

/** The whole tensor of a buffer. Throws a PlanFault where an element is on no tile. */
export function wholeTensor(memories: TileMemories, b: TileBuffer, tiles: number): Tensor {
  const { tensor, held } = gathered(memories, b, tiles, 0);
  const absent = held.indexOf(0);
  if (absent >= 0) throw new PlanFault(`buffer ${b.id} (${b.value}): no tile holds element ${absent}`);
  return tensor;
}

/** One message of an exchange: what a tile is sent, read before anything is written. */
export type Delivery = () => void;

/** Elements of `from` on their way to the parts of `to`. */
export function copyTo(memories: TileMemories, from: TileBuffer, to: TileBuffer, tiles: number, iteration: number): Delivery {
  const { tensor, held } = gathered(memories, from, tiles, iteration);
  const whole = tensor.data as Float64Array;
  return () => {
    for (const { tile, runs: { starts, length } } of receivers(to, tiles, iteration)) {
      const data = new dtypes[dtypeOf(to)].array(starts.length * length) as Float64Array;
      let i = 0;
      for (const start of starts) {
        for (let n = start; n < start + length; n++) {
          if (held[n] === 0) throw new PlanFault(`buffer ${to.id} (${to.value}): no tile holds element ${n} of buffer ${from.id}`);
          data[i++] = whole[n]!;
        }
      }
      memories.write(tile, to.offset, data);
    }
  };
}

/** Contributions of all parts of `from` on their way to the slots of `to`. `arrived` is told how many contributions each element of a tile has. */
export function contributeTo(memories: TileMemories, from: TileBuffer, to: TileBuffer, tiles: number, iteration: number, arrived: (tile: number, counts: Int32Array) => void): Delivery {
  const total = sizeOf(from.shape);
  const depth = to.width / from.width;
  if (!Number.isInteger(depth)) throw new InternalError(`buffer ${to.id} takes ${to.width} numbers an element, no multiple of the ${from.width} of buffer ${from.id}`);
  const slots = poisonedTensor(dtypeOf(from), [], total * to.width).data as Float64Array;
  const counts = new Int32Array(total);
  for (const { data, runs } of sentBy(memories, from, tiles, iteration)) {
    let i = 0;
    for (const start of runs.starts) {
      for (let n = start; n < start + runs.length; n++, i++) {
        if (counts[n] === depth) throw new PlanFault(`buffer ${to.id} (${to.value}) has room for ${depth} contributions to element ${n}, which has more`);
        for (let w = 0; w < from.width; w++) slots[n * to.width + counts[n]! * from.width + w] = (data as Float64Array)[i * from.width + w]!;
        counts[n]!++;
      }
    }
  }
  return () => {
    for (const { tile, runs: { starts, length } } of receivers(to, tiles, iteration)) {
      const data = new dtypes[dtypeOf(to)].array(starts.length * length * to.width) as Float64Array;
      const here = new Int32Array(starts.length * length);
      let i = 0;
      for (const start of starts) {
        for (let n = start; n < start + length; n++, i++) {
          if (counts[n] === 0) throw new PlanFault(`buffer ${to.id} (${to.value}): no tile contributes to element ${n}`);
          here[i] = counts[n]!;
          for (let w = 0; w < to.width; w++) data[i * to.width + w] = slots[n * to.width + w]!;
        }
      }
      memories.write(tile, to.offset, data);
      arrived(tile, here);
    }
  };
}
