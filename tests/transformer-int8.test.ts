// Int8 weights with a scale a row: how far they move, which do, what products and models make of them, and --weights int8.
// Not the int8 models of EGGROLL (integers.test.ts). Read next: src/tensor/quantized.ts.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCorpus } from "../src/data/corpus.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { openTextModel } from "../src/models/text-model.ts";
import { loadTransformer, saveTransformer } from "../src/models/transformer-names.ts";
import { bytesNow, piecesOf } from "../src/models/tensors.ts";
import { transformerShape } from "../src/models/transformer-shape.ts";
import { Transformer } from "../src/models/transformer.ts";
import { openContext } from "../src/native/machine.ts";
import { loadLatest } from "../src/run/checkpoint.ts";
import { functional as F, manualSeed, nn, noGrad, tensor, useThreads } from "../src/tensor/egg.ts";
import { quantizeRows } from "../src/tensor/quantized.ts";
import { freshFolder, onlyRun, run, sets, tiny } from "./program.ts";

setDefaultTimeout(60_000);

describe("a row", () => {
  test("has its largest at 127, nothing further off than half a scale, and the nearest for each", () => {
    const random = seededRandom(8);
    const columns = 37;
    const values = Float32Array.from({ length: 50 * columns }, (_, i) => (random() - 0.5) * 10 ** ((i % 50) / 5 - 6));
    const { q, scales } = quantizeRows(values, columns);
    for (let row = 0; row < 50; row++) {
      const part = values.subarray(row * columns, (row + 1) * columns);
      expect(scales[row]).toBe(Math.fround(Math.max(...part.map(Math.abs)) / 127));
      const own = q.subarray(row * columns, (row + 1) * columns);
      expect(Math.max(...own.map(Math.abs))).toBe(127);
      for (const [i, value] of part.entries()) expect(Math.abs(value - own[i]! * scales[row]!)).toBeLessThanOrEqual(scales[row]! * 0.5000001);
    }
  });

  test("of zeros stays, and rows have nothing to do with each other", () => {
    expect(quantizeRows(Float32Array.of(0, -0, 0, 127, -63.5, 1), 3)).toEqual({ q: Int8Array.of(0, 0, 0, 127, -63, 1), scales: Float32Array.of(0, 1) });
  });
});

describe("products and look-ups", () => {
  const random = seededRandom(21);
  const values = (count: number, size = 1): Float32Array<ArrayBuffer> => Float32Array.from({ length: count }, () => (2 * random() - 1) * size);

  /** Rows of x with the numbers that the matrix stands for, in f64. */
  const expected = (x: Float32Array, weights: Float32Array, [n, k]: readonly [number, number], bias: Float32Array | null): number[] =>
    Array.from({ length: (x.length / k) * n }, (_, at) => {
      const [row, out] = [Math.floor(at / n), at % n];
      let sum = bias === null ? 0 : bias[out]!;
      for (let i = 0; i < k; i++) sum += x[row * k + i]! * weights[out * k + i]!;
      return sum;
    });

  test.each([[1, 33, 65], [3, 9, 130], [70, 12, 31]])("%p rows, %p outputs, %p inputs: against f64", (m, n, k) => {
    const matrix = new nn.QuantizedMatrix(n, k);
    matrix.writeRange(0, values(n * k, 0.1));
    const weights = new Float32Array(n * k);
    matrix.readRange(0, weights);
    const [x, bias] = [values(m * k), values(n)];
    for (const withBias of [true, false]) {
      const plain = expected(x, weights, [n, k], withBias ? bias : null);
      for (const [activation, function_] of [["none", (v: number) => v], ["relu", (v: number) => Math.max(0, v)], ["silu", (v: number) => v / (1 + Math.exp(-v))]] as const) {
        const y = noGrad(() => F.linear(tensor(x, { shape: [m, k] }), matrix, withBias ? tensor(bias) : null, activation)).toArray();
        expect(y.length).toBe(m * n);
        for (const [i, value] of plain.entries()) expect(Math.abs(y[i]! - function_(value))).toBeLessThan(2e-6 * Math.sqrt(k));
      }
    }
    const ids = Int32Array.from({ length: 5 }, (_, i) => (i * 7) % n);
    const rows = noGrad(() => F.embedding(tensor(ids), matrix)).toArray();
    for (const [i, id] of ids.entries()) expect(rows.slice(i * k, (i + 1) * k)).toEqual(weights.slice(id * k, (id + 1) * k));
    matrix.release();
    expect(() => F.embedding(tensor(ids), matrix)).toThrow("were released");
  });

  test("a loss over chunks is that of all logits at once", () => {
    const [rows, classes, width] = [11, 40, 24];
    const matrix = new nn.QuantizedMatrix(classes, width);
    matrix.writeRange(0, values(classes * width));
    const targets = Int32Array.from({ length: rows }, (_, i) => (i === 3 ? -100 : (i * 13) % classes));
    const x = tensor(values(rows * width), { shape: [rows, width] });
    for (const reduction of ["mean", "sum"] as const) {
      const whole = noGrad(() => F.crossEntropy(F.linear(x, matrix), tensor(targets), { reduction })).item();
      for (const chunk of [1, 4, 64]) expect(noGrad(() => F.linearCrossEntropy(x, matrix, tensor(targets), { reduction, chunk })).item()).toBeCloseTo(whole, 4);
    }
    matrix.release();
  });

  test("no gradient goes through, and no rows by halves", () => {
    const layer = new nn.Linear(8, 3, { int8: true });
    const x = tensor(values(16), { shape: [2, 8], requiresGrad: true });
    expect(() => layer.forward(x)).toThrow("no gradients");
    const bias = [...layer.bias!.toArray()];
    expect([...noGrad(() => layer.forward(x)).toArray()]).toEqual([...bias, ...bias]);
    expect(() => layer.weight).toThrow("its weights are int8");
    expect(layer.namedParameters().map(([name]) => name)).toEqual(["bias"]);
    expect(() => layer.int8!.writeRange(4, values(8))).toThrow("whole rows");
    expect(() => layer.int8!.writeRange(0, Float32Array.of(NaN, 0, 0, 0, 0, 0, 0, 0))).toThrow(expect.objectContaining({ kind: "numeric" }));
    expect(() => F.linear(tensor(values(7), { shape: [1, 7] }), layer.int8!)).toThrow("8 inputs");
  });
});

describe.each([["gpt", true], ["llama", true], ["llama", false]] as const)("a model of %s, tied %p", (family, tied) => {
  const shape = transformerShape({ family, vocabulary: 40, layers: 2, width: 16, heads: 2, block: 8, tied });
  manualSeed(3);
  const exact = new Transformer(shape);
  // As a checkpoint has it, so that rotary halves and transposed matrices go the whole way.
  const saved = new Map([...saveTransformer(exact)].map(([name, each]) => [name, { dtype: each.dtype, shape: each.shape, data: Buffer.concat(piecesOf(each).map((piece) => bytesNow(piece).slice())) }]));
  const int8 = new Transformer(shape, { empty: true, int8: true });
  loadTransformer(int8, saved);
  /** f32 with the numbers that int8 stands for. */
  const rounded = new Transformer(shape, { empty: true });
  const contents = (weights: nn.Parameter | nn.QuantizedMatrix): Float32Array => {
    const values = new Float32Array(weights.numel);
    weights.readRange(0, values);
    return values;
  };
  const weights = new Map(int8.namedWeights());
  for (const [name, parameter] of rounded.namedParameters()) parameter.copy_(contents(weights.get(name)!));
  afterAll(() => [exact, int8, rounded].forEach((model) => model.release()));

  test("has int8 where products read, all of it, and nothing else", () => {
    const quantized = [...weights].filter(([, each]) => each instanceof nn.QuantizedMatrix).map(([name]) => name);
    const products = exact.namedParameters().map(([name]) => name).filter((name) => /^blocks\.\d+\.(attention\.(qkv|out)|feedForward\.(up|down))\.weight$/.test(name));
    expect(products.length).toBe(8);
    expect(quantized.sort()).toEqual([...products, tied ? "embedding.weight" : "head.weight"].sort());
    expect([...weights.keys()].sort()).toEqual(exact.namedParameters().map(([name]) => name).sort());
    for (const [name, parameter] of exact.namedParameters()) {
      const values = contents(parameter);
      if (quantized.includes(name)) {
        const { q, scales } = quantizeRows(values, parameter.shape[1]!);
        expect(contents(weights.get(name)!)).toEqual(Float32Array.from(q, (each, i) => each * scales[Math.floor(i / parameter.shape[1]!)]!));
      } else expect(contents(weights.get(name)!)).toEqual(values);
    }
  });

  const ids = tensor(Int32Array.from({ length: 16 }, (_, i) => (i * 11) % 40), { shape: [2, 8] });
  const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number => Math.max(...Array.from(a, (each, i) => Math.abs(each - b[i]!)));

  test("gives the logits and the loss of those numbers, near the exact ones", () => {
    const [found, same, truth] = [int8, rounded, exact].map((model) => noGrad(() => model.logits(ids)).toArray()) as [Float32Array, Float32Array, Float32Array];
    const largest = Math.max(...truth.map(Math.abs));
    expect(furthest(found, same)).toBeLessThan(5e-6 * largest);
    expect(furthest(found, truth)).toBeLessThan(0.05 * largest);
    expect(furthest(found, truth)).toBeGreaterThan(0);
    const targets = tensor(Int32Array.from({ length: 16 }, (_, i) => (i * 7) % 40), { shape: [2, 8] });
    const losses = [int8, rounded].map((model) => noGrad(() => model.loss(ids, targets)).item());
    expect(losses[0]).toBeCloseTo(losses[1]!, 5);
  });

  test("gives the same bits on one thread and on three, and token by token what it gives at once", () => {
    const run = (): Float32Array | Int32Array => noGrad(() => int8.logits(ids)).toArray();
    const whole = run();
    useThreads(3);
    expect(run()).toEqual(whole);
    useThreads(0);
    const caches = int8.caches(2, 8);
    const steps = Array.from({ length: 8 }, (_, t) => noGrad(() => int8.logits(tensor(Int32Array.of(ids.toArray()[t]!, ids.toArray()[8 + t]!), { shape: [2, 1] }), caches)).toArray());
    for (const [t, step] of steps.entries()) for (const row of [0, 1]) expect(furthest(step.slice(row * 40, (row + 1) * 40), whole.slice((row * 8 + t) * 40, (row * 8 + t + 1) * 40))).toBeLessThan(1e-6);
    for (const cache of caches) cache.release();
  });
});

describe("--weights int8", () => {
  const cwd = freshFolder("int8");
  writeFileSync(join(cwd, "text.txt"), Array.from({ length: 300 }, (_, i) => `Hen ${i} laid ${i % 7} eggs; the fox counted ${i % 5}.\n`).join(""));
  const train = (out: string, values: Record<string, string | number>) => {
    const { code, err } = run(["--json", "--quiet", ...sets({ "data.path": "text.txt", "run.out": out, "run.eval_every": 0, "run.sample_every": 0, ...values })], { cwd });
    if (code !== 0) throw new Error(err);
    return onlyRun(join(cwd, out));
  };
  const llama = train("llama", { preset: "llama-tiny", "data.tokenizer": "bytes", "model.layers": 2, "model.width": 32, "model.heads": 2, "model.feed_forward_width": 48, "model.block": 32, "trainer.batch": 4, "trainer.warmup": 5, "run.steps": 60 });

  test("eval prints both losses and the difference, as measured", async () => {
    const { checkpoint } = loadLatest(llama)!;
    const corpus = await openCorpus(join(cwd, "text.txt"));
    const measured = async (int8: boolean): Promise<number> => {
      const model = openTextModel(openContext(2), JSON.parse(checkpoint.config), checkpoint.tensors, checkpoint.tokenizer, int8);
      const { bitsPerByte } = (await model.loss(corpus, Infinity))!;
      model.release!();
      return bitsPerByte;
    };
    const [exact, rounded] = [await measured(false), await measured(true)];
    corpus.close();
    expect(rounded).not.toBe(exact);
    expect(Math.abs(rounded - exact)).toBeLessThan(0.05); // of about 4
    const json = JSON.parse(run(["eval", llama, "--data", "text.txt", "--weights", "int8", "--json"], { cwd }).out);
    expect(json.bits_per_byte).toBeCloseTo(exact, 5);
    expect(json.int8_bits_per_byte).toBeCloseTo(rounded, 5);
    const { out } = run(["eval", llama, "--data", "text.txt", "--weights", "int8"], { cwd });
    const [, loss, difference, way] = /\n(\S+) bits\/byte with int8 weights, (\S+) (less|more)\n$/.exec(out)!;
    expect(loss).toBe(json.int8_bits_per_byte.toFixed(3));
    expect(Number(difference) * (way === "less" ? -1 : 1)).toBeCloseTo(rounded - exact, 5);
    expect(run(["eval", llama, "--data", "text.txt"], { cwd }).out).toBe(out.split("\n")[0] + "\n");
  });

  test("generate writes what such a model says, in less memory", () => {
    const { checkpoint } = loadLatest(llama)!;
    const model = openTextModel(openContext(2), JSON.parse(checkpoint.config), checkpoint.tensors, checkpoint.tokenizer, true);
    const options = { temperature: 0, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1, repetition_window: 0 };
    const written = Buffer.concat([...model.begin().generate(Buffer.from("Hen "), 60, options, 0)]).toString();
    const { bytes, count } = model.weights!;
    model.release!();
    const generate = (...more: string[]) => run(["generate", llama, "--prompt", "Hen ", "--tokens", "60", "--temperature", "0", ...more], { cwd });
    const json = JSON.parse(generate("--weights", "int8", "--json").out);
    expect(json).toMatchObject({ text: written, tokens: 60, weight_bytes: bytes });
    expect(bytes).toBeLessThan(0.4 * 4 * count); // vectors of norms and an embedding of its own stay f32
    expect(JSON.parse(generate("--json").out)).not.toHaveProperty("weight_bytes");
    const { out, err } = generate("--weights", "int8");
    expect(out).toBe(`Hen ${written}`);
    expect(err).toContain(`int8 weights of ${(bytes / 1e6).toFixed(1)} MB, as f32 ${((4 * count) / 1e6).toFixed(1)} MB`);
    const chat = run(["chat", llama, "--tokens", "5", "--temperature", "0", "--weights", "int8"], { cwd });
    expect(chat).toMatchObject({ code: 0, err: expect.stringContaining("int8 weights of") });
  });

  test("is refused for a model that is int8 already", () => {
    const int8 = train("int8", { ...tiny, "data.path": "text.txt", "run.steps": 2 });
    expect(run(["eval", int8, "--data", "text.txt", "--weights", "int8"], { cwd })).toMatchObject({ code: 2, out: "", err: expect.stringContaining("whose weights are int8 already") });
  });
});
