/** A real browser for tests of the runtime: pages that hold the runtime, served from this machine. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { build } from 'esbuild';
import { chromium, type Browser } from 'playwright-core';
import { fileServer } from '../examples/browser/serve.ts';
import type * as runtime from '../runtime/index.ts';

declare global {
  /** The runtime, as the test pages import it. */
  var tilewright: typeof runtime;
}

const root = join(import.meta.dirname, '..');

/** The installed browser; CHROMIUM names another. */
export const chromiumPath = [process.env['CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path !== undefined && existsSync(path));

/** Flags of Chromium by what WebGPU shall run on: nothing, an adapter that computes on the CPU, or the GPU of this machine, which without a display is reached through Vulkan. */
const adapters = {
  none: ['--disable-gpu'],
  software: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
  machine: ['--enable-unsafe-webgpu', '--ignore-gpu-blocklist', ...(process.platform === 'linux' ? ['--enable-features=Vulkan', '--use-vulkan=native', '--use-angle=vulkan'] : [])],
} as const;

/** Starts the browser with a profile of its own that is deleted with it. It reaches nothing but this machine. */
export function launch({ webgpu = 'none' }: { readonly webgpu?: keyof typeof adapters } = {}): Promise<Browser> {
  const gpu = adapters[webgpu];
  const args = ['--no-sandbox', ...gpu, '--disable-background-networking', '--disable-component-update', '--disable-quic', '--no-first-run', '--disable-sync'];
  return chromium.launch({ executablePath: chromiumPath!, headless: true, timeout: 30_000, args });
}

/** The runtime as one minified file for a page. */
export async function bundleRuntime(file: string): Promise<void> {
  await build({ entryPoints: [join(root, 'runtime/index.ts')], outfile: file, bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022' });
}

/** The runtime as the package publishes it: the modules that `npm run build` makes, with the same settings. */
export function emitRuntime(folder: string): void {
  const config = join(folder, 'tsconfig.json');
  const options = { outDir: folder, rootDir: root, typeRoots: [join(root, 'node_modules/@types')], declaration: false };
  mkdirSync(folder, { recursive: true });
  writeFileSync(config, JSON.stringify({ extends: join(root, 'tsconfig.build.json'), compilerOptions: options, files: [join(root, 'runtime/index.ts')] }));
  const done = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', config], { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(done.stdout);
}

/** Writes a page, NAME.html, that imports the runtime from a URL. No script stands in the page, as a strict content security policy wants it. */
export function writePage(folder: string, name: string, runtimeUrl: string): void {
  writeFileSync(join(folder, `${name}.html`), `<!doctype html><title>${name}</title><link rel="icon" href="data:,"><script type="module" src="${name}.js"></script>`);
  writeFileSync(join(folder, `${name}.js`), `import * as tilewright from '${runtimeUrl}';\nglobalThis.tilewright = tilewright;\n`);
}

/** Serves folders by prefix until `close`. */
export async function serve(folders: Readonly<Record<string, string>>, headers: Readonly<Record<string, string>>): Promise<{ url: string; close(): Promise<void> }> {
  const server = fileServer(folders, headers);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://localhost:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
