// What a call that must fail fails with.
// Not a test. Used by checkpoint.test.ts, folder.test.ts and metrics.test.ts.
import { EggError } from "../src/errors.ts";

/** The EggError of `action`; any other error, and none at all, fail the test. */
export function failure(action: () => unknown): EggError {
  try {
    action();
  } catch (error) {
    if (error instanceof EggError) return error;
    throw error;
  }
  throw new Error("no failure");
}
