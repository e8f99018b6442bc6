/** Artifacts for WebGPU that bring the same model for WebAssembly along. */
import type { Artifact } from './compile/artifact.ts';
import { writeFolder, type Files } from './folder.ts';

/** The folder in the artifact's that holds the fallback. Its weights are its own: passes fold constants differently for each backend. */
const folderName = 'wasm';

/** Joins two artifacts of one model to one that `load` runs on WebGPU, or on WebAssembly where there is no GPU. */
export function withFallback(gpu: Artifact, fallback: Artifact): Artifact {
  const manifest = { ...gpu.manifest, fallback: folderName };
  const files = async (): Promise<Files> => {
    // Bindings are those of the folder above.
    const { 'model.js': _js, 'model.d.ts': _types, ...own } = await fallback.files();
    const inside = Object.fromEntries(Object.entries(own).map(([name, chunks]) => [`${folderName}/${name}`, chunks]));
    return { ...await gpu.files(), 'manifest.json': [manifestBytes(manifest)], ...inside };
  };
  return { ...gpu, manifest, fallback, files, save: async (folder) => writeFolder(folder, await files()) };
}

/** A manifest as its file holds it. */
export const manifestBytes = (manifest: Artifact['manifest']): Uint8Array => new TextEncoder().encode(`${JSON.stringify(manifest, null, 1)}\n`);
