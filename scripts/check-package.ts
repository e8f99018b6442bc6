/**
 * npm run check-package: packs the package, installs it in an empty folder, and runs there, on this Node and on the oldest supported one,
 * the README's code and the command line. The last line says what was checked.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const oldest = '22.18.0';
const root = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'tilewright-package-'));
let checks = 0;

try {
  const app = join(folder, 'app');
  mkdirSync(app);
  run('npm', ['pack', '--silent', '--pack-destination', folder], root);
  const archive = readdirSync(folder).find((f) => f.endsWith('.tgz'))!;
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', private: true, type: 'module' }));
  run('npm', ['install', '--silent', '--no-audit', '--no-fund', '--prefer-offline', join(folder, archive)], app);
  absent(app, ['onnx-proto', 'protobufjs']);
  copyFileSync(join(root, 'examples/mnist_cntk.onnx'), join(app, 'model.onnx'));
  copyFileSync(join(root, 'examples/digit.png'), join(app, 'digit.png'));
  const snippets = readmeCode();
  for (const [i, code] of snippets.entries()) writeFileSync(join(app, `snippet${i}.js`), code);

  for (const node of [process.execPath, nodeBinary()]) {
    rmSync(join(app, 'out'), { recursive: true, force: true });
    const version = run(node, ['--version'], app).trim();
    const path = `${join(node, '..')}:${process.env['PATH'] ?? ''}`;
    expectText(`npx tilewright compile, ${version}`, run('npx', ['--no-install', 'tilewright', 'compile', 'model.onnx', '-o', 'out'], app, path), 'out: model.wasm');
    expectText(`npx tilewright run, ${version}`, run('npx', ['--no-install', 'tilewright', 'run', 'model.onnx', '--input', 'digit.png', '--scale', '255', '--top', '1'], app, path), /^ +7 /m);
    for (const i of snippets.keys()) expectText(`README code ${i + 1}, ${version}`, run(node, [`snippet${i}.js`], app), /\S/);
  }
  checkTypes(app);
  console.log(`${checks} checks of the installed package passed`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** The README's JavaScript that imports the package, in order. */
function readmeCode(): string[] {
  const text = readFileSync(join(root, 'README.md'), 'utf8');
  const blocks = [...text.matchAll(/^```(?:js|ts|javascript|typescript)\n([\s\S]*?)^```/gm)].map((m) => m[1]!).filter((code) => /from ['"]tilewright/.test(code));
  if (blocks.length < 2) throw new Error('README.md must hold the two code examples that import tilewright, as ```js blocks');
  return blocks;
}

/** The bindings type-check against the installed declarations, and a wrong name does not. Declarations of dependencies are checked too. */
function checkTypes(app: string): void {
  const use = (name: string): string => `import { load } from './out/model.js';\nconst session = await load({ threads: 1 });\nconst { Plus214_Output_0 } = await session.run({ ${name}: new Float32Array(784) });\nconst scores: Float32Array = Plus214_Output_0.data;\nvoid scores;\n`;
  const options = { strict: true, module: 'nodenext', target: 'es2024', noEmit: true, lib: ['es2024', 'dom', 'esnext.disposable'], types: [], skipLibCheck: false };
  writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['use.ts', 'api.ts'] }));
  writeFileSync(join(app, 'api.ts'), `import { compile } from 'tilewright';\nimport { load } from 'tilewright/runtime';\nvoid (await load(await compile('model.onnx')));\n`);
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  writeFileSync(join(app, 'use.ts'), use('Input3'));
  run(process.execPath, [tsc, '-p', app], app);
  checks++;
  writeFileSync(join(app, 'use.ts'), use('Input4'));
  let message = '';
  try {
    run(process.execPath, [tsc, '-p', app], app);
  } catch (e) {
    message = (e as { stdout?: string }).stdout ?? '';
  }
  expectText('a wrong input name is a type error', message, /Input4/);
}

function absent(app: string, names: readonly string[]): void {
  const found = names.filter((n) => readdirSync(join(app, 'node_modules')).includes(n));
  if (found.length > 0) throw new Error(`the installed package brings ${found.join(', ')}, which should be bundled`);
  checks++;
}

/** The oldest supported Node, installed from the package of that name. */
function nodeBinary(): string {
  const place = join(folder, 'node');
  mkdirSync(place);
  writeFileSync(join(place, 'package.json'), '{"private":true}');
  run('npm', ['install', '--silent', '--no-audit', '--no-fund', '--prefer-offline', `node@${oldest}`], place);
  return join(place, 'node_modules/node/bin/node');
}

function run(command: string, args: readonly string[], cwd: string, path?: string): string {
  // npm hands its own settings down, which would steer a second npm.
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('npm_')));
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], env: { ...env, ...(path !== undefined && { PATH: path }) } });
}

function expectText(what: string, text: string, wanted: string | RegExp): void {
  if (typeof wanted === 'string' ? !text.includes(wanted) : !wanted.test(text)) throw new Error(`${what}: expected ${String(wanted)} in\n${text}`);
  checks++;
  console.log(`ok  ${what}`);
}
