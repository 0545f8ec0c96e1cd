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
  /** Which elements of a head turn together: (2i, 2i + 1), or (i, i + d / 2) as Llama files on the Hugging Face hub have it. */
  ropePairs: "interleaved" | "half";
  normEps: number;
}

type Sizes = Pick<TransformerShape, "family" | "vocabulary" | "layers" | "width" | "heads" | "block">;

/** The rest of a shape where it is not given: as GPT-2 or Llama has it; feed-forward 4 x width, with gates 8/3 x in whole 256s. */
export function transformerShape(given: Sizes & Partial<TransformerShape>): TransformerShape {
  const gpt = given.family === "gpt";
  const { width, heads, activation = gpt ? "gelu" : "swiglu" } = given;
  return {
    kvHeads: heads, activation, feedForward: isGated({ activation }) ? 256 * Math.ceil((8 * width) / 3 / 256) : 4 * width, norm: gpt ? "layer" : "rms",
    position: gpt ? "learned" : "rope", bias: gpt, tied: true, dropout: 0, ropeBase: 10_000, ropePairs: "half", normEps: 1e-5, ...given,
  };
}

/** The shape of a config's model with so many tokens. */
export function shapeOfConfig({ model }: ConfigOf<"backprop">, vocabulary: number): TransformerShape {
  const family = model.type === "llama" ? "llama" : "gpt";
  const { layers, width, heads, block, norm, position, feed_forward: activation, bias, tied, dropout } = model;
  return transformerShape({
    family, vocabulary, layers, width, heads, block, dropout, ropeBase: model.rope_base, normEps: model.norm_eps,
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
    type: shape.family, layers: shape.layers, width: shape.width, heads: shape.heads, kv_heads: shape.kvHeads, feed_forward_width: shape.feedForward, block: shape.block, norm: shape.norm, position: shape.position,
    feed_forward: shape.activation, bias: shape.bias ? "on" : "off", tied: shape.tied ? "on" : "off", dropout: shape.dropout, rope_base: shape.ropeBase, norm_eps: shape.normEps,
  };
}

export function isGated({ activation }: Pick<TransformerShape, "activation">): boolean {
  return activation === "swiglu" || activation === "geglu";
}

/** Width of a head. */
export function headWidth({ width, heads }: TransformerShape): number {
  return width / heads;
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
    const d = headWidth(shape);
    if (!Number.isInteger(d)) wrong.push(`${shape.heads} heads do not divide the width ${shape.width}`);
    else if (shape.position === "rope" && d % 2 !== 0) wrong.push(`rope needs heads of an even width, ${shape.width} / ${shape.heads} is ${d}`);
    if (shape.heads % shape.kvHeads !== 0) wrong.push(`${shape.heads} heads cannot share ${shape.kvHeads} kv heads evenly`);
    const largest = shape.width * Math.max(shape.vocabulary, shape.block, 3 * shape.width, (isGated(shape) ? 2 : 1) * shape.feedForward);
    if (largest > elements_max) wrong.push(`a tensor would have ${largest.toLocaleString("en-US")} elements, at most ${elements_max.toLocaleString("en-US")} are possible`);
  }
  if (!(shape.dropout >= 0 && shape.dropout < 1)) wrong.push(`dropout is ${shape.dropout}, expected 0 or more and less than 1`);
  if (!(shape.ropeBase > 0 && Number.isFinite(shape.ropeBase))) wrong.push(`ropeBase is ${shape.ropeBase}, expected a number above 0`);
  if (!(shape.normEps > 0 && shape.normEps < 1)) wrong.push(`normEps is ${shape.normEps}, expected a number above 0 and below 1`);
  if (wrong.length > 0) throw new EggError("usage", `[transformer] ${wrong.join("; ")}.`);
}

/** How many numbers such a model learns, counted without making it. */
export function transformerParameters(shape: TransformerShape): number {
  const { vocabulary, layers, width, heads, kvHeads, feedForward, block, bias } = shape;
  const d = headWidth(shape);
  const norm = width * (shape.norm === "layer" && bias ? 2 : 1);
  const linear = (inputs: number, outputs: number): number => outputs * (inputs + (bias ? 1 : 0));
  const attention = linear(width, (heads + 2 * kvHeads) * d) + linear(heads * d, width);
  const inner = linear(width, (isGated(shape) ? 2 : 1) * feedForward) + linear(feedForward, width);
  const tables = width * (vocabulary * (shape.tied ? 1 : 2) + (shape.position === "learned" ? block : 0));
  return tables + layers * (2 * norm + attention + inner) + norm;
}
