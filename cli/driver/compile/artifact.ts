/** Artifacts in memory, and the files that they are saved as. */
import type { TileProgram } from '../../../ir/tile.ts';
import type { ArtifactObject } from '../../../runtime/artifact.ts';
import type { Manifest } from '../../../runtime/manifest.ts';
import { bindings } from '../bindings.ts';
import { manifestBytes } from '../fallback.ts';
import type { RewriteReport } from '../../../passes/norm/rewrite-norms.ts';
import type { MemoryFit } from '../fit-memory.ts';
import { writeFolder, type Files } from '../folder.ts';

/** An artifact in memory, to load or to save. */
export interface Artifact extends ArtifactObject {
  /** The tile program that the modules were emitted from. */
  readonly program: TileProgram;
  /** What the importer had to say. */
  readonly warnings: readonly string[];
  /** Of a training artifact whose normalizations were rewritten: the model as ONNX, which exportOnnx puts trained weights into. */
  readonly rewritten?: Uint8Array;
  /** What became of the model's normalizations, where they were to be rewritten. */
  readonly norms?: RewriteReport;
  /** How the step was kept under a limit of memory, if one was given. */
  readonly fit?: MemoryFit;
  readonly fallback?: Artifact;
  /** What `save` writes: files by name, in pieces. */
  files(): Promise<Files>;
  /** Writes model.wasm (one file per feature set), manifest.json, weights.safetensors, model.js and model.d.ts; all or nothing. */
  save(folder: string): Promise<void>;
}

/** How an artifact with these files is saved. */
export const savedAs = (files: Artifact['files']): Pick<Artifact, 'files' | 'save'> => ({ files, save: async (folder) => writeFolder(folder, await files()) });

/** The files of an artifact: what every one has, and those that are given. */
export async function filesOf(manifest: Manifest, modules: Readonly<Record<string, Uint8Array>>, weights: readonly Uint8Array[], files: Files): Promise<Files> {
  const { js, declarations } = await bindings(manifest);
  const text = (s: string): Uint8Array[] => [new TextEncoder().encode(s)];
  return {
    ...Object.fromEntries(Object.entries(modules).map(([file, binary]) => [file, [binary]])),
    'manifest.json': [manifestBytes(manifest)],
    'weights.safetensors': weights,
    'model.js': text(js),
    'model.d.ts': text(declarations),
    ...files,
  };
}
