// `egg export` from the outside: what is written from a run, whole or not at all, and what is refused.
// Not the bytes of a GGUF file (gguf.test.ts), nor what other programs make of one. Read next: src/commands/export.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readGguf } from "../src/models/gguf.ts";
import { canMount, onSmallDisk } from "./disk.ts";
import { freshFolder, onlyRun, readJson, readSafetensors, run, sets, tiny, type Tensor } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("export");
writeFileSync(join(cwd, "text.txt"), Array.from({ length: 200 }, (_, i) => `Hen ${i} laid ${i % 7} eggs. Café 鶏 🥚\n`).join(""));

/** Trains a small model into a folder of its own. */
function trained(out: string, values: Record<string, string | number>): string {
  const { code, err } = run(["--json", "--quiet", ...sets({ "data.path": "text.txt", "run.out": out, "run.eval_every": 0, "run.sample_every": 0, "device.threads": 2, ...values })], { cwd });
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return onlyRun(join(cwd, out));
}
const small = { "model.layers": 2, "model.width": 16, "model.heads": 2, "model.feed_forward_width": 24, "model.block": 16, "trainer.batch": 2, "run.steps": 4, "run.checkpoint_every": 2, "data.tokenizer": "characters" };
const llama = trained("llama", { preset: "llama-tiny", ...small, "model.kv_heads": 1, "data.validation": 0.1, "run.eval_every": 1 });
const gpt = trained("gpt", { preset: "gpt-nano", ...small, "data.tokenizer": "bytes" });
const int8 = trained("int8", { ...tiny, "data.path": "text.txt", "run.steps": 2 });

/** What the newest checkpoint of a run holds, without what only training needs. */
function saved(folder: string, name = readdirSync(join(folder, "checkpoints")).filter((name) => name.endsWith(".safetensors")).sort().at(-1)!): Map<string, Tensor> {
  return new Map([...readSafetensors(join(folder, "checkpoints", name)).tensors].filter(([name]) => !name.startsWith("state.")));
}

function exported(...args: string[]): { code: number | null; out: string; err: string } {
  const { code, out, err } = run(["export", ...args], { cwd });
  return { code, out, err };
}

describe("GGUF", () => {
  test("is one file with all weights, and says what was written", () => {
    const { code, out, err } = exported(llama, "--out", "hens.gguf");
    const file = readFileSync(join(cwd, "hens.gguf"));
    expect({ code, out }).toEqual({ code: 0, out: "" });
    expect(err).toContain(`wrote hens.gguf: ${file.length.toLocaleString("en-US")} bytes, weights f32, step 4\n`);
    expect(err).toContain("this one has none: llama.cpp will stop at the character");
    const { values, tensors } = readGguf(file, file.length, "hens.gguf");
    const weights = saved(llama);
    expect(tensors.length).toBe(weights.size);
    expect(values.get("llama.block_count")).toEqual({ type: "u32", value: 2 });
    expect(values.get("llama.attention.head_count_kv")).toEqual({ type: "u32", value: 1 });
    const at = (name: string) => {
      const { begin, end } = tensors.find((place) => place.name === name)!;
      return file.subarray(begin, end);
    };
    expect(at("token_embd.weight").equals(weights.get("model.embed_tokens.weight")!.data)).toBe(true);
    expect(at("blk.1.ffn_down.weight").equals(weights.get("model.layers.1.mlp.down_proj.weight")!.data)).toBe(true);
    const tokens = values.get("tokenizer.ggml.tokens")!.value as string[];
    expect(tokens.length).toBe(weights.get("model.embed_tokens.weight")!.shape[0]!);
    expect(tokens).toContain("ðŁ¥ļ");
  });

  test("of the best checkpoint, of a file of one, in other types: each its own", () => {
    const first = readdirSync(join(llama, "checkpoints")).find((name) => name.includes("00000002"))!;
    expect(exported(join(llama, "checkpoints", first), "--out", "first.gguf").err).toContain("step 2\n");
    expect(exported(llama, "--out", "best.gguf", "--checkpoint", "best").code).toBe(0);
    const [newest, early] = ["hens.gguf", "first.gguf"].map((name) => readFileSync(join(cwd, name)));
    expect(newest!.equals(early!)).toBe(false);
    const json = exported(llama, "--out", "half.gguf", "--dtype", "bf16", "--json");
    expect(JSON.parse(json.out)).toEqual({ run: llama, step: 4, format: "gguf", dtype: "bf16", files: ["half.gguf"], bytes: readFileSync(join(cwd, "half.gguf")).length });
    expect(readFileSync(join(cwd, "half.gguf")).length).toBeLessThan(0.8 * newest!.length);
  });
});

describe("the hub's format", () => {
  test("is a folder with weights, config and tokenizer", () => {
    expect(exported(llama, "--format", "safetensors", "--out", "hub")).toMatchObject({ code: 0, out: "", err: expect.stringContaining("wrote model.safetensors, config.json, tokenizer.json, tokenizer_config.json into hub: ") });
    expect(readdirSync(join(cwd, "hub")).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    const { tensors, metadata } = readSafetensors(join(cwd, "hub/model.safetensors"));
    expect(tensors).toEqual(saved(llama));
    expect(metadata).toEqual({ format: "pt" });
    expect(readJson(cwd, "hub/config.json")).toMatchObject({ model_type: "llama", hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1, intermediate_size: 24, tie_word_embeddings: true });
    const { model } = readJson(cwd, "hub/tokenizer.json");
    expect(model.vocab["鶏"]).toBe(Object.keys(model.vocab).length - 2);
  });

  test("takes gpt models, whose names have the hub's prefix; egg starts from it again", () => {
    expect(exported(gpt, "--format", "safetensors", "--out", "hub-gpt").code).toBe(0);
    const { tensors } = readSafetensors(join(cwd, "hub-gpt/model.safetensors"));
    expect(tensors).toEqual(new Map([...saved(gpt)].map(([name, tensor]) => [`transformer.${name}`, tensor])));
    const again = trained("again", { preset: "gpt-nano", ...small, "run.steps": 0, "data.tokenizer": "hub-gpt/tokenizer.json", "model.from": "hub-gpt" });
    expect(saved(again)).toEqual(saved(gpt));
  });
});

describe("wide heads and scaled rotary frequencies", () => {
  const rope = { "model.head_width": 10, "model.rope_base": 1000, "model.rope_factor": 4, "model.rope_original": 12, "model.rope_high": 3 };
  const scaled = trained("scaled", { preset: "llama-tiny", ...small, "data.tokenizer": "bytes", ...rope, "model.tied": "off" });

  test("are in the hub's config, where egg and a run that starts from it find them again", () => {
    expect(exported(scaled, "--format", "safetensors", "--out", "hub-scaled").code).toBe(0);
    expect(readJson(cwd, "hub-scaled/config.json")).toMatchObject({
      head_dim: 10, rope_theta: 1000, rope_scaling: { rope_type: "llama3", factor: 4, low_freq_factor: 1, high_freq_factor: 3, original_max_position_embeddings: 12 }, tie_word_embeddings: false,
    });
    const written = (model: string) => run(["generate", model, "--prompt", "Hen 1", "--tokens", "40", "--seed", "3"], { cwd });
    const { code, out } = written("hub-scaled");
    expect({ code, out }).toEqual({ code: 0, out: written(scaled).out });
    const from = { preset: "llama-tiny", ...small, "model.tied": "off", "run.steps": 0, "data.tokenizer": "hub-scaled/tokenizer.json", "model.from": "hub-scaled" };
    const again = trained("scaled-again", { ...from, ...rope });
    expect(saved(again)).toEqual(saved(scaled));
    expect(written(again).out).toBe(out);
    const other = run(["--quiet", ...sets({ "data.path": "text.txt", "run.out": "none", ...from, "model.head_width": 10, "model.rope_base": 1000 })], { cwd });
    expect(other).toMatchObject({ code: 3, err: expect.stringContaining("model.rope_factor is 4, this run has 1; model.rope_original is 12, this run has 0; model.rope_high is 3, this run has 4.") });
  });

  test("are in a GGUF file", () => {
    expect(exported(scaled, "--out", "scaled.gguf").code).toBe(0);
    const file = readFileSync(join(cwd, "scaled.gguf"));
    const { values, tensors } = readGguf(file, file.length, "scaled.gguf");
    expect(values.get("llama.attention.key_length")).toEqual({ type: "u32", value: 10 });
    expect(tensors.find(({ name }) => name === "rope_freqs.weight")).toMatchObject({ dtype: "F32", shape: [5] });
  });
});

describe("what cannot be", () => {
  test.each([
    [() => [gpt, "--out", "x.gguf"], 2, "GGUF has nothing for this model: model.type is gpt, it has llama"],
    [() => [int8, "--out", "x.gguf"], 2, "a model of the type egg, which no other program knows"],
    [() => [int8, "--out", "x", "--format", "safetensors"], 2, "a model of the type egg"],
    [() => ["nowhere", "--out", "x.gguf"], 2, "nowhere"],
    [() => [llama], 2, "--out is missing"],
    [() => [llama, "--out", "x"], 2, '--out: found "x", allowed a name that ends in .gguf'],
    [() => [llama, "--out", "x.gguf", "--format", "safetensors"], 2, '--out: found "x.gguf", allowed the name of a folder'],
    [() => [llama, "--out", "no/x.gguf"], 2, "there is no folder no"],
    [() => [llama, "--out", "x.gguf", "--dtype", "int8"], 2, "allowed f32, f16, bf16"],
    [() => [llama, "--out", "there.gguf"], 2, "there.gguf: is there already; nothing was written"],
    [() => [llama, "--out", "there", "--format", "safetensors"], 2, "there: is there already, and not empty; nothing was written"],
    [() => [llama, "--out", "folder.gguf", "--force"], 2, "folder.gguf: is a folder"],
    [() => [llama, "--out", "there.gguf", "--force", "--format", "safetensors"], 2, "allowed the name of a folder"],
  ] as [() => string[], number, string][])("is refused: %#", (args, code, message) => {
    for (const folder of ["there", "folder.gguf"]) mkdirSync(join(cwd, folder), { recursive: true });
    for (const file of ["there.gguf", "there/mine"]) writeFileSync(join(cwd, file), "mine");
    const result = exported(...args());
    expect(result).toMatchObject({ code, out: "", err: expect.stringContaining(message) });
    for (const file of ["there.gguf", "there/mine"]) expect(readFileSync(join(cwd, file), "utf8")).toBe("mine");
    for (const name of ["x.gguf", "x", "no"]) expect(existsSync(join(cwd, name))).toBe(false);
  });

  test("a damaged checkpoint is none", () => {
    const name = readdirSync(join(llama, "checkpoints")).find((name) => name.includes("00000002"))!;
    const bytes = readFileSync(join(llama, "checkpoints", name));
    bytes[bytes.length - 100]! ^= 1;
    writeFileSync(join(cwd, name), bytes);
    expect(exported(name, "--out", "x.gguf")).toMatchObject({ code: 7, out: "" });
    expect(existsSync(join(cwd, "x.gguf"))).toBe(false);
  });

  test("--force replaces, whole, and leaves nothing beside", () => {
    writeFileSync(join(cwd, "old.gguf"), "old");
    expect(exported(llama, "--out", "old.gguf", "--force").code).toBe(0);
    expect(readFileSync(join(cwd, "old.gguf")).equals(readFileSync(join(cwd, "hens.gguf")))).toBe(true);
    expect(readdirSync(cwd).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });
});

test.skipIf(!canMount)("a disk that is full: the folder that was made is gone again", () =>
  onSmallDisk("size=8k", (disk) => {
    const { code, err } = exported(gpt, "--format", "safetensors", "--out", join(disk, "hub"));
    expect(code).toBe(4);
    expect(err).toContain("the disk is full");
    expect(err).not.toContain("goes on from the last checkpoint");
    expect(readdirSync(disk)).toEqual([]);
  }));
