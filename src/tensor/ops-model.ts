// The op table, part three: what models are made of: products, softmax, norms, embeddings, positions, losses.
// Not attention (ops-attention.ts) and not the kernels (kernels/float). Read next: functional.ts, which calls them.
import type { ActivationName, Operand, Values } from "../native/instructions.ts";
import { emit } from "./device.ts";
import { beyond } from "./memory.ts";
import { checkActivation, needFloat } from "./ops-elementwise.ts";
import { repeatedAxes, stridesOf, sumRepeated } from "./ops-shape.ts";
import { refuse, type Backward, type Forward, type Operation } from "./tape.ts";
import { bytesOf, product, sameShape, type Shape, type Value } from "./value.ts";
import { checkedAtRuns, varyingPlace } from "./varying.ts";

/** A row-major matrix of a value: where, its rows and columns as stored. */
interface Matrix { at: Operand; dtype: Value["dtype"]; cols: number }

/** Whether f32 products round their inputs to bf16 (set by functional.ts: autocast). */
export interface Computing { compute: "f32" | "bf16" }

/** Batch axes of a product, the last innermost: steps along one, in matrices of a, b and c; 0 where the same matrix serves again. */
type Walk = readonly { size: number; a: number; b: number; c: number }[];

interface Gemm extends Partial<Values<"gemm">> { m: number; n: number; k: number; walk?: Walk }

/** Emits C (=|+=) op(A) op(B) for dense row-major matrices, or as many as `walk` says. An instruction walks along two axes. */
function emitGemm(a: Matrix, b: Matrix, c: Operand, options: Gemm): void {
  const { m, n, k, ta = false, tb = false, walk = [], ...rest } = options;
  if (walk.length > 2) {
    const [first, ...others] = walk as [Walk[number], ...Walk];
    for (let i = 0; i < first.size; i++) {
      const part = (from: Matrix, elements: number): Matrix => ({ ...from, at: beyond(from.at, i * elements * bytesOf(from.dtype)) });
      emitGemm(part(a, first.a * m * k), part(b, first.b * k * n), beyond(c, 4 * i * first.c * m * n), { ...options, walk: others });
    }
    return;
  }
  const once = { size: 1, a: 0, b: 0, c: 0 };
  const [outer, inner] = [once, once, ...walk].slice(-2) as [Walk[number], Walk[number]];
  emit("gemm", {
    a: a.at, b: b.at, c, m, n, k, lda: a.cols, ldb: b.cols, ldc: n, ta, tb, outer: outer.size, inner: inner.size, a_outer: outer.a * m * k, a_inner: inner.a * m * k,
    b_outer: outer.b * k * n, b_inner: inner.b * k * n, c_outer: outer.c * m * n, c_inner: inner.c * m * n, a_dtype: a.dtype, b_dtype: b.dtype, c_dtype: "f32", compute: "f32", activation: "none",
    alpha: 1, beta: 0, ...rest,
  });
}

/** Along the axes of `batch`, to which the leading axes of a and b are repeated; as few axes as will do. */
function walkAlong(batch: Shape, a: Shape, b: Shape): Walk {
  if (sameShape(a, b)) return [{ size: product(batch), a: 1, b: 1, c: 1 }];
  const steps = (from: Shape): number[] => {
    const strides = stridesOf(from);
    const missing = batch.length - from.length;
    return batch.map((_, i) => (i < missing || from[i - missing] === 1 ? 0 : strides[i - missing]!));
  };
  const [ofA, ofB, ofC] = [steps(a), steps(b), stridesOf(batch)];
  const walk: Walk[number][] = [];
  for (const [i, size] of batch.entries()) {
    if (size === 1) continue;
    const [last, next] = [walk.at(-1), { size, a: ofA[i]!, b: ofB[i]!, c: ofC[i]! }];
    if (last !== undefined && last.a === next.a * size && last.b === next.b * size && last.c === next.c * size) walk.splice(-1, 1, { ...next, size: last.size * size });
    else walk.push(next);
  }
  return walk;
}

interface Multiplying extends Computing { ta: boolean; tb: boolean }

interface Product { shape: Shape; batch: Shape; walk: Walk; m: number; n: number; k: number }

/** Sizes of op(a) op(b). Leading axes are repeated as PyTorch does; a vector a is a row, a vector b a column, and the result lacks that axis. */
function productSizes(inputs: readonly Value[], { ta, tb }: Multiplying): Product {
  const [a, b] = inputs as [Value, Value];
  if (inputs.some((input) => input.dtype === "i32")) refuse("matmul", inputs, `of type ${a.dtype} and ${b.dtype}; both must be f32 or bf16`);
  if (a.shape.length === 0 || b.shape.length === 0) refuse("matmul", inputs, "both need an axis or more; use mul for a single number");
  const [row, column] = [a.shape.length === 1, b.shape.length === 1];
  if ((ta && row) || (tb && column)) refuse("matmul", inputs, "a vector cannot be transposed");
  const [ar, ac] = (row ? [1, ...a.shape] : a.shape.slice(-2)) as [number, number];
  const [br, bc] = (column ? [...b.shape, 1] : b.shape.slice(-2)) as [number, number];
  const [m, k] = ta ? [ac, ar] : [ar, ac];
  const [inner, n] = tb ? [bc, br] : [br, bc];
  if (k !== inner) refuse("matmul", inputs, `inner sizes ${k} and ${inner} differ${ta || tb ? " (after transposing)" : ""}`);
  const [ofA, ofB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const length = Math.max(ofA.length, ofB.length);
  const batch = sameShape(ofA, ofB) ? ofA : Array.from({ length }, (_, i) => {
    const [x, y] = [ofA.at(i - length) ?? 1, ofB.at(i - length) ?? 1];
    if (x !== y && x !== 1 && y !== 1) refuse("matmul", inputs, `sizes ${x} and ${y} of a leading axis differ, and neither is 1`);
    return x === 1 ? y : x;
  });
  const shape = [...batch, ...(row ? [] : [m]), ...(column ? [] : [n])];
  // One matrix b for all rows of all a: a single product.
  if (!ta && product(ofB) === 1) return { shape, batch: [], walk: [], m: m * product(batch), n, k };
  return { shape, batch, walk: walkAlong(batch, ofA, ofB), m, n, k };
}

const matrix = (value: Value, at: Operand): Matrix => ({ at, dtype: value.dtype, cols: value.shape.at(-1)! });
/** A vector is a column. */
const secondMatrix = (value: Value, at: Operand): Matrix => (value.shape.length === 1 ? { at, dtype: value.dtype, cols: 1 } : matrix(value, at));

/** op(a) op(b); t: the last two axes are swapped. */
export const matmul: Operation<Multiplying> = {
  name: "matmul",
  shape: (inputs, attributes) => productSizes(inputs, attributes).shape,
  forward(step) {
    const { m, n, k, walk } = productSizes(step.inputs, step.attributes);
    emitGemm(matrix(step.inputs[0]!, step.at(0)), secondMatrix(step.inputs[1]!, step.at(1)), step.y, { ...step.attributes, m, n, k, walk });
  },
  backward(step) {
    const { batch, m, n, k, walk } = productSizes(step.inputs, step.attributes);
    const { ta, tb, compute } = step.attributes;
    const [a, b] = [matrix(step.inputs[0]!, step.at(0)), secondMatrix(step.inputs[1]!, step.at(1))];
    const dy: Matrix = { at: step.dy, dtype: "f32", cols: n };
    /** The gradient of input i as a product of two of a, b and dy (c), summed where the input was repeated. */
    const give = (i: number, first: Matrix, second: Matrix, walked: readonly ["a" | "b" | "c", "a" | "b" | "c"], options: Gemm): void => {
      if (!step.needs(i)) return;
      const turned = walk.map((axis) => ({ ...axis, a: axis[walked[0]], b: axis[walked[1]] }));
      const make = (at: Operand, accumulate: boolean): void => emitGemm(first, second, at, { ...options, walk: turned, beta: accumulate ? 1 : 0, compute });
      const input = step.inputs[i]!.shape;
      const whole = [...batch, ...input.slice(-2)];
      if (repeatedAxes(input, whole).length === 0) {
        const { at, accumulate } = step.into(i);
        make(at, accumulate);
      } else step.temporary(4 * product(whole), (at) => {
        make(at, false);
        sumRepeated(step, i, at, whole);
      });
    };
    // a's at last: where an activation made a, what follows multiplies this by its slope (device.ts: multiplies).
    // d op(b) = op(a)^T dy, (k, n); where b is transposed, dy^T op(a), (n, k)
    if (tb) give(1, dy, a, ["c", "a"], { m: n, n: k, k: m, ta: true, tb: ta });
    else give(1, a, dy, ["a", "c"], { m: k, n, k: m, ta: !ta, tb: false });
    // d op(a) = dy op(b)^T, (m, k); where a is transposed, its transpose op(b) dy^T, (k, m)
    if (ta) give(0, b, dy, ["b", "c"], { m: k, n: m, k: n, ta: tb, tb: true });
    else give(0, dy, b, ["c", "b"], { m, n: k, k: n, ta: false, tb: !tb });
  },
};

interface Linear extends Computing { activation: ActivationName }

/** act(x w^T + b): x (..., in), w (out, in), b (out). */
export const linear: Operation<Linear> = {
  name: "linear",
  shape(inputs, { activation }) {
    checkActivation("linear", inputs, activation);
    const [x, w, b] = inputs as [Value, Value, Value | undefined];
    if (x.dtype === "i32" || w.dtype === "i32" || (b !== undefined && b.dtype !== "f32")) refuse("linear", inputs, `of type ${inputs.map((input) => input.dtype).join(" and ")}; x and w must be f32 or bf16, the bias f32`);
    if (w.shape.length !== 2) refuse("linear", inputs, "a weight has the shape (out, in)");
    if (x.shape.length < 1 || x.shape.at(-1) !== w.shape[1]) refuse("linear", inputs, `the last axis of x must be the weight's ${w.shape[1]} inputs`);
    if (b !== undefined && !sameShape(b.shape, [w.shape[0]!])) refuse("linear", inputs, `the bias must have the shape (${w.shape[0]})`);
    return [...x.shape.slice(0, -1), w.shape[0]!];
  },
  forward(step) {
    const [x, w] = step.inputs as [Value, Value];
    const [n, k] = w.shape as [number, number];
    const { activation, compute } = step.attributes;
    const slope = activation !== "none" && step.recording ? step.save("slope", step.output.bytes) : null;
    emitGemm(matrix(x, step.at(0)), matrix(w, step.at(1)), step.y, {
      m: product(x.shape.slice(0, -1)), n, k, tb: true, bias: step.inputs.length === 3 ? step.at(2) : null, slope, activation, compute,
    });
  },
  backward(step) {
    if (step.attributes.activation === "none") linearBackward(step, step.dy);
    else step.multiplied(step.saved("slope"), (dpre) => linearBackward(step, dpre));
  },
};

function linearBackward(step: Backward<Linear>, dy: Operand): void {
  const [x, w] = step.inputs as [Value, Value];
  const [n, k] = w.shape as [number, number];
  const m = product(x.shape.slice(0, -1));
  const { compute } = step.attributes;
  const gradient: Matrix = { at: dy, dtype: "f32", cols: n };
  if (step.needs(2)) {
    const { at, accumulate } = step.into(2);
    emit("reduce", { x: dy, y: at, outer: 1, axis: m, inner: n, operation: "sum", alpha: 1, accumulate });
  }
  if (step.needs(1)) {
    const { at, accumulate } = step.into(1);
    emitGemm(gradient, matrix(x, step.at(0)), at, { m: n, n: k, k: m, ta: true, beta: accumulate ? 1 : 0, compute });
  }
  if (step.needs(0)) { // at last, as in matmul
    const { at, accumulate } = step.into(0);
    emitGemm(gradient, matrix(w, step.at(1)), at, { m, n: k, k: n, beta: accumulate ? 1 : 0, compute });
  }
}

/** rows x width of a value's last axis. */
export function rowsOf(name: string, inputs: readonly Value[]): { rows: number; width: number } {
  const width = inputs[0]!.shape.at(-1);
  if (width === undefined) refuse(name, inputs, "a tensor without axes has no last one");
  return { rows: product(inputs[0]!.shape.slice(0, -1)), width };
}

/** softmax of the last axis, or its logarithm. */
export const softmax: Operation<{ mode: "softmax" | "log" }> = {
  name: "softmax",
  label: ({ mode }) => (mode === "log" ? "logSoftmax" : "softmax"),
  shape(inputs) {
    needFloat("softmax", inputs);
    rowsOf("softmax", inputs);
    return inputs[0]!.shape;
  },
  forward: (step) => emit("softmax", { x: step.at(0), y: step.y, ...rowsOf("softmax", step.inputs), mode: step.attributes.mode }),
  backward(step) {
    const { at, accumulate } = step.into(0);
    emit("softmax_backward", { y: step.y, dy: step.dy, dx: at, ...rowsOf("softmax", step.inputs), mode: step.attributes.mode, accumulate });
  },
};

interface Normalizing { mode: "layer" | "rms"; eps: number; bias: boolean }

/** Inputs: x, then weight, then bias, as far as there are any. */
export const norm: Operation<Normalizing> = {
  name: "norm",
  label: ({ mode }) => (mode === "layer" ? "layerNorm" : "rmsNorm"),
  shape(inputs, { mode, eps }) {
    const name = mode === "layer" ? "layerNorm" : "rmsNorm";
    if (!(eps >= 0 && Number.isFinite(eps))) refuse(name, inputs, `eps = ${eps} is not a number from 0`);
    needFloat(name, inputs);
    const { width } = rowsOf(name, inputs);
    for (const other of inputs.slice(1)) if (!sameShape(other.shape, [width])) refuse(name, inputs, `weight and bias must have the shape (${width})`);
    return inputs[0]!.shape;
  },
  forward(step) {
    const { rows, width } = rowsOf("norm", step.inputs);
    const { mode, eps } = step.attributes;
    emit("norm", {
      x: step.at(0), weight: step.inputs.length > 1 ? step.at(1) : null, bias: step.inputs.length > 2 ? step.at(2) : null, y: step.y,
      mean: step.recording && mode === "layer" ? step.save("mean", 4 * rows) : null, rstd: step.recording ? step.save("rstd", 4 * rows) : null, rows, width, mode, eps,
    });
  },
  backward(step) {
    const { rows, width } = rowsOf("norm", step.inputs);
    const { mode } = step.attributes;
    const common = { dy: step.dy, x: step.at(0), weight: step.inputs.length > 1 ? step.at(1) : null, mean: mode === "layer" ? step.saved("mean") : null, rstd: step.saved("rstd"), rows, width, mode };
    // Weights are leaves as a rule and add up over batches, dx is new as a rule: their flags differ.
    const dx = step.needs(0) ? step.into(0) : null;
    const others = [1, 2].filter((i) => step.needs(i));
    step.write(others, (places) => emit("norm_backward", {
      ...common, dx: dx?.at ?? null, accumulate: dx?.accumulate ?? false,
      dweight: others.includes(1) ? places[others.indexOf(1)]! : null, dbias: others.includes(2) ? places[others.indexOf(2)]! : null,
    }));
  },
};

/** Rows of a table: ids (...) i32, table (V, D) -> (..., D). */
export const embedding: Operation<null> = {
  name: "embedding",
  shape(inputs) {
    const [ids, table] = inputs as [Value, Value];
    if (ids.dtype !== "i32" || table.dtype === "i32") refuse("embedding", inputs, `of type ${ids.dtype} and ${table.dtype}; ids must be i32, the table f32 or bf16`);
    if (table.shape.length !== 2) refuse("embedding", inputs, "a table has the shape (vocabulary, width)");
    return [...ids.shape, table.shape[1]!];
  },
  forward(step) {
    const [vocabulary, width] = step.inputs[1]!.shape as [number, number];
    emit("embed", { table: step.at(1), ids: step.at(0), y: step.y, rows: step.inputs[0]!.numel, vocabulary, width, dtype: step.inputs[1]!.dtype });
  },
  backward(step) {
    const [vocabulary, width] = step.inputs[1]!.shape as [number, number];
    const { at, accumulate } = step.into(1);
    emit("embed_backward", { dy: step.dy, ids: step.at(0), dtable: at, rows: step.inputs[0]!.numel, vocabulary, width, accumulate });
  },
};

interface Positioned {
  /** The first position; asked for at each run of a captured program. */
  start: () => number;
}

/** Refuses positions that are not in the table. */
function checkPositions(inputs: readonly Value[], { start }: Positioned): void {
  const [x, table] = inputs as [Value, Value];
  const first = start();
  if (!Number.isInteger(first) || first < 0 || first + x.shape[1]! > table.shape[0]!) {
    refuse("addPositions", inputs, `${x.shape[1]} positions from ${first} on are not in the table, whose rows are 0 .. ${table.shape[0]! - 1}`);
  }
}

/** x (B, T, D) plus rows `start()` .. of a table (room, D): learned positions. */
export const addPositions: Operation<Positioned> = {
  name: "addPositions",
  shape(inputs, attributes) {
    needFloat("addPositions", inputs);
    const [x, table] = inputs as [Value, Value];
    if (x.shape.length !== 3 || table.shape.length !== 2 || x.shape[2] !== table.shape[1]) refuse("addPositions", inputs, "x must be (batch, time, width), the table (room, width)");
    checkPositions(inputs, attributes);
    return x.shape;
  },
  forward(step) {
    const { inputs, attributes } = step;
    const [batch, time, width] = step.output.shape as [number, number, number];
    const table = step.at(1);
    checkedAtRuns(() => checkPositions(inputs, attributes));
    const bytes = (): number => 4 * attributes.start() * width;
    emit("binary", { a: step.at(0), b: beyond(table, bytes()), y: step.y, rows: batch, cols: time * width, operation: "add", broadcast: "row", alpha: 1 });
    varyingPlace("b", table, bytes);
  },
  backward(step) {
    const [batch, time, width] = step.output.shape as [number, number, number];
    step.pass(0);
    if (!step.needs(1)) return;
    const { at, accumulate } = step.into(1);
    if (!accumulate) emit("fill", { y: at, count: step.inputs[1]!.numel, value: 0 });
    const { start } = step.attributes;
    const bytes = (): number => 4 * start() * width;
    emit("reduce", { x: step.dy, y: beyond(at, bytes()), outer: 1, axis: batch, inner: time * width, operation: "sum", alpha: 1, accumulate: true });
    varyingPlace("y", at, bytes);
  },
};

interface Losing { ignoreIndex: number; mean: boolean }

function lossSizes(name: string, inputs: readonly Value[], targets: Value, classes: number): { rows: number; classes: number } {
  if (targets.dtype !== "i32") refuse(name, inputs, `targets must be i32, found ${targets.dtype}`);
  if (!sameShape(targets.shape, inputs[0]!.shape.slice(0, -1))) refuse(name, inputs, "targets must have the shape of x without its last axis");
  return { rows: targets.numel, classes };
}

/** Mean (over targets that count) or sum of -log softmax(logits)[target]: logits (..., C), targets (...) -> (). */
export const crossEntropy: Operation<Losing> = {
  name: "crossEntropy",
  shape(inputs) {
    needFloat("crossEntropy", inputs.slice(0, 1));
    const { width } = rowsOf("crossEntropy", inputs);
    lossSizes("crossEntropy", inputs, inputs[1]!, width);
    return [];
  },
  forward(step) {
    const { rows, classes } = lossSizes("crossEntropy", step.inputs, step.inputs[1]!, step.inputs[0]!.shape.at(-1)!);
    const { ignoreIndex, mean } = step.attributes;
    const divisor = mean ? step.save("count", 4) : null;
    if (divisor !== null) emit("count_targets", { targets: step.at(1), count: divisor, rows, ignore_index: ignoreIndex });
    emit("cross_entropy", {
      logits: step.at(0), targets: step.at(1), divisor, lse: step.recording ? step.save("lse", 4 * rows) : null, loss: step.y, rows, classes, ignore_index: ignoreIndex, scale: 1,
    });
  },
  backward(step) {
    const { rows, classes } = lossSizes("crossEntropy", step.inputs, step.inputs[1]!, step.inputs[0]!.shape.at(-1)!);
    const { ignoreIndex, mean } = step.attributes;
    const { at, accumulate } = step.into(0);
    emit("cross_entropy_backward", {
      logits: step.at(0), targets: step.at(1), lse: step.saved("lse"), divisor: mean ? step.saved("count") : null, dy: step.dy, dlogits: at, rows, classes,
      ignore_index: ignoreIndex, scale: 1, accumulate,
    });
  },
};

interface LinearLosing extends Losing, Computing { chunk: number }

interface Place { at: Operand; accumulate: boolean }

/**
 * Where the losses of `count` chunks go, and `join`, which adds them to the result at the end: not one to the other in f32,
 * which loses a digit for each ten chunks.
 */
export function chunkLosses(step: Forward<unknown>, count: number): { at: (chunk: number) => Operand; join: () => void } {
  if (count === 1) return { at: () => step.y, join: () => {} };
  const parts = step.save("losses", 4 * count);
  return { at: (chunk) => beyond(parts, 4 * chunk), join: () => emit("reduce", { x: parts, y: step.y, outer: 1, axis: count, inner: 1, operation: "sum", alpha: 1 }) };
}

/**
 * Emits the loss and the gradients of x and w for a gradient of 1, a chunk of rows at a time, so that never more than
 * chunk x V logits exist.
 */
function emitLinearLoss(step: Forward<LinearLosing>, dx: Place | null, dw: Place | null): void {
  const [x, w, targets] = step.inputs as [Value, Value, Value];
  const [classes, width] = w.shape as [number, number];
  const { ignoreIndex, mean, compute } = step.attributes;
  const rows = targets.numel;
  // As many chunks as must be, all of about the same size.
  const chunk = Math.ceil(rows / Math.max(1, Math.ceil(rows / step.attributes.chunk)) / 8) * 8;
  const divisor = mean ? step.save("count", 4) : null;
  if (divisor !== null) emit("count_targets", { targets: step.at(2), count: divisor, rows, ignore_index: ignoreIndex });
  const losses = chunkLosses(step, Math.ceil(rows / Math.max(chunk, 1)));
  if (rows === 0 && dw !== null && !dw.accumulate) emit("fill", { y: dw.at, count: w.numel, value: 0 });
  step.temporary(4 * Math.min(chunk, rows) * classes, (logits) => {
    const dense: Matrix = { at: logits, dtype: "f32", cols: classes };
    for (let first = 0; first < rows; first += chunk) {
      const count = Math.min(chunk, rows - first);
      const part: Matrix = { at: beyond(step.at(0), first * width * bytesOf(x.dtype)), dtype: x.dtype, cols: width };
      emitGemm(part, matrix(w, step.at(1)), logits, { m: count, n: classes, k: width, tb: true, compute });
      emit("cross_entropy", {
        logits, targets: beyond(step.at(2), 4 * first), divisor, loss: losses.at(first / chunk), dlogits: dx === null && dw === null ? null : logits, rows: count, classes,
        ignore_index: ignoreIndex, scale: 1,
      });
      if (dx !== null) emitGemm(dense, matrix(w, step.at(1)), beyond(dx.at, 4 * first * width), { m: count, n: width, k: classes, beta: dx.accumulate ? 1 : 0, compute });
      if (dw !== null) emitGemm(dense, part, dw.at, { m: classes, n: width, k: count, ta: true, beta: first > 0 || dw.accumulate ? 1 : 0, compute });
    }
  });
  losses.join();
}

/**
 * crossEntropy(x w^T, targets) without all logits. The gradients come with the forward pass, while a chunk's logits are there:
 * straight into their places where backward() follows at once, else they wait.
 */
export const linearCrossEntropy: Operation<LinearLosing> = {
  name: "linearCrossEntropy",
  shape(inputs) {
    const [x, w, targets] = inputs as [Value, Value, Value];
    needFloat("linearCrossEntropy", [x]);
    if (w.dtype === "i32" || w.shape.length !== 2 || x.shape.at(-1) !== w.shape[1]) refuse("linearCrossEntropy", inputs, "w must be (V, D) for x (..., D)");
    lossSizes("linearCrossEntropy", [x], targets, w.shape[0]!);
    return [];
  },
  forward(step) {
    const [x, w] = step.inputs as [Value, Value, Value];
    const kept = (name: string, value: Value): Place | null => (step.recording && value.requiresGrad ? { at: step.save(name, 4 * value.numel), accumulate: false } : null);
    emitLinearLoss(step, kept("dx", x), kept("dw", w));
  },
  backward(step) {
    for (const [i, name] of ["dx", "dw"].entries()) {
      if (!step.needs(i)) continue;
      const { at, accumulate } = step.into(i);
      emit("binary", { a: step.saved(name), b: step.dy, y: at, rows: 1, cols: step.inputs[i]!.numel, operation: "multiply", broadcast: "scalar", alpha: 1, accumulate });
    }
  },
  together: (step, into) => emitLinearLoss(step, into(0), into(1)),
};
