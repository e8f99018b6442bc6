/** Notices that a model's file was written again between two compilations of it. */
import { statSync } from 'node:fs';
import { UserError } from '../../ir/diagnostic.ts';

/**
 * Notes size, inode and time of the last change of a file (nanoseconds), before it is read. The function returned throws a UserError where they have changed: what is
 * compiled from the file then would not belong to what was compiled before. Files of external data are not looked at.
 */
export function fileWatch(path: string): () => void {
  const before = markOf(path);
  return () => {
    const now = markOf(path);
    if (now === before) return;
    throw new UserError(`${path} ${now === undefined ? 'is no longer there' : 'has changed'} since it was compiled, so another specialisation would not be of the same model; compile it again and load the new artifact`);
  };
}

function markOf(path: string): string | undefined {
  try {
    const { ino, size, mtimeNs } = statSync(path, { bigint: true });
    return [ino, size, mtimeNs].join();
  } catch {
    return undefined;
  }
}
