// The config.json of a model on the Hugging Face hub as a shape: model_type gpt2 and llama, and nothing that computes in
// another way. Also what the tensors alone tell. Not the files (src/run/foreign.ts). Read next: transformer-names.ts.
import { knobAt, type KnobPath } from "../config/knobs.ts";
import { EggError } from "../errors.ts";
import type { TensorEntry } from "./tensors.ts";
import { loadTransformer } from "./transformer-names.ts";
import { checkTransformerShape, knobsOfShape, unscaled, type TransformerShape } from "./transformer-shape.ts";
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

/** The most of sizes that have no knob, or whose knob ends below published models. A list of tensors is made for that many layers. */
const most = { vocabulary: 2 ** 24, layers: 1024, block: 2 ** 24 } as const;

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

  /** A number above 0 and at most a knob's, whole where the knob's are; `otherwise` is not held to that. */
  number(field: string, knob: KnobPath, otherwise?: number): number {
    const { kind, max } = knobAt(knob) as { kind: string; max: number };
    const value = this.get(field) ?? otherwise;
    if (typeof value === "number" && (value === otherwise || (value > 0 && value <= max && (kind === "number" || Number.isInteger(value))))) return value;
    return this.refuse(field, value ?? null, kind === "number" ? `a number above 0, at most ${max}` : `a whole number from 1 to ${max}`);
  }

  /** The same where the bound is no knob's. */
  size(field: string, of: keyof typeof most, otherwise?: number): number {
    const value = this.get(field) ?? otherwise;
    return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most[of] ? (value as number) : this.refuse(field, value ?? null, `a whole number from 1 to ${most[of]}`);
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
  const [width, heads] = [fields.number("n_embd", "model.width"), fields.number("n_head", "model.heads")];
  return {
    ...gpt, width, heads, kvHeads: heads, headWidth: width / heads, vocabulary: fields.size("vocab_size", "vocabulary"), layers: fields.size("n_layer", "layers"),
    feedForward: fields.number("n_inner", "model.feed_forward_width", 4 * width), block: fields.size("n_positions", "block", 1024), activation: fields.get("activation_function") === "relu" ? "relu" : "gelu",
    tied: fields.flag("tie_word_embeddings", true), normEps: fields.number("layer_norm_epsilon", "model.norm_eps", 1e-5),
  };
}

function llama(fields: Fields): TransformerShape {
  const [width, heads] = [fields.number("hidden_size", "model.width"), fields.number("num_attention_heads", "model.heads")];
  const bias = fields.flag("attention_bias", false);
  if (fields.flag("mlp_bias", false) !== bias) fields.refuse("mlp_bias", !bias, `${bias}, as attention_bias`);
  return {
    family: "llama", norm: "rms", position: "rope", bias, dropout: 0, width, heads,
    kvHeads: fields.number("num_key_value_heads", "model.kv_heads", heads), headWidth: fields.number("head_dim", "model.head_width", width / heads), ...rope(fields),
    vocabulary: fields.size("vocab_size", "vocabulary"), layers: fields.size("num_hidden_layers", "layers"), feedForward: fields.number("intermediate_size", "model.feed_forward_width"),
    block: fields.size("max_position_embeddings", "block", 2048), activation: fields.get("hidden_act") === undefined || fields.get("hidden_act") === "silu" ? "swiglu" : "geglu",
    tied: fields.flag("tie_word_embeddings", false), normEps: fields.number("rms_norm_eps", "model.norm_eps", 1e-6),
  };
}

/** Newer files have the base and what scales the frequencies in one section, older ones the base outside; rope_scaling goes first, as in the library. */
function rope(fields: Fields): Pick<TransformerShape, "ropeBase" | "ropePairs" | keyof typeof unscaled> {
  const section = fields.section("rope_scaling") ?? fields.section("rope_parameters");
  const ropeBase = (section?.get("rope_theta") === undefined ? fields : section).number("rope_theta", "model.rope_base", 10_000);
  const plain = { ropePairs: "half", ropeBase, ...unscaled } as const;
  if (section === null) return plain;
  section.expect({ field: "partial_rotary_factor", allowed: [1] });
  const type = section.expect({ field: section.get("rope_type") === undefined ? "type" : "rope_type", allowed: ["default", "linear", "llama3"] });
  if (type === "default") return plain;
  const scaled = { ...plain, ropeFactor: section.number("factor", "model.rope_factor") };
  if (type === "linear") return scaled;
  return {
    ...scaled, ropeOriginal: section.number("original_max_position_embeddings", "model.rope_original"), ropeLow: section.number("low_freq_factor", "model.rope_low"),
    ropeHigh: section.number("high_freq_factor", "model.rope_high"),
  };
}

/** The sizes that tensors by the names of GPT-2 or Llama have; null where they are of neither. */
function sizesOf(tensors: Tensors): Record<"vocabulary" | "width" | "layers", number> | null {
  const [gptTable, llamaTable] = [tensors.get("wte.weight") ?? tensors.get("transformer.wte.weight"), tensors.get("model.embed_tokens.weight")];
  const [vocabulary, width] = (gptTable ?? llamaTable)?.shape ?? [];
  if (vocabulary === undefined || width === undefined) return null;
  const pattern = gptTable !== undefined ? /^(?:transformer\.)?h\.(\d+)\./ : /^model\.layers\.(\d+)\./;
  return { vocabulary, width, layers: [...tensors.keys()].reduce((layers, name) => Math.max(layers, Number(pattern.exec(name)?.[1] ?? -1) + 1), 0) };
}

/** @throws EggError("corrupt") where the sizes in a config.json are not those of the tensors beside it */
export function expectSizes(shape: TransformerShape, tensors: Tensors, where: string): void {
  const found = sizesOf(tensors);
  if (found === null) return; // expectTransformer names what is missing
  const wrong = (["vocabulary", "width", "layers"] as const).filter((size) => found[size] !== shape[size]);
  if (wrong.length === 0) return;
  const fields = shape.family === "gpt" ? { vocabulary: "vocab_size", width: "n_embd", layers: "n_layer" } : { vocabulary: "vocab_size", width: "hidden_size", layers: "num_hidden_layers" };
  throw new EggError("corrupt", `[checkpoint] ${where}: ${wrong.map((size) => `${fields[size]} is ${shape[size]}, the tensors have ${found[size]}`).join("; ")}.`, {
    hint: "This config.json belongs to another model. Put the one of these weights there.",
  });
}

/**
 * What tensors by the names of GPT-2 or Llama say about their model where there is no config.json. They do not say the number
 * of heads, which the caller must know; a norm's epsilon, rotary frequencies and Llama's block are taken as usual.
 * @throws EggError("data") where they are of neither family, or `heads` is null: it names what follows from them
 */
export function shapeOfTensors(tensors: Tensors, heads: number | null, where: string): TransformerShape {
  const sizes = (name: string): readonly number[] | undefined => (tensors.get(name) ?? tensors.get(`transformer.${name}`))?.shape;
  const found = sizesOf(tensors);
  if (found === null) throw new EggError("data", `[checkpoint] ${where}: neither wte.weight of a GPT-2 nor model.embed_tokens.weight of a Llama is among its ${tensors.size} tensors.`);
  const { vocabulary, width, layers } = found;
  const isGpt = sizes("wte.weight") !== undefined;
  if (heads === null) {
    throw new EggError("data", `[checkpoint] ${where}: no config.json lies beside it. Its tensors tell the vocabulary (${vocabulary.toLocaleString("en-US")}), the width (${width}) and the layers (${layers}), but not the number of heads.`, {
      hint: "Put the model's config.json beside it.",
    });
  }
  const tied = sizes("lm_head.weight") === undefined;
  const rows = (name: string): number => sizes(`model.layers.0.${name}.weight`)?.[0] ?? 0;
  const headWidth = isGpt ? width / heads : rows("self_attn.q_proj") / heads;
  const shape: TransformerShape = isGpt
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
  const scaling = Object.keys(unscaled) as (keyof typeof unscaled)[];
  const free: (keyof TransformerShape)[] = ["dropout", ...(shape.position === "learned" ? [] : ["block" as const]), ...(shape.position === "rope" ? [] : ["ropeBase" as const, "ropePairs" as const, ...scaling])];
  const wanted = { ...shape, ...Object.fromEntries(free.map((key) => [key, model.shape[key]])) };
  const here: Record<string, unknown> = knobsOfShape(model.shape);
  const knobs = Object.entries(knobsOfShape(wanted)).filter(([name, value]) => value !== here[name]);
  const differences = [...knobs.map(([name, value]) => `model.${name} is ${value}, this run has ${here[name]}`), ...(["vocabulary", "ropePairs"] as const).flatMap((key) => (wanted[key] === model.shape[key] ? [] : [`${key} is ${wanted[key]}, this run has ${model.shape[key]}`]))];
  if (differences.length > 0) {
    throw new EggError("data", `[checkpoint] ${where}: ${differences.join("; ")}.`, { hint: knobs.length === 0 ? "Start from another model." : `Give this run its settings: ${knobs.map(([name, value]) => `--set model.${name}=${value}`).join(" ")}` });
  }
  loadTransformer(model, tensors);
}
