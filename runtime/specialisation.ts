/** Other specialisations of a model: compiled when first asked for, kept, the least recently used closed where there are too many. */
import type { ArtifactObject, Recompile, SpecialisationRequest } from './artifact.ts';
import type { InputValue } from './inputs.ts';
import type { Session } from './session.ts';
import type { Tensor } from './tensor.ts';

const limit = 8;

export interface Specialisations {
  /** Runs the inputs on the session for these shapes and bound values. */
  run(wanted: SpecialisationRequest, inputs: Readonly<Record<string, InputValue>>): Promise<Record<string, Tensor>>;
  close(): Promise<void>;
}

/** Keeps one session per set of shapes and bound values. `open` loads what `recompile` made. */
export function specialisations(recompile: Recompile, open: (artifact: ArtifactObject) => Promise<Session>): Specialisations {
  // A map keeps the order of insertion: the first is the least recently used.
  const sessions = new Map<string, Promise<Session>>();
  const closeSession = (session: Promise<Session>): Promise<void> => session.then((s) => s.close()).catch(() => {});
  return {
    async run(wanted, inputs) {
      const key = keyOf(wanted);
      // The caller may reuse its arrays while a specialisation is compiled.
      const held = Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, copied(value)]));
      const known = sessions.get(key);
      // What is opened has no hook of its own: a specialisation that does not fit says so instead of compiling for ever.
      const session = known ?? recompile(wanted).then(({ recompile: _, ...artifact }) => open(artifact));
      sessions.delete(key);
      sessions.set(key, session);
      session.catch(() => {
        if (sessions.get(key) === session) sessions.delete(key);
      });
      for (const [old, s] of sessions) {
        if (sessions.size <= limit) break;
        sessions.delete(old);
        void closeSession(s);
      }
      return (await session).run(held);
    },
    async close() {
      await Promise.all([...sessions.values()].map(closeSession));
    },
  };
}

/** A copy of an input's data. (The slice of a Buffer would be a view.) */
function copied(value: InputValue): InputValue {
  if (ArrayBuffer.isView(value)) return Uint8Array.prototype.slice.call(value as Uint8Array);
  if (typeof value === 'object' && 'data' in value) return { ...value, data: copied(value.data) } as InputValue;
  return structuredClone(value);
}

const keyOf = (wanted: SpecialisationRequest): string =>
  JSON.stringify([wanted.shapes, wanted.bound], (_, x: unknown) => {
    if (typeof x === 'bigint') return `${x}n`;
    if (typeof x === 'number' && !Number.isFinite(x)) return String(x);
    return ArrayBuffer.isView(x) ? Array.from(x as Uint8Array, String) : x;
  });
