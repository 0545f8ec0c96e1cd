// Weights rounded to int8 with a scale a row: how far they move, which do, and the loss that `egg eval --weights int8` prints.
// Not the int8 models of EGGROLL (integers.test.ts). Read next: src/models/transformer-int8.ts.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCorpus } from "../src/data/corpus.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { openTextModel } from "../src/models/text-model.ts";
import { quantizeRows, roundToInt8 } from "../src/models/transformer-int8.ts";
import { transformerShape } from "../src/models/transformer-shape.ts";
import { Transformer } from "../src/models/transformer.ts";
import { openContext } from "../src/native/machine.ts";
import { loadLatest } from "../src/run/checkpoint.ts";
import { manualSeed } from "../src/tensor/device.ts";
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

describe.each([["gpt", true], ["llama", true], ["llama", false]] as const)("the weights of %s, tied %p", (family, tied) => {
  manualSeed(3);
  const model = new Transformer(transformerShape({ family, vocabulary: 40, layers: 2, width: 16, heads: 2, block: 8, tied }));
  afterAll(() => model.release());
  const read = () => new Map([...model.namedParameters()].map(([name, parameter]) => {
    const values = new Float32Array(parameter.shape.reduce((a, b) => a * b, 1));
    parameter.readRange(0, values);
    return [name, { values, columns: parameter.shape.length === 2 ? parameter.shape[1]! : 0 }];
  }));
  const before = read();
  roundToInt8(model);
  const after = read();

  test("are what products read, all of them, and nothing else", () => {
    const moved = [...before].filter(([name, { values }]) => Buffer.compare(Buffer.from(values.buffer), Buffer.from(after.get(name)!.values.buffer)) !== 0).map(([name]) => name);
    const products = [...before.keys()].filter((name) => /^blocks\.\d+\.(attention\.(qkv|out)|feedForward\.(up|down))\.weight$/.test(name));
    expect(products.length).toBe(8);
    expect(moved.sort()).toEqual([...products, tied ? "embedding.weight" : "head.weight"].sort());
    for (const name of moved) {
      const { values, columns } = before.get(name)!;
      const { q, scales } = quantizeRows(values, columns);
      expect(after.get(name)!.values).toEqual(Float32Array.from(q, (each, i) => each * scales[Math.floor(i / columns)]!));
    }
  });
});

describe("egg eval --weights int8", () => {
  const cwd = freshFolder("int8");
  writeFileSync(join(cwd, "text.txt"), Array.from({ length: 300 }, (_, i) => `Hen ${i} laid ${i % 7} eggs; the fox counted ${i % 5}.\n`).join(""));
  const train = (out: string, values: Record<string, string | number>) => {
    const { code, err } = run(["--json", "--quiet", ...sets({ "data.path": "text.txt", "run.out": out, "run.eval_every": 0, "run.sample_every": 0, ...values })], { cwd });
    if (code !== 0) throw new Error(err);
    return onlyRun(join(cwd, out));
  };
  const llama = train("llama", { preset: "llama-tiny", "data.tokenizer": "bytes", "model.layers": 2, "model.width": 32, "model.heads": 2, "model.feed_forward_width": 48, "model.block": 32, "trainer.batch": 4, "trainer.warmup": 5, "run.steps": 60 });

  test("prints both losses and the difference, as measured", async () => {
    const { checkpoint } = loadLatest(llama)!;
    const model = openTextModel(openContext(2), JSON.parse(checkpoint.config), checkpoint.tensors, checkpoint.tokenizer);
    const corpus = await openCorpus(join(cwd, "text.txt"));
    const exact = (await model.loss(corpus, Infinity))!.bitsPerByte;
    model.roundToInt8!();
    const rounded = (await model.loss(corpus, Infinity))!.bitsPerByte;
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

  test("is refused for a model that is int8 already", () => {
    const int8 = train("int8", { ...tiny, "data.path": "text.txt", "run.steps": 2 });
    expect(run(["eval", int8, "--data", "text.txt", "--weights", "int8"], { cwd })).toMatchObject({ code: 2, out: "", err: expect.stringContaining("whose weights are int8 already") });
  });
});
