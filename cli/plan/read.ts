/** Plans from files. */
import { readFileSync } from 'node:fs';
import { UserError } from '../../ir/diagnostic.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { planFromJson } from '../../passes/tile/json.ts';

/** The plan that `tilewright plan --json` wrote to a file. One that cannot be read, or holds no plan, is a UserError. */
export function readPlan(file: string): TilePlan {
  let data: unknown;
  try {
    data = JSON.parse(readFileSync(file, 'utf8'));
  } catch (e) {
    throw new UserError(`${file} cannot be read as a plan: ${e instanceof Error ? e.message : String(e)}`);
  }
  return planFromJson(data, file);
}
