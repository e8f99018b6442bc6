/** Two plans of one model, number by number. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { UserError } from '../../ir/diagnostic.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { bytesByKind, cyclesByVertex, cyclesOf } from '../../passes/tile/report.ts';

/** One number of both plans. Bytes are of one tile, cycles of one sample. */
export interface Compared { readonly group: 'plan' | 'bytes by kind at the peak' | 'cycles by vertex'; readonly what: string; readonly own: number; readonly other: number }

/** Bytes, steps and cycles of two plans; then bytes by kind of buffer, and cycles by vertex, the largest difference first. */
export function comparePlans(own: TilePlan, other: TilePlan): Compared[] {
  const [a, b] = [facts(own), facts(other)];
  return [
    ...Object.keys(a).map((what): Compared => ({ group: 'plan', what, own: a[what]!, other: b[what]! })),
    ...joined('bytes by kind at the peak', Object.entries(bytesByKind(own)), Object.entries(bytesByKind(other))),
    ...joined('cycles by vertex', vertices(own), vertices(other)),
  ];
}

function facts(p: TilePlan): Record<string, number> {
  const c = cyclesOf(p.steps);
  return {
    'samples a run': p.samples, tiles: p.tiles, 'bytes a tile': p.memory.total, 'always live': p.memory.always, code: p.memory.code, 'not always live': p.memory.peak, gaps: p.memory.gaps, steps: p.steps.length,
    'cycles a sample': (c.compute + c.exchange + c.sync) / p.samples, compute: c.compute / p.samples, exchange: c.exchange / p.samples, sync: c.sync / p.samples,
  };
}

const vertices = (p: TilePlan): [string, number][] => cyclesByVertex(p).map((r) => [r.vertex, (r.compute + r.exchange + r.sync) / p.samples]);

function joined(group: Compared['group'], own: readonly (readonly [string, number])[], other: readonly (readonly [string, number])[]): Compared[] {
  const [a, b] = [new Map(own), new Map(other)];
  const rows = [...new Set([...a.keys(), ...b.keys()])].map((what): Compared => ({ group, what, own: a.get(what) ?? 0, other: b.get(what) ?? 0 }));
  return rows.sort((x, y) => Math.abs(y.own - y.other) - Math.abs(x.own - x.other));
}

/** SHA-256 of an ONNX file in hex. */
export function onnxDigest(file: string): string {
  if (!existsSync(file)) throw new UserError(`${file} does not exist; give an ONNX model`);
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

/** Refuses a plan of another model. `onnx`: SHA-256 of the file `model` in hex, which plans of it hold. */
export function requireSameModel(other: TilePlan, file: string, model: string, onnx: string): void {
  if (other.onnx === onnx) return;
  const made = other.onnx === undefined ? 'does not say which ONNX file it was made from' : `was made for another model (${other.model}, SHA-256 ${other.onnx.slice(0, 12)}…)`;
  throw new UserError(`${file} ${made}, and ${model} has SHA-256 ${onnx.slice(0, 12)}…; write a plan to compare with by \`tilewright plan ${model} … --json ${file}\``);
}
