/** Code of exchanges on a tile: a program for each way of moving slices from one spread to another, which all steps that move slices alike share. */
import type { TileBuffer, TilePlan } from '../../ir/tiles.ts';
import { dtypes, type DType } from '../../ir/type.ts';
import { largestSlice, sendersOf, signature } from './divide.ts';
import { flatSteps } from './report.ts';
import type { TileTarget } from './target.ts';

type Slices = Pick<TileBuffer, 'spread' | 'width' | 'dtype'>;

/** A text that is equal for copies that one program moves: the same slices of elements of the same size, at other addresses. */
export const programKey = (from: Slices, to: Slices, merge: boolean): string => `${signature(from.spread)}>${signature(to.spread)}${merge ? ' merged' : ''} ${dtypes[to.dtype as DType].bytes * to.width}`;

/** About how many tiles the fullest part of `to` receives its slice from. */
export const copySenders = (from: Slices, to: Slices, merge: boolean): number => (merge ? to.width / from.width : sendersOf(to.spread, from.spread));

/** Bytes of a program by a target's constants. */
export const programBytes = ({ constants }: TileTarget, senders: number): number => constants['code.exchange'] + constants['code.fragment'] * senders;

/** Bytes of one tile that exchange programs take by different constants. */
export interface ExchangeCode {
  /** Copies of all exchanges, and distinct programs among them. */
  readonly copies: number;
  readonly programs: number;
  /** By the target's constants. */
  readonly bytes: number;
  /** With 250 bytes for each program. */
  readonly proposedConstant: number;
  /** With 250 bytes for each program and 4 for each 64 bytes that it receives. */
  readonly proposed: number;
}

/** What is proposed from the recorded profile of one dense layer, which has this many bytes in all: for each program, and 4 bytes for each 64 that it receives. */
const [proposedProgram, instruction, fragment] = [250, 4, 64];

/** Exchange code of a plan by its target's constants, and by those proposed for each program alone. */
export function exchangeCode(plan: TilePlan, target: TileTarget): ExchangeCode {
  const programs = new Map<string, { senders: number; received: number }>();
  let copies = 0;
  for (const s of flatSteps(plan.steps)) {
    if (s.kind !== 'exchange') continue;
    for (const c of s.copies) {
      copies++;
      const [from, to] = [plan.buffers[c.from]!, plan.buffers[c.to]!];
      const key = programKey(from, to, c.merge === true);
      if (!programs.has(key)) programs.set(key, { senders: copySenders(from, to, c.merge === true), received: largestSlice(to.spread) * to.width * dtypes[to.dtype as DType].bytes });
    }
  }
  const sum = (bytes: (p: { senders: number; received: number }) => number): number => Math.ceil([...programs.values()].reduce((n, p) => n + bytes(p), 0));
  return {
    copies, programs: programs.size,
    bytes: sum((p) => programBytes(target, p.senders)),
    proposedConstant: sum((p) => proposedProgram + target.constants['code.fragment'] * p.senders),
    proposed: sum((p) => proposedProgram + instruction * Math.ceil(p.received / fragment)),
  };
}
