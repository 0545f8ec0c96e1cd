// What must be the same whatever way a transformer computes it: training without dropout, evaluation and cached decoding;
// accumulated and whole batches; with and without recomputation; eager and captured; one thread and three. And that every
// switch does something. Not the right numbers: transformer-golden.test.ts.
import { afterAll, describe, expect, test } from "bun:test";
import { transformerShape, type TransformerShape } from "../src/models/transformer-shape.ts";
import { Transformer } from "../src/models/transformer.ts";
import { capture, computeIn, manualSeed, noGrad, optim, tensor, useThreads, type Tensor } from "../src/tensor/egg.ts";

afterAll(() => useThreads(0));

const sizes = { vocabulary: 41, layers: 2, width: 24, heads: 4, block: 20, feedForward: 40 };
const gpt = transformerShape({ ...sizes, family: "gpt" });
const llama = transformerShape({ ...sizes, family: "llama", kvHeads: 2 });
/** Every switch away from both families' usual one, in some shape. */
const mixed = transformerShape({ ...sizes, family: "llama", kvHeads: 1, norm: "layer", position: "none", activation: "geglu", bias: true, tied: false, feedForward: 33 });
const odd = transformerShape({ ...sizes, family: "gpt", kvHeads: 2, norm: "rms", position: "rope", ropePairs: "interleaved", activation: "relu", bias: false, tied: false });
/** Heads of another width than width / heads, and scaled frequencies. */
const wide = transformerShape({ ...sizes, family: "llama", kvHeads: 2, headWidth: 10, ropeBase: 100, ropeFactor: 4, ropeOriginal: 12, ropeHigh: 3 });
const shapes = { gpt, llama, mixed, odd, wide };
const all = Object.entries(shapes);

const [batch, time] = [3, 17];
const drawn = (count: number, stream: number): Int32Array => Int32Array.from({ length: count }, (_, i) => ((i + 1) * 7919 + stream * 104729 + (i * i * 31) % 97) % sizes.vocabulary);
const ids = (rows = batch, length = time, stream = 0): Tensor => tensor(drawn(rows * length, stream), { shape: [rows, length] });
const [x, y] = [ids(), ids(batch, time, 1)];

/** A model, and its memory back at the end. */
function withModel<T>(shape: TransformerShape, use: (model: Transformer) => T, options: { recompute?: boolean; seed?: number } = {}): T {
  manualSeed(options.seed ?? 1);
  const model = new Transformer(shape, options);
  // First weights leave little to see: everything near 0, norms 1, biases 0.
  for (const [i, [name, parameter]] of model.namedParameters().entries()) {
    const noise = tensor(parameter.toArray().map((value, j) => value * 4 + 0.1 * Math.sin(i + 0.7 * j) * (name.endsWith("weight") && parameter.shape.length === 2 ? 1 : 3)) as Float32Array, { shape: parameter.shape });
    parameter.copy_(noise);
  }
  try {
    return use(model);
  } finally {
    model.release();
  }
}

const gradientsOf = (model: Transformer): [string, Float32Array][] => model.namedParameters().map(([name, parameter]) => [name, parameter.grad!.toArray() as Float32Array]);
const lossAndGradients = (model: Transformer): { loss: number; gradients: [string, Float32Array][] } => {
  model.zeroGrad();
  const loss = model.loss(x, y);
  loss.backward();
  return { loss: loss.item(), gradients: gradientsOf(model) };
};
const bits = (values: ArrayLike<number>): Uint32Array => new Uint32Array(Float32Array.from(values).buffer);

function expectClose(what: string, found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect([what, found.length]).toEqual([what, expected.length]);
  const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let i = 0; i < expected.length; i++) if (!(Math.abs(found[i]! - expected[i]!) <= tolerance * largest)) throw new Error(`${what}[${i}]: found ${found[i]}, expected ${expected[i]}, largest ${largest}`);
}

describe.each(all)("%s", (_, shape) => {
  test("training without dropout gives the bits of evaluation, cached decoding the same within 1e-5", () => {
    withModel(shape, (model) => {
      const trained = model.logits(x).toArray();
      const evaluated = noGrad(() => model.eval().logits(x)).toArray();
      expect(bits(trained)).toEqual(bits(evaluated));
      const caches = model.caches(batch, time);
      const steps = Array.from({ length: time }, (_, t) => noGrad(() => model.logits(x.narrow(1, t, 1), caches)).toArray());
      const { vocabulary } = shape;
      const decoded = Float32Array.from({ length: evaluated.length }, (_, i) => steps[Math.floor(i / vocabulary) % time]![Math.floor(i / vocabulary / time) * vocabulary + (i % vocabulary)]!);
      expectClose("decoded", decoded, evaluated, 1e-5);
      for (const cache of caches) cache.release();
    });
  });

  test("a captured step of decoding gives the bits of an eager one, at every place of the cache", () => {
    withModel(shape, (model) => {
      const caches = model.eval().caches(batch, time);
      const eager = Array.from({ length: time }, (_, t) => bits(noGrad(() => model.logits(x.narrow(1, t, 1), caches)).toArray()));
      for (const cache of caches) cache.rewind();
      const program = capture({ token: { shape: [batch, 1], dtype: "i32" } }, ({ token }) => ({ logits: noGrad(() => model.logits(token, caches)) }));
      const values = x.toArray() as Int32Array;
      const run = (t: number): Uint32Array => {
        program.runNow({ token: Int32Array.from({ length: batch }, (_, row) => values[row * time + t]!) });
        return bits(program.outputs.logits.toArray());
      };
      expect(Array.from({ length: time }, (_, t) => run(t))).toEqual(eager);
      expect(caches.map(({ length }) => length)).toEqual(caches.map(() => time));
      expect(() => run(0)).toThrow("1 positions after 17 do not fit the cache's 17");
      for (const cache of caches) cache.rewind(5);
      expect(run(5)).toEqual(eager[5]!);
      program.release();
      for (const cache of caches) cache.release();
    });
  });

  test("four batches accumulated are one batch of four, within 1e-6", () => {
    withModel(shape, (model) => {
      const [whole, targets] = [ids(8), ids(8, time, 1)];
      model.loss(whole, targets).backward();
      const expected = gradientsOf(model);
      model.zeroGrad();
      for (let part = 0; part < 4; part++) model.loss(whole.narrow(0, 2 * part, 2), targets.narrow(0, 2 * part, 2)).mul(1 / 4).backward();
      // What is rounding noise of larger sums (gradients of a key bias are 0 by theory) is measured by those.
      const largest = Math.max(...expected.flatMap(([, values]) => [...values].map(Math.abs)));
      for (const [i, [name, values]] of gradientsOf(model).entries()) {
        const most = Math.max(1e-3 * largest, ...[...expected[i]![1]].map(Math.abs));
        const worst = Math.max(...values.map((value, j) => Math.abs(value - expected[i]![1][j]!)));
        // Sums of what nearly cancels, such as a norm's gain, round more than that by themselves.
        expect([name, worst <= 1e-6 * largest && worst <= 5e-6 * most]).toEqual([name, true]);
      }
    });
  });

  test("recomputing layers gives the same bits, dropout included, in f32 and bf16", () => {
    for (const compute of ["f32", "bf16"] as const) {
      const found = [false, true].map((recompute) => withModel({ ...shape, dropout: 0.2 }, (model) => {
        manualSeed(5);
        const loss = computeIn(compute, () => model.loss(x, y));
        loss.backward(); // outside computeIn: recomputation must remember it
        return [bits([loss.item()]), ...gradientsOf(model).map(([, values]) => bits(values))];
      }, { recompute }));
      expect(found[1]).toEqual(found[0]!);
    }
  });

  test("three steps, captured or eager, with one thread or three, end in the same bits", () => {
    const ended = (threads: number, captured: boolean, recompute: boolean): Uint32Array[] => {
      useThreads(threads);
      return withModel({ ...shape, dropout: 0.1 }, (model) => {
        const optimizer = new optim.AdamW(model.namedParameters(), { lr: 1e-2, clip: 1, weightDecay: 0.1 });
        manualSeed(3); // the masks' steps are counted from here
        const step = (ids: Tensor, targets: Tensor): Tensor => {
          optimizer.zeroGrad();
          const loss = model.loss(ids, targets);
          loss.backward();
          optimizer.step();
          return loss;
        };
        const losses: number[] = [];
        if (captured) {
          const input = { shape: [batch, time], dtype: "i32" as const };
          const program = capture({ ids: input, targets: input }, ({ ids, targets }) => ({ loss: step(ids, targets) }));
          for (let i = 0; i < 3; i++) {
            program.runNow({ ids: drawn(batch * time, i), targets: drawn(batch * time, i + 1) });
            losses.push(program.outputs.loss.item());
          }
          program.release();
        } else for (let i = 0; i < 3; i++) losses.push(step(ids(batch, time, i), ids(batch, time, i + 1)).item());
        const result = [bits(losses), ...model.parameters().map((parameter) => bits(parameter.toArray()))];
        optimizer.release();
        return result;
      }, { recompute });
    };
    const expected = ended(1, false, false);
    for (const [threads, captured, recompute] of [[1, true, false], [3, false, false], [3, true, false], [3, true, true]] as const) expect(ended(threads, captured, recompute)).toEqual(expected);
    useThreads(0);
  });
});

test("recomputing layers takes less memory, the more so the more layers there are", () => {
  const bytes = (layers: number, recompute: boolean): number => withModel({ ...gpt, layers }, (model) => {
    const input = { shape: [8, 20], dtype: "i32" as const };
    const program = capture({ ids: input, targets: input }, ({ ids, targets }) => model.loss(ids, targets).backward());
    program.release();
    return program.bytes;
  }, { recompute });
  expect(bytes(6, true) / bytes(6, false)).toBeLessThan(0.4);
  const layer = (recompute: boolean): number => (bytes(8, recompute) - bytes(4, recompute)) / 4;
  expect(layer(true)).toBeLessThan(1.1 * 4 * 8 * 20 * gpt.width); // its input
  expect(layer(false)).toBeGreaterThan(8 * 4 * 8 * 20 * gpt.width);
});

test("without a tie, embedding and head train apart; with one, together", () => {
  withModel({ ...gpt, tied: false }, (model) => {
    const { gradients } = lossAndGradients(model);
    const [embedding, head] = ["embedding.weight", "head.weight"].map((name) => gradients.find(([each]) => each === name)![1]);
    expect(embedding!.some((value) => value !== 0)).toBe(true);
    expect(head!.some((value) => value !== 0)).toBe(true);
    expect(bits(embedding!)).not.toEqual(bits(head!));
    const before = [model.embedding.weight.toArray(), model.head!.weight.toArray()];
    const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
    optimizer.step();
    expect(model.embedding.weight.toArray()).not.toEqual(before[0]!);
    expect(model.head!.weight.toArray()).not.toEqual(before[1]!);
    optimizer.release();
  });
  withModel(gpt, (model) => {
    expect(model.head).toBeNull();
    expect(model.namedParameters().map(([name]) => name)).not.toContain("head.weight");
  });
});

describe("every switch changes the output", () => {
  const logitsOf = (shape: TransformerShape): Float32Array => withModel(shape, (model) => noGrad(() => model.eval().logits(x)).toArray() as Float32Array);
  const changes: [string, Partial<TransformerShape>][] = [
    ["norm", { norm: "rms" }], ["rope", { position: "rope" }], ["none", { position: "none" }], ["relu", { activation: "relu" }], ["swiglu", { activation: "swiglu" }],
    ["geglu", { activation: "geglu" }], ["bias", { bias: false }], ["kv heads", { kvHeads: 2 }], ["heads", { heads: 2, kvHeads: 2, headWidth: 12 }], ["head width", { headWidth: 8 }], ["tied", { tied: false }], ["eps", { normEps: 0.1 }],
  ];
  const base = logitsOf(gpt);
  test.each(changes)("%s", (_, change) => expect(bits(logitsOf({ ...gpt, ...change }))).not.toEqual(bits(base)));

  const turned = logitsOf({ ...gpt, position: "rope" });
  test.each([["rope base", { ropeBase: 100 }], ["rope pairs", { ropePairs: "interleaved" }], ["rope factor", { ropeFactor: 2 }]] as [string, Partial<TransformerShape>][])("%s", (_, change) =>
    expect(bits(logitsOf({ ...gpt, position: "rope", ...change }))).not.toEqual(bits(turned)));

  const scaled = logitsOf(wide);
  test.each([["rope original", { ropeOriginal: 24 }], ["rope low", { ropeLow: 0.5 }], ["rope high", { ropeHigh: 4 }]] as [string, Partial<TransformerShape>][])("%s", (_, change) =>
    expect(bits(logitsOf({ ...wide, ...change }))).not.toEqual(bits(scaled)));

  test("dropout: of the embedding, the attention and the feed-forward part, in training only", () => {
    withModel({ ...gpt, dropout: 0.3 }, (model) => {
      const parts = (): Uint32Array[] => noGrad(() => {
        const embedded = model.embed(x);
        const block = model.blocks[0]!;
        return [embedded, block.attention.forward(block.norm1.forward(embedded)), block.feedForward.forward(block.norm2.forward(embedded))];
      }).map((value) => bits(value.toArray()));
      const [first, second] = [parts(), parts()];
      first.forEach((part, i) => expect(part).not.toEqual(second[i]!));
      model.eval();
      expect(parts()).toEqual(parts());
      expect(bits(noGrad(() => model.logits(x)).toArray())).toEqual(bits(base));
    });
  });
});

describe("first weights", () => {
  test("N(0, 0.02), what ends on the residual stream divided by sqrt(2 layers), norms 1, biases 0", () => {
    manualSeed(2);
    const model = new Transformer(transformerShape({ family: "gpt", vocabulary: 600, layers: 8, width: 96, heads: 4, block: 300, tied: false }));
    for (const [name, parameter] of model.namedParameters()) {
      const values = parameter.toArray() as Float32Array;
      if (parameter.shape.length === 1) {
        expect(new Set(values)).toEqual(new Set([name.endsWith("bias") ? 0 : 1]));
        continue;
      }
      const std = /\.(out|down)\./.test(name) ? 0.02 / 4 : 0.02;
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
      expect([name, Math.abs(mean) < (5 * std) / Math.sqrt(values.length), Math.abs(deviation / std - 1) < 5 / Math.sqrt(2 * values.length)]).toEqual([name, true, true]);
    }
    model.release();
  });

  test("follow from the seed, and no two parameters share a stretch", () => {
    const made = (seed: number): number[] => {
      manualSeed(seed);
      const model = new Transformer(llama);
      const values = model.parameters().filter(({ shape }) => shape.length === 2).flatMap((parameter) => [...parameter.toArray()]);
      model.release();
      return values;
    };
    const first = made(1);
    expect(made(1)).toEqual(first);
    expect(new Set([...first, ...made(2)]).size).toBeGreaterThan(1.99 * first.length);
  });
});
