// Debug mode: every result is looked at as soon as it is there, and the first NaN or infinity is named. Slow, for finding one.
// Not part of normal runs: there an optimizer skips steps whose gradients are not finite. Read next: tape.ts.
import { EggError } from "../errors.ts";
import { capturing, emit, take } from "./device.ts";
import { inspectWith } from "./tape.ts";
import { show, Value } from "./value.ts";

/** How many NaN and infinities a value holds. */
function nonfinite(value: Value): number {
  if (value.dtype !== "f32" || value.numel === 0) return 0;
  const count = new Value([], "f32");
  count.buffer = take(4);
  count.scope = value.scope;
  emit("reduce", { x: value.place("debug"), y: count.buffer, outer: 1, axis: value.numel, inner: 1, operation: "nonfinite", alpha: 1 });
  return count.read("debug")[0]!;
}

/**
 * Turns the looking on or off. While it is on, an operation whose inputs are finite and whose result is not, or whose inputs
 * are data that is not, throws EggError("numeric") that names it.
 */
export function setDebug(on: boolean): void {
  inspectWith(!on ? null : (name, inputs, output) => {
    if (capturing() !== null) return;
    const shapes = inputs.map((input) => show(input.shape)).join(" and ");
    inputs.forEach((input, i) => {
      const bad = input.data !== null || input.isPersistent ? nonfinite(input) : 0;
      if (bad > 0) throw new EggError("numeric", `[tensor] ${name}: ${shapes}: input ${i + 1} holds ${bad} NaN or infinite numbers before anything was computed.`, { hint: "Look at the data or weights it was made from." });
    });
    const bad = nonfinite(output);
    if (bad > 0) throw new EggError("numeric", `[tensor] ${name}: ${shapes}: ${bad} of ${output.numel} results are NaN or infinite, the first in this step.`);
  });
}
