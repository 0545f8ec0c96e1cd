// A vocabulary of single characters: those that a text has, in ascending order of their code points.
// Bytes that belong to no well-formed character are symbols of their own, behind the characters. Opened by tokenizer.ts.

import { EggError } from "../errors.ts";
import { chunksOf } from "./chunks.ts";
import type { Corpus } from "./corpus.ts";
import { characterAt, illFormed, symbolLimit, wholeCharacters } from "./utf8.ts";

/** The distinct symbols (see utf8.ts) of all of the text, in ascending order. */
export function symbolsOf(corpus: Corpus): Int32Array {
  const seen = new Uint8Array(symbolLimit);
  for (const { text } of chunksOf(corpus, wholeCharacters)) {
    for (let at = 0; at < text.length; ) {
      const byte = text[at]!;
      if (byte < 0x80) {
        seen[byte] = 1;
        at++;
      } else {
        const character = characterAt(text, at, text.length);
        seen[character >>> 3] = 1;
        at += character & 7;
      }
    }
  }
  return Int32Array.from([...seen.keys()].filter((symbol) => seen[symbol] === 1));
}

/** How a symbol is called in messages: ü (U+00FC), or byte 0xFF. */
function nameOf(symbol: number): string {
  if (symbol >= illFormed) return `byte 0x${(symbol - illFormed).toString(16).toUpperCase()}, which is not well-formed UTF-8`;
  const code = `U+${symbol.toString(16).toUpperCase().padStart(4, "0")}`;
  const character = String.fromCodePoint(symbol);
  return /^[\p{L}\p{N}\p{P}\p{S}]$/u.test(character) ? `"${character}" (${code})` : code;
}

export class CharacterCodec {
  readonly lengths: Uint16Array;
  readonly #ids = new Map<number, number>();
  readonly #asciiIds = new Int32Array(128).fill(-1);
  readonly #starts: Uint32Array;
  readonly #bytes: Uint8Array;

  /** `symbols` ascending, each once. */
  constructor(readonly symbols: Int32Array) {
    const texts = Array.from(symbols, (symbol) => (symbol >= illFormed ? Uint8Array.of(symbol - illFormed) : new TextEncoder().encode(String.fromCodePoint(symbol))));
    this.lengths = Uint16Array.from(texts, (text) => text.length);
    this.#starts = new Uint32Array(symbols.length);
    this.#bytes = new Uint8Array(this.lengths.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const [id, text] of texts.entries()) {
      this.#starts[id] = at;
      this.#bytes.set(text, at);
      at += text.length;
      if (symbols[id]! < 128) this.#asciiIds[symbols[id]!] = id;
      this.#ids.set(symbols[id]!, id);
    }
  }

  /** `offset`: where `text` begins in the whole, for the message. EggError "data" for a character that the vocabulary lacks. */
  encode(text: Uint8Array, offset: number): Uint32Array {
    const ids = new Uint32Array(text.length);
    let count = 0;
    for (let at = 0; at < text.length; ) {
      const byte = text[at]!;
      const known = byte < 0x80 ? this.#asciiIds[byte]! : -1;
      if (known >= 0) {
        ids[count++] = known;
        at++;
        continue;
      }
      const character = characterAt(text, at, text.length);
      const id = this.#ids.get(character >>> 3);
      if (id === undefined) {
        throw new EggError("data", `[tokenizer] characters: ${nameOf(character >>> 3)} at byte ${(offset + at).toLocaleString("en-US")} is not in the vocabulary of ${this.symbols.length.toLocaleString("en-US")} characters.`, {
          hint: "Only characters of the text that the vocabulary was made from can be used. The tokenizers bytes and bpe take any text.",
        });
      }
      ids[count++] = id;
      at += character & 7;
    }
    return ids.slice(0, count);
  }

  decode(ids: ArrayLike<number>): Uint8Array {
    let bytes = 0;
    for (let i = 0; i < ids.length; i++) {
      const length = this.lengths[ids[i]!];
      if (length === undefined) {
        throw new EggError("data", `[tokenizer] characters: id ${ids[i]} at position ${i} does not exist; ids are 0 to ${(this.symbols.length - 1).toLocaleString("en-US")}.`);
      }
      bytes += length;
    }
    const text = new Uint8Array(bytes);
    let at = 0;
    for (let i = 0; i < ids.length; i++) {
      const start = this.#starts[ids[i]!]!;
      const length = this.lengths[ids[i]!]!;
      for (let j = 0; j < length; j++) text[at++] = this.#bytes[start + j]!;
    }
    return text;
  }
}
