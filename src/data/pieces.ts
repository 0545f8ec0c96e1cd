// A table of byte strings: each distinct one gets a number, 0, 1, 2, … in the order of arrival. Typed arrays, no strings made.
// Not a cache by itself: whoever fills it decides when it is full. Used by bpe-train.ts (counts) and bpe.ts (encoded pieces).

import { EggError } from "../errors.ts";

/** Of the bytes of all distinct pieces together: training holds 16 bytes more for each. */
const mostBytes = 2 ** 28;

/** FNV-1a with a last mix, 32 bits. */
export function hashPiece(text: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ text[i]!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return hash ^ (hash >>> 13);
}

export class PieceTable {
  size = 0;
  #slots = new Int32Array(1024).fill(-1);
  #hashes = new Int32Array(256);
  #starts = new Uint32Array(257);
  #bytes = new Uint8Array(4096);

  /** The number of the piece text[start..end), whose hash is given; -1 where it is not in the table. */
  find(text: Uint8Array, start: number, end: number, hash: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    const bytes = this.#bytes;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const piece = slots[slot]!;
      if (piece < 0) return -1;
      if (this.#hashes[piece] !== hash) continue;
      let at = this.#starts[piece]!;
      if (this.#starts[piece + 1]! - at !== end - start) continue;
      let i = start;
      while (i < end && bytes[at] === text[i]) {
        at++;
        i++;
      }
      if (i === end) return piece;
    }
  }

  /** Adds a piece that find() did not find; gives its number. EggError "resources" past 256 MiB in all. */
  add(text: Uint8Array, start: number, end: number, hash: number): number {
    const piece = this.size++;
    const at = this.#starts[piece]!;
    const next = at + end - start;
    if (next > mostBytes) {
      throw new EggError("resources", `[tokenizer] the distinct words of the text take more than ${mostBytes.toLocaleString("en-US")} bytes.`, {
        hint: "Give a part of the text: some hundred megabytes are plenty to train a tokenizer.",
      });
    }
    if (next > this.#bytes.length) this.#bytes = grown(this.#bytes, new Uint8Array(Math.max(next, this.#bytes.length * 2)));
    if (piece === this.#hashes.length) {
      this.#hashes = grown(this.#hashes, new Int32Array(piece * 2));
      this.#starts = grown(this.#starts, new Uint32Array(piece * 2 + 1));
    }
    this.#bytes.set(text.subarray(start, end), at);
    this.#starts[piece + 1] = next;
    this.#hashes[piece] = hash;
    if (this.size * 2 > this.#slots.length) {
      this.#slots = new Int32Array(this.#slots.length * 2).fill(-1);
      for (let i = 0; i < this.size; i++) this.#place(i);
    } else this.#place(piece);
    return piece;
  }

  /** Forgets all pieces and keeps the room. */
  clear(): void {
    this.size = 0;
    this.#slots.fill(-1);
  }

  start(piece: number): number {
    return this.#starts[piece]!;
  }

  /** The bytes of all pieces, one behind the other; piece i takes start(i) up to start(i + 1). */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#starts[this.size]);
  }

  #place(piece: number): void {
    const mask = this.#slots.length - 1;
    let slot = this.#hashes[piece]! & mask;
    while (this.#slots[slot]! >= 0) slot = (slot + 1) & mask;
    this.#slots[slot] = piece;
  }
}

function grown<A extends Uint8Array | Int32Array | Uint32Array>(from: A, to: A): A {
  to.set(from);
  return to;
}
