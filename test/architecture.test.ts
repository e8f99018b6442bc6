import { existsSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { Project, SyntaxKind, type SourceFile } from 'ts-morph';
import { describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const folders = ['ir', 'frontend', 'passes', 'backends', 'runtime', 'cli'].filter((f) => existsSync(resolve(root, f)));

/** The folders of ours that each folder may import. `cli/driver` joins the parts; `cli` and the root may import all. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  ir: ['ir'],
  frontend: ['frontend', 'ir'],
  passes: ['passes', 'ir'],
  backends: ['backends', 'ir'],
  runtime: ['runtime'],
  cli: ['cli', 'ir', 'frontend', 'passes', 'backends', 'runtime', 'index.ts'],
};
/** Plain constants and types that the compiler and the runtime share. */
const shared = { from: 'backends/', to: ['runtime/control.ts', 'runtime/manifest.ts'] };
/** Packages that only one folder may import. */
const reserved: Readonly<Record<string, string>> = { binaryen: 'backends/wasm/', 'onnx-proto': 'frontend/onnx/', protobufjs: 'frontend/onnx/' };

const project = new Project({ compilerOptions: { allowImportingTsExtensions: true }, skipFileDependencyResolution: true, skipAddingFilesFromTsConfig: true });
const files = project.addSourceFilesAtPaths(folders.map((f) => `${root}/${f}/**/*.ts`));

interface Import { readonly file: string; readonly line: number; readonly specifier: string; readonly target: string | undefined }

/** Static and dynamic imports, and re-exports; `target` is the path of a file of ours. */
function importsOf(source: SourceFile): Import[] {
  const file = relative(root, source.getFilePath());
  const statements = [...source.getImportDeclarations(), ...source.getExportDeclarations()].flatMap((d) => {
    const specifier = d.getModuleSpecifierValue();
    return specifier === undefined ? [] : [{ specifier, line: d.getStartLineNumber() }];
  });
  const calls = source.getDescendantsOfKind(SyntaxKind.CallExpression).flatMap((call) => {
    const argument = call.getArguments()[0]?.asKind(SyntaxKind.StringLiteral);
    return call.getExpression().getKind() === SyntaxKind.ImportKeyword && argument ? [{ specifier: argument.getLiteralValue(), line: call.getStartLineNumber() }] : [];
  });
  return [...statements, ...calls].map(({ specifier, line }) => ({
    file, line, specifier, target: specifier.startsWith('.') ? relative(root, resolve(source.getDirectoryPath(), specifier)) : undefined,
  }));
}

const imports = files.flatMap(importsOf);
const say = (list: readonly Import[]): string[] => list.map((i) => `${i.file}:${i.line} imports ${i.specifier}`);

describe('the architecture', () => {
  it('sees the imports', () => expect(imports.length).toBeGreaterThan(100));

  it.each(folders)('%s imports what it may', (folder) => {
    const bad = imports.filter((i) => {
      if (!i.file.startsWith(`${folder}/`) || i.target === undefined) return false;
      if (i.file.startsWith(shared.from) && shared.to.includes(i.target)) return false;
      return !allowed[folder]!.includes(i.target.split('/')[0]!);
    });
    expect(say(bad)).toEqual([]);
  });

  it.each(Object.entries(reserved))('only one folder imports %s', (name, folder) => {
    const bad = imports.filter((i) => (i.specifier === name || i.specifier.startsWith(`${name}/`)) && !i.file.startsWith(folder));
    expect(say(bad)).toEqual([]);
  });

  it('the runtime and the passes have no dependencies but Node', () => {
    const bad = imports.filter((i) => /^(runtime|passes|ir)\//.test(i.file) && i.target === undefined && !i.specifier.startsWith('node:'));
    expect(say(bad)).toEqual([]);
  });

  it('passes and the IR do no I/O', () => {
    const bad = imports.filter((i) => /^(passes|ir)\//.test(i.file) && i.specifier.startsWith('node:'));
    expect(say(bad)).toEqual([]);
  });

  it('nothing is typed any', () => {
    const bad = files.flatMap((f) => f.getDescendantsOfKind(SyntaxKind.AnyKeyword).map((k) => `${relative(root, f.getFilePath())}:${k.getStartLineNumber()}`));
    expect(bad).toEqual([]);
  });

  it('every exported function of a pass has a doc comment', () => {
    const bad = files
      .filter((f) => relative(root, f.getFilePath()).startsWith('passes/'))
      .flatMap((f) => f.getFunctions().filter((fn) => fn.isExported() && !fn.isOverload() && fn.getJsDocs().length === 0).map((fn) => `${relative(root, f.getFilePath())}: ${fn.getName() ?? ''}`));
    expect(bad).toEqual([]);
  });
});
