// GPT and Llama as one model with switches, and its one forward pass: training, evaluation and generation run the same lines,
// a cache and dropout being arguments. Pre-norm blocks: x += attention(norm x); x += feed-forward(norm x).
// Not the numbers of a shape (transformer-shape.ts), not checkpoints (transformer-names.ts). Read next: transformer-text.ts.
import { EggError } from "../errors.ts";
import { functional as F, named, nn, type Tensor } from "../tensor/egg.ts";
import { checkTransformerShape, isGated, type TransformerShape } from "./transformer-shape.ts";

/** Deviation of first weights; what ends on the residual stream has it divided by sqrt(2 layers), as GPT-2 does. */
const initial = 0.02;

export interface TransformerOptions {
  /** Keep only what goes from block to block for the backward pass, which computes the inside again: less memory, more time. */
  recompute?: boolean;
  /** Begin with zeros, for weights that are loaded next: drawing millions of numbers takes seconds. */
  empty?: boolean;
  /**
   * Weights that products read are int8 with a scale a row: a quarter of the memory, for weights that are loaded and used, not
   * trained. Of attention, feed-forward and head, the embedding being the head where they are tied; norms, biases, positions
   * and an embedding that is only looked up are f32.
   */
  int8?: boolean;
}

const norms = {
  layer: (shape: TransformerShape) => new nn.LayerNorm(shape.width, { eps: shape.normEps, bias: shape.bias }),
  rms: (shape: TransformerShape) => new nn.RMSNorm(shape.width, { eps: shape.normEps }),
};
const activations = { gelu: "gelu", relu: "relu", swiglu: "silu", geglu: "gelu" } as const;

const ropeOf = ({ ropeBase, ropePairs, ropeFactor, ropeOriginal, ropeLow, ropeHigh }: TransformerShape): nn.MultiHeadAttentionOptions["rope"] => ({
  base: ropeBase, pairs: ropePairs, factor: ropeFactor, original: ropeOriginal, low: ropeLow, high: ropeHigh,
});

class Block extends nn.Module {
  readonly norm1: nn.LayerNorm | nn.RMSNorm;
  readonly attention: nn.MultiHeadAttention;
  readonly norm2: nn.LayerNorm | nn.RMSNorm;
  readonly feedForward: nn.MLP;
  readonly #name: string;

  constructor(shape: TransformerShape, number: number, std: number, int8: boolean) {
    super();
    const { width, heads, kvHeads, headWidth, bias, dropout } = shape;
    const common = { bias, dropout, std, outStd: std / Math.sqrt(2 * shape.layers), int8 };
    this.norm1 = norms[shape.norm](shape);
    this.attention = new nn.MultiHeadAttention(width, heads, { ...common, kvHeads, headWidth, rope: shape.position === "rope" ? ropeOf(shape) : null });
    this.norm2 = norms[shape.norm](shape);
    this.feedForward = new nn.MLP(width, { ...common, hidden: shape.feedForward, activation: activations[shape.activation], gated: isGated(shape) });
    this.#name = `layer ${number}`;
  }

  override forward(x: Tensor, cache: nn.KeyValueCache | null): Tensor {
    const h = named(`${this.#name}/attention`, () => x.add(this.attention.forward(this.norm1.forward(x), cache)));
    return named(`${this.#name}/feed-forward`, () => h.add(this.feedForward.forward(this.norm2.forward(h))));
  }
}

export class Transformer extends nn.Module {
  readonly shape: TransformerShape;
  readonly embedding: nn.Embedding;
  /** Null but with learned positions. */
  readonly positions: nn.Embedding | null;
  readonly blocks: readonly Block[];
  readonly norm: nn.LayerNorm | nn.RMSNorm;
  /** Null where the head is the embedding. */
  readonly head: nn.Linear | null;
  readonly #recompute: boolean;

  /**
   * First weights N(0, 0.02) from manualSeed, norms 1, biases 0.
   * @throws EggError("usage") for a shape that does not fit together, EggError("resources") beyond the machine's memory
   */
  constructor(shape: TransformerShape, { recompute = false, empty = false, int8 = false }: TransformerOptions = {}) {
    super();
    checkTransformerShape(shape);
    this.shape = { ...shape };
    const std = empty ? 0 : initial;
    this.embedding = new nn.Embedding(shape.vocabulary, shape.width, { std, int8: int8 && shape.tied });
    this.positions = shape.position === "learned" ? new nn.Embedding(shape.block, shape.width, { std }) : null;
    this.blocks = Array.from({ length: shape.layers }, (_, i) => new Block(shape, i, std, int8));
    this.norm = norms[shape.norm](shape);
    this.head = shape.tied ? null : new nn.Linear(shape.width, shape.vocabulary, { bias: false, std, int8 });
    this.#recompute = recompute;
  }

  /** Caches for `hidden` and `logits`, one for each layer. */
  caches(batch: number, room: number): nn.KeyValueCache[] {
    return this.blocks.map(({ attention }) => attention.cache(batch, room));
  }

  /**
   * ids (B, T) i32 -> (B, T, width), after the last norm.
   * @param caches ids follow on what is in them; inside noGrad only
   * @throws EggError("usage") for more positions than a model with learned ones has
   */
  hidden(ids: Tensor, caches: readonly nn.KeyValueCache[] | null = null): Tensor {
    let h = this.embed(ids, caches);
    this.blocks.forEach((block, i) => {
      const inside = (x: Tensor): Tensor => block.forward(x, caches?.[i] ?? null);
      h = this.#recompute ? F.checkpoint(inside, h) : inside(h);
    });
    return named("norm", () => this.norm.forward(h));
  }

  /** What goes into the first block. */
  embed(ids: Tensor, caches: readonly nn.KeyValueCache[] | null = null): Tensor {
    if (ids.shape.length !== 2) throw new EggError("usage", `[transformer] ids (${ids.shape.join(", ")}): expected (batch, time).`);
    const room = this.positions === null ? Infinity : this.shape.block;
    const needed = caches?.[0]?.room ?? ids.shape[1]!;
    if (needed > room) throw new EggError("usage", `[transformer] ${needed.toLocaleString("en-US")} positions, this model has learned ${room.toLocaleString("en-US")}.`);
    return named("embedding", () => {
      const tokens = this.embedding.forward(ids);
      const filled = (): number => caches?.[0]?.length ?? 0;
      return F.dropout(this.positions === null ? tokens : F.addPositions(tokens, this.positions.weight, filled), this.shape.dropout, this.training);
    });
  }

  /**
   * Cross-entropy in nats: ids and targets (B, T) i32 -> (). Never holds all logits.
   * @param options.ignoreIndex targets that do not count; -100
   * @param options.reduction "mean" over the targets that count, or "sum"
   */
  loss(ids: Tensor, targets: Tensor, options: { ignoreIndex?: number; reduction?: "mean" | "sum" } = {}): Tensor {
    const h = this.hidden(ids);
    return named("head", () => F.linearCrossEntropy(h, this.headWeight, targets, options));
  }

  /**
   * ids (B, T) -> (B, T, vocabulary), or (B, 1, vocabulary) of the last position.
   * @param caches as for `hidden`
   */
  logits(ids: Tensor, caches: readonly nn.KeyValueCache[] | null = null, { last = false }: { last?: boolean } = {}): Tensor {
    const h = this.hidden(ids, caches);
    return named("head", () => F.linear(last ? h.narrow(1, h.shape[1]! - 1, 1) : h, this.headWeight));
  }

  override forward(ids: Tensor, caches: readonly nn.KeyValueCache[] | null = null): Tensor {
    return this.logits(ids, caches);
  }

  get headWeight(): nn.Parameter | nn.QuantizedMatrix {
    const layer = this.head ?? this.embedding;
    return layer.int8 ?? layer.weight;
  }

  /** All weights by name: the parameters, and the matrices that are int8. */
  namedWeights(): [string, nn.Parameter | nn.QuantizedMatrix][] {
    const quantized = this.namedModules().flatMap(([name, module]): [string, nn.QuantizedMatrix][] =>
      (module instanceof nn.Linear || module instanceof nn.Embedding) && module.int8 !== null ? [[`${name}.weight`, module.int8]] : []);
    return [...this.namedParameters(), ...quantized];
  }

  override release(): void {
    for (const [, weights] of this.namedWeights()) weights.release();
  }
}
