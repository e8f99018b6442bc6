/** Lists the ops without a gradient, each with its reason: npm run gradients [--json] */
import { ops } from '../ir/ops/index.ts';
import { commandLine } from './options.ts';

const { options } = commandLine('npm run gradients', '', { json: false });
const without = [...ops.values()].flatMap((op) => ('none' in op.grad ? [{ op: op.name, why: op.grad.none }] : []));
if (options.json) console.log(JSON.stringify(without, null, 1));
else for (const { op, why } of without) console.log(`${op.padEnd(18)}${why}`);
