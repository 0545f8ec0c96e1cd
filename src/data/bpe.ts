// Byte-level BPE: text to token ids and back, from a table of tokens and merges. Words met before come out of a cache.
// Not training (bpe-train.ts), not files (huggingface.ts). Read next: pretokenize.ts, the cuts between pieces, and merges.ts, inside them.

import { EggError } from "../errors.ts";
import { Merges } from "./merges.ts";
import { hashPiece, PieceTable } from "./pieces.ts";
import { scanners, type Pattern, type PieceEnd } from "./pretokenize.ts";

/** A token that is found in the text as it stands, before the text is cut into words. */
export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  normalized: boolean;
}

/** What a byte-level BPE tokenizer consists of. */
export interface BpeTables {
  /** By id, in the byte-level alphabet: `byteNames`; null where there is no such token or only an added one. */
  names: (string | null)[];
  /** left, right, result for each merge, the earliest first. */
  merges: Int32Array;
  pattern: Pattern;
  /** Whether a text that does not begin with a space is read as if it did. */
  addPrefixSpace: boolean;
  /** Whether a word that is a token is that token, however its merges go. */
  ignoreMerges: boolean;
  added: AddedToken[];
}

/** The byte-level alphabet of GPT-2: a printable character for each byte, so that tokens can be written as text. */
export const byteNames: readonly string[] = (() => {
  const asItIs = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(asItIs(byte) ? byte : next++));
})();
const byteOfName = new Map(byteNames.map((name, byte) => [name, byte]));

/** The bytes behind a token's name; a name with characters outside the alphabet stands for its own UTF-8. */
export function bytesOfName(name: string): Uint8Array {
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) {
    const byte = byteOfName.get(name[i]!);
    if (byte === undefined) return new TextEncoder().encode(name);
    bytes[i] = byte;
  }
  return bytes;
}

/** Longer words are merged anew each time: they hardly come twice. */
const longestCached = 64;
/** Words in the cache at most; then it begins anew. */
const mostCached = 2 ** 17;

export class BpeCodec {
  /** Ids are 0 .. vocabulary-1; some may not exist. */
  readonly vocabulary: number;
  /** Bytes of each token; 0 for one that does not exist. */
  readonly lengths: Uint16Array;
  readonly #tokens: (Uint8Array | null)[];
  readonly #byteIds = new Int32Array(256);
  readonly #merges: Merges;
  readonly #pieceEnd: PieceEnd;
  readonly #addPrefixSpace: boolean;
  readonly #whole: { table: PieceTable; ids: number[] } | null;
  /** Added tokens by the order in which they are looked for: all that are not normalized, then the rest. */
  readonly #stages: AddedSearch[];
  readonly #longestAdded: number;
  readonly #cache = new PieceTable();
  #cacheStarts = new Int32Array(1025);
  #cacheIds = new Int32Array(4096);
  #scratch = new Int32Array(256);

  constructor(tables: BpeTables) {
    this.#tokens = tables.names.map((name) => (name === null ? null : bytesOfName(name)));
    for (const { id, content } of tables.added) this.#tokens[id] = new TextEncoder().encode(content);
    this.vocabulary = this.#tokens.length;
    this.lengths = Uint16Array.from(this.#tokens, (token) => token?.length ?? 0);
    for (const [id, name] of tables.names.entries()) {
      const byte = name === null ? undefined : byteOfName.get(name);
      if (byte !== undefined) this.#byteIds[byte] = id;
    }
    this.#merges = new Merges(tables.merges);
    this.#pieceEnd = scanners[tables.pattern];
    this.#addPrefixSpace = tables.addPrefixSpace;
    this.#whole = null;
    if (tables.ignoreMerges) {
      this.#whole = { table: new PieceTable(), ids: [] };
      for (const [id, name] of tables.names.entries()) {
        if (name === null || [...name].some((character) => !byteOfName.has(character))) continue;
        const token = bytesOfName(name);
        this.#whole.table.add(token, 0, token.length, hashPiece(token, 0, token.length));
        this.#whole.ids.push(id);
      }
    }
    const searched = tables.added.filter(({ content }) => content !== "");
    this.#stages = [false, true].map((normalized) => new AddedSearch(searched.filter((added) => added.normalized === normalized))).filter(({ empty }) => !empty);
    this.#longestAdded = Math.max(0, ...this.#stages.map(({ longest }) => longest));
  }

  /** `continued`: more of the text stands before this part, which was cut off by cut(). */
  encode(text: Uint8Array, continued: boolean): Uint32Array {
    const ids = new Ids(Math.ceil(text.length / 3) + 16);
    if (this.#stages.length === 0) this.#plain(text, 0, text.length, continued, ids);
    else this.#stage(0, text, 0, text.length, continued, ids);
    return ids.taken();
  }

  decode(ids: ArrayLike<number>): Uint8Array {
    let bytes = 0;
    for (let i = 0; i < ids.length; i++) {
      const token = this.#tokens[ids[i]!];
      if (token === undefined || token === null) {
        throw new EggError("data", `[tokenizer] bpe: id ${ids[i]} at position ${i} does not exist; ids are 0 to ${(this.vocabulary - 1).toLocaleString("en-US")}.`);
      }
      bytes += token.length;
    }
    const text = new Uint8Array(bytes);
    let at = 0;
    for (let i = 0; i < ids.length; i++) {
      const token = this.#tokens[ids[i]!]!;
      text.set(token, at);
      at += token.length;
    }
    return text;
  }

  /** The last cut at which encoding the parts is encoding the whole, found by `safe` in ever shorter texts; 0 where there is none. */
  cut(text: Uint8Array, safe: (text: Uint8Array) => number): number {
    if (this.#longestAdded === 0) return safe(text);
    for (let limit = text.length - this.#longestAdded; limit > 0; ) {
      const at = safe(text.subarray(0, limit));
      if (at === 0 || !this.#addedAround(text, at)) return at;
      limit = at + 3; // safe() leaves a margin of 4 bytes
    }
    return 0;
  }

  /** Whether some added token stands across `at`, or ends there: what follows one may be read in another way. */
  #addedAround(text: Uint8Array, at: number): boolean {
    for (let start = Math.max(0, at - this.#longestAdded); start < at; start++) {
      for (const stage of this.#stages) for (const { bytes } of stage.at(text, start, text.length)) if (start + bytes.length >= at) return true;
    }
    return false;
  }

  #stage(number: number, text: Uint8Array, start: number, end: number, continued: boolean, ids: Ids): void {
    const stage = this.#stages[number];
    if (stage === undefined) return this.#plain(text, start, end, continued, ids);
    let from = start;
    for (let at = start; at < end; ) {
      const found = stage.begins(text[at]!) ? stage.at(text, at, end)[0] : undefined;
      if (found === undefined) {
        at++;
        continue;
      }
      if (at > from) this.#stage(number + 1, text, from, at, continued && from === 0, ids);
      ids.push(found.id);
      at += found.bytes.length;
      from = at;
    }
    if (end > from) this.#stage(number + 1, text, from, end, continued && from === 0, ids);
  }

  #plain(text: Uint8Array, start: number, end: number, continued: boolean, ids: Ids): void {
    if (this.#addPrefixSpace && !continued && end > start && text[start] !== 0x20) {
      const prefixed = new Uint8Array(end - start + 1);
      prefixed[0] = 0x20;
      prefixed.set(text.subarray(start, end), 1);
      return this.#pieces(prefixed, 0, prefixed.length, ids);
    }
    this.#pieces(text, start, end, ids);
  }

  #pieces(text: Uint8Array, start: number, end: number, ids: Ids): void {
    const pieceEnd = this.#pieceEnd;
    const cache = this.#cache;
    for (let at = start; at < end; ) {
      const stop = pieceEnd(text, at, end);
      if (stop - at === 1) ids.push(this.#byteIds[text[at]!]!);
      else if (stop - at > longestCached) {
        const count = this.#merge(text, at, stop); // which may make a larger #scratch
        ids.append(this.#scratch, 0, count);
      } else {
        const hash = hashPiece(text, at, stop);
        let piece = cache.find(text, at, stop, hash);
        if (piece < 0) {
          const count = this.#merge(text, at, stop);
          piece = this.#remember(text, at, stop, hash, count);
        }
        ids.append(this.#cacheIds, this.#cacheStarts[piece]!, this.#cacheStarts[piece + 1]!);
      }
      at = stop;
    }
  }

  #remember(text: Uint8Array, start: number, end: number, hash: number, count: number): number {
    if (this.#cache.size === mostCached) this.#cache.clear();
    const piece = this.#cache.add(text, start, end, hash);
    if (piece + 1 === this.#cacheStarts.length) this.#cacheStarts = larger(this.#cacheStarts, piece * 2 + 2);
    const from = this.#cacheStarts[piece]!;
    if (from + count > this.#cacheIds.length) this.#cacheIds = larger(this.#cacheIds, (from + count) * 2);
    this.#cacheIds.set(this.#scratch.subarray(0, count), from);
    this.#cacheStarts[piece + 1] = from + count;
    return piece;
  }

  /** Merges one piece; its ids are the first of #scratch. Gives how many. */
  #merge(text: Uint8Array, start: number, end: number): number {
    const length = end - start;
    if (length > this.#scratch.length) this.#scratch = new Int32Array(length * 2);
    const ids = this.#scratch;
    if (this.#whole !== null) {
      const token = this.#whole.table.find(text, start, end, hashPiece(text, start, end));
      if (token >= 0) {
        ids[0] = this.#whole.ids[token]!;
        return 1;
      }
    }
    for (let i = 0; i < length; i++) ids[i] = this.#byteIds[text[start + i]!]!;
    return this.#merges.merge(ids, length);
  }
}

/** Looks for added tokens that begin at a place, the longest first. */
class AddedSearch {
  readonly longest: number;
  readonly #byFirst: ({ id: number; bytes: Uint8Array }[] | undefined)[] = [];

  constructor(added: readonly AddedToken[]) {
    const tokens = added.map(({ id, content }) => ({ id, bytes: new TextEncoder().encode(content) }));
    tokens.sort((a, b) => b.bytes.length - a.bytes.length);
    for (const token of tokens) (this.#byFirst[token.bytes[0]!] ??= []).push(token);
    this.longest = tokens[0]?.bytes.length ?? 0;
  }

  get empty(): boolean {
    return this.longest === 0;
  }

  begins(byte: number): boolean {
    return this.#byFirst[byte] !== undefined;
  }

  at(text: Uint8Array, start: number, end: number): { id: number; bytes: Uint8Array }[] {
    const candidates = this.#byFirst[text[start]!];
    return candidates?.filter(({ bytes }) => start + bytes.length <= end && bytes.every((byte, i) => text[start + i] === byte)) ?? [];
  }
}

/** Ids that grow in number. */
class Ids {
  #ids: Uint32Array;
  #count = 0;

  constructor(room: number) {
    this.#ids = new Uint32Array(room);
  }

  push(id: number): void {
    if (this.#count === this.#ids.length) this.#grow(1);
    this.#ids[this.#count++] = id;
  }

  append(from: Int32Array, start: number, end: number): void {
    const count = this.#count + end - start;
    if (count > this.#ids.length) this.#grow(end - start);
    const ids = this.#ids;
    for (let i = start, at = this.#count; i < end; i++) ids[at++] = from[i]!;
    this.#count = count;
  }

  taken(): Uint32Array {
    return this.#ids.slice(0, this.#count);
  }

  #grow(more: number): void {
    const ids = new Uint32Array((this.#count + more) * 2);
    ids.set(this.#ids);
    this.#ids = ids;
  }
}

function larger(from: Int32Array, length: number): Int32Array<ArrayBuffer> {
  const to = new Int32Array(length);
  to.set(from);
  return to;
}
