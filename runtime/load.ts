import { openArtifact, type ArtifactObject } from './artifact.ts';
import { openedSession, type LoadOptions, type Session } from './session.ts';
import { openedTrainer, type LoadTrainerOptions, type Trainer } from './trainer.ts';

/**
 * Loads an artifact from a folder, a URL or memory: a session where it was compiled for inference, a trainer where it was compiled for training, which a caller in TypeScript says
 * as `load<Trainer>("out/")`. InputError where it is no artifact, or does not fit this machine.
 */
export function load(source: string | URL | ArtifactObject, options?: LoadOptions): Promise<Session>;
export function load<T extends Trainer>(source: string | URL | ArtifactObject, options?: LoadTrainerOptions): Promise<T>;
export async function load(source: string | URL | ArtifactObject, options: LoadOptions & LoadTrainerOptions = {}): Promise<Session | Trainer> {
  const artifact = await openArtifact(source);
  const trains = artifact.manifest.entries?.some((e) => e.name === 'step') ?? false;
  return trains ? openedTrainer(artifact, options) : openedSession(artifact, options);
}
