/** Errors that are part of the product. */

/**
 * A user's mistake, or a limit of Tilewright that a user can meet: reported without a stack trace, exit code 2. The message says what happened,
 * where (file, ONNX node, tensor), what was expected and what to do.
 */
export class UserError extends Error {
  override readonly name: string = 'UserError';
}

/** A feature that is recognised and refused by name (op, attribute, type). `feature` is that name. */
export class Unsupported extends UserError {
  override readonly name = 'Unsupported';
  readonly feature: string;
  constructor(feature: string, message: string) {
    super(message);
    this.feature = feature;
  }
}

/** A program that does not fit the memory it is given: exit code 3. The message says by how much, and what would make it fit. */
export class OverLimit extends UserError {
  override readonly name = 'OverLimit';
}

/** A bug of Tilewright: exit code 70, reported with the IR text. */
export class InternalError extends Error {
  override readonly name = 'InternalError';
}

/** Asserts an internal invariant. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InternalError(message);
}
