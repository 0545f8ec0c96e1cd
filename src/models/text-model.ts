// A trained model of any kind behind one face: what it loses on a text, and how it goes on with a text. Not the training.
// Read next: evaluate.ts and generate.ts (the GRU), contexts.ts, transformer-text.ts.
import { descends, type Config, type ConfigOf } from "../config/knobs.ts";
import { splitCorpus, type Corpus } from "../data/corpus.ts";
import { tokenizerFrom } from "../data/tokenizer.ts";
import { openTokens, splitTokens } from "../data/tokens.ts";
import { NativeModel } from "../native/int8.ts";
import type { Context } from "../native/machine.ts";
import { ContextsModel, expectContexts, type ContextsConfig } from "./contexts.ts";
import { expectWeights, writeWeights, type EggShape } from "./egg.ts";
import { textLoss, type TextLoss } from "./evaluate.ts";
import { RecurrentConversation } from "./generate.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { TensorEntry } from "./tensors.ts";
import { expectTransformer } from "./transformer-names.ts";
import { shapeOfConfig, type TransformerShape } from "./transformer-shape.ts";
import { openTransformer } from "./transformer-text.ts";

/** A text that a model reads and continues, again and again as it grows. */
export interface Conversation {
  /**
   * Continues the text so far: the bytes of one token after the other, up to the end of the text. What this and the text of the last
   * call have in common is not read again. The same texts and seeds give the same answers.
   */
  generate(text: Uint8Array, tokens: number, options: SamplingOptions, seed: number): Generator<Uint8Array>;
  /** Tokens that the model read before it wrote the first one, the last time. */
  readonly read: number;
}

export interface TextModel {
  /**
   * Exact softmax, clean weights, on at most `maxBytes` of a text, or of its end that a run with data.validation `heldOut`, above
   * 0, holds out. Null when cancelled.
   */
  loss(text: Corpus, maxBytes: number, heldOut?: number): Promise<TextLoss | null>;
  /** A text from its beginning. There may be memory for one: the one before is over. */
  begin(): Conversation;
  /** How many weights there are, and bytes of native memory that they take; null for models of EGGROLL. */
  readonly weights: { count: number; bytes: number } | null;
  /** Gives its memory back; null where that ends with the process. */
  release: (() => void) | null;
}

/**
 * Looks whether `tensors` are those that a run of this config saves, before any memory is taken for them.
 * @param tokenizer as the checkpoint has it
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function expectTextModel(config: Config, tensors: ReadonlyMap<string, TensorEntry>, tokenizer: string): void {
  if (descends(config)) expectTransformer(shapeOfSaved(config, tensors, tokenizer), tensors);
  else if (config.trainer.rule === "egg") expectContexts(sizesOf(config), tensors);
  else expectWeights(shapeOf(config), tensors);
}

/** The shape of a saved transformer: its embedding may have more rows than its tokenizer has ids. */
export function shapeOfSaved(config: ConfigOf<"backprop">, tensors: ReadonlyMap<string, TensorEntry>, tokenizer: string): TransformerShape {
  const table = ["wte.weight", "transformer.wte.weight", "model.embed_tokens.weight"].map((name) => tensors.get(name)).find((found) => found !== undefined);
  return shapeOfConfig(config, table?.shape[0] ?? tokenizerFrom(tokenizer).vocabulary);
}

function sizesOf({ model }: Config): ContextsConfig {
  return { order: model.order!, table_bits: model.table_bits! };
}

function shapeOf({ model }: Config): EggShape {
  return { layers: model.layers!, hidden: model.hidden!, vocabulary: 256 };
}

/**
 * The model that a run of this config saved.
 * @param tokenizer as the checkpoint has it
 * @param int8 weights of a transformer's products are rounded to int8 with a scale a row; the models of EGGROLL are int8 anyway
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function openTextModel(context: Context, config: Config, tensors: ReadonlyMap<string, TensorEntry>, tokenizer: string, int8 = false): TextModel {
  if (descends(config)) {
    const words = tokenizerFrom(tokenizer);
    const model = openTransformer(context, shapeOfSaved(config, tensors, tokenizer), tensors, words, int8);
    return {
      loss(text, maxBytes, heldOut) {
        const tokens = openTokens(text, words);
        return model.loss(heldOut === undefined ? tokens : splitTokens(tokens, heldOut).heldOut!, maxBytes);
      },
      begin: () => model.begin(),
      weights: model.weights,
      release() {
        model.release();
        model.model.release();
      },
    };
  }
  const part = (text: Corpus, heldOut: number | undefined): Corpus => (heldOut === undefined ? text : splitCorpus(text, heldOut).heldOut!);
  const { rule = "egg" } = config.trainer;
  if (rule === "egg") {
    const model = ContextsModel.from(context, sizesOf(config), tensors);
    return {
      loss: (text, maxBytes, heldOut) => model.loss(part(text, heldOut), maxBytes),
      begin: () => model,
      weights: null,
      release: null,
    };
  }
  expectTextModel(config, tensors, tokenizer);
  const native = new NativeModel(context, { rule, ...shapeOf(config) });
  writeWeights(native, tensors);
  return {
    loss: (text, maxBytes, heldOut) => textLoss(native, part(text, heldOut), maxBytes),
    begin: () => new RecurrentConversation(native),
    weights: null,
    release: null,
  };
}
