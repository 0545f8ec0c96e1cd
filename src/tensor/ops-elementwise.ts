// The op table, part one: what goes element by element, with broadcasting, activations, dropout and conversion.
// Not the kernels (kernels/float/elementwise.zig) and not who calls (functional.ts). Read next: ops-shape.ts, ops-model.ts.
import { enums, type ActivationName, type DtypeName, type Operand, type Values } from "../native/instructions.ts";
import { capturing, emit, randomStream } from "./device.ts";
import { beyond } from "./memory.ts";
import { refuse, type Backward, type Forward, type Operation } from "./tape.ts";
import { product, sameShape, type Shape, type Value } from "./value.ts";

/** Refuses other types than f32. */
export function needFloat(name: string, inputs: readonly Value[]): void {
  if (inputs.some((input) => input.dtype !== "f32")) refuse(name, inputs, `of type ${inputs.map((input) => input.dtype).join(" and ")}; all must be f32`);
}

/** Refuses names that are no activation's. */
export function checkActivation(name: string, inputs: readonly Value[], activation: ActivationName): void {
  if (!enums.Activation.includes(activation)) refuse(name, inputs, `${JSON.stringify(activation)} is no activation; there are ${enums.Activation.join(", ")}`);
}

/** How the second input of a binary operation lies against the first. */
export type Spread = Values<"binary">["broadcast"];

/** rows x cols of the first input for a spread of the second one. Null where the second one must be expanded first. */
export function spreadOf(a: Shape, b: Shape): Spread | null {
  if (sameShape(a, b)) return "same";
  if (product(b) === 1 && b.length <= a.length) return "scalar";
  const ones = b.findIndex((size) => size !== 1);
  const tail = b.slice(ones);
  if (b.length <= a.length && sameShape(tail, a.slice(a.length - tail.length))) return "row";
  const last = b.findLastIndex((size) => size !== 1);
  if (b.length === a.length && sameShape(b.slice(0, last + 1), a.slice(0, last + 1))) return "column";
  return null;
}

function gridOf(a: Shape, b: Shape, spread: Spread): { rows: number; cols: number } {
  const all = product(a);
  if (spread === "row") return { rows: product(b) === 0 ? 0 : all / product(b), cols: product(b) };
  if (spread === "column") return { rows: product(b), cols: product(b) === 0 ? 0 : all / product(b) };
  return { rows: 1, cols: all };
}

interface Spreading { spread: Spread; alpha: number }

/** Sums a gradient shaped like the first input down to the second one's. */
function sumInto(step: Backward<Spreading>, from: Operand, alpha: number): void {
  const { spread } = step.attributes;
  const { rows, cols } = gridOf(step.inputs[0]!.shape, step.inputs[1]!.shape, spread);
  const { at, accumulate } = step.into(1);
  const [outer, axis, inner] = spread === "row" ? [1, rows, cols] : spread === "column" ? [rows, cols, 1] : [1, rows * cols, 1];
  emit("reduce", { x: from, y: at, outer, axis, inner, operation: "sum", alpha, accumulate });
}

/** Emits y = alpha * (a OP b) where a is shaped like the first input and b like the second. */
function combine(step: { inputs: readonly Value[]; attributes: Spreading }, operation: Values<"binary">["operation"], a: Operand, b: Operand, y: Operand, alpha: number, accumulate: boolean, spread = step.attributes.spread): void {
  emit("binary", { a, b, y, ...gridOf(step.inputs[0]!.shape, step.inputs[1]!.shape, spread), operation, broadcast: spread, alpha, accumulate });
}

/** The second input's gradient by way of a product shaped like the first input. */
function spreadGradient(step: Backward<Spreading>, make: (at: Operand, accumulate: boolean) => void): void {
  if (!step.needs(1)) return;
  if (step.attributes.spread === "same") {
    const { at, accumulate } = step.into(1);
    make(at, accumulate);
  } else {
    step.temporary(step.inputs[0]!.bytes, (at) => {
      make(at, false);
      sumInto(step, at, 1);
    });
  }
}

function binary(name: string, operation: Values<"binary">["operation"], backward?: (step: Backward<Spreading>) => void): Operation<Spreading> {
  return {
    name,
    shape(inputs) {
      needFloat(name, inputs);
      return inputs[0]!.shape;
    },
    forward: (step) => combine(step, operation, step.at(0), step.at(1), step.y, step.attributes.alpha, false),
    ...(backward === undefined ? {} : { backward }),
  };
}

export const add = binary("add", "add", (step) => {
  step.pass(0);
  if (!step.needs(1)) return;
  if (step.attributes.spread === "same") step.pass(1);
  else sumInto(step, step.dy, 1);
});

export const subtract = binary("sub", "subtract", (step) => {
  step.pass(0);
  if (!step.needs(1)) return;
  if (step.attributes.spread !== "same") return sumInto(step, step.dy, -1);
  const { at, accumulate } = step.into(1);
  emit("unary", { x: step.dy, y: at, count: step.output.numel, operation: "identity", alpha: -1, beta: 0, accumulate });
});

export const multiply = binary("mul", "multiply", (step) => {
  if (step.needs(0)) {
    const { at, accumulate } = step.into(0);
    combine(step, "multiply", step.dy, step.at(1), at, 1, accumulate);
  }
  spreadGradient(step, (at, accumulate) => combine(step, "multiply", step.dy, step.at(0), at, 1, accumulate, "same"));
});

export const divide = binary("div", "divide", (step) => {
  if (step.needs(0)) {
    const { at, accumulate } = step.into(0);
    combine(step, "divide", step.dy, step.at(1), at, 1, accumulate);
  }
  // -dy * y / b
  spreadGradient(step, (at, accumulate) => step.temporary(step.output.bytes, (product) => {
    combine(step, "multiply", step.dy, step.y, product, 1, false, "same");
    combine(step, "divide", product, step.at(1), at, -1, accumulate);
  }));
});

/** The gradient goes to the larger (smaller) one; where both are equal, half to each, as in PyTorch. */
function extreme(name: string, operation: "maximum" | "minimum"): Operation<Spreading> {
  return binary(name, operation, (step) => {
    const bytes = step.output.bytes;
    step.temporary(bytes, (mask) => {
      const [a, b] = [step.at(0), step.at(1)];
      // mask = [a wins] + 1/2 [equal]
      combine(step, "greater", a, b, mask, 1, false);
      if (operation === "minimum") {
        combine(step, "greater_equal", a, b, mask, 1, false);
        emit("unary", { x: mask, y: mask, count: step.output.numel, operation: "identity", alpha: -1, beta: 1 });
      }
      combine(step, "equal", a, b, mask, 0.5, true);
      if (step.needs(0)) {
        const { at, accumulate } = step.into(0);
        combine(step, "multiply", step.dy, mask, at, 1, accumulate, "same");
      }
      emit("unary", { x: mask, y: mask, count: step.output.numel, operation: "identity", alpha: -1, beta: 1 });
      spreadGradient(step, (at, accumulate) => combine(step, "multiply", step.dy, mask, at, 1, accumulate, "same"));
    });
  });
}

export const maximum = extreme("maximum", "maximum");
export const minimum = extreme("minimum", "minimum");

/** Of f32 and i32 in any mixture; i32 counts as the nearest f32, which up to 2^24 is itself. No gradient. */
function comparison(name: string, operation: "greater" | "greater_equal" | "equal"): Operation<Spreading> {
  /** Input `i` as f32. */
  const asFloat = (step: Forward<Spreading>, i: number, use: (at: Operand) => void): void => {
    const input = step.inputs[i]!;
    if (input.dtype === "f32") return use(step.at(i));
    step.temporary(input.bytes, (y) => {
      emit("convert", { x: step.at(i), y, count: input.numel, from: input.dtype, to: "f32" });
      use(y);
    });
  };
  return {
    name,
    shape(inputs) {
      if (inputs.some(({ dtype }) => dtype === "bf16")) refuse(name, inputs, `of type ${inputs.map(({ dtype }) => dtype).join(" and ")}; f32 and i32 can be compared`);
      return inputs[0]!.shape;
    },
    forward: (step) => asFloat(step, 0, (a) => asFloat(step, 1, (b) => combine(step, operation, a, b, step.y, step.attributes.alpha, false))),
  };
}

export const greater = comparison("greater", "greater");
export const greaterEqual = comparison("greaterEqual", "greater_equal");
export const equal = comparison("equal", "equal");

interface Affine { name: "add" | "sub" | "mul" | "div" | "neg" | "clone"; alpha: number; beta: number }

/** alpha * x + beta */
export const affine: Operation<Affine> = {
  name: "affine",
  label: ({ name }) => name,
  shape(inputs, { name }) {
    needFloat(name, inputs);
    return inputs[0]!.shape;
  },
  forward: (step) => unary("identity", step.at(0), step.y, step.output.numel, step.attributes.alpha, step.attributes.beta),
  backward(step) {
    const { at, accumulate } = step.into(0);
    unary("identity", step.dy, at, step.output.numel, step.attributes.alpha, 0, accumulate);
  },
};

function unary(operation: Values<"unary">["operation"], x: Operand, y: Operand, count: number, alpha = 1, beta = 0, accumulate = false): void {
  emit("unary", { x, y, count, operation, alpha, beta, accumulate });
}

/** y = f(x); `slope` puts f'(x) into its place, from x or y. */
function pointwise(name: string, operation: Values<"unary">["operation"], slope: (x: Operand, y: Operand, into: Operand, count: number) => void): Operation<null> {
  return {
    name,
    shape(inputs) {
      needFloat(name, inputs);
      return inputs[0]!.shape;
    },
    forward: (step) => unary(operation, step.at(0), step.y, step.output.numel),
    backward(step) {
      const count = step.output.numel;
      step.temporary(step.output.bytes, (at) => {
        slope(step.at(0), step.y, at, count);
        const target = step.into(0);
        emit("binary", { a: step.dy, b: at, y: target.at, rows: 1, cols: count, operation: "multiply", broadcast: "same", alpha: 1, accumulate: target.accumulate });
      });
    },
  };
}

export const absolute = pointwise("abs", "absolute", (x, _, into, count) => unary("sign", x, into, count));
export const square = pointwise("square", "square", (x, _, into, count) => unary("identity", x, into, count, 2));
export const sqrt = pointwise("sqrt", "sqrt", (_, y, into, count) => unary("reciprocal", y, into, count, 0.5));
export const exp = pointwise("exp", "exp", (_, y, into, count) => unary("identity", y, into, count));
export const log = pointwise("log", "log", (x, _, into, count) => unary("reciprocal", x, into, count));
export const reciprocal = pointwise("reciprocal", "reciprocal", (_, y, into, count) => unary("square", y, into, count, -1));
export const rsqrt = pointwise("rsqrt", "rsqrt", (x, y, into, count) => {
  // -1/2 y^3 = -1/2 y / x
  emit("binary", { a: y, b: x, y: into, rows: 1, cols: count, operation: "divide", broadcast: "same", alpha: -0.5 });
});

interface Activating { activation: ActivationName }

/** act(x), or act(x) * up with a second input. */
export const activate: Operation<Activating> = {
  name: "activation",
  label: ({ activation }) => activation,
  shape(inputs, { activation }) {
    checkActivation("activate", inputs, activation);
    needFloat(activation, inputs);
    if (inputs.length === 2 && !sameShape(inputs[0]!.shape, inputs[1]!.shape)) refuse(`${activation} gate`, inputs, "gate and up must have the same shape");
    return inputs[0]!.shape;
  },
  forward(step) {
    const width = step.output.shape.at(-1) ?? 1;
    const rows = width === 0 ? 0 : step.output.numel / width;
    const strides = { x_stride: width, up_stride: width, y_stride: width };
    emit("activate", { x: step.at(0), up: step.inputs.length === 2 ? step.at(1) : null, y: step.y, rows, width, ...strides, activation: step.attributes.activation });
  },
  backward(step) {
    const width = step.output.shape.at(-1) ?? 1;
    const rows = width === 0 ? 0 : step.output.numel / width;
    const common = { x: step.at(0), dy: step.dy, rows, width, x_stride: width, up_stride: width, y_stride: width, activation: step.attributes.activation };
    if (step.inputs.length === 1) {
      const { at, accumulate } = step.into(0);
      emit("activate_backward", { ...common, dx: at, accumulate });
    } else step.write([0, 1], ([dx, dup]) => emit("activate_backward", { ...common, up: step.at(1), dx, dup }));
  },
};

/** act(gate) * up with gate and up side by side in each row: (..., 2n) -> (..., n). */
export const gatedPacked: Operation<Activating> = {
  name: "gatedPacked",
  shape(inputs, { activation }) {
    checkActivation("gatedPacked", inputs, activation);
    needFloat("gatedPacked", inputs);
    const [x] = inputs as [Value];
    const width = x.shape.at(-1);
    if (width === undefined || width % 2 !== 0) refuse("gatedPacked", inputs, "the last axis holds gate and up, so it must be even");
    return [...x.shape.slice(0, -1), width / 2];
  },
  forward(step) {
    const { at, width, rows } = halves(step.inputs[0]!, step.at(0));
    emit("activate", { x: at[0], up: at[1], y: step.y, rows, width, x_stride: 2 * width, up_stride: 2 * width, y_stride: width, activation: step.attributes.activation });
  },
  backward(step) {
    const x = halves(step.inputs[0]!, step.at(0));
    const { at, accumulate } = step.into(0);
    const dx = halves(step.inputs[0]!, at);
    emit("activate_backward", {
      x: x.at[0], up: x.at[1], dy: step.dy, dx: dx.at[0], dup: dx.at[1], rows: x.rows, width: x.width,
      x_stride: 2 * x.width, up_stride: 2 * x.width, y_stride: x.width, activation: step.attributes.activation, accumulate,
    });
  },
};

function halves(value: Value, at: Operand): { at: [Operand, Operand]; width: number; rows: number } {
  const width = value.shape.at(-1)! / 2;
  return { at: [at, beyond(at, 4 * width)], width, rows: width === 0 ? 0 : value.numel / (2 * width) };
}

interface Dropping { p: number; random: Pick<Values<"dropout">, "seed" | "stream" | "first_step" | "step"> }

export const dropout: Operation<Dropping> = {
  name: "dropout",
  shape(inputs, { p }) {
    needFloat("dropout", inputs);
    if (!(p >= 0 && p <= 1)) refuse("dropout", inputs, `p = ${p} is not a probability`);
    return inputs[0]!.shape;
  },
  forward: (step) => emit("dropout", { x: step.at(0), y: step.y, count: step.output.numel, p: step.attributes.p, ...step.attributes.random }),
  backward(step) {
    const { at, accumulate } = step.into(0);
    emit("dropout", { x: step.dy, y: at, count: step.output.numel, p: step.attributes.p, ...step.attributes.random, accumulate });
  },
};

/** The randomness of one dropout call; in a program the step comes from memory that each run rewrites. */
export function nextRandom(): Dropping["random"] {
  const { seed, step, stream } = randomStream();
  const recorder = capturing();
  return recorder === null ? { seed, stream, first_step: step } : { seed, stream, first_step: 0, step: recorder.stepNumber() };
}

/** Another type: f32 <-> bf16, i32 -> f32. Gradients are f32. */
export const convert: Operation<{ to: DtypeName }> = {
  name: "to",
  shape(inputs, { to }) {
    const from = inputs[0]!.dtype;
    if (!(from === "f32" && to === "bf16") && to !== "f32") refuse("to", inputs, `${from} cannot become ${to}; f32 to bf16 and any to f32 can`);
    return inputs[0]!.shape;
  },
  dtype: (_, { to }) => to,
  forward: (step) => emit("convert", { x: step.at(0), y: step.y, count: step.output.numel, from: step.inputs[0]!.dtype, to: step.attributes.to }),
  backward: (step) => step.pass(0),
};
