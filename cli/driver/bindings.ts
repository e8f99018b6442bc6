/** Typed bindings of an artifact: model.js loads it, model.d.ts names its inputs and outputs. */
import type { Manifest } from '../../runtime/manifest.ts';
import { describe, type TensorInfo } from '../../runtime/tensor.ts';

/** Texts of model.js and model.d.ts. */
export async function bindings(manifest: Manifest): Promise<{ readonly js: string; readonly declarations: string }> {
  // ts-morph brings the TypeScript compiler; only writing an artifact needs it.
  const { Project, VariableDeclarationKind } = await import('ts-morph');
  const project = new Project({ useInMemoryFileSystem: true, skipLoadingLibFiles: true });

  const declarations = project.createSourceFile('model.d.ts');
  const step = manifest.entries?.find((e) => e.name === 'step');
  const evaluation = manifest.entries?.find((e) => e.name === 'eval');
  const options = step ? 'LoadTrainerOptions' : 'LoadOptions';
  declarations.addImportDeclaration({ isTypeOnly: true, moduleSpecifier: 'tilewright/runtime', namedImports: ['InputOf', options, step ? 'Trainer' : 'Session', 'TensorOf'] });
  const property = (info: TensorInfo, type: string, optional: boolean): { name: string; type: string; isReadonly: true; hasQuestionToken: boolean; docs: string[] } => ({
    name: propertyName(info.name), type: `${type}<'${info.dtype}'>`, isReadonly: true, hasQuestionToken: optional, docs: [describe(info)],
  });
  const takes = (name: string, what: string, inputs: readonly TensorInfo[]): void => void declarations.addInterface({
    name, isExported: true, docs: [`What ${what} takes.`],
    properties: [
      // A trainer has a learning rate of its own.
      ...inputs.map((i) => property(i, 'InputOf', step !== undefined && i.name === 'lr')),
      ...manifest.bound.map((b) => ({ ...property(b, 'InputOf', true), docs: [`${describe(b)}, bound when the model was compiled; may be left out.`] })),
    ],
  });
  const gives = (name: string, what: string, outputs: readonly TensorInfo[]): void => void declarations.addInterface({
    name, isExported: true, docs: [`What ${what} gives.`], properties: outputs.map((o) => property(o, 'TensorOf', false)),
  });
  const method = (name: string, inputs: string, returnType: string): { name: string; parameters: { name: string; type: string }[]; returnType: string } => ({ name, parameters: [{ name: 'inputs', type: inputs }], returnType });
  const model = inComment(manifest.model);
  if (step && evaluation) {
    takes('StepInputs', `a training step of ${model}`, step.inputs);
    gives('StepOutputs', `a training step of ${model}, beside the loss,`, step.outputs.filter((o) => o.name !== 'loss'));
    takes('Inputs', `an evaluation of ${model}`, evaluation.inputs);
    gives('Outputs', `an evaluation of ${model}`, evaluation.outputs);
    declarations.addInterface({
      name: 'ModelTrainer', isExported: true, docs: ['A trainer whose inputs and outputs are typed by the model.'], extends: [`Omit<Trainer, 'trainStep' | 'evaluate'>`],
      methods: [method('trainStep', 'StepInputs', 'Promise<{ readonly loss: number; readonly outputs: StepOutputs }>'), method('evaluate', 'Inputs', 'Promise<Outputs>')],
    });
  } else {
    takes('Inputs', model, manifest.inputs);
    gives('Outputs', model, manifest.outputs);
    declarations.addInterface({
      name: 'ModelSession', isExported: true, docs: ['A session whose inputs and outputs are typed by the model.'], extends: [`Omit<Session, 'run' | 'runSync'>`],
      methods: [method('run', 'Inputs', 'Promise<Outputs>'), method('runSync', 'Inputs', 'Outputs')],
    });
  }
  declarations.addFunction({
    name: 'load',
    isExported: true,
    hasDeclareKeyword: false,
    docs: ['Loads the artifact that lies beside this file.'],
    parameters: [{ name: 'options', type: options, hasQuestionToken: true }],
    returnType: `Promise<${step ? 'ModelTrainer' : 'ModelSession'}>`,
  });

  const js = project.createSourceFile('model.js');
  js.addImportDeclaration({ moduleSpecifier: 'tilewright/runtime', namedImports: [{ name: step ? 'loadTrainer' : 'load', alias: 'loadArtifact' }] });
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
