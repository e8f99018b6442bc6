/** Bytes of a plan recomputed from its spreads and steps, and whether buffers that are held at one step share an address. */
import { called, elementBytes, flatSteps, type Buffer, type Memory, type Plan, type Problem } from './plan.ts';
import type { Slices } from './slices.ts';

/** Bytes that buffers held at a step take of the tile that uses the most of them. */
export interface StepUse { readonly step: number; readonly most: number; readonly tile: number; readonly slots: number }

const isAlways = (b: Buffer): boolean => b.kind === 'state' || b.kind === 'constant';

/** The buffer whose memory a buffer lies in. Views of themselves are found by `checkBuffers`, which comes first. */
export function rootOf(plan: Plan, b: Buffer): Buffer {
  let x = b;
  while (x.viewOf !== undefined) x = plan.buffers[x.viewOf]!;
  return x;
}

/** Each buffer by itself: ids, dtype, slices inside the shape, one part a tile, bytes of the largest slice, alignment, lifetime; a view against what it is a view of. `readable`: steps can be followed through the buffers. */
export function checkBuffers(plan: Plan, slices: Slices): { readonly problems: readonly Problem[]; readonly readable: boolean } {
  const problems: Problem[] = [];
  let readable = true;
  const last = Math.max(0, flatSteps(plan.steps).length - 1);
  plan.buffers.forEach((b, i) => {
    const say = (message: string, more: Omit<Problem, 'message' | 'buffer'> = {}): void => void problems.push({ message: `${called(b)} ${message}`, buffer: b.id, ...more });
    const refuse = (message: string): void => {
      readable = false;
      say(message);
    };
    if (b.id !== i) return refuse(`stands at position ${i}`);
    if (b.viewOf !== undefined && b.viewOf >= i) return refuse(`is a view of buffer ${b.viewOf}, which does not come before it`);
    const size = elementBytes(b);
    if (size === undefined) return refuse(`has the unknown dtype "${b.dtype}"`);
    const fault = slices.fault(b.spread, b.shape);
    if (fault !== undefined) return refuse(`has a spread that ${fault}`);
    const { twice } = slices.parts(b.spread);
    if (twice !== undefined) say(`has two parts on tile ${twice}`, { tile: twice });
    if (b.viewOf !== undefined) problems.push(...checkView(plan, slices, b));
    else {
      const [tile, most] = largest(slices.elementsByTile(b.spread));
      const bytes = Math.ceil((most * size) / plan.grain) * plan.grain;
      if (b.bytes !== bytes) say(`says ${b.bytes} bytes, its largest slice, on tile ${tile}, takes ${bytes}`, { tile, bytes });
      if (b.offset % plan.grain !== 0) say(`starts at byte ${b.offset}, no multiple of the grain of ${plan.grain}`, { bytes: b.offset });
    }
    if (b.offset + b.bytes > plan.bytesPerTile) say(`takes bytes ${b.offset} to ${b.offset + b.bytes} of tiles that have ${plan.bytesPerTile}`, { bytes: b.offset + b.bytes - plan.bytesPerTile });
    if (b.viewOf !== undefined) return;
    if (b.birth > b.death) say(`dies at step ${b.death}, before its birth at step ${b.birth}`, { step: b.death });
    if (b.death > last) say(`dies at step ${b.death}, the last is ${last}`, { step: b.death });
    if ((isAlways(b) || b.kind === 'input') && b.birth !== 0) say(`is born at step ${b.birth}; the host writes it before step 0`, { step: b.birth });
    if ((isAlways(b) || b.kind === 'output') && b.death !== last) say(`is freed after step ${b.death}; it has to be held to the last step, ${last}`, { step: b.death });
  });
  return { problems, readable };
}

function checkView(plan: Plan, slices: Slices, b: Buffer): Problem[] {
  const of = plan.buffers[b.viewOf!]!;
  const problems: Problem[] = [];
  const say = (message: string, more: Omit<Problem, 'message' | 'buffer'> = {}): void => void problems.push({ message: `${called(b)}, a view of ${called(of)}, ${message}`, buffer: b.id, ...more });
  if (b.offset !== of.offset) say(`starts at byte ${b.offset}, not at ${of.offset}`, { bytes: b.offset });
  if (b.bytes !== of.bytes) say(`says ${b.bytes} bytes, not ${of.bytes}`, { bytes: b.bytes });
  for (const [tile, n] of slices.elementsByTile(b.spread)) if (n * elementBytes(b)! > of.bytes) say(`takes ${n * elementBytes(b)!} bytes on tile ${tile}`, { tile, bytes: n * elementBytes(b)! });
  return problems;
}

/** Pairs of buffers that are held at one step and share addresses. */
export function checkOverlaps(plan: Plan): Problem[] {
  const problems: Problem[] = [];
  const own = plan.buffers.filter((b) => b.viewOf === undefined && b.bytes > 0).sort((a, b) => a.birth - b.birth || a.id - b.id);
  let held: Buffer[] = [];
  for (const b of own) {
    held = held.filter((a) => a.death >= b.birth);
    for (const a of held) {
      const bytes = Math.min(a.offset + a.bytes, b.offset + b.bytes) - Math.max(a.offset, b.offset);
      if (bytes <= 0) continue;
      const step = Math.max(a.birth, b.birth);
      problems.push({ message: `step ${step}: ${called(a)} and ${called(b)} overlap in ${bytes} bytes on every tile: ${range(a)} and ${range(b)}`, step, buffer: b.id, bytes });
    }
    held.push(b);
  }
  return problems;
}

const range = (b: Buffer): string => `bytes ${b.offset} to ${b.offset + b.bytes} from step ${b.birth} to ${b.death}`;

/** The plan's figures from buffers and steps alone. The limit is the planner's choice and is taken over. */
export function memoryOf(plan: Plan): Memory {
  const steps = flatSteps(plan.steps);
  const own = plan.buffers.filter((b) => b.viewOf === undefined);
  const always = own.filter(isAlways).reduce((n, b) => n + b.bytes, 0);
  const live = liveBytes(own.filter((b) => !isAlways(b)), steps.length);
  const peak = live.reduce((a, n) => Math.max(a, n), 0);
  const end = own.reduce((n, b) => Math.max(n, b.offset + b.bytes), 0);
  const vertices = new Set(steps.flatMap((s) => (s.kind === 'compute' ? [s.vertex] : [])));
  const code = Math.ceil(vertices.size * plan.vertexTypeBytes + steps.reduce((n, s) => n + s.code, 0));
  return { always, code, peak, peakStep: live.indexOf(peak), gaps: end - always - peak, total: end + code, limit: plan.memory.limit };
}

/** The plan's own figures against those of `memoryOf`, and both against the limit. */
export function checkMemory(plan: Plan): Problem[] {
  const own = memoryOf(plan);
  const problems: Problem[] = [];
  for (const name of ['always', 'code', 'peak', 'peakStep', 'gaps', 'total'] as const) {
    if (own[name] !== plan.memory[name]) problems.push({ message: `memory.${name} says ${plan.memory[name]}, buffers and steps give ${own[name]}${name === 'peakStep' ? '' : ' bytes'}`, ...(name === 'peakStep' ? { step: own[name] } : { bytes: own[name] }) });
  }
  if (plan.memory.limit > plan.bytesPerTile) problems.push({ message: `memory.limit is ${plan.memory.limit} bytes, a tile has ${plan.bytesPerTile}`, bytes: plan.memory.limit - plan.bytesPerTile });
  if (own.total > plan.memory.limit) problems.push({ message: `step ${own.peakStep}: a tile takes ${own.total} bytes of ${plan.memory.limit}, ${own.total - plan.memory.limit} over`, step: own.peakStep, bytes: own.total - plan.memory.limit });
  return problems;
}

/** For every step the tile that uses the most: on each tile the sum of its own slices of the buffers held. */
export function useBySteps(plan: Plan, slices: Slices): StepUse[] {
  const steps = Math.max(1, flatSteps(plan.steps).length);
  const own = plan.buffers.filter((b) => b.viewOf === undefined);
  const slots = liveBytes(own, steps);
  const used = new Float64Array(plan.tiles);
  const [born, dead] = [Map.groupBy(own, (b) => b.birth), Map.groupBy(own, (b) => b.death + 1)];
  return Array.from({ length: steps }, (_, step) => {
    for (const b of dead.get(step) ?? []) add(used, slices, b, -1);
    for (const b of born.get(step) ?? []) add(used, slices, b, 1);
    const [tile, most] = largest(used.entries());
    return { step, most, tile, slots: slots[step]! };
  });
}

function add(used: Float64Array, slices: Slices, b: Buffer, sign: 1 | -1): void {
  const size = elementBytes(b)!;
  for (const [tile, n] of slices.elementsByTile(b.spread)) used[tile]! += sign * n * size;
}

function liveBytes(buffers: readonly Buffer[], steps: number): number[] {
  const change = new Float64Array(steps + 1);
  for (const b of buffers) {
    change[Math.min(b.birth, steps)]! += b.bytes;
    change[Math.min(b.death + 1, steps)]! -= b.bytes;
  }
  let sum = 0;
  return Array.from({ length: Math.max(1, steps) }, (_, s) => (sum += change[s]!));
}

function largest(entries: Iterable<readonly [number, number]>): readonly [number, number] {
  let best: readonly [number, number] = [0, 0];
  for (const e of entries) if (e[1] > best[1]) best = e;
  return best;
}
