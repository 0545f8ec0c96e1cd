// First values of weights: one random stream for each parameter, from manualSeed, so that a seed and the order of layers say
// all. Not dropout's streams (kernels) and not rand and randn, which name their own seed. Read next: nn.ts.
import { initialStream, persistent } from "./device.ts";
import { checkMemory } from "./memory.ts";
import { Parameter } from "./tensor.ts";
import { checkShape, product, type Shape } from "./value.ts";

/** xoshiro128** (Blackman and Vigna 2018) over 32-bit words, its state filled by splitmix32. */
function words(seed: number, stream: number): () => number {
  let mixed = seed | 0;
  const mix = (): number => {
    mixed = (mixed + 0x9e3779b9) | 0;
    let x = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return x ^ (x >>> 15);
  };
  mixed = mix() ^ Math.imul(stream + 1, 0x85ebca6b);
  let [a, b, c, d] = [mix(), mix(), mix(), mix() | 1];
  return () => {
    const five = Math.imul(b, 5);
    const result = Math.imul((five << 7) | (five >>> 25), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result >>> 0;
  };
}

/** A parameter whose numbers come from `fill`. Its size is checked before anything is drawn. */
function made(shape: Shape, fill: (values: Float32Array) => void): Parameter {
  checkShape("Parameter", shape);
  const count = product(shape);
  checkMemory("parameters", 2 * 4 * count, persistent.bytes); // the numbers here, and their place in native memory
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

/** Normal, mean 0 and deviation `std` (Box and Muller 1958). */
export function normal(shape: Shape, std: number): Parameter {
  const { seed, stream } = initialStream();
  return made(shape, (values) => {
    const next = words(seed, stream);
    for (let i = 0; i < values.length; i += 2) {
      const radius = std * Math.sqrt(-2 * Math.log((next() + 0.5) / 2 ** 32));
      const angle = (2 * Math.PI * next()) / 2 ** 32;
      values[i] = radius * Math.cos(angle);
      if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
    }
  });
}

export function constant(shape: Shape, value: number): Parameter {
  return made(shape, (values) => values.fill(value));
}
