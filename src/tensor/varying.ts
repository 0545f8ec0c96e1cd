// Numbers that are other ones each time a captured program runs: where a cache is written, how many keys there are. The
// program changes its instructions in their places before a run. Not inputs, which are data. Read next: program.ts.
import type { Operand } from "../native/instructions.ts";
import { capturing } from "./device.ts";

/** What `value` gives: now, or in a program that is being captured at each of its runs. */
export function asked(value: () => number): () => number {
  if (capturing() !== null) return value;
  const now = value();
  return () => now;
}

/** Has `check` called before each run of the program that is being captured; where it throws, nothing is run. */
export function checkedAtRuns(check: () => void): void {
  capturing()?.aroundRun(check, () => {});
}

/**
 * Asks again for a field of the instruction that was emitted last, before each run of the program that is being captured.
 * Without one, what was emitted stays as it is.
 */
export function varying(field: string, value: () => number): void {
  const recorder = capturing();
  recorder?.vary(recorder.list.count - 1, field, value);
}

/** The same for an operand that lies `bytes()` behind memory that is there for good. */
export function varyingPlace(field: string, from: Operand, bytes: () => number): void {
  varying(field, () => from.offset + bytes());
}
