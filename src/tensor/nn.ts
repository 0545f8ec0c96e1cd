// What networks are made of, as `nn`: layers in a row, the feed-forward block, and attention with heads that may share keys,
// rotary positions and a cache for generating one token after the other. Not the single layers: nn-layers.ts.
// Read next: nn-module.ts, functional.ts.
import { EggError } from "../errors.ts";
import type { ActivationName } from "../native/instructions.ts";
import { capturing } from "./device.ts";
import * as F from "./functional.ts";
import { Layer, Linear } from "./nn-layers.ts";
import { Module } from "./nn-module.ts";
import { isRecording } from "./tape.ts";
import { Parameter, type Tensor } from "./tensor.ts";

export { Activation, Dropout, Embedding, LayerNorm, RMSNorm } from "./nn-layers.ts";
export { QuantizedMatrix } from "./quantized.ts";
export { Layer, Linear, Module, Parameter };

/** One layer after the other. Names are places: "0.weight". */
export class Sequential extends Layer {
  readonly layers: readonly Layer[];

  constructor(...layers: Layer[]) {
    super();
    this.layers = layers;
  }

  protected override parts(): [string, Module][] {
    return this.layers.map((layer, i) => [`${i}`, layer]);
  }

  override forward(x: Tensor): Tensor {
    return this.layers.reduce((h, layer) => layer.forward(h), x);
  }
}

export interface MLPOptions {
  /** Width in between; 4 * inputs. */
  hidden?: number;
  /** As wide as the inputs. */
  outputs?: number;
  activation?: ActivationName;
  /** act(gate x) * up x in between: SwiGLU with "silu". */
  gated?: boolean;
  /** Without gates, yes. */
  bias?: boolean;
  dropout?: number;
  std?: number | undefined;
  /** Of the last weights where they end on a residual stream; `std`. */
  outStd?: number | undefined;
  /** Weights are int8, to be loaded and used (LinearOptions). */
  int8?: boolean | undefined;
}

/** down(act(up x)), or gated down(act(gate x) * up x), whose `up.weight` holds the rows of gate, then those of up. */
export class MLP extends Layer {
  readonly up: Linear;
  readonly down: Linear;
  readonly #gate: ActivationName | null;
  readonly #p: number;

  constructor(inputs: number, options: MLPOptions = {}) {
    super();
    const { hidden = 4 * inputs, outputs = inputs, activation = "gelu", gated = false, bias = !gated, dropout = 0, std, outStd = std, int8 } = options;
    this.up = new Linear(inputs, gated ? 2 * hidden : hidden, { bias, activation: gated ? "none" : activation, std, int8 });
    this.down = new Linear(hidden, outputs, { bias, std: outStd, int8 });
    this.#gate = gated ? activation : null;
    this.#p = dropout;
  }

  override forward(x: Tensor): Tensor {
    const h = this.up.forward(x);
    const y = this.down.forward(this.#gate === null ? h : F.gatedPacked(h, this.#gate));
    return F.dropout(y, this.#p, this.training);
  }
}

export interface MultiHeadAttentionOptions {
  /** Heads that keys and values have; query head i reads kv head floor(i / (heads / kvHeads)). As many as heads. */
  kvHeads?: number;
  /** Width of a head; width / heads. */
  headWidth?: number;
  bias?: boolean;
  causal?: boolean;
  /** Rotary positions; {} for the usual ones. None where not given. */
  rope?: Omit<F.RopeSettings, "offset"> | null;
  /** Of the output, while training. */
  dropout?: number;
  std?: number | undefined;
  /** Of the output's weights, where they end on a residual stream; `std`. */
  outStd?: number | undefined;
  /** Weights are int8, to be loaded and used (LinearOptions). */
  int8?: boolean | undefined;
}

/** Keys and values of what was read so far, (batch, room, kvHeads, headWidth) each, in native memory until `release`. */
export class KeyValueCache {
  readonly keys: Parameter;
  readonly values: Parameter;
  /** Positions that are filled. */
  length = 0;

  constructor(batch: number, room: number, kvHeads: number, headWidth: number) {
    this.keys = new Parameter(null, [batch, room, kvHeads, headWidth], { requiresGrad: false });
    this.values = new Parameter(null, [batch, room, kvHeads, headWidth], { requiresGrad: false });
  }

  /** Positions that fit. */
  get room(): number {
    return this.keys.shape[1]!;
  }

  /** Starts a new text, or (with `length`) goes back to an earlier place of this one. */
  rewind(length = 0): void {
    if (!Number.isInteger(length) || length < 0 || length > this.length) throw new EggError("usage", `[nn] KeyValueCache: cannot go back to ${length}; ${this.length} positions are filled.`);
    this.length = length;
  }

  /** @throws EggError("usage") where `count` positions more do not fit */
  check(count: number): void {
    if (this.length + count > this.room) throw new EggError("usage", `[nn] KeyValueCache: ${count} positions after ${this.length} do not fit the cache's ${this.room}.`);
  }

  /** Counts positions as filled: now, or after each run of the program that is being captured. */
  advance(count: number): void {
    const recorder = capturing();
    if (recorder === null) this.length += count;
    else recorder.aroundRun(() => this.check(count), () => (this.length += count));
  }

  release(): void {
    this.keys.release();
    this.values.release();
  }
}

/**
 * Self-attention, causal unless said otherwise: x (batch, time, width) -> (batch, time, width). `qkv.weight` holds the rows of
 * all query heads, then all keys, then all values.
 */
export class MultiHeadAttention extends Module {
  readonly qkv: Linear;
  readonly out: Linear;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headWidth: number;
  readonly #causal: boolean;
  readonly #rope: F.RopeSettings | null;
  readonly #p: number;

  /** @throws EggError("usage") where heads do not divide the width, or kvHeads the heads */
  constructor(width: number, heads: number, options: MultiHeadAttentionOptions = {}) {
    super();
    const { kvHeads = heads, headWidth = width / heads, bias = true, causal = true, rope = null, dropout = 0, std, outStd = std, int8 } = options;
    if (!Number.isInteger(headWidth) || headWidth < 1) throw new EggError("usage", `[nn] MultiHeadAttention: ${heads} heads do not divide the width ${width}.`, { hint: "Give headWidth, or other heads." });
    if (!Number.isInteger(kvHeads) || kvHeads < 1 || heads % kvHeads !== 0) throw new EggError("usage", `[nn] MultiHeadAttention: ${heads} heads cannot share ${kvHeads} kv heads evenly.`);
    if (rope !== null && headWidth % 2 !== 0) throw new EggError("usage", `[nn] MultiHeadAttention: rotary positions need heads of an even width, found ${headWidth}.`);
    this.qkv = new Linear(width, (heads + 2 * kvHeads) * headWidth, { bias, std, int8 });
    this.out = new Linear(heads * headWidth, width, { bias, std: outStd, int8 });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.headWidth = headWidth;
    this.#causal = causal;
    this.#rope = rope;
    this.#p = dropout;
  }

  /** A cache for this layer. */
  cache(batch: number, room: number): KeyValueCache {
    return new KeyValueCache(batch, room, this.kvHeads, this.headWidth);
  }

  /**
   * @param cache x is what follows on the positions in it; it is filled up. Inside noGrad only.
   * @throws EggError("usage") where the cache has no room, or is used while gradients are recorded
   */
  override forward(x: Tensor, cache: KeyValueCache | null = null): Tensor {
    const { heads, kvHeads } = this;
    const settings = { heads, kvHeads, causal: this.#causal, rope: this.#rope };
    const packed = this.qkv.forward(x);
    const mixed = cache === null ? F.attentionPacked(packed, settings) : this.#cached(packed, cache, settings);
    return F.dropout(this.out.forward(mixed), this.#p, this.training);
  }

  #cached(packed: Tensor, cache: KeyValueCache, settings: F.PackedSettings): Tensor {
    if (isRecording()) throw new EggError("usage", "[nn] MultiHeadAttention: a cache has no gradients.", { hint: "Generate inside noGrad(() => ...)." });
    const time = packed.shape[1]!;
    cache.check(time);
    const mixed = F.attentionCached(packed, cache.keys, cache.values, () => cache.length, settings);
    cache.advance(time);
    return mixed;
  }
}
