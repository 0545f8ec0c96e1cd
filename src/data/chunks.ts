// A corpus read from its beginning to its end in chunks of about a megabyte, cut where a tokenizer allows it.
// Not random access: Corpus.read. Used by tokens.ts, bpe-train.ts, characters.ts and src/commands/data.ts.

import { EggError } from "../errors.ts";
import type { Corpus } from "./corpus.ts";

/** A text without any place to cut within this many bytes is no text. */
const longest = 16 * 2 ** 20;

export interface Chunk {
  /** Good until the next chunk is asked for. */
  text: Uint8Array;
  /** Offset of its first byte in the corpus. */
  at: number;
}

/**
 * All of `corpus` in order. `cut` says how many bytes of a text, of which more follows, may be taken; 0 asks for more text.
 * EggError "data" where it finds no place to cut in 16 MiB.
 */
export function* chunksOf(corpus: Corpus, cut: (text: Uint8Array) => number, size = 2 ** 20): Generator<Chunk> {
  let buffer = new Uint8Array(Math.min(size, corpus.bytes));
  let held = 0;
  let at = 0;
  while (at < corpus.bytes) {
    const wanted = Math.min(buffer.length, corpus.bytes - at);
    corpus.read(at + held, buffer.subarray(held, wanted));
    const text = buffer.subarray(0, wanted);
    const taken = at + wanted === corpus.bytes ? wanted : cut(text);
    if (taken > 0) {
      yield { text: text.subarray(0, taken), at };
      held = wanted - taken;
      buffer.copyWithin(0, taken, wanted);
      at += taken;
    } else if (buffer.length >= longest) {
      throw new EggError("data", `[data] ${corpus.name}: no break between words within ${longest.toLocaleString("en-US")} bytes from byte ${at.toLocaleString("en-US")} on.`, {
        hint: 'This is no text that can be cut into words. For data of any kind use the tokenizer "bytes".',
      });
    } else {
      held = wanted;
      const larger = new Uint8Array(Math.min(buffer.length * 2, longest));
      larger.set(text);
      buffer = larger;
    }
  }
}
