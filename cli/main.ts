#!/usr/bin/env node
/** The command line: dispatches to one file per command and turns errors into messages and exit codes. */
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import colors from 'picocolors';
import { version } from './driver/version.ts';
import { OverLimit, UserError } from '../ir/diagnostic.ts';
import type { Graph } from '../ir/graph.ts';
import { graphText } from '../ir/text.ts';
import { InputError } from '../runtime/error.ts';
import { GpuFailure } from '../runtime/webgpu/error.ts';
import { NonFiniteState } from '../runtime/finite.ts';
import { NonFiniteLoss } from '../runtime/trainer.ts';
import { benchCommand } from './bench.ts';
import { checkCommand } from './check.ts';
import { compileCommand } from './compile.ts';
import { healthCommand } from './health.ts';
import { inspectCommand } from './inspect.ts';
import { newCommand } from './new.ts';
import { exitOverLimit } from './options.ts';
import { planCommand } from './plan.ts';
import { profileCommand } from './profile.ts';
import { runCommand } from './run.ts';
import { simulateCommand } from './simulate.ts';
import { trainCommand } from './train.ts';

const exitUser = 2;
const exitInternal = 70;

const program = new Command('tilewright')
  .description('compiles ONNX models to WebAssembly SIMD and runs them')
  .version(version())
  .showHelpAfterError('(--help lists the options)')
  .exitOverride();
for (const add of [compileCommand, runCommand, trainCommand, newCommand, inspectCommand, checkCommand, healthCommand, benchCommand, planCommand, simulateCommand, profileCommand]) add(program);

// A reader that has seen enough (`| head`) closes the pipe.
process.stdout.on('error', (e: NodeJS.ErrnoException) => {
  if (e.code !== 'EPIPE') throw e;
  process.exit(0);
});

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

/** Prints what went wrong; the exit code says whose mistake it was. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitUser;
  if (error instanceof UserError || error instanceof InputError || error instanceof NonFiniteLoss || error instanceof NonFiniteState || error instanceof GpuFailure) {
    process.stderr.write(`${colors.red('error:')} ${error.message}\n`);
    return error instanceof OverLimit ? exitOverLimit : exitUser;
  }
  const dump = join(tmpdir(), `tilewright-crash-${Date.now()}.txt`);
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`${colors.red('internal error:')} ${error instanceof Error ? error.message : String(error)}\n`);
  try {
    writeFileSync(dump, [`tilewright ${version()}, Node ${process.version}`, process.argv.slice(2).join(' '), stack, ...irOf(error)].join('\n\n'));
    process.stderr.write(`This is a bug of tilewright. Please report it with ${dump}\n`);
  } catch {
    process.stderr.write(`This is a bug of tilewright. Please report it:\n${stack}\n`);
  }
  return exitInternal;
}

/** The graph that a failed pass was given, as text. */
function irOf(error: unknown): string[] {
  const graph = (error as { graph?: Graph } | null)?.graph;
  try {
    return graph ? [graphText(graph, { locations: true })] : [];
  } catch {
    return [];
  }
}
