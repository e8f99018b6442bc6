/** Exchanges: every part of a buffer receives its slice from parts of another. */
import { InternalError } from '../../ir/diagnostic.ts';
import { dtypes, sizeOf, type DType, type Tensor, type TypedArray } from '../../ir/type.ts';
import { atTime, elementNumbers, partsOf, sliceAt } from './parts.ts';
import type { TileBuffer } from '../../ir/tiles.ts';
import { PoisonRead, poisonedTensor, type TileMemories } from './memory.ts';

export const dtypeOf = (b: TileBuffer): DType => b.dtype as DType;

/** A step that cannot be done as the plan says it. */
export class PlanFault extends Error {}

interface Sent { readonly data: TypedArray; readonly numbers: Int32Array }

/** What every part of a buffer holds, in order of the parts. */
function parts(memories: TileMemories, b: TileBuffer, tiles: number, iteration: number): Sent[] {
  return [...partsOf(b.spread, tiles)].map(([tile, at]) => {
    const numbers = elementNumbers(sliceAt(b.spread, atTime(b.spread.dims, at, iteration)), b.shape);
    return { numbers, data: read(memories, b, tile, numbers.length * b.width) };
  });
}

/** Elements of a buffer on a tile. Throws a PlanFault where they were never written or are gone. */
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
  for (const { data, numbers } of parts(memories, b, tiles, iteration)) {
    const from = data as Float64Array;
    for (let i = 0; i < numbers.length; i++) {
      const n = numbers[i]!;
      if (held[n] && !Object.is(whole[n], from[i])) throw new PlanFault(`buffer ${b.id} (${b.value}, ${b.kind}): tiles disagree about element ${n}: ${whole[n]} and ${from[i]}`);
      held[n] = 1;
      whole[n] = from[i]!;
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
    for (const [tile, at] of partsOf(to.spread, tiles)) {
      const numbers = elementNumbers(sliceAt(to.spread, atTime(to.spread.dims, at, iteration)), to.shape);
      const data = new dtypes[dtypeOf(to)].array(numbers.length) as Float64Array;
      for (let i = 0; i < numbers.length; i++) {
        if (held[numbers[i]!] === 0) throw new PlanFault(`buffer ${to.id} (${to.value}): no tile holds element ${numbers[i]} of buffer ${from.id}`);
        data[i] = whole[numbers[i]!]!;
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
  for (const { data, numbers } of parts(memories, from, tiles, iteration)) {
    for (let i = 0; i < numbers.length; i++) {
      const n = numbers[i]!;
      if (counts[n] === depth) throw new PlanFault(`buffer ${to.id} (${to.value}) has room for ${depth} contributions to element ${n}, which has more`);
      for (let w = 0; w < from.width; w++) slots[n * to.width + counts[n]! * from.width + w] = (data as Float64Array)[i * from.width + w]!;
      counts[n]!++;
    }
  }
  return () => {
    for (const [tile, at] of partsOf(to.spread, tiles)) {
      const numbers = elementNumbers(sliceAt(to.spread, atTime(to.spread.dims, at, iteration)), to.shape);
      const data = new dtypes[dtypeOf(to)].array(numbers.length * to.width) as Float64Array;
      const here = new Int32Array(numbers.length);
      numbers.forEach((n, i) => {
        if (counts[n] === 0) throw new PlanFault(`buffer ${to.id} (${to.value}): no tile contributes to element ${n}`);
        here[i] = counts[n]!;
        for (let w = 0; w < to.width; w++) data[i * to.width + w] = slots[n * to.width + w]!;
      });
      memories.write(tile, to.offset, data);
      arrived(tile, here);
    }
  };
}
