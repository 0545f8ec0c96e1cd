// Writing text with a trained model: read the prompt, then sample token after token. Not the sampling rule
// (sampling.ts) and not the screen (src/report/text.ts). Read next: src/commands/generate.ts.
import { NativeEvaluator, type NativeModel } from "../native/int8.ts";
import { sampleToken, seededRandom, type SamplingOptions } from "./sampling.ts";

/** Logits of the int8 models are in 1/16 bit: the probability of a token goes with 2^(logit/16). */
const logitUnit = 1 / 16;
/** What an empty prompt stands for: the beginning of a line. */
const emptyPrompt = new Uint8Array([10]);

/** Continues a prompt from a zero state, one token at a time; the same seed gives the same tokens. */
export function* generate(model: NativeModel, prompt: Uint8Array, tokens: number, options: SamplingOptions, seed: number): Generator<number> {
  const reader = new NativeEvaluator(model, 1, 1);
  try {
    const random = seededRandom(seed);
    let logits = reader.feed(prompt.length === 0 ? emptyPrompt : prompt);
    for (let i = 0; i < tokens; i++) {
      const token = sampleToken(logits, logitUnit, options, random);
      yield token;
      if (i + 1 < tokens) logits = reader.feed(Uint8Array.of(token));
    }
  } finally {
    reader.release();
  }
}
