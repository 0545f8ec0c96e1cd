// The merging of one piece of text by byte-level BPE: again and again the pair whose merge was learned first, the leftmost of equal ones.
// Not the cutting into pieces (pretokenize.ts) and not the cache of those met before: bpe.ts, which uses this.

/** Up to here, looking through all symbols each time is the fastest; beyond, it would be quadratic. */
const longestShort = 64;
const noRank = 0x7fffffff;
const shortRanks = new Int32Array(longestShort);
/** A key of the heap is rank * positions + position: exact, as ranks stay below 2^21. */
const positions = 2 ** 32;

/** Merges by rank: the rank of a pair by open addressing, the symbol that each merge gives, and the merging of one piece. */
export class Merges {
  readonly #mask: number;
  readonly #table: Int32Array; // left + 1, right, rank, unused: one cache line holds four
  readonly #results: Int32Array;

  /** `triples`: left, right, result of each merge, the earliest first. The last one of a pair counts. */
  constructor(triples: Int32Array) {
    const count = triples.length / 3;
    const slots = 2 ** Math.ceil(Math.log2(Math.max(count, 8) * 2.5));
    this.#mask = slots - 1;
    this.#table = new Int32Array(slots * 4);
    this.#results = new Int32Array(count);
    for (let rank = 0; rank < count; rank++) {
      this.#set(triples[rank * 3]!, triples[rank * 3 + 1]!, rank);
      this.#results[rank] = triples[rank * 3 + 2]!;
    }
  }

  /** Merges the first `length` symbols of `ids` in place; the result is the first ones again, and their number is given. */
  merge(ids: Int32Array, length: number): number {
    return length > longestShort ? this.#mergeLong(ids, length) : this.#mergeShort(ids, length);
  }

  /** By looking through all. */
  #mergeShort(ids: Int32Array, length: number): number {
    const ranks = shortRanks;
    for (let i = 0; i + 1 < length; i++) ranks[i] = this.#rank(ids[i]!, ids[i + 1]!);
    while (length > 1) {
      let best = noRank;
      let at = 0;
      for (let i = 0; i + 1 < length; i++) {
        if (ranks[i]! < best) {
          best = ranks[i]!;
          at = i;
        }
      }
      if (best === noRank) break;
      ids[at] = this.#results[best]!;
      length--;
      for (let i = at + 1; i < length; i++) {
        ids[i] = ids[i + 1]!;
        ranks[i] = ranks[i + 1]!;
      }
      if (at > 0) ranks[at - 1] = this.#rank(ids[at - 1]!, ids[at]!);
      if (at + 1 < length) ranks[at] = this.#rank(ids[at]!, ids[at + 1]!);
    }
    return length;
  }

  /** With a heap over linked symbols: n log n, for a megabyte without a space. */
  #mergeLong(ids: Int32Array, length: number): number {
    const before = new Int32Array(length);
    const after = new Int32Array(length);
    const heap = new Heap(length);
    const offer = (at: number): void => {
      const right = after[at]!;
      const rank = right < length ? this.#rank(ids[at]!, ids[right]!) : noRank;
      if (rank !== noRank) heap.push(rank * positions + at);
    };
    for (let i = 0; i < length; i++) {
      before[i] = i - 1;
      after[i] = i + 1;
    }
    for (let i = 0; i + 1 < length; i++) offer(i);
    while (heap.size > 0) {
      const key = heap.pop();
      const rank = Math.floor(key / positions);
      const at = key - rank * positions;
      const right = after[at]!;
      if (ids[at]! < 0 || right >= length || this.#rank(ids[at]!, ids[right]!) !== rank) continue;
      ids[at] = this.#results[rank]!;
      ids[right] = -1;
      after[at] = after[right]!;
      if (after[at]! < length) before[after[at]!] = at;
      if (before[at]! >= 0) offer(before[at]!);
      offer(at);
    }
    let count = 0;
    for (let at = 0; at < length; at = after[at]!) ids[count++] = ids[at]!;
    return count;
  }

  #rank(left: number, right: number): number {
    const table = this.#table;
    for (let slot = mixed(left, right) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const found = table[slot * 4]!;
      if (found === 0) return noRank;
      if (found === left + 1 && table[slot * 4 + 1] === right) return table[slot * 4 + 2]!;
    }
  }

  #set(left: number, right: number, rank: number): void {
    let slot = mixed(left, right) & this.#mask;
    while (this.#table[slot * 4] !== 0 && !(this.#table[slot * 4] === left + 1 && this.#table[slot * 4 + 1] === right)) slot = (slot + 1) & this.#mask;
    this.#table.set([left + 1, right, rank], slot * 4);
  }
}

/** A hash of a pair of ids, 32 bits. */
export function mixed(left: number, right: number): number {
  let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return hash ^ (hash >>> 14);
}

/** Numbers, the smallest first. */
class Heap {
  size = 0;
  #keys: Float64Array;

  constructor(room: number) {
    this.#keys = new Float64Array(room);
  }

  push(key: number): void {
    if (this.size === this.#keys.length) {
      const more = new Float64Array(this.size * 2);
      more.set(this.#keys);
      this.#keys = more;
    }
    const keys = this.#keys;
    let at = this.size++;
    for (; at > 0; ) {
      const parent = (at - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[at] = keys[parent]!;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number {
    const keys = this.#keys;
    const top = keys[0]!;
    const size = --this.size;
    const key = keys[size]!;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= size) break;
      if (child + 1 < size && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= key) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = key;
    return top;
  }
}
