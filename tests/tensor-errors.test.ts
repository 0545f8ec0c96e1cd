// Misuse of tensors: wrong shapes, types, order of calls and data are errors that name the operation and the shapes.
// Not results: tensor.test.ts. Read next: src/tensor/tape.ts.
import { describe, expect, spyOn, test } from "bun:test";
import { InstructionList, NativeArena, NativeProgram, runInstructions } from "../src/native/float.ts";
import { cancel } from "../src/native/machine.ts";
import { context } from "../src/tensor/device.ts";
import * as F from "../src/tensor/functional.ts";
import { arange, capture, cat, computeIn, full, memory, ones, optim, Parameter, rand, setDebug, tensor, trainingStep, useThreads, zeros, type Tensor } from "../src/tensor/egg.ts";
import { holdings } from "../src/tensor/memory.ts";
import { failure } from "./failure.ts";

const x = ones([2, 3]);
const ids = zeros([2], { dtype: "i32" });
const refused: [string, () => Tensor, string][] = [
  ["add", () => x.add(ones([2])), "[tensor] add: (2, 3) and (2): sizes 3 and 2 of an axis differ, and neither is 1."],
  ["add of types", () => x.add(zeros([2, 3], { dtype: "i32" })), "[tensor] add: (2, 3) and (2, 3): of type f32 and i32; all must be f32."],
  ["matmul", () => x.matmul(ones([2, 3])), "[tensor] matmul: (2, 3) and (2, 3): inner sizes 3 and 2 differ."],
  ["matmul transposed", () => x.matmul(ones([3, 2]), { transposeB: true }), "[tensor] matmul: (2, 3) and (3, 2): inner sizes 3 and 2 differ (after transposing)."],
  ["matmul of batches", () => ones([2, 2, 3]).matmul(ones([3, 3, 2])), "sizes 2 and 3 of a leading axis differ"],
  ["linear", () => F.linear(x, ones([3, 4])), "[tensor] linear: (2, 3) and (3, 4): the last axis of x must be the weight's 4 inputs."],
  ["linear bias", () => F.linear(x, ones([4, 3]), ones([3])), "the bias must have the shape (4)"],
  ["layerNorm", () => F.layerNorm(x, ones([2])), "[tensor] layerNorm: (2, 3) and (2): weight and bias must have the shape (3)."],
  ["embedding", () => F.embedding(x, x), "[tensor] embedding: (2, 3) and (2, 3): of type f32 and f32; ids must be i32, the table f32 or bf16."],
  ["rope", () => F.rope(ones([1, 2, 3, 5])), "x must be (batch, time, heads, d) with an even d"],
  ["attention heads", () => F.attention(ones([1, 2, 4, 8]), ones([1, 2, 3, 8]), ones([1, 2, 3, 8])), "4 query heads cannot share 3 kv heads evenly"],
  ["attention lengths", () => F.attention(ones([1, 5, 1, 8]), ones([1, 2, 1, 8]), ones([1, 2, 1, 8])), "5 queries see 2 keys"],
  ["attention shapes", () => F.attention(ones([1, 5, 1, 8]), ones([1, 5, 1, 4]), ones([1, 5, 1, 8])), "batch and d must agree"],
  ["packed attention", () => F.attentionPacked(ones([1, 2, 10]), { heads: 2 }), "2 + 2 * 2 heads do not divide 10"],
  ["crossEntropy", () => F.crossEntropy(x, zeros([3], { dtype: "i32" })), "[tensor] crossEntropy: (2, 3) and (3): targets must have the shape of x without its last axis."],
  ["crossEntropy types", () => F.crossEntropy(x, ones([2])), "targets must be i32, found f32"],
  ["reshape", () => x.reshape(4, -1), "[tensor] reshape: (2, 3): 6 elements do not fit (4, -1)."],
  ["permute", () => x.permute(0, 0), "(0, 0) is not an order of its axes"],
  ["narrow", () => x.narrow(1, 2, 2), "2 .. 4 is not within axis 1"],
  ["expand", () => x.expand(2, 4), "cannot be repeated to (2, 4)"],
  ["cat", () => cat([x, ones([2, 2])], 0), "[tensor] cat: (2, 3) and (2, 2): shapes must agree but for axis 0."],
  ["cat of nothing", () => cat([]), "there is nothing to join"],
  ["cat along no axis", () => cat([x, x], 5), "[tensor] cat: (2, 3) and (2, 3): there is no axis 5."],
  ["cat of numbers", () => cat([tensor(1), tensor(2)]), "tensors without axes cannot be joined; stack makes an axis"],
  ["a place for an axis", () => x.unsqueeze(0.5), "there is no place 0.5 for an axis"],
  ["an activation", () => x.activate("swish" as "silu"), "[tensor] activate: (2, 3): \"swish\" is no activation; there are none, relu,"],
  ["products in another type", () => computeIn("f16" as "f32", () => x), "[tensor] computeIn: \"f16\" is not a type of products; allowed are f32, bf16."],
  ["a released parameter, detached", () => {
    const w = new Parameter(null, [2]);
    const same = w.detach();
    w.release();
    return same.add(1);
  }, "[tensor] add: a tensor (2) was released."],
  ["threads", () => (useThreads(-1), x), "[tensor] useThreads: -1 is not a number of threads"],
  ["a step before the first", () => (trainingStep(-5), x), "[tensor] trainingStep: -5 is not a whole number from 0."],
  ["sum axis", () => x.sum(2), "[tensor] sum: (2, 3): there is no axis 2."],
  ["max of nothing", () => zeros([0]).max(), "nothing has no largest element"],
  ["dropout", () => F.dropout(x, 1.5, true), "p = 1.5 is not a probability"],
  ["bf16 in a sum", () => x.to("bf16").add(1), "of type bf16"],
  ["to i32", () => x.to("i32"), "f32 cannot become i32"],
  ["a ragged list", () => tensor([[1, 2], [3]]), "[tensor] tensor: a list of 1 where 2 was expected; all rows must be equally long."],
  ["nothing", () => tensor(null as never), "[tensor] tensor: null where a number or a list was expected."],
  ["what is no number", () => tensor([1, "2"] as never), "[tensor] tensor: 2 where a number or a list was expected."],
  ["a tensor of a tensor", () => tensor(x as never), "[tensor] tensor: a tensor where a number or a list was expected."],
  ["a size for a shape", () => zeros(3 as never), "[tensor] zeros: 3 is not a shape; one is a list of sizes, such as [2, 3]."],
  ["a shape that does not fit", () => tensor([1, 2, 3], { shape: [2, 2] }), "3 numbers do not fill (2, 2)"],
  ["a negative shape", () => zeros([-1]), "(-1) is not a shape"],
  ["a shape beyond 32 bits", () => zeros([2 ** 16, 2 ** 16]), "(65536, 65536) has more than 4,294,967,295 elements"],
  ["a product beyond 32 bits", () => ones([2 ** 16, 1]).matmul(ones([1, 2 ** 16])), "matmul: (65536, 65536) has more than"],
  ["everywhere a fraction as i32", () => full([2], 1.5, { dtype: "i32" }), "[tensor] full: 1.5 is not an i32"],
  ["everywhere too much for i32", () => full([2], 1e12, { dtype: "i32" }), "1000000000000 is not an i32; whole numbers from -2147483648 to 2147483647 are."],
  ["random i32", () => rand([2], { seed: 1, dtype: "i32" }), "[tensor] rand: 0."],
  ["a fraction as i32", () => tensor([1.5], { dtype: "i32" }), "1.5 is not an i32"],
  ["a shape beyond 2^53", () => zeros([2 ** 40, 2 ** 40]), "[tensor] zeros: (1099511627776, 1099511627776) has more than 4,294,967,295 elements."],
  ["a shape beyond all numbers", () => zeros([1e300, 1e300]), "has more than 4,294,967,295 elements"],
  ["nothing, beyond 32 bits", () => zeros([0, 2 ** 40]), "(0, 1099511627776) has more than"],
  ["a row of nothing, repeated too often", () => ones([1, 2]).expand(2 ** 31, 2).sum(), "expand: (2147483648, 2) has more than"],
  ["a count", () => arange(-1), "[tensor] arange: (-1) is not a shape; sizes are whole numbers from 0."],
  ["an unknown type", () => tensor([1], { dtype: "f64" as "f32" }), "[tensor] tensor: \"f64\" is not a type; allowed are f32, i32, bf16."],
  ["an unknown type of zeros", () => zeros([1], { dtype: "float" as "f32" }), "[tensor] zeros: \"float\" is not a type"],
  ["an unknown type of a parameter", () => new Parameter(null, [1], { dtype: "f16" as "f32" }), "[tensor] Parameter: \"f16\" is not a type"],
  ["an unknown type of an input", () => capture({ x: { shape: [1], dtype: "f64" as "f32" } }, ({ x }) => x).outputs, "[tensor] capture input x: \"f64\" is not a type"],
  ["to another device", () => x.to("metal" as "cpu"), "[tensor] to: (2, 3): \"metal\" is neither a type (f32, bf16, i32) nor an available device (only \"cpu\")."],
  ["zeros on another device", () => zeros([1], { device: "cuda" as "cpu" }), "[tensor] zeros: device \"cuda\" is not available; found only \"cpu\"."],
  ["a parameter on another device", () => new Parameter(null, [1], { device: "metal" as "cpu" }), "[tensor] Parameter: device \"metal\" is not available"],
  ["a parameter of another shape", () => new Parameter(ones([3, 2]), [2, 3]), "[tensor] Parameter: (2, 3) and (3, 2): shapes must be the same."],
  ["types in a product", () => x.matmul(zeros([3, 2], { dtype: "i32" })), "[tensor] matmul: (2, 3) and (3, 2): of type f32 and i32; both must be f32 or bf16."],
  ["types in linear", () => F.linear(x, ones([4, 3]), ones([4]).to("bf16")), "[tensor] linear: (2, 3) and (4, 3) and (4): of type f32 and f32 and bf16; x and w must be f32 or bf16, the bias f32."],
  ["types in cat", () => cat([x, x.to("bf16")]), "[tensor] cat: (2, 3) and (2, 3): of type f32 and bf16."],
  ["types in attention", () => F.attention(ones([1, 1, 1, 4]), ones([1, 1, 1, 4]).to("bf16"), ones([1, 1, 1, 4])), "of type f32 and bf16 and f32; all must be f32"],
  ["another device", () => tensor([1], { device: "metal" as "cpu" }), "device \"metal\" is not available"],
  ["integers with gradients", () => tensor([1], { dtype: "i32", requiresGrad: true }), "a i32 tensor cannot require gradients"],
];

test.each(refused)("%s", (_, action, words) => {
  const error = failure(action);
  expect(error.kind).toBe("usage");
  expect(error.message).toContain(words);
});

describe("backward", () => {
  test("twice names what was used up, with its shapes", () => {
    const w = new Parameter(new Float32Array(6), [2, 3]);
    const y = x.matmul(w, { transposeB: true });
    const loss = F.crossEntropy(y, ids);
    loss.backward();
    const error = failure(() => loss.backward());
    expect(error.message).toBe("[tensor] backward: the graph of crossEntropy of (2, 2) and (2) was used up by an earlier backward().");
    expect(failure(() => y.sum()).message).toBe("[tensor] sum: matmul of (2, 3) and (2, 3), a result (2, 2), died at backward().");
    expect(failure(() => y.backward()).message).toContain("the graph of matmul of (2, 3) and (2, 3) was used up");
    expect(loss.item()).toBeCloseTo(Math.log(2), 5);
    w.release();
  });
  test("needs a number, or a gradient of the right shape, and something to differentiate", () => {
    const w = tensor([1, 2], { requiresGrad: true });
    expect(failure(() => w.mul(2).backward()).message).toContain("gave (2); only a tensor of one element needs no gradient given");
    expect(failure(() => w.mul(2).backward(ones([3]))).message).toContain("backward: (2) and (3): a gradient has its tensor's shape");
    for (const gradient of [arange(2), ones([2]).to("bf16")]) {
      expect(failure(() => w.mul(2).backward(gradient)).message).toBe(`[tensor] backward: (2) and (2): the gradient is ${gradient.dtype}; gradients are f32, also of f32 tensors.`);
    }
    expect(w.grad).toBeNull();
    const none = failure(() => x.sum().backward());
    expect(none.message).toContain("sum of (2, 3), a tensor (), was not computed from tensors that require gradients");
    expect(none.hint).toContain("requiresGrad: true");
  });
});

test("item of many", () => {
  expect(failure(() => x.item()).message).toBe("[tensor] item: a tensor (2, 3) has 6 elements, not one.");
});

test.each([-1, 5, 2 ** 31 - 1, -(2 ** 31)])("an id of %p, eager, is a data error that says where", (id) => {
  const table = ones([5, 2]);
  const y = F.embedding(tensor([0, 1, id, 2], { dtype: "i32" }), table);
  expect(failure(() => y.toArray())).toMatchObject({ kind: "data", message: `[tensor] embedding: id ${id} in row 2 of the 4 that are computed together is not in the table, whose rows are 0 .. 4.` });
  expect(failure(() => y.toArray()).message).toContain("embedding of (4) and (5, 2), a result (4, 2), died at an error before it was computed");
  const loss = F.crossEntropy(ones([1, 5]), tensor([id], { dtype: "i32" }));
  expect(failure(() => loss.item())).toMatchObject({ kind: "data", message: `[tensor] crossEntropy: target ${id} in row 0 of the 1 that are computed together is no class; they are 0 .. 4.` });
});

test("arenas and programs: a program holds its arenas, stale handles are told, a job keeps its context busy", async () => {
  const arena = new NativeArena(1 << 22);
  const list = new InstructionList();
  for (let i = 0; i < 2000; i++) list.add("fill", { y: { arena: arena.handle, offset: 0 }, count: 1 << 20, value: i });
  const program = new NativeProgram(context(), list);
  expect(failure(() => arena.release()).message).toBe("[native] 1 programs still use the arena.");
  const running = program.run();
  expect(failure(() => runInstructions(context(), list)).message).toBe("[native] a program job is running.");
  expect(failure(() => program.release()).message).toBe("[native] a program job is running.");
  cancel(context());
  expect(await running).toBe(false);
  expect(program.runNow(true)).toBeGreaterThan(0);
  expect(program.times()).toHaveLength(2000);
  const last = new Float32Array(new ArrayBuffer(4));
  arena.read(4 * ((1 << 20) - 1), last);
  expect(last[0]).toBe(1999);
  expect(failure(() => arena.read(2 ** 22 - 2, last)).message).toBe("[native] 4 bytes at 4194302 reach past the arena's 4194304.");
  expect(failure(() => arena.read(-1, last)).message).toContain("offset: -1 is not a size");
  program.release();
  arena.release();
  expect(failure(() => program.runNow()).message).toMatch(/handle \d+ is not in use/);
  expect(failure(() => arena.release()).message).toMatch(/handle \d+ is not in use/);
  expect(failure(() => new NativeArena(0)).message).toContain("an arena of 0 bytes");
  expect(failure(() => new NativeArena(2 ** 60)).message).toContain("is not a size");
  expect(failure(() => new NativeArena(2 ** 45)).kind).toBe("resources");
}, 60_000);

test("instructions that reach past an arena, or forge one, are refused", () => {
  const arena = new NativeArena(1 << 16);
  const at = (offset: number): { arena: number; offset: number } => ({ arena: arena.handle, offset });
  const refusal = (fill: (list: InstructionList) => void): string => {
    const list = new InstructionList();
    fill(list);
    return failure(() => runInstructions(context(), list)).message;
  };
  expect(refusal((list) => list.add("fill", { y: at(65_536 - 8), count: 3, value: 1 }))).toBe("[native] fill: y: 12 bytes at 65528 reach past the arena's 65536.");
  expect(refusal((list) => list.add("fill", { y: at(2 ** 52), count: 1, value: 1 }))).toContain("reach past the arena's 65536");
  expect(refusal((list) => list.add("fill", { y: at(0), count: 2 ** 32 - 1, value: 1 }))).toContain("reach past the arena's 65536");
  expect(refusal((list) => list.add("fill", { y: at(2), count: 1, value: 1 }))).toContain("not aligned to 4 bytes");
  expect(refusal((list) => list.add("fill", { y: { arena: 12345, offset: 0 }, count: 1, value: 1 }))).toContain("arena 12345 is not in use");
  expect(refusal((list) => list.add("fill", { y: { arena: context().handle, offset: 0 }, count: 1, value: 1 }))).toContain("is not in use");
  expect(refusal((list) => list.add("fill", { count: 1, value: 1 }))).toBe("[native] fill: y is missing.");
  expect(refusal((list) => list.add("binary", { a: at(0), b: at(0), y: at(0), rows: 2 ** 32 - 1, cols: 2 ** 32 - 1, operation: "add", broadcast: "same", alpha: 1 }))).toMatch(/too large|reach past/);
  expect(refusal((list) => list.add("gemm", {
    a: at(0), b: at(0), c: at(0), m: 4, n: 4, k: 4, lda: 2 ** 32 - 1, ldb: 4, ldc: 4, outer: 2 ** 32 - 1, inner: 1, a_outer: 2 ** 32 - 1, a_inner: 0, b_outer: 0, b_inner: 0, c_outer: 16, c_inner: 0,
    a_dtype: "f32", b_dtype: "f32", c_dtype: "f32", compute: "f32", activation: "none", alpha: 1, beta: 0,
  }))).toMatch(/^\[native\] gemm: .*(too large|reach past)/);
  const list = new InstructionList();
  expect(failure(() => list.add("fill", { y: at(0), count: 2 ** 32, value: 1 })).message).toContain("fill: count = 4294967296 is beyond a kernel's 32 bits");
  expect(failure(() => list.add("fill", { y: at(0), count: 1, value: 1 }) as never ?? list.add("fill", { y: at(-1), count: 1, value: 1 })).message).toContain("an operand at -1");
  arena.release();
});

test("only cpu exists, and says so", () => {
  expect([x.device, x.to("cpu") === x, tensor([1], { device: "cpu" }).item()]).toEqual(["cpu", true, 1]);
});

describe("memory beyond the machine is refused before anything is computed", () => {
  test.each<[string, () => unknown, RegExp]>([
    ["numbers", () => zeros([16384, 16384]), /^\[tensor\] numbers in JavaScript: [\d,]+ bytes are needed, this machine has 1,000,000,000\.$/],
    ["random numbers", () => rand([2 ** 28], { seed: 1 }), /^\[tensor\] numbers in JavaScript: /],
    ["parameters", () => new Parameter(null, [16384, 16384]), /^\[tensor\] parameters: /],
    ["results", () => ones([16384, 1]).matmul(ones([1, 16384])), /^\[tensor\] activations: /],
    ["programs", () => capture({ x: { shape: [16384, 16384] } }, () => {}), /^\[tensor\] this program: /],
  ])("%s", (_, action, words) => {
    const before = memory();
    const limit = spyOn(process, "constrainedMemory").mockReturnValue(1e9);
    try {
      const error = failure(action);
      expect(error.kind).toBe("resources");
      expect(error.message).toMatch(words);
    } finally {
      limit.mockRestore();
    }
    expect({ ...memory(), data: 0 }).toEqual({ ...before, data: 0 });
  });

  test("all kinds together count", () => {
    const limit = spyOn(process, "constrainedMemory").mockReturnValue(300e6 + Object.values(holdings).reduce((sum, bytes) => sum + bytes, 0));
    const w = new Parameter(null, [50_000_000]);
    try {
      expect(failure(() => capture({ x: { shape: [50_000_000] } }, () => {})).kind).toBe("resources");
    } finally {
      limit.mockRestore();
      w.release();
    }
  });
});

describe("debug mode", () => {
  test("names the operation where the first NaN or infinity appears", () => {
    setDebug(true);
    try {
      expect(failure(() => tensor([1, 0]).log().add(1)).message).toBe("[tensor] log: (2): 1 of 2 results are NaN or infinite, the first in this step.");
      const error = failure(() => tensor([[1, NaN]]).matmul(ones([2, 1])));
      expect(error.kind).toBe("numeric");
      expect(error.message).toBe("[tensor] matmul: (1, 2) and (2, 1): input 1 holds 1 NaN or infinite numbers before anything was computed.");
      expect(tensor([1]).log().item()).toBe(0);
    } finally {
      setDebug(false);
    }
    expect(tensor([-1]).sqrt().add(1).item()).toBeNaN();
  });

  /** Does something in debug mode. */
  const debugging = <T>(action: () => T): T => {
    setDebug(true);
    try {
      return action();
    } finally {
      setDebug(false);
    }
  };

  test("names data and weights that were bad before, and gradients that became so", () => {
    const bad = new Parameter(Float32Array.of(1, NaN, Infinity), [3]);
    expect(failure(() => debugging(() => bad.mul(2))).message).toBe("[tensor] mul: (3): input 1 holds 2 NaN or infinite numbers before anything was computed.");
    expect(failure(() => debugging(() => F.mseLoss(ones([2]), tensor([1, -Infinity])))).message).toBe("[tensor] sub: (2) and (2): input 2 holds 1 NaN or infinite numbers before anything was computed.");
    const w = new Parameter(Float32Array.of(4, 0), [2]);
    expect(failure(() => debugging(() => w.sqrt().sum().backward())).message).toBe("[tensor] sqrt: (2): backward: 1 of 2 numbers of the gradient of input 1 are NaN or infinite, the first in this step.");
    w.zeroGrad();
    debugging(() => w.add(1).sqrt().sum().backward());
    for (const each of [bad, w]) each.release();
  });

  test("in a program that was captured in it, names what went wrong first in a run, and goes on with good data", async () => {
    const w = new Parameter(Float32Array.of(1, 1), [2]);
    const optimizer = new optim.SGD([w], { lr: 0.5 });
    const program = debugging(() => capture({ x: { shape: [2] } }, ({ x }) => {
      optimizer.zeroGrad();
      const loss = x.mul(w).log().sum();
      loss.backward();
      optimizer.step();
      return loss;
    }));
    const run = (...x: number[]): string => failure(() => program.runNow({ x: Float32Array.from(x) })).message;
    expect(run(1, NaN)).toBe("[tensor] mul: (2) and (2): input 1 (the program's input x) holds 1 NaN or infinite numbers before anything was computed.");
    expect(run(1, 0)).toBe("[tensor] log: (2): 1 of 2 results are NaN or infinite, the first in this step.");
    expect(await program.run({ x: Float32Array.of(0, 1) }).then(() => "", (error) => (error as Error).message)).toContain("log: (2): 1 of 2 results");
    expect([w.toList(), optimizer.steps]).toEqual([[1, 1], 0]);
    program.runNow({ x: Float32Array.of(1, 2) });
    expect([w.toList(), optimizer.steps]).toEqual([[0.5, 0.5], 1]);
    w.copy_(Float32Array.of(NaN, 1));
    expect(run(1, 1)).toBe("[tensor] mul: (2) and (2): input 2 holds 1 NaN or infinite numbers before anything was computed.");
    program.release();
    optimizer.release();
    w.release();
  });

  test("gives the same numbers as without it", () => {
    const w = new Parameter(Float32Array.from({ length: 12 }, (_, i) => i / 10), [4, 3]);
    const run = (): number[] => {
      w.zeroGrad();
      const loss = F.linearCrossEntropy(ones([2, 3]), w, tensor([1, 3], { dtype: "i32" }));
      loss.backward();
      return [loss.item(), ...w.grad!.toArray()];
    };
    expect(debugging(run)).toEqual(run());
    w.release();
  });
});
