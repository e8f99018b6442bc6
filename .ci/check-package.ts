/**
 * npm run check-package: packs the package, installs it in an empty folder, and runs there, on this Node and on the oldest supported one,
 * the README's code and the command line. The last line says what was checked.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeModel, floats, node as onnxNode, value } from '../test/onnx-encode.ts';

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
  copyFileSync(join(root, 'examples/mnist_cntk.onnx'), join(app, 'digits.onnx'));
  writeFileSync(join(app, 'model.onnx'), pictureModel());
  copyFileSync(join(root, 'examples/digit.png'), join(app, 'digit.png'));
  writeFileSync(join(app, 'readme.js'), `${readmeCode()}\nconsole.log(y.dtype, y.shape.join(), y.data.every(Number.isFinite));\n`);

  for (const node of [process.execPath, nodeBinary()]) {
    for (const out of ['out', 'digits']) rmSync(join(app, out), { recursive: true, force: true });
    const version = run(node, ['--version'], app).trim();
    const path = `${join(node, '..')}:${process.env['PATH'] ?? ''}`;
    const tilewright = (...args: string[]): string => run('npx', ['--no-install', 'tilewright', ...args], app, path);
    expectText(`npx tilewright compile, ${version}`, tilewright('compile', 'digits.onnx', '-o', 'digits'), 'digits: model.wasm');
    expectText(`npx tilewright run, model, ${version}`, tilewright('run', 'digits.onnx', '--input', 'digit.png', '--top', '1'), /^ +7 /m);
    expectText(`npx tilewright run, artifact, ${version}`, tilewright('run', 'digits', '--input', 'digit.png', '--top', '1'), /^ +7 /m);
    expectText(`README code, ${version}`, run(node, ['readme.js'], app), 'f32 1,8,1,1 true');
  }
  checkTypes(app);
  say(`${checks} checks of the installed package passed`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** The README's first code that imports the package: the indented block, as a user would paste it. */
function readmeCode(): string {
  const text = readFileSync(join(root, 'README.md'), 'utf8');
  const blocks = [...text.matchAll(/(?:^ {4}.*\n|^\n)+/gm)].map((m) => m[0].replace(/^ {4}/gm, ''));
  const code = blocks.find((block) => /from ['"]tilewright/.test(block)) ?? '';
  for (const entry of ['tilewright', 'tilewright/runtime']) {
    if (!new RegExp(`from ['"]${entry}['"]`).test(code)) throw new Error(`README.md must hold an indented example that imports ${entry}`);
  }
  return code;
}

/** A model for the README's code: x of n pictures in, y out. */
function pictureModel(): Uint8Array {
  return encodeModel({
    nodes: [onnxNode('Conv', ['x', 'w'], ['c'], { strides: [4, 4] }), onnxNode('Relu', ['c'], ['r']), onnxNode('GlobalAveragePool', ['r'], ['y'])],
    inputs: [value('x', 'f32', ['n', 3, 224, 224])],
    outputs: [value('y', 'f32', ['n', 8, 1, 1])],
    initializers: [floats('w', [8, 3, 4, 4], Array.from({ length: 384 }, (_, i) => Math.sin(i)))],
  });
}

/** The bindings type-check against the installed declarations, and a wrong name does not. Declarations of dependencies are checked too. */
function checkTypes(app: string): void {
  const use = (name: string): string => `import { load } from './digits/model.js';\nconst session = await load({ threads: 1 });\nconst { Plus214_Output_0 } = await session.run({ ${name}: new Float32Array(784) });\nconst scores: Float32Array = Plus214_Output_0.data;\nvoid scores;\n`;
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
  say(`ok  ${what}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
