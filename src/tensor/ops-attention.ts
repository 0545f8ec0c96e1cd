// The op table, part four: rotary positions and attention, over separate q, k, v, over one packed tensor, or with a cache.
// Not the kernels (kernels/float/rope.zig, attention.zig). Read next: functional.ts, which calls them.
import { enums, type Operand, type Values } from "../native/instructions.ts";
import { emit } from "./device.ts";
import { beyond } from "./memory.ts";
import { needFloat } from "./ops-elementwise.ts";
import { emitCopy } from "./ops-shape.ts";
import { refuse, type Backward, type Forward, type Operation } from "./tape.ts";
import type { Value } from "./value.ts";
import { checkedAtRuns, varying, varyingPlace } from "./varying.ts";

/** How pairs turn, as Rope in kernels/float/ops.zig has it. */
export interface RopeOptions {
  base: number;
  offset: number;
  pairs: "interleaved" | "half";
  /** What frequencies are divided by: all of them where `original` is 0. */
  factor: number;
  /** In so many positions a pair turns `low` times or less to be divided by the whole factor, `high` times or more to be left alone. */
  original: number;
  low: number;
  high: number;
}

/** Strides of (batch, time, head), in elements. */
interface Strides { batch: number; time: number; head: number }

function emitRope(x: Operand, y: Operand, sizes: { batch: number; time: number; heads: number; d: number }, from: Strides, to: Strides, options: RopeOptions, sign: 1 | -1, accumulate = false): void {
  emit("rope", {
    x, y, ...sizes, x_batch: from.batch, x_time: from.time, x_head: from.head, y_batch: to.batch, y_time: to.time, y_head: to.head, ...options, sign, accumulate,
  });
}

const dense = (time: number, heads: number, d: number): Strides => ({ batch: time * heads * d, time: heads * d, head: d });

/** Refuses heads that have no pairs, and positions that are none. */
function checkRope(name: string, inputs: readonly Value[], d: number, { base, offset, pairs, factor, original, low, high }: RopeOptions): void {
  if (d % 2 !== 0) refuse(name, inputs, `rope needs an even d, found ${d}`);
  for (const [what, value] of Object.entries({ base, factor })) if (!(value > 0 && Number.isFinite(value))) refuse(name, inputs, `rope: ${what} = ${value} is not a number above 0`);
  if (!Number.isInteger(offset) || offset < 0) refuse(name, inputs, `rope: offset = ${offset} is not a whole number from 0`);
  if (!(original >= 0 && Number.isFinite(original))) refuse(name, inputs, `rope: original = ${original} is not a number from 0`);
  if (!(low >= 0 && low < high && Number.isFinite(high))) refuse(name, inputs, `rope: low = ${low} and high = ${high} are not two rising numbers from 0`);
  if (!enums.RopePairs.includes(pairs)) refuse(name, inputs, `rope: pairs ${JSON.stringify(pairs)} are not among ${enums.RopePairs.join(", ")}`);
}

/** Rotates pairs of x (B, T, H, d) by their position. */
export const rope: Operation<RopeOptions> = {
  name: "rope",
  shape(inputs, options) {
    needFloat("rope", inputs);
    const { shape } = inputs[0]!;
    if (shape.length !== 4 || shape[3]! % 2 !== 0) refuse("rope", inputs, "x must be (batch, time, heads, d) with an even d");
    checkRope("rope", inputs, shape[3]!, options);
    return shape;
  },
  forward(step) {
    const [batch, time, heads, d] = step.output.shape as [number, number, number, number];
    const strides = dense(time, heads, d);
    emitRope(step.at(0), step.y, { batch, time, heads, d }, strides, strides, step.attributes, 1);
  },
  backward(step) {
    const [batch, time, heads, d] = step.output.shape as [number, number, number, number];
    const strides = dense(time, heads, d);
    const { at, accumulate } = step.into(0);
    emitRope(step.dy, at, { batch, time, heads, d }, strides, strides, step.attributes, -1, accumulate);
  },
};

export interface AttentionOptions { causal: boolean; scale: number | null; kvLength: number | null }

function checkScale(name: string, inputs: readonly Value[], scale: number | null): void {
  if (scale !== null && !Number.isFinite(scale)) refuse(name, inputs, `scale = ${scale} is not a finite number`);
}

type Sizes = Pick<Values<"attention">, "batch" | "q_len" | "kv_len" | "heads" | "kv_heads" | "d">;

function attentionSizes(inputs: readonly Value[], { causal, scale, kvLength }: AttentionOptions): Sizes {
  const [q, k, v] = inputs as [Value, Value, Value];
  needFloat("attention", inputs);
  if (inputs.some((input) => input.shape.length !== 4)) refuse("attention", inputs, "q must be (batch, q_len, heads, d), k and v (batch, kv_len, kv_heads, d)");
  const [batch, q_len, heads, d] = q.shape as [number, number, number, number];
  const [kb, room, kv_heads, kd] = k.shape as [number, number, number, number];
  if (kb !== batch || kd !== d || k.shape.some((size, i) => size !== v.shape[i])) refuse("attention", inputs, "batch and d must agree, and k and v have the same shape");
  if (kv_heads === 0 || heads % kv_heads !== 0) refuse("attention", inputs, `${heads} query heads cannot share ${kv_heads} kv heads evenly`);
  const kv_len = kvLength ?? room;
  if (!Number.isInteger(kv_len) || kv_len < 0 || kv_len > room) refuse("attention", inputs, `kvLength = ${kv_len} is not a whole number of 0 .. ${room}, which k holds`);
  checkScale("attention", inputs, scale);
  if (causal && q_len > kv_len) refuse("attention", inputs, `${q_len} queries see ${kv_len} keys; causal attention needs at least as many keys`);
  return { batch, q_len, kv_len, heads, kv_heads, d };
}

function emitAttention(step: Forward<AttentionOptions> | Forward<PackedOptions>, q: Operand, k: Operand, v: Operand, sizes: Sizes, qs: Strides, ks: Strides, causal: boolean, scale: number | null): void {
  const { batch, q_len, heads, d } = sizes;
  const os = dense(q_len, heads, d);
  emit("attention", {
    q, k, v, o: step.y, lse: step.recording ? step.save("lse", 4 * batch * heads * q_len) : null, ...sizes, q_batch: qs.batch, q_time: qs.time, q_head: qs.head,
    k_batch: ks.batch, k_time: ks.time, k_head: ks.head, v_batch: ks.batch, v_time: ks.time, v_head: ks.head, o_batch: os.batch, o_time: os.time, o_head: os.head,
    causal, scale: scale ?? 1 / Math.sqrt(d),
  });
}

function emitAttentionBackward(
  step: Backward<AttentionOptions> | Backward<PackedOptions>, [q, k, v]: readonly Operand[], [dq, dk, dv]: readonly Operand[], sizes: Sizes, qs: Strides, ks: Strides, causal: boolean, scale: number | null, accumulate: boolean,
): void {
  const { q_len, heads, d } = sizes;
  const os = dense(q_len, heads, d);
  emit("attention_backward", {
    q, k, v, o: step.y, lse: step.saved("lse"), dout: step.dy, dq, dk, dv, ...sizes, q_batch: qs.batch, q_time: qs.time, q_head: qs.head,
    k_batch: ks.batch, k_time: ks.time, k_head: ks.head, v_batch: ks.batch, v_time: ks.time, v_head: ks.head, o_batch: os.batch, o_time: os.time, o_head: os.head,
    causal, scale: scale ?? 1 / Math.sqrt(d), accumulate,
  });
}

/** softmax(scale q k^T) v for each head: q (B, Tq, H, d), k and v (B, Tk, K, d) -> (B, Tq, H, d). */
export const attention: Operation<AttentionOptions> = {
  name: "attention",
  shape(inputs, options) {
    attentionSizes(inputs, options);
    return inputs[0]!.shape;
  },
  forward(step) {
    const sizes = attentionSizes(step.inputs, step.attributes);
    const { causal, scale } = step.attributes;
    const room = step.inputs[1]!.shape[1]!;
    emitAttention(step, step.at(0), step.at(1), step.at(2), sizes, dense(sizes.q_len, sizes.heads, sizes.d), dense(room, sizes.kv_heads, sizes.d), causal, scale);
  },
  backward(step) {
    const sizes = attentionSizes(step.inputs, step.attributes);
    const { causal, scale, kvLength } = step.attributes;
    const room = step.inputs[1]!.shape[1]!;
    step.write([0, 1, 2], (places) => {
      // Keys beyond kvLength have no part in it.
      if (kvLength !== null && kvLength < room) for (const at of places.slice(1)) emit("fill", { y: at, count: step.inputs[1]!.numel, value: 0 });
      emitAttentionBackward(step, [0, 1, 2].map((i) => step.at(i)), places, sizes, dense(sizes.q_len, sizes.heads, sizes.d), dense(room, sizes.kv_heads, sizes.d), causal, scale, false);
    });
  },
};

export interface PackedOptions { heads: number; kvHeads: number; causal: boolean; scale: number | null; rope: RopeOptions | null }

function packedSizes(inputs: readonly Value[], { heads, kvHeads, scale }: PackedOptions): Sizes & { width: number } {
  needFloat("attentionPacked", inputs);
  const { shape } = inputs[0]!;
  if (shape.length !== 3) refuse("attentionPacked", inputs, "x must have three axes, (batch, time, (heads + 2 kvHeads) d)");
  const width = shape[2]!;
  const d = width / (heads + 2 * kvHeads);
  if (!Number.isInteger(d)) refuse("attentionPacked", inputs, `x must be (batch, time, (heads + 2 kvHeads) d); ${heads} + 2 * ${kvHeads} heads do not divide ${width}`);
  checkScale("attentionPacked", inputs, scale);
  if (!Number.isInteger(kvHeads) || kvHeads < 1 || heads % kvHeads !== 0) refuse("attentionPacked", inputs, `${heads} query heads cannot share ${kvHeads} kv heads evenly`);
  return { batch: shape[0]!, q_len: shape[1]!, kv_len: shape[1]!, heads, kv_heads: kvHeads, d, width };
}

/** Where queries, keys and values begin in packed rows. */
function partsOf(at: Operand, { heads, kv_heads, d }: Sizes): [Operand, Operand, Operand] {
  return [at, beyond(at, 4 * heads * d), beyond(at, 4 * (heads + kv_heads) * d)];
}

/**
 * Self-attention over rows that hold all query heads, then all key heads, then all value heads: (B, T, (H + 2K) d) -> (B, T, H d).
 * With rope, queries and keys are rotated first, into memory of their own.
 */
export const attentionPacked: Operation<PackedOptions> = {
  name: "attentionPacked",
  shape(inputs, options) {
    const { batch, q_len, heads, d } = packedSizes(inputs, options);
    if (options.rope !== null) checkRope("attentionPacked", inputs, d, options.rope);
    return [batch, q_len, heads * d];
  },
  forward(step) {
    const { width, ...sizes } = packedSizes(step.inputs, step.attributes);
    const { causal, scale } = step.attributes;
    const strides = { batch: sizes.q_len * width, time: width, head: sizes.d };
    const run = (at: Operand): void => emitAttention(step, ...partsOf(at, sizes), sizes, strides, strides, causal, scale);
    if (step.attributes.rope === null) return run(step.at(0));
    const bytes = step.inputs[0]!.bytes;
    if (step.recording) return run(rotate(step, sizes, width, step.save("rotated", bytes)));
    step.temporary(bytes, (at) => run(rotate(step, sizes, width, at)));
  },
  backward(step) {
    const { width, ...sizes } = packedSizes(step.inputs, step.attributes);
    const { causal, scale, rope: positions } = step.attributes;
    const { batch, q_len: time, heads, kv_heads, d } = sizes;
    const strides = { batch: time * width, time: width, head: d };
    const from = partsOf(positions === null ? step.at(0) : step.saved("rotated"), sizes);
    step.write([0], ([dx]) => {
      emitAttentionBackward(step, from, partsOf(dx!, sizes), sizes, strides, strides, causal, scale, false);
      if (positions !== null) emitRope(dx!, dx!, { batch, time, heads: heads + kv_heads, d }, strides, strides, positions, -1);
    });
  },
};

/** Copies packed rows to `at`, queries and keys rotated. */
function rotate(step: Forward<PackedOptions>, { batch, q_len: time, heads, kv_heads, d }: Sizes, width: number, at: Operand): Operand {
  const strides = { batch: time * width, time: width, head: d };
  emitRope(step.at(0), at, { batch, time, heads: heads + kv_heads, d }, strides, strides, step.attributes.rope!, 1);
  const behind = 4 * (heads + kv_heads) * d;
  emitCopy(beyond(step.at(0), behind), beyond(at, behind), [batch * time, kv_heads * d], [width, 1], [width, 1], "f32");
  return at;
}

export interface CachedOptions extends PackedOptions {
  /** Positions that the cache holds before; asked for at each run of a captured program. */
  filled: () => number;
}

/** Refuses rows for which a cache has no room. */
function checkRoom(inputs: readonly Value[], { filled }: CachedOptions): void {
  const [x, keys] = inputs as [Value, Value];
  const before = filled();
  if (!Number.isInteger(before) || before < 0 || before + x.shape[1]! > keys.shape[1]!) {
    refuse("attentionCached", inputs, `${x.shape[1]} positions after ${before} do not fit the cache's ${keys.shape[1]}`);
  }
}

/**
 * attentionPacked for rows that follow on those in a cache: x (B, T, (H + 2K) d), keys and values (B, room, K, d), which get
 * the new rows at `filled`. No gradient.
 */
export const attentionCached: Operation<CachedOptions> = {
  name: "attentionCached",
  shape(inputs, options) {
    const { batch, q_len, heads, kv_heads, d } = packedSizes(inputs, options);
    if (options.rope !== null) checkRope("attentionCached", inputs, d, options.rope);
    const fits = inputs.slice(1).every(({ shape }) => shape.length === 4 && shape[0] === batch && shape[2] === kv_heads && shape[3] === d);
    if (!fits) refuse("attentionCached", inputs, `keys and values must be (${batch}, room, ${kv_heads}, ${d})`);
    checkRoom(inputs, options);
    return [batch, q_len, heads * d];
  },
  forward(step) {
    const { width, ...sizes } = packedSizes(step.inputs, step.attributes);
    const { inputs, attributes } = step;
    const { filled, causal, scale, rope: positions } = attributes;
    checkedAtRuns(() => checkRoom(inputs, attributes));
    const { batch, q_len: time, heads, kv_heads, d } = sizes;
    const [packed, keys, values] = [step.at(0), step.at(1), step.at(2)];
    const [q, k, v] = partsOf(packed, sizes);
    const rows = { batch: time * width, time: width, head: d };
    const cache = dense(step.inputs[1]!.shape[1]!, kv_heads, d);
    const bytes = (): number => 4 * filled() * cache.time;
    const turned = (from: Operand, to: Operand, count: number, target: Strides): void => {
      emitRope(from, to, { batch, time, heads: count, d }, rows, target, { ...positions!, offset: filled() }, 1);
      varying("offset", filled);
    };
    const stored = (from: Operand, to: Operand): void => {
      emitCopy(from, beyond(to, bytes()), [batch, time, kv_heads * d], [rows.batch, rows.time, 1], [cache.batch, cache.time, 1], "f32");
    };
    if (positions === null) stored(k, keys);
    else turned(k, beyond(keys, bytes()), kv_heads, cache);
    varyingPlace("y", keys, bytes);
    stored(v, values);
    varyingPlace("y", values, bytes);
    const run = (from: Operand, strides: Strides): void => {
      emitAttention(step, from, keys, values, { ...sizes, kv_len: filled() + time }, strides, cache, causal, scale);
      varying("kv_len", () => filled() + time);
    };
    if (positions === null) return run(q, rows);
    step.temporary(4 * batch * time * heads * d, (at) => {
      turned(q, at, heads, dense(time, heads, d));
      run(at, dense(time, heads, d));
    });
  },
};
