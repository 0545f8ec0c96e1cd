// The Tensor that users hold: PyTorch's names over the op table. Also parameters, and tensors of given numbers.
// Not the operations (ops-*.ts) and not the tape (tape.ts). Read next: make.ts, functional.ts (the same as functions, and more).
import { EggError } from "../errors.ts";
import type { ActivationName, DtypeName } from "../native/instructions.ts";
import { capturing } from "./device.ts";
import * as element from "./ops-elementwise.ts";
import * as model from "./ops-model.ts";
import * as shapes from "./ops-shape.ts";
import { apply, backward, leafGradients, refuse, type Operation } from "./tape.ts";
import { checkShape, checkType, emptyData, encode, makePersistent, narrow, product, readGradient, releasePersistent, render, sameShape, setFresh, show, Value, type Data, type Shape } from "./value.ts";

type Nested = number | readonly Nested[];
/** f32 for numbers, i32 for token numbers and labels, bf16 for storing weights and for the inputs of products. */
export type Dtype = DtypeName;

export interface TensorOptions {
  /** Where the data is flat; its size otherwise. */
  shape?: Shape;
  dtype?: Dtype;
  /** Whether backward() gives it a gradient; f32 only. */
  requiresGrad?: boolean;
  /** The only one there is. */
  device?: "cpu";
}

/** Numbers in a shape; operations on them are remembered where they lead back to tensors that require gradients. */
export class Tensor extends Value {
  readonly device = "cpu";

  // ---- values

  /** Shape, type and numbers, of long axes the first and last few. */
  override toString(): string {
    const readable = capturing() === null && (this.data !== null || (!this.died && this.buffer !== null && this.buffer.block !== null));
    return `Tensor ${show(this.shape)} ${this.dtype} ${readable ? render(this.read("toString"), this.shape) : "(no numbers to read)"}`;
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /** Nested arrays, as toList(). */
  toJSON(): Nested {
    return this.toList();
  }

  /** The only number of a tensor of one element. */
  item(): number {
    if (this.numel !== 1) throw new EggError("usage", `[tensor] item: a tensor ${show(this.shape)} has ${this.numel} elements, not one.`, { hint: "Use toArray()." });
    return this.read("item")[0]!;
  }

  /** All numbers, flat and row-major, as a copy; bf16 as f32. */
  toArray(): Float32Array | Int32Array {
    return this.read("toArray");
  }

  /** All numbers as nested arrays. */
  toList(): Nested {
    const values = this.read("toList");
    let at = 0;
    const build = (axis: number): Nested => (axis === this.shape.length ? values[at++]! : Array.from({ length: this.shape[axis]! }, () => build(axis + 1)));
    return build(0);
  }

  /** The sum of all gradients since zeroGrad, as a copy in the tensor's shape, f32; null where there is none. */
  get grad(): Tensor | null {
    if (this.isPersistent) return this.gradient === null || this.gradient.fresh ? null : holding(readGradient(this), this.shape, {});
    const found = leafGradients.get(this);
    return found === undefined ? null : tensor(found, { shape: this.shape });
  }

  /** Forgets the gradients. No memory is touched: the next backward writes instead of adding. */
  zeroGrad(): void {
    if (this.isPersistent) setFresh(this, true);
    else leafGradients.delete(this);
  }

  /**
   * Adds this tensor's gradients to every leaf that requires them. Ends the step: all results die; of a single number the value stays.
   * @param gradient of this tensor; may be left out for a single number
   */
  backward(gradient?: Tensor): void {
    backward(this, gradient);
  }

  /** The same numbers without history. */
  detach(): Tensor {
    this.checkAlive("detach");
    const copy = new Tensor(this.shape, this.dtype);
    copy.data = this.data;
    copy.buffer = this.buffer;
    copy.scope = this.scope;
    copy.origin = this.origin;
    if (this.buffer !== null && this.scope !== null) this.buffer.users++;
    return copy;
  }

  /** The same numbers in memory of their own; gradients flow back. */
  clone(): Tensor {
    return this.dtype === "f32" ? this.#affine("clone", 1, -0) : this.permute(...this.shape.keys());
  }

  /** In another type; `"cpu"` is where every tensor is. */
  to(target: Dtype | "cpu"): Tensor {
    if (target === "cpu" || target === this.dtype) return this;
    if (!["f32", "bf16", "i32"].includes(target)) refuse("to", [this], `${JSON.stringify(target)} is neither a type (f32, bf16, i32) nor an available device (only "cpu")`);
    return run(element.convert, [this], { to: target });
  }

  // ---- element by element

  /** alpha * x + beta; a beta of -0 keeps the sign of zeros. */
  #affine(name: "add" | "sub" | "mul" | "div" | "neg" | "clone", alpha: number, beta: number): Tensor {
    return run(element.affine, [this], { name, alpha, beta });
  }

  /** this + other, f32. Shapes broadcast as in PyTorch, here and in all that follow up to `equal`. @throws EggError("usage") where they do not fit */
  add(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("add", 1, other) : spread(element.add, this, other, true);
  }
  /** this - other. */
  sub(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("sub", 1, -other) : spread(element.subtract, this, other);
  }
  /** this * other, element by element. */
  mul(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("mul", other, -0) : spread(element.multiply, this, other, true);
  }
  /** this / other, correctly rounded. */
  div(other: Tensor | number): Tensor {
    if (typeof other !== "number") return spread(element.divide, this, other);
    return hasExactReciprocal(other) ? this.#affine("div", 1 / other, -0) : spread(element.divide, this, tensor(other));
  }
  /** The larger of each two; where both are equal, each gets half the gradient. */
  maximum(other: Tensor | number): Tensor {
    return spread(element.maximum, this, asTensor(other), true);
  }
  /** The smaller of each two, likewise. */
  minimum(other: Tensor | number): Tensor {
    return spread(element.minimum, this, asTensor(other), true);
  }
  /** 1 where this is greater, else 0. No gradient. */
  greater(other: Tensor | number): Tensor {
    return spread(element.greater, this, asTensor(other));
  }
  /** 1 where this is not less, else 0. No gradient. */
  greaterEqual(other: Tensor | number): Tensor {
    return spread(element.greaterEqual, this, asTensor(other));
  }
  /** 1 where both are the same number, else 0: element by element, as PyTorch's eq. No gradient. */
  equal(other: Tensor | number): Tensor {
    return spread(element.equal, this, asTensor(other));
  }
  /** -x */
  neg(): Tensor {
    return this.#affine("neg", -1, -0);
  }
  /** |x|; its gradient at 0 is 0. */
  abs(): Tensor {
    return run(element.absolute, [this], null);
  }
  /** x x */
  square(): Tensor {
    return run(element.square, [this], null);
  }
  /** The square root; NaN of what is below 0. */
  sqrt(): Tensor {
    return run(element.sqrt, [this], null);
  }
  /** 1 / sqrt(x) */
  rsqrt(): Tensor {
    return run(element.rsqrt, [this], null);
  }
  /** 1 / x */
  reciprocal(): Tensor {
    return run(element.reciprocal, [this], null);
  }
  /** e to the power of x. */
  exp(): Tensor {
    return run(element.exp, [this], null);
  }
  /** The natural logarithm. */
  log(): Tensor {
    return run(element.log, [this], null);
  }
  /** An activation by its name; "none" gives the tensor itself. @throws EggError("usage") for a name that is none */
  activate(activation: ActivationName): Tensor {
    return activation === "none" ? this : run(element.activate, [this], { activation });
  }
  /** max(x, 0); its gradient at 0 is 0. */
  relu(): Tensor {
    return this.activate("relu");
  }
  /** x times the normal distribution's share below x, in its tanh form. */
  gelu(): Tensor {
    return this.activate("gelu");
  }
  /** x sigmoid(x) */
  silu(): Tensor {
    return this.activate("silu");
  }
  /** 1 / (1 + e^-x) */
  sigmoid(): Tensor {
    return this.activate("sigmoid");
  }
  /** The hyperbolic tangent. */
  tanh(): Tensor {
    return this.activate("tanh");
  }

  // ---- products and reductions

  /** (..., m, k) times (..., k, n); with `transposeA` this is (..., k, m), with `transposeB` other is (..., n, k). */
  matmul(other: Tensor, options: { transposeA?: boolean; transposeB?: boolean } = {}): Tensor {
    return run(model.matmul, [this, other], { ta: options.transposeA ?? false, tb: options.transposeB ?? false, compute: computing });
  }

  /** The sum along an axis (negative: from the last), or of all; `keep`: the axis stays, of size 1. @throws EggError("usage") where there is no such axis */
  sum(axis?: number, keep = false): Tensor {
    return this.#reduce("sum", axis, keep);
  }
  /** The mean, likewise. */
  mean(axis?: number, keep = false): Tensor {
    return this.#reduce("mean", axis, keep);
  }
  /** The largest, likewise. The gradient goes to the first of equals. @throws EggError("usage") also where there is none */
  max(axis?: number, keep = false): Tensor {
    return this.#reduce("max", axis, keep);
  }
  /** The sum of x x, likewise. */
  sumOfSquares(axis?: number, keep = false): Tensor {
    return this.#reduce("sumsq", axis, keep);
  }
  /** Position of the first largest along an axis, or of all (flat), i32. No gradient. */
  argmax(axis?: number): Tensor {
    return run(shapes.argmax, [this], { axis: axis === undefined ? null : this.#axis("argmax", axis) });
  }

  #reduce(operation: "sum" | "mean" | "max" | "sumsq", axis: number | undefined, keep: boolean): Tensor {
    const place = axis === undefined ? null : this.#axis(operation, axis);
    const result = run(shapes.reduce, [this], { operation, axis: place });
    return keep ? result.reshape(...(place === null ? this.shape.map(() => 1) : this.shape.with(place, 1))) : result;
  }

  /** e^x over its sum along an axis. The last axis is the fast one. */
  softmax(axis = -1): Tensor {
    return this.#last("softmax", axis, (x) => run(model.softmax, [x], { mode: "softmax" }));
  }
  /** The logarithm of softmax, computed without overflow. */
  logSoftmax(axis = -1): Tensor {
    return this.#last("logSoftmax", axis, (x) => run(model.softmax, [x], { mode: "log" }));
  }

  /** Does something to the last axis that is wanted of another one. */
  #last(name: string, axis: number, action: (x: Tensor) => Tensor): Tensor {
    const place = this.#axis(name, axis);
    return place === this.shape.length - 1 ? action(this) : action(this.transpose(place, -1)).transpose(place, -1);
  }

  // ---- shapes

  #axis(name: string, axis: number): number {
    const place = axis < 0 ? axis + this.shape.length : axis;
    if (!Number.isInteger(place) || place < 0 || place >= this.shape.length) refuse(name, [this], `there is no axis ${axis}`);
    return place;
  }

  /** The same numbers in another shape; one size may be -1. No copy. @throws EggError("usage") where they do not fit */
  reshape(...sizes: number[]): Tensor {
    const open = sizes.indexOf(-1);
    const rest = product(sizes.filter((_, i) => i !== open));
    const shape = open < 0 ? sizes : sizes.with(open, rest === 0 ? 0 : this.numel / rest);
    if (!shape.every(Number.isInteger)) refuse("reshape", [this], `${this.numel} elements do not fit (${sizes.join(", ")})`);
    return run(shapes.reshape, [this], { shape });
  }
  /** The same as reshape. */
  view(...sizes: number[]): Tensor {
    return this.reshape(...sizes);
  }
  /** Joins the axes from `start` on into one. No copy. */
  flatten(start = 0): Tensor {
    const first = this.shape.length === 0 ? 0 : this.#axis("flatten", start);
    return this.reshape(...this.shape.slice(0, first), product(this.shape.slice(first)));
  }
  /** Without an axis of size 1. No copy. */
  squeeze(axis: number): Tensor {
    const place = this.#axis("squeeze", axis);
    if (this.shape[place] !== 1) refuse("squeeze", [this], `axis ${axis} is not of size 1`);
    return this.reshape(...this.shape.toSpliced(place, 1));
  }
  /** With an axis of size 1 before `axis`; -1: at the end. No copy. */
  unsqueeze(axis: number): Tensor {
    const place = axis < 0 ? axis + this.shape.length + 1 : axis;
    if (!Number.isInteger(place) || place < 0 || place > this.shape.length) refuse("unsqueeze", [this], `there is no place ${axis} for an axis`);
    return this.reshape(...this.shape.toSpliced(place, 0, 1));
  }
  /** The axes in another order: a copy. At most six. */
  permute(...axes: number[]): Tensor {
    return run(shapes.permute, [this], { axes: axes.map((axis) => this.#axis("permute", axis)) });
  }
  /** Two axes exchanged: a copy. */
  transpose(a: number, b: number): Tensor {
    const [first, second] = [this.#axis("transpose", a), this.#axis("transpose", b)];
    return this.permute(...[...this.shape.keys()].with(first, second).with(second, first));
  }
  /** Elements start .. start + length of an axis: a copy. */
  narrow(axis: number, start: number, length: number): Tensor {
    return run(shapes.narrow, [this], { axis: this.#axis("narrow", axis), start, length });
  }
  /** Axes of size 1, and missing ones in front, repeated to a shape: a copy. */
  expand(...sizes: number[]): Tensor {
    return sameShape(sizes, this.shape) ? this : run(shapes.expand, [this], { shape: sizes });
  }
}

/** Applies an operation to tensors. */
export function run<A>(operation: Operation<A>, inputs: readonly Tensor[], attributes: A): Tensor {
  return apply((shape, dtype) => new Tensor(shape, dtype), operation, inputs, attributes);
}

/** Powers of two: dividing by one is multiplying by another. */
const hasExactReciprocal = (divisor: number): boolean => {
  const exponent = Math.log2(Math.abs(divisor));
  return Number.isInteger(exponent) && Math.abs(exponent) < 126;
};

function asTensor(value: Tensor | number): Tensor {
  return typeof value === "number" ? tensor(value) : value;
}

/** A binary operation with PyTorch's broadcasting. */
function spread(operation: Operation<{ spread: element.Spread; alpha: number }>, a: Tensor, b: Tensor, commutes = false): Tensor {
  const known = element.spreadOf(a.shape, b.shape);
  if (known !== null) return run(operation, [a, b], { spread: known, alpha: 1 });
  if (commutes) {
    const turned = element.spreadOf(b.shape, a.shape);
    if (turned !== null) return run(operation, [b, a], { spread: turned, alpha: 1 });
  }
  const length = Math.max(a.shape.length, b.shape.length);
  const shape = Array.from({ length }, (_, i) => {
    const [x, y] = [a.shape.at(i - length) ?? 1, b.shape.at(i - length) ?? 1];
    if (x !== y && x !== 1 && y !== 1) refuse(operation.name, [a, b], `sizes ${x} and ${y} of an axis differ, and neither is 1`);
    return x === 1 ? y : x;
  });
  const whole = a.expand(...shape);
  const rest = element.spreadOf(shape, b.shape);
  return run(operation, [whole, rest === null ? b.expand(...shape) : b], { spread: rest ?? "same", alpha: 1 });
}

// ---- products in bf16

let computing: "f32" | "bf16" = "f32";

/** Runs `action` with matrix products that round their inputs to bf16 (sums stay f32), or in f32. @throws EggError("usage") for another type */
export function computeIn<T>(dtype: "f32" | "bf16", action: () => T): T {
  if (dtype !== "f32" && dtype !== "bf16") throw new EggError("usage", `[tensor] computeIn: ${JSON.stringify(dtype)} is not a type of products; allowed are f32, bf16.`);
  const before = computing;
  computing = dtype;
  try {
    return action();
  } finally {
    computing = before;
  }
}

/** What computeIn says now. */
export function computeType(): "f32" | "bf16" {
  return computing;
}

// ---- making tensors

const isList = (data: unknown): data is readonly Nested[] => Array.isArray(data) || ArrayBuffer.isView(data);

function flattenInto(data: Nested, shape: Shape, axis: number, out: number[]): void {
  if (typeof data === "number") {
    if (axis !== shape.length) throw new EggError("usage", `[tensor] tensor: a number where a list of ${shape[axis]} was expected.`);
    out.push(data);
  } else {
    if (!isList(data)) throw new EggError("usage", `[tensor] tensor: ${(data as unknown) instanceof Tensor ? "a tensor" : String(data)} where a number or a list was expected.`);
    if (data.length !== shape[axis]) throw new EggError("usage", `[tensor] tensor: a list of ${data.length} where ${shape[axis] ?? "a number"} was expected; all rows must be equally long.`);
    for (const part of data) flattenInto(part, shape, axis + 1, out);
  }
}

/** @throws EggError("usage") for a type or device that is none */
export function checkOptions(op: string, { dtype, device }: { dtype?: string; device?: string }): void {
  if (device !== undefined && device !== "cpu") throw new EggError("usage", `[tensor] ${op}: device ${JSON.stringify(device)} is not available; found only "cpu".`);
  if (dtype !== undefined) checkType(op, dtype);
}

const typeOf = (data: Data): Dtype => (data instanceof Int32Array ? "i32" : data instanceof Uint16Array ? "bf16" : "f32");

/**
 * A tensor from a copy of numbers. Float32Array gives f32, Int32Array i32, Uint16Array bf16 (as bits); others f32, or `dtype`.
 * @throws EggError("usage") for rows of different length, a shape that does not fit, or a number that i32 cannot hold
 */
export function tensor(data: Nested | Data, options: TensorOptions = {}): Tensor {
  checkOptions("tensor", options);
  const typed = data instanceof Float32Array || data instanceof Int32Array || data instanceof Uint16Array;
  const own = typed ? typeOf(data) : "f32";
  let shape: number[] = [];
  let values: Data;
  if (typed) {
    shape = [data.length];
    values = emptyData(own, data.length);
    values.set(data);
    if (options.dtype !== undefined && options.dtype !== own) throw new EggError("usage", `[tensor] tensor: ${data.constructor.name} holds ${own}, not ${options.dtype}.`);
  } else {
    for (let part: Nested | undefined = data as Nested; isList(part); part = part[0]) shape.push(part.length);
    const flat: number[] = [];
    flattenInto(data as Nested, shape, 0, flat);
    values = encode("tensor", options.dtype ?? "f32", flat);
  }
  const wanted = options.shape ?? shape;
  checkShape("tensor", wanted);
  if (product(wanted) !== values.length) throw new EggError("usage", `[tensor] tensor: ${values.length} numbers do not fill ${show(wanted)}.`);
  return holding(values, wanted, options);
}

/** A tensor of numbers that nobody else writes to. */
export function holding(values: Data, shape: Shape, { requiresGrad = false }: TensorOptions): Tensor {
  const made = new Tensor([...shape], typeOf(values));
  made.data = values;
  return withGradients(made, requiresGrad);
}

function withGradients<T extends Tensor>(made: T, requires: boolean): T {
  if (requires && made.dtype !== "f32") throw new EggError("usage", `[tensor] a ${made.dtype} tensor cannot require gradients; f32 ones can.`);
  made.requiresGrad = requires;
  return made;
}

/** A tensor in native memory until `release`: weights with gradients, or state such as a key-value cache. */
export class Parameter extends Tensor {
  /**
   * @param data the first numbers; null: zeros
   * @param options dtype: that of `data` where not given. A bf16 parameter has no gradient: it is for weights that are only used.
   */
  constructor(data: Data | Tensor | null, shape: Shape, options: Omit<TensorOptions, "shape"> = {}) {
    checkShape("Parameter", shape);
    checkOptions("Parameter", options);
    super([...shape], options.dtype ?? (data === null ? "f32" : data instanceof Tensor ? data.dtype : typeOf(data)));
    if (capturing() !== null) throw new EggError("usage", "[tensor] Parameter: make parameters before a program is captured.");
    withGradients(this, options.requiresGrad ?? this.dtype === "f32");
    if (data instanceof Tensor && !sameShape(data.shape, shape)) refuse("Parameter", [this, data], "shapes must be the same");
    const numbers = data === null ? null : this.#numbersOf("Parameter", data);
    if (numbers !== null) this.checkFits("Parameter", numbers);
    makePersistent(this);
    this.origin = { op: "Parameter", shapes: [] };
    if (numbers !== null) this.write("Parameter", numbers);
  }

  /**
   * Overwrites the numbers. f32 for a bf16 parameter is rounded to nearest even; bf16 for an f32 one keeps its value.
   * @throws EggError("usage") for another shape, or a type that does not go into this one
   */
  copy_(data: Data | Tensor): this {
    if (data instanceof Tensor && !sameShape(data.shape, this.shape)) refuse("copy_", [this, data], "shapes must be the same");
    this.write("copy_", this.#numbersOf("copy_", data));
    return this;
  }

  /** Numbers in the form that this parameter stores. */
  #numbersOf(op: string, data: Data | Tensor): Data {
    const numbers = data instanceof Tensor ? (this.dtype === "bf16" ? data.stored(op) : data.read(op)) : data;
    return this.dtype === "bf16" && numbers instanceof Float32Array ? narrow(numbers) : numbers;
  }

  /** Copies the elements from `first` on into `target`, as they are stored (bf16: bits), and nothing else: checkpoints go by pieces. */
  readRange(first: number, target: Data): void {
    const at = this.rangeAt("readRange", first, target);
    if (target.length > 0) this.native("readRange").read(at, target);
  }

  /** Overwrites the elements from `first` on, as they are stored (bf16: bits). */
  writeRange(first: number, values: Data): void {
    const at = this.rangeAt("writeRange", first, values);
    if (values.length > 0) this.native("writeRange").write(at, values);
    this.changed();
  }

  /** Where the numbers lie in native memory, for optimizers; its gradient lies at the same place of the block's gradients. */
  get memory() {
    this.checkAlive("memory");
    return this.buffer!;
  }

  /** Gives the memory back, to what is made next. The parameter and its gradient cannot be used any more; programs with it refuse to run. */
  release(): void {
    this.checkAlive("release");
    releasePersistent(this);
  }
}
