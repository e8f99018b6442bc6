/** npm run example:browser: serves the page, the runtime and the compiled model on this machine. */
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { extname, join } from 'node:path';

/** A page with these is cross-origin isolated, which shared memory, and so threads, need. */
export const isolation = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

const types: Readonly<Record<string, string>> = { '.html': 'text/html', '.js': 'text/javascript', '.json': 'application/json', '.wasm': 'application/wasm', '.png': 'image/png' };

/** Serves the files of each folder under its prefix (`/model/`), with the headers on every answer. The longest prefix decides. */
export function fileServer(folders: Readonly<Record<string, string>>, headers: Readonly<Record<string, string>>): Server {
  const prefixes = Object.keys(folders).sort((a, b) => b.length - a.length);
  return createServer((request, response) => {
    // The parser has resolved `..`, an encoded separator would bring it back.
    const { pathname } = new URL(`http://localhost${request.url ?? '/'}`);
    const prefix = /%2f|%5c/i.test(pathname) ? undefined : prefixes.find((p) => pathname.startsWith(p));
    const name = pathname.endsWith('/') ? `${pathname}index.html` : pathname;
    const file = prefix === undefined ? Promise.reject(new Error('no such folder')) : readFile(join(folders[prefix]!, name.slice(prefix.length)));
    file.then(
      (bytes) => response.writeHead(200, { ...headers, 'Content-Type': types[extname(name)] ?? 'application/octet-stream' }).end(bytes),
      () => response.writeHead(404, { ...headers, 'Content-Type': 'text/plain' }).end(`there is no ${pathname}\n`),
    );
  });
}

if (import.meta.main) {
  const root = join(import.meta.dirname, '../..');
  const port = Number(process.argv[2] ?? 8080);
  const folders = { '/': import.meta.dirname, '/digit.png': join(root, 'examples/digit.png'), '/runtime/': join(root, 'dist/runtime'), '/model/': join(root, 'out/digits') };
  fileServer(folders, isolation).listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}/`));
}
