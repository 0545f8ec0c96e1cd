// Functions over tensors at the borders of what they take: places that vary per run, sizes of chunks, shapes, wrong settings.
// Not their numbers against golden vectors (tensor-golden.test.ts). Read next: src/tensor/functional.ts.
import { describe, expect, test } from "bun:test";
import { context } from "../src/tensor/device.ts";
import { capture, full, functional as F, nn, noGrad, ones, Parameter, randn, tensor, useThreads, zeros, type Tensor } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";

describe("addPositions", () => {
  test("refuses places that are not in the table: nothing beside it is read or written", () => {
    const before = new Parameter(Float32Array.of(7, 7), [1, 2]);
    const table = new Parameter(Float32Array.of(1, 2, 3, 4), [2, 2]);
    before.mul(1).sum().backward();
    for (const start of [-8, -1, 0.5, NaN, 2, () => -1]) {
      expect(failure(() => F.addPositions(zeros([1, 1, 2]), table, start)).message).toBe(`[tensor] addPositions: (1, 1, 2) and (2, 2): 1 positions from ${typeof start === "number" ? start : -1} on are not in the table, whose rows are 0 .. 1.`);
    }
    expect(before.grad!.toList()).toEqual([[1, 1]]);
    for (const each of [before, table]) each.release();
  });

  test("in a program: reads and adds the gradient at each run's start, and checks it before the run", () => {
    const table = new Parameter(Float32Array.of(10, 20, 30, 40), [4, 1]);
    let start = 0;
    const program = capture({ x: { shape: [2, 1, 1] } }, ({ x }) => {
      table.zeroGrad();
      const y = F.addPositions(x, table, () => start).sum();
      y.backward();
      return { y };
    });
    for (start of [2, 0, 3]) {
      program.runNow({ x: Float32Array.of(1, 2) });
      expect(program.outputs.y.item()).toBe(3 + 20 * (start + 1));
      expect(table.grad!.toList()).toEqual([0, 1, 2, 3].map((row) => [row === start ? 2 : 0]));
    }
    for (start of [4, -1, 1.5]) expect(failure(() => program.runNow({ x: Float32Array.of(1, 2) })).message).toContain(`1 positions from ${start} on are not in the table`);
    program.release();
    table.release();
  });

  test("adds the gradient where the forward pass read, though the start has moved since", () => {
    const table = new Parameter(null, [3, 1]);
    let start = 1;
    const y = F.addPositions(zeros([1, 1, 1]), table, () => start).sum();
    start = 2;
    y.backward();
    expect(table.grad!.toList()).toEqual([[0], [1], [0]]);
    table.release();
  });
});

test("attentionCached refuses places that its cache does not have, at once and before each run of a program", () => {
  const [keys, values, behind] = [0, 1, 2].map(() => new Parameter(null, [1, 3, 1, 2], { requiresGrad: false })) as [Parameter, Parameter, Parameter];
  const x = randn([1, 2, 6], { seed: 1 });
  let filled = 0;
  const attend = (): unknown => noGrad(() => F.attentionCached(x, keys, values, () => filled, { heads: 1 }));
  for (filled of [-1, 0.5, 2]) expect(failure(attend).message).toContain(`attentionCached: (1, 2, 6) and (1, 3, 1, 2) and (1, 3, 1, 2): 2 positions after ${filled} do not fit the cache's 3.`);
  filled = 0;
  const program = capture({}, attend);
  for (filled of [-1, 0.5, 2]) expect(failure(() => program.runNow({})).message).toContain(`2 positions after ${filled}`);
  filled = 1;
  program.runNow({});
  expect(keys.toArray().some((value, i) => (value !== 0) !== (i >= 2))).toBe(false);
  expect(behind.toArray().every((value) => value === 0)).toBe(true);
  program.release();
  for (const each of [keys, values, behind]) each.release();
});

describe("losses", () => {
  const targets = tensor(Int32Array.of(0, 1, 2, 3));
  const [x, w] = [ones([4, 3]), ones([5, 3])];

  test("refuse chunks that never end, and settings that are none", () => {
    for (const chunk of [0, -1, 1.5, NaN, Infinity]) {
      for (const weight of [w, new nn.QuantizedMatrix(5, 3)]) {
        expect(failure(() => F.linearCrossEntropy(x, weight, targets, { chunk })).message).toBe(`[tensor] linearCrossEntropy: (4, 3) and (4): chunk = ${chunk} is not a whole number from 1.`);
      }
    }
    expect(failure(() => F.crossEntropy(x, targets, { reduction: "none" as "sum" })).message).toContain('reduction "none" is neither "mean" nor "sum"');
    expect(failure(() => F.linearCrossEntropy(x, w, targets, { ignoreIndex: 0.5 })).message).toContain("ignoreIndex = 0.5 is not a whole number");
    expect(failure(() => F.mseLoss(ones([4, 1]), ones([4]))).message).toBe("[tensor] mseLoss: (4, 1) and (4): both must have the same shape.");
  });

  test.each([["f32", ones([2, 1])], ["int8", new nn.QuantizedMatrix(2, 1)]] as const)("of thousands of chunks add up without a drift: weights in %s", (_, weight) => {
    const rows = 40_000;
    const loss = noGrad(() => F.linearCrossEntropy(ones([rows, 1]), weight, zeros([rows], { dtype: "i32" }), { chunk: 8 }));
    expect(Math.abs(loss.item() / Math.LN2 - 1)).toBeLessThan(1e-6);
    expect(noGrad(() => F.linearCrossEntropy(ones([0, 1]), weight, zeros([0], { dtype: "i32" }))).item()).toBe(0);
  });
});

describe("matmul repeats leading axes and takes vectors, as PyTorch does", () => {
  type Case = [a: number[], b: number[], result: number[], transposeA?: boolean, transposeB?: boolean];
  const cases: Case[] = [
    [[2, 3, 4], [4, 5], [2, 3, 5]], [[2, 4, 3], [4, 5], [2, 3, 5], true], [[2, 3, 4], [5, 4], [2, 3, 5], false, true], [[2, 3, 4], [1, 4, 5], [2, 3, 5]],
    [[3, 4], [2, 4, 5], [2, 3, 5]], [[4, 3], [2, 5, 4], [2, 3, 5], true, true], [[2, 1, 3, 4], [3, 4, 5], [2, 3, 3, 5]],
    [[2, 1, 2, 3, 4], [3, 1, 4, 5], [2, 3, 2, 3, 5]], [[1, 3, 4], [1, 1, 4, 5], [1, 1, 3, 5]], [[0, 3, 4], [4, 5], [0, 3, 5]], [[3, 4], [0, 4, 5], [0, 3, 5]],
    [[4], [4], []], [[4], [4, 5], [5]], [[3, 4], [4], [3]], [[2, 3, 4], [4], [2, 3]], [[4], [2, 4, 5], [2, 5]], [[4], [2, 5, 4], [2, 5], false, true],
  ];
  test.each(cases)("%p %p", (a, b, result, transposeA = false, transposeB = false) => {
    /** The same by elements: every product written out, then summed. */
    const spelled = (x: Tensor, y: Tensor): Tensor => {
      const turned = (each: Tensor, is: boolean): Tensor => (is ? each.transpose(-2, -1) : each);
      const left = (a.length === 1 ? x.reshape(1, ...a) : turned(x, transposeA)).unsqueeze(-1); // (.., m, k, 1)
      const right = (b.length === 1 ? y.reshape(...b, 1) : turned(y, transposeB)).unsqueeze(-3); // (.., 1, k, n)
      return left.mul(right).sum(-2).reshape(...result);
    };
    const weights = randn(result, { seed: 3 });
    const [found, expected] = [(x: Tensor, y: Tensor) => x.matmul(y, { transposeA, transposeB }), spelled].map((multiply) => {
      const [x, y] = [new Parameter(randn(a, { seed: 1 }), a), new Parameter(randn(b, { seed: 2 }), b)];
      const z = multiply(x, y);
      const numbers = [z.toArray()];
      expect(z.shape).toEqual(result);
      for (let i = 0; i < 2; i++) multiply(x, y).mul(weights).sum().backward(); // the second time adds
      numbers.push(x.grad!.toArray(), y.grad!.toArray());
      for (const each of [x, y]) each.release();
      return numbers;
    }) as [Float32Array[], Float32Array[]];
    found.forEach((numbers, i) => numbers.forEach((value, j) => expect(Math.abs(value - expected[i]![j]!)).toBeLessThan(1e-5)));
    expect(found.map(({ length }) => length)).toEqual(expected.map(({ length }) => length));
  });

  test("and refuses the rest", () => {
    expect(failure(() => ones([2, 3, 4]).matmul(ones([3, 4, 5]))).message).toBe("[tensor] matmul: (2, 3, 4) and (3, 4, 5): sizes 2 and 3 of a leading axis differ, and neither is 1.");
    expect(failure(() => ones([4]).matmul(ones([3]))).message).toContain("inner sizes 4 and 3 differ");
    expect(failure(() => ones([4]).matmul(ones([3, 4]), { transposeA: true })).message).toContain("a vector cannot be transposed");
    expect(failure(() => tensor(2).matmul(ones([3, 4]))).message).toContain("both need an axis or more");
  });
});

test("comparisons take i32 with i32, and with f32", () => {
  const [a, b] = [[1, -2, 3, 4], [1, 2, 3, -4]].map((list) => tensor(list, { dtype: "i32", shape: [2, 2] })) as [Tensor, Tensor];
  expect(a.equal(b).toList()).toEqual([[1, 0], [1, 0]]);
  expect(a.greater(b).toList()).toEqual([[0, 0], [0, 1]]);
  expect(a.greaterEqual(tensor([3, -2], { dtype: "i32" })).toList()).toEqual([[0, 1], [1, 1]]);
  expect([a.equal(3).toList(), a.to("f32").greater(b).toList()]).toEqual([[[0, 0], [1, 0]], [[0, 0], [0, 1]]]);
  expect(ones([2, 3]).argmax(1).equal(zeros([2], { dtype: "i32" })).mean().item()).toBe(1); // an accuracy
  expect(failure(() => a.equal(ones([2, 2]).to("bf16"))).message).toBe("[tensor] equal: (2, 2) and (2, 2): of type i32 and bf16; f32 and i32 can be compared.");
});

const q = ones([1, 2, 1, 4]);
const wrong: [string, () => unknown, string][] = [
  ["activation of linear", () => new nn.Linear(2, 3, { activation: "swish" as "silu" }).forward(ones([1, 2])), '[tensor] linear: (1, 2) and (3, 2) and (3): "swish" is no activation; there are none, relu, gelu, silu, sigmoid, tanh.'],
  ["activation of int8 linear", () => noGrad(() => F.linear(ones([1, 3]), new nn.QuantizedMatrix(2, 3), null, "swish" as "silu")), '[tensor] linear: (1, 3): "swish" is no activation'],
  ["activation", () => ones([1]).activate("elu" as "relu"), '[tensor] activate: (1): "elu" is no activation'],
  ["activation of halves", () => F.gatedPacked(ones([2]), "elu" as "relu"), '[tensor] gatedPacked: (2): "elu" is no activation'],
  ...[-1, 1.5, NaN, 3].map((kvLength): [string, () => unknown, string] => [`kvLength ${kvLength}`, () => F.attention(q, q, q, { causal: false, kvLength }), `kvLength = ${kvLength} is not a whole number of 0 .. 2, which k holds`]),
  ["scale", () => F.attention(q, q, q, { scale: NaN }), "scale = NaN is not a finite number"],
  ["rope offset", () => F.rope(q, { offset: -2 }), "[tensor] rope: (1, 2, 1, 4): rope: offset = -2 is not a whole number from 0."],
  ["rope offset, packed", () => F.attentionPacked(ones([1, 1, 6]), { heads: 1, rope: { offset: 1.5 } }), "[tensor] attentionPacked: (1, 1, 6): rope: offset = 1.5 is not a whole number from 0."],
  ["rope base", () => F.rope(q, { base: 0 }), "rope: base = 0 is not a number above 0"],
  ["rope factor", () => F.rope(q, { factor: -1 }), "rope: factor = -1 is not a number above 0"],
  ["rope lengths", () => F.rope(q, { original: 8, low: 4, high: 1 }), "rope: low = 4 and high = 1 are not two rising numbers from 0"],
  ["rope pairs", () => F.rope(q, { pairs: "third" as "half" }), 'rope: pairs "third" are not among interleaved, half'],
  ["eps", () => F.layerNorm(q, null, null, -1), "[tensor] layerNorm: (1, 2, 1, 4): eps = -1 is not a number from 0."],
  ["two axes for attention", () => new nn.MultiHeadAttention(8, 2).forward(ones([3, 8])), "[tensor] attentionPacked: (3, 24): x must have three axes"],
  ["no kv heads", () => new nn.MultiHeadAttention(8, 2, { kvHeads: -1 }), "[nn] MultiHeadAttention: 2 heads cannot share -1 kv heads evenly."],
  ["std", () => new nn.Linear(2, 3, { std: -1 }), "[nn] std = -1 is not a number from 0."],
  ["argmax of nothing", () => zeros([0]).argmax(), "[tensor] argmax: (0): nothing has no largest element."],
  ["assign types", () => F.assign(new Parameter(null, [3]), 0, 0, zeros([1], { dtype: "i32" })), "[tensor] assign: (3) and (1): i32 does not go into f32."],
  ["assign room", () => F.assign(new Parameter(null, [3]), 0, 2, ones([2])), "[tensor] assign: (3) and (2): the second does not fit into the first from 2 of axis 0 on."],
];
test.each(wrong)("wrong use is named as such: %s", (_, action, words) => {
  const error = failure(action);
  expect(error.kind).toBe("usage");
  expect(error.message).toContain(words);
});

test("ids and targets out of range are named with their place and the range: at once, in a program, in int8", () => {
  const ids = tensor(Int32Array.of(0, 3, 1));
  const found = "[tensor] embedding: id 3 in row 1 of the 3 that are computed together is not in the table, whose rows are 0 .. 2.";
  for (const table of [ones([3, 2]), new nn.QuantizedMatrix(3, 2)]) expect(failure(() => F.embedding(ids, table).toArray())).toMatchObject({ kind: "data", message: found });
  const program = capture({ ids: { shape: [3], dtype: "i32" } }, ({ ids }) => noGrad(() => F.embedding(ids, ones([3, 2]))));
  expect(failure(() => program.runNow({ ids: Int32Array.of(0, 3, 1) })).message).toBe(found);
  program.release();
  expect(failure(() => F.linearCrossEntropy(ones([2, 3]), ones([5, 3]), tensor(Int32Array.of(4, -1))).item()).message).toBe("[tensor] crossEntropy: target -1 in row 1 of the 2 that are computed together is no class; they are 0 .. 4.");
});

test("long sums of few rows keep their digits: gradients of narrow layers over many rows, and long rows", () => {
  const { threads, tier } = context();
  for (const kernels of new Set([tier, "scalar"] as const)) {
    useThreads(threads, kernels);
    const tenth = Math.fround(0.1);
    for (const outputs of [1, 2, 3, 4, 5]) {
      const layer = new nn.Linear(3, outputs, { bias: false });
      layer.forward(full([65_536, 3], 0.1)).sum().backward();
      for (const sum of layer.weight.grad!.toArray()) expect(Math.abs(sum / (65_536 * tenth) - 1)).toBeLessThan(5e-6);
      const long = noGrad(() => F.linear(full([outputs, 200_001], 0.1), ones([5, 200_001])).toArray());
      for (const sum of long) expect(Math.abs(sum / (200_001 * tenth) - 1)).toBeLessThan(5e-6);
    }
  }
  useThreads(threads, tier);
});
