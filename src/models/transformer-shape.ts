// What a transformer is made of, as numbers and switches: the families' usual ones, what fits together, how many parameters
// there are. Light: nothing here computes, so that `egg config` may ask. Read next: transformer.ts.
import type { ConfigOf } from "../config/knobs.ts";
import { EggError } from "../errors.ts";

export interface TransformerShape {
  /** Which switches are usual, and whose names the tensors of a checkpoint have (transformer-names.ts). */
  family: "gpt" | "llama";
  vocabulary: number;
  layers: number;
  width: number;
  heads: number;
  /** Heads of keys and values; query head i reads kv head floor(i / (heads / kvHeads)). */
  kvHeads: number;
  /** Width of a head; width / heads but in some published models. */
  headWidth: number;
  /** Width inside the feed-forward part. */
  feedForward: number;
  /** Positions of a training window; with learned positions, all that there are. */
  block: number;
  norm: "layer" | "rms";
  position: "learned" | "rope" | "none";
  /** swiglu and geglu have gates: act(gate x) * up x, act being silu or gelu. */
  activation: "gelu" | "relu" | "swiglu" | "geglu";
  /** Of all products but the head, and of norm "layer". */
  bias: boolean;
  /** The head is the embedding. */
  tied: boolean;
  /** While training: of the embedding, and of what attention and feed-forward add. */
  dropout: number;
  ropeBase: number;
  /**
   * Frequencies of rotary positions are divided by it, for contexts longer than those that a model was first trained on: all of
   * them where ropeOriginal is 0 (linear scaling). Otherwise, as Llama 3.1 does, those that turn ropeLow times or less in
   * ropeOriginal positions; ones that turn ropeHigh times or more stay, and between there is a straight line.
   */
  ropeFactor: number;
  ropeOriginal: number;
  ropeLow: number;
  ropeHigh: number;
  /** Which elements of a head turn together: (2i, 2i + 1), or (i, i + d / 2) as Llama files on the Hugging Face hub have it. */
  ropePairs: "interleaved" | "half";
  normEps: number;
}

type Sizes = Pick<TransformerShape, "family" | "vocabulary" | "layers" | "width" | "heads" | "block">;

/** Rotary positions as they are. */
export const unscaled = { ropeFactor: 1, ropeOriginal: 0, ropeLow: 1, ropeHigh: 4 } as const;

/** The rest of a shape where it is not given: as GPT-2 or Llama has it; feed-forward 4 x width, with gates 8/3 x in whole 256s. */
export function transformerShape(given: Sizes & Partial<TransformerShape>): TransformerShape {
  const gpt = given.family === "gpt";
  const { width, heads, activation = gpt ? "gelu" : "swiglu" } = given;
  return {
    kvHeads: heads, headWidth: width / heads, activation, feedForward: isGated({ activation }) ? 256 * Math.ceil((8 * width) / 3 / 256) : 4 * width, norm: gpt ? "layer" : "rms",
    position: gpt ? "learned" : "rope", bias: gpt, tied: true, dropout: 0, ropeBase: 10_000, ...unscaled, ropePairs: "half", normEps: 1e-5, ...given,
  };
}

/** The shape of a config's model with so many tokens. */
export function shapeOfConfig({ model }: ConfigOf<"backprop">, vocabulary: number): TransformerShape {
  const family = model.type === "llama" ? "llama" : "gpt";
  const { layers, width, heads, block, norm, position, feed_forward: activation, bias, tied, dropout } = model;
  // Checkpoints of older versions have no such knobs.
  const { head_width = 0, rope_factor = unscaled.ropeFactor, rope_original = unscaled.ropeOriginal, rope_low = unscaled.ropeLow, rope_high = unscaled.ropeHigh } = model;
  return transformerShape({
    family, vocabulary, layers, width, heads, block, dropout, ropeBase: model.rope_base, ropeFactor: rope_factor, ropeOriginal: rope_original, ropeLow: rope_low, ropeHigh: rope_high,
    normEps: model.norm_eps,
    ...(head_width === 0 ? {} : { headWidth: head_width }),
    ...(model.kv_heads === 0 ? {} : { kvHeads: model.kv_heads }),
    ...(model.feed_forward_width === 0 ? {} : { feedForward: model.feed_forward_width }),
    ...(norm === "auto" ? {} : { norm }),
    ...(position === "auto" ? {} : { position }),
    ...(activation === "auto" ? {} : { activation }),
    ...(bias === "auto" ? {} : { bias: bias === "on" }),
    ...(tied === "auto" ? {} : { tied: tied === "on" }),
  });
}

/** The other way: the knobs of a config whose model has this shape. */
export function knobsOfShape(shape: TransformerShape): Omit<ConfigOf<"backprop">["model"], "from"> {
  return {
    type: shape.family, layers: shape.layers, width: shape.width, heads: shape.heads, kv_heads: shape.kvHeads, head_width: shape.headWidth, feed_forward_width: shape.feedForward, block: shape.block,
    norm: shape.norm, position: shape.position, feed_forward: shape.activation, bias: shape.bias ? "on" : "off", tied: shape.tied ? "on" : "off", dropout: shape.dropout,
    rope_base: shape.ropeBase, rope_factor: shape.ropeFactor, rope_original: shape.ropeOriginal, rope_low: shape.ropeLow, rope_high: shape.ropeHigh, norm_eps: shape.normEps,
  };
}

export function isGated({ activation }: Pick<TransformerShape, "activation">): boolean {
  return activation === "swiglu" || activation === "geglu";
}

/** Kernels count the elements of a tensor in 32 bits. */
const elements_max = 2 ** 32 - 1;

/** @throws EggError("usage") that lists all that does not fit together */
export function checkTransformerShape(shape: TransformerShape): void {
  const wrong: string[] = [];
  for (const name of ["vocabulary", "layers", "width", "heads", "kvHeads", "feedForward", "block"] as const) {
    if (!Number.isSafeInteger(shape[name]) || shape[name] < 1) wrong.push(`${name} is ${shape[name]}, expected a whole number from 1`);
  }
  if (wrong.length === 0) {
    const d = shape.headWidth;
    if (d === shape.width / shape.heads && !Number.isInteger(d)) wrong.push(`${shape.heads} heads do not divide the width ${shape.width}`);
    else if (!Number.isSafeInteger(d) || d < 1) wrong.push(`headWidth is ${d}, expected a whole number from 1`);
    else if (shape.position === "rope" && d % 2 !== 0) wrong.push(`rope needs heads of an even width, found ${d}`);
    if (shape.heads % shape.kvHeads !== 0) wrong.push(`${shape.heads} heads cannot share ${shape.kvHeads} kv heads evenly`);
    const largest = shape.width * Math.max(shape.vocabulary, shape.block, (shape.heads + 2 * shape.kvHeads) * d, (isGated(shape) ? 2 : 1) * shape.feedForward);
    if (largest > elements_max) wrong.push(`a tensor would have ${largest.toLocaleString("en-US")} elements, at most ${elements_max.toLocaleString("en-US")} are possible`);
  }
  if (!(shape.dropout >= 0 && shape.dropout < 1)) wrong.push(`dropout is ${shape.dropout}, expected 0 or more and less than 1`);
  if (!(shape.ropeBase > 0 && Number.isFinite(shape.ropeBase))) wrong.push(`ropeBase is ${shape.ropeBase}, expected a number above 0`);
  if (!(shape.ropeFactor >= 1 && Number.isFinite(shape.ropeFactor))) wrong.push(`ropeFactor is ${shape.ropeFactor}, expected a number from 1`);
  if (!(shape.ropeOriginal >= 0 && Number.isFinite(shape.ropeOriginal))) wrong.push(`ropeOriginal is ${shape.ropeOriginal}, expected a number from 0`);
  if (!(shape.ropeLow >= 0 && shape.ropeLow < shape.ropeHigh && Number.isFinite(shape.ropeHigh))) wrong.push(`ropeLow and ropeHigh are ${shape.ropeLow} and ${shape.ropeHigh}, expected two rising numbers from 0`);
  if (!(shape.normEps > 0 && shape.normEps < 1)) wrong.push(`normEps is ${shape.normEps}, expected a number above 0 and below 1`);
  if (wrong.length > 0) throw new EggError("usage", `[transformer] ${wrong.join("; ")}.`);
}

/** How many numbers such a model learns, counted without making it. */
export function transformerParameters(shape: TransformerShape): number {
  const { vocabulary, layers, width, heads, kvHeads, headWidth: d, feedForward, block, bias } = shape;
  const norm = width * (shape.norm === "layer" && bias ? 2 : 1);
  const linear = (inputs: number, outputs: number): number => outputs * (inputs + (bias ? 1 : 0));
  const attention = linear(width, (heads + 2 * kvHeads) * d) + linear(heads * d, width);
  const inner = linear(width, (isGated(shape) ? 2 : 1) * feedForward) + linear(feedForward, width);
  const tables = width * (vocabulary * (shape.tied ? 1 : 2) + (shape.position === "learned" ? block : 0));
  return tables + layers * (2 * norm + attention + inner) + norm;
}
