// The native boundary: both sides agree on the table, numbers that do not fit never cross, and whatever is wrong with a
// handle, a buffer or the order of calls comes back as an error. Not the kernels' results: golden.test.ts has those.
// Read next: src/native/abi.ts, kernels/abi.zig.
import { describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EggError } from "../src/errors.ts";
import { call, emptyRecord, emptyWord, functions, manifest, native, pack } from "../src/native/abi.ts";
import { NativeEvaluator, NativeModel, NativeTrainer } from "../src/native/int8.ts";
import { cancel, join as joinJob, machine, openContext } from "../src/native/machine.ts";
import { freshFolder, root, run, sha256 } from "./program.ts";
import { weightsOf } from "./weights.ts";

/** The EggError that `action` throws; a test fails where it throws none. */
function errorOf(action: () => unknown): { kind: string; message: string } {
  try {
    action();
  } catch (error) {
    if (error instanceof EggError) return { kind: error.kind, message: error.message };
    throw error;
  }
  throw new Error("nothing was thrown");
}

const shape = { rule: "egg.c" as const, layers: 1, hidden: 16, vocabulary: 256 };
const training = { pairs: 16, sequence: 8, sigma_shift: 4 };
const order = { seed: 1, threshold: 100 };
const context = openContext(2);

function newModel(): NativeModel {
  const model = new NativeModel(context, shape);
  model.initialize(42);
  return model;
}

describe("the table", () => {
  test("is the library's, byte for byte", () => {
    const length = native().egg_manifest(new Uint8Array(new ArrayBuffer(8)), 0);
    const text = new Uint8Array(new ArrayBuffer(length));
    expect(native().egg_manifest(text, length)).toBe(length);
    expect(new TextDecoder().decode(text)).toBe(manifest());
  });

  test("another version of the library is refused when it is loaded", () => {
    const folder = freshFolder("abi");
    const source = join(folder, "other.c");
    writeFileSync(source, Object.keys(functions).map((name) => `int ${name}(void) { return 0; }\n`).join(""));
    const library = join(folder, "libother.so");
    const installed = join(root, `node_modules/@zigc/${process.platform}-${process.arch}/bin/zig`);
    const built = Bun.spawnSync([existsSync(installed) ? installed : "zig", "cc", "-shared", "-nostdlib", "-o", library, source]);
    expect(built.stderr.toString()).toBe("");
    const { code, err } = run(["info"], { cwd: folder, env: { EGG_NATIVE_LIB: library } });
    expect(err).toContain(`the kernel library ${library} belongs to another version of egg`);
    expect(code).toBe(4);
  }, 60_000);
});

describe("numbers", () => {
  test.each([1.5, NaN, Infinity, -1, 2 ** 32, "1" as never, undefined as never])("%p does not cross as a u32", (value) => {
    expect(errorOf(() => call("egg_open", [value, 0, emptyWord()]))).toEqual({ kind: "internal", message: `[native] egg_open: ${value} is not a u32.` });
    expect(errorOf(() => pack("ModelShape", { ...shape, layers: value, rule: 0 })).message).toBe(`[native] ModelShape: ${value} is not a u32.`);
  });

  test("the largest u32 crosses unchanged", () => {
    expect(errorOf(() => call("egg_open", [2 ** 32 - 1, 0, emptyWord()])).message).toContain("threads: found 4294967295, allowed 1 to 1024");
  });

  test.each([
    [{ layers: 0 }, "layers: found 0, allowed 1 to 1024"],
    [{ hidden: 24 }, "hidden: found 24, allowed a multiple of 16 from 16 to 4096"],
    [{ hidden: 0 }, "hidden: found 0"],
    [{ vocabulary: 257 }, "vocabulary: found 257"],
  ])("the library refuses the model %p", (wrong, words) => {
    expect(errorOf(() => new NativeModel(context, { ...shape, ...wrong })).message).toContain(words);
  });

  test.each([
    [{ pairs: 0 }, "pairs: found 0"],
    [{ sequence: 0 }, "sequence: found 0"],
    [{ pairs_per_stream: 0 }, "pairs_per_stream: found 0, allowed 1 to 16"],
    [{ pairs_per_stream: 17 }, "pairs_per_stream: found 17, allowed 1 to 16"],
    [{ sigma_shift: 9 }, "sigma_shift: found 9"],
    [{ panel_groups: 5 }, "panel_groups: found 5"],
    [{ mode: 3 }, "mode: found 3"],
  ])("the library refuses the trainer %p", (wrong, words) => {
    const model = newModel();
    expect(errorOf(() => new NativeTrainer(model, { ...training, ...wrong })).message).toContain(words);
    model.release(); // a trainer that was not made does not hold it
  });

  test.each([
    ["egg.c", 4096, 1 << 20],
    ["nano-egg", 560, 290_357],
  ] as const)("rule %s takes no width and no population whose sums would not fit 32 bits", (rule, hidden, pairs) => {
    expect(errorOf(() => new NativeModel(context, { ...shape, rule, hidden: hidden + 16 })).message).toContain(`allowed a multiple of 16 from 16 to ${hidden}`);
    new NativeModel(context, { ...shape, rule, hidden }).release();
    const model = new NativeModel(context, { ...shape, rule });
    expect(errorOf(() => new NativeTrainer(model, { ...training, pairs: pairs + 1 })).message).toMatch(/pairs: (the votes of 290358 do not fit 32 bits|found 1048577)/);
    model.release();
  });

  test("a rule that is none, and a threshold past 31 bits, are refused", () => {
    expect(errorOf(() => call("egg_int8_model_create", [context.handle, pack("ModelShape", { ...shape, rule: 9 }), emptyWord()])).message).toContain("rule: 9 is unknown");
    const model = newModel();
    const trainer = new NativeTrainer(model, training);
    expect(errorOf(() => call("egg_int8_step_start", [trainer.handle, pack("StepOrder", { seed: 1, threshold: 2 ** 31 })])).message).toContain("threshold: found 2147483648");
    trainer.release();
    model.release();
  });

  test("a tier that this machine lacks is refused", () => {
    const { tiers } = machine();
    expect(errorOf(() => call("egg_open", [1, 99, emptyWord()])).message).toContain("tier 99 is unknown");
    for (const [i, tier] of tiers.entries()) {
      if (!tier.available) expect(errorOf(() => call("egg_open", [1, i, emptyWord()]))).toMatchObject({ kind: "usage" });
    }
  });
});

describe("handles", () => {
  test("a released one is stale, even when its place is taken again", () => {
    const model = newModel();
    model.release();
    const stale = { kind: "internal", message: `[native] handle ${model.handle} is not in use.` };
    expect(errorOf(() => model.read(2, 16))).toEqual(stale);
    expect(errorOf(() => model.release())).toEqual(stale);
    const next = newModel();
    expect(next.handle).not.toBe(model.handle);
    expect(errorOf(() => model.read(2, 16))).toEqual(stale);
    expect(next.read(2, 16)).toEqual(new Uint8Array(16).fill(16));
    next.release();
  });

  test.each([0, 1000, 2 ** 31, 2 ** 32 - 1])("%p, which was never given, is refused", (handle) => {
    expect(errorOf(() => call("egg_int8_model_read", [handle, 0, new Uint8Array(16), 16])).message).toBe(`[native] handle ${handle} is not in use.`);
  });

  test("one of another kind is refused by name", () => {
    const model = newModel();
    const evaluator = new NativeEvaluator(model, 1, 8);
    expect(errorOf(() => call("egg_int8_model_read", [context.handle, 0, new Uint8Array(16), 16])).message).toContain("stands for: context; expected: model");
    expect(errorOf(() => call("egg_int8_step_start", [evaluator.handle, pack("StepOrder", order)])).message).toContain("expected: trainer");
    expect(errorOf(() => call("egg_wait", [model.handle, 0, emptyRecord("Progress")])).message).toContain("stands for: model; expected: context");
    evaluator.release();
    model.release();
  });

  test("a model in use cannot be released, a context never", () => {
    const model = newModel();
    const trainer = new NativeTrainer(model, training);
    const evaluator = new NativeEvaluator(model, 1, 8);
    expect(errorOf(() => model.release()).message).toContain("2 trainers or evaluators still use the model");
    trainer.release();
    expect(errorOf(() => model.release()).message).toContain("still use the model");
    evaluator.release();
    model.release();
    expect(errorOf(() => call("egg_release", [context.handle])).kind).toBe("usage");
  });
});

test("a buffer of the wrong size is refused, and nothing is written", () => {
  const model = newModel();
  const trainer = new NativeTrainer(model, training);
  const evaluator = new NativeEvaluator(model, 2, 8);
  const reader = new NativeEvaluator(model, 1, 8);
  expect(errorOf(() => model.write(2, new Uint8Array(15))).message).toBe("[native] tensor: expected 16 bytes, found 15.");
  expect(errorOf(() => model.read(2, 17)).message).toBe("[native] tensor: expected 16 bytes, found 17.");
  expect(model.read(2, 16)).toEqual(new Uint8Array(16).fill(16));
  expect(errorOf(() => model.read(13, 16)).message).toContain("tensor 13 does not exist");
  expect(errorOf(() => call("egg_int8_trainer_batch", [trainer.handle, new Uint8Array(3), 3])).message).toBe("[native] batch: expected 144 bytes, found 3.");
  expect(errorOf(() => call("egg_int8_step_losses", [trainer.handle, new Int32Array(31), 124])).message).toBe("[native] losses: expected 128 bytes, found 124.");
  expect(errorOf(() => trainer.writeStates(0, new Uint8Array(16 * 33))).message).toContain("members 0 + 33 of 32");
  expect(errorOf(() => trainer.readStates(33, 0)).message).toContain("members 33 + 0 of 32");
  expect(errorOf(() => evaluator.writeStates(new Uint8Array(31))).message).toBe("[native] states: expected 32 bytes, found 31.");
  expect(errorOf(() => evaluator.feed(Uint8Array.of(1))).message).toContain("2 streams cannot be fed as one");
  expect(errorOf(() => reader.feed(new Uint8Array(0))).message).toContain("no text to read");
  expect(errorOf(() => call("egg_int8_feed", [reader.handle, Uint8Array.of(1), 1, new Int8Array(255), 255])).message).toContain("logits: expected 256 bytes, found 255");
  expect(errorOf(() => call("egg_int8_evaluate_start", [evaluator.handle, 9, new Uint8Array(20), 20])).message).toContain("a window of 9 tokens does not fit");
  for (const object of [trainer, evaluator, reader, model]) object.release();
});

test("bytes that are no tokens of a smaller vocabulary are refused", () => {
  const model = new NativeModel(context, { ...shape, vocabulary: 32 });
  const evaluator = new NativeEvaluator(model, 1, 8);
  expect(errorOf(() => call("egg_int8_feed", [evaluator.handle, Uint8Array.of(31, 32), 2, new Int8Array(32), 32])).message).toContain("token 32 is not in the vocabulary");
  evaluator.release();
  model.release();
});

describe("jobs", () => {
  test("while one runs everything else on its context is refused, and afterwards all is well", async () => {
    const model = newModel();
    const trainer = new NativeTrainer(model, training);
    const evaluator = new NativeEvaluator(model, 1, 8);
    const batch = new Uint8Array(16 * 9).fill(101);
    call("egg_int8_trainer_batch", [trainer.handle, batch, batch.length]);
    call("egg_int8_step_start", [trainer.handle, pack("StepOrder", order)]);
    const busy = "[native] a step job is running.";
    for (const action of [
      () => call("egg_int8_step_start", [trainer.handle, pack("StepOrder", order)]),
      () => call("egg_int8_trainer_batch", [trainer.handle, batch, batch.length]),
      () => call("egg_int8_evaluate_start", [evaluator.handle, 8, new Uint8Array(9), 9]),
      () => evaluator.feed(Uint8Array.of(1)),
      () => evaluator.readStates(),
      () => trainer.readStates(0, 1),
      () => model.read(2, 16),
      () => model.write(2, new Uint8Array(16)),
      () => new NativeTrainer(model, training),
      () => new NativeEvaluator(model, 1, 8),
      () => trainer.release(),
    ]) expect(errorOf(action).message).toBe(busy);
    expect(errorOf(() => call("egg_int8_evaluate_finish", [evaluator.handle, emptyRecord("EvaluateResult")])).message).toContain("no evaluation was started");
    await joinJob(context);
    expect(call("egg_int8_step_finish", [trainer.handle, emptyRecord("StepResult")])).toBe("ok");
    expect(errorOf(() => call("egg_int8_step_finish", [trainer.handle, emptyRecord("StepResult")])).message).toContain("no step was started");
    expect(model.read(2, 16)).toEqual(new Uint8Array(16).fill(16));
    trainer.release();
    evaluator.release();
    model.release();
  });

  test.each([1, 2])("a step cancelled on %d threads changes nothing, and the next one is as if it had not been", async (threads) => {
    const own = openContext(threads);
    const long = { ...training, pairs: 256, sequence: 2000 };
    const batch = Uint8Array.from({ length: 256 * 2001 }, (_, i) => (i * 7) % 251);
    const hash = (model: NativeModel) => sha256(...[...weightsOf(model).values()].map(({ data }) => data));
    const outcome = async (cancelFirst: boolean) => {
      const model = new NativeModel(own, shape);
      model.initialize(42);
      const trainer = new NativeTrainer(model, long);
      if (cancelFirst) {
        const before = hash(model);
        call("egg_int8_trainer_batch", [trainer.handle, batch, batch.length]);
        call("egg_int8_step_start", [trainer.handle, pack("StepOrder", { ...order, seed: 5 })]);
        cancel(own);
        await joinJob(own);
        expect(call("egg_int8_step_finish", [trainer.handle, emptyRecord("StepResult")], ["cancelled"])).toBe("cancelled");
        expect(hash(model)).toBe(before);
        expect(trainer.readStates(0, 512)).toEqual(new Uint8Array(512 * 16));
      }
      const result = await trainer.step(batch.map((byte) => byte ^ 1), { ...order, seed: 6 });
      const after = { result, weights: hash(model), states: sha256(trainer.readStates(0, 512)) };
      trainer.release();
      model.release();
      return after;
    };
    expect(await outcome(true)).toEqual(await outcome(false));
  }, 60_000);
});

describe("many calls", () => {
  // A pointer to a small typed array that is kept after the JIT has warmed up points elsewhere: reads and writes go astray.
  test("200,000 with fresh buffers of 16 bytes read back what was written", () => {
    const model = newModel();
    let wrong = 0;
    for (let i = 0; i < 100_000; i++) {
      const values = Uint8Array.from({ length: 16 }, (_, k) => (i >>> (k & 7)) & 127);
      model.write(2, values);
      const found = model.read(2, 16);
      for (let k = 0; k < 16; k++) if (found[k] !== ((i >>> (k & 7)) & 127)) wrong++;
    }
    expect(wrong).toBe(0);
    model.release();
  }, 30_000);

  test("100,000 single tokens give the logits that long texts give", () => {
    const model = newModel();
    const single = new NativeEvaluator(model, 1, 1);
    const whole = new NativeEvaluator(model, 1, 1);
    let wrong = 0;
    for (let block = 0; block < 1000; block++) {
      const text = Uint8Array.from({ length: 100 }, (_, i) => (i * i + block) & 255);
      let last: Int8Array = new Int8Array(0);
      for (const token of text) last = single.feed(Uint8Array.of(token));
      const expected = whole.feed(text);
      for (let v = 0; v < 256; v++) if (last[v] !== expected[v]) wrong++;
    }
    expect(wrong).toBe(0);
    single.release();
    whole.release();
    model.release();
  }, 30_000);
});
