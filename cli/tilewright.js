#!/usr/bin/env node
// Starts the command line: from the source in a checkout, which Node runs as it is, from dist/ in the package.
import { existsSync } from 'node:fs';
import * as modules from 'node:module';

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(`error: tilewright needs Node 22.18 or newer, this is ${process.version}`);
  process.exit(2);
}
// Most of the time to start goes into reading the same files again.
modules.enableCompileCache();
const source = new URL('./main.ts', import.meta.url);
await import(existsSync(source) ? source.href : new URL('../dist/cli/main.js', import.meta.url).href);
