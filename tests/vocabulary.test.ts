// Texts that a vocabulary lacks, from the outside: prompts of samples and commands, a start from a model of other tokens, tokens of a file.
// Not the tokenizers themselves: tokenizer.test.ts, bpe.test.ts. Read next: src/learners/create.ts, src/commands/start.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadConfig } from "../src/config/load.ts";
import { EggError } from "../src/errors.ts";
import type { Learner } from "../src/learners/learner.ts";
import { runLoop } from "../src/run/loop.ts";
import { egg, environment, freshFolder, onlyRun, readJson, readLines, run, sets } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("vocabulary");
writeFileSync(join(cwd, "ru.txt"), "Жили-были старик со старухой. ".repeat(60)); // no line end either
writeFileSync(join(cwd, "long.txt"), "the quick brown fox jumps over the lazy dog\n".repeat(60));
writeFileSync(join(cwd, "short.txt"), "a fox\na dog\nover and over\n".repeat(60));

const small = {
  preset: "gpt-nano", "model.layers": 1, "model.width": 16, "model.heads": 2, "model.block": 8, "trainer.batch": 2, "trainer.warmup": 1, "device.threads": 1,
  "run.steps": 3, "run.eval_every": 3, "run.sample_every": 1, "run.sample_tokens": 4, "run.checkpoint_every": 1,
};
type Values = Record<string, string | number>;

const attempt = (out: string, values: Values, ...more: string[]) => run(["train", "--json", ...more, ...sets({ ...small, "run.out": out, ...values })], { cwd });

function train(out: string, values: Values): { folder: string; summary: any; err: string } {
  const ended = attempt(out, values);
  if (ended.code !== 0) throw new Error(ended.err);
  return { folder: onlyRun(join(cwd, out)), summary: JSON.parse(ended.out), err: ended.err };
}

/** Makes a finished run one that was interrupted. */
function interrupt(folder: string): void {
  writeFileSync(join(folder, "summary.json"), readFileSync(join(folder, "summary.json"), "utf8").replace("finished", "interrupted"));
}

const words = (line: string): string[] => [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
/** The command behind "Next:" that generates, without its first word. */
const next = (err: string): string[] => words(/^ {2}egg (generate .*)$/m.exec(err)![1]!);

describe("a text without the letters of the default prompt", () => {
  const { folder, err } = train("ru", { "data.path": "ru.txt" });

  test("is sampled from its beginning, and the command that is told next works", () => {
    expect(readFileSync(join(folder, "samples.txt"), "utf8")).toMatch(/^=== step 1\n»[^=]+=== step 2\n»[^=]+=== step 3\n»/);
    expect(next(err)).toEqual(["generate", expect.stringContaining("gpt-nano-")]);
    expect(run([...next(err), "--tokens", "4"], { cwd }).code).toBe(0);
  });

  test("a prompt of its own letters is sampled, and told next", () => {
    const own = train("own", { "data.path": "ru.txt", "run.prompt": "старик со " });
    expect(readFileSync(join(own.folder, "samples.txt"), "utf8")).toStartWith("=== step 1\nстарик со »");
    expect(next(own.err).slice(2)).toEqual(["--prompt", "старик со "]);
    expect(run([...next(own.err), "--tokens", "4"], { cwd }).out).toStartWith("старик со ");
  });

  test.each([[["--dry-run"]], [[]]])("another prompt that was asked for is refused before there is a folder (%p)", (more) => {
    const { code, out, err } = attempt("none", { "data.path": "ru.txt", "run.prompt": "Эй" }, ...more);
    expect([code, out, existsSync(join(cwd, "none"))]).toEqual([2, "", false]);
    expect(err).toContain('[config] run.prompt: "Э" (U+042D) at byte 0 is not in the vocabulary');
  });

  test("generate writes nothing before it knows that it can read the prompt", () => {
    expect(run(["generate", folder, "--prompt", "старик hen"], { cwd })).toMatchObject({ code: 3, out: "", err: expect.stringContaining('"h" (U+0068)') });
    expect(run(["generate", folder, "--prompt", "hen", "--tokens", "0"], { cwd })).toMatchObject({ code: 3, out: "" });
    expect(run(["generate", folder, "--prompt", "старик", "--tokens", "0"], { cwd })).toMatchObject({ code: 0, out: "старик" });
  });

  test("chat goes without line ends where there are none", () => {
    const child = Bun.spawnSync([egg, "chat", folder, "--quiet", "--tokens", "5"], { cwd, env: environment(cwd), stdin: Buffer.from("старик\nсо старухой\n"), stdout: "pipe", stderr: "pipe" });
    expect([child.exitCode, child.stderr.toString()]).toEqual([0, ""]);
    expect(child.stdout.toString()).toMatch(/^[^\n]{5}\n[^\n]{5}\n$/u);
  });
});

test("a sample that fails loses no step: the checkpoint is saved before", async () => {
  const folder = join(freshFolder("sample"), "run");
  const learner: Learner = {
    parameters: 1, weights: "f32", unit: "tokens", tokensPerStep: 1, population: null, tokenizer: "bytes", dataTokensPerStep: 1, backend: "none", threads: 1,
    initialize() {}, step: async () => ({ trainBitsPerByte: 8 }), evaluate: async () => null, sample: () => Promise.reject(new EggError("numeric", "no sample")), cancel() {},
    save: () => new Map([["weight", { dtype: "F32", shape: [1], data: new Uint8Array(4) }]]), load() {},
  };
  const { config } = loadConfig({ sets: ["preset=gpt-nano", "run.steps=9", "run.sample_every=2", "run.checkpoint_every=2"] });
  const quiet = { started() {}, warned() {}, within() {}, stepped() {}, evaluated() {}, sampled() {}, stopping() {} };
  const plan = { config, folder, force: false, debugStats: false, prompt: new Uint8Array(0), tokenizer: null, program: { version: "test", commit: null }, createLearner: () => learner, formatSample: () => "", tryLock: () => true, listener: quiet };
  expect(await runLoop(plan).catch((error: unknown) => error)).toMatchObject({ kind: "numeric", message: "no sample" });
  expect(readdirSync(join(folder, "checkpoints"))).toEqual(["step-00000002.safetensors"]);
  expect(readLines(folder).map(({ step }) => step)).toEqual([1, 2]);
});

describe("a start from another model", () => {
  const first = train("first", { "data.path": "long.txt" });
  const bpe = train("bpe", { "data.path": "long.txt", "data.tokenizer": "bpe:270" });
  const exported = run(["export", bpe.folder, "--format", "safetensors", "--out", "hub-bpe"], { cwd });

  test("takes its characters, though the text has fewer, and goes on when that model is gone", () => {
    cpSync(join(first.folder, "checkpoints", "step-00000003.safetensors"), join(cwd, "start.safetensors"));
    const values = { "data.path": "short.txt", "model.from": "start.safetensors" };
    const { folder, summary } = train("second", values);
    expect([first.summary.tokenizer, summary.tokenizer]).toEqual(["characters (28)", "characters (28)"]);
    expect(attempt("alone", { "data.path": "short.txt" }).out).toContain('"characters (12)"');
    rmSync(join(cwd, "start.safetensors"));
    interrupt(folder);
    expect(JSON.parse(attempt("second", values).out)).toMatchObject({ status: "finished", tokenizer: "characters (28)", weights_sha256: summary.weights_sha256 });
  });

  test("that was exported is the same model, to generate, to measure and to start from", () => {
    expect(run(["export", first.folder, "--format", "safetensors", "--out", "hub"], { cwd }).code).toBe(0);
    const text = (model: string) => run(["generate", model, "--quiet", "--prompt", "the fox", "--seed", "3"], { cwd });
    expect(text("hub")).toEqual(text(first.folder));
    expect(text("hub").code).toBe(0);
    expect(run(["eval", "hub", "--data", "short.txt", "--json"], { cwd }).code).toBe(0);
    expect(train("third", { "data.path": "short.txt", "model.from": "hub" }).summary.tokenizer).toBe("characters (28)");
    expect(train("fourth", { "data.path": "short.txt", "model.from": "hub", "data.tokenizer": "hub/tokenizer.json" }).summary.tokenizer).toBe("characters (28)");
  });

  test("takes its subwords instead of others that the text would make", () => {
    for (const [out, word] of [["fifth", "bpe:300"], ["sixth", "characters"]] as const) {
      expect(train(out, { "data.path": "short.txt", "model.from": bpe.folder, "data.tokenizer": word }).summary.tokenizer).toBe("bpe (270)");
    }
  });

  test("is refused where the text has more characters, or its tokens are others, with what to do", () => {
    const more = attempt("none", { "data.path": "ru.txt", "model.from": first.folder }, "--dry-run");
    expect(more.code).toBe(3);
    expect(more.err).toMatch(/\[model\] model\.from .*ru\.txt: "Ж" \(U\+0416\) at byte 0 is not in the vocabulary of 28 characters/);
    expect(exported.code).toBe(0);
    const other = attempt("none", { "data.path": "short.txt", "model.from": first.folder, "data.tokenizer": "hub-bpe/tokenizer.json" });
    expect(other.code).toBe(3);
    expect(other.err).toContain("its tokens are characters (28), this run's are bpe (270), and not the same");
    expect(other.err).toMatch(/data\.tokenizer=characters takes .* egg export .*first.* --format safetensors/);
    expect(existsSync(join(cwd, "none"))).toBe(false);
  });

  test("on a token file: the tokens must be the same, whatever the preset says", () => {
    const tokenize = (tokenizer: string, out: string) => run(["data", "tokenize", "--data", "short.txt", "--tokenizer", tokenizer, "--out", out], { cwd }).code;
    expect([tokenize("hub-bpe/tokenizer.json", "same.tokens"), tokenize("bpe:300", "other.tokens")]).toEqual([0, 0]);
    expect(train("seventh", { "data.path": "same.tokens", "model.from": bpe.folder }).summary.tokenizer).toBe("bpe (270)");
    expect(attempt("none", { "data.path": "other.tokens", "model.from": bpe.folder })).toMatchObject({ code: 3, err: expect.stringMatching(/its tokens are bpe \(270\), this run's are bpe \(\d+\)[^]*Make the token file again/) });
  });
});

test("a run on a token file tells the tokens that it has, not those that its config asks for", () => {
  expect(run(["data", "tokenize", "--data", "long.txt", "--tokenizer", "bpe:270", "--out", "long.tokens"], { cwd }).code).toBe(0);
  const { folder, summary, err } = train("file", { "data.path": "long.tokens", "data.tokenizer": "bpe:9999" });
  expect([summary.tokenizer, readJson(folder, "summary.json").tokenizer]).toEqual(["bpe (270)", "bpe (270)"]);
  expect(err).toMatch(/ f32 weights, bpe \(270\), cpu /);
  expect(err).toMatch(/^ {2}model +[^\n]*parameters, bpe \(270\)$/m);
});

test("a run that goes on tells the training loss of its first step", () => {
  const { folder, err } = train("on", { "data.path": "long.txt" });
  const line = /^ {2}training loss +[\d.]+ → [\d.]+ bits\/byte$/m.exec(err)![0];
  expect(attempt("on", { "data.path": "long.txt" }).err).toContain(line);
  interrupt(folder);
  const resumed = attempt("on", { "data.path": "long.txt" });
  expect(resumed.err).toContain("going on from step 3");
  expect(resumed.err).toContain(line);
});
