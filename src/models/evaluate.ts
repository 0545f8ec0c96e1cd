// The loss of a model on held-out text: exact softmax, clean weights, bits per byte. Not the training loss.
// The text is cut into streams of equal length that are read side by side, each from a zero state.
import type { Corpus } from "../data/corpus.ts";
import { evaluationStreams, type EvaluationStreams } from "../data/streams.ts";
import { NativeEvaluator, type NativeModel } from "../native/int8.ts";

export interface TextLoss {
  /** Exact softmax. */
  bitsPerByte: number;
  /** The integer loss of training, in bits per byte too: a little lower. */
  lossInteger?: number;
  /** Tokens that were predicted, and the bytes of text that they stand for. */
  tokens: number;
  bytes: number;
}

/** Streams read side by side: enough for every core's lanes, few enough that each is long. */
const streams = 64;
/** Tokens a stream that one native job reads; bounds memory and the time until a cancellation is heard. */
const windowTokens = 4096;

/** Memory that textLoss takes while it reads, in bytes: states, text, and for each thread the activations of 32 streams. */
export function textLossBytes(model: NativeModel, bytes: number, maxBytes: number, threads: number): number {
  if (bytes < 2) return 0;
  const { layers, hidden, vocabulary } = model;
  const { offsets, length } = evaluationStreams(bytes, streams, maxBytes);
  const window = Math.min(windowTokens, length);
  const panels = Math.min(threads, Math.ceil(offsets.length / 32));
  return offsets.length * (layers * hidden + 2 * window) + panels * 32 * (14 * hidden + layers * hidden + vocabulary);
}

/**
 * Reads at most `maxBytes` of the text. Null when cancelled.
 * @throws EggError("data") where the text is too short to predict anything
 */
export function textLoss(model: NativeModel, text: Corpus, maxBytes: number): Promise<TextLoss | null> {
  return streamLoss(model, text, evaluationStreams(text.bytes, streams, maxBytes));
}

/** Reads these streams of the text, side by side. Null when cancelled. */
export async function streamLoss(model: NativeModel, text: Corpus, { offsets, length }: EvaluationStreams): Promise<TextLoss | null> {
  const window = Math.min(windowTokens, length);
  const evaluator = new NativeEvaluator(model, offsets.length, window);
  try {
    let [tokens, bits, loss] = [0, 0, 0];
    for (let start = 0; start < length; start += window) {
      const count = Math.min(window, length - start);
      const bytes = new Uint8Array(offsets.length * (count + 1));
      offsets.forEach((offset, i) => text.read(offset + start, bytes.subarray(i * (count + 1), (i + 1) * (count + 1))));
      const result = await evaluator.evaluate(bytes, count);
      if (result === null) return null;
      tokens += result.tokens;
      bits += result.bits;
      loss += result.loss_sum;
    }
    return { bitsPerByte: bits / tokens, lossInteger: loss / 16 / tokens, tokens, bytes: tokens };
  } finally {
    evaluator.release();
  }
}
