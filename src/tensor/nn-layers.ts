// Single layers by PyTorch's names: weights are (out, in), biases (out), and first values are PyTorch's unless `std` is given:
// then weights are N(0, std) and biases 0. Seed them with manualSeed. Not the functions that they call: functional.ts.
// Read next: nn.ts, which puts them together.
import { EggError } from "../errors.ts";
import type { ActivationName } from "../native/instructions.ts";
import * as F from "./functional.ts";
import { constant, normal, uniform } from "./nn-init.ts";
import { Module } from "./nn-module.ts";
import { QuantizedMatrix } from "./quantized.ts";
import type { Parameter, Tensor } from "./tensor.ts";

/** A layer of one tensor to one tensor. */
export abstract class Layer extends Module {
  abstract override forward(x: Tensor): Tensor;
}

/** A layer that is used with int8 weights has no `weight`: who asks for it hears why. */
function withoutWeight(layer: Linear | Embedding): void {
  const get = (): never => {
    throw new EggError("usage", `[nn] ${layer.constructor.name}: its weights are int8, and no parameter.`, { hint: "They are in the field `int8`." });
  };
  Object.defineProperty(layer, "weight", { get, enumerable: false });
}

export interface LinearOptions {
  bias?: boolean;
  activation?: ActivationName;
  std?: number | undefined;
  /** Weights are int8 with a scale an output, zeros until they are loaded; for use inside noGrad, not for training. */
  int8?: boolean | undefined;
}

/** act(x w^T + b): x (..., inputs) -> (..., outputs). First values U(-k, k), k = 1 / sqrt(inputs), or by `std`. */
export class Linear extends Layer {
  readonly weight!: Parameter;
  readonly int8: QuantizedMatrix | null;
  readonly bias: Parameter | null;
  readonly activation: ActivationName;

  constructor(inputs: number, outputs: number, { bias = true, activation = "none", std, int8 = false }: LinearOptions = {}) {
    super();
    const bound = inputs === 0 ? 0 : 1 / Math.sqrt(inputs);
    this.int8 = int8 ? new QuantizedMatrix(outputs, inputs) : null;
    if (int8) withoutWeight(this);
    else this.weight = std === undefined ? uniform([outputs, inputs], bound) : normal([outputs, inputs], std);
    this.bias = !bias ? null : std === undefined ? uniform([outputs], bound) : constant([outputs], 0);
    this.activation = activation;
  }

  override forward(x: Tensor): Tensor {
    return F.linear(x, this.int8 ?? this.weight, this.bias, this.activation);
  }
}

/** Rows of a table: ids (...) i32 -> (..., width). First values N(0, std). */
export class Embedding extends Layer {
  readonly weight!: Parameter;
  readonly int8: QuantizedMatrix | null;

  /** @param options.int8 a table as the weights of an int8 `Linear`, which may be its head */
  constructor(count: number, width: number, { std = 1, int8 = false }: { std?: number; int8?: boolean } = {}) {
    super();
    this.int8 = int8 ? new QuantizedMatrix(count, width) : null;
    if (int8) withoutWeight(this);
    else this.weight = normal([count, width], std);
  }

  override forward(ids: Tensor): Tensor {
    return F.embedding(ids, this.int8 ?? this.weight);
  }
}

/** (x - mean) / sqrt(variance + eps) * weight + bias over the last axis. */
export class LayerNorm extends Layer {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly eps: number;

  constructor(width: number, { eps = 1e-5, bias = true }: { eps?: number; bias?: boolean } = {}) {
    super();
    this.weight = constant([width], 1);
    this.bias = bias ? constant([width], 0) : null;
    this.eps = eps;
  }

  override forward(x: Tensor): Tensor {
    return F.layerNorm(x, this.weight, this.bias, this.eps);
  }
}

/** x / sqrt(mean(x^2) + eps) * weight over the last axis. */
export class RMSNorm extends Layer {
  readonly weight: Parameter;
  readonly eps: number;

  constructor(width: number, { eps = 1e-5 }: { eps?: number } = {}) {
    super();
    this.weight = constant([width], 1);
    this.eps = eps;
  }

  override forward(x: Tensor): Tensor {
    return F.rmsNorm(x, this.weight, this.eps);
  }
}

/** Zeroes elements with probability p while training. */
export class Dropout extends Layer {
  readonly p: number;

  constructor(p = 0.5) {
    super();
    if (!(p >= 0 && p <= 1)) throw new EggError("usage", `[nn] Dropout: p = ${p} is not a probability.`);
    this.p = p;
  }

  override forward(x: Tensor): Tensor {
    return F.dropout(x, this.p, this.training);
  }
}

/** A function of each element, as a layer. */
export class Activation extends Layer {
  readonly activation: ActivationName;

  constructor(activation: ActivationName) {
    super();
    this.activation = activation;
  }

  override forward(x: Tensor): Tensor {
    return x.activate(this.activation);
  }
}
