/** The version of this package. */
import { readFileSync } from 'node:fs';

let known: string | undefined;
/** The package's version, `unknown` where its package.json is not found: that lies two folders up in a checkout, three in the package. */
export function version(): string {
  known ??= ['../../package.json', '../../../package.json'].flatMap((path) => {
    try {
      return [(JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { version: string }).version];
    } catch {
      return [];
    }
  })[0] ?? 'unknown';
  return known;
}
