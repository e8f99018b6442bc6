/** The folder of a run's checkpoints: one file a checkpoint, named after its step; the newest and the one before it are kept. */
import { reason } from './bytes.ts';
import { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from './checkpoint.ts';
import { InputError } from './error.ts';
import { checkFinite } from './finite.ts';
import { nodeFiles, writeAtomically } from './files.ts';

const kept = 2;
const fileOf = (step: number): string => `step-${String(step).padStart(9, '0')}.safetensors`;
const isCheckpoint = (file: string): boolean => /^step-\d+\.safetensors$/.test(file);
const isLeftover = (file: string): boolean => /^step-\d+\.safetensors\.part-\d+$/.test(file);

/** Makes the folder and checks that files can be written to it, so that a run does not find out at its first checkpoint. */
export async function prepareFolder(folder: string): Promise<void> {
  const { fs, path } = nodeFiles('a folder of checkpoints');
  const probe = path.join(folder, `.probe-${process.pid}`);
  try {
    await makeFolder(folder);
    await fs.writeFile(probe, '');
    await fs.rm(probe);
  } catch (e) {
    const refused = (e as { code?: unknown }).code === 'ENOENT';
    throw new InputError(`cannot write checkpoints to ${folder}: ${refused ? `${path.dirname(path.resolve(folder))} takes no new folder` : reason(e)}`);
  }
}

/** Makes a folder and those around it. Node's own recursive mkdir never returns where a file system says of a folder in an existing one that it does not exist, as /proc does. */
async function makeFolder(folder: string): Promise<void> {
  const { fs, path } = nodeFiles('a folder of checkpoints');
  const isFolder = (place: string): Promise<boolean> => fs.stat(place).then((s) => s.isDirectory(), () => false);
  if (await isFolder(folder)) return;
  const parent = path.dirname(path.resolve(folder));
  if (parent !== path.resolve(folder) && !(await fs.stat(parent).then(() => true, () => false))) await makeFolder(parent);
  await fs.mkdir(folder).catch(async (e: unknown) => {
    // Somebody else may have been faster.
    if (!(await isFolder(folder))) throw e;
  });
}

/** Writes a checkpoint to a folder, durably, and removes all but it and the one before. State with NaN or +infinity is a NonFiniteState: nothing changes then. */
export async function writeCheckpoint(folder: string, checkpoint: Checkpoint): Promise<string> {
  const { fs, path } = nodeFiles('a checkpoint');
  await prepareFolder(folder);
  const file = path.join(folder, fileOf(checkpoint.step));
  checkFinite(checkpoint.state, file);
  await writeAtomically(file, [await encodeCheckpoint(checkpoint)]);
  const found = await checkpointsIn(folder);
  // A run that was restored from an older step writes beside newer files of the run that it replaces.
  const stale = found.filter((f) => f > fileOf(checkpoint.step));
  const old = found.filter((f) => f <= fileOf(checkpoint.step)).slice(0, -kept);
  const leftovers = (await fs.readdir(folder)).filter(isLeftover);
  for (const f of [...stale, ...old, ...leftovers]) await fs.rm(path.join(folder, f), { force: true });
  return file;
}

/** Whether there is a checkpoint in a folder, or the file. */
export async function hasCheckpoint(place: string): Promise<boolean> {
  const { fs } = nodeFiles('a checkpoint');
  return fs.stat(place).then(async (s) => s.isFile() || (s.isDirectory() && (await checkpointsIn(place)).length > 0), () => false);
}

/** Reads the newest checkpoint of a folder, or the one of a file. If it is refused, the message offers the one before. */
export async function readCheckpoint(place: string, check: (checkpoint: Checkpoint, name: string) => void = () => {}): Promise<Checkpoint> {
  const { fs, path } = nodeFiles('a checkpoint');
  const isFolder = await fs.stat(place).then((s) => s.isDirectory(), (e: unknown) => {
    throw new InputError(`cannot read the checkpoint ${place}: ${reason(e)}`);
  });
  const found = isFolder ? await checkpointsIn(place) : [];
  const newest = found.at(-1);
  if (isFolder && newest === undefined) throw new InputError(`${place} holds no checkpoint (step-….safetensors)`);
  const file = newest === undefined ? place : path.join(place, newest);
  try {
    const bytes = await fs.readFile(file).catch((e: unknown) => {
      throw new InputError(`cannot read the checkpoint ${file}: ${reason(e)}`);
    });
    const checkpoint = await decodeCheckpoint(bytes, file);
    check(checkpoint, file);
    return checkpoint;
  } catch (e) {
    const before = found.at(-2);
    if (!(e instanceof InputError) || before === undefined) throw e;
    throw new InputError(`${e.message}; the one before it is ${path.join(place, before)}`);
  }
}

/** Names of complete checkpoints, oldest first. */
async function checkpointsIn(folder: string): Promise<string[]> {
  const { fs } = nodeFiles('a checkpoint');
  const files = await fs.readdir(folder).catch((e: unknown) => {
    throw new InputError(`cannot read ${folder}: ${reason(e)}`);
  });
  return files.filter(isCheckpoint).sort();
}
