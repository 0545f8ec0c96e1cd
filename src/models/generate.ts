// Writing text with a trained model: read the prompt, then sample token after token. Not the sampling rule
// (sampling.ts) and not the screen (src/report/text.ts). Read next: src/commands/generate.ts.
import { NativeEvaluator, type NativeModel } from "../native/int8.ts";
import { sampleToken, seededRandom, type SamplingOptions } from "./sampling.ts";

/** Logits of the int8 models are in 1/16 bit: the probability of a token goes with 2^(logit/16). */
const logitUnit = 1 / 16;
/** What an empty prompt stands for: the beginning of a line. */
const emptyPrompt = new Uint8Array([10]);

/** Sampling runs on the thread that hears signals: it stands aside this often. */
const slice_ms = 25;

/** At most `count` tokens, one after the other, while the event loop stays alive. Null when cancelled. */
export async function collect(tokens: Iterable<number>, count: number, cancelled: () => boolean): Promise<Uint8Array | null> {
  const text = new Uint8Array(count);
  let length = 0;
  let turned = performance.now();
  for (const token of tokens) {
    text[length++] = token;
    if (performance.now() - turned < slice_ms) continue;
    await new Promise((resume) => setImmediate(resume));
    turned = performance.now();
    if (cancelled()) return null;
  }
  return text;
}

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
