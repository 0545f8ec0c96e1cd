// Layers and models: names, shapes, first values, training and evaluating, state, caches, errors; and a Llama put together
// from them against golden vectors. Not the operations: tensor.test.ts. Read next: src/tensor/nn.ts, src/tensor/nn-module.ts.
import { describe, expect, test } from "bun:test";
import { totalmem } from "node:os";
import { join } from "node:path";
import { functional as F, manualSeed, nn, noGrad, ones, optim, Parameter, randn, setDebug, tensor, zeros, type Tensor } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";
import golden from "./golden/llama-tiny.json";
import { readSafetensors, root } from "./program.ts";

const spread = (values: ArrayLike<number>): { mean: number; deviation: number; distinct: number } => {
  const all = Array.from(values);
  const mean = all.reduce((a, b) => a + b, 0) / all.length;
  return { mean, deviation: Math.sqrt(all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / all.length), distinct: new Set(all).size };
};

describe("first values", () => {
  test("of Linear are PyTorch's: uniform within 1 / sqrt(inputs)", () => {
    manualSeed(1);
    const { weight, bias } = new nn.Linear(64, 500);
    for (const part of [weight, bias!]) {
      const values = part.toArray();
      expect(Math.max(...values)).toBeLessThan(1 / 8);
      expect(Math.min(...values)).toBeGreaterThanOrEqual(-1 / 8);
      const { mean, deviation } = spread(values);
      expect(Math.abs(mean)).toBeLessThan(5 / 8 / Math.sqrt(3 * values.length));
      expect(deviation).toBeWithin(0.94 / 8 / Math.sqrt(3), 1.06 / 8 / Math.sqrt(3));
    }
  });

  test("with std are N(0, std), biases 0, norms 1; embeddings N(0, 1)", () => {
    manualSeed(1);
    const model = new nn.MLP(128, { std: 0.02, outStd: 0.005 });
    const found = { up: spread(model.up.weight.toArray()), down: spread(model.down.weight.toArray()), table: spread(new nn.Embedding(300, 100).weight.toArray()) };
    for (const [{ mean, deviation, distinct }, std, count] of [[found.up, 0.02, 65536], [found.down, 0.005, 65536], [found.table, 1, 30000]] as const) {
      expect(Math.abs(mean)).toBeLessThan((5 * std) / Math.sqrt(count));
      expect(Math.abs(deviation / std - 1)).toBeLessThan(5 / Math.sqrt(2 * count));
      expect(distinct).toBeGreaterThan(0.99 * count);
    }
    expect(new Set([...model.up.bias!.toArray(), ...model.down.bias!.toArray()])).toEqual(new Set([0]));
    const norm = new nn.LayerNorm(5);
    expect([norm.weight.toList(), norm.bias!.toList(), new nn.RMSNorm(2).weight.toList()]).toEqual([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1]]);
  });

  test("follow from the seed and the order, and no two parameters share a stretch", () => {
    const made = (seed: number): Record<string, unknown> => {
      manualSeed(seed);
      return Object.fromEntries(Object.entries(new nn.Sequential(new nn.Linear(20, 30), new nn.Linear(20, 30)).stateDict()).map(([name, value]) => [name, value.toList()]));
    };
    expect(made(4)).toEqual(made(4));
    const values = [4, 5].flatMap((seed) => Object.values(made(seed)).flat(2)) as number[];
    expect(new Set(values).size).toBeGreaterThan(0.999 * values.length);
  });
});

describe("a module", () => {
  class Block extends nn.Module {
    readonly norm = new nn.LayerNorm(4);
    readonly layers = [new nn.Linear(4, 4), new nn.Sequential(new nn.Activation("relu"), new nn.Dropout(0.5), new nn.Linear(4, 4, { bias: false }))];
    readonly scale = new Parameter(Float32Array.of(2), []);
    readonly tied = this.layers[0];
    readonly steps = 3;
    override forward(x: Tensor): Tensor {
      return this.layers.reduce((h, layer) => layer.forward(h), this.norm.forward(x)).mul(this.scale);
    }
  }

  test("names its parameters by the way to them, each once", () => {
    const block = new Block();
    const names = ["scale", "norm.weight", "norm.bias", "layers.0.weight", "layers.0.bias", "layers.1.2.weight"];
    expect(block.namedParameters().map(([name]) => name)).toEqual(names);
    expect(Object.keys(block.stateDict())).toEqual(names);
    expect(block.parameterCount).toBe(1 + 4 + 4 + 16 + 4 + 16);
    expect(block.namedModules().map(([name]) => name)).toEqual(["", "norm", "layers.0", "layers.1", "layers.1.0", "layers.1.1", "layers.1.2"]);
    block.release();
  });

  test("trains and evaluates: dropout inside follows", () => {
    const block = new Block();
    const run = (): number[] => noGrad(() => [...block.forward(randn([3, 4], { seed: 2 })).toArray()]);
    expect(run()).not.toEqual(run());
    expect(block.eval()).toBe(block);
    expect(block.layers[1]!.training).toBe(false);
    expect(run()).toEqual(run());
    block.train();
    expect(run()).not.toEqual(run());
    block.release();
  });

  test("loads what it saved, bf16 too, and the copy does not change with it", () => {
    class Both extends nn.Module {
      readonly a = new nn.Linear(3, 2);
      readonly half = new Parameter(Uint16Array.of(0x3f81, 0xc0ff), [2], { requiresGrad: false, dtype: "bf16" });
      override forward(): void {}
    }
    manualSeed(1);
    const [one, two] = [new Both(), new Both()];
    two.half.copy_(new Uint16Array(2));
    const state = one.stateDict();
    const before = state["a.weight"]!.toList();
    two.loadStateDict(state);
    one.a.weight.copy_(new Float32Array(6));
    expect(state["a.weight"]!.toList()).toEqual(before);
    expect(two.a.weight.toList()).toEqual(before);
    expect(two.half.toArray()).toEqual(Float32Array.of(1.0078125, -7.96875));
    for (const each of [one, two]) each.release();
  });

  test("lists all that does not fit, and loads nothing then", () => {
    const model = new nn.Sequential(new nn.Linear(3, 2), new nn.Linear(2, 1));
    const before = model.stateDict();
    const { "0.bias": _, ...state } = before;
    const error = failure(() => model.loadStateDict({ "0.weight": zeros([2, 3]), "1.weight": ones([2, 1]), "1.bias": ones([2]), other: ones([1]) }));
    expect(error.kind).toBe("data");
    expect(error.message).toBe("[nn] loadStateDict: missing: 0.bias; extra: other; wrong shape: 1.weight is (2, 1), expected (1, 2), 1.bias is (2), expected (1).");
    expect(failure(() => model.loadStateDict({ ...state, "0.bias": zeros([2], { dtype: "i32" }) })).message).toContain("wrong type: 0.bias is i32, expected f32");
    expect(failure(() => model.loadStateDict(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`x${i}`, ones([1])])))).message).toContain("x19 and 30 more");
    const last = { ...before, "0.weight": ones([2, 3]), "1.bias": ones([1], { requiresGrad: true }).mul(1) };
    last["1.bias"].sum().backward();
    expect(failure(() => model.loadStateDict(last)).message).toContain("died at backward()");
    expect(model.stateDict()).toEqual(before);
    model.release();
  });

  test("cannot be used when it is released", () => {
    const layer = new nn.Linear(2, 2);
    layer.release();
    expect(failure(() => layer.forward(ones([1, 2]))).message).toContain("was released");
  });
});

const refused: [string, () => unknown, string][] = [
  ["inputs of a wrong width", () => new nn.Linear(3, 2).forward(ones([4, 5])), "[tensor] linear: (4, 5) and (2, 3) and (2): the last axis of x must be the weight's 3 inputs."],
  ["sizes that are none", () => new nn.Linear(2.5, 2), "[tensor] Parameter: (2, 2.5) is not a shape; sizes are whole numbers from 0."],
  ["sizes that overflow", () => new nn.Linear(2 ** 20, 2 ** 20), "(1048576, 1048576) has more than 4,294,967,295 elements"],
  ["a dropout that is no probability", () => new nn.Dropout(1.5), "[nn] Dropout: p = 1.5 is not a probability."],
  ["heads that do not divide", () => new nn.MultiHeadAttention(10, 3), "[nn] MultiHeadAttention: 3 heads do not divide the width 10."],
  ["kv heads that do not divide", () => new nn.MultiHeadAttention(12, 4, { kvHeads: 3 }), "4 heads cannot share 3 kv heads evenly"],
  ["rotary positions of odd heads", () => new nn.MultiHeadAttention(9, 3, { rope: {} }), "heads of an even width, found 3"],
  ["a cache with gradients", () => { const layer = new nn.MultiHeadAttention(4, 2); layer.forward(ones([1, 1, 4]), layer.cache(1, 2)); }, "a cache has no gradients"],
  ["a full cache", () => { const layer = new nn.MultiHeadAttention(4, 2); noGrad(() => layer.forward(ones([1, 3, 4]), layer.cache(1, 2))); }, "3 positions after 0 do not fit the cache's 2"],
];
test.each(refused)("refused: %s", (_, action, words) => expect(failure(action).message).toContain(words));

test.skipIf(totalmem() > 30e9)("refused: memory beyond the machine, before anything is drawn", () => {
  const error = failure(() => new nn.Linear(65535, 65535));
  expect(error.kind).toBe("resources");
  expect(error.message).toMatch(/^\[tensor\] parameters: [\d,]+ bytes are needed, this machine has [\d,]+\.$/);
});

test("debug mode names a layer's operation where weights are not finite", () => {
  const layer = new nn.Linear(2, 1);
  layer.weight.copy_(Float32Array.of(1, NaN));
  setDebug(true);
  try {
    const error = failure(() => layer.forward(ones([1, 2])));
    expect(error.kind).toBe("numeric");
    expect(error.message).toBe("[tensor] linear: (1, 2) and (1, 2) and (1): input 2 holds 1 NaN or infinite numbers before anything was computed.");
  } finally {
    setDebug(false);
    layer.release();
  }
});

// ---- layers against what they are made of

const expectClose = (what: string, found: ArrayLike<number>, expected: ArrayLike<number>): void => {
  expect(found.length).toBe(expected.length);
  const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let i = 0; i < expected.length; i++) if (!(Math.abs(found[i]! - expected[i]!) <= 1e-5 * largest)) throw new Error(`${what}[${i}]: found ${found[i]}, expected ${expected[i]}, largest ${largest}`);
};

describe("MLP and attention", () => {
  test("with gates is down(silu(gate x) up x)", () => {
    const mlp = new nn.MLP(6, { hidden: 5, gated: true, activation: "silu" });
    const x = randn([3, 6], { seed: 1 });
    const [gate, up] = [0, 5].map((first) => F.linear(x, mlp.up.weight.narrow(0, first, 5)));
    const expected = F.linear(gate!.silu().mul(up!), mlp.down.weight).toArray();
    expectClose("mlp", mlp.forward(x).toArray(), expected);
    mlp.release();
  });

  test.each([{ kvHeads: 4, rope: null, causal: false }, { kvHeads: 2, rope: {}, causal: true }, { kvHeads: 1, rope: { pairs: "half", base: 500 }, causal: true }] as const)("heads as softmax over scores, %p", ({ kvHeads, rope, causal }) => {
    const [batch, time, heads, d] = [2, 5, 4, 6];
    const layer = new nn.MultiHeadAttention(24, heads, { kvHeads, rope, causal });
    const x = randn([batch, time, 24], { seed: 3 });
    const found = noGrad(() => layer.forward(x).toArray());
    const expected = noGrad(() => {
      const packed = F.linear(x, layer.qkv.weight, layer.qkv.bias);
      const part = (first: number, count: number, turn: boolean): Tensor => {
        const value = packed.narrow(2, first * d, count * d).reshape(batch, time, count, d);
        return (turn && rope !== null ? F.rope(value, rope) : value).transpose(1, 2);
      };
      const repeated = (value: Tensor): Tensor => value.unsqueeze(2).expand(batch, kvHeads, heads / kvHeads, time, d).reshape(batch, heads, time, d);
      const scores = part(0, heads, true).matmul(repeated(part(heads, kvHeads, true)), { transposeB: true }).mul(1 / Math.sqrt(d));
      const hidden = tensor(Float32Array.from({ length: time * time }, (_, i) => (causal && i % time > Math.floor(i / time) ? -1e9 : 0)), { shape: [time, time] });
      const mixed = scores.add(hidden).softmax().matmul(repeated(part(heads + kvHeads, kvHeads, false)));
      return F.linear(mixed.transpose(1, 2).reshape(batch, time, heads * d), layer.out.weight, layer.out.bias).toArray();
    });
    expectClose("attention", found, expected);
    layer.release();
  });

  test("with a cache, piece by piece and after going back, gives what it gives in one go", () => {
    const layer = new nn.MultiHeadAttention(16, 4, { kvHeads: 2, rope: {} });
    const x = randn([2, 7, 16], { seed: 3 });
    const whole = noGrad(() => layer.forward(x).toArray());
    const cache = layer.cache(2, 9);
    const pieces = (...ends: number[]): ArrayLike<number> => noGrad(() => {
      const rows: Float32Array[][] = [[], []];
      for (const end of ends) {
        const start = cache.length;
        const y = noGrad(() => layer.forward(x.narrow(1, start, end - start), cache)).toArray() as Float32Array;
        const half = y.length / 2;
        rows[0]!.push(y.slice(0, half));
        rows[1]!.push(y.slice(half));
      }
      return rows.flat().flatMap((row) => [...row]);
    });
    expectClose("one by one", pieces(1, 2, 3, 4, 5, 6, 7), whole);
    cache.rewind();
    expectClose("prompt, then one by one", pieces(4, 5, 6, 7), whole);
    cache.rewind(3);
    expect(failure(() => cache.rewind(4)).message).toContain("cannot go back to 4; 3 positions are filled");
    const rest = pieces(7);
    expectClose("the rest", rest, [...whole.slice(48, 112), ...whole.slice(112 + 48)]);
    cache.release();
    layer.release();
  });
});

describe("a Llama put together", () => {
  const { tensors } = readSafetensors(join(root, "tests/golden/llama-tiny.safetensors"));
  const floats = (name: string): Float32Array => new Float32Array(tensors.get(name)!.data.slice().buffer);
  const integers = (name: string): Int32Array => new Int32Array(tensors.get(name)!.data.slice().buffer);
  const { V, D, L, H, K, I, T, norm_eps: eps } = golden.config;

  class Block extends nn.Module {
    readonly norm1 = new nn.RMSNorm(D, { eps });
    readonly attention = new nn.MultiHeadAttention(D, H, { kvHeads: K, bias: false, rope: {} });
    readonly norm2 = new nn.RMSNorm(D, { eps });
    readonly mlp = new nn.MLP(D, { hidden: I, gated: true, activation: "silu" });
    override forward(x: Tensor, cache: nn.KeyValueCache | null = null): Tensor {
      const h = x.add(this.attention.forward(this.norm1.forward(x), cache));
      return h.add(this.mlp.forward(this.norm2.forward(h)));
    }
  }
  class Llama extends nn.Module {
    readonly embed = new nn.Embedding(V, D);
    readonly layers = Array.from({ length: L }, () => new Block());
    readonly norm = new nn.RMSNorm(D, { eps });
    override forward(ids: Tensor, caches: nn.KeyValueCache[] = []): Tensor {
      return this.norm.forward(this.layers.reduce((h, layer, i) => layer.forward(h, caches[i]), this.embed.forward(ids)));
    }
  }
  /** Golden tensors by the names here, rows packed. */
  const state = (from: string): Record<string, Tensor> => {
    const packed = (...names: string[]): Tensor => {
      const values = Float32Array.from(names.flatMap((name) => [...floats(`${from}.${name}.weight`)]));
      const shape = tensors.get(`${from}.${names[0]}.weight`)!.shape;
      return tensor(values, { shape: shape.length === 1 ? shape : [values.length / shape[1]!, shape[1]!] });
    };
    const layers = Array.from({ length: L }, (_, i) => `layers.${i}`).flatMap((at): [string, Tensor][] => [
      [`${at}.norm1.weight`, packed(`${at}.norm1`)], [`${at}.attention.qkv.weight`, packed(`${at}.wq`, `${at}.wk`, `${at}.wv`)], [`${at}.attention.out.weight`, packed(`${at}.wo`)],
      [`${at}.norm2.weight`, packed(`${at}.norm2`)], [`${at}.mlp.up.weight`, packed(`${at}.gate`, `${at}.up`)], [`${at}.mlp.down.weight`, packed(`${at}.down`)],
    ]);
    return Object.fromEntries([["embed.weight", packed("embed")], ...layers, ["norm.weight", packed("norm")]]);
  };
  const model = new Llama();
  model.loadStateDict(state("weights"));
  const tokens = tensor(integers("tokens"), { shape: [golden.batch, T] });
  const targets = tensor(integers("targets"), { shape: [golden.batch, T] });

  test("has the golden logits, loss and gradients", () => {
    const logits = F.linear(model.forward(tokens), model.embed.weight);
    expectClose("logits", logits.toArray(), floats("logits"));
    const loss = F.crossEntropy(logits, targets);
    expect(Math.abs(loss.item() / golden.loss - 1)).toBeLessThan(1e-5);
    loss.backward();
    const expected = state("grads");
    for (const [name, parameter] of model.namedParameters()) expectClose(name, parameter.grad!.toArray(), expected[name]!.toArray());
    model.zeroGrad();
    F.linearCrossEntropy(model.forward(tokens), model.embed.weight, targets, { chunk: 5 }).backward();
    for (const [name, parameter] of model.namedParameters()) expectClose(`fused, ${name}`, parameter.grad!.toArray(), expected[name]!.toArray());
  });

  test.each(["adamw", "lion", "sgd"] as const)("trains as the golden %s does, with clipping and decay of matrices", (rule) => {
    model.loadStateDict(state("weights"));
    const { settings, losses, ...rest } = golden.optimizers[rule];
    const { lr, clip, beta1, beta2, momentum, weight_decay: weightDecay } = settings as { lr: number; clip: number | null; beta1?: number; beta2?: number; momentum?: number; weight_decay?: number };
    const common = { lr, clip: clip ?? 0, weightDecay: weightDecay ?? 0 };
    const betas = [beta1!, beta2!] as const;
    const optimizer = rule === "sgd" ? new optim.SGD(model.parameters(), { ...common, momentum }) : new optim[rule === "adamw" ? "AdamW" : "Lion"](model.parameters(), { ...common, betas });
    const found = losses.map((_, step) => {
      optimizer.zeroGrad();
      const loss = F.linearCrossEntropy(model.forward(tokens), model.embed.weight, targets);
      loss.backward();
      if (step < losses.length - 1) {
        optimizer.step();
        expect(Math.abs(optimizer.gradientNorm() / rest.grad_norms[step]! - 1)).toBeLessThan(1e-4);
      }
      return loss.item();
    });
    losses.forEach((loss, i) => expect(Math.abs(found[i]! / loss - 1)).toBeLessThan(1e-5));
    const expected = state(rule);
    const exempt = "exempt" in rest ? rest.exempt.length : 0;
    let off = 0;
    for (const [name, parameter] of model.namedParameters()) {
      const [values, wanted] = [parameter.toArray(), expected[name]!.toArray()];
      const largest = Math.max(...[...wanted].map(Math.abs));
      const allowed = Math.max(1e-5 * largest, rule === "adamw" ? 0.05 * lr : 0);
      off += values.filter((value, i) => Math.abs(value - wanted[i]!) > allowed).length;
    }
    expect(off).toBeLessThanOrEqual(exempt);
    optimizer.release();
    model.loadStateDict(state("weights"));
  });

  test("generates the golden tokens with caches", () => {
    const caches = model.layers.map(({ attention }) => attention.cache(1, 32));
    const { prompt, tokens: expected } = golden.generate;
    const text = [...prompt];
    while (text.length < expected.length) {
      const ids = tensor(Int32Array.from(text.slice(caches[0]!.length)), { shape: [1, text.length - caches[0]!.length] });
      text.push(noGrad(() => {
        const h = model.forward(ids, caches);
        return F.linear(h.narrow(1, ids.numel - 1, 1), model.embed.weight).argmax().item();
      }));
    }
    expect(text).toEqual(expected);
    for (const cache of caches) cache.release();
  });
});

test("the library's sources type-check in a project that is stricter than this one", () => {
  const options = ["strict", "exactOptionalPropertyTypes", "noPropertyAccessFromIndexSignature", "noImplicitReturns", "noImplicitOverride", "noUncheckedIndexedAccess", "isolatedModules"];
  const { exitCode, stdout } = Bun.spawnSync([process.execPath, "check", ...options.map((name) => `--${name}`), "src/tensor/egg.ts"], { cwd: root });
  expect({ exitCode, said: stdout.toString() }).toMatchObject({ exitCode: 0 });
});
