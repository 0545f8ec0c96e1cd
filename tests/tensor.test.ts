// Every operation of the op table: results against f64 loops, and the gradient of every input against finite differences of
// those loops; shapes 0, 1 and odd. Golden vectors are in tensor-golden.test.ts, misuse in tensor-errors.test.ts.
import { describe, expect, test } from "bun:test";
import * as F from "../src/tensor/functional.ts";
import { arange, cat, full, noGrad, ones, Parameter, rand, randn, stack, tensor, zeros, type Tensor } from "../src/tensor/egg.ts";
import * as reference from "./reference/ops.ts";
import { f64, type F64 } from "./reference/ops.ts";

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Largest difference, divided by the largest value expected. */
function distance(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  let worst = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [found[i]!, expected[i]!];
    if (Object.is(a, b) || a === b) {
      if (Number.isFinite(b)) largest = Math.max(largest, Math.abs(b));
      continue;
    }
    worst = Math.max(worst, Math.abs(a - b));
    largest = Math.max(largest, Math.abs(b));
  }
  return worst === 0 ? 0 : worst / largest;
}

interface Case {
  name: string;
  inputs: readonly (readonly number[])[];
  /** Values of input i at element j; normal where absent. */
  value?: (input: number, normal: number) => number;
  library: (...inputs: Tensor[]) => Tensor;
  reference: (...inputs: F64[]) => F64;
}

/** Checks a case: result, then every input's gradient for a random gradient of the result. */
function check({ inputs, value = (_, normal) => normal, library, reference: expected }: Case): void {
  const data = inputs.map((shape, i) => randn(shape, { seed: 7 * i + 1 }).toArray().map((normal) => value(i, normal)) as Float32Array);
  const leaves = data.map((values, i) => (i % 2 === 0 ? tensor(values, { shape: inputs[i]!, requiresGrad: true }) : new Parameter(values, inputs[i]!)));
  const exact = data.map((values) => Float64Array.from(values));
  const y = library(...leaves);
  const want = expected(...exact);
  expect(distance(y.toArray(), want)).toBeLessThan(1e-5);
  const dy = randn(y.shape, { seed: 99 }).toArray() as Float32Array;
  const inner = (at: F64[]): number => expected(...at).reduce((sum, v, i) => sum + v * dy[i]!, 0);
  y.backward(tensor(dy, { shape: y.shape }));
  leaves.forEach((leaf, i) => {
    const h = 1e-5;
    const differences = f64(leaf.numel, (j) => {
      const [up, down] = [h, -h].map((move) => inner(exact.map((values, k) => (k === i ? values.map((v, l) => (l === j ? v + move : v)) : values))));
      return (up! - down!) / (2 * h);
    });
    expect(leaf.grad!.shape).toEqual(inputs[i]!);
    const error = distance(leaf.grad!.toArray(), differences);
    if (!(error < 2e-5)) throw new Error(`gradient of input ${i}: ${error}\n${leaf.grad!.toArray().slice(0, 8)}\n${differences.slice(0, 8)}`);
    if (leaf instanceof Parameter) leaf.release();
  });
}

const shapes = [[1], [7], [3, 5], [2, 3, 4], [0, 4], [4, 0]] as const;

describe("element by element", () => {
  const away = (normal: number): number => normal + (normal < 0 ? -0.4 : 0.4); // from kinks and poles
  const pairs: [string, readonly number[], readonly number[], readonly number[]][] = [
    ["same", [3, 5], [3, 5], [3, 5]], ["row", [3, 5], [5], [3, 5]], ["rows of two axes", [2, 3, 4], [3, 4], [2, 3, 4]], ["row with ones", [2, 3, 4], [1, 1, 4], [2, 3, 4]],
    ["column", [3, 5], [3, 1], [3, 5]], ["scalar", [3, 5], [], [3, 5]], ["scalar of one", [3, 5], [1], [3, 5]], ["turned row", [5], [3, 5], [3, 5]], ["middle", [2, 3, 4], [2, 1, 4], [2, 3, 4]],
    ["both ways", [3, 1], [1, 5], [3, 5]], ["empty", [0, 5], [5], [0, 5]], ["one", [1], [1], [1]],
  ];
  const binaries: [string, (a: Tensor, b: Tensor) => Tensor, (a: number, b: number) => number][] = [
    ["add", (a, b) => a.add(b), (a, b) => a + b], ["sub", (a, b) => a.sub(b), (a, b) => a - b], ["mul", (a, b) => a.mul(b), (a, b) => a * b], ["div", (a, b) => a.div(b), (a, b) => a / b],
    ["maximum", (a, b) => a.maximum(b), Math.max], ["minimum", (a, b) => a.minimum(b), Math.min],
  ];
  for (const [name, library, f] of binaries) {
    test.each(pairs)(`${name}: %s`, (_, a, b, shape) => {
      check({ name, inputs: [a, b], value: (i, normal) => (name === "div" && i === 1 ? away(normal) : normal), library, reference: (x, y) => reference.broadcast(x!, a, y!, b, shape, f) });
    });
  }

  const unaries: [string, (x: Tensor) => Tensor, (x: number) => number, ((x: number) => number)?][] = [
    ["neg", (x) => x.neg(), (x) => -x], ["add 3", (x) => x.add(3), (x) => x + 3], ["sub 3", (x) => x.sub(3), (x) => x - 3], ["mul 3", (x) => x.mul(3), (x) => 3 * x], ["div 4", (x) => x.div(4), (x) => x / 4],
    ["abs", (x) => x.abs(), Math.abs, away], ["square", (x) => x.square(), (x) => x * x], ["sqrt", (x) => x.sqrt(), Math.sqrt, (x) => Math.abs(away(x))], ["rsqrt", (x) => x.rsqrt(), (x) => 1 / Math.sqrt(x), (x) => Math.abs(away(x))],
    ["reciprocal", (x) => x.reciprocal(), (x) => 1 / x, away], ["exp", (x) => x.exp(), Math.exp], ["log", (x) => x.log(), Math.log, (x) => Math.abs(away(x))],
    ...["relu", "gelu", "silu", "sigmoid", "tanh"].map((name) => [name, (x: Tensor) => x.activate(name as "relu"), reference.activations[name]!, name === "relu" ? away : undefined] as never),
    ["clone", (x) => x.clone(), (x) => x], ["x + x", (x) => x.add(x), (x) => 2 * x], ["x * x", (x) => x.mul(x), (x) => x * x], ["x * x + x", (x) => x.mul(x).add(x), (x) => x * x + x],
  ];
  for (const [name, library, f, value] of unaries) {
    test.each(shapes.map((shape) => [shape]))(`${name} of %p`, (shape) => {
      check({ name, inputs: [shape], value: (_, normal) => (value ?? ((x) => x))(normal), library, reference: (x) => x!.map((v) => f(v)) });
    });
  }

  test.each([[[3, 5]], [[0, 4]], [[1, 1]]])("gates of %p", (shape) => {
    for (const activation of ["silu", "gelu", "relu", "sigmoid", "tanh"] as const) {
      const f = reference.activations[activation]!;
      check({ name: activation, inputs: [shape, shape], value: (_, n) => away(n), library: (g, u) => F.gated(g!, u!, activation), reference: (g, u) => g!.map((v, i) => f(v) * u![i]!) });
      const width = shape[1]!;
      check({
        name: "packed", inputs: [[shape[0]!, 2 * width]], value: (_, n) => away(n), library: (x) => F.gatedPacked(x!, activation),
        reference: (x) => f64(size(shape), (i) => f(x![2 * width * Math.floor(i / width) + (i % width)]!) * x![2 * width * Math.floor(i / width) + (i % width) + width]!),
      });
    }
  });

  test("comparisons give 1 and 0", () => {
    const [a, b] = [tensor([1, 2, 3]), tensor([3, 2, 1])];
    expect([a.greater(b), a.greaterEqual(b), a.equal(b), a.greater(2)].map((y) => y.toList())).toEqual([[0, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 1]]);
  });
});

describe("shapes", () => {
  test.each([[[2, 3, 4], [2, 0, 1]], [[2, 3, 4], [0, 2, 1]], [[5, 1], [1, 0]], [[0, 3], [1, 0]], [[2, 3, 2, 3], [3, 1, 2, 0]]])("permute %p to %p", (shape, axes) => {
    check({ name: "permute", inputs: [shape], library: (x) => x!.permute(...axes), reference: (x) => reference.permute(x!, shape, axes) });
  });
  test("reshape, flatten, squeeze, unsqueeze, transpose", () => {
    check({ name: "reshape", inputs: [[2, 6]], library: (x) => x!.reshape(3, -1).mul(2), reference: (x) => x!.map((v) => 2 * v) });
    check({ name: "chain", inputs: [[2, 1, 3]], library: (x) => x!.squeeze(1).transpose(0, 1).unsqueeze(-1).flatten(), reference: (x) => reference.permute(x!, [2, 3], [1, 0]) });
    expect(randn([2, 3, 4], { seed: 1 }).flatten(1).shape).toEqual([2, 12]);
  });
  test("narrow and cat", () => {
    check({ name: "narrow", inputs: [[3, 5, 2]], library: (x) => x!.narrow(1, 1, 3), reference: (x) => f64(18, (i) => x![Math.floor(i / 6) * 10 + 2 + (i % 6)]!) });
    check({ name: "narrow twice", inputs: [[4, 3]], library: (x) => x!.narrow(0, 0, 2).add(x!.narrow(0, 1, 2)), reference: (x) => f64(6, (i) => x![i]! + x![i + 3]!) });
    check({ name: "cat", inputs: [[2, 3], [2, 2]], library: (a, b) => cat([a!, b!, a!], 1), reference: (a, b) => f64(16, (i) => { const [r, c] = [Math.floor(i / 8), i % 8]; return c < 3 ? a![3 * r + c]! : c < 5 ? b![2 * r + c - 3]! : a![3 * r + c - 5]!; }) });
    check({ name: "stack", inputs: [[3], [3]], library: (a, b) => stack([a!, b!]), reference: (a, b) => f64(6, (i) => (i < 3 ? a![i]! : b![i - 3]!)) });
  });
  test.each([[[3], [2, 3]], [[2, 1], [2, 3]], [[1, 3, 1], [2, 3, 4]], [[1], [2, 2, 2]]])("expand %p to %p", (from, to) => {
    check({ name: "expand", inputs: [from], library: (x) => x!.expand(...to), reference: (x) => reference.broadcast(x!, from, f64(size(to), () => 0), to, to, (a) => a) });
  });
});

describe("reductions", () => {
  const kinds: [string, (x: Tensor, axis?: number) => Tensor, (values: F64) => number][] = [
    ["sum", (x, axis) => x.sum(axis), (v) => v.reduce((a, b) => a + b, 0)], ["mean", (x, axis) => x.mean(axis), (v) => v.reduce((a, b) => a + b, 0) / v.length],
    ["max", (x, axis) => x.max(axis), (v) => Math.max(...v)], ["sumOfSquares", (x, axis) => x.sumOfSquares(axis), (v) => v.reduce((a, b) => a + b * b, 0)],
  ];
  for (const [name, library, f] of kinds) {
    test(`${name} over each axis and all`, () => {
      const shape = [3, 5, 4];
      for (const [axis, outer, middle, inner] of [[0, 1, 3, 20], [1, 3, 5, 4], [-1, 15, 4, 1], [undefined, 1, 60, 1]] as const) {
        check({ name, inputs: [shape], library: (x) => library(x!, axis), reference: (x) => reference.reduce(x!, outer, middle, inner, f) });
      }
      check({ name, inputs: [[1]], library: (x) => library(x!), reference: (x) => Float64Array.of(f(x!)) });
    });
  }
  test("of nothing: sum 0, mean NaN; kept axes; the first of equal maxima", () => {
    expect(tensor([], { shape: [0] }).sum().item()).toBe(0);
    expect(tensor([], { shape: [0] }).mean().item()).toBeNaN();
    expect(randn([2, 3], { seed: 1 }).sum(1, true).shape).toEqual([2, 1]);
    const x = tensor([[1, 5, 5], [7, 7, 2]], { requiresGrad: true });
    expect(x.argmax(1).toList()).toEqual([1, 0]);
    x.max(1).sum().backward();
    expect(x.grad!.toList()).toEqual([[0, 1, 0], [1, 0, 0]]);
  });
});

describe("models", () => {
  test.each([[1, 1, 1], [3, 5, 7], [17, 33, 9], [1, 19, 2], [0, 3, 2], [3, 0, 2], [3, 2, 0]])("matmul %p x %p x %p, all transposes", (m, n, k) => {
    for (const transposeA of [false, true]) for (const transposeB of [false, true]) {
      check({
        name: "matmul", inputs: [transposeA ? [k, m] : [m, k], transposeB ? [n, k] : [k, n]], library: (a, b) => a!.matmul(b!, { transposeA, transposeB }),
        reference: (a, b) => reference.matmul(a!, b!, 1, m, n, k, transposeA, transposeB),
      });
    }
  });
  test("matmul of batches", () => {
    check({ name: "batch", inputs: [[2, 3, 4, 5], [2, 3, 5, 2]], library: (a, b) => a!.matmul(b!), reference: (a, b) => reference.matmul(a!, b!, 6, 4, 2, 5) });
    check({ name: "batch", inputs: [[3, 5, 4], [3, 2, 5]], library: (a, b) => a!.matmul(b!, { transposeA: true, transposeB: true }), reference: (a, b) => reference.matmul(a!, b!, 3, 4, 2, 5, true, true) });
  });
  test.each(["none", "relu", "gelu", "silu", "tanh", "sigmoid"] as const)("linear with %s", (activation) => {
    check({ name: "linear", inputs: [[2, 3, 7], [5, 7], [5]], library: (x, w, b) => F.linear(x!, w!, b!, activation), reference: (x, w, b) => reference.linear(x!, w!, b!, 6, 5, 7, activation) });
    check({ name: "no bias", inputs: [[7], [5, 7]], library: (x, w) => F.linear(x!, w!, null, activation), reference: (x, w) => reference.linear(x!, w!, null, 1, 5, 7, activation) });
  });
  test.each(["gelu", "tanh"] as const)("linear of what a linear with %s made, used once and twice", (activation) => {
    const inputs = [[9, 7], [8, 7], [8], [8, 8]];
    const chain = (x: F64, w: F64, b: F64, v: F64): [F64, F64] => {
      const h = reference.linear(x, w, b, 9, 8, 7, activation);
      return [h, reference.linear(h, v, null, 9, 8, 8, "none")];
    };
    check({ name: "once", inputs, library: (x, w, b, v) => F.linear(F.linear(x!, w!, b!, activation), v!), reference: (x, w, b, v) => chain(x!, w!, b!, v!)[1] });
    const twice = (x: Tensor, w: Tensor, b: Tensor, v: Tensor): Tensor => {
      const h = F.linear(x, w, b, activation);
      return h.add(F.linear(h, v));
    };
    check({ name: "twice", inputs, library: (x, w, b, v) => twice(x!, w!, b!, v!), reference: (x, w, b, v) => (([h, y]) => y!.map((value, i) => value + h![i]!))(chain(x!, w!, b!, v!)) });
  });
  test.each([[[3, 5]], [[1, 1]], [[2, 3, 17]], [[0, 4]]])("softmax and logSoftmax of %p", (shape) => {
    const width = shape.at(-1)!;
    check({ name: "softmax", inputs: [shape], library: (x) => x!.softmax(), reference: (x) => reference.softmax(x!, width) });
    check({ name: "log", inputs: [shape], library: (x) => x!.logSoftmax(), reference: (x) => reference.softmax(x!, width, true) });
  });
  test("softmax of another axis", () => {
    check({ name: "axis 0", inputs: [[3, 4]], library: (x) => x!.softmax(0), reference: (x) => reference.permute(reference.softmax(reference.permute(x!, [3, 4], [1, 0]), 3), [4, 3], [1, 0]) });
  });
  test.each([[[3, 5]], [[2, 3, 17]], [[5, 1]], [[0, 4]]])("norms of %p", (shape) => {
    const width = shape.at(-1)!;
    for (const layer of [true, false]) for (const extra of layer ? [0, 1, 2] : [0, 1]) {
      if (layer && width === 1 && extra === 0) continue; // 0 everywhere
      check({
        name: "norm", inputs: [shape, [width], [width]].slice(0, 1 + extra), library: (x, w, b) => (layer ? F.layerNorm(x!, w, b, 1e-3) : F.rmsNorm(x!, w, 1e-3)),
        reference: (x, w, b) => reference.norm(x!, width, w ?? null, b ?? null, layer, 1e-3),
      });
    }
  });
  test("embedding, ids more than once", () => {
    const ids = [4, 0, 4, 2, 4, 1];
    check({ name: "embedding", inputs: [[5, 3]], library: (table) => F.embedding(tensor(ids, { dtype: "i32", shape: [2, 3] }), table!), reference: (table) => f64(18, (i) => table![3 * ids[Math.floor(i / 3)]! + (i % 3)]!) });
  });
  test.each([["interleaved", 0], ["interleaved", 1000], ["half", 0], ["half", 37]] as const)("rope, %s, offset %p", (pairs, offset) => {
    const shape = [2, 3, 2, 6];
    check({ name: "rope", inputs: [shape], library: (x) => F.rope(x!, { pairs, offset }), reference: (x) => reference.rope(x!, shape, 10000, offset, pairs === "half") });
  });
  test.each([{ factor: 3 }, { factor: 8, original: 60 }, { factor: 2, original: 300, low: 0, high: 20 }])("rope with frequencies scaled by %p", (scaling) => {
    const shape = [2, 3, 2, 10];
    const scaled = reference.scaledFrequency(scaling);
    check({ name: "rope", inputs: [shape], library: (x) => F.rope(x!, { offset: 37, pairs: "half", ...scaling }), reference: (x) => reference.rope(x!, shape, 10000, 37, true, scaled) });
  });
  test.each([[1, 1, 1, 1, 1, 4], [2, 5, 5, 4, 2, 8], [1, 3, 7, 2, 1, 5], [1, 1, 9, 3, 3, 6]])("attention, batch %p, q %p, kv %p, heads %p over %p, d %p", (batch, q, kv, heads, kvHeads, d) => {
    for (const causal of [true, false]) {
      const shape = { batch, q, kv, heads, kvHeads, d, causal };
      const k = [batch, kv, kvHeads, d];
      check({ name: "attention", inputs: [[batch, q, heads, d], k, k], library: (...x) => F.attention(x[0]!, x[1]!, x[2]!, { causal }), reference: (...x) => reference.attention(x[0]!, x[1]!, x[2]!, shape) });
    }
  });
  test("attention where q, k and v are one tensor, and where a cache has room", () => {
    const shape = { batch: 1, q: 3, kv: 3, heads: 2, kvHeads: 2, d: 4, causal: true };
    check({ name: "one", inputs: [[1, 3, 2, 4]], library: (x) => F.attention(x!, x!, x!), reference: (x) => reference.attention(x!, x!, x!, shape) });
    check({ name: "room", inputs: [[2, 1, 2, 4], [2, 6, 2, 4], [2, 6, 2, 4]], library: (q, k, v) => F.attention(q!, k!, v!, { kvLength: 4 }), reference: (q, k, v) => reference.attention(q!, k!, v!, { batch: 2, q: 1, kv: 4, room: 6, heads: 2, kvHeads: 2, d: 4, causal: true }) });
  });
  test.each([[4, 4, false], [4, 2, true], [2, 1, true]])("packed attention, %p heads over %p, rope %p", (heads, kvHeads, rotated) => {
    const [batch, time, d] = [2, 5, 4];
    const width = (heads + 2 * kvHeads) * d;
    const part = (x: F64, from: number, count: number): F64 => f64(batch * time * count * d, (i) => x[Math.floor(i / (count * d)) * width + from * d + (i % (count * d))]!);
    const turn = (x: F64, count: number): F64 => (rotated ? reference.rope(x, [batch, time, count, d], 10000, 0, true) : x);
    check({
      name: "packed", inputs: [[batch, time, width]], library: (x) => F.attentionPacked(x!, { heads, kvHeads, rope: rotated ? { pairs: "half" } : null }),
      reference: (x) => reference.attention(turn(part(x!, 0, heads), heads), turn(part(x!, heads, kvHeads), kvHeads), part(x!, heads + kvHeads, kvHeads), { batch, q: time, kv: time, heads, kvHeads, d, causal: true }),
    });
  });

  const targets = Int32Array.of(3, -100, 0, 4, 4, -100, 1);
  test.each([["mean", targets], ["sum", targets], ["mean", new Int32Array(7).fill(-100)]] as const)("cross entropy, %s of %p", (reduction, ids) => {
    const mean = reduction === "mean";
    check({ name: "crossEntropy", inputs: [[7, 5]], library: (x) => F.crossEntropy(x!, tensor(ids), { reduction }), reference: (x) => reference.crossEntropy(x!, ids, 5, -100, mean) });
    for (const chunk of [1, 3, 7, 100]) {
      check({
        name: "linearCrossEntropy", inputs: [[7, 4], [5, 4]], library: (x, w) => F.linearCrossEntropy(x!, w!, tensor(ids), { reduction, chunk }).mul(3),
        reference: (x, w) => reference.crossEntropy(reference.linear(x!, w!, null, 7, 5, 4, "none"), ids, 5, -100, mean).map((v) => 3 * v),
      });
    }
  });
  test("mean squared error", () => {
    check({ name: "mse", inputs: [[3, 4], [3, 4]], library: (a, b) => F.mseLoss(a!, b!), reference: (a, b) => Float64Array.of(a!.reduce((sum, v, i) => sum + (v - b![i]!) ** 2, 0) / 12) });
  });
});

test("makers round to their type as conversion does", () => {
  expect([ones([2], { dtype: "bf16" }).toList(), full([1], 1.01171875, { dtype: "bf16" }).toList(), arange(3, { dtype: "bf16" }).toList()]).toEqual([[1, 1], [1.015625], [0, 1, 2]]);
  expect(tensor([1.00390625, -2], { dtype: "bf16" }).toList()).toEqual([1, -2]);
  expect(rand([3], { seed: 1, dtype: "bf16" }).toArray()).toEqual(rand([3], { seed: 1 }).to("bf16").toArray());
  expect([full([1], -7, { dtype: "i32" }).dtype, arange(2, { dtype: "f32" }).toArray()]).toEqual(["i32", Float32Array.of(0, 1)]);
});

test("division by a number is IEEE's, and what multiplies keeps the sign of zeros", () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => i - 500.25);
  for (const divisor of [3, -7, 0.1, 8, -0.25, 1e30, Infinity]) {
    expect(tensor(values).div(divisor).toArray()).toEqual(values.map((value) => value / Math.fround(divisor)));
  }
  expect(tensor([Infinity, 0]).div(0).toList()).toEqual([Infinity, NaN]);
  const w = tensor([2], { requiresGrad: true });
  w.div(3).sum().backward();
  expect(w.grad!.item()).toBe(Math.fround(1 / 3));
  const zero = tensor([-0]);
  for (const kept of [zero.mul(2), zero.div(3), zero.div(4), zero.clone(), tensor([0]).neg()]) expect(kept.item()).toBe(-0);
});

test("checkpoint: an input twice, a parameter as the result, and leaves and results from outside", () => {
  const gradient = (action: (a: Tensor, h: Tensor) => Tensor): number[][] => {
    const [a, w] = [tensor([1, 2], { requiresGrad: true }), new Parameter(Float32Array.of(3, 4), [2])];
    action(a, w.mul(2)).sum().backward();
    const found = [a.grad, w.grad].map((each) => each?.toList() ?? null) as number[][];
    w.release();
    return found;
  };
  const cases: ((wrap: typeof F.checkpoint) => (a: Tensor, h: Tensor) => Tensor)[] = [
    (wrap) => (a, h) => wrap((x, y) => x.mul(y).mul(h), a, a),
    (wrap) => (a, h) => wrap((x, y) => x.mul(y), h, h).mul(a),
    (wrap) => (a, h) => wrap(() => h.mul(a).mul(a), ones([1])),
    (wrap) => (a, h) => wrap((x) => x, a).mul(wrap(() => h)),
  ];
  for (const each of cases) expect(gradient(each(F.checkpoint))).toEqual(gradient(each((action, ...inputs) => action(...inputs))));
  const p = new Parameter(Float32Array.of(3, 4), [2]);
  F.checkpoint(() => p).square().sum().backward();
  expect(p.grad!.toList()).toEqual([6, 8]);
  p.release();
});

test("a tensor shows its shape, type and numbers, long ones in part", () => {
  expect([`${tensor([[1, 2.5], [-0, 1 / 3]])}`, Bun.inspect({ ids: arange(20) })]).toEqual(["Tensor (2, 2) f32 [[1, 2.5], [0, 0.333333]]", "{\n  ids: Tensor (20) i32 [0, 1, 2, ..., 17, 18, 19],\n}"]);
  const w = new Parameter(Float32Array.of(1, NaN), [2]);
  const y = w.mul(2);
  expect([`${w.add(1)}`, `${tensor(5)}`, `${zeros([0, 3])}`, JSON.stringify({ w, y: y.sum(0, true) })]).toEqual(["Tensor (2) f32 [2, NaN]", "Tensor () f32 5", "Tensor (0, 3) f32 []", '{"w":[1,null],"y":[null]}']);
  y.sum().backward();
  w.release();
  expect([`${y}`, `${w}`]).toEqual(["Tensor (2) f32 (no numbers to read)", "Tensor (2) f32 (no numbers to read)"]);
});

describe("dropout", () => {
  test("zeroes about p of the elements, scales the rest, and backward uses the same mask", () => {
    const x = tensor(new Float32Array(10_000).fill(1), { requiresGrad: true });
    const y = F.dropout(x, 0.3, true);
    const values = y.toArray();
    const kept = values.filter((v) => v !== 0);
    expect(kept.length / values.length).toBeCloseTo(0.7, 1);
    expect(kept.every((v) => Math.abs(v - 1 / 0.7) < 1e-6)).toBe(true);
    y.backward(tensor(new Float32Array(10_000).fill(1)));
    expect(x.grad!.toArray()).toEqual(values);
  });
  test("is nothing outside training, everything at p = 1, and another mask in each call and step", () => {
    const x = tensor(new Float32Array(1000).fill(1));
    expect(F.dropout(x, 0.5, false)).toBe(x);
    expect(F.dropout(x, 1, true).toArray().every((v) => v === 0)).toBe(true);
    expect(noGrad(() => F.dropout(x, 0.5, true).equal(F.dropout(x, 0.5, true)).mean()).item()).toBeLessThan(0.7);
  });
});

test("bf16: conversion rounds to nearest even, products and tables take it", () => {
  const x = tensor([1, 1.00390625, 1.01171875, -3.3e38, 0], { requiresGrad: true });
  expect([...x.to("bf16").toArray()]).toEqual([1, 1, 1.015625, expect.closeTo(-3.3e38, -36), 0]);
  const w = rand([3, 4], { seed: 1 });
  const short = w.to("bf16");
  const exact = tensor(short.toArray(), { shape: [3, 4] });
  const a = rand([2, 4], { seed: 2 });
  expect(distance(F.linear(a, short).toArray(), F.linear(a, exact).toArray())).toBeLessThan(1e-6);
  expect(F.embedding(arange(3), short).toArray()).toEqual(exact.toArray());
});
