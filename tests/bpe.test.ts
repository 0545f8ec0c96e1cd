// Byte-level BPE: the cuts into pieces against the regular expressions themselves, training and merging against golden data and against
// plain programs that follow the rules word by word. Not files and commands: tokenizer.test.ts, datacommand.test.ts. Next: src/data/bpe.ts.
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BpeCodec, byteNames, bytesOfName, type BpeTables } from "../src/data/bpe.ts";
import { trainBpe, type TrainingProgress } from "../src/data/bpe-train.ts";
import { chunksOf } from "../src/data/chunks.ts";
import type { Corpus } from "../src/data/corpus.ts";
import { fables } from "../src/data/fables.ts";
import { readTokenizerJson } from "../src/data/huggingface.ts";
import { patterns, safeCut, scanners, type Pattern } from "../src/data/pretokenize.ts";
import { bpeTokenizer } from "../src/data/tokenizer.ts";
import { characterAt, illFormed } from "../src/data/utf8.ts";
import { failure } from "./failure.ts";

const golden = JSON.parse(readFileSync(join(import.meta.dir, "golden/bpe.json"), "utf8")) as {
  text: { value: string };
  strings: { name: string; hex: string }[];
  models: { vocab: number; merges: [number, number][]; counts: number[]; text_tokens: number; text_sha256_u32le: string; encodings: number[][] }[];
};

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const sha256 = (bytes: Uint8Array): string => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

function corpusOf(content: Uint8Array): Corpus {
  return {
    name: "a text", bytes: content.length, entropyBitsPerByte: null, fingerprint: () => "", close() {},
    read: (offset, target) => target.set(content.subarray(offset, offset + target.length)),
  };
}

/** The same numbers at each run of the tests. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const snippets = ["a", "B", "the", " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "'", "'s", "'S", "'ſ", "'ll", "'Ll", "'RE", "'ve", "'x", "1", "23", "4567", "٣", "½", "é", "e\u0301", "ß", "漢字", "。", "🐔", "👩‍🌾", "\u00a0", "\u3000", "\u200b", "\u0085", "\ufeff", "\u2028", "_", "--", "!!", "\0", "\x1c", "ſ", "ǆ", "Ⅷ"];

function randomText(random: (below: number) => number, pieces: number): string {
  return Array.from({ length: pieces }, () => (random(8) === 0 ? String.fromCodePoint([random(0x250), 0x250 + random(0x2d00), 0xe000 + random(0x1fff), 0x10000 + random(0x10000)][random(4)]!) : snippets[random(snippets.length)]!)).join("");
}

function randomBytes(random: (below: number) => number, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => (random(3) === 0 ? random(256) : [0x20, 0x61, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x0a, 0x27, 0x73][random(12)]!));
}

function piecesOf(pattern: Pattern, text: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < text.length; at += pieces.at(-1)!.length) pieces.push(text.subarray(at, scanners[pattern](text, at, text.length)));
  return pieces;
}

/** The pattern as JavaScript has it. Ill-formed bytes stand as lone surrogates, which are neither letter, digit nor space either. */
function piecesByRegex(pattern: Pattern, text: Uint8Array): string[] {
  let asString = "";
  for (let at = 0; at < text.length; ) {
    const character = characterAt(text, at, text.length);
    const symbol = character >>> 3;
    asString += symbol >= illFormed ? String.fromCharCode(0xdc00 + symbol - illFormed) : String.fromCodePoint(symbol);
    at += character & 7;
  }
  // Inside a class \p needs no brackets of its own; \S is its complement.
  const source = patterns[pattern].replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}");
  return [...asString.matchAll(new RegExp(source, "gu"))].map(([piece]) => piece);
}

describe("pieces", () => {
  test.each(Object.keys(patterns) as Pattern[])("by hand are those of the expression: %s", (pattern) => {
    const random = randomOf(5);
    const texts = [...golden.strings.map(({ hex }) => Uint8Array.from(Buffer.from(hex, "hex"))), utf8(golden.text.value)];
    for (let i = 0; i < 4000; i++) texts.push(utf8(randomText(random, 1 + random(20))));
    for (let i = 0; i < 2000; i++) texts.push(randomBytes(random, 1 + random(30)));
    for (const text of texts) {
      // Lengths in characters, since ill-formed bytes have no string.
      const lengths = piecesOf(pattern, text).map((piece) => {
        let count = 0;
        for (let at = 0; at < piece.length; count++) at += characterAt(piece, at, piece.length) & 7;
        return count;
      });
      const expected = piecesByRegex(pattern, text).map((piece) => [...piece].length);
      if (lengths.join() !== expected.join()) throw new Error(`${pattern}: ${Buffer.from(text).toString("hex")}: ${lengths} instead of ${expected}`);
    }
  });

  test.each(Object.keys(patterns) as Pattern[])("stay the same wherever safeCut cuts: %s", (pattern) => {
    const random = randomOf(6);
    let cuts = 0;
    for (let i = 0; i < 3000; i++) {
      const text = i % 3 === 0 ? randomBytes(random, 60) : utf8(randomText(random, 20));
      const cut = safeCut(text.subarray(0, 1 + random(text.length))); // what follows is not seen
      if (cut === 0) continue;
      const parts = [...piecesOf(pattern, text.subarray(0, cut)), ...piecesOf(pattern, text.subarray(cut))];
      expect(parts.map(({ length }) => length)).toEqual(piecesOf(pattern, text).map(({ length }) => length));
      cuts++;
    }
    expect(cuts).toBeGreaterThan(1000);
  });

  test("all of a text comes in chunks, larger ones where there is no cut; none in 16 MiB is an error", () => {
    const text = Buffer.concat([utf8("words and words ".repeat(9)), Buffer.alloc(5000, "-"), utf8(" more words"), Buffer.alloc(100, " ")]);
    const chunks = Array.from(chunksOf(corpusOf(text), safeCut, 64), ({ text, at }) => ({ text: text.slice(), at }));
    expect(Buffer.concat(chunks.map(({ text }) => text)).equals(text)).toBe(true);
    expect(chunks.map(({ at }) => at)).toEqual(chunks.map((_, i) => chunks.slice(0, i).reduce((sum, { text }) => sum + text.length, 0)));
    expect(chunks.length).toBeGreaterThan(2);
    expect(Math.max(...chunks.map(({ text }) => text.length))).toBeGreaterThan(5000);
    const endless: Corpus = { ...corpusOf(new Uint8Array(0)), bytes: 2 ** 30, read: (_, target) => void target.fill(0x2d) };
    const error = failure(() => [...chunksOf(endless, safeCut)]);
    expect(error).toMatchObject({ kind: "data", message: expect.stringContaining("no break between words within 16,777,216 bytes from byte 0 on") });
  });
});

/** The rules of training as they are written, pair counts taken anew each time. */
function trainPlainly(text: Uint8Array, vocabulary: number): { merges: number[][]; counts: number[] } {
  const words = new Map<string, { symbols: number[]; count: number }>();
  for (const piece of piecesOf("gpt2", text)) {
    const key = Buffer.from(piece).toString("latin1");
    const word = words.get(key);
    if (word === undefined) words.set(key, { symbols: [...piece], count: 1 });
    else word.count++;
  }
  const merges: number[][] = [];
  const counts: number[] = [];
  while (256 + merges.length < vocabulary) {
    const pairs = new Map<string, { left: number; right: number; count: number }>();
    for (const { symbols, count } of words.values()) {
      for (let i = 0; i + 1 < symbols.length; i++) {
        const [left, right] = [symbols[i]!, symbols[i + 1]!];
        const pair = pairs.get(`${left},${right}`) ?? { left, right, count: 0 };
        pair.count += count;
        pairs.set(`${left},${right}`, pair);
      }
    }
    const best = [...pairs.values()].sort((a, b) => b.count - a.count || a.left - b.left || a.right - b.right)[0];
    if (best === undefined || best.count < 2) break;
    const made = 256 + merges.length;
    merges.push([best.left, best.right]);
    counts.push(best.count);
    for (const word of words.values()) word.symbols = mergedOnce(word.symbols, best.left, best.right, made);
  }
  return { merges, counts };
}

function mergedOnce(symbols: number[], left: number, right: number, made: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < symbols.length; i++) {
    const here = symbols[i] === left && symbols[i + 1] === right;
    result.push(here ? made : symbols[i]!);
    if (here) i++;
  }
  return result;
}

function mergesOf({ merges }: BpeTables): number[][] {
  return Array.from({ length: merges.length / 3 }, (_, i) => [merges[i * 3]!, merges[i * 3 + 1]!]);
}

describe("training", () => {
  const text = utf8(golden.text.value);

  test.each(golden.models)("golden: merges, their counts and all encodings at vocabulary $vocab", ({ vocab, merges, counts, encodings, text_tokens, text_sha256_u32le }) => {
    const trained = trainBpe(corpusOf(text), vocab, "");
    expect(mergesOf(trained.tables)).toEqual(merges);
    expect(trained.counts).toEqual(counts);
    expect(trained.tokens).toBe(text_tokens);
    const codec = new BpeCodec(trained.tables);
    for (const [i, { name, hex }] of golden.strings.entries()) expect([name, ...codec.encode(Buffer.from(hex, "hex"), false)]).toEqual([name, ...encodings[i]!]);
    const ids = codec.encode(text, false);
    expect(ids.length).toBe(text_tokens);
    expect(sha256(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength))).toBe(text_sha256_u32le);
  });

  test("is that of the plain rules on texts with runs, ties and ill-formed bytes, until no pair occurs twice", () => {
    const random = randomOf(8);
    for (let i = 0; i < 60; i++) {
      const text = i % 3 === 0 ? Uint8Array.from({ length: 400 }, () => 0x61 + random(2)) : i % 3 === 1 ? utf8(randomText(random, 80)) : randomBytes(random, 300);
      const { tables, counts } = trainBpe(corpusOf(text), 340, "");
      expect({ merges: mergesOf(tables), counts }).toEqual(trainPlainly(text, 340));
    }
    expect(mergesOf(trainBpe(corpusOf(utf8("abc def")), 1000, "").tables)).toEqual([]);
  });

  test("does not depend on where chunks end, and tells how far it is", () => {
    const long = Buffer.concat([fables(1_500_000, 3), utf8(golden.text.value), fables(1_000_000, 4)]);
    const seen: TrainingProgress[] = [];
    const whole = trainBpe(corpusOf(long), 1024, "", (now) => seen.push(now));
    // Begun elsewhere, the text is cut elsewhere; the pairs of this lead occur once and are not merged.
    for (const lead of [1, 5, 8]) {
      const shifted = trainBpe(corpusOf(Buffer.concat([Uint8Array.from({ length: lead }, (_, i) => i + 1), long])), 1024, "");
      expect({ merges: shifted.tables.merges, counts: shifted.counts }).toEqual({ merges: whole.tables.merges, counts: whole.counts });
    }
    expect(seen.filter(({ phase }) => phase === "counting").at(-1)).toEqual({ phase: "counting", done: long.length, total: long.length });
    expect(seen.filter(({ phase }) => phase === "counting").length).toBeGreaterThan(1);
    expect(seen.at(-1)).toEqual({ phase: "merging", done: 768, total: 768 });
    expect(trainBpe(corpusOf(long), 1024, "").tables).toEqual(whole.tables);
  });

  test("with an end of text: one id more, the last; the text is cut there and its name is not learned", () => {
    const stories = utf8("the hen the hen<|endoftext|>the fox the fox<|endoftext|>".repeat(30_000)); // beyond one chunk
    const { tables } = trainBpe(corpusOf(stories), 300, "<|endoftext|>");
    expect(tables.names.map((name) => name!).filter((name) => /[|<>]../.test(name) || name.includes("endof"))).toEqual([]);
    expect(tables.added).toEqual([{ id: tables.names.length, content: "<|endoftext|>", special: true, normalized: false }]);
    // A chunk may end anywhere in it, and then must not: what training counts is what encoding makes.
    for (let lead = 0; lead < 54; lead += 3) {
      const text = utf8("x".repeat(lead) + "the hen the hen<|endoftext|>the fox a fox<|endoftext|>".repeat(21_000));
      const trained = trainBpe(corpusOf(text), 262, "<|endoftext|>");
      expect(trained.tokens).toBe(new BpeCodec(trained.tables).encode(text, false).length - 42_000);
    }
    expect(failure(() => trainBpe(corpusOf(stories), 256, "<|endoftext|>")).message).toContain("and one for the end of text");
  });

  test("makes no token longer than 65,535 bytes", () => {
    const { tables } = trainBpe(corpusOf(Buffer.alloc(400_000, "-")), 300, "");
    expect(Math.max(...tables.names.map((name) => name!.length))).toBe(32_768);
  });
});

describe("encoding", () => {
  const trained = trainBpe(corpusOf(Buffer.concat([utf8(golden.text.value), Buffer.alloc(3000, "ab"), Buffer.alloc(1000, "a")])), 500, "").tables;

  /** The rule as it is written, on one piece. */
  function encodePlainly(tables: BpeTables, text: Uint8Array): number[] {
    const names = new Map(tables.names.map((name, id) => [name, id]));
    return piecesOf(tables.pattern, text).flatMap((piece) => {
      const ids = Array.from(piece, (byte) => names.get(byteNames[byte]!)!);
      for (;;) {
        let best = Infinity;
        let at = 0;
        for (let i = 0; i + 1 < ids.length; i++) {
          for (let rank = 0; rank < Math.min(best, tables.merges.length / 3); rank++) {
            if (tables.merges[rank * 3] === ids[i] && tables.merges[rank * 3 + 1] === ids[i + 1]) [best, at] = [rank, i];
          }
        }
        if (best === Infinity) return ids;
        ids.splice(at, 2, tables.merges[best * 3 + 2]!);
      }
    });
  }

  test("follows the plain rule, in words short and long, with merges in their order and in any other", () => {
    const random = randomOf(9);
    const order = Array.from({ length: trained.merges.length / 3 }, (_, i) => i).sort(() => random(3) - 1);
    const shuffled = { ...trained, merges: Int32Array.from(order.flatMap((i) => [...trained.merges.subarray(i * 3, i * 3 + 3)])) };
    for (const tables of [trained, shuffled]) {
      const codec = new BpeCodec(tables);
      for (let i = 0; i < 80; i++) {
        const text = i % 4 === 0 ? Uint8Array.from({ length: 1 + random(200) }, () => 0x61 + random(2)) : utf8(randomText(random, 1 + random(12)));
        const expected = encodePlainly(tables, text);
        expect([...codec.encode(text, false)]).toEqual(expected);
        expect([...codec.encode(text, false)]).toEqual(expected); // out of the cache
      }
    }
  });

  test("decode gives back any bytes: every value, random ones, ill-formed UTF-8, none", () => {
    const random = randomOf(10);
    const codec = new BpeCodec(trained);
    const texts: Uint8Array[] = [new Uint8Array(0), Uint8Array.of(0), Uint8Array.from({ length: 256 }, (_, i) => i), Uint8Array.from({ length: 65_536 }, (_, i) => (i % 2 === 0 ? i >> 9 : i >> 1))];
    for (let i = 0; i < 500; i++) texts.push(i % 2 === 0 ? crypto.getRandomValues(new Uint8Array(random(200))) : randomBytes(random, random(200)));
    for (const text of texts) {
      const ids = codec.encode(text, false);
      expect(Buffer.from(codec.decode(ids)).equals(text)).toBe(true);
      expect(ids.reduce((sum, id) => sum + codec.lengths[id]!, 0)).toBe(text.length);
    }
    for (const id of [500, -1, 1.5]) expect(failure(() => codec.decode([97, id])).message).toContain(`id ${id} at position 1 does not exist; ids are 0 to 499.`);
  });

  test("a megabyte without a break, and more distinct words than the cache holds", () => {
    const codec = new BpeCodec(trained);
    const run = Buffer.alloc(2 ** 20, "ab");
    const ids = codec.encode(run, false);
    expect(ids.length).toBeLessThan(run.length / 100);
    expect(Buffer.from(codec.decode(ids)).equals(run)).toBe(true);
    const many = utf8(Array.from({ length: 200_000 }, (_, i) => `egg${i.toString(36)}`).join(" "));
    const first = codec.encode(many, false);
    expect(Buffer.from(codec.decode(first)).equals(many)).toBe(true);
    expect(Buffer.from(codec.encode(many, false).buffer).equals(Buffer.from(first.buffer))).toBe(true);
  });

  test("in parts that end at a cut gives the ids of the whole, added tokens and prefix spaces too", () => {
    const random = randomOf(11);
    const added = ["<|endoftext|>", "end", "<|end", "1 a"].map((content, i) => ({ id: 500 + i, content, special: i === 0, normalized: i === 3 }));
    let cuts = 0;
    for (const addPrefixSpace of [false, true]) {
      const tokenizer = bpeTokenizer({ ...trained, names: [...trained.names], addPrefixSpace, added });
      for (let i = 0; i < 1500; i++) {
        const text = utf8(Array.from({ length: 25 }, () => (random(4) === 0 ? ["<|endoftext|>", "end", "<|end", "of", "1 a", "<|"][random(6)]! : snippets[random(snippets.length)]!)).join(""));
        const cut = tokenizer.cut(text.subarray(0, 1 + random(text.length)));
        if (cut === 0) continue;
        expect([...tokenizer.encode(text.subarray(0, cut)), ...tokenizer.encode(text.subarray(cut), cut)]).toEqual([...tokenizer.encode(text)]);
        cuts++;
      }
    }
    expect(cuts).toBeGreaterThan(800);
  });

  test("the byte-level alphabet is a bijection, and a name outside of it stands for itself", () => {
    expect(new Set(byteNames).size).toBe(256);
    for (const [byte, name] of byteNames.entries()) expect([...bytesOfName(name)]).toEqual([byte]);
    expect(byteNames[0x20]).toBe("Ġ");
    expect(bytesOfName("a b")).toEqual(utf8("a b"));
  });
});

test("golden: equal ids to the Hugging Face library on what it trained, by every supported pattern", () => {
  type Variant = { name: string; set: object; set_model: object; reverse_merges: boolean; ids: number[][] };
  const file = JSON.parse(readFileSync(join(import.meta.dir, "golden/huggingface-bpe.json"), "utf8")) as { tokenizer: { model: { merges: unknown[] } }; strings: string[]; variants: Variant[] };
  let ids = 0;
  for (const { name, set, set_model, reverse_merges, ids: expected } of file.variants) {
    const { model } = file.tokenizer;
    const merges = reverse_merges ? [...model.merges].reverse() : model.merges;
    const tokenizer = bpeTokenizer(readTokenizerJson(JSON.stringify({ ...file.tokenizer, ...set, model: { ...model, merges, ...set_model } }), name));
    for (const [i, text] of file.strings.entries()) {
      expect([name, text, ...tokenizer.encode(utf8(text))]).toEqual([name, text, ...expected[i]!]);
      ids += expected[i]!.length;
      if (name !== "add_prefix_space") expect(tokenizer.decode(expected[i]!)).toEqual(utf8(text));
    }
  }
  expect(file.variants.length).toBe(4);
  expect(ids).toBeGreaterThan(5000);
});
