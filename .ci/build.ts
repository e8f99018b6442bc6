/** npm run build: JavaScript and declarations in dist/, with onnx-proto and protobufjs bundled into the one file that imports them. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const require = createRequire(import.meta.url);

rmSync(dist, { recursive: true, force: true });
execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', join(root, 'tsconfig.build.json')], { stdio: 'inherit' });

const proto = join(dist, 'frontend/onnx/proto');
const bundled = await build({ entryPoints: [`${proto}.js`], outfile: `${proto}.bundled.js`, bundle: true, format: 'esm', platform: 'node', target: 'node22', metafile: true, logLevel: 'warning' });
renameSync(`${proto}.bundled.js`, `${proto}.js`);
bundleDeclarations();
writeFileSync(join(dist, 'THIRD_PARTY_LICENSES.txt'), licences(Object.keys(bundled.metafile.inputs)));

/** The declarations of onnx-proto, beside the file that uses them; of protobufjs they name three types that no caller meets. */
function bundleDeclarations(): void {
  const source = readFileSync(join(packageRoot('onnx-proto'), 'dist/onnx.d.ts'), 'utf8');
  const stand = 'type Long = { toNumber(): number; toString(): string; readonly low: number; readonly high: number };\ndeclare namespace $protobuf { type Writer = unknown; type Reader = unknown; type IConversionOptions = object; }\ndeclare const all: { readonly onnx: typeof onnx };\nexport default all;\n';
  writeFileSync(join(dirname(proto), 'onnx-proto.d.ts'), stand + source.replace(/^import .*protobufjs.*$/m, ''));
  const declarations = `${proto}.d.ts`;
  writeFileSync(declarations, readFileSync(declarations, 'utf8').replaceAll(/(['"])onnx-proto\1/g, `'./onnx-proto.js'`));
}

function packageRoot(name: string): string {
  return join(root, 'node_modules', name);
}

/** Names, versions and licence texts of the packages whose files were bundled. */
function licences(files: readonly string[]): string {
  const names = new Set(files.flatMap((f) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(f)?.[1] ?? []));
  const texts = [...names].sort().map((name) => {
    const folder = packageRoot(name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string; license: string };
    const file = ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'LICENCE'].map((f) => join(folder, f)).find((f) => existsSync(f));
    return `${name} ${version} (${license})\n\n${file === undefined ? '' : readFileSync(file, 'utf8')}`;
  });
  return `dist/frontend/onnx/proto.js holds code of these packages.\n\n${texts.join('\n\n')}`;
}
