// The op table, part two: shapes (views, transposes, slices, joins, broadcasts) and reductions over an axis.
// Not the kernels (kernels/float/elementwise.zig: copy; reduce.zig). Read next: ops-model.ts.
import type { Operand, Values } from "../native/instructions.ts";
import { emit } from "./device.ts";
import { beyond } from "./memory.ts";
import { needFloat } from "./ops-elementwise.ts";
import { refuse, type Backward, type Operation } from "./tape.ts";
import { bytesOf, product, type Shape, type Value } from "./value.ts";

/** Strides of a dense array, in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= Math.max(shape[i]!, 1);
  }
  return strides;
}

/** Dimensions that a copy instruction has. */
const rank_max = 6;

/** Emits a copy of up to six dimensions. */
export function emitCopy(x: Operand, y: Operand, sizes: Shape, x_strides: readonly number[], y_strides: readonly number[], dtype: Values<"copy">["dtype"], accumulate = false): void {
  const pad = <T>(list: readonly T[], fill: T): T[] => [...new Array<T>(rank_max - list.length).fill(fill), ...list];
  emit("copy", { x, y, sizes: pad(sizes, 1), x_strides: pad(x_strides, 0), y_strides: pad(y_strides, 0), dtype, accumulate });
}

/** The same numbers in another shape of as many elements. No copy. */
export const reshape: Operation<{ shape: Shape }> = {
  name: "reshape",
  shape(inputs, { shape }) {
    if (product(shape) !== inputs[0]!.numel) refuse("reshape", inputs, `${inputs[0]!.numel} elements do not fit (${shape.join(", ")})`);
    return shape;
  },
  dtype: (inputs) => inputs[0]!.dtype,
  view: (inputs) => inputs[0]!,
  backward: (step) => step.pass(0),
};

/** Axes in another order. */
export const permute: Operation<{ axes: readonly number[] }> = {
  name: "permute",
  shape(inputs, { axes }) {
    const [x] = inputs;
    if (x!.shape.length > rank_max) refuse("permute", inputs, `more than ${rank_max} axes`);
    if ([...axes].sort((a, b) => a - b).join() !== x!.shape.map((_, i) => i).join()) refuse("permute", inputs, `(${axes.join(", ")}) is not an order of its axes`);
    return axes.map((axis) => x!.shape[axis]!);
  },
  dtype: (inputs) => inputs[0]!.dtype,
  forward(step) {
    const from = stridesOf(step.inputs[0]!.shape);
    emitCopy(step.at(0), step.y, step.output.shape, step.attributes.axes.map((axis) => from[axis]!), stridesOf(step.output.shape), step.output.dtype);
  },
  backward(step) {
    const to = stridesOf(step.inputs[0]!.shape);
    const { at, accumulate } = step.into(0);
    emitCopy(step.dy, at, step.output.shape, stridesOf(step.output.shape), step.attributes.axes.map((axis) => to[axis]!), "f32", accumulate);
  },
};

/** (outer, axis, inner) around an axis. */
export function around(shape: Shape, axis: number): { outer: number; axis: number; inner: number } {
  return { outer: product(shape.slice(0, axis)), axis: shape[axis]!, inner: product(shape.slice(axis + 1)) };
}

/** Elements start .. start + length of an axis. */
export const narrow: Operation<{ axis: number; start: number; length: number }> = {
  name: "narrow",
  shape(inputs, { axis, start, length }) {
    const size = inputs[0]!.shape[axis];
    if (size === undefined || ![start, length].every((n) => Number.isInteger(n) && n >= 0) || start + length > size) {
      refuse("narrow", inputs, `${start} .. ${start + length} is not within axis ${axis}`);
    }
    return inputs[0]!.shape.with(axis, length);
  },
  dtype: (inputs) => inputs[0]!.dtype,
  forward(step) {
    const { axis, start, length } = step.attributes;
    const whole = around(step.inputs[0]!.shape, axis);
    const from = beyond(step.at(0), start * whole.inner * bytesOf(step.output.dtype));
    emitCopy(from, step.y, [whole.outer, length * whole.inner], [whole.axis * whole.inner, 1], [length * whole.inner, 1], step.output.dtype);
  },
  backward(step) {
    const { axis, start, length } = step.attributes;
    const whole = around(step.inputs[0]!.shape, axis);
    const { at, accumulate } = step.into(0);
    if (!accumulate) emit("fill", { y: at, count: step.inputs[0]!.numel, value: 0 });
    emitCopy(step.dy, beyond(at, 4 * start * whole.inner), [whole.outer, length * whole.inner], [length * whole.inner, 1], [whole.axis * whole.inner, 1], "f32", true);
  },
};

/** Tensors one after the other along an axis. */
export const join: Operation<{ axis: number }> = {
  name: "cat",
  shape(inputs, { axis }) {
    const first = inputs[0];
    if (first === undefined) refuse("cat", inputs, "there is nothing to join");
    for (const input of inputs) {
      if (input.dtype !== first.dtype) refuse("cat", inputs, `of type ${first.dtype} and ${input.dtype}`);
      if (input.shape.length !== first.shape.length || input.shape.some((size, i) => i !== axis && size !== first.shape[i])) refuse("cat", [first, input], `shapes must agree but for axis ${axis}`);
    }
    return first.shape.with(axis, inputs.reduce((sum, { shape }) => sum + shape[axis]!, 0));
  },
  dtype: (inputs) => inputs[0]!.dtype,
  forward(step) {
    const whole = around(step.output.shape, step.attributes.axis);
    let start = 0;
    step.inputs.forEach((input, i) => {
      const length = input.shape[step.attributes.axis]! * whole.inner;
      emitCopy(step.at(i), beyond(step.y, start * bytesOf(step.output.dtype)), [whole.outer, length], [length, 1], [whole.axis * whole.inner, 1], step.output.dtype);
      start += length;
    });
  },
  backward(step) {
    const whole = around(step.output.shape, step.attributes.axis);
    let start = 0;
    step.inputs.forEach((input, i) => {
      const length = input.shape[step.attributes.axis]! * whole.inner;
      if (step.needs(i)) {
        const { at, accumulate } = step.into(i);
        emitCopy(beyond(step.dy, 4 * start), at, [whole.outer, length], [whole.axis * whole.inner, 1], [length, 1], "f32", accumulate);
      }
      start += length;
    });
  },
};

/** Axes of size 1 (and missing axes in front) repeated to a shape. */
export const expand: Operation<{ shape: Shape }> = {
  name: "expand",
  shape(inputs, { shape }) {
    const [x] = inputs;
    const missing = shape.length - x!.shape.length;
    if (missing < 0 || x!.shape.some((size, i) => size !== 1 && size !== shape[i + missing])) refuse("expand", inputs, `cannot be repeated to (${shape.join(", ")})`);
    if (shape.length > rank_max) refuse("expand", inputs, `more than ${rank_max} axes`);
    return shape;
  },
  dtype: (inputs) => inputs[0]!.dtype,
  forward(step) {
    const { shape } = step.attributes;
    const from = step.inputs[0]!.shape;
    const missing = shape.length - from.length;
    const strides = stridesOf(from);
    emitCopy(step.at(0), step.y, shape, shape.map((_, i) => (i < missing || from[i - missing] === 1 ? 0 : strides[i - missing]!)), stridesOf(shape), step.output.dtype);
  },
  backward(step) {
    const { shape } = step.attributes;
    if (repeatedAxes(step.inputs[0]!.shape, shape).length === 0) step.pass(0);
    else sumRepeated(step, 0, step.dy, shape);
  },
};

/** Axes of `shape` along which a value of shape `from` is repeated. */
export function repeatedAxes(from: Shape, shape: Shape): number[] {
  const missing = shape.length - from.length;
  return shape.flatMap((size, i) => (size !== 1 && (i < missing || from[i - missing] === 1) ? [i] : []));
}

/** Gives input `i`, which was repeated to `shape`, the sums of a gradient of that shape. One axis is summed at a time, from the front; the last sum goes to the gradient itself. */
export function sumRepeated(step: Backward<unknown>, i: number, gradient: Operand, shape: Shape): void {
  const sumFrom = (x: Operand, left: Shape, rest: readonly number[]): void => {
    const [axis, ...others] = rest as [number, ...number[]];
    const grid = around(left, axis);
    const summed = left.with(axis, 1);
    const sum = (y: Operand, accumulate: boolean): void => emit("reduce", { x, y, ...grid, operation: "sum", alpha: 1, accumulate });
    if (others.length === 0) {
      const { at, accumulate } = step.into(i);
      sum(at, accumulate);
    } else {
      step.temporary(4 * product(summed), (at) => {
        sum(at, false);
        sumFrom(at, summed, others);
      });
    }
  };
  sumFrom(gradient, shape, repeatedAxes(step.inputs[i]!.shape, shape));
}

interface Reducing { operation: "sum" | "mean" | "max" | "sumsq"; axis: number | null }

function reducedGrid(shape: Shape, axis: number | null): { outer: number; axis: number; inner: number } {
  return axis === null ? { outer: 1, axis: product(shape), inner: 1 } : around(shape, axis);
}

function reducedShape(name: Reducing["operation"] | "argmax", inputs: readonly Value[], axis: number | null): Shape {
  needFloat(name, inputs);
  const { shape } = inputs[0]!;
  if (axis !== null && shape[axis] === undefined) refuse(name, inputs, `there is no axis ${axis}`);
  if (name.endsWith("max") && reducedGrid(shape, axis).axis === 0) refuse(name, inputs, "nothing has no largest element");
  return axis === null ? [] : shape.toSpliced(axis, 1);
}

/** Sum, mean, largest or sum of squares along an axis, which goes away; axis null: of all. */
export const reduce: Operation<Reducing> = {
  name: "reduce",
  label: ({ operation }) => operation,
  shape: (inputs, { operation, axis }) => reducedShape(operation, inputs, axis),
  forward(step) {
    const { operation, axis } = step.attributes;
    const grid = reducedGrid(step.inputs[0]!.shape, axis);
    const index = operation === "max" && step.recording ? step.save("index", 4 * step.output.numel) : null;
    emit("reduce", { x: step.at(0), y: step.y, index, ...grid, operation, alpha: 1 });
  },
  backward(step) {
    const { operation, axis } = step.attributes;
    const grid = reducedGrid(step.inputs[0]!.shape, axis);
    const { at, accumulate } = step.into(0);
    emit("reduce_backward", {
      dy: step.dy, x: operation === "sumsq" ? step.at(0) : null, index: operation === "max" ? step.saved("index") : null, dx: at, ...grid, operation, alpha: 1, accumulate,
    });
  },
};

/** Position of the first largest along an axis, i32. */
export const argmax: Operation<{ axis: number | null }> = {
  name: "argmax",
  shape: (inputs, { axis }) => reducedShape("argmax", inputs, axis),
  dtype: () => "i32",
  forward: (step) => step.temporary(step.output.bytes, (y) =>
    emit("reduce", { x: step.at(0), y, index: step.y, ...reducedGrid(step.inputs[0]!.shape, step.attributes.axis), operation: "max", alpha: 1 })),
};
