// The Tensor that users hold: PyTorch's names over the op table. Also parameters and the ways to make tensors.
// Not the operations (ops-*.ts) and not the tape (tape.ts). Read next: functional.ts (the same as functions, and more).
import { EggError } from "../errors.ts";
import type { ActivationName, DtypeName } from "../native/instructions.ts";
import { capturing, flush } from "./device.ts";
import * as element from "./ops-elementwise.ts";
import * as model from "./ops-model.ts";
import * as shapes from "./ops-shape.ts";
import { fillNormal, words } from "./random.ts";
import { apply, backward, leafGradients, refuse, type Operation } from "./tape.ts";
import { checkShape, checkType, emptyData, makePersistent, narrow, product, releasePersistent, sameShape, setFresh, show, Value, type Data, type Shape } from "./value.ts";

type Nested = number | readonly Nested[];
export type Dtype = DtypeName;

export interface TensorOptions {
  shape?: Shape;
  dtype?: Dtype;
  requiresGrad?: boolean;
  device?: "cpu";
}

/** Numbers in a shape; operations on them are remembered where they lead back to tensors that require gradients. */
export class Tensor extends Value {
  readonly device = "cpu";

  // ---- values

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

  /** The sum of all gradients since zeroGrad, as a copy, or null. */
  get grad(): Tensor | null {
    if (this.isPersistent) return this.gradient === null || this.gradient.fresh ? null : gradientTensor(this);
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
    if (this.buffer !== null && this.scope !== null) this.buffer.users++;
    return copy;
  }

  clone(): Tensor {
    return this.dtype === "f32" ? this.#affine("clone", 1, 0) : this.permute(...this.shape.keys());
  }

  /** In another type; `"cpu"` is where every tensor is. */
  to(target: Dtype | "cpu"): Tensor {
    if (target === "cpu" || target === this.dtype) return this;
    if (!["f32", "bf16", "i32"].includes(target)) refuse("to", [this], `${JSON.stringify(target)} is neither a type (f32, bf16, i32) nor an available device (only "cpu")`);
    return run(element.convert, [this], { to: target });
  }

  // ---- element by element

  #affine(name: "add" | "sub" | "mul" | "div" | "neg" | "clone", alpha: number, beta: number): Tensor {
    return run(element.affine, [this], { name, alpha, beta });
  }

  add(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("add", 1, other) : spread(element.add, this, other, true);
  }
  sub(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("sub", 1, -other) : spread(element.subtract, this, other);
  }
  mul(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("mul", other, 0) : spread(element.multiply, this, other, true);
  }
  div(other: Tensor | number): Tensor {
    return typeof other === "number" ? this.#affine("div", 1 / other, 0) : spread(element.divide, this, other);
  }
  maximum(other: Tensor | number): Tensor {
    return spread(element.maximum, this, asTensor(other), true);
  }
  minimum(other: Tensor | number): Tensor {
    return spread(element.minimum, this, asTensor(other), true);
  }
  /** 1 where this is greater, else 0. No gradient. */
  greater(other: Tensor | number): Tensor {
    return spread(element.greater, this, asTensor(other));
  }
  greaterEqual(other: Tensor | number): Tensor {
    return spread(element.greaterEqual, this, asTensor(other));
  }
  equal(other: Tensor | number): Tensor {
    return spread(element.equal, this, asTensor(other));
  }
  neg(): Tensor {
    return this.#affine("neg", -1, 0);
  }
  abs(): Tensor {
    return run(element.absolute, [this], null);
  }
  square(): Tensor {
    return run(element.square, [this], null);
  }
  sqrt(): Tensor {
    return run(element.sqrt, [this], null);
  }
  rsqrt(): Tensor {
    return run(element.rsqrt, [this], null);
  }
  reciprocal(): Tensor {
    return run(element.reciprocal, [this], null);
  }
  exp(): Tensor {
    return run(element.exp, [this], null);
  }
  log(): Tensor {
    return run(element.log, [this], null);
  }
  activate(activation: ActivationName): Tensor {
    return activation === "none" ? this : run(element.activate, [this], { activation });
  }
  relu(): Tensor {
    return this.activate("relu");
  }
  /** The tanh form. */
  gelu(): Tensor {
    return this.activate("gelu");
  }
  silu(): Tensor {
    return this.activate("silu");
  }
  sigmoid(): Tensor {
    return this.activate("sigmoid");
  }
  tanh(): Tensor {
    return this.activate("tanh");
  }

  // ---- products and reductions

  /** (..., m, k) times (..., k, n); with `transposeA` this is (..., k, m), with `transposeB` other is (..., n, k). */
  matmul(other: Tensor, options: { transposeA?: boolean; transposeB?: boolean } = {}): Tensor {
    return run(model.matmul, [this, other], { ta: options.transposeA ?? false, tb: options.transposeB ?? false, compute: computing });
  }

  sum(axis?: number, keep = false): Tensor {
    return this.#reduce("sum", axis, keep);
  }
  mean(axis?: number, keep = false): Tensor {
    return this.#reduce("mean", axis, keep);
  }
  /** The largest along an axis, or of all. The gradient goes to the first of equals. */
  max(axis?: number, keep = false): Tensor {
    return this.#reduce("max", axis, keep);
  }
  sumOfSquares(axis?: number, keep = false): Tensor {
    return this.#reduce("sumsq", axis, keep);
  }
  /** Position of the first largest, i32. */
  argmax(axis?: number): Tensor {
    return run(shapes.argmax, [this], { axis: axis === undefined ? null : this.#axis("argmax", axis) });
  }

  #reduce(operation: "sum" | "mean" | "max" | "sumsq", axis: number | undefined, keep: boolean): Tensor {
    const place = axis === undefined ? null : this.#axis(operation, axis);
    const result = run(shapes.reduce, [this], { operation, axis: place });
    return keep ? result.reshape(...(place === null ? this.shape.map(() => 1) : this.shape.with(place, 1))) : result;
  }

  softmax(axis = -1): Tensor {
    return this.#last("softmax", axis, (x) => run(model.softmax, [x], { mode: "softmax" }));
  }
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

  /** The same numbers in another shape; one size may be -1. No copy. */
  reshape(...sizes: number[]): Tensor {
    const open = sizes.indexOf(-1);
    const rest = product(sizes.filter((_, i) => i !== open));
    const shape = open < 0 ? sizes : sizes.with(open, rest === 0 ? 0 : this.numel / rest);
    if (!shape.every(Number.isInteger)) refuse("reshape", [this], `${this.numel} elements do not fit (${sizes.join(", ")})`);
    return run(shapes.reshape, [this], { shape });
  }
  view(...sizes: number[]): Tensor {
    return this.reshape(...sizes);
  }
  flatten(start = 0): Tensor {
    const first = this.shape.length === 0 ? 0 : this.#axis("flatten", start);
    return this.reshape(...this.shape.slice(0, first), product(this.shape.slice(first)));
  }
  squeeze(axis: number): Tensor {
    const place = this.#axis("squeeze", axis);
    if (this.shape[place] !== 1) refuse("squeeze", [this], `axis ${axis} is not of size 1`);
    return this.reshape(...this.shape.toSpliced(place, 1));
  }
  unsqueeze(axis: number): Tensor {
    const place = axis < 0 ? axis + this.shape.length + 1 : axis;
    if (place < 0 || place > this.shape.length) refuse("unsqueeze", [this], `there is no place ${axis} for an axis`);
    return this.reshape(...this.shape.toSpliced(place, 0, 1));
  }
  permute(...axes: number[]): Tensor {
    return run(shapes.permute, [this], { axes: axes.map((axis) => this.#axis("permute", axis)) });
  }
  transpose(a: number, b: number): Tensor {
    const [first, second] = [this.#axis("transpose", a), this.#axis("transpose", b)];
    return this.permute(...[...this.shape.keys()].with(first, second).with(second, first));
  }
  /** Elements start .. start + length of an axis. */
  narrow(axis: number, start: number, length: number): Tensor {
    return run(shapes.narrow, [this], { axis: this.#axis("narrow", axis), start, length });
  }
  expand(...sizes: number[]): Tensor {
    return sameShape(sizes, this.shape) ? this : run(shapes.expand, [this], { shape: sizes });
  }
}

/** Applies an operation to tensors. */
export function run<A>(operation: Operation<A>, inputs: readonly Tensor[], attributes: A): Tensor {
  return apply((shape, dtype) => new Tensor(shape, dtype), operation, inputs, attributes);
}

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

/** Runs `action` with matrix products that round their inputs to bf16 (sums stay f32), or in f32. */
export function computeIn<T>(dtype: "f32" | "bf16", action: () => T): T {
  const before = computing;
  computing = dtype;
  try {
    return action();
  } finally {
    computing = before;
  }
}

export function computeType(): "f32" | "bf16" {
  return computing;
}

// ---- making tensors

function flattenInto(data: Nested, shape: Shape, axis: number, out: number[]): void {
  if (typeof data === "number") {
    if (axis !== shape.length) throw new EggError("usage", `[tensor] tensor: a number where a list of ${shape[axis]} was expected.`);
    out.push(data);
  } else {
    if (data.length !== shape[axis]) throw new EggError("usage", `[tensor] tensor: a list of ${data.length} where ${shape[axis] ?? "a number"} was expected; all rows must be equally long.`);
    for (const part of data) flattenInto(part, shape, axis + 1, out);
  }
}

function checkOptions(op: string, { dtype, device }: { dtype?: string; device?: string }): void {
  if (device !== undefined && device !== "cpu") throw new EggError("usage", `[tensor] ${op}: device ${JSON.stringify(device)} is not available; found only "cpu".`);
  if (dtype !== undefined) checkType(op, dtype);
}

const typeOf = (data: Data): Dtype => (data instanceof Int32Array ? "i32" : data instanceof Uint16Array ? "bf16" : "f32");

/**
 * A tensor from numbers, which stay in JavaScript memory and are copied in when used. Float32Array gives f32, Int32Array i32,
 * Uint16Array bf16 (as bits); a typed array is taken as it is, not copied.
 * @throws EggError("usage") for rows of different length, or a shape that does not fit
 */
export function tensor(data: Nested | Data, options: TensorOptions = {}): Tensor {
  checkOptions("tensor", options);
  const typed = data instanceof Float32Array || data instanceof Int32Array || data instanceof Uint16Array;
  const own = typed ? typeOf(data) : "f32";
  let shape: number[] = [];
  let values: Data;
  if (typed) {
    shape = [data.length];
    values = data;
    if (options.dtype !== undefined && options.dtype !== own) throw new EggError("usage", `[tensor] tensor: ${data.constructor.name} holds ${own}, not ${options.dtype}.`);
  } else {
    for (let part: Nested | undefined = data as Nested; typeof part === "object"; part = part[0]) shape.push(part.length);
    const flat: number[] = [];
    flattenInto(data as Nested, shape, 0, flat);
    const dtype = options.dtype ?? "f32";
    if (dtype === "bf16") throw new EggError("usage", "[tensor] tensor: numbers become f32 or i32; use to(\"bf16\").");
    if (dtype === "i32") {
      const wrong = flat.find((value) => !Number.isInteger(value) || value < -(2 ** 31) || value >= 2 ** 31);
      if (wrong !== undefined) throw new EggError("usage", `[tensor] tensor: ${wrong} is not an i32.`);
    }
    values = emptyData(dtype, flat.length);
    values.set(flat);
  }
  const wanted = options.shape ?? shape;
  checkShape("tensor", wanted);
  if (product(wanted) !== values.length) throw new EggError("usage", `[tensor] tensor: ${values.length} numbers do not fill ${show(wanted)}.`);
  const made = new Tensor(wanted, typed ? own : options.dtype ?? "f32");
  made.data = values;
  return withGradients(made, options.requiresGrad ?? false);
}

function withGradients<T extends Tensor>(made: T, requires: boolean): T {
  if (requires && made.dtype !== "f32") throw new EggError("usage", `[tensor] a ${made.dtype} tensor cannot require gradients; f32 ones can.`);
  made.requiresGrad = requires;
  return made;
}

/** A tensor in native memory for good: weights with gradients, or state such as a key-value cache. */
export class Parameter extends Tensor {
  /**
   * @param data the first numbers; null: zeros
   * @param options dtype: that of `data` where not given. A bf16 parameter has no gradient: it is for weights that are only used.
   */
  constructor(data: Data | Tensor | null, shape: Shape, options: Omit<TensorOptions, "shape"> = {}) {
    checkShape("Parameter", shape);
    checkOptions("Parameter", options);
    super(shape, options.dtype ?? (data === null ? "f32" : data instanceof Tensor ? data.dtype : typeOf(data)));
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
  }

  /** Where the numbers lie in native memory, for optimizers; its gradient lies at the same place of the block's gradients. */
  get memory() {
    this.checkAlive("memory");
    return this.buffer!;
  }

  /** Gives the memory back. The parameter and its gradient cannot be used any more. */
  release(): void {
    this.checkAlive("release");
    releasePersistent(this);
  }
}

function gradientTensor(value: Value): Tensor {
  if (capturing() !== null) throw new EggError("usage", "[tensor] grad: values cannot be read while a program is captured.");
  flush();
  const values = emptyData("f32", value.numel);
  const { block, offset } = value.buffer!;
  if (values.length > 0) block!.gradients.read(offset, values);
  return tensor(values, { shape: value.shape });
}

export function full(shape: Shape, value: number, options: Omit<TensorOptions, "shape"> = {}): Tensor {
  checkShape("full", shape);
  checkOptions("full", options);
  return tensor(emptyData(options.dtype ?? "f32", product(shape)).fill(value), { ...options, shape });
}

export function zeros(shape: Shape, options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return full(shape, 0, options);
}

export function ones(shape: Shape, options: Omit<TensorOptions, "shape"> = {}): Tensor {
  return full(shape, 1, options);
}

/** 0, 1, .. count - 1, i32 unless said otherwise. */
export function arange(count: number, options: Omit<TensorOptions, "shape"> = {}): Tensor {
  checkShape("arange", [count]);
  checkOptions("arange", options);
  const values = emptyData(options.dtype ?? "i32", count);
  for (let i = 0; i < count; i++) values[i] = i;
  return tensor(values, options);
}

/** The numbers of a seed that rand and randn draw from: streams that first weights never have. */
function seeded(op: "rand" | "randn", seed: number): () => number {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new EggError("usage", `[tensor] ${op}: the seed ${seed} is not a whole number from 0.`);
  return words(seed % 2 ** 32, (op === "rand" ? 2 ** 31 : 2 ** 30) + Math.floor(seed / 2 ** 32));
}

/** Uniform in [0, 1), multiples of 2^-24. The same seed gives the same numbers. */
export function rand(shape: Shape, options: Omit<TensorOptions, "shape"> & { seed: number }): Tensor {
  checkShape("rand", shape);
  const { seed, ...rest } = options;
  const next = seeded("rand", seed);
  const values = emptyData("f32", product(shape));
  for (let i = 0; i < values.length; i++) values[i] = (next() >>> 8) / 2 ** 24;
  return tensor(values, { ...rest, shape });
}

/** Normal, mean 0 and deviation 1. The same seed gives the same numbers. */
export function randn(shape: Shape, options: Omit<TensorOptions, "shape"> & { seed: number }): Tensor {
  checkShape("randn", shape);
  const { seed, ...rest } = options;
  const next = seeded("randn", seed);
  const values = emptyData("f32", product(shape)) as Float32Array;
  fillNormal(values, next, 1);
  return tensor(values, { ...rest, shape });
}

export function cat(tensors: readonly Tensor[], axis = 0): Tensor {
  const rank = tensors[0]?.shape.length ?? 0;
  return run(shapes.join, tensors, { axis: axis < 0 ? axis + rank : axis });
}

export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return cat(tensors.map((each) => each.unsqueeze(axis)), axis);
}
