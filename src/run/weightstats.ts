// What the int8 weights look like at an evaluation: the share that is as large as it can be, for metrics.jsonl, and with
// `egg train --debug-stats` figures of each tensor in debug-stats.jsonl. Nothing of it is needed to resume. Read next: loop.ts.
import fs from "node:fs";
import { bytesNow, piecesOf, type Bytes, type SavedTensor } from "../models/tensors.ts";
import { appendDurably, ioError } from "./files.ts";
import { readPlain } from "./reading.ts";

export const debugStatsName = "debug-stats.jsonl";

/** Bytes of weights that saturatedFraction looks at, about: of a larger model it takes samples all over. */
const sampleBytes = 32 << 20;
/** The largest magnitude of an int8 weight: -128 is never used. */
const limit = 127;

/** One tensor's int8 values. */
export interface TensorStats {
  /** Entropy of the values, 0..8 bits: 0 where all are equal. */
  entropy_bits: number;
  /** Root of the mean square. */
  rms: number;
  /** Shares of the values that are +-127, and that are 0. */
  saturated_fraction: number;
  zero_fraction: number;
}

function weightsOf(tensors: ReadonlyMap<string, SavedTensor>): [string, SavedTensor][] {
  return [...tensors].filter(([name, { dtype }]) => dtype === "I8" && !name.startsWith("state."));
}

/** How often each byte occurs (256): value v of an int8 is at v mod 256. */
function countBytes(pieces: readonly Bytes[]): Float64Array {
  const counts = new Float64Array(256);
  // Four neighbours count apart: equal ones, as the zeros mostly are, would have to wait for each other.
  const seen = Array.from({ length: 4 }, () => new Uint32Array(256)) as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];
  const [first, second, third, fourth] = seen;
  for (const piece of pieces) {
    const bytes = bytesNow(piece);
    const whole = bytes.length - (bytes.length % 4);
    for (const one of seen) one.fill(0); // a piece is below 4 GiB
    for (let i = 0; i < whole; i += 4) {
      first[bytes[i]!]!++;
      second[bytes[i + 1]!]!++;
      third[bytes[i + 2]!]!++;
      fourth[bytes[i + 3]!]!++;
    }
    for (let i = whole; i < bytes.length; i++) first[bytes[i]!]!++;
    for (const one of seen) for (let value = 0; value < 256; value++) counts[value]! += one[value]!;
  }
  return counts;
}

/** So many pieces at most that hold evenly spaced places of all their bytes; all where there is no need to choose. */
function spread(pieces: readonly Bytes[]): readonly Bytes[] {
  const total = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (total <= sampleBytes) return pieces;
  const places = Math.ceil(sampleBytes / Math.max(...pieces.map(({ byteLength }) => byteLength)));
  let start = 0;
  return pieces.filter(({ byteLength }) => {
    const [from, to] = [start, (start += byteLength)];
    return Math.ceil((to * places) / total - 0.5) > Math.ceil((from * places) / total - 0.5);
  });
}

/** Of the weights that are not 0, the share at +-127: those that training never came to are 0 and say nothing. 0 where all are 0, undefined where none is an int8. */
export function saturatedFraction(tensors: ReadonlyMap<string, SavedTensor>): number | undefined {
  if (weightsOf(tensors).length === 0) return undefined;
  const counts = countBytes(spread(weightsOf(tensors).flatMap(([, tensor]) => piecesOf(tensor))));
  const others = counts.reduce((sum, count) => sum + count, 0) - counts[0]!;
  return others === 0 ? 0 : (counts[limit]! + counts[256 - limit]!) / others;
}

/** Figures of each weight tensor, by name. */
export function tensorStats(tensors: ReadonlyMap<string, SavedTensor>): Record<string, TensorStats> {
  return Object.fromEntries(weightsOf(tensors).map(([name, tensor]) => [name, statsOf(countBytes(piecesOf(tensor)))]));
}

function statsOf(counts: Float64Array): TensorStats {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let [entropy, squares] = [0, 0];
  counts.forEach((count, byte) => {
    const share = count / total;
    if (count > 0) entropy -= share * Math.log2(share);
    squares += share * (byte < 128 ? byte : byte - 256) ** 2;
  });
  const round = (value: number): number => Number(value.toFixed(5)) + 0; // + 0 turns -0 into 0
  return { entropy_bits: round(entropy), rms: round(Math.sqrt(squares)), saturated_fraction: round((counts[limit]! + counts[256 - limit]!) / total), zero_fraction: round(counts[0]! / total) };
}

/** debug-stats.jsonl of a run: {"step", "tensors": {name: TensorStats}}, a line an evaluation, each step once. */
export class DebugStats {
  readonly #file: string;
  #last: number;

  /** Opens the file; what is there of steps after `step`, and a line without its end, is cut off. */
  constructor(file: string, step: number) {
    this.#file = file;
    const text = readPlain(file)?.toString("latin1") ?? "";
    const lines = [...text.matchAll(/^\{"step":(\d+),.*\n/gm)].map(({ 0: line, 1: number, index }) => ({ step: Number(number), end: index + line.length }));
    const kept = lines.findLast((line) => line.step <= step);
    this.#last = kept?.step ?? -1;
    try {
      if ((kept?.end ?? 0) < text.length) fs.truncateSync(file, kept?.end ?? 0);
    } catch (error) {
      throw ioError(error, "shorten", file);
    }
  }

  append(step: number, tensors: ReadonlyMap<string, SavedTensor>): void {
    if (step <= this.#last) return;
    appendDurably(this.#file, JSON.stringify({ step, tensors: tensorStats(tensors) }));
    this.#last = step;
  }
}
