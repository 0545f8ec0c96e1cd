// What a text consists of, counted: its bytes, characters, lines and documents. For `egg data info`.
// Not its entropy and not its tokens. Reads any length in little memory, see chunks.ts.

import { chunksOf } from "./chunks.ts";
import type { Corpus } from "./corpus.ts";
import { characterAt, illFormed, symbolLimit, wholeCharacters } from "./utf8.ts";

export interface TextFacts {
  bytes: number;
  /** Without ill-formed bytes. */
  characters: number;
  distinctCharacters: number;
  /** Bytes that belong to no well-formed UTF-8 character. */
  illFormedBytes: number;
  distinctBytes: number;
  /** Line ends, and a last line without one. */
  lines: number;
  /** Parts between bytes 0, empty ones left out. */
  documents: number;
}

/** Reads all of the text; `progress` is told how many bytes are read. */
export function factsOf(corpus: Corpus, progress: (bytes: number) => void = () => {}): TextFacts {
  const symbols = new Float64Array(symbolLimit);
  const bytes = new Float64Array(256);
  let documents = 0;
  let last = 0;
  for (const { text, at } of chunksOf(corpus, wholeCharacters)) {
    for (let i = 0; i < text.length; ) {
      const character = characterAt(text, i, text.length);
      symbols[character >>> 3]!++;
      for (const stop = i + (character & 7); i < stop; i++) {
        const byte = text[i]!;
        bytes[byte]!++;
        if (last === 0 && byte !== 0) documents++;
        last = byte;
      }
    }
    progress(at + text.length);
  }
  const sum = (part: Float64Array): number => part.reduce((total, count) => total + count, 0);
  const distinct = (part: Float64Array): number => part.reduce((total, count) => total + (count > 0 ? 1 : 0), 0);
  const proper = symbols.subarray(0, illFormed);
  return {
    bytes: corpus.bytes,
    characters: sum(proper),
    distinctCharacters: distinct(proper),
    illFormedBytes: sum(symbols.subarray(illFormed)),
    distinctBytes: distinct(bytes),
    lines: bytes[10]! + (last === 10 ? 0 : 1),
    documents,
  };
}
