// Training of byte-level BPE: counts the distinct words of a text, then merges the most frequent pair again and again.
// Each place is visited only when a pair there is merged, so the time goes with the text's distinct words, not with the vocabulary.
// Not encoding (bpe.ts) and not the file (huggingface.ts). Rules: most frequent, then lowest left, then lowest right; twice at least.

import { EggError } from "../errors.ts";
import { byteNames, type BpeTables } from "./bpe.ts";
import { chunksOf } from "./chunks.ts";
import type { Corpus } from "./corpus.ts";
import { mixed } from "./merges.ts";
import { hashPiece, PieceTable } from "./pieces.ts";
import { safeCut, scanners } from "./pretokenize.ts";

/** Tokens longer than this are not made: lengths are 16 bits wide. Met only in runs of one byte. */
const longestToken = 65_535;
/** How many merges lie between two calls of `progress`. */
const mergesPerReport = 256;

export interface TrainingProgress {
  phase: "counting" | "merging";
  /** Bytes read of the text, or merges made. */
  done: number;
  total: number;
}

export interface TrainedBpe {
  tables: BpeTables;
  /** How often the pair of each merge stood in the text at that moment. */
  counts: number[];
  /** How many tokens the text has, texts that end documents left out. */
  tokens: number;
}

/**
 * Learns a tokenizer with `vocabulary` ids (256 at least) from all of `corpus`, the pieces being those of GPT-2. Ids 0 to 255 are the
 * bytes, 256 + k is merge k. Fewer where no pair is left that occurs twice. `endOfText` ("" for none) is one more id, the last; the text
 * is cut there and its name not learned. Deterministic. EggError "resources" where the distinct words exceed 256 MiB.
 */
export function trainBpe(corpus: Corpus, vocabulary: number, endOfText: string, progress: (now: TrainingProgress) => void = () => {}): TrainedBpe {
  const least = endOfText === "" ? 256 : 257;
  if (!(vocabulary >= least)) throw new EggError("usage", `[tokenizer] a vocabulary of ${vocabulary}: byte-level BPE needs 256 tokens for the bytes${least === 256 ? "" : ", and one for the end of text"}.`);
  const words = countWords(corpus, endOfText, (done) => progress({ phase: "counting", done, total: corpus.bytes }));
  const total = vocabulary - least;
  const pairs = new Pairs(words, 256 + total);
  const names = [...byteNames];
  const lengths = names.map(() => 1);
  const merges: number[] = [];
  const counts: number[] = [];
  while (counts.length < total) {
    const best = pairs.best();
    if (best === null) break;
    const { left, right, count } = best;
    const length = lengths[left]! + lengths[right]!;
    if (length > longestToken) continue; // best() has forgotten it
    pairs.merge(best.pair, names.length);
    merges.push(left, right, names.length);
    counts.push(count);
    lengths.push(length);
    names.push(names[left]! + names[right]!);
    if (counts.length % mergesPerReport === 0) progress({ phase: "merging", done: counts.length, total });
  }
  progress({ phase: "merging", done: counts.length, total: counts.length });
  const added = endOfText === "" ? [] : [{ id: names.length, content: endOfText, special: true, normalized: false }];
  return { tables: { names, merges: Int32Array.from(merges), pattern: "gpt2", addPrefixSpace: false, ignoreMerges: false, added }, counts, tokens: pairs.symbols };
}

interface Words {
  table: PieceTable;
  /** By piece: how often it stands in the text. */
  counts: Float64Array;
}

function countWords(corpus: Corpus, endOfText: string, progress: (bytes: number) => void): Words {
  const table = new PieceTable();
  let counts = new Float64Array(1024);
  const pieceEnd = scanners.gpt2;
  const count = (text: Uint8Array, from: number, end: number): void => {
    for (let at = from; at < end; ) {
      const stop = pieceEnd(text, at, end);
      const hash = hashPiece(text, at, stop);
      let piece = table.find(text, at, stop, hash);
      if (piece < 0) {
        piece = table.add(text, at, stop, hash);
        if (piece === counts.length) {
          const more = new Float64Array(piece * 2);
          more.set(counts);
          counts = more;
        }
      }
      counts[piece]!++;
      at = stop;
    }
  };
  const separator = new TextEncoder().encode(endOfText);
  for (const { text, at } of chunksOf(corpus, separator.length === 0 ? safeCut : (text) => cutClear(text, separator))) {
    const buffer = Buffer.from(text.buffer, text.byteOffset, text.length);
    let from = 0;
    while (separator.length > 0) {
      const found = buffer.indexOf(separator, from);
      if (found < 0) break;
      count(text, from, found);
      from = found + separator.length;
    }
    count(text, from, text.length);
    progress(at + text.length);
  }
  return { table, counts };
}

/** A safe cut that no separator stands across. */
function cutClear(text: Uint8Array, separator: Uint8Array): number {
  const buffer = Buffer.from(text.buffer, text.byteOffset, text.length);
  for (let limit = text.length - separator.length; limit > 0; ) {
    const at = safeCut(text.subarray(0, limit));
    const found = at === 0 ? -1 : buffer.subarray(0, at + separator.length - 1).indexOf(separator, Math.max(0, at - separator.length + 1));
    if (found < 0 || found >= at) return at;
    limit = at + 3;
  }
  return 0;
}

const none = -1;

/**
 * All symbols of all words, each where its first byte was, and for each pair of neighbours how often it stands there and where: a doubly
 * linked list of places, in ascending order within a word. Merging a pair walks its list and moves the places beside it to the lists of their
 * new pairs, so the work of all merges together is that of the symbols they remove.
 */
class Pairs {
  /** How many symbols the text has now. */
  symbols = 0;
  // By place. A place belongs to the pair that it begins. Where a symbol of several bytes ends, its first place stands, as ~place.
  readonly #symbols: Int32Array;
  readonly #words: Int32Array;
  readonly #earlier: Int32Array;
  readonly #later: Int32Array;
  readonly #weights: Float64Array; // by word
  readonly #lengths: Uint16Array; // by symbol, in bytes
  // By pair.
  #size = 0;
  #left = new Int32Array(4096);
  #right = new Int32Array(4096);
  #first = new Int32Array(4096);
  #last = new Int32Array(4096);
  #counts = new Float64Array(4096);
  #queued = new Float64Array(4096); // the count with which it stands in the heap
  #slots = new Int32Array(16_384).fill(none);
  // Pairs by queued count, then left, then right. Counts only fall after a pair is made, so the queued one is a bound.
  #heap = new Int32Array(4096);
  #heapSize = 0;

  constructor({ table, counts }: Words, symbols: number) {
    const bytes = table.bytes;
    this.#weights = counts;
    this.#lengths = new Uint16Array(symbols).fill(1);
    this.#symbols = new Int32Array(bytes.length);
    this.#symbols.set(bytes);
    this.#words = new Int32Array(bytes.length);
    this.#earlier = new Int32Array(bytes.length);
    this.#later = new Int32Array(bytes.length);
    for (let word = 0; word < table.size; word++) {
      const start = table.start(word);
      const end = table.start(word + 1);
      this.symbols += (end - start) * counts[word]!;
      this.#words.fill(word, start, end);
      for (let at = start; at + 1 < end; at++) this.#enter(at, at + 1);
    }
    for (let pair = 0; pair < this.#size; pair++) this.#queue(pair);
  }

  /** The most frequent pair that occurs twice at least; it leaves the queue. Null where none is left. */
  best(): { pair: number; left: number; right: number; count: number } | null {
    while (this.#heapSize > 0) {
      const pair = this.#pop();
      const count = this.#counts[pair]!;
      if (count === this.#queued[pair]) return { pair, left: this.#left[pair]!, right: this.#right[pair]!, count };
      this.#queue(pair);
    }
    return null;
  }

  /** Puts `symbol` in place of every occurrence of the pair, from left to right. */
  merge(pair: number, symbol: number): void {
    const made = this.#size;
    const length = this.#lengths[this.#left[pair]!]! + this.#lengths[this.#right[pair]!]!;
    this.#lengths[symbol] = length;
    for (let at = this.#first[pair]!; at !== none; at = this.#first[pair]!) {
      const left = this.#before(at);
      const gone = this.#after(at);
      const right = this.#after(gone);
      if (left !== none) this.#leave(left, at);
      this.#leave(at, gone);
      if (right !== none) this.#leave(gone, right);
      this.#symbols[at] = symbol;
      this.#symbols[at + length - 1] = ~at;
      this.symbols -= this.#weights[this.#words[at]!]!;
      if (left !== none) this.#enter(left, at);
      if (right !== none) this.#enter(at, right);
    }
    for (let fresh = made; fresh < this.#size; fresh++) this.#queue(fresh);
  }

  /** Where the symbol begins that ends before `at`, in the same word. */
  #before(at: number): number {
    if (at === 0 || this.#words[at - 1] !== this.#words[at]) return none;
    const last = this.#symbols[at - 1]!;
    return last < 0 ? ~last : at - 1;
  }

  #after(at: number): number {
    const next = at + this.#lengths[this.#symbols[at]!]!;
    return this.#words[next] === this.#words[at] ? next : none; // past the end there is no word
  }

  /** Adds the place to the end of its pair's list. */
  #enter(at: number, next: number): void {
    const pair = this.#pairOf(this.#symbols[at]!, this.#symbols[next]!);
    const last = this.#last[pair]!;
    this.#earlier[at] = last;
    this.#later[at] = none;
    if (last === none) this.#first[pair] = at;
    else this.#later[last] = at;
    this.#last[pair] = at;
    this.#counts[pair]! += this.#weights[this.#words[at]!]!;
  }

  #leave(at: number, next: number): void {
    const pair = this.#pairOf(this.#symbols[at]!, this.#symbols[next]!);
    const earlier = this.#earlier[at]!;
    const later = this.#later[at]!;
    if (earlier === none) this.#first[pair] = later;
    else this.#later[earlier] = later;
    if (later === none) this.#last[pair] = earlier;
    else this.#earlier[later] = earlier;
    this.#counts[pair]! -= this.#weights[this.#words[at]!]!;
  }

  /** The number of a pair, a new one where it has none. */
  #pairOf(left: number, right: number): number {
    if (this.#size === this.#left.length) this.#grow();
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = mixed(left, right) & mask;
    for (; slots[slot] !== none; slot = (slot + 1) & mask) {
      const pair = slots[slot]!;
      if (this.#left[pair] === left && this.#right[pair] === right) return pair;
    }
    const pair = this.#size++;
    slots[slot] = pair;
    this.#left[pair] = left;
    this.#right[pair] = right;
    this.#first[pair] = none;
    this.#last[pair] = none;
    return pair;
  }

  #grow(): void {
    const double = <A extends Int32Array | Float64Array>(from: A, to: A): A => {
      to.set(from);
      return to;
    };
    const length = this.#left.length * 2;
    this.#left = double(this.#left, new Int32Array(length));
    this.#right = double(this.#right, new Int32Array(length));
    this.#first = double(this.#first, new Int32Array(length));
    this.#last = double(this.#last, new Int32Array(length));
    this.#counts = double(this.#counts, new Float64Array(length));
    this.#queued = double(this.#queued, new Float64Array(length));
    this.#heap = double(this.#heap, new Int32Array(length));
    const slots = new Int32Array(length * 4).fill(none);
    for (let pair = 0; pair < this.#size; pair++) {
      let slot = mixed(this.#left[pair]!, this.#right[pair]!) & (slots.length - 1);
      while (slots[slot] !== none) slot = (slot + 1) & (slots.length - 1);
      slots[slot] = pair;
    }
    this.#slots = slots;
  }

  #comesFirst(a: number, b: number): boolean {
    const difference = this.#queued[a]! - this.#queued[b]! || this.#left[b]! - this.#left[a]! || this.#right[b]! - this.#right[a]!;
    return difference > 0;
  }

  /** Into the heap with its count of now, unless it occurs only once. */
  #queue(pair: number): void {
    this.#queued[pair] = this.#counts[pair]!;
    if (this.#counts[pair]! < 2) return;
    const heap = this.#heap;
    let at = this.#heapSize++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#comesFirst(pair, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = pair;
  }

  #pop(): number {
    const heap = this.#heap;
    const top = heap[0]!;
    const moved = heap[--this.#heapSize]!;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= this.#heapSize) break;
      if (child + 1 < this.#heapSize && this.#comesFirst(heap[child + 1]!, heap[child]!)) child++;
      if (!this.#comesFirst(heap[child]!, moved)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = moved;
    return top;
  }
}
