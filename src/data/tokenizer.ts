// Text to token ids and back. One tokenizer so far: bytes.
// Not about reading or cutting text: corpus.ts and streams.ts do that. Used by src/commands/trained.ts and src/learners/.

import { EggError } from "../errors.ts";

export interface Tokenizer {
  readonly name: string;
  /** How many ids there are: ids are 0 .. vocabulary-1. */
  readonly vocabulary: number;
  /** Token ids of a text, given as its bytes. */
  encode(text: Uint8Array): ArrayLike<number>;
  /** The bytes of the text that the ids stand for; EggError "data" for an id that does not exist. */
  decode(ids: ArrayLike<number>): Uint8Array;
}

/** Every byte is its own id; byte 0 separates documents. Any text in any encoding passes through unchanged. */
const bytes: Tokenizer = {
  name: "bytes",
  vocabulary: 256,
  encode: (text) => text,
  decode(ids) {
    const text = new Uint8Array(ids.length);
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (!(Number.isInteger(id) && id >= 0 && id < 256)) {
        throw new EggError("data", `[tokenizer] bytes: id ${id} at position ${i} does not exist; ids are 0 to 255.`);
      }
      text[i] = id;
    }
    return text;
  },
};

/** By the name in the config (data.tokenizer). */
export const tokenizers = { bytes } satisfies Record<string, Tokenizer>;
