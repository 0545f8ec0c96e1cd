// Cutting a text into pieces that no merge of a BPE tokenizer crosses: words with the space before them, numbers, punctuation, gaps.
// The patterns are regular expressions; scanned by hand here, on bytes, since that is faster and keeps ill-formed bytes.
// Not the merging: bpe.ts, bpe-train.ts. Oracle: tests/bpe.test.ts runs the expressions themselves.

import { characterAt, characterBefore, classOf, digit, letter, other, space } from "./utf8.ts";

/** The patterns as the Hugging Face format writes them; \s is Unicode's White_Space. */
export const patterns = {
  gpt2: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  llama3: "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  qwen2: "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
} as const;

export type Pattern = keyof typeof patterns;

/** Where the piece ends that begins at `at`; the text ends at `end`. at < result <= end. */
export type PieceEnd = (text: Uint8Array, at: number, end: number) => number;

export const scanners: Record<Pattern, PieceEnd> = {
  gpt2: gpt2End,
  llama3: (text, at, end) => llamaEnd(text, at, end, 3),
  qwen2: (text, at, end) => llamaEnd(text, at, end, 1),
};

const manyBytes = 4;
const classOfByte = Uint8Array.from({ length: 256 }, (_, byte) => (byte < 0x80 ? classOf(byte) : manyBytes));

function classAt(text: Uint8Array, at: number, end: number): number {
  const known = classOfByte[text[at]!]!;
  return known === manyBytes ? classOf(characterAt(text, at, end) >>> 3) : known;
}

/** The end of the run of characters of one class. */
function runEnd(text: Uint8Array, at: number, end: number, wanted: number): number {
  while (at < end) {
    const known = classOfByte[text[at]!]!;
    if (known === wanted) at++;
    else if (known !== manyBytes) break;
    else {
      const character = characterAt(text, at, end);
      if (classOf(character >>> 3) !== wanted) break;
      at += character & 7;
    }
  }
  return at;
}

const lower = (byte: number | undefined): number => (byte! >= 0x41 && byte! <= 0x5a ? byte! + 32 : (byte ?? 0));

/** The length of 's 't 're 've 'm 'll 'd at an apostrophe; 0 where none of them stands there. */
function contraction(text: Uint8Array, at: number, end: number, anyCase: boolean): number {
  let first = at + 1 < end ? text[at + 1]! : 0;
  let second = at + 2 < end ? text[at + 2]! : 0;
  if (anyCase) {
    if (first === 0xc5 && second === 0xbf) return 3; // the long s is an s where case does not count
    first = lower(first);
    second = lower(second);
  }
  if (first === 0x73 || first === 0x74 || first === 0x6d || first === 0x64) return 2;
  if ((first === 0x72 || first === 0x76) && second === 0x65) return 3;
  return first === 0x6c && second === 0x6c ? 3 : 0;
}

function gpt2End(text: Uint8Array, at: number, end: number): number {
  const byte = text[at]!;
  if (byte === 0x20) {
    if (at + 1 === end) return end;
    const next = classAt(text, at + 1, end);
    return next === space ? gapEnd(text, at, end) : runEnd(text, at + 1, end, next);
  }
  const own = classAt(text, at, end);
  if (own === space) return gapEnd(text, at, end);
  const short = byte === 0x27 ? contraction(text, at, end, false) : 0;
  return short > 0 ? at + short : runEnd(text, at, end, own);
}

/** White space up to its last character, which belongs to the word behind it; all of it at the end of the text. */
function gapEnd(text: Uint8Array, at: number, end: number): number {
  const stop = runEnd(text, at, end, space);
  if (stop === end) return end;
  const last = characterBefore(text, stop);
  return last > at ? last : stop;
}

const isNewline = (byte: number | undefined): boolean => byte === 0x0a || byte === 0x0d;

function llamaEnd(text: Uint8Array, at: number, end: number, digits: number): number {
  const byte = text[at]!;
  const own = classAt(text, at, end);
  if (own === letter) return runEnd(text, at, end, letter);
  if (own === digit) {
    let stop = at;
    for (let i = 0; i < digits && stop < end && classAt(text, stop, end) === digit; i++) stop += characterAt(text, stop, end) & 7;
    return stop;
  }
  const short = byte === 0x27 ? contraction(text, at, end, true) : 0;
  if (short > 0) return at + short;
  const next = at + (characterAt(text, at, end) & 7);
  const follows = next < end ? classAt(text, next, end) : space;
  if (follows === letter && !isNewline(byte)) return runEnd(text, next, end, letter);
  if (own === other || (byte === 0x20 && follows === other)) {
    let stop = runEnd(text, next, end, other);
    while (stop < end && isNewline(text[stop])) stop++;
    return stop;
  }
  const stop = runEnd(text, at, end, space);
  for (let last = stop; last > at; last--) if (isNewline(text[last - 1])) return last;
  return gapEnd(text, at, end);
}

/**
 * The last place at which `text`, of which more may follow, can be cut so that its two parts have the pieces of the whole, by
 * every pattern: behind a letter or digit, before a character of another class. 0 where there is none.
 */
export function safeCut(text: Uint8Array): number {
  for (let at = text.length - 4; at > 0; at--) {
    if ((text[at]! & 0xc0) === 0x80) continue;
    const before = classAt(text, characterBefore(text, at), at);
    if ((before === letter || before === digit) && classAt(text, at, text.length) !== before) return at;
  }
  return 0;
}
