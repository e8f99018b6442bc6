/** What plan.json holds, checked against docs/plan.schema.json. Nothing here, nor in the files beside, is shared with the planner. */
import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';

/** base, then n and step of each level. */
export type Comb = readonly number[];
export interface Cut { readonly by: readonly number[]; readonly combs: readonly Comb[] }
export interface Dim { readonly name: string; readonly parts: number; readonly stride: number; readonly time?: true }
export interface Placed { readonly base: number; readonly dims: readonly Dim[] }
/** `axes` are positions in the plan's cuts. */
export interface Spread extends Placed { readonly axes: readonly number[]; readonly flat?: true }

export interface Buffer {
  readonly id: number;
  readonly value: string;
  readonly source: readonly string[];
  readonly kind: 'state' | 'constant' | 'input' | 'output' | 'activation' | 'gather' | 'partial' | 'receive';
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly spread: Spread;
  readonly width: number;
  readonly bytes: number;
  readonly offset: number;
  readonly birth: number;
  readonly death: number;
  readonly viewOf?: number;
}

export interface Access { readonly buffer: number; readonly slice: Spread }
export interface Copy { readonly from: number; readonly to: number; readonly merge?: true }
export interface Exchange { readonly kind: 'exchange'; readonly index: number; readonly copies: readonly Copy[]; readonly code: number }
export interface Compute {
  readonly kind: 'compute';
  readonly index: number;
  readonly part: 'whole' | 'contribute' | 'merge';
  readonly name: string;
  readonly source: readonly string[];
  readonly vertex: string;
  readonly division: Placed;
  readonly reads: readonly Access[];
  readonly writes: readonly Access[];
  readonly code: number;
}
export interface Repeat { readonly kind: 'repeat'; readonly index: number; readonly times: number; readonly body: readonly Step[] }
export type Step = Exchange | Compute | Repeat;

export interface Memory { readonly always: number; readonly code: number; readonly peak: number; readonly peakStep: number; readonly gaps: number; readonly total: number; readonly limit: number }

export interface Plan {
  readonly model: string;
  readonly onnx?: string;
  readonly tiles: number;
  readonly bytesPerTile: number;
  readonly grain: number;
  readonly vertexTypeBytes: number;
  readonly cuts: readonly Cut[];
  readonly buffers: readonly Buffer[];
  readonly steps: readonly Step[];
  readonly memory: Memory;
}

/** Something that is wrong with a plan. Where it is about a step, a buffer or a tile, or about bytes, it says which and how many. */
export interface Problem { readonly message: string; readonly step?: number; readonly buffer?: number; readonly tile?: number; readonly bytes?: number }

/** What no plan can be checked from: a file that cannot be read, or holds no JSON. */
export class BadInput extends Error {}

/** The plan in a file, or what the schema has against it (at most ten complaints). Throws BadInput where the file holds no JSON. */
export function readPlan(file: string): { readonly plan: Plan } | { readonly problems: readonly Problem[] } {
  let data: unknown;
  try {
    data = JSON.parse(readFileSync(file, 'utf8'));
  } catch (e) {
    throw new BadInput(`${file} cannot be read as a plan: ${e instanceof Error ? e.message : String(e)}`);
  }
  const schema = JSON.parse(readFileSync(new URL('../../docs/plan.schema.json', import.meta.url), 'utf8')) as object;
  const validate = new Ajv2020({ allErrors: true, discriminator: true }).compile<Plan>(schema);
  if (validate(data)) return { plan: data };
  return { problems: validate.errors!.slice(0, 10).map((e) => ({ message: `schema: ${e.instancePath || 'the plan'} ${e.message}${'additionalProperty' in e.params ? ` (${String(e.params['additionalProperty'])})` : ''}` })) };
}

/** Bytes of one scalar. */
const scalarBytes: Readonly<Record<string, number>> = {
  f64: 8, i64: 8, u64: 8, f32: 4, i32: 4, u32: 4, f16: 2, bf16: 2, i16: 2, u16: 2, i8: 1, u8: 1, bool: 1, i4: 1, u4: 1, i2: 1, u2: 1, f4e2m1: 1, f8e4m3fn: 1, f8e4m3fnuz: 1, f8e5m2: 1, f8e5m2fnuz: 1, f8e8m0: 1,
};

/** Bytes of one element of a buffer; undefined where its dtype is none. */
export function elementBytes(b: Buffer): number | undefined {
  const size = scalarBytes[b.dtype];
  return size === undefined ? undefined : size * b.width;
}

/** How messages call a buffer. */
export const called = (b: Buffer): string => `buffer ${b.id} (${b.value}, ${b.kind})`;

/** How messages call a step. */
export const stepCalled = (s: Step): string => `step ${s.index}${s.kind === 'compute' ? ` (${s.part === 'whole' ? '' : `${s.part} `}${s.source[0] ?? s.name})` : ` (${s.kind})`}`;

/** All exchanges and computes in order, bodies of repeats once. */
export const flatSteps = (steps: readonly Step[]): (Exchange | Compute)[] => steps.flatMap((s) => (s.kind === 'repeat' ? flatSteps(s.body) : [s]));
