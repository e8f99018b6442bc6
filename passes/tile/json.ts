/** Plans as JSON (docs/plan.schema.json): cuts that occur often are listed once. */
import { UserError } from '../../ir/diagnostic.ts';
import type { Comb, Cut, Division, Spread, TileBuffer, TilePlan, TileStep } from '../../ir/tiles.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A plan as plain data for JSON.stringify. */
export function planToJson(plan: TilePlan): Json {
  const cuts: Json[] = [];
  const known = new Map<string, number>();
  const byObject = new Map<Cut, number>();
  const cut = (c: Cut): number => {
    const seen = byObject.get(c);
    if (seen !== undefined) return seen;
    const data = { by: [...c.by], combs: c.combs.map((x) => [x.base, ...x.levels.flatMap((l) => [l.n, l.step])]) };
    const key = JSON.stringify(data);
    let at = known.get(key);
    if (at === undefined) {
      at = cuts.push(data) - 1;
      known.set(key, at);
    }
    byObject.set(c, at);
    return at;
  };
  const dims = (s: Spread | Division): Json => s.dims.map((d) => ({ name: d.name, parts: d.parts, stride: d.stride, ...(d.time && { time: true }) }));
  const spread = (s: Spread): Json => ({ base: s.base, dims: dims(s), axes: s.axes.map(cut), ...(s.flat && { flat: true }) });
  const division = (d: Division): Json => ({ base: d.base, dims: dims(d), ranges: Object.fromEntries(Object.entries(d.ranges).map(([k, c]) => [k, cut(c)])), ...(d.flat && { flat: true }) });
  const access = (list: readonly { readonly buffer: number; readonly slice: Spread }[]): Json => list.map((a) => ({ buffer: a.buffer, slice: spread(a.slice) }));
  const step = (s: TileStep): Json => {
    switch (s.kind) {
      case 'repeat': return { kind: s.kind, index: s.index, times: s.times, body: s.body.map(step) };
      case 'exchange': return { ...s, copies: s.copies.map((c) => ({ ...c })), cycles: { ...s.cycles } };
      case 'compute': return { ...s, source: [...s.source], division: division(s.division), reads: access(s.reads), writes: access(s.writes), cycles: { ...s.cycles } };
    }
  };
  const buffers = plan.buffers.map((b): Json => ({ ...b, source: [...b.source], shape: [...b.shape], spread: spread(b.spread) }));
  const steps = plan.steps.map(step);
  const { version, model, graph, target, tiles, bytesPerTile, grain, samples, vertexTypeBytes, onnx, inParts } = plan;
  return {
    version, model, ...(onnx !== undefined && { onnx }), ...(inParts && { inParts: { of: inParts.of, regions: inParts.regions.map((r) => ({ ...r, from: { ...r.from } })) } }), graph, target, tiles, bytesPerTile, grain, samples, vertexTypeBytes, cuts, buffers, steps,
    memory: { ...plan.memory }, notes: [...plan.notes],
  };
}

interface FileDims { readonly base: number; readonly dims: Spread['dims']; readonly flat?: true }
type FileSpread = FileDims & { readonly axes: readonly number[] };
type FileDivision = FileDims & { readonly ranges: Readonly<Record<string, number>> };

/** The plan that `planToJson` wrote; data that is none is a UserError. `file` is how messages call it. */
export function planFromJson(data: unknown, file: string): TilePlan {
  const fields = ['model', 'graph', 'target', 'tiles', 'bytesPerTile', 'grain', 'samples', 'vertexTypeBytes', 'cuts', 'buffers', 'steps', 'memory', 'notes'];
  const given = data as Record<string, unknown> | null;
  if (typeof given !== 'object' || given === null || given['version'] !== 1) throw new UserError(`${file} is no tile plan of version 1; write one with \`tilewright plan … --json ${file}\``);
  const missing = fields.find((f) => !(f in given));
  if (missing !== undefined) throw new UserError(`${file}: field "${missing}" is missing; docs/plan.schema.json says what a plan holds`);
  const cuts = (given['cuts'] as { by: number[]; combs: number[][] }[]).map((c): Cut => ({ by: c.by, combs: c.combs.map(comb) }));
  const spread = (s: FileSpread): Spread => ({ base: s.base, dims: s.dims, axes: s.axes.map((a) => cuts[a]!), ...(s.flat && { flat: true as const }) });
  const division = (d: FileDivision): Division => ({ base: d.base, dims: d.dims, ranges: Object.fromEntries(Object.entries(d.ranges).map(([k, a]) => [k, cuts[a]!])), ...(d.flat && { flat: true as const }) });
  const access = (list: readonly { buffer: number; slice: FileSpread }[]): { buffer: number; slice: Spread }[] => list.map((a) => ({ buffer: a.buffer, slice: spread(a.slice) }));
  const step = (s: Record<string, unknown>): TileStep => {
    if (s['kind'] === 'repeat') return { ...s, body: (s['body'] as Record<string, unknown>[]).map(step) } as unknown as TileStep;
    if (s['kind'] === 'exchange') return s as unknown as TileStep;
    return { ...s, division: division(s['division'] as FileDivision), reads: access(s['reads'] as never), writes: access(s['writes'] as never) } as unknown as TileStep;
  };
  const buffers = (given['buffers'] as (Omit<TileBuffer, 'spread'> & { spread: FileSpread })[]).map((b): TileBuffer => ({ ...b, spread: spread(b.spread) }));
  const { cuts: _, ...rest } = given;
  return { ...(rest as unknown as TilePlan), buffers, steps: (given['steps'] as Record<string, unknown>[]).map(step) };
}

function comb(list: readonly number[]): Comb {
  const levels: { n: number; step: number }[] = [];
  for (let i = 1; i < list.length; i += 2) levels.push({ n: list[i]!, step: list[i + 1]! });
  return { base: list[0]!, levels };
}
