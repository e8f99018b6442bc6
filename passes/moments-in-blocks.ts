import type { Builder } from '../ir/builder.ts';
import { isMap } from '../ir/fused.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { blockProblem } from '../ir/moment-blocks.ts';
import { nums } from '../ir/op.ts';
import { rewriteOps, type Facts } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { sameShape, sizeOf } from '../ir/type.ts';

/** Pixels of a block at least: few enough that convolutions can still cut an image into as many parts as they like, and enough to pay for what follows each block. And at most, so that there is something to share out. */
const fewestPixels = (all: number): number => Math.min(all, Math.max(24, Math.min(48, all / 8)));
const mostPixels = 1024;
/** Elements of a sample from which it pays to take moments in two stages. */
const fewestElements = 4096;
/** Channels of a group that fill a cache line: then a pass over each group by itself reads as fast. */
const wholeLine = 16;

/**
 * Rewrites the moments of groups of channels of a sample (group, instance and layer norms) in two stages, where channels lie side by side in memory: moments of each channel over blocks of pixels, then of groups of
 * them, by Chan's rule. The first stage reads all channels of a pixel at once, whatever the groups are, and is what the kernel of a convolution takes along (`fuse-moments`); behind other ops, groups that fill cache lines stay as they are. Blocks are those of a sample, whatever
 * the batch is. For targets whose tiles are cores with caches.
 */
export function momentsInBlocks(graph: Graph, target: Target): Graph {
  if (!target.division) return graph;
  return rewriteOps(graph, (op, b, facts) => {
    const m = op.name === 'moments' ? groupsOf(op, facts) : undefined;
    const pixels = m && besideEachOther(m.x, facts) ? pixelsOfBlock(m, facts) : undefined;
    return pixels === undefined ? undefined : inBlocks(m!, pixels, op, b);
  });
}

interface Groups {
  /** [N, C, spatial...] */
  readonly x: Value;
  /** Into how many groups the moments cut C. */
  readonly groups: number;
}

/** What moments over all pixels of groups of channels are of; undefined for others. */
function groupsOf(op: Op, facts: Facts): Groups | undefined {
  const [v] = op.operands as [Value];
  const { dtype, shape } = v.type;
  const axes = nums(op.attrs, 'axes');
  const from = (axis: number): boolean => sameShape(axes, [...shape.keys()].slice(axis));
  if (dtype !== 'f32') return undefined;
  const move = facts.definition(v);
  const x = move?.name === 'reshape' ? move.operands[0]! : undefined;
  if (x && from(2) && shape.length === x.type.shape.length + 1 && sameShape([shape[0]!, shape[1]! * shape[2]!, ...shape.slice(3)], x.type.shape)) return { x, groups: shape[1]! };
  if (shape.length < 3) return undefined;
  return from(1) ? { x: v, groups: 1 } : from(2) ? { x: v, groups: shape[1]! } : undefined;
}

/** Whether a value of convolutions has channels side by side in memory: it, or what elementwise ops make it of, is the result of one, or was turned so. */
function besideEachOther(v: Value, facts: Facts): boolean {
  for (let [x, left] = [v, 16]; left > 0; left--) {
    const op = facts.definition(x);
    if (!op) return false;
    if (op.name === 'convPacked') return true;
    if (op.name === 'transpose') return nums(op.attrs, 'perm')[1] === x.type.shape.length - 1;
    const next = isMap(op) ? op.operands.find((o) => sameShape(o.type.shape, x.type.shape)) : op.name === 'concat' ? op.operands[0] : undefined;
    if (!next) return false;
    x = next;
  }
  return false;
}

/** How many pixels a block of x has: whole rows of an image, whole rows of tiles behind a Winograd convolution; undefined where it cannot be cut into blocks, is too small, or is read as fast without. */
function pixelsOfBlock({ x, groups }: Groups, facts: Facts): number | undefined {
  const [, channels, ...spatial] = x.type.shape as [number, number, ...number[]];
  const all = sizeOf(spatial);
  if (all * channels < fewestElements) return undefined;
  const row = all / spatial[0]!;
  const maker = makerOf(x, facts);
  if (!maker && channels / groups >= wholeLine) return undefined;
  for (let rows = 1; rows <= spatial[0]!; rows++) {
    const pixels = rows * row;
    if (spatial[0]! % rows === 0 && pixels >= fewestPixels(all) && (!maker || blockProblem(maker, pixels) === undefined)) return pixels <= mostPixels ? pixels : undefined;
  }
  return undefined;
}

/** The convolution that gives a value, elementwise ops after it included. */
function makerOf(v: Value, facts: Facts): Op | undefined {
  const op = facts.definition(v);
  if (op?.name === 'convPacked') return op;
  if (!op || !isMap(op)) return undefined;
  return op.operands.filter((o) => sameShape(o.type.shape, v.type.shape)).map((o) => makerOf(o, facts)).find((maker) => maker !== undefined);
}

function inBlocks({ x, groups }: Groups, pixels: number, op: Op, b: Builder): readonly Value[] {
  const [n, channels, ...spatial] = x.type.shape as [number, number, ...number[]];
  const blocks = sizeOf(spatial) / pixels;
  // The reshape stands there even where it changes nothing: `fuse-moments` looks for it.
  const parts = b.op('moments', [b.one('reshape', [x], { shape: [n, channels, blocks, pixels] })], { axes: [3] });
  const { shape } = op.results[0]!.type;
  const each = [n, groups, channels / groups, blocks];
  if (each[2]! * blocks === 1) return parts.map((v) => b.reshape(v, shape));
  const [means, squares] = parts.map((v) => b.reshape(v, each)) as [Value, Value];
  const mean = b.div(b.reduce('reduceSum', means, [2, 3]), each[2]! * blocks);
  const apart = b.sub(means, b.reshape(mean, [n, groups, 1, 1]));
  const m2 = b.reduce('reduceSum', b.add(squares, b.mul(b.mul(apart, apart), pixels)), [2, 3]);
  return [mean, m2].map((v) => b.reshape(v, shape));
}
