/** Errors of the runtime. */

/** Something that the caller gave is wrong (an artifact, a file, an input): the message says what was found, what was expected and what to do. */
export class InputError extends Error {
  override readonly name = 'InputError';
}

/** A run failed inside the module, or its threads could not be kept alive. The session is closed afterwards. */
export class RunError extends Error {
  override readonly name = 'RunError';
}
