// Functions over tensors, by PyTorch's names: what models and losses are made of. Stateless; layers with weights are in nn.ts.
// Not the operations themselves (ops-*.ts). Read next: nn.ts, program.ts.
import { EggError } from "../errors.ts";
import type { ActivationName } from "../native/instructions.ts";
import { beyond } from "./memory.ts";
import * as heads from "./ops-attention.ts";
import * as element from "./ops-elementwise.ts";
import * as model from "./ops-model.ts";
import { around, emitCopy } from "./ops-shape.ts";
import { quantizedCrossEntropy, quantizedEmbedding, quantizedLinear, QuantizedMatrix } from "./quantized.ts";
import { checkpoint as recompute, refuse } from "./tape.ts";
import { computeIn, computeType, run, Tensor, type Parameter } from "./tensor.ts";
import { bytesOf, sameShape } from "./value.ts";
import { asked } from "./varying.ts";

/** act(x w^T + b): x (..., in), w (out, in), b (out) -> (..., out). Int8 weights have no gradient, nor does x then. */
export function linear(x: Tensor, weight: Tensor | QuantizedMatrix, bias?: Tensor | null, activation: ActivationName = "none"): Tensor {
  if (weight instanceof QuantizedMatrix) return run(quantizedLinear, bias ? [x, bias] : [x], { weight, activation });
  return run(model.linear, bias ? [x, weight, bias] : [x, weight], { activation, compute: computeType() });
}

/**
 * Rows of a table: ids (...) i32, table (V, D) -> (..., D). An id out of range is an EggError("data") when it is run. A row's
 * gradient is added up in f32 in the order of ids, as PyTorch does on a CPU: near 1 % off where equal parts come a million times.
 */
export function embedding(ids: Tensor, table: Tensor | QuantizedMatrix): Tensor {
  if (table instanceof QuantizedMatrix) return run(quantizedEmbedding, [ids], { table });
  return run(model.embedding, [ids, table], null);
}

/**
 * x (B, T, D) plus rows start .. start + T of a table (room, D): learned positions.
 * @param start a function is asked at each run of a program
 * @throws EggError("usage") where a position is not in the table, also before a run
 */
export function addPositions(x: Tensor, table: Tensor, start: number | (() => number) = 0): Tensor {
  return run(model.addPositions, [x, table], { start: typeof start === "number" ? () => start : asked(start) });
}

/** (x - mean) / sqrt(variance + eps) * weight + bias over the last axis. */
export function layerNorm(x: Tensor, weight?: Tensor | null, bias?: Tensor | null, eps = 1e-5): Tensor {
  if (bias && !weight) throw new EggError("usage", "[tensor] layerNorm: a bias without a weight.");
  return run(model.norm, [x, weight, bias].filter((each) => each != null), { mode: "layer", eps, bias: bias != null });
}

/** x / sqrt(mean(x^2) + eps) * weight over the last axis. */
export function rmsNorm(x: Tensor, weight?: Tensor | null, eps = 1e-5): Tensor {
  return run(model.norm, weight ? [x, weight] : [x], { mode: "rms", eps, bias: false });
}

/** act(gate) * up. */
export function gated(gate: Tensor, up: Tensor, activation: ActivationName): Tensor {
  return run(element.activate, [gate, up], { activation });
}

/** silu(gate) * up. */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return gated(gate, up, "silu");
}

/** act(gate) * up, with gate and up side by side in each row: (..., 2n) -> (..., n). */
export function gatedPacked(x: Tensor, activation: ActivationName): Tensor {
  return run(element.gatedPacked, [x], { activation });
}

/** Zeroes each element with probability p and scales the others by 1 / (1 - p); only while training. */
export function dropout(x: Tensor, p: number, training: boolean): Tensor {
  return training && p !== 0 ? run(element.dropout, [x], { p, random: element.nextRandom() }) : x;
}

export type RopeSettings = Partial<heads.RopeOptions>;
const ropeOptions = ({ base = 10000, offset = 0, pairs = "interleaved", factor = 1, original = 0, low = 1, high = 4 }: RopeSettings): heads.RopeOptions => ({ base, offset, pairs, factor, original, low, high });

/** Rotary positions: x (B, T, H, d); position of x[:, t] is offset + t. */
export function rope(x: Tensor, settings: RopeSettings = {}): Tensor {
  return run(heads.rope, [x], ropeOptions(settings));
}

/**
 * Attention by head, without the matrix of scores: q (B, Tq, H, d), k and v (B, Tk, K, d) -> (B, Tq, H, d); query head i reads
 * kv head floor(i / (H / K)). causal: query t sees keys 0 .. t + Tk - Tq. scale: 1 / sqrt(d) where not given.
 * @param kvLength only that many keys count, of a cache with room for more
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: { causal?: boolean; scale?: number; kvLength?: number } = {}): Tensor {
  return run(heads.attention, [q, k, v], { causal: options.causal ?? true, scale: options.scale ?? null, kvLength: options.kvLength ?? null });
}

export interface PackedSettings { heads: number; kvHeads?: number; causal?: boolean; scale?: number; rope?: RopeSettings | null }
const packedOptions = ({ heads, kvHeads = heads, causal = true, scale, rope }: PackedSettings): heads.PackedOptions => ({ heads, kvHeads, causal, scale: scale ?? null, rope: rope ? ropeOptions(rope) : null });

/** Self-attention over packed rows [queries | keys | values] of all heads: (B, T, (H + 2K) d) -> (B, T, H d). */
export function attentionPacked(x: Tensor, options: PackedSettings): Tensor {
  return run(heads.attentionPacked, [x], packedOptions(options));
}

/**
 * attentionPacked where rows follow on those that keys and values (B, room, K, d) hold already: they get the new rows behind
 * `filled()` others, which is asked at each run of a program. No gradient.
 * @throws EggError("usage") where they have no room, also before a run
 */
export function attentionCached(x: Tensor, keys: Tensor, values: Tensor, filled: () => number, options: PackedSettings): Tensor {
  return run(heads.attentionCached, [x, keys, values], { ...packedOptions(options), filled: asked(filled) });
}

interface LossOptions { ignoreIndex?: number; reduction?: "mean" | "sum" }

function lossOptions(name: string, inputs: readonly Tensor[], { ignoreIndex = -100, reduction = "mean" }: LossOptions): { ignoreIndex: number; mean: boolean } {
  if (!Number.isInteger(ignoreIndex)) refuse(name, inputs, `ignoreIndex = ${ignoreIndex} is not a whole number`);
  if (reduction !== "mean" && reduction !== "sum") refuse(name, inputs, `reduction ${JSON.stringify(reduction)} is neither "mean" nor "sum"`);
  return { ignoreIndex, mean: reduction === "mean" };
}

/**
 * -log softmax(logits)[target], mean or sum over targets that are not ignoreIndex: logits (..., C), targets (...) i32 -> ().
 * 0 where all are (PyTorch's mean: NaN). A target that is no class is an EggError("data") when it is run.
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: LossOptions = {}): Tensor {
  return run(model.crossEntropy, [logits, targets], lossOptions("crossEntropy", [logits, targets], options));
}

/**
 * crossEntropy(linear(x, weight), targets) with at most `chunk` rows of logits at a time: x (..., D), weight (V, D).
 * @throws EggError("usage") where `chunk` is no whole number from 1
 */
export function linearCrossEntropy(x: Tensor, weight: Tensor | QuantizedMatrix, targets: Tensor, options: LossOptions & { chunk?: number } = {}): Tensor {
  // Rows enough that reading the weights once for each chunk counts little, few enough that logits take at most 64 MiB.
  const chunk = options.chunk ?? Math.max(64, Math.min(1024, Math.floor(2 ** 24 / Math.max(1, weight.shape[0] ?? 1) / 16) * 16));
  if (!Number.isInteger(chunk) || chunk < 1) refuse("linearCrossEntropy", [x, targets], `chunk = ${chunk} is not a whole number from 1`);
  const common = { ...lossOptions("linearCrossEntropy", [x, targets], options), chunk };
  if (weight instanceof QuantizedMatrix) return run(quantizedCrossEntropy, [x, targets], { ...common, weight });
  return run(model.linearCrossEntropy, [x, weight, targets], { ...common, compute: computeType() });
}

/** Mean of (a - b)^2. @throws EggError("usage") where the shapes are not the same: (n, 1) and (n) would spread to (n, n) */
export function mseLoss(a: Tensor, b: Tensor): Tensor {
  if (!sameShape(a.shape, b.shape)) refuse("mseLoss", [a, b], "both must have the same shape");
  return a.sub(b).square().mean();
}

/** destination.narrow(axis, start, n) = source, where n is source's size there. No gradient: for caches and other state. */
export function assign(destination: Parameter, axis: number, start: number, source: Tensor): void {
  const place = axis < 0 ? axis + destination.shape.length : axis;
  const length = source.shape[place];
  const room = destination.shape[place];
  const fits = length !== undefined && room !== undefined && Number.isInteger(start) && start >= 0 && start + length <= room &&
    destination.shape.length === source.shape.length && destination.shape.every((size, i) => i === place || size === source.shape[i]);
  if (destination.dtype !== source.dtype) refuse("assign", [destination, source], `${source.dtype} does not go into ${destination.dtype}`);
  if (!fits) refuse("assign", [destination, source], `the second does not fit into the first from ${start} of axis ${axis} on`);
  const whole = around(destination.shape, place);
  const at = beyond(destination.place("assign"), start * whole.inner * bytesOf(source.dtype));
  const width = length! * whole.inner;
  destination.changed();
  emitCopy(source.place("assign"), at, [whole.outer, width], [width, 1], [whole.axis * whole.inner, 1], source.dtype);
}

/** action(...inputs), keeping only inputs and result; backward computes the inside again. Parameters used inside get gradients. */
export function checkpoint(action: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  const compute = computeType(); // backward may be called outside computeIn
  return recompute((shape, dtype) => new Tensor(shape, dtype), (...inner: Tensor[]) => computeIn(compute, () => action(...inner)), inputs, (value) => {
    if (value.isPersistent || value.data !== null) return value as Tensor;
    const copy = (value as Tensor).detach();
    copy.requiresGrad = value.requiresGrad;
    return copy;
  });
}
