/** Splits that are passed over by bounds on their cycles and bytes are none of the best. */
import { describe, expect, it } from 'vitest';
import { readTarget } from '../cli/driver/target-file.ts';
import type { Op } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { digitsOf } from '../ir/tiles.ts';
import { combAt, operandSpread } from '../passes/tile/divide.ts';
import { divisionOf } from '../passes/tile/divisions.ts';
import { modelOf } from '../passes/tile/estimate.ts';
import { searchSplits, type Split } from '../passes/tile/search.ts';
import { serialOptions } from '../passes/tile/serial.ts';
import { withConstants } from '../passes/tile/target.ts';
import { walkOf } from '../passes/tile/walk.ts';

// A slow exchange makes cycles what bytes say: bounds on them are near.
const target = withConstants(readTarget('mk2'), { tiles: 96, exchange: 0.5 });
const ops = {
  product: 'graph @g(%x: f16[96,64], %w: f16[64,160]) { %y = contract %x, %w {spec="mk,kn->mn"} : f16[96,160] return "y" = %y }',
  'product in groups': 'graph @g(%x: f16[12,48,40], %w: f16[12,40,56]) { %y = contract %x, %w {spec="gmk,gkn->gmn"} : f16[12,48,56] return "y" = %y }',
  sum: 'graph @g(%x: f32[24,30,64]) { %y = reduceSum %x {axes=[1]} : f32[24,64] return "y" = %y }',
  map: 'graph @g(%x: f16[12,48,40]) { %y = exp %x : f16[12,48,40] return "y" = %y }',
};

describe('the search for splits', () => {
  for (const [name, text] of Object.entries(ops)) {
    const model = modelOf(walkOf(parseGraph(text).ops[0]!));
    for (const serial of [undefined, ...serialOptions(model).slice(0, 2)]) {
      // Without a bound on bytes, and as many as there are, nothing can be passed over.
      const all = searchSplits(model, target, Infinity, Infinity, serial);
      const cyclesOf = (splits: readonly Split[]): number[] => splits.map((s) => s.cycles);

      it(`finds the fastest that fit: ${name}${serial ? `, ${serial.times} serial parts of dim ${serial.at}` : ''}`, () => {
        expect(all.length).toBeGreaterThan(8);
        for (const share of [1, 0.5, 0.2, 0]) {
          const bytes = all.map((s) => s.temporary).sort((a, b) => a - b);
          const bound = bytes[Math.floor(share * (bytes.length - 1))]!;
          const fitting = all.filter((s) => s.temporary <= bound);
          for (const keep of [1, 4]) expect(cyclesOf(searchSplits(model, target, bound, keep, serial))).toEqual(cyclesOf(fitting.slice(0, keep)));
        }
      });

      it(`finds one as small as any where none fits: ${name}${serial ? `, ${serial.times} serial parts of dim ${serial.at}` : ''}`, () => {
        const [found, ...others] = searchSplits(model, target, 0, 4, serial);
        expect(others).toEqual([]);
        expect(found!.temporary).toBeLessThanOrEqual(Math.min(...all.map((s) => s.temporary)));
      });
    }
  }
});

describe('pairs of neighbouring tiles', () => {
  /** What each tile reads of the first operand. */
  function slices(op: Op, split: Split): Map<number, string> {
    const walk = walkOf(op);
    const { base, dims, axes } = operandSpread(walk, divisionOf(walk, split), 0, op.operands[0]!.type.shape);
    const found = new Map<number, string>();
    const total = dims.reduce((n, d) => n * d.parts, 1);
    for (let i = 0; i < total; i++) {
      const at = digitsOf(i, dims.map((d) => d.parts));
      found.set(base + dims.reduce((n, d, j) => n + d.stride * at[j]!, 0), JSON.stringify(axes.map((cut) => combAt(cut, dims, at))));
    }
    return found;
  }

  for (const name of ['product', 'product in groups'] as const) {
    it(`read the same rows, where columns are cut in an even number of parts: ${name}`, () => {
      const op = parseGraph(ops[name]).ops[0]!;
      const model = modelOf(walkOf(op));
      const columns = model.walk.vars.findIndex((v) => v.name === 'n');
      const even = searchSplits(model, target, Infinity, Infinity).filter((s) => s.parts[columns]! % 2 === 0);
      expect(even.length).toBeGreaterThan(8);
      for (const split of even) {
        const read = slices(op, split);
        for (let tile = 0; tile < read.size; tile += 2) expect(read.get(tile + 1)).toBe(read.get(tile));
      }
    });
  }
});
