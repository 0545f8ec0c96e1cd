// The three tokenizers behind one face: bytes and characters, definitions that bring them back, tokenizer.json with all that it may hold and
// all that is refused. Not the merging: bpe.test.ts. Next: src/data/tokenizer.ts, src/data/huggingface.ts.
import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { trainBpe } from "../src/data/bpe-train.ts";
import { openCorpus, type Corpus } from "../src/data/corpus.ts";
import { factsOf } from "../src/data/facts.ts";
import { readTokenizerJson, writeCharactersJson, writeTokenizerJson } from "../src/data/huggingface.ts";
import { bpeTokenizer, openTokenizer, tokenizerFrom, type Tokenizer } from "../src/data/tokenizer.ts";
import { characterAt, characterBefore, classOf, digit, illFormed, letter, other, space, wholeCharacters } from "../src/data/utf8.ts";
import { EggError } from "../src/errors.ts";
import { failure } from "./failure.ts";
import { freshFolder } from "./program.ts";

const folder = freshFolder("tokenizer");
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const allBytes = Uint8Array.from({ length: 256 }, (_, i) => i);

function write(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

async function corpusOf(content: string | Uint8Array): Promise<Corpus> {
  return openCorpus(write("text.bin", content));
}

const golden = JSON.parse(readFileSync(join(import.meta.dir, "golden/huggingface-bpe.json"), "utf8")) as { tokenizer: Record<string, unknown> & { model: Record<string, unknown> } };

// ---- characters of bytes

test("UTF-8: every code point and its class; every byte that belongs to none stands for itself", () => {
  for (let code = 0; code < 0x110000; code += code < 0x3000 ? 1 : 37) {
    if (code >= 0xd800 && code < 0xe000) continue;
    const text = utf8(String.fromCodePoint(code));
    expect(characterAt(text, 0, text.length)).toBe(code * 8 + text.length);
    expect(characterBefore(text, text.length)).toBe(0);
    const character = String.fromCodePoint(code);
    const expected = /\p{L}/u.test(character) ? letter : /\p{N}/u.test(character) ? digit : /\p{White_Space}/u.test(character) ? space : other;
    if (classOf(code) !== expected) throw new Error(`U+${code.toString(16)}: class ${classOf(code)} instead of ${expected}`);
    for (let cut = 1; cut < text.length; cut++) {
      expect(characterAt(text, 0, cut)).toBe((illFormed + text[0]!) * 8 + 1);
      expect(wholeCharacters(text.subarray(0, cut))).toBe(0);
    }
  }
  // Too long, surrogates, beyond Unicode, lone ones; judged by the decoder of the platform.
  for (const hex of ["c080", "c1bf", "e08080", "e09fbf", "eda080", "edbfbf", "f0808080", "f08fbfbf", "f4908080", "f5808080", "ff", "80", "bf", "c3", "c328", "e28228", "f09f9028"]) {
    const text = Uint8Array.from(Buffer.from(hex, "hex"));
    expect(() => new TextDecoder("utf-8", { fatal: true }).decode(text)).toThrow();
    expect(characterAt(text, 0, text.length)).toBe((illFormed + text[0]!) * 8 + 1);
  }
});

// ---- bytes and characters

test("bytes: identity over 256 values, and an id that does not exist is refused", () => {
  const bytes = openTokenizer("bytes", null);
  expect(bytes).toMatchObject({ kind: "bytes", name: "bytes", vocabulary: 256, definition: "bytes", endOfText: null });
  expect([...bytes.encode(allBytes)]).toEqual([...allBytes]);
  expect(bytes.decode(bytes.encode(allBytes))).toEqual(allBytes);
  expect([...bytes.lengths]).toEqual(new Array(256).fill(1));
  for (const id of [256, -1, 0.5]) expect(() => bytes.decode([104, id])).toThrow(EggError);
});

test("characters: those of the whole text in ascending order, ill-formed bytes behind them", async () => {
  const corpus = await corpusOf(Buffer.concat([utf8("zä🐔a\0漢 a"), Uint8Array.of(0xff, 0x41, 0xc3, 0x80, 0x80)]));
  const characters = openTokenizer("characters", corpus);
  expect(characters).toMatchObject({ kind: "characters", name: "characters (11)", vocabulary: 11, endOfText: null });
  expect(JSON.parse(characters.definition)).toEqual({ characters: "\0 Aaz\u00c0\u00e4漢🐔", bytes: [0x80, 0xff] }); // c3 80 is U+00C0
  expect([...characters.encode(utf8("A 🐔"))]).toEqual([2, 1, 8]);
  expect([...characters.encode(Uint8Array.of(0xff, 0x80, 0))]).toEqual([10, 9, 0]);
  expect([...characters.lengths]).toEqual([1, 1, 1, 1, 1, 2, 2, 3, 4, 1, 1]);
  const text = new Uint8Array(corpus.bytes);
  corpus.read(0, text);
  expect(characters.decode(characters.encode(text))).toEqual(text);
  expect(failure(() => characters.decode([0, 11])).message).toContain("id 11 at position 1 does not exist; ids are 0 to 10.");
});

test("characters: what the vocabulary lacks is named, with its place in the whole text", async () => {
  const characters = openTokenizer("characters", await corpusOf("hens"));
  const unknown = failure(() => characters.encode(utf8("hen ä"), 1_000_000));
  expect(unknown).toMatchObject({ kind: "data", message: "[tokenizer] characters: U+0020 at byte 1,000,003 is not in the vocabulary of 4 characters." });
  expect(unknown.hint).toContain("bytes and bpe take any text");
  expect(failure(() => characters.encode(utf8("hä"))).message).toContain('"ä" (U+00E4) at byte 1');
  expect(failure(() => characters.encode(Uint8Array.of(0x68, 0xc3))).message).toContain("byte 0xC3, which is not well-formed UTF-8 at byte 1");
  expect(failure(() => openTokenizer("characters", null)).kind).toBe("usage");
});

test("characters and facts of a text do not depend on where its chunks end", async () => {
  // 3-byte characters against chunks of 2^20 bytes: every chunk ends inside one.
  const long = Buffer.concat([utf8(`x${"漢字\n".repeat(350_000)}`), Uint8Array.of(0, 0xe6), utf8("\0\0end")]);
  const corpus = await corpusOf(long);
  expect(JSON.parse(openTokenizer("characters", corpus).definition)).toEqual({ characters: "\0\ndenx字漢", bytes: [0xe6] });
  expect(factsOf(corpus)).toEqual({
    bytes: long.length, characters: 1 + 3 * 350_000 + 3 + 3, distinctCharacters: 8, illFormedBytes: 1, distinctBytes: new Set(long).size, lines: 350_001, documents: 3,
  });
  expect(factsOf(await corpusOf("one\ntwo\n"))).toMatchObject({ lines: 2, documents: 1 });
});

// ---- definitions

test("a definition brings an equal tokenizer back; equal tokenizers have equal definitions", async () => {
  const corpus = await corpusOf("The hens don't know. They'll lay 12 eggs: it is what they do, ä漢🐔, again and again and again.\xff");
  const bpe = bpeTokenizer(trainBpe(corpus, 300, "<|endoftext|>").tables);
  const huggingFace = bpeTokenizer(readTokenizerJson(JSON.stringify(golden.tokenizer), "golden"));
  for (const tokenizer of [openTokenizer("bytes", null), openTokenizer("characters", corpus), bpe, huggingFace]) {
    const again = tokenizerFrom(tokenizer.definition);
    const parts = ({ kind, name, vocabulary, definition, hash, endOfText, lengths }: Tokenizer) => ({ kind, name, vocabulary, definition, hash, endOfText, lengths });
    expect(parts(again)).toEqual(parts(tokenizer));
    expect(tokenizer.hash).toBe(new Bun.CryptoHasher("sha256").update(tokenizer.definition).digest("hex"));
    expect(tokenizer.definition).not.toContain("\n");
    const text = utf8("hens lay eggs and eggs");
    expect([...again.encode(text)]).toEqual([...tokenizer.encode(text)]);
  }
  expect(bpe.endOfText).toBe(bpe.vocabulary - 1);
  expect(huggingFace.endOfText).toBe(0);
  expect([...bpe.encode(utf8("hens<|endoftext|>"))].at(-1)).toBe(bpe.vocabulary - 1);
});

test("a damaged definition is corrupt", () => {
  const wrong = ["", "byte", "{}", "null", "[]", '{"characters":"ba","bytes":[]}', '{"characters":"aa","bytes":[]}', '{"characters":"","bytes":[]}', '{"characters":"a"}', '{"characters":1,"bytes":[]}',
    '{"characters":"a","bytes":[256]}', '{"characters":"a","bytes":["x"]}', '{"characters":"\\ud800","bytes":[]}', '{"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}', `"${"x".repeat(1000)}"`];
  for (const definition of wrong) {
    const error = failure(() => tokenizerFrom(definition));
    expect([definition, error.kind]).toEqual([definition, "corrupt"]);
    expect(error.message.length).toBeLessThan(400);
  }
});

// ---- tokenizer.json

test("a written file is read back as the same tokenizer, and is JSON with a line for each token and merge", async () => {
  const { tables } = trainBpe(await corpusOf("0 1 2 10 20 \"quoted\" \\ again \"quoted\" \\ again, the hens, the hens"), 280, "<|endoftext|>");
  const file = writeTokenizerJson(tables, true);
  expect(file.split("\n").length).toBeGreaterThan(280 + 20);
  const opened = openTokenizer(write("tokenizer.json", file), null);
  expect(opened.definition).toBe(bpeTokenizer(tables).definition);
  const parsed = JSON.parse(file);
  expect(parsed.model).toMatchObject({ type: "BPE", ignore_merges: false });
  expect(Object.keys(parsed.model.vocab).length).toBe(tables.names.length);
  expect(parsed.model.merges[0]).toBe(`${tables.names[tables.merges[0]!]} ${tables.names[tables.merges[1]!]}`);
  expect(parsed.pre_tokenizer).toEqual({ type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true });
  expect(parsed.added_tokens).toEqual([{ id: tables.names.length, content: "<|endoftext|>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }]);
});

test("characters that were written are read back with equal ids; another WordLevel is refused", async () => {
  const text = "0 10 \"a\" \\ é漢🐔\ufeff\n\t<0xFF> \u0000";
  const corpus = await corpusOf(Buffer.concat([utf8(text), Uint8Array.of(0x80, 0xff)]));
  const characters = openTokenizer("characters", corpus);
  const file = writeCharactersJson(Array.from({ length: characters.vocabulary }, (_, id) => characters.decode([id])));
  expect(openTokenizer(write("characters.json", file), null).definition).toBe(characters.definition);
  const good = { ...JSON.parse(file), model: { type: "WordLevel", vocab: { a: 0, b: 1 }, unk_token: "<unk>" } };
  expect(openTokenizer(write("two.json", JSON.stringify(good)), null).name).toBe("characters (2)");
  const wrong: [change: object, says: string][] = [
    [{ pre_tokenizer: { type: "Whitespace" } }, "pre_tokenizer"], [{ normalizer: { type: "NFC" } }, "normalizer"], [{ added_tokens: [{ id: 2, content: "<s>" }] }, "added_tokens"],
    ...[{ hen: 0 }, { a: 0, b: 2 }, { b: 0, a: 1 }, { "<0xFF>": 0, a: 1 }, { "\ud800": 0 }, {}, [], { a: -1 }, { a: 0, b: 0 }].map((vocab): [object, string] => [{ model: { type: "WordLevel", vocab } }, "model.vocab"]),
  ];
  for (const [change, says] of wrong) {
    expect(failure(() => openTokenizer(write("wrong.json", JSON.stringify({ ...good, ...change })), null))).toMatchObject({ kind: "data", message: expect.stringContaining(`wrong.json: ${says}`) });
  }
});

const { tokenizer: good } = golden;
const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const vocab = good.model["vocab"] as Record<string, number>;

/** Fields to be changed (of the file, of its model), and what the complaint must say; null where it is to be taken. */
const variants: [file: object, model: object, says: string[] | null][] = [
  [{}, {}, null],
  [{ normalizer: { type: "Sequence", normalizers: [] } }, {}, null],
  [{ decoder: null, post_processor: null }, { type: undefined, unk_token: "<|endoftext|>", continuing_subword_prefix: "", end_of_word_suffix: "", fuse_unk: true, ignore_merges: true }, null],
  [{ post_processor: { type: "Sequence", processors: [level, { type: "TemplateProcessing" }] } }, {}, null],
  [{ pre_tokenizer: { type: "Sequence", pretokenizers: [level] } }, {}, null],
  [{ pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }, {}, null],
  [{}, { merges: (good.model["merges"] as (string | string[])[]).map((merge) => (typeof merge === "string" ? merge : merge.join(" "))) }, null],
  [{ normalizer: { type: "NFC" } }, {}, ["normalizer", '{"type":"NFC"}', "supported none"]],
  [{ truncation: { max_length: 512 } }, {}, ["truncation", "512", "null"]],
  [{ padding: {} }, {}, ["padding"]],
  [{ decoder: { type: "WordPiece" } }, {}, ["decoder", "WordPiece", "supported ByteLevel"]],
  [{ post_processor: { type: "Magic" } }, {}, ["post_processor", "Magic"]],
  [{ pre_tokenizer: null }, {}, ["pre_tokenizer", "null", "ByteLevel"]],
  [{ pre_tokenizer: { type: "Metaspace" } }, {}, ["pre_tokenizer", "Metaspace"]],
  [{ pre_tokenizer: { ...level, use_regex: false } }, {}, ["pre_tokenizer", "use_regex"]],
  [{ pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Digits" }, level] } }, {}, ["pre_tokenizer", "Digits"]],
  [{ pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Split", pattern: { Regex: "\\w+" }, behavior: "Isolated", invert: false }, { ...level, use_regex: false }] } }, {}, ["pre_tokenizer: Split.pattern", "\\\\w+", "gpt2, llama3, qwen2"]],
  [{ pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Split", pattern: { String: " " }, behavior: "MergedWithNext" }, { ...level, use_regex: false }] } }, {}, ["MergedWithNext", "Isolated"]],
  [{ model: null }, {}, ["model", "null"]],
  [{}, { type: "Unigram" }, ["model.type", '"Unigram"', '"BPE"']],
  [{}, { dropout: 0.1 }, ["model.dropout", "0.1"]],
  [{}, { byte_fallback: true }, ["model.byte_fallback", "true"]],
  [{}, { continuing_subword_prefix: "##" }, ["model.continuing_subword_prefix", "##"]],
  [{}, { end_of_word_suffix: "</w>" }, ["model.end_of_word_suffix", "</w>"]],
  [{}, { ignore_merges: 1 }, ["model.ignore_merges"]],
  [{}, { vocab: [] }, ["model.vocab", "[]"]],
  [{}, { vocab: { ...vocab, again: 5 } }, ['model.vocab["again"]', "found 5", "one token an id"]],
  [{}, { vocab: { ...vocab, more: -1 } }, ['model.vocab["more"]', "-1", "0 to 1,048,575"]],
  [{}, { vocab: { ...vocab, more: 2 ** 20 } }, ["1048576"]],
  [{}, { vocab: { ...vocab, "": 900 } }, ["model.vocab", "1 to 65,535 bytes"]],
  [{}, { vocab: Object.fromEntries(Object.entries(vocab).filter(([name]) => name !== "Ġ" && name !== "ÿ")) }, ["model.vocab", "2 of the 256 bytes"]],
  [{}, { merges: undefined }, ["model.merges", "a list"]],
  [{}, { merges: [["a"]] }, ["model.merges[0]", '["a"]']],
  [{}, { merges: ["a b c"] }, ["model.merges[0]", "a b c"]],
  [{}, { merges: ["a b", "q zzz"] }, ["model.merges["]],
  [{ added_tokens: {} }, {}, ["added_tokens", "a list"]],
  [{ added_tokens: [{ id: 900, content: "<m>", lstrip: true }] }, {}, ["added_tokens[0].lstrip", "<m>"]],
  [{ added_tokens: [{ id: 5, content: "<m>" }] }, {}, ["added_tokens[0].id", "an id that no other token has"]],
  [{ added_tokens: [{ id: 900, content: "e" }] }, {}, ["added_tokens[0].id", "as in model.vocab"]],
  [{ added_tokens: [{ id: 900, content: "<m>" }, { id: 900, content: "<n>" }] }, {}, ["added_tokens[1].id", "no other added token"]],
  [{ added_tokens: [{ id: 1.5, content: "<m>" }] }, {}, ["added_tokens[0]"]],
];

test.each(variants.map(([file, model, says]) => [JSON.stringify({ ...file, ...(Object.keys(model).length === 0 ? {} : { model }) })?.slice(0, 90), file, model, says] as const))("tokenizer.json with %s", (_, file, model, says) => {
  const text = JSON.stringify({ ...good, model: { ...good.model, ...model }, ...file });
  if (says === null) {
    expect(bpeTokenizer(readTokenizerJson(text, "file")).vocabulary).toBe(502);
    return;
  }
  const error = failure(() => readTokenizerJson(text, "mine.json"));
  expect(error.kind).toBe("data");
  for (const words of ["[tokenizer] mine.json: ", ...says]) expect(error.message).toContain(words);
  expect(error.message.length).toBeLessThan(600);
});

test("ids with gaps: the missing ones cannot be decoded; names outside the alphabet and __proto__ are names", () => {
  const text = JSON.stringify({ ...good, added_tokens: [{ id: 1000, content: "<m>" }], model: { ...good.model, vocab: { ...vocab, "naïve token": 900 } } }).replace('"naïve token":900', '"naïve token":900,"__proto__":901');
  const tokenizer = bpeTokenizer(readTokenizerJson(text, "gaps"));
  expect(tokenizer.vocabulary).toBe(1001);
  expect(new TextDecoder().decode(tokenizer.decode([900, 901, 1000]))).toBe("naïve token__proto__<m>");
  expect(failure(() => tokenizer.decode([950])).message).toContain("id 950");
  expect(tokenizer.lengths[950]).toBe(0);
  expect(tokenizerFrom(tokenizer.definition).definition).toBe(tokenizer.definition);
});

test("damaged files: any change is taken or refused by name, never another error", () => {
  const text = JSON.stringify(good);
  let state = 99;
  const random = (below: number) => Math.floor(((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32) * below);
  let refused = 0;
  for (let i = 0; i < 300; i++) {
    const at = random(text.length);
    const changed = i % 3 === 0 ? text.slice(0, at) : text.slice(0, at) + ["", "0", '"', "null", "-1e9", "{}", "[", "\\u0000"][random(8)]! + text.slice(at + random(6));
    try {
      bpeTokenizer(readTokenizerJson(changed, "file")).encode(utf8("The hens don't know."));
    } catch (error) {
      if (!(error instanceof EggError)) throw error;
      expect(error.kind).toBe("data");
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(100);
});

test("paths that are no tokenizer", () => {
  mkdirSync(join(folder, "a-folder"));
  const cases: [path: string, says: string][] = [
    ["byte", "there is no such file"], [join(folder, "a-folder"), "it is a folder"], [write("none.json", "{"), "it is no JSON"], [write("config.json", '{"preset":"egg"}'), 'a field "model" is missing'],
    [write("list.json", "[1]"), "no tokenizer"], [write("binary.json", Uint8Array.of(0xff, 0xfe, 0)), "it is no text"], [write("empty.json", ""), "it is no JSON"], ["/dev/zero", "no plain file"],
  ];
  for (const [path, says] of cases) expect(failure(() => openTokenizer(path, null))).toMatchObject({ kind: "data", message: expect.stringContaining(says) });
  expect(failure(() => openTokenizer("byte", null)).hint).toContain("did you mean bytes?");
});

test("bpe:N is learned from the text, the same as by training and saving it", async () => {
  const text = await corpusOf("the cat sat on the mat; the bat sat on the cat. ".repeat(20));
  const learned = openTokenizer("bpe:270", text);
  expect(learned.definition).toBe(bpeTokenizer(trainBpe(text, 270, "").tables).definition);
  expect([learned.kind, learned.vocabulary]).toEqual(["bpe", 270]);
  expect(() => openTokenizer("bpe:255", text)).toThrow("byte-level BPE needs 256 tokens");
  expect(() => openTokenizer("bpe:270", null)).toThrow("made from a text");
});
