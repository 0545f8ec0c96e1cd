// Llamas of the hub with heads of another width than width / heads and with scaled rotary frequencies: built here, in the hub's
// format, and computed once more in f64 by the published formulas. Not files of the hub's own library: transformer-names.test.ts.
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { presetConfig } from "../src/config/presets.ts";
import type { ConfigOf } from "../src/config/knobs.ts";
import { tokenizerFrom } from "../src/data/tokenizer.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { bytesNow, elements, piecesOf, type SavedTensor, type TensorEntry } from "../src/models/tensors.ts";
import { expectSizes, foreignShape, shapeOfTensors, startTransformer } from "../src/models/transformer-foreign.ts";
import { hubFiles } from "../src/models/transformer-hub.ts";
import { saveTransformer } from "../src/models/transformer-names.ts";
import { knobsOfShape, shapeOfConfig, transformerParameters, transformerShape } from "../src/models/transformer-shape.ts";
import { Transformer } from "../src/models/transformer.ts";
import { openForeign } from "../src/run/foreign.ts";
import { encodeSafetensors } from "../src/run/safetensors.ts";
import { noGrad, tensor } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";
import { freshFolder } from "./program.ts";
import * as reference from "./reference/ops.ts";

type F64 = reference.F64;

const common = {
  model_type: "llama", vocab_size: 31, hidden_size: 12, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, intermediate_size: 20, max_position_embeddings: 32, rms_norm_eps: 1e-5,
};
const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 };
const likeLlama3 = reference.scaledFrequency({ factor: 8, original: 16 });
interface Case { config: object; d: number; base: number; scaled?: (plain: number) => number }
const cases: Record<string, Case> = {
  "wide heads": { config: { head_dim: 8 }, d: 8, base: 10_000 },
  "narrow heads": { config: { head_dim: 2, rope_theta: 100 }, d: 2, base: 100 },
  "linear scaling": { config: { head_dim: 6, rope_scaling: { type: "linear", factor: 2.5 } }, d: 6, base: 10_000, scaled: reference.scaledFrequency({ factor: 2.5 }) },
  "Llama 3's scaling": { config: { head_dim: 10, rope_theta: 50, rope_scaling: { rope_type: "llama3", ...llama3 } }, d: 10, base: 50, scaled: likeLlama3 },
  "Llama 3's scaling in newer files": { config: { head_dim: 10, rope_theta: 7, rope_parameters: { rope_type: "llama3", rope_theta: 50, ...llama3 } }, d: 10, base: 50, scaled: likeLlama3 },
};

function weightsFor(d: number): Map<string, TensorEntry> {
  const random = seededRandom(d);
  const { vocab_size: vocabulary, hidden_size: width, num_attention_heads: heads, num_key_value_heads: kvHeads, intermediate_size: inner } = common;
  const shapes: Record<string, number[]> = { "model.embed_tokens": [vocabulary, width], "model.norm": [width], lm_head: [vocabulary, width] };
  for (let i = 0; i < common.num_hidden_layers; i++) {
    Object.assign(shapes, Object.fromEntries(Object.entries({
      input_layernorm: [width], "self_attn.q_proj": [heads * d, width], "self_attn.k_proj": [kvHeads * d, width], "self_attn.v_proj": [kvHeads * d, width], "self_attn.o_proj": [width, heads * d],
      post_attention_layernorm: [width], "mlp.gate_proj": [inner, width], "mlp.up_proj": [inner, width], "mlp.down_proj": [width, inner],
    }).map(([name, shape]) => [`model.layers.${i}.${name}`, shape])));
  }
  return new Map(Object.entries(shapes).map(([name, shape]) => [`${name}.weight`, { dtype: "F32", shape, data: new Uint8Array(Float32Array.from({ length: elements(shape) }, () => 2 * random() - 1).buffer) }]));
}

/** Logits of one row of ids: RMSNorm, rotary attention with shared heads, SwiGLU, each by its paper. */
function referenceLogits(tensors: ReadonlyMap<string, TensorEntry>, { d, base, scaled }: Case, ids: readonly number[]): F64 {
  const weight = (name: string): F64 => Float64Array.from(new Float32Array(bytesNow(tensors.get(`${name}.weight`)!.data).slice().buffer));
  const { hidden_size: width, num_attention_heads: heads, num_key_value_heads: kvHeads, intermediate_size: inner, vocab_size: vocabulary } = common;
  const time = ids.length;
  const linear = (x: F64, name: string, n: number, activation = "none"): F64 => reference.linear(x, weight(name), null, time, n, x.length / time, activation);
  const norm = (x: F64, name: string): F64 => reference.norm(x, width, weight(name), null, false, common.rms_norm_eps);
  const turned = (x: F64, count: number): F64 => reference.rope(x, [1, time, count, d], base, 0, true, scaled);
  const table = weight("model.embed_tokens");
  let x = reference.f64(time * width, (i) => table[ids[Math.floor(i / width)]! * width + (i % width)]!);
  for (let i = 0; i < common.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    const h = norm(x, `${layer}.input_layernorm`);
    const [q, k, v] = [linear(h, `${layer}.self_attn.q_proj`, heads * d), linear(h, `${layer}.self_attn.k_proj`, kvHeads * d), linear(h, `${layer}.self_attn.v_proj`, kvHeads * d)];
    const mixed = reference.attention(turned(q, heads), turned(k, kvHeads), v, { batch: 1, q: time, kv: time, heads, kvHeads, d, causal: true });
    const out = linear(mixed, `${layer}.self_attn.o_proj`, width);
    const between = x.map((value, j) => value + out[j]!);
    const g = norm(between, `${layer}.post_attention_layernorm`);
    const [gate, up] = [linear(g, `${layer}.mlp.gate_proj`, inner, "silu"), linear(g, `${layer}.mlp.up_proj`, inner)];
    const down = linear(gate.map((value, j) => value * up[j]!), `${layer}.mlp.down_proj`, width);
    x = between.map((value, j) => value + down[j]!);
  }
  return linear(norm(x, "model.norm"), "lm_head", vocabulary);
}

/** The largest difference, as a part of the largest expected. */
function distance(found: ArrayLike<number>, expected: F64): number {
  expect(found.length).toBe(expected.length);
  return Math.max(...expected.map((value, i) => Math.abs(value - found[i]!))) / Math.max(...expected.map(Math.abs));
}

const reread = (saved: ReadonlyMap<string, SavedTensor>): Map<string, TensorEntry> =>
  new Map([...saved].map(([name, each]) => [name, { ...each, data: new Uint8Array(Buffer.concat(piecesOf(each).map((piece) => bytesNow(piece).slice()))) }]));

describe.each(Object.entries(cases))("a Llama with %s", (_, each) => {
  const folder = freshFolder("foreign-llama");
  const weights = weightsFor(each.d);
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...common, ...each.config }));
  writeFileSync(join(folder, "model.safetensors"), Buffer.concat(encodeSafetensors(weights, {}).map((piece) => new Uint8Array(bytesNow(piece)))));
  const { shape, tensors } = openForeign(folder);
  const ids = Array.from({ length: 30 }, (_, i) => (i * 11 + 3) % 31);

  test("gives the logits of the formulas, by a full forward and by a cache, and is saved as it was", () => {
    const model = new Transformer(shape, { empty: true }).eval();
    expect(model.parameterCount).toBe(transformerParameters(shape));
    startTransformer(model, { shape, tensors, where: folder });
    const expected = referenceLogits(weights, each, ids);
    if (each.scaled !== undefined) expect(distance(referenceLogits(weights, { ...each, scaled: (plain) => plain }, ids), expected)).toBeGreaterThan(0.1);
    const read = (from: number, to: number, caches: ReturnType<Transformer["caches"]> | null = null): ArrayLike<number> =>
      noGrad(() => model.logits(tensor(Int32Array.from(ids.slice(from, to)), { shape: [1, to - from] }), caches)).toArray();
    expect(distance(read(0, ids.length), expected)).toBeLessThan(1e-5);
    const caches = model.caches(1, ids.length);
    const parts = [[0, 9], ...Array.from({ length: ids.length - 9 }, (_, i) => [9 + i, 10 + i])] as [number, number][];
    expect(distance(parts.flatMap(([from, to]) => Array.from(read(from, to, caches))), expected)).toBeLessThan(1e-5);
    expect(reread(saveTransformer(model))).toEqual(new Map([...saveTransformer(model).keys()].map((name) => [name, weights.get(name)!])));
    for (const cache of caches) cache.release();
    model.release();
  });

  test("keeps its shape in knobs, in an export, and all but its frequencies where there is no config.json", () => {
    const config = presetConfig("llama-tiny") as ConfigOf<"backprop">;
    expect(shapeOfConfig({ ...config, model: { ...config.model, ...knobsOfShape(shape) } }, shape.vocabulary)).toEqual(shape);
    const { texts } = hubFiles({ name: "x", shape, tokenizer: tokenizerFrom("bytes"), tensors }, "F32");
    expect(foreignShape(JSON.parse(texts.get("config.json")!), "exported")).toEqual(shape);
    expect(shapeOfTensors(tensors, 4, "lone")).toMatchObject({ headWidth: each.d, kvHeads: 2, feedForward: 20, tied: false });
  });
});

test("a config of an older checkpoint, without the knobs, is one of plain heads and frequencies", () => {
  const config = presetConfig("llama-tiny") as ConfigOf<"backprop">;
  const { head_width, rope_factor, rope_original, rope_low, rope_high, ...older } = config.model;
  expect([head_width, rope_factor, rope_original, rope_low, rope_high]).toEqual([0, 1, 0, 1, 4]);
  expect(shapeOfConfig({ ...config, model: older as typeof config.model }, 99)).toEqual(shapeOfConfig(config, 99));
});

test("a start from scaled frequencies is refused where the run has others, with the numbers", () => {
  const shape = foreignShape({ ...common, head_dim: 10, rope_scaling: { rope_type: "llama3", ...llama3 } }, "c");
  const plain = transformerShape({ family: "llama", vocabulary: 31, layers: 2, width: 12, heads: 4, kvHeads: 2, feedForward: 20, block: 32, headWidth: 8, tied: false });
  const model = new Transformer(plain, { empty: true });
  expect(failure(() => startTransformer(model, { shape, tensors: weightsFor(10), where: "a/folder" })).message).toBe(
    "[checkpoint] a/folder: model.head_width is 10, this run has 8; model.rope_factor is 8, this run has 1; model.rope_original is 16, this run has 0.",
  );
  expect(failure(() => startTransformer(model, { shape, tensors: weightsFor(10), where: "a/folder" })).hint).toBe("Give this run its settings: --set model.head_width=10 --set model.rope_factor=8 --set model.rope_original=16");
  model.release();
});

test("the hub's GPT-2 has no heads of another width", () => {
  const shape = transformerShape({ family: "gpt", vocabulary: 256, layers: 1, width: 12, heads: 4, block: 8, headWidth: 6 });
  const error = failure(() => hubFiles({ name: "x", shape, tokenizer: tokenizerFrom("bytes"), tensors: new Map() }, "F32"));
  expect(error.message).toContain("the hub's GPT-2 has nothing for this model: model.head_width is 6, it has 3.");
});

const scaling = (rope: object): object => ({ ...common, rope_scaling: rope });
test.each([
  [scaling({ type: "dynamic", factor: 2 }), 'c, rope_scaling: type is "dynamic", allowed "default" or "linear" or "llama3".'],
  [scaling({ rope_type: "yarn", factor: 2 }), 'c, rope_scaling: rope_type is "yarn", allowed "default" or "linear" or "llama3".'],
  [{ ...common, rope_parameters: { rope_type: "longrope", long_factor: [1], short_factor: [1] } }, 'c, rope_parameters: rope_type is "longrope", allowed'],
  [scaling({ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 }), "c, rope_scaling: original_max_position_embeddings is null, allowed a whole number from 1 to 1000000000."],
  [scaling({ rope_type: "llama3", ...llama3, high_freq_factor: 1 }), "ropeLow and ropeHigh are 1 and 1, expected two rising numbers from 0"],
  [scaling({ rope_type: "linear", factor: 0.5 }), "ropeFactor is 0.5, expected a number from 1"],
  [scaling({ type: "linear" }), "c, rope_scaling: factor is null, allowed a number above 0, at most 1000000."],
  [scaling({ rope_type: "default", partial_rotary_factor: 0.5 }), "c, rope_scaling: partial_rotary_factor is 0.5, allowed 1."],
  [{ ...common, partial_rotary_factor: 0.25 }, "c: partial_rotary_factor is 0.25, allowed 1."],
  [{ ...common, rope_scaling: "linear" }, "c, rope_scaling: not a JSON object."],
  [{ ...common, head_dim: 7 }, "rope needs heads of an even width, found 7"],
  [{ ...common, head_dim: 2.5 }, "c: head_dim is 2.5, allowed a whole number from 1 to 4096."],
] as [object, string][])("refused: %#", (config, words) => expect(failure(() => foreignShape(config, "c")).message).toContain(words));

test.each([
  [{ ...common, num_hidden_layers: 1_000_000_000 }, "num_hidden_layers is 1000000000, allowed a whole number from 1 to 1024."],
  [{ ...common, vocab_size: 2 ** 50 }, "vocab_size is 1125899906842624, allowed a whole number from 1 to 16777216."],
  [{ ...common, hidden_size: 1e12 }, "hidden_size is 1000000000000, allowed a whole number from 1 to 16384."],
  [{ ...common, intermediate_size: 1e300 }, "intermediate_size is 1e+300, allowed a whole number from 1 to 65536."],
  [{ ...common, num_attention_heads: "4" }, 'num_attention_heads is "4", allowed a whole number from 1 to 1024.'],
  [{ ...common, num_key_value_heads: 0 }, "num_key_value_heads is 0, allowed a whole number from 1 to 1024."],
  [{ ...common, max_position_embeddings: 1e9 }, "max_position_embeddings is 1000000000, allowed a whole number from 1 to 16777216."],
  [{ ...common, rope_theta: 1e30 }, "rope_theta is 1e+30, allowed a number above 0, at most 100000000."],
  [{ model_type: "gpt2", vocab_size: 9, n_embd: 4, n_head: 2, n_layer: 1e15 }, "n_layer is 1000000000000000, allowed a whole number from 1 to 1024."],
] as [object, string][])("a size beyond all models is refused before a list of tensors is made: %#", (config, words) => expect(failure(() => foreignShape(config, "c")).message).toContain(words));

test("sizes of a config.json that are not those of the tensors are named, with the fields", () => {
  const weights = weightsFor(8);
  const shape = foreignShape({ ...common, head_dim: 8 }, "c");
  expectSizes(shape, weights, "c");
  const error = failure(() => expectSizes({ ...shape, vocabulary: 40, layers: 1000 }, weights, "f/config.json"));
  expect(error.message).toBe("[checkpoint] f/config.json: vocab_size is 40, the tensors have 31; num_hidden_layers is 1000, the tensors have 2.");
  const folder = freshFolder("foreign-sizes");
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...common, head_dim: 8, vocab_size: 40 }));
  writeFileSync(join(folder, "model.safetensors"), Buffer.concat(encodeSafetensors(weights, {}).map((piece) => new Uint8Array(bytesNow(piece)))));
  expect(failure(() => openForeign(folder))).toMatchObject({ kind: "corrupt", hint: "This config.json belongs to another model. Put the one of these weights there." });
});
