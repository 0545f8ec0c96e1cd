// Writing text with a recurrent model: read what is new of a text, then sample token after token. Not the sampling rule
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

/** A text that the recurrent model reads from a zero state and continues, again and again as it grows. */
export class RecurrentConversation {
  /** Tokens that were read before the first one was written, the last time. */
  read = 0;
  readonly #model: NativeModel;
  /** The last text, and the state behind it. */
  #text: Uint8Array = new Uint8Array(0);
  #states: Uint8Array = new Uint8Array(0);

  constructor(model: NativeModel) {
    this.#model = model;
  }

  /**
   * Continues a text, one byte after the other; the same seed gives the same bytes. Where the text begins with the last one, only what
   * follows is read: the answer to that too, of which not all need stand in the text.
   */
  *generate(text: Uint8Array, tokens: number, options: SamplingOptions, seed: number): Generator<Uint8Array> {
    const reader = new NativeEvaluator(this.#model, 1, 1);
    try {
      const sampler = new Sampler(options, seed, logitUnit);
      const all = text.length === 0 ? emptyPrompt : text.slice();
      const known = this.#text.length;
      const grown = known > 0 && known < all.length && Buffer.compare(all.subarray(0, known), this.#text) === 0;
      const added = all.subarray(grown ? known : 0);
      if (grown) reader.writeStates(this.#states);
      sampler.read(all);
      let logits = reader.feed(added);
      this.read = added.length;
      this.#text = all;
      this.#states = reader.readStates();
      for (let i = 0; i < tokens; i++) {
        const token = Uint8Array.of(sampler.next(logits));
        yield token;
        if (i + 1 < tokens) logits = reader.feed(token);
      }
    } finally {
      reader.release();
    }
  }
}
