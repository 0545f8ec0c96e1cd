// First values of weights: one random stream for each parameter, from manualSeed, so that a seed and the order of layers say
// all. Not dropout's streams (kernels) and not rand and randn, which name their own seed. Read next: nn.ts.
import { EggError } from "../errors.ts";
import { initialStream } from "./device.ts";
import { checkMemory } from "./memory.ts";
import { fillNormal, words } from "./random.ts";
import { Parameter } from "./tensor.ts";
import { checkShape, product, type Shape } from "./value.ts";

/** A parameter whose numbers come from `fill`. Its size is checked before anything is drawn. */
function made(shape: Shape, fill: (values: Float32Array) => void): Parameter {
  checkShape("Parameter", shape);
  const count = product(shape);
  checkMemory("parameters", 2 * 4 * count); // the numbers here, and their place in native memory
  const values = new Float32Array(new ArrayBuffer(4 * count));
  fill(values);
  return new Parameter(values, shape);
}

/** Uniform in [-bound, bound). */
export function uniform(shape: Shape, bound: number): Parameter {
  const { seed, stream } = initialStream();
  return made(shape, (values) => {
    const next = words(seed, stream);
    for (let i = 0; i < values.length; i++) values[i] = bound * (next() / 2 ** 31 - 1);
  });
}

/** Normal, mean 0 and deviation `std`. @throws EggError("usage") for a deviation that is none */
export function normal(shape: Shape, std: number): Parameter {
  if (!(std >= 0 && Number.isFinite(std))) throw new EggError("usage", `[nn] std = ${std} is not a number from 0.`);
  const { seed, stream } = initialStream();
  if (std === 0) return constant(shape, 0);
  return made(shape, (values) => fillNormal(values, words(seed, stream), std));
}

export function constant(shape: Shape, value: number): Parameter {
  return made(shape, (values) => values.fill(value));
}
