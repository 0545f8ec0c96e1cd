// Transformers in the files of others: checkpoints written by the Hugging Face library (tests/golden/hub*: random weights, its
// logits and greedy text) load and compute the same; what egg saves has those names and layouts; what does not fit is named.
// Also counts of parameters and shapes. Not the container: safetensors.test.ts.
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { foreignShape, shapeOfTensors, startTransformer } from "../src/models/transformer-foreign.ts";
import { expectTransformer, loadTransformer, saveTransformer } from "../src/models/transformer-names.ts";
import { checkTransformerShape, transformerParameters, transformerShape, type TransformerShape } from "../src/models/transformer-shape.ts";
import { Transformer } from "../src/models/transformer.ts";
import { bytesNow, elements, piecesOf, type SavedTensor, type TensorEntry } from "../src/models/tensors.ts";
import { openForeign } from "../src/run/foreign.ts";
import { encodeSafetensors } from "../src/run/safetensors.ts";
import { manualSeed, noGrad, tensor } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";
import golden from "./golden/hub.json";
import { freshFolder, readSafetensors, root } from "./program.ts";

type Tensors = Map<string, TensorEntry>;
const types = ["gpt2", "llama"] as const;
const hub = Object.fromEntries(types.map((type) => [type, readSafetensors(join(root, `tests/golden/hub-${type}.safetensors`)).tensors])) as Record<(typeof types)[number], Tensors>;

/** A saved model as a file gives it back. */
const reread = (saved: ReadonlyMap<string, SavedTensor>): Tensors =>
  new Map([...saved].map(([name, each]) => [name, { ...each, data: new Uint8Array(Buffer.concat(piecesOf(each).map((piece) => bytesNow(piece).slice()))) }]));

function withModel<T>(shape: TransformerShape, use: (model: Transformer) => T, options: { empty?: boolean } = { empty: true }): T {
  const model = new Transformer(shape, options);
  try {
    return use(model);
  } finally {
    model.release();
  }
}

const logitsOf = (model: Transformer, ids: readonly number[], rows: number): Float32Array =>
  noGrad(() => model.eval().logits(tensor(Int32Array.from(ids), { shape: [rows, ids.length / rows] }))).toArray() as Float32Array;

function expectClose(found: ArrayLike<number>, expected: readonly number[]): void {
  expect(found.length).toBe(expected.length);
  const largest = Math.max(...expected.map(Math.abs));
  expect(Math.max(...expected.map((value, i) => Math.abs(value - found[i]!))) / largest).toBeLessThan(1e-5);
}

/** A folder as the hub has it. */
function hubFolder(type: (typeof types)[number], change: (folder: string) => void = () => {}): string {
  const folder = freshFolder("hub");
  writeFileSync(join(folder, "config.json"), JSON.stringify(golden[type].config));
  copyFileSync(join(root, `tests/golden/hub-${type}.safetensors`), join(folder, "model.safetensors"));
  change(folder);
  return folder;
}

describe.each(types)("a %s written by the Hugging Face library", (type) => {
  const { tokens, logits, continued, parameters } = golden[type];

  test("gives its logits and its greedy text", () => {
    const { shape, tensors } = openForeign(hubFolder(type));
    expect(transformerParameters(shape)).toBe(parameters);
    withModel(shape, (model) => {
      startTransformer(model, { shape, tensors, where: "here" });
      expectClose(logitsOf(model, tokens, 2), logits);
      const text = continued.slice(0, 10);
      while (text.length < continued.length) {
        const last = [...logitsOf(model, text, 1)].slice(-shape.vocabulary);
        text.push(last.indexOf(Math.max(...last)));
      }
      expect(text).toEqual(continued);
    });
  });

  test("is saved again under the same names, with the same shapes and numbers", () => {
    const { shape, tensors } = openForeign(hubFolder(type));
    withModel(shape, (model) => {
      loadTransformer(model, tensors);
      const saved = reread(saveTransformer(model));
      const plain = new Map([...tensors].map(([name, tensor]) => [name.replace(/^transformer\./, ""), tensor]));
      expect([...saved.keys()].sort()).toEqual([...plain.keys()].sort());
      for (const [name, { shape, dtype, data }] of saved) {
        const found = plain.get(name)!;
        expect([name, dtype, shape]).toEqual([name, "F32", found.shape]);
        const bytes = bytesNow(found.data);
        const halves = found.dtype === "BF16" ? new Uint16Array(bytes.slice().buffer) : null;
        const expected = halves === null ? bytes : new Uint8Array(Uint32Array.from(halves, (half) => half << 16).buffer);
        expect(Buffer.compare(bytesNow(data), expected)).toBe(0);
      }
    });
  });

  test("comes in shards, or without config.json where the heads are known", () => {
    const names = [...hub[type].keys()];
    const sharded = hubFolder(type, (folder) => {
      const parts = [names.slice(0, 5), names.slice(5)].map((part) => new Map(part.map((name) => [name, hub[type].get(name)!])));
      parts.forEach((part, i) => writeFileSync(join(folder, `model-${i}.safetensors`), Buffer.concat(encodeSafetensors(part, {}).map(bytesNow))));
      writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: Object.fromEntries(names.map((name, i) => [name, `model-${i < 5 ? 0 : 1}.safetensors`])) }));
      Bun.spawnSync(["rm", join(folder, "model.safetensors")]);
    });
    expect([...openForeign(sharded).tensors.keys()].sort()).toEqual(names.sort());
    const lone = join(root, `tests/golden/hub-${type}.safetensors`);
    const { shape } = openForeign(hubFolder(type));
    expect(failure(() => openForeign(lone)).message).toContain(`no config.json lies beside it. Its tensors tell the vocabulary (37), the width (${shape.width}) and the layers (2), but not the number of heads.`);
    const guessed = openForeign(lone, shape.heads);
    expect({ ...guessed.shape, ...(type === "llama" ? { block: 32, ropeBase: 500 } : {}), normEps: 1e-4 }).toEqual(shape);
    withModel({ ...shape, ...guessed.shape, normEps: 1e-4, ropeBase: shape.ropeBase }, (model) => {
      loadTransformer(model, guessed.tensors);
      expectClose(logitsOf(model, tokens, 2), logits);
    });
  });
});

test("masks and frequencies of older files are left aside, a head that is the embedding too", () => {
  const { shape, tensors } = openForeign(hubFolder("gpt2"));
  const mask: TensorEntry = { dtype: "BOOL", shape: [1, 1, 24, 24], data: new Uint8Array(576) };
  const older: Tensors = new Map([...tensors].map(([name, each]) => [name.replace("transformer.", ""), each]));
  older.set("h.0.attn.bias", mask).set("h.1.attn.masked_bias", { dtype: "F32", shape: [], data: new Uint8Array(4) }).set("lm_head.weight", older.get("wte.weight")!);
  expectTransformer(shape, older);
  withModel(shape, (model) => {
    loadTransformer(model, older);
    expectClose(logitsOf(model, golden.gpt2.tokens, 2), golden.gpt2.logits);
  });
  const llama = openForeign(hubFolder("llama"));
  llama.tensors.set("model.layers.0.self_attn.rotary_emb.inv_freq", { dtype: "F32", shape: [3], data: new Uint8Array(12) });
  expectTransformer(llama.shape, llama.tensors);
  const other = new Map(older).set("lm_head.weight", { ...older.get("wte.weight")!, data: new Uint8Array(4 * 37 * 16) });
  expect(failure(() => expectTransformer(shape, other)).message).toContain("lm_head.weight: another one than the embedding");
});

test("f16 and bf16 widen exactly: every f16, and the same model in both", () => {
  const shape = transformerShape({ family: "llama", vocabulary: 65536, width: 1, layers: 1, heads: 1, feedForward: 1, block: 1, position: "none" });
  withModel(shape, (model) => {
    const one = (dtype: "F16" | "BF16"): Float32Array => {
      const saved = reread(saveTransformer(model));
      saved.set("model.embed_tokens.weight", { dtype, shape: [65536, 1], data: new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer) });
      loadTransformer(model, saved);
      return model.embedding.weight.toArray() as Float32Array;
    };
    const power = (half: number): number => {
      const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
      if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
      return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    };
    expect(one("F16").findIndex((value, i) => !Object.is(value, power(i)))).toBe(-1);
    const wide = new Float32Array(Uint32Array.from({ length: 65536 }, (_, i) => i << 16).buffer);
    expect(one("BF16").findIndex((value, i) => !Object.is(value, wide[i]!))).toBe(-1);
  });
});

describe("saved and loaded", () => {
  const sizes = { vocabulary: 29, layers: 2, width: 24, heads: 4, block: 10, feedForward: 20 };
  const shapes: [string, TransformerShape][] = [
    ["gpt", transformerShape({ ...sizes, family: "gpt" })],
    ["gpt with gates, grouped heads, a head of its own, no biases", transformerShape({ ...sizes, family: "gpt", kvHeads: 2, activation: "swiglu", tied: false, bias: false, norm: "rms", position: "rope" })],
    ["llama", transformerShape({ ...sizes, family: "llama", kvHeads: 2 })],
    ["llama with biases, norm layer, learned positions, no gates", transformerShape({ ...sizes, family: "llama", bias: true, norm: "layer", position: "learned", activation: "relu", tied: false })],
    ["llama with wide heads", transformerShape({ ...sizes, family: "llama", kvHeads: 2, headWidth: 10, bias: true })],
    ["gpt with narrow heads", transformerShape({ ...sizes, family: "gpt", headWidth: 3 })],
    ["llama whose pairs lie side by side", transformerShape({ ...sizes, family: "llama", kvHeads: 2, ropePairs: "interleaved", bias: true })],
  ];
  const ids = Array.from({ length: 20 }, (_, i) => (i * 7) % 29);

  test.each(shapes)("%s: the same bits, by names that say the switches", (_, shape) => {
    manualSeed(4);
    withModel(shape, (model) => {
      for (const parameter of model.parameters()) parameter.copy_(parameter.toArray().map((value, i) => 5 * value + 0.2 * Math.sin(i)) as Float32Array);
      const saved = reread(saveTransformer(model));
      expect([...saved.values()].reduce((sum, each) => sum + elements(each.shape), 0)).toBe(transformerParameters(shape));
      expect([...saved].every(([, { data, shape }]) => data.byteLength === 4 * elements(shape))).toBe(true);
      expectTransformer(shape, saved);
      expect(saved.has("lm_head.weight")).toBe(!shape.tied);
      expect([...saved.keys()].some((name) => name.endsWith("bias"))).toBe(shape.bias);
      const before = logitsOf(model, ids, 2);
      withModel(shape, (other) => {
        expect(logitsOf(other, ids, 2)).not.toEqual(before);
        loadTransformer(other, new Map([...saved, ["state.x", { dtype: "U8", shape: [1], data: new Uint8Array(1) }]]));
        expect(logitsOf(other, ids, 2)).toEqual(before);
      });
      // In a file pairs are halves apart whatever the model does: one of halves reads it and computes the same.
      if (shape.ropePairs === "interleaved") withModel({ ...shape, ropePairs: "half" }, (other) => {
        loadTransformer(other, saved);
        expectClose(logitsOf(other, ids, 2), [...before]);
      });
    }, {});
  });

  test("in pieces: no piece of a large tensor is larger than 4 MiB", () => {
    withModel(transformerShape({ family: "gpt", vocabulary: 70_000, layers: 1, width: 32, heads: 1, block: 4 }), (model) => {
      const pieces = piecesOf(saveTransformer(model).get("wte.weight")!);
      expect(pieces.map(({ byteLength }) => byteLength)).toEqual([4 * 2 ** 20, 4 * 2 ** 20, 4 * (70_000 * 32 - 2 ** 21)]);
      const rows = new Float32Array(bytesNow(pieces[2]!).slice().buffer);
      expect(rows).toEqual((model.embedding.weight.toArray() as Float32Array).slice(2 ** 21));
    }, {});
  });

  test("what does not fit is listed, and nothing is loaded then", () => {
    const [, [, shape]] = shapes as [unknown, [string, TransformerShape]];
    withModel(shape, (model) => {
      const saved = reread(saveTransformer(model));
      const before = logitsOf(model, ids, 2);
      const damaged = new Map(saved);
      damaged.delete("h.1.ln_1.weight");
      damaged.set("h.2.ln_1.weight", saved.get("h.1.ln_1.weight")!);
      damaged.set("ln_f.weight", { dtype: "F32", shape: [25], data: new Uint8Array(100) });
      damaged.set("h.0.mlp.c_proj.weight", { dtype: "I32", shape: [20, 24], data: new Uint8Array(4 * 480) });
      const error = failure(() => loadTransformer(model, damaged));
      expect(error.kind).toBe("corrupt");
      for (const words of ["4 tensors do not fit the model:", "h.1.ln_1.weight: missing", "h.2.ln_1.weight: unknown tensor", "ln_f.weight: expected F32 or F16 or BF16 (24), found F32 (25)", "h.0.mlp.c_proj.weight: expected F32 or F16 or BF16 (20, 24), found I32 (20, 24)"]) {
        expect(error.message).toContain(words);
      }
      expect(logitsOf(model, ids, 2)).toEqual(before);
    }, {});
  });

  test("a start from another model's weights is refused where they would compute something else", () => {
    const { shape, tensors } = openForeign(hubFolder("llama"));
    withModel({ ...shape, ropeBase: 10_000, heads: 2, kvHeads: 1, dropout: 0.1 }, (model) => {
      expect(failure(() => startTransformer(model, { shape, tensors, where: "a/folder" })).message).toBe("[checkpoint] a/folder: model.heads is 4, this run has 2; model.kv_heads is 2, this run has 1; model.rope_base is 500, this run has 10000.");
    });
    withModel({ ...shape, dropout: 0.1, block: 16 }, (model) => startTransformer(model, { shape, tensors, where: "a/folder" }));
  });
});

describe("config.json", () => {
  const { gpt2, llama } = { gpt2: golden.gpt2.config, llama: golden.llama.config };
  test("says the shape; what is absent is as the library has it", () => {
    expect(foreignShape(gpt2, "c")).toEqual(transformerShape({ family: "gpt", vocabulary: 37, layers: 2, width: 16, heads: 2, block: 24, normEps: 1e-4 }));
    expect(foreignShape(llama, "c")).toEqual(transformerShape({ family: "llama", vocabulary: 37, layers: 2, width: 24, heads: 4, kvHeads: 2, feedForward: 40, block: 32, normEps: 1e-4, ropeBase: 500, tied: false }));
    const bare = { model_type: "llama", vocab_size: 32000, hidden_size: 4096, num_hidden_layers: 32, num_attention_heads: 32, intermediate_size: 11008 };
    expect(foreignShape(bare, "c")).toEqual(transformerShape({ family: "llama", vocabulary: 32000, layers: 32, width: 4096, heads: 32, feedForward: 11008, block: 2048, normEps: 1e-6, tied: false }));
    expect(transformerParameters(foreignShape(bare, "c"))).toBe(6_738_415_616); // Llama 2 7B
    expect(foreignShape({ ...bare, rope_theta: 5e5, rope_scaling: null, num_key_value_heads: 8 }, "c")).toMatchObject({ ropeBase: 5e5, kvHeads: 8 });
    expect(foreignShape({ ...gpt2, n_inner: 40, activation_function: "relu" }, "c")).toMatchObject({ feedForward: 40, activation: "relu" });
  });

  const refused: [string, object, string][] = [
    ["another model", { model_type: "mamba" }, 'c: model_type is "mamba", allowed "gpt2" or "llama".'],
    ["the exact gelu", { ...gpt2, activation_function: "gelu" }, 'activation_function is "gelu", allowed "gelu_new" or "gelu_pytorch_tanh" or "relu".'],
    ["biases of attention only", { ...llama, attention_bias: true }, "mlp_bias is false, allowed true, as attention_bias."],
    ["layers that are none", { ...gpt2, n_layer: "two" }, 'n_layer is "two", allowed a whole number from 1 to 1024.'],
    ["no object", [1], "c: not a JSON object."],
    ["heads that do not divide", { ...gpt2, n_head: 3 }, "[checkpoint] c: [transformer] 3 heads do not divide the width 16."],
  ];
  test.each(refused)("refused: %s", (_, config, words) => expect(failure(() => foreignShape(config, "c")).message).toContain(words));
});

describe("files that are none", () => {
  const folder = (name: string, files: Record<string, string>): string => {
    const at = join(freshFolder("foreign"), name);
    mkdirSync(at);
    for (const [file, text] of Object.entries(files)) writeFileSync(join(at, file), text);
    return at;
  };
  const config = JSON.stringify(golden.gpt2.config);
  const refused: [string, () => unknown, string][] = [
    ["nothing there", () => openForeign("/no/such/folder"), "/no/such/folder"],
    ["no weights", () => openForeign(folder("x", { "config.json": config, "pytorch_model.bin": "" })), "no model.safetensors and no model.safetensors.index.json"],
    ["a config that is no JSON", () => openForeign(folder("x", { "config.json": "{", "model.safetensors": "" })), "config.json: not JSON"],
    ["shards elsewhere", () => openForeign(folder("x", { "config.json": config, "model.safetensors.index.json": '{"weight_map":{"a":"../b.safetensors"}}' })), 'weight_map names "../b.safetensors", which is not a .safetensors file of this folder'],
    ["an index without files", () => openForeign(folder("x", { "config.json": config, "model.safetensors.index.json": "{}" })), "weight_map names no file"],
    ["weights cut short", () => openForeign(hubFolder("gpt2", (at) => writeFileSync(join(at, "model.safetensors"), readFileSync(join(at, "model.safetensors")).subarray(0, 9000)))), "ends at byte"],
    ["tensors of neither family", () => shapeOfTensors(new Map([["weight", { shape: [2, 2] }]]), 2, "f"), "f: neither wte.weight of a GPT-2 nor model.embed_tokens.weight of a Llama is among its 1 tensors."],
  ];
  test.each(refused)("refused: %s", (_, action, words) => expect(failure(action).message).toContain(words));
});

describe("parameters of the presets' shapes", () => {
  const count = (shape: Parameters<typeof transformerShape>[0]): number => transformerParameters(transformerShape(shape));
  const llama = (vocabulary: number, width: number, layers: number, heads: number, feedForward: number): number => count({ family: "llama", vocabulary, width, layers, heads, feedForward, block: 512 });
  test("are those of the published models", () => {
    expect(count({ family: "gpt", vocabulary: 50_257, width: 768, layers: 12, heads: 12, block: 1024 })).toBe(124_439_808);
    expect(count({ family: "gpt", vocabulary: 65, width: 128, layers: 4, heads: 4, block: 64 })).toBe(809_856);
    expect([llama(32_000, 256, 4, 4, 512), llama(32_000, 512, 8, 8, 1024), llama(32_000, 1024, 16, 16, 2816), llama(2048, 256, 6, 8, 512)]).toEqual([10_815_744, 37_364_224, 238_322_688, 4_459_776]);
  });

  test.each([{ layers: 1 }, { heads: 2, kvHeads: 1 }, { headWidth: 6 }, { bias: false }, { norm: "rms" }, { position: "none" }, { activation: "geglu" }, { tied: false }, { family: "llama", bias: true }] as Partial<TransformerShape>[])("with %p are those that a model has", (change) => {
    const shape = transformerShape({ family: "gpt", vocabulary: 11, width: 8, layers: 2, heads: 2, block: 5, ...change });
    withModel(shape, (model) => expect(model.parameterCount).toBe(transformerParameters(shape)));
  });
});

const base = transformerShape({ family: "gpt", vocabulary: 11, width: 8, layers: 2, heads: 2, block: 5 });
const shapes: [Partial<TransformerShape>, string][] = [
  [{ layers: 0, width: 1.5 }, "[transformer] layers is 0, expected a whole number from 1; width is 1.5, expected a whole number from 1."],
  [{ heads: 3, kvHeads: 3, headWidth: 8 / 3 }, "3 heads do not divide the width 8"],
  [{ headWidth: 3, position: "rope" }, "rope needs heads of an even width, found 3"],
  [{ headWidth: 2.5 }, "headWidth is 2.5, expected a whole number from 1"],
  [{ heads: 4, kvHeads: 3 }, "4 heads cannot share 3 kv heads evenly"],
  [{ dropout: 1 }, "dropout is 1, expected 0 or more and less than 1"],
  [{ vocabulary: 2 ** 31 }, "a tensor would have 17,179,869,184 elements, at most 4,294,967,295 are possible"],
  [{ ropeBase: 0 }, "ropeBase is 0"],
  [{ ropeFactor: 0.5 }, "ropeFactor is 0.5, expected a number from 1"],
  [{ ropeOriginal: -1 }, "ropeOriginal is -1, expected a number from 0"],
  [{ ropeLow: 4 }, "ropeLow and ropeHigh are 4 and 4, expected two rising numbers from 0"],
  [{ normEps: 0 }, "normEps is 0"],
];
test.each(shapes)("a shape with %p is refused", (change, words) => {
  expect(failure(() => checkTransformerShape({ ...base, ...change })).message).toContain(words);
  expect(failure(() => new Transformer({ ...base, ...change })).kind).toBe("usage");
});
