/** Targets as files: machines of tiles as plain data, in targets/*.json or a file of the user's own. */
import { readFileSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { UserError } from '../../ir/diagnostic.ts';
import { constantUnits, parseTarget, type ConstantName, type TileTarget } from '../../passes/tile/target.ts';
import type { TargetData } from '../../runtime/manifest.ts';

/** The folder of targets: two folders up in a checkout, three in the package. */
const folders = ['../../targets/', '../../../targets/'].map((path) => new URL(path, import.meta.url));

/** A target by its name, or by the path of a file that holds one: in the form of targets/*.json, or the manifest.json of an artifact that was compiled for it. */
export function readTarget(name: string): TileTarget {
  if (name.endsWith('.json')) {
    try {
      return parseTarget(inManifest(JSON.parse(readFileSync(name, 'utf8'))), name);
    } catch (e) {
      if (e instanceof UserError) throw e;
      throw new UserError(`${name} cannot be read as a target: ${e instanceof Error ? e.message : String(e)}`);
    }
  }
  for (const folder of folders) {
    let names: string[];
    try {
      names = readdirSync(folder).filter((f) => f.endsWith('.json')).map((f) => basename(f, '.json'));
    } catch {
      continue;
    }
    if (!names.includes(name)) throw new UserError(`there is no target ${JSON.stringify(name)}; there are ${names.join(', ')}, or give the path of a .json file of your own`);
    return parseTarget(JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')), `targets/${name}.json`);
  }
  throw new UserError('the folder of targets is missing from this installation');
}

/** What an artifact's manifest says of the machine that it was compiled for, in place of the manifest. */
function inManifest(data: unknown): unknown {
  const { format, target } = (data ?? {}) as { readonly format?: unknown; readonly target?: unknown };
  return format === 'tilewright' && target !== undefined ? target : data;
}

/** A target in the form of its file: what manifests record. */
export function targetData({ name, description, backend, constants, sources }: TileTarget): TargetData {
  const entries = (Object.keys(constantUnits) as ConstantName[]).map((key) => [key, { value: constants[key], unit: constantUnits[key], source: sources[key] }] as const);
  return { name, description, ...(backend && { backend }), constants: Object.fromEntries(entries) };
}
