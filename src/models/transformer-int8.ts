// Weights of products as int8 with one scale a row: what decoding with a quarter of the memory traffic computes with.
// Not the int8 models of EGGROLL (egg.ts), which are trained in integers. Read next: transformer-text.ts.
import { EggError } from "../errors.ts";
import type { Transformer } from "./transformer.ts";

/** Rows that are read and written at once, in numbers. */
const at_once = 1 << 20;

/**
 * Symmetric int8, q = round(w / scale) with scale = largest |w| of the row / 127, so that -127..127 are used; a row of zeros
 * has scale 0. The largest error is half a scale.
 * @param values (rows, columns)
 */
export function quantizeRows(values: Float32Array, columns: number): { q: Int8Array; scales: Float32Array } {
  const q = new Int8Array(values.length);
  const scales = new Float32Array(values.length / columns);
  for (let row = 0; row < scales.length; row++) {
    let largest = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) largest = Math.max(largest, Math.abs(values[i]!));
    const scale = Math.fround(largest / 127);
    scales[row] = scale;
    if (scale > 0) for (let i = row * columns; i < (row + 1) * columns; i++) q[i] = Math.max(-127, Math.min(127, Math.round(values[i]! / scale)));
  }
  return { q, scales };
}

/**
 * Rounds all weights that products read to the nearest that int8 with a scale a row can hold, in place: of attention, feed-forward
 * and head (the embedding where that is the head). Norms, biases, positions and an embedding that is only looked up stay.
 * @throws EggError("numeric") for a weight that is no number
 */
export function roundToInt8(model: Transformer): void {
  for (const [name, parameter] of model.namedParameters()) {
    const [rows, columns] = parameter.shape;
    if (columns === undefined || name === "positions.weight" || (name === "embedding.weight" && !model.shape.tied)) continue;
    const step = Math.max(1, Math.floor(at_once / columns));
    for (let first = 0; first < rows!; first += step) {
      const values = new Float32Array(Math.min(step, rows! - first) * columns);
      parameter.readRange(first * columns, values);
      const { q, scales } = quantizeRows(values, columns);
      if (!scales.every(Number.isFinite)) throw new EggError("numeric", `[int8] ${name}: holds a weight that is no finite number.`, { hint: "Training has gone astray; take an earlier checkpoint." });
      for (let i = 0; i < values.length; i++) values[i] = q[i]! * scales[Math.floor(i / columns)]!;
      parameter.writeRange(first * columns, values);
    }
  }
}
