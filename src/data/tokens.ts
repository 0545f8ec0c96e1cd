// A text as token ids: read from a token file, from the bytes themselves, or encoded in memory; cut in two; windows in a seeded order.
// Not the tokenizers (tokenizer.ts) and not the file's form (tokenfile.ts). Read by src/learners/backprop.ts.

import { EggError } from "../errors.ts";
import { chunksOf } from "./chunks.ts";
import type { Corpus } from "./corpus.ts";
import { tokenizerFrom, type Tokenizer } from "./tokenizer.ts";

export interface Tokens {
  readonly count: number;
  /** For people: the path as given, or builtin:fables. */
  readonly name: string;
  /** Fills `target` with the ids from `offset` on. EggError "data" where a file was shortened meanwhile or is damaged. */
  read(offset: number, target: Int32Array): void;
}

/** The ids of a text take 2 or 4 bytes each in memory; a larger text than this is to be made a token file first. */
const mostEncoded = 2 * 2 ** 30;
/** Of the Feistel network; four are enough for a bijection that looks random. */
const rounds = 8;
const count = (value: number): string => value.toLocaleString("en-US");

/** The ids of all of `corpus` in order, a megabyte of text at a time. */
export function* encodeCorpus(corpus: Corpus, tokenizer: Tokenizer): Generator<{ ids: Uint32Array; bytes: number }> {
  for (const { text, at } of chunksOf(corpus, (text) => tokenizer.cut(text))) {
    yield { ids: tokenizer.encode(text, at), bytes: at + text.length };
  }
}

/**
 * The text behind a run as ids: a token file as it is, bytes straight from the corpus, anything else encoded in memory. Views from splitTokens
 * and this end when the corpus is closed.
 * @throws EggError("data") where a token file was made with another tokenizer, or the text has characters that the tokenizer lacks
 */
export function openTokens(corpus: Corpus, tokenizer: Tokenizer): Tokens {
  const { name, tokenFile } = corpus;
  if (tokenFile !== undefined) {
    if (tokenFile.hash !== tokenizer.hash) throw mismatch(corpus, tokenizer);
    return { name, count: tokenFile.count, read: (offset, target) => tokenFile.read(offset, target, tokenizer.vocabulary) };
  }
  if (tokenizer.kind === "bytes") {
    return {
      name,
      count: corpus.bytes,
      read(offset, target) {
        const bytes = new Uint8Array(target.length);
        corpus.read(offset, bytes);
        target.set(bytes);
      },
    };
  }
  if (corpus.bytes > mostEncoded) {
    throw new EggError("resources", `[data] ${name}: a text of ${count(corpus.bytes)} bytes is too large to be made into tokens in memory; allowed ${count(mostEncoded)}.`, {
      hint: `Make a token file of it once, and train on that: egg data tokenize --data ${name} --tokenizer FILE --out FILE`,
    });
  }
  const narrow = tokenizer.vocabulary <= 65_536;
  const parts: (Uint16Array | Uint32Array)[] = [];
  let total = 0;
  for (const { ids } of encodeCorpus(corpus, tokenizer)) {
    parts.push(narrow ? Uint16Array.from(ids) : ids);
    total += ids.length;
  }
  const ids = narrow ? new Uint16Array(total) : new Uint32Array(total);
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
  }
  return {
    name,
    count: total,
    read(offset, target) {
      checkRange(this, offset, target);
      target.set(ids.subarray(offset, offset + target.length));
    },
  };
}

/** Train = the first floor(count * (1 - validation)) tokens, held out = the rest, null where validation is 0. */
export function splitTokens(tokens: Tokens, validation: number): { train: Tokens; heldOut: Tokens | null } {
  if (validation === 0) return { train: view(tokens, 0, tokens.count), heldOut: null };
  const cut = Math.floor(tokens.count * (1 - validation));
  return { train: view(tokens, 0, cut), heldOut: view(tokens, cut, tokens.count - cut) };
}

/** Throws EggError "data" unless the text has a window of `block` tokens and its last target. */
export function requireWindows({ name, count: found }: Tokens, block: number): void {
  if (found >= block + 1) return;
  throw new EggError("data", `[data] ${name}: a window of ${count(block)} tokens and its last target needs ${count(block + 1)} tokens, found ${count(found)}.`, {
    hint: "Give more text, or lower model.block.",
  });
}

/**
 * Windows of `block` inputs, each with one target more, in a seeded order. Stateless: everything follows from the seed and the number.
 *
 * An epoch has floor((count - 1) / block) windows, one behind the other from its offset on, and each is read once. What they leave over,
 * (count - 1) mod block tokens, is what an epoch's offset is drawn from: 0 up to and with it, so that the cuts fall elsewhere each time. The order
 * is a permutation by a Feistel network whose keys come from seed and epoch; what falls beyond the windows goes through it again (cycle
 * walking), so it takes no memory and is a bijection for any number of windows.
 */
export class WindowOrder {
  /** Windows of an epoch. */
  readonly windows: number;
  readonly #rest: number;
  readonly #halfBits: number;
  #epoch = -1; // whose keys these are
  readonly #keys = new Uint32Array(rounds);
  #offset = 0;

  /** `seed`: a whole number from 0 to 2^53 - 1. RangeError for fewer than block + 1 tokens: requireWindows() says it to people. */
  constructor(
    count: number,
    readonly block: number,
    readonly seed: number,
  ) {
    this.windows = Math.floor((count - 1) / block);
    if (!(this.windows >= 1)) throw new RangeError(`windows of ${block} tokens need ${block + 1}, not ${count}`);
    if (this.windows > 2 ** 52) throw new RangeError(`${this.windows} windows`);
    this.#rest = count - 1 - this.windows * block;
    this.#halfBits = Math.max(1, Math.ceil(bitsFor(this.windows) / 2));
  }

  /** The first token of the n-th window read since the start of training, n >= 0. Window n is in epoch floor(n / windows). */
  start(n: number): number {
    if (!(Number.isSafeInteger(n) && n >= 0)) throw new RangeError(`window ${n}`);
    this.#enter(Math.floor(n / this.windows));
    let place = n % this.windows;
    do place = this.#permute(place);
    while (place >= this.windows);
    return this.#offset + place * this.block;
  }

  #enter(epoch: number): void {
    if (epoch === this.#epoch) return;
    let state = 0x2545f491;
    for (const number of [this.seed, epoch]) {
      state = mix(state ^ (number >>> 0));
      state = mix(state ^ Math.floor(number / 2 ** 32));
    }
    const draw = (): number => (state = mix(state + 0x9e3779b9)) >>> 0;
    for (let round = 0; round < rounds; round++) this.#keys[round] = draw();
    this.#offset = Math.floor(((draw() * 2 ** 21 + (draw() >>> 11)) / 2 ** 53) * (this.#rest + 1));
    this.#epoch = epoch;
  }

  /** A bijection of the numbers below 4^halfBits, at most 2^52: as large as the windows or up to four times that. */
  #permute(number: number): number {
    const size = 2 ** this.#halfBits;
    let left = Math.floor(number / size);
    let right = number % size;
    for (let round = 0; round < rounds; round++) {
      const next = left ^ (mix(right ^ this.#keys[round]!) & (size - 1));
      left = right;
      right = next;
    }
    return left * size + right;
  }
}

/** Mixes 32 bits well: one of C. Wellons' searched finalizers. */
function mix(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0xd35a2d97);
  return word ^ (word >>> 15);
}

/** Bits that the numbers below `count` take. */
function bitsFor(count: number): number {
  let bits = 0;
  while (2 ** bits < count) bits++;
  return bits;
}

function view(tokens: Tokens, start: number, total: number): Tokens {
  return {
    name: tokens.name,
    count: total,
    read(offset, target) {
      checkRange(this, offset, target);
      tokens.read(start + offset, target);
    },
  };
}

function checkRange({ count, name }: Tokens, offset: number, target: Int32Array): void {
  if (Number.isInteger(offset) && offset >= 0 && offset + target.length <= count) return;
  throw new RangeError(`read of ${target.length} tokens at ${offset} of ${name}, which has ${count}`);
}

function mismatch({ name, tokenFile }: Corpus, tokenizer: Tokenizer): EggError {
  const own = tokenizerFrom(tokenFile!.definition);
  return new EggError("data", `[data] ${name}: its tokens were made with the tokenizer ${own.name}, ${own.hash.slice(0, 12)}; this run's is ${tokenizer.name}, ${tokenizer.hash.slice(0, 12)}.`, {
    hint: "Set data.tokenizer to the one that the file was made with, or make the file again: egg data tokenize",
  });
}
