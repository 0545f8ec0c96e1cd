// Where each reader of the text stands at a given step: the batch cursors of egg.c and nano-egg, and the cut for evaluation.
// Not a state: every position follows from the step alone, so a resumed run reads exactly on. Text comes from corpus.ts.

import { EggError } from "../errors.ts";
import { type Corpus, requireLength } from "./corpus.ts";

/** Each stream of an evaluation reads at least this much where the text allows, so that few predictions lack context. */
const shortestStream = 64;

/**
 * Data offsets of all pairs at one step: (step*T + p*floor(n/P)) mod (n-T), as in preset egg.c. Pair p reads its stream
 * contiguously from step to step, until it wraps.
 *
 * `bytes` is n >= T+1: offsets lie in 0 .. n-T-1, and with its last target, at offset+T <= n-1, each pair stays inside.
 * Exact in doubles: step*T <= 1e9 * 2^20 < 2^50, p*floor(n/P) < n, and both sums stay below 2^53; beyond that it throws.
 */
export function pairOffsets(bytes: number, pairs: number, sequence: number, step: number): Float64Array {
  const start = cursor(bytes, sequence, step);
  const stride = Math.floor(bytes / pairs);
  const offsets = new Float64Array(pairs);
  for (let p = 0; p < pairs; p++) offsets[p] = (start + p * stride) % (bytes - sequence);
  return offsets;
}

/** Where preset egg.c evaluates at a step: the window of T inputs begins at (step*T) mod (n-T). */
export function referenceEvaluationStart(bytes: number, sequence: number, step: number): number {
  return cursor(bytes, sequence, step) % (bytes - sequence);
}

/**
 * Where the sequences of nano-egg begin at a step: the text is cut into as many equal rows, the rest dropped, and each row into
 * segments of T bytes, one a step, again from the first after the last: row * (segments*T + 1) + (step mod segments)*T, with
 * segments = floor((n - sequences) / (T*sequences)).
 */
export function segmentOffsets(bytes: number, sequences: number, sequence: number, step: number): Float64Array {
  const segments = Math.floor((bytes - sequences) / (sequence * sequences));
  if (segments < 1) throw new RangeError(`${sequences} sequences of ${sequence} need ${sequences * (sequence + 1)} bytes, not ${bytes}`);
  const within = (step % segments) * sequence;
  return Float64Array.from({ length: sequences }, (_, row) => row * (segments * sequence + 1) + within);
}

/** The rows in which nano-egg reads held-out text side by side; the rest is dropped. Null where there is less than 2 bytes for each. */
export function validationRows(bytes: number, rows: number): EvaluationStreams | null {
  const row = Math.floor(bytes / rows);
  if (row < 2) return null;
  return { offsets: Float64Array.from({ length: rows }, (_, i) => i * row), length: row - 1, predicted: rows * (row - 1) };
}

function cursor(bytes: number, sequence: number, step: number): number {
  if (bytes < sequence + 1) throw new RangeError(`a sequence of ${sequence} needs ${sequence + 1} bytes, not ${bytes}`);
  const start = sequence * step;
  if (start + bytes > Number.MAX_SAFE_INTEGER) throw new RangeError(`step ${step} of ${sequence} bytes is beyond exact arithmetic`);
  return start;
}

/**
 * Reads the batch: row p of `target` (pairs x (T+1) bytes) holds the bytes from offsets[p]. Inputs are its first T bytes,
 * targets its last T.
 */
export function fillBatch(corpus: Corpus, offsets: ArrayLike<number>, sequence: number, target: Uint8Array): void {
  const row = sequence + 1;
  if (target.length !== offsets.length * row) throw new RangeError(`a batch of ${offsets.length} x ${row} bytes, not ${target.length}`);
  for (let p = 0; p < offsets.length; p++) corpus.read(offsets[p]!, target.subarray(p * row, (p + 1) * row));
}

/** Throws EggError "data" unless the corpus is long enough for a sequence of `sequence` bytes and its last target. */
export function requireSequence(corpus: Corpus, sequence: number): void {
  requireLength(corpus, sequence + 1, `a sequence of ${sequence.toLocaleString("en-US")} bytes and its last target`, "trainer.sequence");
}

/** The same for sequences that each read a part of the text of their own. */
export function requireSequences(corpus: Corpus, sequences: number, sequence: number): void {
  const what = `${sequences.toLocaleString("en-US")} sequences of ${sequence.toLocaleString("en-US")} bytes, each with its last target`;
  requireLength(corpus, sequences * (sequence + 1), what, "trainer.population or trainer.sequence, or raise trainer.group_size");
}

export interface EvaluationStreams {
  /** First input of each stream. */
  readonly offsets: Float64Array;
  /** Inputs (and targets) per stream: stream i reads bytes offsets[i] .. offsets[i]+length, the last one only as a target. */
  readonly length: number;
  /** How many bytes all streams predict together: offsets.length * length, each a different byte of the text. */
  readonly predicted: number;
}

/**
 * Cuts `bytes` of held-out text into streams of equal length that are read side by side, evenly spread over the text where
 * `maxBytes` allows only part of it. No byte is predicted twice. Fewer streams than asked for where they would be shorter
 * than 64 bytes. EggError "data" where the text has fewer than 2 bytes.
 */
export function evaluationStreams(bytes: number, streams = 32, maxBytes = Infinity): EvaluationStreams {
  const predictable = bytes - 1; // nothing comes before the first byte
  const wanted = Math.min(predictable, maxBytes);
  if (!(streams >= 1 && maxBytes >= 1)) throw new RangeError(`evaluation of ${maxBytes} bytes in ${streams} streams`);
  if (wanted < 1) {
    throw new EggError("data", `[data] the held-out text: evaluation needs 2 bytes, found ${bytes}.`, {
      hint: "Give more text, or raise data.validation.",
    });
  }
  const count = Math.min(streams, Math.max(1, Math.floor(wanted / shortestStream)));
  const length = Math.floor(wanted / count);
  const apart = Math.floor(predictable / count);
  const offsets = Float64Array.from({ length: count }, (_, i) => i * apart);
  return { offsets, length, predicted: count * length };
}
