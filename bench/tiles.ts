/**
 * Executes tile plans in the least memory: npm run tiles -- [--models ../shared/models] [--goldens ../shared/goldens] [--tiles 1,4,64,1472] [--target mk2] [--only TEXT] [--jobs 1] [--json]
 *
 * Every model and every golden (a training step) is planned on targets of so many tiles with the smallest tile memory for which the planner finds a plan, and executed by the tile simulator.
 * A case passes where outputs, losses, gradients and updated state are as on the interpreter, no byte lies over the limit, and the memory is within 1.5 times the larger of always-live bytes
 * (state, constants, inputs, outputs and code) over tiles and the smallest vertex. What is refused is named. `--jobs`: so many processes share the cases.
 */
import { commandLine, text } from './options.ts';
import { casesOf, runUnits, type Matrix } from './tiles/jobs.ts';
import { within } from './tiles/run.ts';

const { options } = commandLine('npm run tiles', '', { models: '../shared/models', goldens: '../shared/goldens', tiles: [1, 4, 64, 1472], target: 'mk2', only: text('TEXT'), jobs: 1, json: false });
const matrix: Matrix = { goldens: options.goldens, models: options.models, target: options.target };
const units = casesOf(matrix).filter((c) => options.only === undefined || c.name.includes(options.only)).flatMap(({ name }) => options.tiles.map((tiles) => ({ name, tiles })));

let [passed, failed, right] = [0, 0, 0];
await runUnits(matrix, units, options.jobs, ({ name, tiles }, { facts, problems, executed, seconds }) => {
  if (executed) right++;
  if (problems.length === 0) passed++;
  else failed++;
  if (options.json) console.log(JSON.stringify({ name, tiles, passed: problems.length === 0, problems, ...facts, seconds }));
  else console.log(`${problems.length === 0 ? 'passed' : 'FAILED'}  ${name}, ${tiles} tiles: ${[...problems, ...Object.entries(facts).map(([k, v]) => `${k} ${v}`)].join(', ')}, ${seconds.toFixed(1)} s`);
});
console.log(`${right} of ${passed + failed} executed with the numbers of the reference; ${passed} of these in at most ${within} times the least memory`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
