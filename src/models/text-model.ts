// A trained model of any kind behind one face: what it loses on a text, and how it goes on from a prompt. Not the training.
// Read next: evaluate.ts and generate.ts (the GRU), contexts.ts.
import type { Config } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import { tokenizers } from "../data/tokenizer.ts";
import { NativeModel } from "../native/int8.ts";
import type { Context } from "../native/machine.ts";
import { ContextsModel, expectContexts, type ContextsConfig } from "./contexts.ts";
import { expectWeights, writeWeights, type EggShape } from "./egg.ts";
import { textLoss, type TextLoss } from "./evaluate.ts";
import { generate } from "./generate.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { TensorEntry } from "./tensors.ts";

export interface TextModel {
  /** Exact softmax, clean weights, on at most `maxBytes` of the text. Null when cancelled. */
  loss(text: Corpus, maxBytes: number): Promise<TextLoss | null>;
  /** Continues a prompt token by token; the same seed gives the same tokens. */
  generate(prompt: Uint8Array, tokens: number, options: SamplingOptions, seed: number): Generator<number>;
}

/**
 * Looks whether `tensors` are those that a run of this config saves, before any memory is taken for them.
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function expectTextModel(config: Config, tensors: ReadonlyMap<string, TensorEntry>): void {
  if (config.trainer.rule === "egg") expectContexts(sizesOf(config), tensors);
  else expectWeights(shapeOf(config), tensors);
}

function sizesOf({ model }: Config): ContextsConfig {
  return { order: model.order!, table_bits: model.table_bits! };
}

function shapeOf({ model, data }: Config): EggShape {
  return { layers: model.layers!, hidden: model.hidden!, vocabulary: tokenizers[data.tokenizer].vocabulary };
}

/**
 * The model that a run of this config saved.
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function openTextModel(context: Context, config: Config, tensors: ReadonlyMap<string, TensorEntry>): TextModel {
  const { rule } = config.trainer;
  if (rule === "egg") return ContextsModel.from(context, sizesOf(config), tensors);
  expectTextModel(config, tensors);
  const native = new NativeModel(context, { rule, ...shapeOf(config) });
  writeWeights(native, tensors);
  return {
    loss: (text, maxBytes) => textLoss(native, text, maxBytes),
    generate: (prompt, tokens, options, seed) => generate(native, prompt, tokens, options, seed),
  };
}
