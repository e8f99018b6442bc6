/**
 * Checks a tile plan: npm run check-plan -- plan.json [--model model.onnx] [--json]
 *
 * Reads the file alone (docs/plan.schema.json, docs/tiles.md) and shares no code with the planner. The bytes of every tile at every step are recomputed from spreads and lifetimes and have to
 * agree with the plan's own figures to the byte; no two buffers that are held at one step may share an address; everything a step reads has to be held and filled by then, on the tile that
 * reads it; everything an exchange brings has to lie somewhere; nothing may exceed the limit. With --model, the plan has to be one of that ONNX file. Estimates (cycles, multiply-adds, bytes
 * exchanged) and what a vertex calculates are not checked here: `npm run tiles` executes plans. Exit code 0: no problem, 1: some, 2: nothing to check.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { checkBuffers, checkMemory, checkOverlaps, memoryOf, useBySteps } from './check-plan/memory.ts';
import { BadInput, flatSteps, readPlan, type Plan, type Problem } from './check-plan/plan.ts';
import { Slices } from './check-plan/slices.ts';
import { checkSteps } from './check-plan/walk.ts';
import { commandLine, stop, text } from './options.ts';

const { options, operands } = commandLine('npm run check-plan', 'plan.json', { model: text('model.onnx'), json: false });
try {
  const read = readPlan(operands[0]!);
  const plan = 'plan' in read ? read.plan : undefined;
  const problems = 'plan' in read ? [...(options.model === undefined ? [] : checkModel(read.plan, options.model)), ...check(read.plan)] : read.problems;
  if (options.json) console.log(JSON.stringify({ ok: problems.length === 0, problems, ...(plan && problems.length === 0 && { memory: memoryOf(plan), steps: useBySteps(plan, new Slices(plan)) }) }));
  else for (const p of problems) console.log(p.message);
  if (!options.json) console.log(problems.length === 0 ? summary(plan!) : `${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`);
  process.exitCode = problems.length === 0 ? 0 : 1;
} catch (e) {
  if (!(e instanceof BadInput)) throw e;
  stop(e.message);
}

/** All problems of a plan. Steps are followed only where the buffers that they name can be. */
function check(plan: Plan): Problem[] {
  const slices = new Slices(plan);
  const { problems, readable } = checkBuffers(plan, slices);
  return [...problems, ...checkOverlaps(plan), ...checkMemory(plan), ...(readable ? checkSteps(plan, slices) : [])];
}

/** Whether the plan was made from an ONNX file. */
function checkModel(plan: Plan, file: string): Problem[] {
  let digest: string;
  try {
    digest = createHash('sha256').update(readFileSync(file)).digest('hex');
  } catch (e) {
    throw new BadInput(`${file} cannot be read: ${e instanceof Error ? e.message : String(e)}`);
  }
  if (plan.onnx === digest) return [];
  return [{ message: plan.onnx === undefined ? `the plan does not say which file it was made from; write it with tilewright plan ${file} --json` : `the plan was made for another model: ${plan.model}, SHA-256 ${plan.onnx.slice(0, 12)}…; ${file} has ${digest.slice(0, 12)}…` }];
}

function summary(plan: Plan): string {
  const { total, limit, always, peak, peakStep } = memoryOf(plan);
  const fullest = useBySteps(plan, new Slices(plan)).reduce((a, b) => (b.most > a.most ? b : a));
  return `plan ok: ${flatSteps(plan.steps).length} steps, ${plan.buffers.length} buffers, ${plan.tiles} tiles; ${total} of ${limit} bytes a tile (always live ${always}, peak ${peak} at step ${peakStep}); most in use ${fullest.most} bytes, tile ${fullest.tile}, step ${fullest.step}`;
}
