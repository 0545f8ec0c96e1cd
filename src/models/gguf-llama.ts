// A llama model as llama.cpp wants to find it in a GGUF file: names, metadata, the vocabulary, and the rows of queries and keys in
// the order of its rotary positions. Not the container (gguf.ts) and not files (src/commands/export.ts).
// Read next: transformer-hub.ts, the same for the format of the Hugging Face hub.
import { byteNames } from "../data/bpe.ts";
import { readTokenizerJson } from "../data/huggingface.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { EggError } from "../errors.ts";
import type { GgufTensor, GgufValue } from "./gguf.ts";
import { bytesNow } from "./tensors.ts";
import { expectExportable, inDtype, scalingOf, type Exported, type ExportType } from "./transformer-hub.ts";
import type { TransformerShape } from "./transformer-shape.ts";

/** Type numbers of tokens. */
const kinds = { normal: 1, control: 3, user: 4, unused: 5 } as const;
/** llama.cpp's numbers of whole files; tensors of one axis are F32 in all. */
const fileTypes = { F32: 0, F16: 1, BF16: 32 } as const;

export interface Vocabulary {
  /** llama.cpp's name of the rule that cuts text into words. */
  pre: string;
  tokens: string[];
  types: number[];
  /** "left right", the earliest first. */
  merges: string[];
  /** The id that ends a text. llama.cpp takes 11 where a file names none. */
  end: number;
  /** The end is an ordinary character, since the vocabulary has nothing better: it, for people. */
  lost: string | null;
}

/**
 * Everything in the file.
 * @throws EggError("usage") where GGUF's llama computes something else than the model, or cannot tokenize as it does
 */
export function llamaGguf(model: Exported, dtype: ExportType): { values: Map<string, GgufValue>; tensors: Map<string, GgufTensor>; vocabulary: Vocabulary } {
  const { shape, tensors, name } = model;
  expectExportable(model, "GGUF", {
    "model.type": [shape.family, ["llama"]], "model.norm": [shape.norm, ["rms"]], "model.position": [shape.position, ["rope"]], "model.feed_forward": [shape.activation, ["swiglu"]],
    "model.bias": [shape.bias ? "on" : "off", ["off"]],
  });
  const vocabulary = vocabularyOf(model);
  const scaled = scalingOf(shape);
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const f32 = (value: number): GgufValue => ({ type: "f32", value });
  const string = (value: string): GgufValue => ({ type: "string", value });
  const strings = (value: string[]): GgufValue => ({ type: "array", of: "string", value });
  const values = new Map<string, GgufValue>([
    ["general.architecture", string("llama")],
    ["general.name", string(name)],
    ["general.file_type", u32(fileTypes[dtype])],
    ["llama.vocab_size", u32(shape.vocabulary)],
    ["llama.context_length", u32(shape.block)],
    ["llama.embedding_length", u32(shape.width)],
    ["llama.block_count", u32(shape.layers)],
    ["llama.feed_forward_length", u32(shape.feedForward)],
    ["llama.attention.head_count", u32(shape.heads)],
    ["llama.attention.head_count_kv", u32(shape.kvHeads)],
    ["llama.attention.layer_norm_rms_epsilon", f32(shape.normEps)],
    ...(shape.headWidth === shape.width / shape.heads ? [] : (["key", "value"] as const).map((part): [string, GgufValue] => [`llama.attention.${part}_length`, u32(shape.headWidth)])),
    ["llama.rope.dimension_count", u32(shape.headWidth)],
    ["llama.rope.freq_base", f32(shape.ropeBase)],
    ...(scaled === "linear" ? [["llama.rope.scaling.type", string("linear")], ["llama.rope.scaling.factor", f32(shape.ropeFactor)]] as const : []),
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string(vocabulary.pre)],
    ["tokenizer.ggml.tokens", strings(vocabulary.tokens)],
    ["tokenizer.ggml.token_type", { type: "array", of: "i32", value: vocabulary.types }],
    ["tokenizer.ggml.merges", strings(vocabulary.merges)],
    ["tokenizer.ggml.bos_token_id", u32(vocabulary.end)],
    ["tokenizer.ggml.eos_token_id", u32(vocabulary.end)],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: false }],
    ["tokenizer.ggml.add_eos_token", { type: "bool", value: false }],
  ]);
  const written = new Map<string, GgufTensor>();
  if (scaled === "llama3") written.set("rope_freqs.weight", { dtype: "F32", shape: [shape.headWidth / 2], data: [new Uint8Array(ropeDivisors(shape).buffer)] });
  for (const [from, to] of names(shape.layers)) {
    const tensor = tensors.get(`${from}.weight`);
    if (tensor === undefined) continue;
    const heads = to.endsWith("attn_q") ? shape.heads : to.endsWith("attn_k") ? shape.kvHeads : 0;
    const type = tensor.shape.length === 1 ? "F32" : dtype;
    const arranged = heads === 0 ? tensor.data : { byteLength: tensor.data.byteLength, read: () => interleaved(bytesNow(tensor.data), heads, shape.headWidth) };
    written.set(`${to}.weight`, { dtype: type, shape: tensor.shape, data: [inDtype(arranged, type)] });
  }
  return { values, tensors: written, vocabulary };
}

/** What llama.cpp divides each pair's frequency by, where they are scaled as Llama 3.1 has it (Rope in kernels/float/ops.zig). */
function ropeDivisors({ headWidth, ropeBase, ropeFactor, ropeOriginal, ropeLow, ropeHigh }: TransformerShape): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: headWidth / 2 }, (_, i) => {
    const turns = (ropeOriginal * ropeBase ** ((-2 * i) / headWidth)) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - ropeLow) / (ropeHigh - ropeLow)));
    return 1 / ((1 - kept) / ropeFactor + kept);
  });
}

/** From the names of the hub to llama.cpp's, in its order; an output of its own is left out where the head is the embedding. */
function names(layers: number): [string, string][] {
  const parts = [
    ["input_layernorm", "attn_norm"], ["self_attn.q_proj", "attn_q"], ["self_attn.k_proj", "attn_k"], ["self_attn.v_proj", "attn_v"], ["self_attn.o_proj", "attn_output"],
    ["post_attention_layernorm", "ffn_norm"], ["mlp.gate_proj", "ffn_gate"], ["mlp.up_proj", "ffn_up"], ["mlp.down_proj", "ffn_down"],
  ] as const;
  return [
    ["model.embed_tokens", "token_embd"],
    ...Array.from({ length: layers }, (_, i) => parts.map(([from, to]): [string, string] => [`model.layers.${i}.${from}`, `blk.${i}.${to}`])).flat(),
    ["model.norm", "output_norm"],
    ["lm_head", "output"],
  ];
}

/**
 * Rows of queries or keys, whose rotary pairs lie half a head apart, with the pairs side by side: row j of the first half of a
 * head becomes row 2j, row j of the second half 2j + 1. As convert_hf_to_gguf.py of llama.cpp does.
 * @param data f32, (heads x headWidth, columns)
 */
function interleaved(data: Uint8Array, heads: number, headWidth: number): Uint8Array {
  const result = new Uint8Array(data.length);
  const row = data.length / (heads * headWidth);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < headWidth; i++) {
      const from = head * headWidth + (i % 2) * (headWidth / 2) + (i >> 1);
      result.set(data.subarray(from * row, (from + 1) * row), (head * headWidth + i) * row);
    }
  }
  return result;
}

// ---- the vocabulary

function vocabularyOf({ tokenizer, shape }: Exported): Vocabulary {
  const vocabulary = tokenizer.kind === "bpe" ? ofBpe(tokenizer) : tokenizer.kind === "bytes" ? ofBytes(tokenizer) : ofCharacters(tokenizer);
  // Rows of the embedding that no token has.
  for (let id = vocabulary.tokens.length; id < shape.vocabulary; id++) {
    vocabulary.tokens.push(`[PAD${id}]`);
    vocabulary.types.push(kinds.unused);
  }
  return vocabulary;
}

const named = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byteNames[byte]!).join("");

/** A byte-level BPE without merges is a token for each byte. Byte 0 stands between documents. */
function ofBytes(tokenizer: Tokenizer): Vocabulary {
  return { pre: "gpt-2", tokens: [...byteNames], types: byteNames.map(() => kinds.normal), merges: [], end: tokenizer.encode(Uint8Array.of(0))[0]!, lost: null };
}

/** Where a vocabulary has nothing that ends a text, the first of these that it has does; seldom ones first. */
const seldom = "\0\x03\x04\x1c\x1d\x1e\x1f\x01\x02\x05\x06\x07\x08\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x7f\x0b\x0c";
const last = "$^~|#@\\`{}_<>%&+=*[]/()9876543210QZX";

/**
 * A byte-level BPE whose merges put each character of several bytes together, first byte first: words are merged as they stand,
 * and the last bytes of one character and the first of the next are never the begin of one.
 */
function ofCharacters(tokenizer: Tokenizer): Vocabulary {
  const symbols = Array.from({ length: tokenizer.vocabulary }, (_, id) => tokenizer.decode([id]));
  const merges = new Set<string>();
  for (const bytes of symbols) for (let length = 1; length < bytes.length; length++) merges.add(`${named(bytes.subarray(0, length))} ${named(bytes.subarray(length, length + 1))}`);
  const tokens = symbols.map(named);
  const find = (among: string): number | undefined => [...among].map((character) => tokens.indexOf(named(new TextEncoder().encode(character)))).find((id) => id >= 0);
  const quiet = find(seldom);
  const end = quiet ?? find(last) ?? tokens.length - 1;
  return { pre: "gpt-2", tokens, types: tokens.map(() => kinds.normal), merges: [...merges], end, lost: quiet === undefined ? new TextDecoder().decode(symbols[end]) : null };
}

function ofBpe(tokenizer: Tokenizer): Vocabulary {
  const { names, merges, pattern, addPrefixSpace, ignoreMerges, added } = readTokenizerJson(tokenizer.definition, "its definition");
  const pre = pattern === "llama3" ? (ignoreMerges ? "llama-bpe" : "dbrx") : pattern === "qwen2" ? "qwen2" : "gpt-2";
  if (addPrefixSpace || (ignoreMerges && pre !== "llama-bpe")) {
    throw new EggError("usage", `[export] the tokenizer ${tokenizer.name}: ${addPrefixSpace ? "add_prefix_space" : `ignore_merges with the pattern ${pattern}`} is nothing that llama.cpp does for a gpt2 vocabulary.`, {
      hint: "Export with --format safetensors, whose tokenizer.json has it.",
    });
  }
  const special = new Map(added.map((token) => [token.id, token]));
  const tokens = names.map((name, id) => special.get(id)?.content ?? name ?? `[PAD${id}]`);
  const types = names.map((name, id) => (special.has(id) ? (special.get(id)!.special ? kinds.control : kinds.user) : name === null ? kinds.unused : kinds.normal));
  const pairs = Array.from({ length: merges.length / 3 }, (_, i) => `${names[merges[3 * i]!]} ${names[merges[3 * i + 1]!]}`);
  return { pre, tokens, types, merges: pairs, end: tokenizer.endOfText ?? names.indexOf(byteNames[0]!), lost: null };
}
