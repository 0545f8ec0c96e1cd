// Ways to make tensors: of one number, in a row, random, or of other tensors.
// Not tensor(), which takes numbers as they come (tensor.ts). Read next: tensor.ts, random.ts.
import { EggError } from "../errors.ts";
import * as shapes from "./ops-shape.ts";
import { fillNormal, words } from "./random.ts";
import { refuse } from "./tape.ts";
import { checkOptions, holding, run, type Dtype, type Tensor, type TensorOptions } from "./tensor.ts";
import { checkShape, emptyData, encode, product, type Data, type Shape } from "./value.ts";

type MakerOptions = Omit<TensorOptions, "shape">;

/** What the makers share. @param make numbers of a type, as many as the shape has */
function maker(op: string, shape: Shape, options: MakerOptions, make: (dtype: Dtype, count: number) => Data): Tensor {
  checkShape(op, shape);
  checkOptions(op, options);
  return holding(make(options.dtype ?? "f32", product(shape)), shape, options);
}

function filled(op: string, shape: Shape, value: number, options: MakerOptions): Tensor {
  return maker(op, shape, options, (dtype, count) => emptyData(dtype, count).fill(encode(op, dtype, [value])[0]!));
}

/** The same number everywhere, rounded to the type (f32 unless said otherwise). @throws EggError("usage") where i32 cannot hold it */
export function full(shape: Shape, value: number, options: MakerOptions = {}): Tensor {
  return filled("full", shape, value, options);
}

/** 0 everywhere, f32 unless said otherwise. */
export function zeros(shape: Shape, options: MakerOptions = {}): Tensor {
  return filled("zeros", shape, 0, options);
}

/** 1 everywhere, f32 unless said otherwise. */
export function ones(shape: Shape, options: MakerOptions = {}): Tensor {
  return filled("ones", shape, 1, options);
}

/** 0, 1, .. count - 1, i32 unless said otherwise. */
export function arange(count: number, options: MakerOptions = {}): Tensor {
  return maker("arange", [count], { ...options, dtype: options.dtype ?? "i32" }, (dtype) => encode("arange", dtype, new Float64Array(count).map((_, i) => i)));
}

/** The numbers of a seed that rand and randn draw from: streams that first weights never have. */
function seeded(op: "rand" | "randn", seed: number): () => number {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new EggError("usage", `[tensor] ${op}: the seed ${seed} is not a whole number from 0.`);
  return words(seed % 2 ** 32, (op === "rand" ? 2 ** 31 : 2 ** 30) + Math.floor(seed / 2 ** 32));
}

function random(op: "rand" | "randn", shape: Shape, { seed, ...options }: MakerOptions & { seed: number }, fill: (values: Float32Array, next: () => number) => void): Tensor {
  return maker(op, shape, options, (dtype, count) => {
    const values = emptyData("f32", count) as Float32Array;
    fill(values, seeded(op, seed));
    return encode(op, dtype, values);
  });
}

/** Uniform in [0, 1), multiples of 2^-24. The same seed gives the same numbers. */
export function rand(shape: Shape, options: MakerOptions & { seed: number }): Tensor {
  return random("rand", shape, options, (values, next) => {
    for (let i = 0; i < values.length; i++) values[i] = (next() >>> 8) / 2 ** 24;
  });
}

/** Normal, mean 0 and deviation 1. The same seed gives the same numbers. */
export function randn(shape: Shape, options: MakerOptions & { seed: number }): Tensor {
  return random("randn", shape, options, (values, next) => fillNormal(values, next, 1));
}

/** Tensors one after the other along an axis (negative: from the last): a copy. @throws EggError("usage") where other axes or types differ */
export function cat(tensors: readonly Tensor[], axis = 0): Tensor {
  if (tensors.length === 0) throw new EggError("usage", "[tensor] cat: there is nothing to join.");
  const rank = tensors[0]!.shape.length;
  const place = axis < 0 ? axis + rank : axis;
  if (rank === 0) refuse("cat", tensors, "tensors without axes cannot be joined; stack makes an axis");
  if (!Number.isInteger(place) || place < 0 || place >= rank) refuse("cat", tensors, `there is no axis ${axis}`);
  return run(shapes.join, tensors, { axis: place });
}

/** Tensors of one shape along a new axis: a copy. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return cat(tensors.map((each) => each.unsqueeze(axis)), axis);
}
