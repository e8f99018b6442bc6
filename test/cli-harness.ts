/** Runs the command line in a child, as a user would. */
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { join } from 'node:path';

export const root = join(import.meta.dirname, '..');
export const example = join(root, 'examples/mnist_cntk.onnx');
export const digit = join(root, 'examples/digit.png');
const bin = join(root, 'cli/tilewright.js');

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs tilewright with at most 1 GB of heap; a run that takes longer than `limit` ms is killed, and its code is null. `seconds`: of processor time, which other work on the machine
 * does not stretch; beyond it the run is killed too.
 */
export function tilewright(args: readonly string[], limit = 30_000, seconds?: number): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const command = [process.execPath, '--max-old-space-size=1024', bin, ...args];
    const [file, ...rest] = seconds === undefined ? command : ['sh', '-c', `ulimit -t ${seconds}; exec "$@"`, 'sh', ...command];
    const child = spawn(file!, rest, { cwd: root, timeout: limit, env: { ...process.env, NO_COLOR: '1' } });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** The same with a small file system mounted at `mount` that only the child sees; undefined where the system does not let us. */
export function tilewrightOnSmallDisk(mount: string, kilobytes: number, args: readonly string[]): SpawnSyncReturns<string> | undefined {
  const within = (command: string): SpawnSyncReturns<string> => spawnSync('unshare', ['-rm', 'sh', '-c', command], { encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } });
  const prepare = `mount -t tmpfs -o size=${kilobytes}k tmpfs '${mount}'`;
  if (within(prepare).status !== 0) return undefined;
  return within(`${prepare} && '${process.execPath}' '${bin}' ${args.map((a) => `'${a}'`).join(' ')}; code=$?; ls -A '${mount}' >&2; exit $code`);
}
