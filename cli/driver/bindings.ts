/** Typed bindings of an artifact: model.js loads it, model.d.ts names its inputs and outputs. */
import type { Manifest } from '../../runtime/manifest.ts';
import { describe, type TensorInfo } from '../../runtime/tensor.ts';

/** Texts of model.js and model.d.ts. */
export async function bindings(manifest: Manifest): Promise<{ readonly js: string; readonly declarations: string }> {
  // ts-morph brings the TypeScript compiler; only writing an artifact needs it.
  const { Project, VariableDeclarationKind } = await import('ts-morph');
  const project = new Project({ useInMemoryFileSystem: true, skipLoadingLibFiles: true });

  const declarations = project.createSourceFile('model.d.ts');
  declarations.addImportDeclaration({ isTypeOnly: true, moduleSpecifier: 'tilewright/runtime', namedImports: ['InputOf', 'LoadOptions', 'Session', 'TensorOf'] });
  const property = (info: TensorInfo, type: string, optional: boolean): { name: string; type: string; isReadonly: true; hasQuestionToken: boolean; docs: string[] } => ({
    name: propertyName(info.name), type: `${type}<'${info.dtype}'>`, isReadonly: true, hasQuestionToken: optional, docs: [describe(info)],
  });
  declarations.addInterface({
    name: 'Inputs',
    isExported: true,
    docs: [`What ${inComment(manifest.model)} takes.`],
    properties: [
      ...manifest.inputs.map((i) => property(i, 'InputOf', false)),
      ...manifest.bound.map((b) => ({ ...property(b, 'InputOf', true), docs: [`${describe(b)}, bound when the model was compiled; may be left out.`] })),
    ],
  });
  declarations.addInterface({
    name: 'Outputs',
    isExported: true,
    docs: [`What ${inComment(manifest.model)} gives.`],
    properties: manifest.outputs.map((o) => property(o, 'TensorOf', false)),
  });
  declarations.addInterface({
    name: 'ModelSession',
    isExported: true,
    docs: ['A session whose inputs and outputs are typed by the model.'],
    extends: [`Omit<Session, 'run' | 'runSync'>`],
    methods: [
      { name: 'run', parameters: [{ name: 'inputs', type: 'Inputs' }], returnType: 'Promise<Outputs>' },
      { name: 'runSync', parameters: [{ name: 'inputs', type: 'Inputs' }], returnType: 'Outputs' },
    ],
  });
  declarations.addFunction({
    name: 'load',
    isExported: true,
    hasDeclareKeyword: false,
    docs: ['Loads the artifact that lies beside this file.'],
    parameters: [{ name: 'options', type: 'LoadOptions', hasQuestionToken: true }],
    returnType: 'Promise<ModelSession>',
  });

  const js = project.createSourceFile('model.js');
  js.addImportDeclaration({ moduleSpecifier: 'tilewright/runtime', namedImports: [{ name: 'load', alias: 'loadArtifact' }] });
  js.addVariableStatement({
    isExported: true,
    declarationKind: VariableDeclarationKind.Const,
    declarations: [{ name: 'load', initializer: `(options) => loadArtifact(new URL('.', import.meta.url), options)` }],
  });
  return { js: js.getFullText(), declarations: declarations.getFullText() };
}

const propertyName = (name: string): string => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name));

/** Text that cannot end the comment it stands in. */
const inComment = (text: string): string => text.replace(/[\r\n]+/g, ' ').replaceAll('*/', '* /');
