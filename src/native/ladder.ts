// The plain levels of the ladder in the kernel library: loops to be read, and what they tell of themselves when they have run.
// Not the levels above them, which are ordinary instructions (float.ts). Read next: kernels/float/ladder.zig.
import { call, emptyRecord, pack, unpack } from "./abi.ts";

/** By their number in kernels/float/ladder.zig. */
export const plainLevels = { naive: 1, reordered: 2, blocked: 3, scores: 4, online: 5 } as const;

export type PlainLevel = keyof typeof plainLevels;

export interface LevelRun {
  /** The number that the code itself returned. */
  level: number;
  /** How often its inner loop began in one repeat. */
  inner: number;
  /** Of all repeats. */
  seconds: number;
}

/**
 * Runs a level on this thread and returns when it is done.
 * @param sizes a product (m, k) (k, n); or attention of m positions with heads of k, n = 0
 * @param data the operands one after the other: a, b, c, or q, k, v, o
 */
export function runLevel(level: PlainLevel, sizes: { m: number; n: number; k: number }, data: Float32Array, repeats: number): LevelRun {
  const result = emptyRecord("LadderResult");
  call("egg_ladder_run", [pack("LadderShape", { level: plainLevels[level], ...sizes, repeats, reserved: 0 }), data, data.byteLength, result]);
  const { level: ran, inner, seconds } = unpack("LadderResult", result);
  return { level: ran, inner, seconds };
}

/** Causal softmax of scores (time, time) in place, as the plain levels do it. */
export function softmaxRows(scores: Float32Array, time: number): void {
  call("egg_ladder_softmax", [scores, scores.byteLength, time]);
}
