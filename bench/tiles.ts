/**
 * Executes tile plans in the least memory: npm run tiles -- [--models ../shared/models] [--goldens ../shared/goldens] [--tiles 1,4,64,1472] [--target mk2] [--only TEXT] [--json]
 *
 * Every model and every golden (a training step) is planned on targets of so many tiles with the smallest tile memory for which the planner finds a plan, and executed by the tile simulator.
 * A case passes where outputs, losses, gradients and updated state are as on the interpreter, no byte lies over the limit, and the memory is within 1.5 times the larger of always-live bytes
 * (state, constants and code) over tiles and the smallest vertex. What is refused is named.
 */
import { existsSync } from 'node:fs';
import { runTiled } from '../cli/driver/simulate.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { Unsupported } from '../ir/diagnostic.ts';
import { withConstants } from '../passes/tile/target.ts';
import { commandLine, text } from './options.ts';
import { compare, goldenCases, modelCases, type NamedCase, type TileCase } from './tiles/case.ts';
import { leastMemory } from './tiles/least.ts';

const { options } = commandLine('npm run tiles', '', { models: '../shared/models', goldens: '../shared/goldens', tiles: [1, 4, 64, 1472], target: 'mk2', only: text('TEXT'), json: false });
const counts = options.tiles;
const within = 1.5;
const target = readTarget(options.target);
const cases: NamedCase[] = [...(existsSync(options.goldens) ? goldenCases(options.goldens) : []), ...(existsSync(options.models) ? modelCases(options.models) : [])].filter((c) => options.only === undefined || c.name.includes(options.only));

let [passed, failed, right] = [0, 0, 0];
for (const named of cases) {
  const c = await named.read().catch((e: unknown) => (e instanceof Error ? e : new Error(String(e))));
  for (const tiles of counts) {
    const started = performance.now();
    const { facts, problems, executed } = c instanceof Error ? { facts: {}, problems: [c.message], executed: false } : runCase(c, tiles);
    if (executed) right++;
    if (problems.length === 0) passed++;
    else failed++;
    const seconds = (performance.now() - started) / 1000;
    if (options.json) console.log(JSON.stringify({ name: named.name, tiles, passed: problems.length === 0, problems, ...facts, seconds }));
    else console.log(`${problems.length === 0 ? 'passed' : 'FAILED'}  ${named.name}, ${tiles} tiles: ${[...problems, ...Object.entries(facts).map(([k, v]) => `${k} ${v}`)].join(', ')}, ${seconds.toFixed(1)} s`);
  }
}
console.log(`${right} of ${passed + failed} executed with the numbers of the reference; ${passed} of these in at most ${within} times the least memory`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

/** `executed`: all numbers are right and no byte lies over the limit, whatever that is. */
function runCase(c: TileCase, tiles: number): { facts: Readonly<Record<string, string | number>>; problems: string[]; executed: boolean } {
  const problems: string[] = [];
  let executed = false;
  let facts: Record<string, string | number> = {};
  const started = performance.now();
  try {
    const least = leastMemory(c.graph, withConstants(target, { tiles }));
    const { plan, bytes, bound } = least;
    const floor = Math.max(bound.always, bound.vertex);
    facts = { bytes, ratio: (bytes / floor).toFixed(2), 'of their sum': (bytes / (bound.always + bound.vertex)).toFixed(2), always: bound.always, vertex: bound.vertex, 'largest vertex': bound.op, code: plan.memory.code, peak: plan.memory.peak, recompute: least.recompute, parts: least.parts, steps: plan.steps.length, plans: least.tried };
    facts['planning'] = `${((performance.now() - started) / 1000).toFixed(1)} s`;
    const run = runTiled({ graph: least.graph, planned: { plan } }, c.inputs);
    const { problem, compared } = compare(c, run.outputs, run.named);
    if (problem !== undefined) problems.push(problem);
    facts['tensors compared'] = compared;
    const over = run.used.findIndex((used) => used + plan.memory.code > bytes);
    if (over >= 0) problems.push(`tile ${over} uses ${run.used[over]! + plan.memory.code} of ${bytes} bytes`);
    executed = problems.length === 0;
    if (bytes > within * floor) problems.push(`${(bytes / floor).toFixed(2)} times the least that is thinkable`);
  } catch (e) {
    problems.push(e instanceof Unsupported ? `refused: ${e.message}` : e instanceof Error ? e.message : String(e));
  }
  return { facts, problems, executed };
}
