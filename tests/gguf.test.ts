// GGUF files: byte for byte what the format's reference library writes, strictly read, and a llama model as llama.cpp wants it.
// golden/gguf.json names the file that was read back by the reference library and by llama.cpp. Not the command: export.test.ts.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { byteNames } from "../src/data/bpe.ts";
import { tokenizerFrom, type Tokenizer } from "../src/data/tokenizer.ts";
import { EggError } from "../src/errors.ts";
import { encodeGguf, readGguf, type GgufTensor, type GgufValue } from "../src/models/gguf.ts";
import { llamaGguf } from "../src/models/gguf-llama.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { bytesNow, type Bytes, type TensorEntry } from "../src/models/tensors.ts";
import { inDtype, type Exported } from "../src/models/transformer-hub.ts";
import { transformerShape, type TransformerShape } from "../src/models/transformer-shape.ts";
import { failure } from "./failure.ts";
import { scaledFrequency } from "./reference/ops.ts";
import { readJson, readSafetensors, root, sha256 } from "./program.ts";

const golden = join(root, "tests/golden");
const whole = (pieces: readonly Bytes[]): Buffer => Buffer.concat(pieces.map((piece) => new Uint8Array(bytesNow(piece))));

describe("the container", () => {
  const file = readFileSync(join(golden, "sample.gguf"));
  const { gguf: sample } = readJson(golden, "sample.json");
  const kinds: Record<string, string> = { STRING: "string", UINT32: "u32", INT32: "i32", UINT64: "u64", FLOAT32: "f32", BOOL: "bool" };
  const values = new Map(Object.entries<any>(sample.fields).map(([name, { type, value }]): [string, GgufValue] => {
    const of = /^ARRAY of (\w+)$/.exec(type)?.[1];
    return [name, (of !== undefined ? { type: "array", of: kinds[of], value } : { type: kinds[type], value: type === "UINT64" ? BigInt(value) : value }) as GgufValue];
  }));
  const bytesOf = (dtype: string, numbers: number[]) => new Uint8Array(dtype === "F32" ? Float32Array.from(numbers).buffer : Int8Array.from(numbers).buffer);
  const inFile = Object.entries<any>(sample.tensors).sort(([, a], [, b]) => a.file_offset - b.file_offset);
  const tensors = new Map(inFile.map(([name, { dtype, shape, values }]): [string, GgufTensor] => [name, { dtype, shape, data: [bytesOf(dtype, values)] }]));

  test("is written as the reference library writes it, byte for byte", () => {
    expect(sha256(file)).toBe(sample.sha256);
    expect(whole(encodeGguf(values, tensors)).equals(file)).toBe(true);
  });

  test("is read: every value with its type, every tensor in its place", () => {
    const read = readGguf(file, file.length, "sample");
    expect(read.values).toEqual(values);
    expect(read.tensors.map(({ name, dtype, shape, begin }) => ({ name, dtype, shape, begin }))).toEqual(inFile.map(([name, { dtype, shape, file_offset }]) => ({ name, dtype, shape, begin: file_offset })));
    for (const { name, dtype, begin, end } of read.tensors) expect(new Uint8Array(file.subarray(begin, end))).toEqual(bytesOf(dtype, sample.tensors[name].values));
  });

  test("tensors come in pieces too, and none at all is a file", () => {
    const pieces = new Map([...tensors].map(([name, { data, ...rest }]): [string, GgufTensor] => {
      const bytes = bytesNow(data[0]!);
      return [name, { ...rest, data: [bytes.subarray(0, 4), { byteLength: bytes.length - 4, read: () => bytes.subarray(4) }] }];
    }));
    expect(whole(encodeGguf(values, pieces)).equals(file)).toBe(true);
    const empty = whole(encodeGguf(new Map(), new Map()));
    expect(readGguf(empty, empty.length, "empty")).toEqual({ values: new Map(), tensors: [] });
  });

  test("no damage is read for something else without a word: cut anywhere, or with any byte another", () => {
    const { tensors: places } = readGguf(file, file.length, "sample");
    const headEnd = Math.min(...places.map(({ begin }) => begin));
    for (let length = 0; length < file.length - 26; length++) expect(failure(() => readGguf(file.subarray(0, length), length, "cut")).kind).toBe("corrupt");
    const random = seededRandom(1);
    for (let round = 0; round < 3000; round++) {
      const damaged = Buffer.from(file);
      damaged[Math.floor(random() * headEnd)]! ^= 1 << Math.floor(random() * 8);
      try {
        const read = readGguf(damaged, damaged.length, "damaged");
        for (const { begin, end } of read.tensors) expect(begin >= 0 && begin <= end && end <= damaged.length).toBe(true);
      } catch (error) {
        if (!(error instanceof EggError)) throw error;
        expect(error.kind).toBe("corrupt");
      }
    }
  });

  test.each([
    ["a magic of another file", (view: DataView) => view.setUint32(0, 0x46465546, true), "does not begin with GGUF"],
    ["an older version", (view: DataView) => view.setUint32(4, 2, true), "version 2, expected 3"],
    ["tensors beyond all memory", (view: DataView) => view.setBigUint64(8, 2n ** 63n, true), "beyond all files"],
    ["more tensors than there is room for", (view: DataView) => view.setBigUint64(8, 1000n, true), "the file claims 1000, it has room for"],
    ["more values than there is room for", (view: DataView) => view.setBigUint64(16, 2n ** 40n, true), "the file claims 1099511627776"],
    ["a name longer than the file", (view: DataView) => view.setBigUint64(24, 2n ** 40n, true), "the file claims"],
  ])("%s is refused", (_, change, message) => {
    const damaged = Buffer.from(file);
    change(new DataView(damaged.buffer, damaged.byteOffset, damaged.length));
    const error = failure(() => readGguf(damaged, damaged.length, "damaged"));
    expect(error.kind).toBe("corrupt");
    expect(error.message).toContain(message);
  });

  test("names are at most 63 bytes, as llama.cpp has them", () => {
    const tensor: GgufTensor = { dtype: "F32", shape: [1], data: [new Uint8Array(4)] };
    expect(() => encodeGguf(new Map(), new Map([["x".repeat(63), tensor]]))).not.toThrow();
    expect(failure(() => encodeGguf(new Map(), new Map([["x".repeat(64), tensor]]))).message).toContain("its name has 64 bytes, allowed 63");
  });
});

describe("other types of numbers", () => {
  const numbers = [0, -0, 1, -1, 1.00390625, 1.01171875, 65504, 65519, 65520, 3.4e38, 1e-8, 6e-8, 2.9802322387695312e-8, 1e-40, Infinity, -Infinity];
  const bits = (values: readonly number[], dtype: "F16" | "BF16") => new Uint16Array(bytesNow(inDtype(new Uint8Array(Float32Array.from(values).buffer), dtype)).slice().buffer);

  test("f16 is the nearest, ties to even", () => {
    expect([...bits(numbers, "F16")]).toEqual([0, 0x8000, 0x3c00, 0xbc00, 0x3c04, 0x3c0c, 0x7bff, 0x7bff, 0x7c00, 0x7c00, 0, 1, 0, 0, 0x7c00, 0xfc00]);
  });

  test("bf16 is the nearest, ties to even; no number becomes another kind", () => {
    expect([...bits(numbers, "BF16")]).toEqual([0, 0x8000, 0x3f80, 0xbf80, 0x3f80, 0x3f82, 0x4780, 0x4780, 0x4780, 0x7f80, 0x322c, 0x3381, 0x3300, 0x0001, 0x7f80, 0xff80]);
    const odd = new Uint32Array([0x7fc00000, 0x7f800001, 0xffffffff]);
    const halves = new Uint16Array(bytesNow(inDtype(new Uint8Array(odd.buffer), "BF16")).slice().buffer);
    for (const half of halves) expect((half & 0x7fff) > 0x7f80).toBe(true);
  });
});

/** The golden model's weights as a checkpoint has them. Its pairs lie side by side, those of a checkpoint half a head apart. */
function tinyModel(tokenizer: Tokenizer): { model: Exported; weights: Map<string, { shape: number[]; data: Uint8Array }> } {
  const { config } = readJson(golden, "llama-tiny.json");
  const { tensors } = readSafetensors(join(golden, "llama-tiny.safetensors"));
  const weights = new Map([...tensors].filter(([name]) => name.startsWith("weights.")).map(([name, tensor]) => [name.slice(8), tensor]));
  const shape = transformerShape({ family: "llama", vocabulary: config.V, layers: config.L, width: config.D, heads: config.H, kvHeads: config.K, feedForward: config.I, block: config.T });
  const halves = (data: Uint8Array, heads: number): Uint8Array => {
    const rows = Array.from({ length: data.length / (4 * config.D) }, (_, r) => data.subarray(r * 4 * config.D, (r + 1) * 4 * config.D));
    const d = rows.length / heads;
    return Buffer.concat(rows.map((_, r) => rows[r - (r % d) + (r % d < d / 2 ? 2 * (r % d) : 2 * ((r % d) - d / 2) + 1)]!));
  };
  const names: Record<string, string> = { wq: "self_attn.q_proj", wk: "self_attn.k_proj", wv: "self_attn.v_proj", wo: "self_attn.o_proj", gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj", norm1: "input_layernorm", norm2: "post_attention_layernorm" };
  const saved = new Map([...weights].map(([name, { shape, data }]): [string, TensorEntry] => {
    const part = /^layers\.(\d+)\.(\w+)\.weight$/.exec(name);
    const to = part === null ? (name === "embed.weight" ? "model.embed_tokens.weight" : "model.norm.weight") : `model.layers.${part[1]}.${names[part[2]!]}.weight`;
    return [to, { dtype: "F32", shape, data: part?.[2] === "wq" ? halves(data, config.H) : part?.[2] === "wk" ? halves(data, config.K) : data }];
  }));
  return { model: { name: "llama-tiny", shape, tokenizer, tensors: saved }, weights };
}

const letters = Array.from({ length: 62 }, (_, i) => String.fromCharCode(32 + i)).join("");
const characters = tokenizerFrom(JSON.stringify({ characters: `${letters}é鶏🥚`, bytes: [] }));

describe("a llama model", () => {
  const { model, weights } = tinyModel(characters);
  const { values, tensors } = llamaGguf(model, "F32");
  const file = whole(encodeGguf(values, tensors));
  const read = readGguf(file, file.length, "llama-tiny");
  const at = (name: string) => {
    const { begin, end } = read.tensors.find((place) => place.name === name)!;
    return file.subarray(begin, end);
  };

  test("has every weight under llama.cpp's name, rows of queries and keys with their pairs side by side", () => {
    const names: Record<string, string> = { wq: "attn_q", wk: "attn_k", wv: "attn_v", wo: "attn_output", gate: "ffn_gate", up: "ffn_up", down: "ffn_down", norm1: "attn_norm", norm2: "ffn_norm" };
    expect(read.tensors.length).toBe(weights.size);
    for (const [name, { shape, data }] of weights) {
      const part = /^layers\.(\d+)\.(\w+)\.weight$/.exec(name);
      const to = part === null ? (name === "embed.weight" ? "token_embd.weight" : "output_norm.weight") : `blk.${part[1]}.${names[part[2]!]}.weight`;
      expect(read.tensors.find((place) => place.name === to)).toMatchObject({ dtype: "F32", shape });
      expect(at(to).equals(Buffer.from(data))).toBe(true); // the golden model's own pairs lie side by side
    }
  });

  test("has the metadata that llama.cpp asks for", () => {
    const plain = Object.fromEntries([...read.values].filter(([, { type }]) => type !== "array").map(([name, { value }]) => [name, value]));
    expect(plain).toEqual({
      "general.architecture": "llama", "general.name": "llama-tiny", "general.file_type": 0, "llama.vocab_size": 65, "llama.context_length": 16, "llama.embedding_length": 32, "llama.block_count": 2,
      "llama.feed_forward_length": 88, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.attention.layer_norm_rms_epsilon": Math.fround(1e-5), "llama.rope.dimension_count": 8,
      "llama.rope.freq_base": 10_000, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 4, "tokenizer.ggml.eos_token_id": 4, "tokenizer.ggml.add_bos_token": false, "tokenizer.ggml.add_eos_token": false,
    });
  });

  test("is the very file that the reference library and llama.cpp have read", () => {
    const { sha256: expected, bytes } = readJson(golden, "gguf.json").file;
    expect({ bytes: file.length, sha256: sha256(file) }).toEqual({ bytes, sha256: expected });
  });

  test("in f16 and bf16 is half as large; vectors stay f32", () => {
    for (const [dtype, type] of [["F16", 1], ["BF16", 32]] as const) {
      const { values, tensors } = llamaGguf(model, dtype);
      const half = whole(encodeGguf(values, tensors));
      const places = readGguf(half, half.length, dtype).tensors;
      expect(values.get("general.file_type")).toEqual({ type: "u32", value: type });
      for (const { name, dtype: found, shape, begin, end } of places) {
        expect(found).toBe(shape.length === 1 ? "F32" : dtype);
        expect(half.subarray(begin, end).equals(Buffer.from(bytesNow(inDtype(at(name), found as "F32"))))).toBe(true);
      }
    }
  });

  const scaled = (change: Partial<TransformerShape>) => llamaGguf({ ...model, shape: { ...model.shape, ...change } }, "F16");

  test("with frequencies scaled as Llama 3.1 has them holds their divisors; with the same for all, the divisor", () => {
    const plain = scaled({});
    const llama3 = scaled({ ropeBase: 500, ropeFactor: 32, ropeOriginal: 300 });
    expect(llama3.values).toEqual(new Map(plain.values).set("llama.rope.freq_base", { type: "f32", value: 500 }));
    const { dtype, shape, data } = llama3.tensors.get("rope_freqs.weight")!;
    expect({ dtype, shape, others: llama3.tensors.size - 1 }).toEqual({ dtype: "F32", shape: [4], others: plain.tensors.size });
    const found = new Float32Array(new Uint8Array(bytesNow(data[0]!)).buffer);
    const expected = Array.from({ length: 4 }, (_, i) => 500 ** (-i / 4)).map((frequency) => frequency / scaledFrequency({ factor: 32, original: 300 })(frequency));
    expect(new Set(expected.map(Math.round)).size).toBe(3); // some stay, some are divided, some lie between
    expected.forEach((value, i) => expect(Math.abs(found[i]! / value - 1)).toBeLessThan(1e-7));
    const linear = scaled({ ropeFactor: 2.5 });
    expect(linear.tensors.size).toBe(plain.tensors.size);
    expect([...linear.values].filter(([name]) => !plain.values.has(name))).toEqual([["llama.rope.scaling.type", { type: "string", value: "linear" }], ["llama.rope.scaling.factor", { type: "f32", value: 2.5 }]]);
  });

  test("with heads of another width says it, and has their pairs side by side", () => {
    const rows = (count: number, first: number) => new Uint8Array(Float32Array.from({ length: count * 32 }, (_, i) => first + Math.floor(i / 32)).buffer);
    const tensors = new Map(model.tensors).set("model.layers.0.self_attn.q_proj.weight", { dtype: "F32", shape: [24, 32], data: rows(24, 0) });
    const { values, tensors: written } = llamaGguf({ ...model, tensors, shape: { ...model.shape, headWidth: 6 } }, "F32");
    for (const name of ["attention.key_length", "attention.value_length", "rope.dimension_count"]) expect(values.get(`llama.${name}`)).toEqual({ type: "u32", value: 6 });
    const q = new Float32Array(new Uint8Array(bytesNow(written.get("blk.0.attn_q.weight")!.data[0]!)).buffer);
    expect(Array.from({ length: 24 }, (_, row) => q[32 * row]! - 6 * Math.floor(row / 6))).toEqual([0, 1, 2, 3].flatMap(() => [0, 3, 1, 4, 2, 5]));
  });

  test("with a head of its own has an output", () => {
    const head: TensorEntry = { dtype: "F32", shape: [65, 32], data: new Uint8Array(65 * 32 * 4).fill(1) };
    const { tensors } = llamaGguf({ ...model, shape: { ...model.shape, tied: false }, tensors: new Map([...model.tensors, ["lm_head.weight", head]]) }, "F32");
    expect([...tensors.keys()].at(-1)).toBe("output.weight");
    expect(tensors.size).toBe(weights.size + 1);
  });

  test.each([
    ["model.norm is layer", { norm: "layer" }], ["model.position is learned", { position: "learned" }], ["model.feed_forward is geglu", { activation: "geglu" }],
    ["model.bias is on", { bias: true }], ["model.type is gpt", { family: "gpt" }],
  ] as [string, Partial<TransformerShape>][])("that computes something else is refused: %s", (what, change) => {
    const error = failure(() => llamaGguf({ ...model, shape: { ...model.shape, ...change } }, "F32"));
    expect(error.kind).toBe("usage");
    expect(error.message).toContain(`llama-tiny: GGUF has nothing for this model: ${what}, it has`);
  });
});

describe("a vocabulary", () => {
  const of = (tokenizer: Tokenizer) => {
    const { model } = tinyModel(tokenizer);
    return llamaGguf({ ...model, shape: { ...model.shape, vocabulary: tokenizer.vocabulary } }, "F32").vocabulary;
  };

  /** Byte-level BPE by the rule: the earliest merge of all neighbours, again and again; then the tokens by name. */
  function encode({ tokens, merges }: { tokens: string[]; merges: string[] }, text: string): number[] {
    const ranks = new Map(merges.map((merge, rank) => [merge, rank]));
    const word = Array.from(new TextEncoder().encode(text), (byte) => byteNames[byte]!);
    for (;;) {
      const best = word.slice(1).map((right, i) => ranks.get(`${word[i]} ${right}`) ?? Infinity).reduce((a, b) => Math.min(a, b), Infinity);
      if (best === Infinity) return word.map((name) => tokens.indexOf(name));
      const i = word.slice(1).findIndex((right, i) => ranks.get(`${word[i]} ${right}`) === best);
      word.splice(i, 2, word[i]! + word[i + 1]!);
    }
  }

  test("of bytes has a token for each, and byte 0 ends a text", () => {
    const bytes = of(tokenizerFrom("bytes"));
    expect(bytes).toMatchObject({ pre: "gpt-2", merges: [], end: 0, lost: null });
    expect(encode(bytes, "Grüße 鶏\n\0")).toEqual([...new TextEncoder().encode("Grüße 鶏\n\0")]);
  });

  test("of characters gives the same ids as the tokenizer, however many bytes a character has", () => {
    const many = tokenizerFrom(JSON.stringify({ characters: " a©Ãèéü߿ࠀ中鶏ﬃ🐔🥚", bytes: [0xa9, 0xc3] }));
    const vocabulary = of(many);
    const random = seededRandom(4);
    const all = [..." aÃéèü©߿ࠀ中鶏ﬃ🐔🥚"];
    for (let round = 0; round < 300; round++) {
      const text = Array.from({ length: 12 }, () => all[Math.floor(random() * all.length)]).join("");
      expect(encode(vocabulary, text)).toEqual([...many.encode(new TextEncoder().encode(text))]);
    }
  });

  test("without an end of text says which character is lost, a seldom one if there is", () => {
    expect(of(characters)).toMatchObject({ end: characters.encode(Uint8Array.of(0x24))[0]!, lost: "$" });
    expect(of(tokenizerFrom(JSON.stringify({ characters: "\0abc", bytes: [] })))).toMatchObject({ end: 0, lost: null });
    expect(of(tokenizerFrom(JSON.stringify({ characters: "abc", bytes: [] })))).toMatchObject({ end: 2, lost: "c" });
  });

  const bpe = (change: (file: any) => void): Tokenizer => {
    const vocab = Object.fromEntries([...byteNames, "Ġa", "ab"].map((name, id) => [name, id]));
    const file = { model: { type: "BPE", vocab, merges: ["Ġ a", "a b"] }, pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true }, decoder: { type: "ByteLevel" }, added_tokens: [] as object[] };
    change(file);
    return tokenizerFrom(JSON.stringify(file));
  };
  const split = (regex: string) => ({ type: "Sequence", pretokenizers: [{ type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false }, { type: "ByteLevel", add_prefix_space: false, use_regex: false }] });
  const llama3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

  test("of BPE keeps tokens, merges, special tokens and the pattern's name", () => {
    const plain = of(bpe(() => {}));
    expect(plain).toMatchObject({ pre: "gpt-2", merges: ["Ġ a", "a b"], end: 0, lost: null });
    expect(plain.tokens.slice(-2)).toEqual(["Ġa", "ab"]);
    const special = of(bpe((file) => file.added_tokens.push({ id: 260, content: "<|endoftext|>", special: true }, { id: 259, content: "<user>", special: false })));
    expect(special.tokens.slice(-3)).toEqual(["[PAD258]", "<user>", "<|endoftext|>"]);
    expect(special.types.slice(-4)).toEqual([1, 5, 4, 3]);
    expect(special.end).toBe(260);
    expect(of(bpe((file) => (file.pre_tokenizer = split(llama3)))).pre).toBe("dbrx");
    expect(of(bpe((file) => ((file.pre_tokenizer = split(llama3)), (file.model.ignore_merges = true)))).pre).toBe("llama-bpe");
    expect(of(bpe((file) => (file.pre_tokenizer = split(llama3.replace("{1,3}", ""))))).pre).toBe("qwen2");
  });

  test("that llama.cpp would apply in another way is refused", () => {
    expect(failure(() => of(bpe((file) => (file.pre_tokenizer.add_prefix_space = true)))).message).toContain("add_prefix_space is nothing that llama.cpp does");
    expect(failure(() => of(bpe((file) => (file.model.ignore_merges = true)))).message).toContain("ignore_merges with the pattern gpt2");
  });
});
