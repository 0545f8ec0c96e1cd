// Weights of products as int8 with one scale a row: a quarter of the memory that decoding reads. For use, not for training.
// Not the int8 models of EGGROLL (src/models/egg.ts), which are trained in integers. Read next: functional.ts, nn-layers.ts.
import { EggError } from "../errors.ts";
import type { ActivationName, Operand } from "../native/instructions.ts";
import { capturing, emit, flush, persistent } from "./device.ts";
import { beyond, type Buffer } from "./memory.ts";
import { checkActivation, needFloat } from "./ops-elementwise.ts";
import { chunkLosses } from "./ops-model.ts";
import { isRecording, refuse, type Operation } from "./tape.ts";
import { checkShape, product, sameShape, show, type Value } from "./value.ts";

/**
 * Symmetric int8, q = round(w / scale) with scale = largest |w| of the row / 127, so that -127..127 are used; a row of zeros
 * has scale 0. The largest error is half a scale.
 * @param values (rows, columns)
 */
export function quantizeRows(values: Float32Array, columns: number): { q: Int8Array<ArrayBuffer>; scales: Float32Array<ArrayBuffer> } {
  const q = new Int8Array(new ArrayBuffer(values.length));
  const scales = new Float32Array(new ArrayBuffer(4 * (values.length / columns)));
  for (let row = 0; row < scales.length; row++) {
    let largest = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) largest = Math.max(largest, Math.abs(values[i]!));
    const scale = Math.fround(largest / 127);
    scales[row] = scale;
    if (scale > 0) for (let i = row * columns; i < (row + 1) * columns; i++) q[i] = Math.max(-127, Math.min(127, Math.round(values[i]! / scale)));
  }
  return { q, scales };
}

/** A matrix (rows, columns) of int8 with a scale for each row, zeros at first, in native memory until `release`. */
export class QuantizedMatrix {
  readonly shape: readonly [number, number];
  readonly #codes: Buffer;
  readonly #scales: Buffer;
  #released = false;

  constructor(rows: number, columns: number) {
    checkShape("QuantizedMatrix", [rows, columns]);
    if (capturing() !== null) throw new EggError("usage", "[tensor] QuantizedMatrix: make weights before a program is captured.");
    flush(); // what was queued may still use memory that was given back
    this.shape = [rows, columns];
    this.#codes = persistent.take(rows * columns);
    this.#scales = persistent.take(4 * rows);
    for (const buffer of [this.#codes, this.#scales]) buffer.block!.clear(buffer);
  }

  get numel(): number {
    return product(this.shape);
  }

  /** Of native memory. */
  get bytes(): number {
    return this.#codes.bytes + this.#scales.bytes;
  }

  /** Where instructions find it. */
  place(op: string): { q: Buffer; scale: Buffer } {
    if (this.#released) throw new EggError("usage", `[tensor] ${op}: int8 weights ${show(this.shape)} were released.`);
    capturing()?.link(this.#codes, this.shape);
    return { q: this.#codes, scale: this.#scales };
  }

  /**
   * Overwrites whole rows, from element `first` on, with the nearest that int8 can hold.
   * @throws EggError("numeric") for a weight that is no number
   */
  writeRange(first: number, values: Float32Array): void {
    const { q, scale } = this.#rows("writeRange", first, values);
    if (values.length === 0) return;
    const [, columns] = this.shape;
    const rounded = quantizeRows(values, columns);
    if (!rounded.scales.every(Number.isFinite)) {
      throw new EggError("numeric", `[int8] weights ${show(this.shape)}: hold one that is no finite number.`, { hint: "Training has gone astray; take an earlier checkpoint." });
    }
    q.block!.arena.write(q.offset + first, rounded.q);
    scale.block!.arena.write(scale.offset + 4 * (first / columns), rounded.scales);
  }

  /** Whole rows from element `first` on, as the numbers that products see. */
  readRange(first: number, target: Float32Array): void {
    const { q, scale } = this.#rows("readRange", first, target);
    if (target.length === 0) return;
    const [, columns] = this.shape;
    const codes = new Int8Array(new ArrayBuffer(target.length));
    const scales = new Float32Array(new ArrayBuffer(4 * (target.length / columns)));
    q.block!.arena.read(q.offset + first, codes);
    scale.block!.arena.read(scale.offset + 4 * (first / columns), scales);
    for (let i = 0; i < target.length; i++) target[i] = codes[i]! * scales[Math.floor(i / columns)]!;
  }

  #rows(op: string, first: number, { length }: Float32Array): { q: Buffer; scale: Buffer } {
    const [, columns] = this.shape;
    if (first % columns !== 0 || length % columns !== 0 || first < 0 || first + length > this.numel) {
      throw new EggError("usage", `[tensor] ${op}: ${length} elements from ${first} on are not whole rows of int8 weights ${show(this.shape)}.`);
    }
    flush();
    return this.place(op);
  }

  release(): void {
    const { q, scale } = this.place("release");
    flush();
    persistent.give(q);
    persistent.give(scale);
    this.#released = true;
  }
}

/** Refuses what would need a gradient: there is none through int8 weights. */
function needNone(name: string, inputs: readonly Value[]): void {
  if (isRecording() && inputs.some(({ requiresGrad }) => requiresGrad)) refuse(name, inputs, "int8 weights have no gradients; compute inside noGrad(() => ...)");
}

/** Emits y = act((x q^T) * scales + bias) for m rows. */
function emitProduct(x: Operand, weight: QuantizedMatrix, y: Operand, m: number, { bias, activation }: { bias: Operand | null; activation: ActivationName }): void {
  const [n, k] = weight.shape;
  const { q, scale } = weight.place("linear");
  emit("gemm", {
    a: x, b: q, c: y, bias, scales: scale, m, n, k, lda: k, ldb: k, ldc: n, tb: true, outer: 1, inner: 1, a_outer: 0, a_inner: 0, b_outer: 0, b_inner: 0, c_outer: 0, c_inner: 0,
    a_dtype: "f32", b_dtype: "i8", c_dtype: "f32", compute: "f32", activation, alpha: 1, beta: 0,
  });
}

interface Multiplying { weight: QuantizedMatrix; activation: ActivationName }

/** act(x w^T + b): x (..., in), w (out, in), b (out). Inputs: x, then the bias if there is one. */
export const quantizedLinear: Operation<Multiplying> = {
  name: "linear",
  shape(inputs, { weight, activation }) {
    checkActivation("linear", inputs, activation);
    const [x, b] = inputs as [Value, Value | undefined];
    const [out, width] = weight.shape;
    needFloat("linear", inputs);
    needNone("linear", inputs);
    if (x.shape.at(-1) !== width) refuse("linear", inputs, `the last axis of x must be the weight's ${width} inputs`);
    if (b !== undefined && !sameShape(b.shape, [out])) refuse("linear", inputs, `the bias must have the shape (${out})`);
    return [...x.shape.slice(0, -1), out];
  },
  forward(step) {
    const { weight, activation } = step.attributes;
    emitProduct(step.at(0), weight, step.y, product(step.inputs[0]!.shape.slice(0, -1)), { bias: step.inputs.length === 2 ? step.at(1) : null, activation });
  },
};

/** Rows of a table: ids (...) i32, table (V, D) -> (..., D). */
export const quantizedEmbedding: Operation<{ table: QuantizedMatrix }> = {
  name: "embedding",
  shape(inputs, { table }) {
    const [ids] = inputs as [Value];
    if (ids.dtype !== "i32") refuse("embedding", inputs, `of type ${ids.dtype}; ids must be i32`);
    return [...ids.shape, table.shape[1]];
  },
  forward(step) {
    const { table } = step.attributes;
    const [vocabulary, width] = table.shape;
    const { q, scale } = table.place("embedding");
    emit("embed", { table: q, scales: scale, ids: step.at(0), y: step.y, rows: step.inputs[0]!.numel, vocabulary, width, dtype: "i8" });
  },
};

interface Losing { weight: QuantizedMatrix; ignoreIndex: number; mean: boolean; chunk: number }

/** crossEntropy(x w^T, targets), a chunk of rows at a time: x (..., D), w (V, D), targets (...) -> (). */
export const quantizedCrossEntropy: Operation<Losing> = {
  name: "linearCrossEntropy",
  shape(inputs, { weight }) {
    const [x, targets] = inputs as [Value, Value];
    needFloat("linearCrossEntropy", [x]);
    needNone("linearCrossEntropy", [x]);
    if (x.shape.at(-1) !== weight.shape[1]) refuse("linearCrossEntropy", inputs, `the last axis of x must be the weight's ${weight.shape[1]} inputs`);
    if (targets.dtype !== "i32" || !sameShape(targets.shape, x.shape.slice(0, -1))) refuse("linearCrossEntropy", inputs, "targets must be i32 and have the shape of x without its last axis");
    return [];
  },
  forward(step) {
    const { weight, ignoreIndex, mean, chunk } = step.attributes;
    const [classes, width] = weight.shape;
    const rows = step.inputs[1]!.numel;
    const divisor = mean ? step.save("count", 4) : null;
    if (divisor !== null) emit("count_targets", { targets: step.at(1), count: divisor, rows, ignore_index: ignoreIndex });
    const losses = chunkLosses(step, Math.ceil(rows / chunk));
    step.temporary(4 * Math.min(chunk, rows) * classes, (logits) => {
      for (let first = 0; first < rows; first += chunk) {
        const count = Math.min(chunk, rows - first);
        emitProduct(beyond(step.at(0), 4 * first * width), weight, logits, count, { bias: null, activation: "none" });
        emit("cross_entropy", {
          logits, targets: beyond(step.at(1), 4 * first), divisor, loss: losses.at(first / chunk), rows: count, classes, ignore_index: ignoreIndex, scale: 1,
        });
      }
    });
    losses.join();
  },
};
