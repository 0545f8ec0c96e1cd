// Text to token ids and back: the three kinds of tokenizer behind one face. Their work is in characters.ts and bpe.ts.
// Not about reading or cutting text: corpus.ts and streams.ts do that. Read next: tokens.ts, a whole text as ids.

import { readFileSync, statSync } from "node:fs";
import { nearest } from "../config/nearest.ts";
import { EggError } from "../errors.ts";
import { BpeCodec, type BpeTables } from "./bpe.ts";
import { trainBpe } from "./bpe-train.ts";
import { CharacterCodec, symbolsOf } from "./characters.ts";
import type { Corpus } from "./corpus.ts";
import { readTokenizerFile, readTokenizerJson, writeTokenizerJson } from "./huggingface.ts";
import { safeCut } from "./pretokenize.ts";
import { illFormed, symbolLimit, wholeCharacters } from "./utf8.ts";

export interface Tokenizer {
  readonly kind: "bytes" | "characters" | "bpe";
  /** For people: "bytes", "characters (65)", "bpe (4,096)". */
  readonly name: string;
  /** Ids are 0 .. vocabulary-1. */
  readonly vocabulary: number;
  /** Text from which tokenizerFrom() makes an equal tokenizer: "bytes", or one line of JSON. Equal tokenizers have equal ones. */
  readonly definition: string;
  /** SHA-256 of the definition, 64 hex digits. */
  readonly hash: string;
  /** The id that ends a document, where the tokenizer has one. */
  readonly endOfText: number | null;
  /** Bytes of the text that each id stands for, (vocabulary): losses per token become bits per byte. */
  readonly lengths: Uint16Array;
  /**
   * Token ids of a text, given as its bytes; any bytes, except that "characters" throws EggError("data") for what its vocabulary lacks.
   * `offset` is where the text begins, 0 by default: above that it goes on from an earlier part, which ended at a cut().
   */
  encode(text: Uint8Array, offset?: number): Uint32Array;
  /** The bytes of the text that the ids stand for; EggError("data") for an id that does not exist. */
  decode(ids: ArrayLike<number>): Uint8Array;
  /** The last place where a text, of which more follows, may be cut so that the ids of the parts are those of the whole; 0 where there is none. */
  cut(text: Uint8Array): number;
}

/** Texts that end a document in tokenizers in common use, the first of them that a tokenizer.json has. */
const endsOfText = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];
/** Larger files than this are no tokenizers. */
const mostBytes = 256 * 2 ** 20;

/** Every byte is its own id; byte 0 separates documents. Any text in any encoding passes through unchanged. */
const bytes: Tokenizer = {
  kind: "bytes",
  name: "bytes",
  vocabulary: 256,
  definition: "bytes",
  hash: sha256("bytes"),
  endOfText: null,
  lengths: new Uint16Array(256).fill(1),
  encode: (text) => Uint32Array.from(text),
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
  cut: (text) => text.length,
};

/** The tokenizer of a definition, as a checkpoint or a token file holds it. @throws EggError("corrupt") for what is none */
export function tokenizerFrom(definition: string): Tokenizer {
  if (definition === "bytes") return bytes;
  const shown = definition.length > 40 ? `${definition.slice(0, 37)}...` : definition;
  let cause: unknown;
  try {
    const parsed = JSON.parse(definition) as { characters?: unknown; bytes?: unknown };
    if (parsed !== null && typeof parsed === "object" && "characters" in parsed) {
      const symbols = symbolsFrom(parsed.characters, parsed.bytes);
      if (symbols !== null) return charactersOf(symbols);
    } else return bpeTokenizer(readTokenizerJson(definition, "its definition"));
  } catch (error) {
    cause = error;
  }
  const why = cause instanceof EggError ? ` (${cause.message.replace(/^\[tokenizer\] /, "").replace(/\.$/, "")})` : "";
  throw new EggError("corrupt", `[tokenizer] a saved definition is damaged, or of a later version of egg: ${JSON.stringify(shown)}${why}.`, { cause });
}

/**
 * The tokenizer that data.tokenizer asks for: "bytes"; "characters", whose vocabulary is all characters of `text`; "bpe:N", trained on
 * `text` up to N ids; or the path of a tokenizer.json. For a token file the tokenizer is the one that made it, where that is of the kind asked for.
 * @throws EggError("data") where there is no such file, or none that egg can use
 */
export function openTokenizer(word: string, text: Corpus | null): Tokenizer {
  if (word === "bytes") return bytes;
  const trained = /^bpe:(\d+)$/.exec(word);
  if (word === "characters" || trained !== null) {
    if (text === null) throw new EggError("usage", `[tokenizer] ${word}: made from a text, and none is given.`, { hint: "Name the text too." });
    if (text.tokenFile === undefined) return trained === null ? charactersOf(symbolsOf(text)) : bpeTokenizer(trainBpe(text, Number(trained[1]), "").tables);
    const own = tokenizerFrom(text.tokenFile.definition);
    if (own.kind === (trained === null ? "characters" : "bpe")) return own;
    throw new EggError("data", `[data] ${text.name}: its tokens are of the tokenizer ${own.name}, asked for is "${word}".`, {
      hint: own.kind === "bytes" ? 'Ask for "bytes".' : "Name the tokenizer.json that the file was made with.",
    });
  }
  const read = readTokenizerFile(readFile(word), word);
  return read instanceof Int32Array ? charactersOf(read) : bpeTokenizer(read);
}

/** Whether data.tokenizer asks for a vocabulary that is made from the text. */
export function isMadeFromText(word: string): boolean {
  return word === "characters" || /^bpe:\d+$/.test(word);
}

/** What a run's tokens depend on besides its text and the word in its config: the content of a tokenizer.json. "" where there is none. */
export function tokenizerContent(word: string): string {
  return word === "bytes" || isMadeFromText(word) ? "" : sha256(readFile(word));
}

/** A tokenizer by its tables. */
export function bpeTokenizer(tables: BpeTables): Tokenizer {
  const codec = new BpeCodec(tables);
  const definition = writeTokenizerJson(tables, false);
  return {
    kind: "bpe",
    name: `bpe (${codec.vocabulary.toLocaleString("en-US")})`,
    vocabulary: codec.vocabulary,
    definition,
    hash: sha256(definition),
    endOfText: endsOfText.map((end) => tables.added.find(({ content }) => content === end)?.id).find((id) => id !== undefined) ?? null,
    lengths: codec.lengths,
    encode: (text, offset = 0) => codec.encode(text, offset > 0),
    decode: (ids) => codec.decode(ids),
    cut: (text) => codec.cut(text, safeCut),
  };
}

function charactersOf(symbols: Int32Array): Tokenizer {
  const codec = new CharacterCodec(symbols);
  const characters = Array.from(symbols.filter((symbol) => symbol < illFormed), (symbol) => String.fromCodePoint(symbol)).join("");
  const definition = JSON.stringify({ characters, bytes: Array.from(symbols.filter((symbol) => symbol >= illFormed), (symbol) => symbol - illFormed) });
  return {
    kind: "characters",
    name: `characters (${symbols.length.toLocaleString("en-US")})`,
    vocabulary: symbols.length,
    definition,
    hash: sha256(definition),
    endOfText: null,
    lengths: codec.lengths,
    encode: (text, offset = 0) => codec.encode(text, offset),
    decode: (ids) => codec.decode(ids),
    cut: wholeCharacters,
  };
}

/** The symbols of a saved definition; null unless they are such as charactersOf() saves. */
function symbolsFrom(characters: unknown, single: unknown): Int32Array | null {
  if (typeof characters !== "string" || !Array.isArray(single)) return null;
  const symbols = [...Array.from(characters, (character) => character.codePointAt(0)!), ...single.map((byte) => illFormed + Number(byte))];
  const good = (symbol: number, i: number): boolean =>
    Number.isInteger(symbol) && symbol < symbolLimit && !(symbol >= 0xd800 && symbol < 0xe000) && (i === 0 || symbol > symbols[i - 1]!);
  return symbols.length > 0 && symbols.every(good) ? Int32Array.from(symbols) : null;
}

function readFile(path: string): string {
  const near = nearest(path, ["bytes", "characters"]);
  const hint = `A tokenizer is bytes, characters, bpe:N, or the path of a tokenizer.json${near === undefined ? "" : `; did you mean ${near}?`}`;
  let content: Buffer;
  try {
    const stats = statSync(path);
    if (!stats.isFile() || stats.size > mostBytes) {
      const found = stats.isFile() ? `a file of ${stats.size.toLocaleString("en-US")} bytes, too large for one` : stats.isDirectory() ? "a folder" : "no plain file";
      throw new EggError("data", `[tokenizer] ${path}: it is ${found}.`, { hint });
    }
    content = readFileSync(path);
  } catch (cause) {
    if (cause instanceof EggError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" || code === "ENOTDIR" ? "there is no such file" : code === "EACCES" ? "no permission to read it" : message;
    throw new EggError("data", `[tokenizer] ${path}: ${why}.`, { hint, cause });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(content);
  } catch (cause) {
    throw new EggError("data", `[tokenizer] ${path}: it is no text, and so no tokenizer.json.`, { hint, cause });
  }
}

function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
