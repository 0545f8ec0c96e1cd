// What the ladder's levels should give, in f64 and plain TypeScript: some rows of a product and of attention, and the loss of a
// small transformer. Slow, to be read. Not the tests' references (tests/reference). Read next: levels.ts, step-levels.ts.

/** Values in -1 .. 1 from a fixed xorshift32 stream. */
export function operand(count: number, seed: number): Float32Array {
  const values = new Float32Array(count);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    values[i] = (state >>> 8) / 2 ** 23 - 1;
  }
  return values;
}

/** Rows, spread over all. */
export function someRows(rows: number, most: number): number[] {
  const count = Math.min(rows, most);
  return Array.from({ length: count }, (_, i) => Math.floor((i * rows) / count));
}

/** Rows of a (m, k) times b (k, n). */
export function productRows(a: Float32Array, b: Float32Array, n: number, k: number, rows: readonly number[]): Float64Array[] {
  return rows.map((row) => {
    const sums = new Float64Array(n);
    for (let l = 0; l < k; l++) {
      const factor = a[row * k + l]!;
      for (let j = 0; j < n; j++) sums[j]! += factor * b[l * n + j]!;
    }
    return sums;
  });
}

/** Rows of causal attention of one head, q, k and v (time, d). */
export function attentionRows(q: ArrayLike<number>, k: ArrayLike<number>, v: ArrayLike<number>, d: number, rows: readonly number[]): Float64Array[] {
  const scale = 1 / Math.sqrt(d);
  return rows.map((t) => {
    const weights = new Float64Array(t + 1);
    for (let s = 0; s <= t; s++) for (let i = 0; i < d; i++) weights[s]! += q[t * d + i]! * k[s * d + i]! * scale;
    softmax(weights);
    const out = new Float64Array(d);
    for (let s = 0; s <= t; s++) for (let i = 0; i < d; i++) out[i]! += weights[s]! * v[s * d + i]!;
    return out;
  });
}

function softmax(values: Float64Array): void {
  const largest = values.reduce((most, value) => Math.max(most, value), -Infinity);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] = Math.exp(values[i]! - largest);
  for (let i = 0; i < values.length; i++) values[i]! /= sum;
}

/** Largest deviation of rows of `found` (rows of `width`), as a share of the largest value; NaN where one is not a number. */
export function deviation(found: Float32Array, width: number, rows: readonly number[], expected: readonly Float64Array[]): number {
  let apart = 0;
  let largest = 0;
  rows.forEach((row, i) => {
    for (let j = 0; j < width; j++) {
      const right = expected[i]![j]!;
      const difference = Math.abs(found[row * width + j]! - right);
      apart = Number.isNaN(difference) || Number.isNaN(apart) ? NaN : Math.max(apart, difference);
      largest = Math.max(largest, Math.abs(right));
    }
  });
  return largest === 0 ? apart : apart / largest;
}

/** Weights of the ladder's transformer by name. */
export type Weights = (name: string) => Float32Array;

/** Mean cross-entropy of the transformer of step-levels.ts over texts of `time` tokens. */
export function transformerLoss(weights: Weights, shape: { width: number; layers: number; heads: number; vocabulary: number; time: number }, x: Int32Array, y: Int32Array): number {
  const { width, layers, heads, vocabulary, time } = shape;
  const d = width / heads;
  const linear = (input: Float64Array, name: string, outputs: number): Float64Array => {
    const [w, bias] = [weights(`${name}.weight`), weights(`${name}.bias`)];
    const inputs = w.length / outputs;
    const rows = input.length / inputs;
    const out = new Float64Array(rows * outputs);
    for (let r = 0; r < rows; r++) {
      for (let o = 0; o < outputs; o++) {
        let sum = bias[o]!;
        for (let i = 0; i < inputs; i++) sum += input[r * inputs + i]! * w[o * inputs + i]!;
        out[r * outputs + o] = sum;
      }
    }
    return out;
  };
  const norm = (input: Float64Array, name: string): Float64Array => {
    const [w, bias] = [weights(`${name}.weight`), weights(`${name}.bias`)];
    const out = new Float64Array(input.length);
    for (let at = 0; at < input.length; at += width) {
      const row = input.subarray(at, at + width);
      const mean = row.reduce((sum, value) => sum + value, 0) / width;
      const rstd = 1 / Math.sqrt(row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width + 1e-5);
      for (let i = 0; i < width; i++) out[at + i] = (row[i]! - mean) * rstd * w[i]! + bias[i]!;
    }
    return out;
  };
  const gelu = (z: number): number => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3)));
  const add = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value + b[i]!);

  let loss = 0;
  for (let text = 0; text < x.length; text += time) {
    let h: Float64Array = new Float64Array(time * width);
    for (let t = 0; t < time; t++) for (let i = 0; i < width; i++) h[t * width + i] = weights("tokens.weight")[x[text + t]! * width + i]! + weights("positions.weight")[t * width + i]!;
    for (let layer = 0; layer < layers; layer++) {
      const qkv = linear(norm(h, `${layer}.norm1`), `${layer}.attention.qkv`, 3 * width);
      const mixed = new Float64Array(time * width);
      for (let head = 0; head < heads; head++) {
        const part = (which: number): Float64Array => Float64Array.from({ length: time * d }, (_, i) => qkv[Math.floor(i / d) * 3 * width + which * width + head * d + (i % d)]!);
        attentionRows(part(0), part(1), part(2), d, Array.from({ length: time }, (_, t) => t)).forEach((row, t) => mixed.set(row, t * width + head * d));
      }
      h = add(h, linear(mixed, `${layer}.attention.out`, width));
      h = add(h, linear(linear(norm(h, `${layer}.norm2`), `${layer}.mlp.up`, 4 * width).map(gelu), `${layer}.mlp.down`, width));
    }
    const logits = linear(norm(h, "norm"), "head", vocabulary);
    for (let t = 0; t < time; t++) {
      const row = logits.slice(t * vocabulary, (t + 1) * vocabulary);
      softmax(row);
      loss -= Math.log(row[y[text + t]!]!);
    }
  }
  return loss / x.length;
}
