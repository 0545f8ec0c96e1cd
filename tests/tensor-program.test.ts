// What surrounds the operations: memory of steps, captured programs, cancellation, checkpoints, threads; no leak, the same bits.
// Not the operations' results: tensor.test.ts. Read next: src/tensor/program.ts, src/tensor/device.ts.
import { afterAll, describe, expect, test } from "bun:test";
import { totalmem } from "node:os";
import { machine } from "../src/native/machine.ts";
import { capturing, emit, memory } from "../src/tensor/device.ts";
import * as F from "../src/tensor/functional.ts";
import { capture, flush, manualSeed, nn, noGrad, optim, Parameter, randn, tensor, trainingStep, useThreads, type Tensor } from "../src/tensor/egg.ts";
import { settleGradient } from "../src/tensor/value.ts";
import { failure } from "./failure.ts";

afterAll(() => useThreads(0));

/** A small model with most operations in it: embedding, norms, packed attention with rope, gates, dropout, fused loss. */
class Small {
  readonly parameters: Parameter[] = [];
  readonly width: number;
  constructor(readonly vocabulary = 11, width = 16, readonly p = 0.1) {
    this.width = width;
    const make = (...shape: number[]): Parameter => {
      const parameter = new Parameter(randn(shape, { seed: 100 + this.parameters.length }).mul(0.3), shape);
      this.parameters.push(parameter);
      return parameter;
    };
    make(vocabulary, width);
    make(width), make(2 * width, width), make(width, width); // norm, attention in (4 heads over 2), out
    make(width), make(width), make(4 * width, width), make(width, 2 * width); // norm with bias, gates, down
  }
  block(x: Tensor): Tensor {
    const [, n1, qkv, out, n2, b2, gates, down] = this.parameters as [Parameter, Parameter, Parameter, Parameter, Parameter, Parameter, Parameter, Parameter];
    const inner = F.attentionPacked(F.linear(F.rmsNorm(x, n1), qkv), { heads: 4, kvHeads: 2, rope: {} });
    const h = x.add(F.dropout(F.linear(inner, out), this.p, true));
    return h.add(F.linear(F.gatedPacked(F.linear(F.layerNorm(h, n2, b2), gates), "gelu"), down));
  }
  loss(ids: Tensor, targets: Tensor, wrap: (x: Tensor) => Tensor = (x) => this.block(x)): Tensor {
    return F.linearCrossEntropy(wrap(F.embedding(ids, this.parameters[0]!)), this.parameters[0]!, targets, { chunk: 16 });
  }
  /** Plain gradient descent over all parameters, as instructions. */
  update(settings: Parameter): void {
    for (const parameter of this.parameters) {
      settleGradient(parameter);
      emit("optimize", { w: parameter.memory, grad: parameter.gradient!.at, settings: settings.memory, count: parameter.numel, rule: "sgd", beta1: 0, beta2: 0, eps: 0, decay: 0 });
    }
  }
  zeroGrad(): void {
    for (const parameter of this.parameters) parameter.zeroGrad();
  }
  numbers(): number[][] {
    return this.parameters.map((parameter) => [...parameter.toArray()]);
  }
  gradients(): number[][] {
    return this.parameters.map((parameter) => [...parameter.grad!.toArray()]);
  }
  release(): void {
    for (const parameter of this.parameters) parameter.release();
  }
}

const ids = Int32Array.from({ length: 2 * 9 }, (_, i) => (i * 7) % 11);
const targets = Int32Array.from({ length: 2 * 9 }, (_, i) => (i * 5 + 3) % 11);
const batch = (): [Tensor, Tensor] => [tensor(ids, { shape: [2, 9] }), tensor(targets, { shape: [2, 9] })];
const settings = new Parameter(Float32Array.of(0.1, 1), [2], { requiresGrad: false });

/** Losses and weights of some steps, eager. `wide`: large enough that instructions are shared out among threads. */
function eager(steps: number, { wrap, wide = false }: { wrap?: (model: Small) => (x: Tensor) => Tensor; wide?: boolean } = {}): { losses: number[]; weights: number[][] } {
  manualSeed(5);
  const model = wide ? new Small(101, 32) : new Small();
  const [x, y] = [7, 5].map((factor) => tensor(Int32Array.from({ length: 5 * 67 }, (_, i) => (i * factor) % 101), { shape: [5, 67] })) as [Tensor, Tensor];
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) {
    model.zeroGrad();
    const loss = wide ? model.loss(x, y, wrap?.(model)) : model.loss(...batch(), wrap?.(model));
    loss.backward();
    model.update(settings);
    losses.push(loss.item());
  }
  const weights = model.numbers();
  model.release();
  return { losses, weights };
}

describe("a captured step", () => {
  test("gives the bits of the eager one, dropout included, step after step", async () => {
    const expected = eager(5);
    expect(expected.losses[4]!).toBeLessThan(expected.losses[0]!);
    manualSeed(5);
    const model = new Small();
    const program = capture({ x: { shape: [2, 9], dtype: "i32" }, y: { shape: [2, 9], dtype: "i32" } }, ({ x, y }) => {
      model.zeroGrad();
      const loss = model.loss(x, y);
      loss.backward();
      model.update(settings);
      return { loss };
    });
    const losses: number[] = [];
    for (let i = 0; i < 5; i++) {
      expect(await program.run({ x: ids, y: targets }, { timed: true })).toBe(true);
      losses.push(program.outputs.loss.item());
    }
    expect(losses).toEqual(expected.losses);
    expect(model.numbers()).toEqual(expected.weights);
    const profile = program.profile();
    expect(profile).toHaveLength(program.instructions);
    expect(new Set(profile.map(({ phase }) => phase))).toEqual(new Set(["forward", "backward"]));
    program.release();
    model.release();
  });

  test("adds gradients from run to run where it does not zero them", () => {
    const model = new Small(11, 16, 0);
    model.loss(...batch()).backward();
    const once = model.gradients();
    model.zeroGrad();
    const program = capture({ x: { shape: [2, 9], dtype: "i32" }, y: { shape: [2, 9], dtype: "i32" } }, ({ x, y }) => model.loss(x, y).backward());
    for (let i = 0; i < 3; i++) program.runNow({ x: ids, y: targets });
    model.gradients().forEach((gradient, i) => gradient.forEach((value, j) => expect(value).toBeCloseTo(3 * once[i]![j]!, 4)));
    program.release();
    model.release();
  });

  test("leaves an activation's slope to the product before it, where nothing else makes that gradient", () => {
    const [v, w] = [1, 2].map((seed) => new Parameter(randn([8, 8], { seed }), [8, 8])) as [Parameter, Parameter];
    const backward = (use: (h: Tensor) => Tensor): string[] => {
      const program = capture({ x: { shape: [5, 8] } }, ({ x }) => use(F.linear(x, v, null, "gelu")).sum().backward());
      const found = program.operations().filter(({ phase }) => phase === "backward").map(({ op }) => op);
      program.release();
      return found;
    };
    expect(backward((h) => F.linear(h, w))).not.toContain("binary");
    expect(backward((h) => h.matmul(w))).not.toContain("binary");
    for (const use of [(h: Tensor) => h.add(F.linear(h, w)), (h: Tensor) => F.linear(h, v).add(F.linear(h, w))]) expect(backward(use)).toContain("binary");
    for (const parameter of [v, w]) parameter.release();
  });

  test("takes less memory than all its results together", () => {
    const model = new Small();
    const program = capture({ x: { shape: [2, 9], dtype: "i32" } }, ({ x }) => {
      let h = F.embedding(x, model.parameters[0]!);
      for (let i = 0; i < 20; i++) h = noGrad(() => h.add(1));
      return { h };
    });
    expect(program.bytes).toBeLessThan(5 * 2 * 9 * 16 * 4);
    program.runNow({ x: ids });
    expect(program.outputs.h.toArray()[0]).toBeCloseTo(model.parameters[0]!.toArray()[0]! + 20, 5);
    program.release();
    model.release();
  });

  test("ids out of range end it as a data error that says where, and nothing is updated", async () => {
    const model = new Small();
    const before = model.numbers();
    let [begun, ended] = [0, 0];
    const program = capture({ x: { shape: [2, 9], dtype: "i32" }, y: { shape: [2, 9], dtype: "i32" } }, ({ x, y }) => {
      model.zeroGrad();
      model.loss(x, y).backward();
      capturing()!.aroundRun(() => begun++, () => ended++);
      model.update(settings);
    });
    const step = trainingStep();
    const cases = [
      [ids.with(5, 11), targets, "[tensor] embedding: id 11 in row 5 of the 18 that are computed together is not in the table, whose rows are 0 .. 10."],
      [ids.with(5, -1), targets, "[tensor] embedding: id -1 in row 5 of the 18 that are computed together is not in the table, whose rows are 0 .. 10."],
      [ids, targets.with(5, 11), "[tensor] crossEntropy: target 11 in row 5 of the 16 that are computed together is no class; they are 0 .. 10."],
    ] as const;
    for (const [x, y, words] of cases) {
      const error = await program.run({ x, y }).then(() => null, (reason) => reason as Error);
      expect(error).toMatchObject({ kind: "data" });
      expect(error!.message).toBe(words);
    }
    expect(model.numbers()).toEqual(before);
    expect([begun, ended, trainingStep()]).toEqual([3, 0, step]);
    expect(await program.run({ x: ids, y: targets })).toBe(true);
    expect([begun, ended, trainingStep()]).toEqual([4, 1, step + 1]);
    program.release();
    model.release();
  });

  test("is cancelled between instructions; the event loop runs meanwhile", async () => {
    const a = new Parameter(randn([256, 256], { seed: 1 }).mul(1 / 16), [256, 256], { requiresGrad: false });
    const program = capture({ x: { shape: [256, 256] } }, ({ x }) => {
      let y = x;
      for (let i = 0; i < 4000; i++) y = y.matmul(a);
      return { y };
    });
    const running = program.run({ x: a.toArray() as Float32Array });
    program.cancel();
    expect(await running).toBe(false);
    program.release();
    a.release();
  }, 60_000);

  test("refuses to read, to write, to nest, to run without an input, and says what died", () => {
    const x = { x: { shape: [2] } };
    expect(failure(() => capture(x, ({ x }) => x.add(1).item())).message).toContain("item: a tensor (2)");
    expect(failure(() => capture(x, ({ x }) => x.add(1).toArray())).message).toContain("values cannot be read while a program is captured");
    expect(failure(() => capture(x, () => settings.copy_(new Float32Array(2)))).message).toContain("cannot be written while a program is captured");
    expect(failure(() => capture(x, () => capture(x, ({ x }) => x))).message).toContain("another program is being captured");
    let kept: Tensor | null = null;
    const program = capture(x, ({ x }) => {
      kept = x.add(1);
    });
    expect(failure(() => program.runNow({} as never)).message).toContain("the input x (2) is missing");
    expect(failure(() => program.runNow({ x: new Float32Array(3) })).message).toContain("[tensor] program input x: 3 values in Float32Array for a f32 tensor (2), which takes 2 in Float32Array.");
    expect(failure(() => kept!.add(1)).message).toContain("died at the end of capture");
    program.release();
  });
});

describe("the same bits", () => {
  // Tiers that differ in integer instructions only have the float kernels of another.
  const tiers = machine().tiers.filter(({ name, available }) => available && name !== "avxvnni" && name !== "dotprod").map(({ name }) => name);
  test.each(tiers)("for 1 to 5 threads on %s", (tier) => {
    useThreads(1, tier);
    const expected = [eager(3), eager(1, { wide: true })];
    for (const threads of [2, 3, 4, 5]) {
      useThreads(threads, tier);
      expect([eager(3), eager(1, { wide: true })]).toEqual(expected);
    }
    useThreads(0);
  }, 60_000);

  test("with activations computed again in backward", () => {
    expect(eager(3, { wrap: (model) => (x) => F.checkpoint((h) => model.block(h!), x) })).toEqual(eager(3));
  });
});

describe("memory", () => {
  // EGG_STEPS=100000 for a long look.
  test("of a step is taken once: steps and noGrad calls do not grow it", () => {
    const steps = Number(process.env["EGG_STEPS"] ?? 300);
    const model = new Small();
    const round = (): void => {
      model.zeroGrad();
      model.loss(...batch()).backward();
      noGrad(() => model.loss(...batch())).item();
    };
    for (let i = 0; i < 3; i++) round();
    const before = memory();
    const resident = process.memoryUsage.rss();
    for (let i = 0; i < steps; i++) round();
    expect(memory()).toEqual(before);
    expect(process.memoryUsage.rss() - resident).toBeLessThan(200e6);
    model.release();
  }, 3_600_000);

  test("noGrad keeps what is returned, in arrays and objects too, until the step ends", () => {
    const kept = noGrad(() => {
      const a = tensor([1, 2]).add(1);
      return { a, list: [a.mul(2), tensor([5])], inner: a.add(7) };
    });
    expect([kept.a, ...kept.list, kept.inner].map((value) => value.toList())).toEqual([[2, 3], [4, 6], [5], [9, 10]]);
    const lost = noGrad(() => [tensor([1]).add(1)].map((value) => () => value))[0]!();
    expect(failure(() => lost.item()).message).toBe("[tensor] item: add of (1), a result (1), died at the end of noGrad(() => ...).");
  });

  test("of released parameters is used again, with gradients of zero", () => {
    const first = new Parameter(new Float32Array(1000).fill(3), [1000]);
    first.mul(2).sum().backward();
    const { offset } = first.memory;
    first.release();
    expect(failure(() => first.toArray()).message).toContain("was released");
    const second = new Parameter(null, [1000]);
    expect(second.memory.offset).toBe(offset);
    expect(second.toArray()).toEqual(new Float32Array(1000));
    expect(second.grad).toBeNull();
    settleGradient(second);
    flush();
    expect(second.grad!.toArray()).toEqual(new Float32Array(1000));
    second.release();
  });

  test("beyond the machine is refused before it is taken", () => {
    const shape = [2 ** 16 - 1, 2 ** 16]; // 17 GB
    const inputs = Object.fromEntries(Array.from({ length: Math.ceil(totalmem() / 17e9) + 1 }, (_, i) => [`x${i}`, { shape }]));
    const before = memory();
    const error = failure(() => capture(inputs, () => {}));
    expect(error.kind).toBe("resources");
    expect(error.message).toMatch(/^\[tensor\] this program: [\d,]+ bytes are needed, this machine has [\d,]+\.$/);
    expect(memory()).toEqual(before);
  });
});

describe("a program and what is around it", () => {
  const x = Float32Array.of(1, 2, 3, 4);

  test("does not run once a parameter, or an int8 weight, that it works on was released", async () => {
    const [w, q] = [new Parameter(x, [4]), new nn.QuantizedMatrix(1, 4)];
    const optimizer = new optim.SGD([w], { lr: 1 });
    const uses = [
      [capture({ x: { shape: [4] } }, ({ x }) => ({ y: x.mul(w) })), "(4)"],
      [capture({}, () => { optimizer.zeroGrad(); w.sum().backward(); optimizer.step(); }), "(4)"],
      [capture({}, () => optimizer.step()), "(4)"],
      [capture({ x: { shape: [1, 4] } }, ({ x }) => ({ y: noGrad(() => F.linear(x, q)) })), "(1, 4)"],
    ] as const;
    for (const [program] of uses) program.runNow({ x });
    for (const each of [w, q]) each.release();
    const others = [new Parameter(new Float32Array(4).fill(100), [4]), new Parameter(new Float32Array(16).fill(100), [16])];
    for (const [program, shape] of uses) {
      const error = failure(() => program.runNow({ x }));
      expect([error.kind, error.message]).toEqual(["usage", `[tensor] program: a parameter ${shape} that it works on was released.`]);
      await expect(program.run({ x })).rejects.toThrow("was released");
      program.release();
    }
    expect(others.map((each) => new Set(each.toArray()))).toEqual([new Set([100]), new Set([100])]);
    for (const each of [...others, optimizer]) each.release();
  });

  test("cannot be captured over results of the step around it", () => {
    const [h, kept] = [tensor(x).mul(5), noGrad(() => tensor(x).mul(5))];
    for (const value of [h, kept, h.detach(), h.reshape(2, 2)]) {
      const error = failure(() => capture({}, () => value.sum()));
      expect([error.kind, error.message]).toEqual(["usage", `[tensor] sum: ${value.origin.op} of (4), a result ${value.shape.length === 2 ? "(2, 2)" : "(4)"}, was computed outside the program that is captured and ends before it.`]);
      expect(error.hint).toContain("input of the program");
    }
    expect(h.toArray()).toEqual(x.map((value) => 5 * value)); // and they live on
  });

  test("leaves the tape around it alone", () => {
    const w = new Parameter(x, [4]);
    const loss = w.square().sum();
    const program = capture({}, () => { w.zeroGrad(); w.sum().backward(); });
    loss.backward();
    expect(w.grad!.toList()).toEqual([2, 4, 6, 8]);
    program.runNow({});
    expect(w.grad!.toList()).toEqual([1, 1, 1, 1]);
    program.release();
    w.release();
  });

  const slow = () => {
    const w = new Parameter(new Float32Array(256 * 256).fill(1 / 256), [256, 256]);
    const program = capture({ x: { shape: [256, 256] }, z: { shape: [4] } }, ({ x, z }) => {
      let h = x;
      for (let i = 0; i < 20; i++) h = h.matmul(w);
      return { y: h.mean(), z: z.sum(), noise: F.dropout(z, 0.5, true) };
    });
    const inputs = (value: number) => ({ x: new Float32Array(256 * 256).fill(value), z: new Float32Array(4).fill(value) });
    return { w, program, inputs };
  };

  test("runs once at a time: what is refused meanwhile has written nothing", async () => {
    const { w, program, inputs } = slow();
    const step = trainingStep();
    const run = program.run(inputs(1));
    for (const attempt of [() => program.runNow(inputs(7)), () => program.release()]) {
      const error = failure(attempt);
      expect([error.kind, error.message]).toEqual(["usage", expect.stringMatching(/^\[tensor\] program: (run|release): a program runs\.$/)]);
    }
    await expect(program.run(inputs(7))).rejects.toThrow("a program runs");
    expect(await run).toBe(true);
    expect([program.outputs.z.item(), trainingStep()]).toEqual([4, step + 1]);
    // Nor has one with a wrong input, though the first was right.
    for (const wrong of [new Float32Array(3), new Int32Array(4)]) expect(failure(() => program.runNow({ ...inputs(7), z: wrong as Float32Array })).message).toContain("program input z");
    expect([program.outputs.z.item(), trainingStep()]).toEqual([4, step + 1]);
    program.release();
    for (const use of [() => program.release(), () => program.runNow(inputs(1))]) expect(failure(use).message).toContain("it was released");
    w.release();
  });

  test("is waited for by what needs tensors meanwhile: nothing is lost, and a later write comes later", async () => {
    const { w, program, inputs } = slow();
    const before = tensor(x).mul(3);
    const run = program.run(inputs(1));
    expect(before.toList()).toEqual([3, 6, 9, 12]);
    expect(program.outputs.z.item()).toBe(4);
    expect(await run).toBe(true);
    const second = program.run(inputs(1));
    w.copy_(new Float32Array(256 * 256));
    expect(await second).toBe(true);
    expect(program.outputs.y.item()).toBe(1);
    const table = new Parameter(x, [2, 2]);
    const failing = capture({ ids: { shape: [1], dtype: "i32" } }, ({ ids }) => F.embedding(ids, table));
    const third = failing.run({ ids: Int32Array.of(9) });
    expect(tensor(x).sum().item()).toBe(10); // the fault is the run's
    await expect(third).rejects.toThrow("id");
    for (const each of [program, failing, w, table]) each.release();
  });
});

test("a cache is filled in place and read by attention", () => {
  const cache = new Parameter(null, [1, 4, 1, 2], { requiresGrad: false });
  noGrad(() => {
    for (let t = 0; t < 3; t++) F.assign(cache, 1, t, tensor([[[[t + 1, -t]]]]));
    expect(cache.toList()).toEqual([[[[1, -0]], [[2, -1]], [[3, -2]], [[0, 0]]]]);
    const q = tensor([[[[1, 0.5]]]]);
    const short = cache.narrow(1, 0, 3);
    expect(F.attention(q, cache, cache, { kvLength: 3 }).toArray()).toEqual(F.attention(q, short, short).toArray());
  });
  expect(failure(() => F.assign(cache, 1, 4, tensor([[[[1, 2]]]]))).message).toContain("assign: (1, 4, 1, 2) and (1, 1, 1, 2)");
  cache.release();
});

test.each([1, 2, 3])("instructions of no elements, at the end and alone, are done on %d threads", async (threads) => {
  useThreads(threads);
  const mixed = capture({ x: { shape: [400, 400] } }, ({ x }) => ({ y: x.exp(), none: x.narrow(0, 0, 0).exp() }));
  const empty = capture({ x: { shape: [0, 3] } }, ({ x }) => ({ y: x.exp() }));
  for (let i = 0; i < 20; i++) {
    expect(await mixed.run({ x: new Float32Array(160_000) })).toBe(true);
    expect(await empty.run({ x: new Float32Array(0) })).toBe(true);
  }
  expect(mixed.outputs.y.sum().item()).toBe(160_000);
  for (const program of [mixed, empty]) program.release();
  useThreads(0);
});

describe("patch", () => {
  test("one captured step generates at every position what fresh instructions give, and refuses what does not fit", () => {
    const room = 9;
    manualSeed(3);
    const layer = new nn.MultiHeadAttention(16, 2, { rope: {} });
    const rows = randn([room, 16], { seed: 8 }).toArray();
    const fresh = layer.cache(1, room);
    const expected = Array.from({ length: room }, (_, t) => noGrad(() => layer.forward(tensor(rows.subarray(16 * t, 16 * t + 16)).reshape(1, 1, 16), fresh)).toList());
    const cache = layer.cache(1, room);
    const step = capture({ x: { shape: [1, 1, 16] } }, ({ x }) => ({ y: noGrad(() => layer.forward(x, cache)) }));
    // Attention asks for the cache's length before each run, and patches where rows go and how many keys there are.
    const found = Array.from({ length: room }, (_, t) => {
      step.runNow({ x: rows.subarray(16 * t, 16 * t + 16) });
      return step.outputs.y.toList();
    });
    expect(found).toEqual(expected);
    const before = step.outputs.y.toList();
    const [rope, copy, attention] = ["rope", "copy", "attention"].map((name) => step.operations().findIndex(({ op }) => op === name)) as [number, number, number];
    expect(failure(() => step.patch(attention, "kv_len", 2 ** 31)).message).toContain("attention: k: ");
    expect(failure(() => step.patch(attention, "kv_len", 1.5)).message).toContain("attention: kv_len: 1.5 is not a u32");
    expect(failure(() => step.patch(copy, "y", 2 ** 45)).message).toContain("copy: y: 64 bytes at 35184372088832 reach past the arena's");
    expect(failure(() => step.patch(rope, "colour", 1)).message).toContain("(rope) has no colour");
    expect(failure(() => step.patch(step.instructions, "y", 1)).message).toContain("there is none");
    expect(failure(() => step.runNow({ x: rows.subarray(0, 16) })).message).toContain("1 positions after 9 do not fit the cache's 9");
    cache.rewind(room - 1);
    step.runNow({ x: rows.subarray(16 * (room - 1)) });
    expect(step.outputs.y.toList()).toEqual(before);
    step.release();
    for (const each of [fresh, cache]) each.release();
  });
});
