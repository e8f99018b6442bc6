/** One of several processes that run cases of the matrix: units come as messages, outcomes go back. */
import { runner, type Matrix, type Unit } from './jobs.ts';

const run = runner(JSON.parse(process.argv[2]!) as Matrix);
process.on('message', (unit) => void run(unit as Unit).then((outcome) => process.send!(outcome)));
