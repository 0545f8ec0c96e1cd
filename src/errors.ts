// The one error type that users see, and the exit code of each kind.
// Not for bugs: anything else that is thrown is a bug in egg and exits with 1.
// Thrown everywhere; printed in one place, src/main.ts.

/** Kinds of trouble, in the order of their exit codes (DESIGN: commands). */
export const exitCodes = {
  internal: 1,
  usage: 2,
  data: 3,
  resources: 4,
  locked: 5,
  numeric: 6,
  corrupt: 7,
} as const;

export type ErrorKind = keyof typeof exitCodes;

/**
 * An expected failure: one sentence that says what went wrong and where, with what was found and what is
 * allowed, and a hint that says what to do.
 */
export class EggError extends Error {
  readonly kind: ErrorKind;
  readonly hint: string | undefined;

  constructor(kind: ErrorKind, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "EggError";
    this.kind = kind;
    this.hint = options.hint;
  }

  get exitCode(): number {
    return exitCodes[this.kind];
  }
}
