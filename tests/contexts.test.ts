// Rule egg from end to end: the golden runs of an independent program through the library, the same bits on every tier and thread count in
// the library and the program, resume, bytes that training never saw, odd texts, hostile checkpoints, and that it learns.
// Not single kernels: kernels/contexts/twins_test.zig. Read next: src/learners/eggroll-contexts.ts, src/models/contexts.ts.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { saveCheckpoint } from "../src/run/checkpoint.ts";
import { ContextsModel, expectContexts } from "../src/models/contexts.ts";
import { bytesNow, piecesOf, type TensorEntry } from "../src/models/tensors.ts";
import { NativeContexts, NativeContextsTrainer } from "../src/native/contexts.ts";
import { machine, openContext, type Context, type TierName } from "../src/native/machine.ts";
import type { Corpus } from "../src/data/corpus.ts";
import { EggError } from "../src/errors.ts";
import { freshFolder, onlyRun, readJson, readLines, readSafetensors, root, run, sets, type Ended } from "./program.ts";

setDefaultTimeout(60_000);

interface Golden {
  text: string;
  train_bytes: number;
  cases: {
    order: number; table_bits: number; vocabulary: number; groups: number; positions: number; shift: number; fitness_shift: number; steps: number; seed: number; cap: number;
    decay_shift: number; decay_every: number; rate: number; differences: number[][]; fnv1a64_of_int32_master: string;
  }[];
}
const golden: Golden = JSON.parse(readFileSync(join(root, "tests/golden/contexts.json"), "utf8"));
const tiers = machine().tiers.filter(({ available }) => available).map(({ name }) => name);
const threadCounts = [1, 2, 3, 4, 5];
const contexts = new Map<string, Context>();
function context(threads = 2, tier: TierName = tiers.at(-1)!): Context {
  const key = `${tier} ${threads}`;
  if (!contexts.has(key)) contexts.set(key, openContext(threads, tier));
  return contexts.get(key)!;
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const distinct = (text: Uint8Array): Uint8Array => Uint8Array.from(new Set(text)).sort();

/** FNV-1a of 64 bits, as the vectors' "about" has it. */
function fnv1a64(parts: Iterable<Uint8Array>): string {
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (const part of parts) {
    for (const byte of part) {
      low = (low ^ byte) >>> 0;
      const product = low * 0x1b3; // times 2^40 + 0x1b3
      high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
      low = product >>> 0;
    }
  }
  return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

test("the hash of the vectors is FNV-1a", () => {
  expect([fnv1a64([]), fnv1a64([encode("a")]), fnv1a64([encode("foobar")])]).toEqual(["cbf29ce484222325", "af63dc4c8601ec8c", "85944171f73967e8"]);
});

/** Rows of table k, in number. */
const rowsOf = (vocabulary: number, tableBits: number, table: number): number => (table < 2 ? vocabulary ** (table + 1) : 2 ** tableBits);

describe("the library gives the golden runs", () => {
  const text = encode(golden.text);
  const bytes = distinct(text.subarray(0, golden.train_bytes));

  test.each(tiers.flatMap((tier) => threadCounts.map((threads) => [tier, threads] as const)))("on %s with %d threads", async (tier, threads) => {
    for (const one of golden.cases) {
      const { order, table_bits, groups, positions, steps, rate, vocabulary, shift, fitness_shift, cap, decay_every, decay_shift, seed } = one;
      expect(bytes.length).toBe(vocabulary);
      const tokens = new Uint8Array(256);
      bytes.forEach((byte, token) => (tokens[byte] = token));
      const model = new NativeContexts(context(threads, tier), { vocabulary, order, table_bits }, tokens);
      const trainer = new NativeContextsTrainer(model, { groups, positions, seed, shift, fitness_shift, cap, decay_every, decay_shift });
      const span = golden.train_bytes - positions - 2;
      for (let step = 0; step < steps; step++) {
        const batch = new Uint8Array(groups * (order + positions));
        for (let g = 0; g < groups; g++) {
          const start = (g * Math.floor(span / groups) + step * positions) % span;
          for (let i = 0; i < order + positions; i++) batch[g * (order + positions) + i] = text[start + i + 1 - order] ?? bytes[0]!;
        }
        const result = await trainer.step(batch, step, Math.floor((rate * (steps - step)) / steps));
        const wanted = one.differences.slice(step * groups * positions, (step + 1) * groups * positions).flat();
        expect([...trainer.differences()]).toEqual(wanted);
        expect([result!.plus, result!.minus]).toEqual([wanted.filter((d) => d > 0).length, wanted.filter((d) => d < 0).length]);
      }
      const masters = Array.from({ length: order }, (_, table) => model.read(table, "masters", 0, rowsOf(vocabulary, table_bits, table)));
      expect(fnv1a64(masters)).toBe(one.fnv1a64_of_int32_master);
      // Weights are the masters, rounded.
      masters.forEach((part, table) => {
        const rounded = Int8Array.from(new Int32Array(part.buffer), (master) => (master + 2 ** 19) >> 20);
        expect(model.read(table, "weights", 0, rowsOf(vocabulary, table_bits, table))).toEqual(new Uint8Array(rounded.buffer));
      });
      trainer.release();
      model.release();
    }
  });
});

// ---- the program

/** A step takes a few milliseconds; the text has 27 different bytes. */
const small = {
  preset: "egg", "data.path": "text.txt", "model.order": 4, "model.table_bits": 8, "trainer.population": 96, "trainer.sequence": 8, "device.threads": 2, "run.steps": 24, "run.eval_every": 6,
  "run.sample_every": 12, "run.sample_tokens": 40, "run.checkpoint_every": 6, "run.keep": 100, "run.fingerprint_every": 1,
};
const home = freshFolder("contexts");
const train = (out: string, more: Record<string, string | number> = {}, env: Record<string, string> = {}): Ended => run(["-q", "--json", "--out", out, ...sets({ ...small, ...more })], { cwd: home, env });
const words = "a hen sat on the long wall and sang the moon an old song of eggs by dawn. ";
let original = "";

beforeAll(() => {
  writeFileSync(join(home, "text.txt"), words.repeat(60));
  const ended = train("whole");
  expect(ended).toMatchObject({ code: 0, err: "" });
  original = onlyRun(join(home, "whole"));
});

const timeless = ({ seconds, member_tokens_per_second, phases, ...line }: any): any => line;

describe("the program", () => {
  test("trains to the same bits on every tier, with 1 to 5 threads", () => {
    const wanted = readLines(original).map(timeless);
    expect(new Set(wanted.map(({ weights_sha256 }) => weights_sha256)).size).toBe(24); // weights move at every step but the first is like no other
    for (const [i, tier] of tiers.entries()) {
      for (const threads of i === 0 ? [1, 5] : threadCounts) {
        const out = `${tier}-${threads}`;
        expect(train(out, { "device.threads": threads }, { EGG_CPU: tier }).code).toBe(0);
        expect(readLines(onlyRun(join(home, out))).map(timeless)).toEqual(wanted);
      }
    }
  });

  test("goes on from any step, on another number of threads and other kernels, to the same tensors", () => {
    const last = (folder: string) => [...readSafetensors(join(folder, "checkpoints/step-00000024.safetensors")).tensors];
    for (const [i, stop] of [6, 12, 18].entries()) {
      // As a kill after that step leaves it.
      const copy = `killed-${stop}`;
      Bun.spawnSync(["cp", "-r", join(home, "whole"), join(home, copy)]);
      const folder = onlyRun(join(home, copy));
      for (const name of readdirSync(join(folder, "checkpoints"))) if (Number(name.slice(5, 13)) > stop) Bun.spawnSync(["rm", join(folder, "checkpoints", name)]);
      Bun.spawnSync(["rm", join(folder, "summary.json"), join(folder, "latest.json")]);
      const ended = run(["--json", "--out", copy, ...sets({ ...small, "device.threads": i + 1 })], { cwd: home, env: { EGG_CPU: tiers[i % tiers.length]! } });
      expect([ended.code, ended.err]).toEqual([0, expect.stringContaining(`going on from step ${stop}`)]);
      expect(last(folder)).toEqual(last(original));
      expect(readLines(folder).map(timeless)).toEqual(readLines(original).map(timeless));
      expect(readFileSync(join(folder, "samples.txt"), "utf8")).toBe(readFileSync(join(original, "samples.txt"), "utf8"));
    }
  });

  test("evaluates to the same bits with any number of threads, and to those of the run", () => {
    const evaluate = (threads: number) => JSON.parse(run(["eval", original, "--json"], { cwd: home, env: { EGG_SET: `device.threads=${threads}` } }).out).bits_per_byte;
    const { val_bits_per_byte } = readJson(original, "summary.json");
    for (const threads of [1, 3]) expect(evaluate(threads)).toBeCloseTo(val_bits_per_byte, 5);
  });

  test.each([0, 2])("measures a step of a run of %d steps, which it has fewer of than the measurement takes", (steps) => {
    const config = sets({ ...small, "run.steps": steps });
    const dry = run(["--dry-run", "--json", "-q", ...config], { cwd: home });
    expect(dry.code).toBe(0);
    expect(JSON.parse(dry.out)).toMatchObject({ steps_left: steps, seconds_per_step: expect.any(Number) });
    const bench = run(["bench", "step", "--seconds", "0.05", "--json", ...config], { cwd: home });
    expect(bench.code).toBe(0);
    expect(JSON.parse(bench.out).step.config.model).toMatchObject({ order: 4, table_bits: 8 });
  });

  test("writes only bytes that it has seen, the same ones for the same seed", () => {
    const generate = (seed: number, ...more: string[]) => run(["generate", original, "--prompt", "Zürich 7", "--tokens", "300", "--seed", String(seed), "--temperature", "2", "-q", ...more], { cwd: home });
    const [one, again, other] = [generate(1), generate(1), generate(2)];
    expect(one.code).toBe(0);
    expect(one.out).toBe(again.out);
    expect(one.out).not.toBe(other.out);
    const written = one.out.replace("Zürich 7", "").trimEnd();
    expect(written.length).toBeGreaterThan(250);
    expect([...written].filter((letter) => !words.includes(letter))).toEqual([]);
  });
});

// ---- texts

/** A text in memory. */
const corpus = (bytes: Uint8Array): Corpus => ({ name: "text", bytes: bytes.length, entropyBitsPerByte: null, read: (offset, target) => void target.set(bytes.subarray(offset, offset + target.length)), fingerprint: () => "", close: () => {} });

describe("bytes that training never saw", () => {
  const seen = distinct(encode(words));
  const made: ContextsModel[] = [];
  afterAll(() => made.forEach((model) => model.native.release()));
  function filled(threads = 2): ContextsModel {
    const model = new ContextsModel(context(threads), { order: 3, table_bits: 6 }, seen);
    made.push(model);
    const vocabulary = seen.length + 1;
    let state = 1;
    for (let table = 0; table < 3; table++) model.native.write(table, "weights", 0, Uint8Array.from({ length: rowsOf(vocabulary, 6, table) * vocabulary }, () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >> 20));
    return model;
  }
  /** Bits of one byte behind a text. */
  const bitsOf = async (model: ContextsModel, before: string, byte: number): Promise<number> => (await model.native.evaluate(Uint8Array.of(...encode(before), byte), seen.length, 8))!;

  test("share one token: probabilities of all 256 bytes add up to one", async () => {
    const model = filled();
    for (const before of ["the", "zzz", "a h"]) {
      const bits: number[] = [];
      for (let byte = 0; byte < 256; byte++) bits.push(await bitsOf(model, before, byte));
      const unseen = bits.filter((_, byte) => !seen.includes(byte));
      expect(new Set(unseen).size).toBe(1);
      const probability = bits.filter((_, byte) => seen.includes(byte)).reduce((sum, each) => sum + 2 ** -each, 0) + 2 ** -(unseen[0]! - 8);
      expect(probability).toBeCloseTo(1, 12);
      expect(bits.reduce((sum, each) => sum + 2 ** -each, 0)).toBeLessThanOrEqual(1 + 1e-12); // 2^8 is more than the bytes that share the token
    }
  });

  test("cost 8 bits more each than their token", async () => {
    const model = filled();
    const text = encode("a hen ÿ sat # on ## the wall");
    const strange = [...text.subarray(3)].filter((byte) => !seen.includes(byte)).length;
    expect(strange).toBe(5);
    const [plain, penalized] = [await model.native.evaluate(text, seen.length, 0), await model.native.evaluate(text, seen.length, 8)];
    expect(penalized! - plain!).toBeCloseTo(8 * strange, 9);
  });

  test("an exact softmax by another program gives the same bits, whatever the threads", async () => {
    const text = encode("a hen ÿ sat on the long wall and sang # the moon. ".repeat(120));
    const padded = Uint8Array.of(seen[0]!, seen[0]!, ...text);
    const results: number[] = [];
    for (const threads of [1, 2, 5]) results.push((await filled(threads).native.evaluate(padded, seen.length, 8))!);
    expect(new Set(results).size).toBe(1);
    const model = filled();
    let bits = 0;
    for (let i = 1; i < text.length; i++) {
      const before = Uint8Array.from({ length: 3 }, (_, j) => text[i - 3 + j] ?? seen[0]!);
      const powers = [...model.native.logits(before)].map((logit) => 2 ** (logit / 16));
      const token = seen.indexOf(text[i]!);
      bits += token < 0 ? 8 - Math.log2(powers.at(-1)! / powers.reduce((a, b) => a + b)) : -Math.log2(powers[token]! / powers.reduce((a, b) => a + b));
    }
    expect(results[0]!).toBeCloseTo(bits, 6);
    // A part of the text, and all of it but what 64 equal streams leave over.
    for (const most of [1 << 20, 640]) {
      const { bitsPerByte, tokens } = (await model.loss(corpus(text), most))!;
      expect(tokens).toBeWithin(Math.min(most, text.length - 64) - 64, Math.min(most, text.length) + 1);
      expect(Math.abs(bitsPerByte - bits / (text.length - 1))).toBeLessThan(most === 640 ? 1.5 : 0.05);
    }
  });

  test("leave the held-out loss of a run finite", () => {
    writeFileSync(join(home, "strange.txt"), words.repeat(60) + "ЖЩ€".repeat(40));
    const { code, out } = train("strange", { "data.path": "strange.txt" });
    expect(code).toBe(0);
    expect(JSON.parse(out).val_bits_per_byte).toBeWithin(8, 30); // the end is all strange
  });
});

describe("odd texts", () => {
  const trained = (name: string, text: Uint8Array | string, more: Record<string, string | number> = {}): Ended => {
    writeFileSync(join(home, `${name}.txt`), text);
    return train(name, { "data.path": `${name}.txt`, ...more });
  };

  test("too short: refused with the bytes needed; the shortest trains", () => {
    const { code, err } = trained("short", "abcdefghijk", { "data.validation": 0 });
    expect([code, err]).toEqual([3, expect.stringMatching(/short\.txt: 8 positions and what they read needs 12 bytes, found 11 bytes\.\n.*trainer\.sequence/)]);
    expect(trained("shortest", "abcdefghijkl", { "data.validation": 0 }).code).toBe(0);
  });

  test("of one byte: certain soon", () => {
    const { code, out } = trained("one", "e".repeat(4000), { "run.steps": 60, "trainer.learning_rate": 4 });
    expect(code).toBe(0);
    const losses = readLines(onlyRun(join(home, "one"))).flatMap(({ val_bits_per_byte }) => val_bits_per_byte ?? []);
    expect(losses[0]).toBeLessThan(1.0001); // one byte and the others
    expect(JSON.parse(out).val_bits_per_byte).toBeLessThan(0.5);
  });

  test("of all 256 bytes: none is left for the others; from 8 bits down", () => {
    const { code, out } = trained("all", Uint8Array.from({ length: 20_000 }, (_, i) => i & 255), { "run.steps": 60, "model.order": 1, "trainer.learning_rate": 4 });
    expect(code).toBe(0);
    const run = onlyRun(join(home, "all"));
    const { tensors } = readSafetensors(join(run, "checkpoints", readdirSync(join(run, "checkpoints")).sort().at(-1)!));
    expect(tensors.get("contexts.1.weight")!.shape).toEqual([256, 256]);
    expect(JSON.parse(out).val_bits_per_byte).toBeLessThan(7.9);
  });

  test("without held-out text, and with too little of it", () => {
    const { code, out } = trained("none", words.repeat(60), { "data.validation": 0 });
    expect([code, JSON.parse(out).val_bits_per_byte]).toEqual([0, null]);
    expect(trained("little", words.repeat(2), { "data.validation": 0.001 })).toMatchObject({ code: 3, err: expect.stringContaining("data.validation") });
  });

  test.each([1, 8])("order %d, of the fewest and of more rows", (order) => {
    for (const bits of [4, 12]) {
      const { code, out } = train(`order-${order}-${bits}`, { "model.order": order, "model.table_bits": bits });
      expect(code).toBe(0);
      const vocabulary = distinct(encode(words)).length + 1;
      expect(JSON.parse(out).parameters).toBe(Array.from({ length: order }, (_, table) => rowsOf(vocabulary, bits, table) * vocabulary).reduce((a, b) => a + b));
    }
  });

  test("the largest perturbation: logits far below what the sum of powers holds do no harm", () => {
    const { code, out } = train("large", { "trainer.sigma_shift": 0, "model.order": 8, "run.steps": 100, "trainer.learning_rate": 4 });
    expect(code).toBe(0);
    expect(JSON.parse(out).val_bits_per_byte).toBeLessThan(8);
  });
});

// ---- checkpoints

describe("a checkpoint", () => {
  const tensorsOf = (model: ContextsModel, masters = true): Map<string, TensorEntry> =>
    new Map([...model.save(masters)].map(([name, saved]) => [name, { dtype: saved.dtype, shape: [...saved.shape], data: new Uint8Array(Buffer.concat(piecesOf(saved).map((piece) => Uint8Array.from(bytesNow(piece))))) }]));
  const sizes = { order: 3, table_bits: 6 };
  const model = new ContextsModel(context(), sizes, distinct(encode(words)));
  const problemOf = (action: () => unknown): string => {
    try {
      action();
    } catch (error) {
      if (error instanceof EggError && error.kind === "corrupt") return error.message;
      throw error;
    }
    throw new Error("it was taken");
  };

  test("of another order, of other tables, of other bytes is refused, by the tensors' names", () => {
    const tensors = tensorsOf(model);
    expectContexts(sizes, tensors);
    expect(problemOf(() => expectContexts({ ...sizes, order: 2 }, tensors))).toContain("contexts.3.weight: unknown tensor");
    expect(problemOf(() => expectContexts({ ...sizes, order: 4 }, tensors))).toContain("contexts.4.weight: missing");
    expect(problemOf(() => expectContexts({ ...sizes, table_bits: 7 }, tensors))).toMatch(/contexts\.3\.weight: expected I8 \(128, \d+\), found I8 \(64, \d+\)/);
    const fewer = new Map(tensors).set("vocabulary.bytes", { dtype: "U8", shape: [3], data: Uint8Array.of(65, 66, 67) });
    expect(problemOf(() => expectContexts(sizes, fewer))).toContain("contexts.1.weight: expected I8 (4, 4)");
    for (const data of [Uint8Array.of(2, 1), Uint8Array.of(1, 1), new Uint8Array(0)]) {
      expect(problemOf(() => expectContexts(sizes, new Map(tensors).set("vocabulary.bytes", { dtype: "U8", shape: [data.length], data })))).toContain("vocabulary.bytes: expected 1 to 256 different bytes");
    }
    expect(problemOf(() => expectContexts(sizes, new Map([...tensors].filter(([name]) => name !== "state.contexts.2.master"))))).toContain("state.contexts.2.master: missing");
  });

  test("without masters can be read", () => expectContexts(sizes, tensorsOf(model, false)));

  test("with masters beyond what training reaches is refused", () => {
    const tensors = tensorsOf(model);
    const master = tensors.get("state.contexts.2.master")!;
    for (const value of [127 * 2 ** 20 + 1, -(127 * 2 ** 20) - 1, 2 ** 31 - 1, -(2 ** 31)]) {
      const data = bytesNow(master.data).slice();
      new DataView(data.buffer).setInt32(40, value, true);
      expect(problemOf(() => model.load(new Map(tensors).set("state.contexts.2.master", { ...master, data })))).toContain(`state.contexts.2.master: holds ${value}`);
    }
    model.load(tensors);
  });

  test("that claims tables of gigabytes is refused before memory is taken for them", () => {
    const config = JSON.parse(readFileSync(join(original, "config.json"), "utf8")).config;
    const cwd = freshFolder("contexts");
    for (const [sizes, says] of [[{ order: 8, table_bits: 24 }, "do not fit the model"], [{ order: 8, table_bits: 1e9 }, "config"], [{ order: 1e9, table_bits: 16 }, "config"], [{ order: -1, table_bits: "x" }, "config"]] as const) {
      const text = JSON.stringify({ ...config, model: { type: "egg", ...sizes } });
      const { path } = saveCheckpoint(cwd, { step: 1, tensors: new Map(tensorsOf(model)), config: text, tokenizer: "bytes", dataCursor: "", program: "9", valBitsPerByte: null }, 2);
      // Where they were taken, this limit would end the process in another way.
      for (const command of ["generate", "eval"]) {
        const { code, err } = run([command, path, ...(command === "generate" ? ["--tokens", "1"] : [])], { cwd: home, prefix: ["bash", "-c", 'ulimit -t 20; exec "$@"', "bash"] });
        expect([code, err]).toEqual([7, expect.stringContaining(says)]);
      }
    }
  });

  test("of another order in the folder of a run: nothing is trained, nothing is deleted", () => {
    const copy = "foreign";
    Bun.spawnSync(["cp", "-r", join(home, "whole"), join(home, copy)]);
    const folder = onlyRun(join(home, copy));
    Bun.spawnSync(["rm", join(folder, "summary.json"), join(folder, "latest.json")]);
    for (const name of readdirSync(join(folder, "checkpoints"))) Bun.spawnSync(["rm", join(folder, "checkpoints", name)]);
    const { config } = readJson(folder, "config.json");
    saveCheckpoint(folder, { step: 6, tensors: new Map(tensorsOf(model)), config: JSON.stringify(config), tokenizer: "bytes", dataCursor: "{}", program: "9", valBitsPerByte: null }, 2);
    const ended = train(copy);
    expect([ended.code, ended.err]).toEqual([7, expect.stringContaining("contexts.4.weight: missing")]);
    expect(readdirSync(join(folder, "checkpoints"))).toEqual(["step-00000006.safetensors"]);
  });
});

test("300 steps on the built-in text: below 3.4 bits for each held-out byte", () => {
  const { code, out } = run(["-q", "--json", ...sets({ preset: "egg", "run.steps": 300, "run.eval_every": 100, "run.sample_every": 0, "run.checkpoint_every": 0 })], { cwd: freshFolder("contexts") });
  expect(code).toBe(0);
  expect(JSON.parse(out).val_bits_per_byte).toBeLessThan(3.4);
});
