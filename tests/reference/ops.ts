// Every tensor operation in f64, in plain loops over arrays: what the library's results are compared with. Shapes are known to
// the caller. Gradients are not here: tests take finite differences of these. Read next: tests/tensor.test.ts.

export type F64 = Float64Array;
export const f64 = (count: number, f: (i: number) => number): F64 => Float64Array.from({ length: count }, (_, i) => f(i));

/** Index of an element of `shape` in an array that is broadcast to it. */
function broadcastIndex(i: number, shape: readonly number[], small: readonly number[]): number {
  let index = 0;
  let stride = 1;
  for (let axis = shape.length - 1, own = small.length - 1; axis >= 0; axis--, own--) {
    const at = i % shape[axis]!;
    i = Math.floor(i / shape[axis]!);
    if (own >= 0 && small[own] !== 1) index += at * stride;
    if (own >= 0) stride *= small[own]!;
  }
  return index;
}

export function broadcast(a: F64, as: readonly number[], b: F64, bs: readonly number[], shape: readonly number[], f: (a: number, b: number) => number): F64 {
  return f64(shape.reduce((x, y) => x * y, 1), (i) => f(a[broadcastIndex(i, shape, as)]!, b[broadcastIndex(i, shape, bs)]!));
}

export const activations: Record<string, (x: number) => number> = {
  none: (x) => x,
  relu: (x) => Math.max(x, 0),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
};

/** op(a) op(b) for `batch` matrices, (m, k) (k, n). */
export function matmul(a: F64, b: F64, batch: number, m: number, n: number, k: number, ta = false, tb = false): F64 {
  return f64(batch * m * n, (i) => {
    const [g, r, c] = [Math.floor(i / (m * n)), Math.floor(i / n) % m, i % n];
    let sum = 0;
    for (let p = 0; p < k; p++) sum += a[g * m * k + (ta ? p * m + r : r * k + p)]! * b[g * k * n + (tb ? c * k + p : p * n + c)]!;
    return sum;
  });
}

/** act(x w^T + b): x (rows, k), w (n, k). */
export function linear(x: F64, w: F64, b: F64 | null, rows: number, n: number, k: number, activation: string): F64 {
  return matmul(x, w, 1, rows, n, k, false, true).map((value, i) => activations[activation]!(value + (b?.[i % n] ?? 0)));
}

/** Something of each row of `width`. */
function byRow(x: F64, width: number, f: (row: F64) => F64): F64 {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += width) y.set(f(x.slice(at, at + width)), at);
  return y;
}

export function softmax(x: F64, width: number, log = false): F64 {
  return byRow(x, width, (row) => {
    const max = Math.max(...row);
    const lse = max + Math.log(row.reduce((sum, v) => sum + Math.exp(v - max), 0));
    return row.map((v) => (log ? v - lse : Math.exp(v - lse)));
  });
}

export function norm(x: F64, width: number, weight: F64 | null, bias: F64 | null, layer: boolean, eps: number): F64 {
  return byRow(x, width, (row) => {
    const mean = layer ? row.reduce((a, b) => a + b, 0) / width : 0;
    const rstd = 1 / Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / width + eps);
    return row.map((v, i) => (v - mean) * rstd * (weight?.[i] ?? 1) + (bias?.[i] ?? 0));
  });
}

/** x (batch, time, heads, d). `scaled`: what becomes of a pair's frequency. */
export function rope(x: F64, [, time, heads, d]: readonly number[], base: number, offset: number, half: boolean, scaled: (frequency: number) => number = (plain) => plain): F64 {
  const y = x.slice();
  for (let row = 0; row < x.length / d!; row++) {
    const t = offset + (Math.floor(row / heads!) % time!);
    for (let i = 0; i < d! / 2; i++) {
      const angle = t * scaled(base ** ((-2 * i) / d!));
      const [p, q] = half ? [row * d! + i, row * d! + i + d! / 2] : [row * d! + 2 * i, row * d! + 2 * i + 1];
      y[p] = x[p]! * Math.cos(angle) - x[q]! * Math.sin(angle);
      y[q] = x[p]! * Math.sin(angle) + x[q]! * Math.cos(angle);
    }
  }
  return y;
}

/** Frequencies as Llama 3.1 has them, by wavelengths; without a context that was before, as linear scaling has them. */
export function scaledFrequency({ factor, original = 0, low = 1, high = 4 }: { factor: number; original?: number; low?: number; high?: number }): (plain: number) => number {
  return (plain) => {
    const wavelength = (2 * Math.PI) / plain;
    if (wavelength > original / low) return plain / factor;
    if (wavelength < original / high) return plain;
    const smooth = (original / wavelength - low) / (high - low);
    return ((1 - smooth) * plain) / factor + smooth * plain;
  };
}

export interface AttentionShape { batch: number; q: number; kv: number; room?: number; heads: number; kvHeads: number; d: number; causal: boolean; scale?: number }

export function attention(q: F64, k: F64, v: F64, s: AttentionShape): F64 {
  const room = s.room ?? s.kv;
  const scale = s.scale ?? 1 / Math.sqrt(s.d);
  const y = new Float64Array(q.length);
  for (let b = 0; b < s.batch; b++) for (let h = 0; h < s.heads; h++) for (let t = 0; t < s.q; t++) {
    const kvHead = Math.floor(h / (s.heads / s.kvHeads));
    const at = ((b * s.q + t) * s.heads + h) * s.d;
    const kvAt = (j: number): number => ((b * room + j) * s.kvHeads + kvHead) * s.d;
    const seen = s.causal ? t + s.kv - s.q + 1 : s.kv;
    const scores = f64(seen, (j) => scale * f64(s.d, (i) => q[at + i]! * k[kvAt(j) + i]!).reduce((x, z) => x + z, 0));
    const p = softmax(scores, Math.max(seen, 1));
    for (let i = 0; i < s.d; i++) for (let j = 0; j < seen; j++) y[at + i]! += p[j]! * v[kvAt(j) + i]!;
  }
  return y;
}

export function crossEntropy(logits: F64, targets: Int32Array, classes: number, ignore: number, mean: boolean): F64 {
  const logs = softmax(logits, classes, true);
  let sum = 0;
  let count = 0;
  targets.forEach((target, row) => {
    if (target === ignore) return;
    sum -= logs[row * classes + target]!;
    count++;
  });
  return Float64Array.of(mean ? (count === 0 ? 0 : sum / count) : sum);
}

/** Over the middle of (outer, axis, inner). */
export function reduce(x: F64, outer: number, axis: number, inner: number, f: (values: F64) => number): F64 {
  return f64(outer * inner, (i) => f(f64(axis, (j) => x[(Math.floor(i / inner) * axis + j) * inner + (i % inner)]!)));
}

/** Elements of `shape` with axes in another order. */
export function permute(x: F64, shape: readonly number[], axes: readonly number[]): F64 {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  const out = axes.map((axis) => shape[axis]!);
  return f64(x.length, (i) => {
    let at = 0;
    for (let axis = out.length - 1; axis >= 0; axis--) {
      at += (i % out[axis]!) * strides[axes[axis]!]!;
      i = Math.floor(i / out[axis]!);
    }
    return x[at]!;
  });
}
