// Debug mode: every result and gradient is looked at, and the first that holds a NaN or an infinity is named, be it data. Eager
// at once, in a program after its run. Slow, for finding one. Not part of normal runs: there an optimizer skips steps whose
// gradients are not finite. Read next: tape.ts.
import { EggError } from "../errors.ts";
import { capturing, emit, flush, take } from "./device.ts";
import { inspectWith, type Looked } from "./tape.ts";
import { show } from "./value.ts";

/** Throws where something of these counts of NaN and infinities is not 0. */
type Judge = (count: number) => void;

/** Counts in a step's memory, or in a program's for the end of each run. */
function count({ at, numel }: Looked, judge: Judge): void {
  if (numel === 0) return;
  const recorder = capturing();
  const y = recorder === null ? take(4) : recorder.constant(new Float32Array(new ArrayBuffer(4)));
  emit("reduce", { x: at, y, outer: 1, axis: numel, inner: 1, operation: "nonfinite", alpha: 1 });
  const found = new Float32Array(new ArrayBuffer(4));
  const look = (): void => {
    y.block!.arena.read(y.offset, found);
    judge(found[0]!);
  };
  if (recorder !== null) return recorder.aroundRun(() => {}, look);
  flush();
  look();
}

/**
 * Turns the looking on or off. While it is on, an operation whose inputs are finite and whose result or gradient is not, or
 * whose inputs are data that is not, throws EggError("numeric") that names it. A program must be captured while it is on: then
 * each of its runs throws, after it, what went wrong first.
 */
export function setDebug(on: boolean): void {
  const refuse = (words: string, hint?: string): never => {
    throw new EggError("numeric", `[tensor] ${words}`, hint === undefined ? {} : { hint });
  };
  inspectWith(!on ? null : (looked) => count(looked, (bad) => {
    if (bad === 0) return;
    const { name, what, numel } = looked;
    const head = `${name}: ${looked.inputs.map((input) => show(input.shape)).join(" and ")}: `;
    if (what === "result") refuse(`${head}${bad} of ${numel} results are NaN or infinite, the first in this step.`);
    if (what === "gradient") refuse(`${head}backward: ${bad} of ${numel} numbers of the gradient of input ${looked.input + 1} are NaN or infinite, the first in this step.`);
    const { op } = looked.inputs[looked.input]!.origin;
    refuse(`${head}input ${looked.input + 1}${op.startsWith("input ") ? ` (the program's ${op})` : ""} holds ${bad} NaN or infinite numbers before anything was computed.`, "Look at the data or weights it was made from.");
  }));
}
