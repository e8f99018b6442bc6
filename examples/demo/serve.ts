/** npm run demo: builds the page and serves it twice on this machine, cross-origin isolated (threads) and not (one thread, and a notice). */
import { dirname, join } from 'node:path';
import { preview, type PreviewServer } from 'vite';
import { isolation } from '../browser/serve.ts';
import { commandLine, stop } from '../../bench/options.ts';
import { buildDemo } from './build.ts';

/** Serves a built page on a port (0: any that is free), with or without the headers that isolate it. */
export function serveDemo(site: string, options: { readonly port: number; readonly isolated: boolean }): Promise<PreviewServer> {
  const { port, isolated } = options;
  return preview({
    root: dirname(site), configFile: false, logLevel: 'warn', build: { outDir: site }, preview: { host: '127.0.0.1', port, strictPort: port !== 0, headers: isolated ? isolation : {} },
  });
}

/** The address of a page that is served. */
export const addressOf = (server: PreviewServer): string => {
  const at = server.httpServer.address();
  if (at === null || typeof at === 'string') throw new Error('the server has no port');
  return `http://localhost:${at.port}/`;
};

if (import.meta.main) {
  const { options: { port }, usage } = commandLine('npm run demo', '', { port: 8080 });
  if (port > 65534) stop(`--port is at most 65534, for the page without isolation has the port after it; ${usage}`);
  console.log('compiling the models and building the page …');
  const site = await buildDemo(join(import.meta.dirname, '../../out/demo'));
  const isolated = await serveDemo(site, { port, isolated: true });
  const plain = await serveDemo(site, { port: port + 1, isolated: false });
  console.log(`${addressOf(isolated)}  cross-origin isolated: threads\n${addressOf(plain)}  not isolated: one thread`);
}
