// The op table, part five: weights of int8 with a scale for each row, for decoding: products and rows of a table. No gradients.
// Not the models of EGGROLL, which are integers throughout (kernels/int8). Read next: functional.ts, which calls them.
import type { ActivationName } from "../native/instructions.ts";
import { emit } from "./device.ts";
import { refuse, type Operation } from "./tape.ts";
import { product, sameShape, type Value } from "./value.ts";

function checkWeights(name: string, inputs: readonly Value[], weight: Value, scales: Value): void {
  if (weight.dtype !== "i8" || weight.shape.length !== 2) refuse(name, inputs, `weights must be i8 of two axes, found ${weight.dtype}`);
  if (scales.dtype !== "f32" || !sameShape(scales.shape, weight.shape.slice(0, 1))) refuse(name, inputs, `scales must be f32, one for each of ${weight.shape[0]} rows`);
}

/** act((x q^T) * scales + b): x (..., in) f32, q (out, in) i8, scales (out), b (out). */
export const linearInt8: Operation<{ activation: ActivationName }> = {
  name: "linearInt8",
  shape(inputs) {
    const [x, weight, scales, b] = inputs as [Value, Value, Value, Value | undefined];
    checkWeights("linearInt8", inputs, weight, scales);
    if (x.dtype !== "f32" || x.shape.length < 1 || x.shape.at(-1) !== weight.shape[1]) refuse("linearInt8", inputs, `x must be f32, its last axis the weight's ${weight.shape[1]} inputs`);
    if (b !== undefined && (b.dtype !== "f32" || !sameShape(b.shape, scales.shape))) refuse("linearInt8", inputs, `the bias must be f32 of the shape (${weight.shape[0]})`);
    return [...x.shape.slice(0, -1), weight.shape[0]!];
  },
  forward(step) {
    const [n, k] = step.inputs[1]!.shape as [number, number];
    emit("gemm", {
      a: step.at(0), b: step.at(1), c: step.y, bias: step.inputs.length === 4 ? step.at(3) : null, scales: step.at(2), m: product(step.output.shape.slice(0, -1)), n, k,
      lda: k, ldb: k, ldc: n, tb: true, outer: 1, inner: 1, a_outer: 0, a_inner: 0, b_outer: 0, b_inner: 0, c_outer: 0, c_inner: 0, a_dtype: "f32", b_dtype: "i8",
      c_dtype: "f32", compute: "f32", activation: step.attributes.activation, alpha: 1, beta: 0,
    });
  },
};

/** Rows of a table: ids (...) i32, table (V, D) i8, scales (V) -> (..., D) f32. */
export const embeddingInt8: Operation<null> = {
  name: "embeddingInt8",
  shape(inputs) {
    const [ids, table, scales] = inputs as [Value, Value, Value];
    checkWeights("embeddingInt8", inputs, table, scales);
    if (ids.dtype !== "i32") refuse("embeddingInt8", inputs, `ids must be i32, found ${ids.dtype}`);
    return [...ids.shape, table.shape[1]!];
  },
  forward(step) {
    const [vocabulary, width] = step.inputs[1]!.shape as [number, number];
    emit("embed", { table: step.at(1), scales: step.at(2), ids: step.at(0), y: step.y, rows: step.inputs[0]!.numel, vocabulary, width, dtype: "i8" });
  },
};
