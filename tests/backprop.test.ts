// Training by gradients as a person runs it: the built program, real text, signals, broken files; and its system identities.
// Not the model's formulas (transformer-golden.test.ts) and not the tokenizers (bpe.test.ts). Read next: src/learners/backprop.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freshFolder, onlyRun, readJson, readLines, readSafetensors, run, sets, start, until } from "./program.ts";

setDefaultTimeout(90_000);

/** A GPT so small that a step takes a few milliseconds. */
const tiny = {
  preset: "gpt-nano", "data.path": "builtin:fables:64KiB", "model.layers": 2, "model.width": 32, "model.heads": 4, "model.block": 16, "trainer.batch": 4, "trainer.warmup": 2, "device.threads": 2,
  "run.steps": 12, "run.eval_every": 6, "run.sample_every": 6, "run.sample_tokens": 16, "run.checkpoint_every": 4, "run.keep": 2, "run.fingerprint_every": 1,
};
const families = { gpt: {}, llama: { "model.type": "llama", "model.kv_heads": 2 } };

/** Trains in a fresh folder. */
function train(values: Record<string, string | number>, folder = freshFolder("backprop"), more: string[] = []): { folder: string; runFolder: string; summary: any; hashes: string[] } {
  const ended = run(["train", ...sets({ ...tiny, ...values }), "--json", ...more], { cwd: folder });
  if (ended.code !== 0) throw new Error(ended.err);
  const runFolder = onlyRun(join(folder, "runs"));
  return { folder, runFolder, summary: JSON.parse(ended.out), hashes: readLines(runFolder).map((line) => line.weights_sha256) };
}

describe("a run", () => {
  test.each(Object.entries(families))("of %s: metrics, summary, checkpoint, samples, generate and eval", (family, values) => {
    const { folder, runFolder, summary } = train(values);
    const lines = readLines(runFolder);
    expect(lines.length).toBe(12);
    for (const line of lines) {
      expect(Object.keys(line)).toEqual(expect.arrayContaining(["train_bits_per_byte", "tokens_per_second", "gradient_norm", "learning_rate", "data_tokens"]));
      expect(line).not.toHaveProperty("member_tokens_per_second");
      expect(line).not.toHaveProperty("updated_fraction");
    }
    expect(lines[0].learning_rate).toBeCloseTo(0.002, 9); // half of it: a warm-up of two steps
    expect(lines.at(-1).train_bits_per_byte).toBeLessThan(lines[0].train_bits_per_byte);
    expect(lines.at(-1).data_tokens).toBe(12 * 4 * 16);
    expect(summary).toMatchObject({ status: "finished", steps: 12, weights_sha256: lines.at(-1).weights_sha256 });
    expect(summary).not.toHaveProperty("population");
    expect(summary.tokens_per_second).toBeGreaterThan(0);
    expect(readFileSync(join(runFolder, "samples.txt"), "utf8")).toMatch(/^=== step 6\nThe »/);

    const { tensors } = readSafetensors(join(runFolder, "checkpoints", "step-00000012.safetensors"));
    const weight = family === "gpt" ? "h.0.attn.c_attn.weight" : "model.layers.1.self_attn.k_proj.weight";
    expect(tensors.get(weight)).toMatchObject({ dtype: "F32", shape: family === "gpt" ? [32, 96] : [16, 32] });
    expect(tensors.has("state.steps")).toBe(true);

    const text = run(["generate", runFolder, "--prompt", "The ", "--tokens", "20", "--seed", "3"], { cwd: folder });
    expect([text.code, [...text.out].length, text.out.startsWith("The ")]).toEqual([0, 24, true]);
    const loss = run(["eval", runFolder, "--json"], { cwd: folder });
    expect(JSON.parse(loss.out).bits_per_byte).toBeWithin(2, 7);
    expect(run(["verify", runFolder, "--strict"], { cwd: folder }).code).toBe(0);
    expect(run(["report", runFolder], { cwd: folder }).code).toBe(0);
    expect(run(["runs", "list"], { cwd: folder }).out).toMatch(/ tokens\/s/);
  });

  test("gives the same bits on 1 and 3 threads, with layers computed again, and when it is stopped and resumed", async () => {
    const long = { "run.steps": 400, "run.checkpoint_every": 10, "run.eval_every": 50, "run.sample_every": 0 };
    const whole = train({});
    expect(train({ "device.threads": 1 }).hashes).toEqual(whole.hashes);
    expect(train({ "device.threads": 3 }).hashes).toEqual(whole.hashes);
    expect(train({ "trainer.recompute": "true" }).hashes).toEqual(whole.hashes);
    const unbroken = train(long);
    for (const signal of ["SIGINT", "SIGKILL"] as const) {
      const folder = freshFolder("resumed");
      const started = start(["train", ...sets({ ...tiny, ...long })], { cwd: folder });
      await until("a checkpoint", () => [...new Bun.Glob("runs/*/checkpoints/*.safetensors").scanSync(folder)].length > 0);
      started.kill(signal);
      expect((await started.ended).signal).toBe(signal);
      expect(train(long, folder).hashes).toEqual(unbroken.hashes);
    }
  });

  test("with dropout is resumed on the same masks", async () => {
    const whole = train({ "model.dropout": 0.2 });
    const folder = freshFolder("dropout");
    train({ "model.dropout": 0.2 }, folder);
    const runFolder = onlyRun(join(folder, "runs"));
    // As if it had been killed after step 8: the later checkpoint and the summary were never written.
    for (const name of readdirSync(join(runFolder, "checkpoints"))) if (name !== "step-00000008.safetensors") Bun.spawnSync(["rm", join(runFolder, "checkpoints", name)]);
    Bun.spawnSync(["rm", join(runFolder, "summary.json")]);
    expect(train({ "model.dropout": 0.2 }, folder).hashes).toEqual(whole.hashes);
  });

  test("with the gradients of two batches added up is a run with one batch of twice the size", () => {
    const values = { "run.fingerprint_every": 0 };
    const [large, added] = [train({ ...values, "trainer.batch": 8 }), train({ ...values, "trainer.batch": 4, "trainer.accumulation": 2 })].map(({ runFolder }) => readLines(runFolder));
    large!.forEach((line, i) => {
      expect(Math.abs(added![i].train_bits_per_byte - line.train_bits_per_byte)).toBeLessThan(2e-5);
      expect(Math.abs(added![i].gradient_norm - line.gradient_norm)).toBeLessThan(2e-5 * line.gradient_norm + 1e-5);
    });
  });

  test.each(["adamw", "adam", "lion", "sgd"])("learns by %s", (optimizer) => {
    const rate = { adamw: 0.003, adam: 0.003, lion: 0.0005, sgd: 0.1 }[optimizer]!;
    const { runFolder } = train({ "trainer.optimizer": optimizer, "trainer.learning_rate": rate, "trainer.weight_decay": optimizer === "adam" || optimizer === "sgd" ? 0 : 0.1, "run.steps": 60, "run.eval_every": 60, "run.sample_every": 0, "run.fingerprint_every": 0 });
    const lines = readLines(runFolder);
    expect(lines.at(-1).val_bits_per_byte).toBeLessThan(lines[0].train_bits_per_byte - 0.8);
  });

  test("in bf16 learns as it does in f32, on its own bits", () => {
    const values = { "run.steps": 40, "run.eval_every": 40, "run.sample_every": 0 };
    const [full, half] = [train({ ...values }), train({ ...values, "trainer.precision": "bf16" })];
    expect(half.hashes).not.toEqual(full.hashes);
    expect(Math.abs(half.summary.val_bits_per_byte - full.summary.val_bits_per_byte)).toBeLessThan(0.05);
  });

  test("--profile tells where the time went, and all of it", () => {
    const { runFolder } = train({}, undefined, ["--profile"]);
    const profile = readJson(runFolder, "profile.json");
    expect(profile.steps).toBe(12);
    for (const part of [profile.phases, profile.layers, profile.operations]) expect(part.reduce((sum: number, { share }: any) => sum + share, 0)).toBeCloseTo(1, 6);
    expect(profile.phases.map(({ phase }: any) => phase).toSorted()).toEqual(["backward", "forward", "update"]);
    expect(profile.layers.some(({ layer }: any) => /layer 1/.test(layer))).toBe(true);
    expect(profile.products.map(({ shape }: any) => shape)).toContain("64 x 128 x 32");
  });
});

describe("what goes wrong", () => {
  test("a rate that explodes ends the run with the numbers, and the last good checkpoint stays", () => {
    const folder = freshFolder("explodes");
    const values = { ...tiny, "trainer.optimizer": "sgd", "trainer.clip": 0, "trainer.learning_rate": 16, "trainer.schedule": "constant", "trainer.warmup": 4, "run.steps": 200, "run.checkpoint_every": 1, "run.eval_every": 0, "run.sample_every": 0 };
    const ended = run(["train", ...sets(values)], { cwd: folder });
    expect(ended.code).toBe(6);
    expect(ended.err).toMatch(/\[train\] step \d+: the loss (is |has exploded)/);
    expect(ended.err).toContain("Lower trainer.learning_rate (now 16)");
    const runFolder = onlyRun(join(folder, "runs"));
    expect(run(["verify", runFolder], { cwd: folder }).code).toBe(0);
    expect(run(["eval", runFolder, "--json"], { cwd: folder }).code).toBe(0);
  });

  test.each([
    [{ "data.path": "short.txt" }, 3, ["a window of 16 tokens and its last target needs 17 tokens, found", "model.block"]],
    [{ "data.tokenizer": "no-such.json" }, 3, ["no-such.json"]],
    [{ "trainer.type": "eggroll-int8" }, 2, ['but preset "gpt-nano" is for trainer.type backprop; take preset "egg"']],
    [{ "model.heads": 3 }, 2, ["model.heads=3: found 3, which does not divide model.width 32"]],
    [{ "model.type": "llama", "model.heads": 32 }, 2, ["rotary positions need heads of an even width"]],
    [{ "model.type": "llama", "model.head_width": 3 }, 2, ["model.head_width=3: found 3, but rotary positions need heads of an even width"]],
    [{ "model.type": "llama", "model.rope_low": 4 }, 2, ["model.rope_high: found 4, which is not above model.rope_low 4"]],
    [{ "model.kv_heads": 3 }, 2, ["model.kv_heads=3: found 3, which does not divide model.heads 4"]],
    [{ "trainer.population": 64 }, 2, ["only for trainer.type eggroll-int8", 'trainer.type is "backprop"']],
    [{ "model.from": "nowhere" }, 2, ["nowhere"]],
    [{ "model.width": 16_384, "model.layers": 64, "model.heads": 64, "trainer.batch": 512 }, 4, ["[run] out of memory", "Lower trainer.batch or model.block"]],
    [{ "model.layers": 64, "model.block": 256, "trainer.batch": 65_536 }, 4, ["[train] out of memory: a step reads 65,536 x 256 tokens at once", "bytes are needed", "Lower trainer.batch or model.block"]],
  ] as const)("%p is refused with exit code %i", (values, code, words) => {
    const folder = freshFolder("refused");
    writeFileSync(join(folder, "short.txt"), "abcdefghijk");
    const ended = run(["train", ...sets({ ...tiny, ...(values as Record<string, string | number>) })], { cwd: folder });
    expect([ended.code, ended.err]).toEqual([code, ended.err]);
    for (const word of words) expect(ended.err).toContain(word);
    expect(readdirSync(folder)).toEqual(["short.txt"]);
  });

  test("weights of another shape are refused with every difference", () => {
    const other = train({ "model.width": 48 });
    const folder = freshFolder("from");
    const moved = join(folder, "file.safetensors");
    cpSync(join(other.runFolder, "checkpoints", "step-00000012.safetensors"), moved);
    const from = run(["train", ...sets({ ...tiny, "model.from": moved })], { cwd: folder });
    expect(from.code).not.toBe(0);
    expect(from.err).toContain("model.width is 48, this run has 32");
    expect(readdirSync(folder)).toEqual(["file.safetensors"]);
    // Of the same shape it is a start: the loss begins where the other run ended.
    const next = train({ "model.width": 48, "model.from": moved, "run.seed": 2 }, folder);
    expect(readLines(next.runFolder)[0].train_bits_per_byte).toBeLessThan(readLines(other.runFolder)[3].train_bits_per_byte);
    const words = run(["train", ...sets({ ...tiny, "model.width": 48, "model.from": moved, "data.tokenizer": "bytes" })], { cwd: folder });
    expect([words.code, words.err.includes("its tokens are characters")]).toEqual([3, true]);
  });
});
