// A transformer in the format of the Hugging Face hub: config.json and tokenizer.json beside the tensors, whose names a checkpoint
// has already. Not reading such a folder (transformer-foreign.ts) and not writing files (src/commands/export.ts).
// Read next: gguf-llama.ts, the same for llama.cpp.
import { byteNames } from "../data/bpe.ts";
import { writeCharactersJson, writeTokenizerJson } from "../data/huggingface.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { EggError } from "../errors.ts";
import { bytesNow, type Bytes, type SavedTensor, type TensorEntry } from "./tensors.ts";
import type { TransformerShape } from "./transformer-shape.ts";

/** What an export is made from. */
export interface Exported {
  /** Of the run, for people. */
  name: string;
  shape: TransformerShape;
  tokenizer: Tokenizer;
  /** As a checkpoint has them: F32, by the names of transformer-names.ts. */
  tensors: ReadonlyMap<string, TensorEntry>;
}

export type ExportType = "F32" | "F16" | "BF16";

const dtypeNames = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

/**
 * Looks whether a format computes what the model does.
 * @param knobs by the path of each: what the model has, and what the format can
 * @throws EggError("usage") that lists all it cannot
 */
export function expectExportable({ name }: Exported, format: string, knobs: Record<string, readonly [unknown, readonly unknown[]]>): void {
  const wrong = Object.entries(knobs).filter(([, [found, allowed]]) => !allowed.includes(found)).map(([path, [found, allowed]]) => `${path} is ${found}, it has ${allowed.join(", ")}`);
  if (wrong.length === 0) return;
  throw new EggError("usage", `[export] ${name}: ${format} has nothing for this model: ${wrong.join("; ")}.`, {
    hint: format === "GGUF" ? "GGUF takes models of the type llama as they usually are. --format safetensors takes gpt models too." : "The checkpoint itself is a safetensors file: any program can read its tensors.",
  });
}

/** f32 bytes in another type, rounded to the nearest, ties to even; read when they are needed. */
export function inDtype(data: Bytes, dtype: ExportType): Bytes {
  if (dtype === "F32") return data;
  return {
    byteLength: data.byteLength / 2,
    read() {
      const { buffer } = new Uint8Array(bytesNow(data)); // aligned
      if (dtype === "F16") return new Uint8Array(new Float16Array(new Float32Array(buffer)).buffer);
      const bits = new Uint32Array(buffer);
      const halves = new Uint16Array(bits.length);
      for (let i = 0; i < bits.length; i++) {
        const isNaN = (bits[i]! & 0x7fffffff) > 0x7f800000; // rounding could carry it into an infinity
        halves[i] = isNaN ? (bits[i]! >>> 16) | 0x40 : (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) >>> 16;
      }
      return new Uint8Array(halves.buffer);
    },
  };
}

/**
 * The tensors of model.safetensors and the texts beside it, by file name.
 * @throws EggError("usage") where the hub's GPT-2 or Llama computes something else than the model
 */
export function hubFiles(model: Exported, dtype: ExportType): { tensors: Map<string, SavedTensor>; texts: Map<string, string> } {
  const { shape, tokenizer } = model;
  const config = shape.family === "gpt" ? gpt2Config(model) : llamaConfig(model);
  const prefix = shape.family === "gpt" ? "transformer." : "";
  const tensors = new Map<string, SavedTensor>();
  for (const [name, { shape, data }] of model.tensors) tensors.set(name.startsWith("lm_head.") ? name : prefix + name, { dtype, shape, data: inDtype(data, dtype) });
  const end = tokenizer.endOfText;
  const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
  return {
    tensors,
    texts: new Map([
      ["config.json", json({ ...config, vocab_size: shape.vocabulary, tie_word_embeddings: shape.tied, bos_token_id: end, eos_token_id: end, torch_dtype: dtypeNames[dtype] })],
      ["tokenizer.json", tokenizerJson(tokenizer)],
      ["tokenizer_config.json", json({ tokenizer_class: "PreTrainedTokenizerFast", model_max_length: shape.block, clean_up_tokenization_spaces: false, ...endToken(tokenizer) })],
    ]),
  };
}

function gpt2Config(model: Exported): Record<string, unknown> {
  const { norm, position, activation, bias, heads, kvHeads, headWidth, block, width, layers, feedForward, normEps } = model.shape;
  expectExportable(model, "the hub's GPT-2", {
    "model.norm": [norm, ["layer"]], "model.position": [position, ["learned"]], "model.feed_forward": [activation, ["gelu", "relu"]], "model.bias": [bias ? "on" : "off", ["on"]], "model.kv_heads": [kvHeads, [heads]],
    "model.head_width": [headWidth, [width / heads]],
  });
  return {
    architectures: ["GPT2LMHeadModel"], model_type: "gpt2", activation_function: activation === "relu" ? "relu" : "gelu_new", n_positions: block, n_ctx: block, n_embd: width, n_layer: layers, n_head: heads,
    n_inner: feedForward, layer_norm_epsilon: normEps,
  };
}

function llamaConfig(model: Exported): Record<string, unknown> {
  const { norm, position, activation, bias, heads, kvHeads, headWidth, block, width, layers, feedForward, normEps, ropeBase } = model.shape;
  expectExportable(model, "the hub's Llama", { "model.norm": [norm, ["rms"]], "model.position": [position, ["rope"]], "model.feed_forward": [activation, ["swiglu", "geglu"]] });
  return {
    architectures: ["LlamaForCausalLM"], model_type: "llama", hidden_act: activation === "geglu" ? "gelu_pytorch_tanh" : "silu", max_position_embeddings: block, hidden_size: width, num_hidden_layers: layers,
    num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headWidth, intermediate_size: feedForward, rms_norm_eps: normEps, rope_theta: ropeBase, rope_scaling: ropeScaling(model.shape), attention_bias: bias, mlp_bias: bias,
  };
}

/** Which of the published ways to scale rotary positions a shape has, by the hub's name; null: none. */
export function scalingOf({ ropeFactor, ropeOriginal }: TransformerShape): "linear" | "llama3" | null {
  return ropeFactor === 1 ? null : ropeOriginal === 0 ? "linear" : "llama3";
}

function ropeScaling(shape: TransformerShape): Record<string, unknown> | null {
  const rope_type = scalingOf(shape);
  if (rope_type === null) return null;
  const factor = shape.ropeFactor;
  return rope_type === "linear" ? { rope_type, factor } : { rope_type, factor, low_freq_factor: shape.ropeLow, high_freq_factor: shape.ropeHigh, original_max_position_embeddings: shape.ropeOriginal };
}

function endToken(tokenizer: Tokenizer): Record<string, string> {
  if (tokenizer.endOfText === null) return {};
  const text = new TextDecoder().decode(tokenizer.decode([tokenizer.endOfText]));
  return { bos_token: text, eos_token: text };
}

/** Bytes are a byte-level BPE without merges; characters are words of one character each. */
function tokenizerJson(tokenizer: Tokenizer): string {
  if (tokenizer.kind === "bpe") return `${tokenizer.definition}\n`;
  if (tokenizer.kind === "bytes") return `${writeTokenizerJson({ names: [...byteNames], merges: new Int32Array(), pattern: "gpt2", addPrefixSpace: false, ignoreMerges: false, added: [] }, true)}\n`;
  return `${writeCharactersJson(Array.from({ length: tokenizer.vocabulary }, (_, id) => tokenizer.decode([id])))}\n`;
}
