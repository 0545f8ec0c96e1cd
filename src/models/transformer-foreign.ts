// The config.json of a model on the Hugging Face hub as a shape: model_type gpt2 and llama, and nothing that computes in
// another way. Also what the tensors alone tell. Not the files (src/run/foreign.ts). Read next: transformer-names.ts.
import { EggError } from "../errors.ts";
import type { TensorEntry } from "./tensors.ts";
import { loadTransformer } from "./transformer-names.ts";
import { checkTransformerShape, unscaled, type TransformerShape } from "./transformer-shape.ts";
import type { Transformer } from "./transformer.ts";

type Tensors = ReadonlyMap<string, Pick<TensorEntry, "shape">>;

/** A field that must have one of some values, because nothing else is computed here. An absent field has the first. */
interface Fixed { readonly field: string; readonly allowed: readonly unknown[] }

const fixed: Record<"gpt2" | "llama", readonly Fixed[]> = {
  gpt2: [
    { field: "activation_function", allowed: ["gelu_new", "gelu_pytorch_tanh", "relu"] },
    { field: "scale_attn_weights", allowed: [true] },
    { field: "scale_attn_by_inverse_layer_idx", allowed: [false] },
    { field: "add_cross_attention", allowed: [false] },
  ],
  llama: [
    { field: "hidden_act", allowed: ["silu", "gelu_new", "gelu_pytorch_tanh"] },
    { field: "partial_rotary_factor", allowed: [1] },
    { field: "attention_bias", allowed: [false, true] },
    { field: "mlp_bias", allowed: [false, true] },
  ],
};

/** A config, read field by field; complaints name the file. */
class Fields {
  readonly #values: Record<string, unknown>;
  readonly #where: string;

  constructor(values: unknown, where: string) {
    if (typeof values !== "object" || values === null || Array.isArray(values)) throw new EggError("corrupt", `[checkpoint] ${where}: not a JSON object.`);
    this.#values = values as Record<string, unknown>;
    this.#where = where;
  }

  refuse(field: string, found: unknown, allowed: string): never {
    throw new EggError("data", `[checkpoint] ${this.#where}: ${field} is ${JSON.stringify(found)}, allowed ${allowed}.`, {
      hint: "Egg loads GPT-2 and Llama as they were published; this model computes something else.",
    });
  }

  /** The value; null counts as absent. */
  get(field: string): unknown {
    return Object.hasOwn(this.#values, field) ? this.#values[field] ?? undefined : undefined;
  }

  number(field: string, otherwise?: number): number {
    const value = this.get(field) ?? otherwise;
    return typeof value === "number" && value > 0 ? value : this.refuse(field, value ?? null, "a number above 0");
  }

  flag(field: string, otherwise: boolean): boolean {
    const value = this.get(field) ?? otherwise;
    return typeof value === "boolean" ? value : this.refuse(field, value, "true or false");
  }

  expect({ field, allowed }: Fixed): unknown {
    const value = this.get(field) ?? allowed[0];
    return allowed.includes(value) ? value : this.refuse(field, value, allowed.map((each) => JSON.stringify(each)).join(" or "));
  }

  section(field: string): Fields | null {
    const value = this.get(field);
    return value === undefined ? null : new Fields(value, `${this.#where}, ${field}`);
  }
}

/**
 * The shape that a config.json describes.
 * @param config what JSON.parse made of it
 * @param where names the file in errors
 * @throws EggError("data") for a model that egg does not compute, with field, found and allowed; EggError("corrupt") for no config
 */
export function foreignShape(config: unknown, where: string): TransformerShape {
  const fields = new Fields(config, where);
  const type = fields.get("model_type");
  if (type !== "gpt2" && type !== "llama") fields.refuse("model_type", type ?? null, `"gpt2" or "llama"`);
  for (const each of fixed[type as keyof typeof fixed]) fields.expect(each);
  const shape = type === "gpt2" ? gpt2(fields) : llama(fields);
  try {
    checkTransformerShape(shape);
  } catch (error) {
    throw error instanceof EggError ? new EggError("corrupt", `[checkpoint] ${where}: ${error.message}`) : error;
  }
  return shape;
}

const gpt = { family: "gpt", norm: "layer", position: "learned", bias: true, dropout: 0, ropeBase: 10_000, ...unscaled, ropePairs: "half" } as const;

function gpt2(fields: Fields): TransformerShape {
  const [width, heads] = [fields.number("n_embd"), fields.number("n_head")];
  return {
    ...gpt, width, heads, kvHeads: heads, headWidth: width / heads, vocabulary: fields.number("vocab_size"), layers: fields.number("n_layer"), feedForward: fields.number("n_inner", 4 * width),
    block: fields.number("n_positions", 1024), activation: fields.get("activation_function") === "relu" ? "relu" : "gelu",
    tied: fields.flag("tie_word_embeddings", true), normEps: fields.number("layer_norm_epsilon", 1e-5),
  };
}

function llama(fields: Fields): TransformerShape {
  const [width, heads] = [fields.number("hidden_size"), fields.number("num_attention_heads")];
  const bias = fields.flag("attention_bias", false);
  if (fields.flag("mlp_bias", false) !== bias) fields.refuse("mlp_bias", !bias, `${bias}, as attention_bias`);
  return {
    family: "llama", norm: "rms", position: "rope", bias, dropout: 0, width, heads, kvHeads: fields.number("num_key_value_heads", heads), headWidth: fields.number("head_dim", width / heads), ...rope(fields),
    vocabulary: fields.number("vocab_size"), layers: fields.number("num_hidden_layers"), feedForward: fields.number("intermediate_size"),
    block: fields.number("max_position_embeddings", 2048), activation: fields.get("hidden_act") === undefined || fields.get("hidden_act") === "silu" ? "swiglu" : "geglu",
    tied: fields.flag("tie_word_embeddings", false), normEps: fields.number("rms_norm_eps", 1e-6),
  };
}

/** Newer files have the base and what scales the frequencies in one section, older ones the base outside; rope_scaling goes first, as in the library. */
function rope(fields: Fields): Pick<TransformerShape, "ropeBase" | "ropePairs" | keyof typeof unscaled> {
  const section = fields.section("rope_scaling") ?? fields.section("rope_parameters");
  const ropeBase = (section?.get("rope_theta") === undefined ? fields : section).number("rope_theta", 10_000);
  const plain = { ropePairs: "half", ropeBase, ...unscaled } as const;
  if (section === null) return plain;
  section.expect({ field: "partial_rotary_factor", allowed: [1] });
  const type = section.expect({ field: section.get("rope_type") === undefined ? "type" : "rope_type", allowed: ["default", "linear", "llama3"] });
  if (type === "default") return plain;
  const scaled = { ...plain, ropeFactor: section.number("factor") };
  if (type === "linear") return scaled;
  return { ...scaled, ropeOriginal: section.number("original_max_position_embeddings"), ropeLow: section.number("low_freq_factor"), ropeHigh: section.number("high_freq_factor") };
}

/**
 * What tensors by the names of GPT-2 or Llama say about their model where there is no config.json. They do not say the number
 * of heads, which the caller must know; a norm's epsilon, rotary frequencies and Llama's block are taken as usual.
 * @throws EggError("data") where they are of neither family, or `heads` is null: it names what follows from them
 */
export function shapeOfTensors(tensors: Tensors, heads: number | null, where: string): TransformerShape {
  const sizes = (name: string): readonly number[] | undefined => (tensors.get(name) ?? tensors.get(`transformer.${name}`))?.shape;
  const layersOf = (pattern: RegExp): number => Math.max(0, ...[...tensors.keys()].map((name) => Number(pattern.exec(name)?.[1] ?? -1) + 1));
  const [gptTable, llamaTable] = [sizes("wte.weight"), sizes("model.embed_tokens.weight")];
  const table = gptTable ?? llamaTable;
  if (table?.length !== 2) throw new EggError("data", `[checkpoint] ${where}: neither wte.weight of a GPT-2 nor model.embed_tokens.weight of a Llama is among its ${tensors.size} tensors.`);
  const [vocabulary, width] = table as [number, number];
  const layers = layersOf(gptTable !== undefined ? /^(?:transformer\.)?h\.(\d+)\./ : /^model\.layers\.(\d+)\./);
  if (heads === null) {
    throw new EggError("data", `[checkpoint] ${where}: no config.json lies beside it. Its tensors tell the vocabulary (${vocabulary.toLocaleString("en-US")}), the width (${width}) and the layers (${layers}), but not the number of heads.`, {
      hint: "Put the model's config.json beside it, or say the number of heads.",
    });
  }
  const tied = sizes("lm_head.weight") === undefined;
  const rows = (name: string): number => sizes(`model.layers.0.${name}.weight`)?.[0] ?? 0;
  const headWidth = gptTable !== undefined ? width / heads : rows("self_attn.q_proj") / heads;
  const shape: TransformerShape = gptTable !== undefined
    ? { ...gpt, vocabulary, width, layers, heads, kvHeads: heads, headWidth, tied, feedForward: sizes("h.0.mlp.c_fc.weight")?.[1] ?? 0, block: sizes("wpe.weight")?.[0] ?? 0, activation: "gelu", normEps: 1e-5 }
    : {
      family: "llama", norm: "rms", position: "rope", dropout: 0, ropeBase: 10_000, ...unscaled, ropePairs: "half", normEps: 1e-5, activation: "swiglu", block: 2048, vocabulary, width, layers, heads, headWidth, tied,
      kvHeads: rows("self_attn.k_proj") / headWidth, bias: sizes("model.layers.0.self_attn.q_proj.bias") !== undefined, feedForward: rows("mlp.up_proj"),
    };
  checkTransformerShape(shape);
  return shape;
}

/**
 * Overwrites a model's weights with those of another, which may have been trained with other dropout and, where positions are
 * not learned, another block.
 * @param found as openForeign (src/run/foreign.ts) reads it
 * @throws EggError("data") where the other model computes something else, naming each difference; "corrupt" where tensors do not fit
 */
export function startTransformer(model: Transformer, { shape, tensors, where }: { shape: TransformerShape; tensors: ReadonlyMap<string, TensorEntry>; where: string }): void {
  const free = ["dropout", ...(shape.position === "learned" ? [] : ["block"]), ...(shape.position === "rope" ? [] : ["ropeBase", "ropePairs", ...Object.keys(unscaled)])];
  const differences = (Object.keys(shape) as (keyof TransformerShape)[]).filter((key) => !free.includes(key) && shape[key] !== model.shape[key]);
  if (differences.length > 0) {
    throw new EggError("data", `[checkpoint] ${where}: ${differences.map((key) => `${key} is ${shape[key]}, this model has ${model.shape[key]}`).join("; ")}.`, {
      hint: "Make the model with the settings of the one that it is to start from.",
    });
  }
  loadTransformer(model, tensors);
}
