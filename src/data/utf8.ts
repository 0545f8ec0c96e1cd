// Bytes as characters: which code point stands where, and whether it is a letter, a digit, a space or something else.
// Not TextDecoder, which loses ill-formed bytes: here each of them is a symbol of its own, so that every text comes back whole.
// Read next: pretokenize.ts and characters.ts, which walk over texts with it.

/** A symbol is a code point, or `illFormed` + the byte for a byte that belongs to no well-formed sequence. */
export const illFormed = 0x110000;
/** One more than the largest symbol. */
export const symbolLimit = illFormed + 256;

export const other = 0;
export const letter = 1;
export const digit = 2;
export const space = 3;

/**
 * The character that begins at `at` (below `end`): symbol * 8 + its length in bytes. Whether a sequence is well-formed
 * (Unicode, table 3-7) depends on its own bytes alone, never on what stands before.
 */
export function characterAt(text: Uint8Array, at: number, end: number): number {
  const first = text[at]!;
  if (first < 0x80) return (first << 3) | 1;
  if (first >= 0xc2 && first <= 0xf4) {
    const more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (at + more < end) {
      const second = text[at + 1]!;
      const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
      const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
      if (second >= low && second <= high) {
        if (more === 1) return ((((first & 0x1f) << 6) | (second & 0x3f)) << 3) | 2;
        const third = text[at + 2]!;
        if ((third & 0xc0) === 0x80) {
          const three = (second & 0x3f) << 6 | (third & 0x3f);
          if (more === 2) return ((((first & 0x0f) << 12) | three) << 3) | 3;
          const fourth = text[at + 3]!;
          if ((fourth & 0xc0) === 0x80) return ((((first & 0x07) << 18) | (three << 6) | (fourth & 0x3f)) << 3) | 4;
        }
      }
    }
  }
  return ((illFormed + first) << 3) | 1;
}

/** Where the character begins that ends before `at` (above 0). */
export function characterBefore(text: Uint8Array, at: number): number {
  for (let start = at - 1; start >= Math.max(0, at - 4); start--) {
    if ((text[start]! & 0xc0) === 0x80) continue;
    return start + (characterAt(text, start, at) & 7) === at ? start : at - 1;
  }
  return at - 1;
}

/** The most bytes of `text`, up to all, that do not end inside a character which more bytes could complete. */
export function wholeCharacters(text: Uint8Array): number {
  for (let start = text.length - 1; start >= Math.max(0, text.length - 3); start--) {
    const byte = text[start]!;
    if ((byte & 0xc0) === 0x80) continue;
    const wanted = byte < 0xc2 || byte > 0xf4 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return start + wanted > text.length ? start : text.length;
  }
  return text.length;
}

// 256 code points a page, made when first met: the whole of Unicode would take a tenth of a second at every start.
const pages: (Uint8Array | undefined)[] = [];

/** The class of a symbol by Unicode's properties L (letter), N (number: `digit`) and White_Space, which is not quite JavaScript's \s. */
export function classOf(symbol: number): number {
  if (symbol >= illFormed) return other;
  return (pages[symbol >>> 8] ??= page(symbol >>> 8))[symbol & 255]!;
}

function page(number: number): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, i) => {
    const character = String.fromCodePoint(number * 256 + i);
    return /^\p{L}/u.test(character) ? letter : /^\p{N}/u.test(character) ? digit : /^\p{White_Space}/u.test(character) ? space : other;
  });
}
