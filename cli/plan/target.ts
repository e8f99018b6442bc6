/** The target that a command line names. */
import { withConstants, type TileTarget } from '../../passes/tile/target.ts';
import { readTarget } from '../driver/target-file.ts';
import { hostName, hostTarget } from './host.ts';

/** What --target takes. */
export const targetHelp = 'mk1, mk2, bow, cpu, gpu, host (this machine, probed), or a .json file of your own';

/** Options that say which machine. */
export interface TargetOptions {
  readonly target: string;
  readonly tiles?: number;
  readonly tileMemory?: number;
}

/** A target by its name or file, with other numbers of tiles and bytes where they are given. */
export async function targetOf({ target, tiles, tileMemory }: TargetOptions): Promise<TileTarget> {
  return withConstants(target === hostName ? await hostTarget(readTarget('cpu')) : readTarget(target), { ...(tiles !== undefined && { tiles }), ...(tileMemory !== undefined && { bytesPerTile: tileMemory }) });
}
