// Writing text with a trained model: read the prompt, then sample token after token. Not the sampling rule
// (sampling.ts) and not the screen (src/report/text.ts). Read next: src/commands/generate.ts.
import { NativeEvaluator, type NativeModel } from "../native/int8.ts";
import { Sampler, type SamplingOptions } from "./sampling.ts";

/** Logits of the int8 models are in 1/16 bit: the probability of a token goes with 2^(logit/16). */
const logitUnit = 1 / 16;
/** What an empty prompt stands for: the beginning of a line. */
const emptyPrompt = new Uint8Array([10]);

/** Sampling runs on the thread that hears signals: it stands aside this often. */
const slice_ms = 25;

/** The text of all tokens, one after the other, while the event loop stays alive. Null when cancelled. */
export async function collect(tokens: Iterable<Uint8Array>, cancelled: () => boolean): Promise<Uint8Array | null> {
  const text: Uint8Array[] = [];
  let turned = performance.now();
  for (const token of tokens) {
    text.push(token);
    if (performance.now() - turned < slice_ms) continue;
    await new Promise((resume) => setImmediate(resume));
    turned = performance.now();
    if (cancelled()) return null;
  }
  return Buffer.concat(text);
}

/** The text of tokens that are bytes. */
export function* inBytes(tokens: Iterable<number>): Generator<Uint8Array> {
  for (const token of tokens) yield Uint8Array.of(token);
}

/** Continues a prompt from a zero state, one token at a time; the same seed gives the same tokens. */
export function* generate(model: NativeModel, prompt: Uint8Array, tokens: number, options: SamplingOptions, seed: number): Generator<number> {
  const reader = new NativeEvaluator(model, 1, 1);
  try {
    const sampler = new Sampler(options, seed, logitUnit);
    const text = prompt.length === 0 ? emptyPrompt : prompt;
    sampler.read(text);
    let logits = reader.feed(text);
    for (let i = 0; i < tokens; i++) {
      const token = sampler.next(logits);
      yield token;
      if (i + 1 < tokens) logits = reader.feed(Uint8Array.of(token));
    }
  } finally {
    reader.release();
  }
}
