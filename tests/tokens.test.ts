// Texts as token ids: token files with every way to damage them, encoding in memory, the split, and the order of windows, which must read each
// window once an epoch. Not the tokenizers: tokenizer.test.ts. Next: src/data/tokenfile.ts, src/data/tokens.ts.
import { expect, test } from "bun:test";
import { closeSync, copyFileSync, ftruncateSync, openSync, readFileSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { trainBpe } from "../src/data/bpe-train.ts";
import { openCorpus, splitCorpus, type Corpus } from "../src/data/corpus.ts";
import { fables } from "../src/data/fables.ts";
import { TokenFile, TokenFileWriter } from "../src/data/tokenfile.ts";
import { bpeTokenizer, openTokenizer, type Tokenizer } from "../src/data/tokenizer.ts";
import { encodeCorpus, openTokens, requireWindows, splitTokens, WindowOrder, type Tokens } from "../src/data/tokens.ts";
import type { EggError } from "../src/errors.ts";
import { failure } from "./failure.ts";
import { freshFolder } from "./program.ts";

const folder = freshFolder("tokens");
const at = (name: string): string => join(folder, name);
const text = Buffer.concat([fables(2_500_000, 5), new TextEncoder().encode("漢字 and ä\0")]); // more than two chunks
writeFileSync(at("text.txt"), text);
const corpus = await openCorpus(at("text.txt"));
const bpe = bpeTokenizer(trainBpe(corpus, 700, "").tables);
const characters = openTokenizer("characters", corpus);

function makeFile(name: string, tokenizer: Tokenizer, of: Corpus = corpus): string {
  const writer = new TokenFileWriter(at(name), tokenizer);
  for (const { ids } of encodeCorpus(of, tokenizer)) writer.write(ids);
  writer.finish(of.bytes);
  return at(name);
}

function all(tokens: Tokens): Int32Array {
  const ids = new Int32Array(tokens.count);
  tokens.read(0, ids);
  return ids;
}

async function refusal(action: () => Promise<unknown>): Promise<EggError> {
  const error = await action().then(() => null, (error: unknown) => error);
  return failure(() => {
    throw error;
  });
}

test.each([openTokenizer("bytes", null), characters, bpe])("$name: a token file, the text in memory, and the whole encoded at once are the same ids", async (tokenizer) => {
  const path = makeFile(`${tokenizer.kind}.tokens`, tokenizer);
  expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  const opened = await openCorpus(path);
  expect(opened.tokenFile).toMatchObject({ textBytes: text.length, width: 2, definition: tokenizer.definition, hash: tokenizer.hash, fileBytes: readFileSync(path).length });
  expect(opened.bytes).toBe(text.length);
  const expected = Buffer.from(Int32Array.from(tokenizer.encode(text)).buffer);
  for (const tokens of [openTokens(opened, tokenizer), openTokens(corpus, tokenizer)]) {
    expect(Buffer.from(all(tokens).buffer).equals(expected)).toBe(true);
    const some = new Int32Array(100);
    tokens.read(tokens.count - 100, some);
    expect([...some]).toEqual([...all(tokens).subarray(-100)]);
    for (const [offset, length] of [[tokens.count - 99, 100], [-1, 1], [0.5, 1]] as const) expect(() => tokens.read(offset, new Int32Array(length))).toThrow(RangeError);
  }
  expect(Buffer.from(tokenizer.decode(all(openTokens(opened, tokenizer)))).equals(text)).toBe(true);
  opened.close();
});

test("the layout is the documented one", () => {
  const file = readFileSync(makeFile("layout.tokens", bpe));
  const definition = Buffer.from(bpe.definition);
  const start = Math.ceil((100 + definition.length) / 64) * 64;
  const ids = Uint16Array.from(bpe.encode(text));
  expect(file.subarray(0, 8).toString("latin1")).toBe("EGGTOKS\0");
  expect([file.readUInt32LE(8), file.readUInt32LE(12), file.readBigUInt64LE(16), file.readBigUInt64LE(24)]).toEqual([2, 2, BigInt(ids.length), BigInt(text.length)]);
  expect(file.subarray(32, 64).toString("hex")).toBe(bpe.hash);
  expect(file.readUInt32LE(64)).toBe(definition.length);
  expect(file.subarray(68, 100).toString("hex")).toBe(new Bun.CryptoHasher("sha256").update(ids).digest("hex"));
  expect(file.subarray(100, 100 + definition.length).equals(definition)).toBe(true);
  expect(file.subarray(100 + definition.length, start).every((byte) => byte === 0)).toBe(true);
  expect(file.subarray(start).equals(Buffer.from(ids.buffer))).toBe(true);
});

test("a vocabulary beyond 65,536 takes 4 bytes an id; an id beyond the vocabulary is not written", () => {
  for (const [vocabulary, width] of [[65_536, 2], [65_537, 4]] as const) {
    const writer = new TokenFileWriter(at("wide.tokens"), { definition: "bytes", vocabulary });
    writer.write(Uint32Array.of(0, 65_535, vocabulary - 1));
    expect(() => writer.write(Uint32Array.of(1, vocabulary))).toThrow(RangeError);
    writer.finish(9);
    const file = TokenFile.openIf(at("wide.tokens"))!;
    const ids = new Int32Array(3);
    file.read(0, ids, vocabulary);
    expect([file.width, file.count, ...ids]).toEqual([width, 3, 0, 65_535, vocabulary - 1]);
    file.close();
  }
});

test("what is abandoned leaves nothing, what is not finished cannot be read", () => {
  const before = readdirSync(folder);
  const writer = new TokenFileWriter(at("never.tokens"), bpe);
  writer.write(Uint32Array.of(1, 2, 3));
  const [temporary] = readdirSync(folder).filter((name) => !before.includes(name));
  copyFileSync(at(temporary!), at("torn.tokens"));
  expect(failure(() => TokenFile.openIf(at("torn.tokens"))).message).toContain("a damaged token file: expected");
  writer.abandon();
  expect(readdirSync(folder).filter((name) => name !== "torn.tokens")).toEqual(before);
});

test("damaged and foreign files are refused, in whatever byte", async () => {
  const good = readFileSync(at("bpe.tokens"));
  const changed = (name: string, change: (file: Buffer) => Buffer | void): string => {
    const copy = Buffer.from(good);
    writeFileSync(at(name), change(copy) ?? copy);
    return at(name);
  };
  const cases: [string, (file: Buffer) => Buffer | void, string][] = [
    ["cut.tokens", (file) => file.subarray(0, -1), "expected"],
    ["longer.tokens", (file) => Buffer.concat([file, Buffer.of(0)]), "expected"],
    ["head.tokens", (file) => file.subarray(0, 40), "its head takes 100 bytes, the file ends at 40"],
    ["magic.tokens", (file) => file.subarray(0, 8), "its head takes 100 bytes"],
    ["version.tokens", (file) => void file.writeUInt32LE(3, 8), "a token file of version 3; this egg reads 1 to 2"],
    ["width.tokens", (file) => void file.writeUInt32LE(3, 12), "ids of 3 bytes"],
    ["count.tokens", (file) => void file.writeBigUInt64LE(2n ** 63n, 16), "expected"],
    ["bytes.tokens", (file) => void file.writeBigUInt64LE(2n ** 63n, 24), "expected"],
    ["definition.tokens", (file) => void file.writeUInt8(file[132]! ^ 1, 132), "does not have the hash in its head"],
    ["hash.tokens", (file) => void file.writeUInt8(file[40]! ^ 1, 40), "does not have the hash in its head"],
    ["length.tokens", (file) => void file.writeUInt32LE(0xffff_ffff, 64), "a definition of 4,294,967,295 bytes"],
  ];
  for (const [name, change, says] of cases) {
    const error = await refusal(() => openCorpus(changed(name, change)));
    expect(error.kind).toBe("data");
    for (const words of [`[data] ${at(name)}: `, says]) expect(error.message).toContain(words);
  }
  const beyond = await openCorpus(changed("beyond.tokens", (file) => void file.writeUInt16LE(700, file.length - 6)));
  const tokens = openTokens(beyond, bpe);
  tokens.read(0, new Int32Array(tokens.count - 3));
  expect(failure(() => all(tokens)).message).toContain(`token ${(tokens.count - 3).toLocaleString("en-US")} is 700, its tokenizer has ids from 0 to 699`);
  beyond.close();
});

test("an id that became another is found by its checksum, one beyond the vocabulary by itself; files of version 1 have no checksum", () => {
  const good = readFileSync(at("bpe.tokens"));
  const open = (name: string, file: Buffer): TokenFile => {
    writeFileSync(at(name), file);
    return TokenFile.openIf(at(name))!;
  };
  const check = (file: TokenFile): number => {
    let read = 0;
    file.check(bpe.vocabulary, (tokens) => (read = tokens));
    file.close();
    return read;
  };
  const last = good.readUInt16LE(good.length - 2);
  const changed = (id: number): Buffer => {
    const copy = Buffer.from(good);
    copy.writeUInt16LE(id, copy.length - 2);
    return copy;
  };
  expect(check(open("whole.tokens", good))).toBe(bpe.encode(text).length);
  expect(failure(() => check(open("other.tokens", changed(last ^ 1)))).message).toBe(`[data] ${at("other.tokens")}: a damaged token file: its ids do not have the hash in its head.`);
  expect(failure(() => check(open("outside.tokens", changed(700)))).message).toContain("is 700, its tokenizer has ids from 0 to 699");
  const definition = Buffer.from(bpe.definition);
  const first = Buffer.alloc(Math.ceil((68 + definition.length) / 64) * 64);
  good.copy(first, 0, 0, 68);
  first.writeUInt32LE(1, 8);
  definition.copy(first, 68);
  const older = (end: Buffer): TokenFile => open("older.tokens", Buffer.concat([first, end.subarray(Math.ceil((100 + definition.length) / 64) * 64)]));
  expect(older(good).idsHash).toBeNull();
  expect(check(older(changed(last ^ 1)))).toBe(bpe.encode(text).length);
  expect(failure(() => check(older(changed(700)))).message).toContain("is 700");
});

test("a file that is shortened while in use is an error, not the end of the process", async () => {
  copyFileSync(at("bpe.tokens"), at("shrinking.tokens"));
  const opened = await openCorpus(at("shrinking.tokens"));
  const tokens = openTokens(opened, bpe);
  tokens.read(tokens.count - 10, new Int32Array(10));
  truncateSync(at("shrinking.tokens"), 8192);
  const error = failure(() => all(tokens));
  expect(error).toMatchObject({ kind: "data", message: expect.stringContaining("the file now ends at 8,192") });
  opened.close();
});

test("a file that is replaced while in use stays what it was", async () => {
  copyFileSync(at("bpe.tokens"), at("replaced.tokens"));
  const opened = await openCorpus(at("replaced.tokens"));
  const expected = all(openTokens(await openCorpus(at("bpe.tokens")), bpe));
  copyFileSync(at("characters.tokens"), at("other.tokens"));
  renameSync(at("other.tokens"), at("replaced.tokens"));
  expect(all(openTokens(opened, bpe))).toEqual(expected);
  opened.close();
});

test("a file of more than 4 GiB is read at its end", () => {
  const writer = new TokenFileWriter(at("large.tokens"), { definition: "bytes", vocabulary: 256 });
  writer.write(Uint32Array.of(7));
  writer.finish(1);
  const count = 2_200_000_000;
  const file = openSync(at("large.tokens"), "r+");
  ftruncateSync(file, 128 + count * 2); // sparse: takes no room on disk
  writeSync(file, Buffer.from(new BigUint64Array([BigInt(count)]).buffer), 0, 8, 16);
  writeSync(file, Buffer.of(8, 0, 9, 0), 0, 4, 2 ** 30 - 2); // across two mappings
  writeSync(file, Buffer.of(5, 0), 0, 2, 128 + count * 2 - 2);
  closeSync(file);
  const opened = TokenFile.openIf(at("large.tokens"))!;
  expect(opened.count).toBe(count);
  const ids = new Int32Array(3);
  opened.read(0, ids, 256);
  expect([...ids]).toEqual([7, 0, 0]);
  opened.read((2 ** 30 - 128) / 2 - 2, ids, 256);
  expect([...ids]).toEqual([0, 8, 9]);
  opened.read(count - 3, ids, 256);
  expect([...ids]).toEqual([0, 0, 5]);
  opened.close();
  rmSync(at("large.tokens"));
});

test("a tokenizer that does not match, and text where there are only tokens", async () => {
  const opened = await openCorpus(at("bpe.tokens"));
  const error = failure(() => openTokens(opened, characters));
  expect(error).toMatchObject({ kind: "data", message: `[data] ${at("bpe.tokens")}: its tokens were made with the tokenizer bpe (700), ${bpe.hash.slice(0, 12)}; this run's is ${characters.name}, ${characters.hash.slice(0, 12)}.` });
  expect(failure(() => openTokenizer("characters", opened)).message).toContain('its tokens are of the tokenizer bpe (700), asked for is "characters"');
  expect(openTokenizer("characters", await openCorpus(at("characters.tokens"))).hash).toBe(characters.hash);
  for (const view of [opened, splitCorpus(opened, 0.1).heldOut!]) expect(failure(() => view.read(0, new Uint8Array(1)))).toMatchObject({ kind: "data", message: expect.stringContaining("it holds tokens, not text") });
  // The fingerprint is of the file: another text gives another one.
  expect(opened.fingerprint()).toMatch(/^[0-9a-f]{32}$/);
  expect(opened.fingerprint()).not.toBe((await openCorpus(at("characters.tokens"))).fingerprint());
  opened.close();
});

test("characters that the vocabulary lacks are named with their offset in the whole text", () => {
  const late: Corpus = { ...corpus, bytes: 3_000_000, read: (offset, target) => void target.forEach((_, i) => (target[i] = offset + i === 2_999_990 ? 0x7e : 0x65)) };
  expect(failure(() => openTokens(late, characters)).message).toContain('"~" (U+007E) at byte 2,999,990');
});

test("split: the first floor(count * (1 - validation)) tokens, and the rest", () => {
  const tokens = openTokens(corpus, bpe);
  for (const validation of [0.1, 0.5, 0.0001]) {
    const { train, heldOut } = splitTokens(tokens, validation);
    expect(train.count).toBe(Math.floor(tokens.count * (1 - validation)));
    expect([...all(train).subarray(-5), ...all(heldOut!)]).toEqual([...all(tokens).subarray(train.count - 5)]);
    expect(() => train.read(train.count, new Int32Array(1))).toThrow(RangeError);
  }
  expect(splitTokens(tokens, 0)).toMatchObject({ heldOut: null, train: { count: tokens.count } });
});

// ---- the order of windows

/** Number of the window in its epoch, and the epoch's offset. */
const starts = (order: WindowOrder, epoch: number): number[] => Array.from({ length: order.windows }, (_, i) => order.start(epoch * order.windows + i));

test("every window of an epoch once, none beyond the text, whatever the counts", () => {
  for (const block of [1, 2, 3, 64]) {
    for (const windows of [1, 2, 3, 4, 5, 15, 16, 17, 64, 65, 255, 257, 1000]) {
      for (const rest of [0, block >> 1, block - 1]) {
        const count = windows * block + 1 + rest;
        const order = new WindowOrder(count, block, windows * 7 + rest);
        expect(order.windows).toBe(windows);
        for (const epoch of [0, 1, 2, 1000]) {
          const sorted = starts(order, epoch).sort((a, b) => a - b);
          const offset = sorted[0]!;
          expect(offset).toBeGreaterThanOrEqual(0);
          expect(offset).toBeLessThanOrEqual(rest);
          expect(sorted).toEqual(Array.from({ length: windows }, (_, i) => offset + i * block));
          expect(sorted.at(-1)! + block).toBeLessThanOrEqual(count - 1); // its last target
        }
      }
    }
  }
});

test("seed and epoch each give another order; the same ones the same, asked in any order", () => {
  const order = (seed: number) => new WindowOrder(64 * 500 + 40, 64, seed);
  const seen = new Map<string, string>();
  for (const seed of [0, 1, 2, 42, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) {
    for (const epoch of [0, 1, 2, 3]) {
      const key = starts(order(seed), epoch).join();
      expect(seen.get(key)).toBeUndefined();
      seen.set(key, `${seed} ${epoch}`);
    }
  }
  const forward = order(9);
  const expected = [...starts(forward, 0), ...starts(forward, 1)];
  const backward = order(9);
  expect(expected.map((_, i) => backward.start(expected.length - 1 - i)).reverse()).toEqual(expected);
  // Pinned: a run that is resumed by a later version reads on in the same order.
  expect(Array.from({ length: 8 }, (_, i) => new WindowOrder(10_000, 64, 42).start(i))).toEqual([1473, 2561, 5185, 5697, 8449, 2113, 2241, 4737]);
});

test("the order looks random: places, neighbours and offsets are spread evenly", () => {
  const windows = 16;
  const epochs = 4000;
  const order = new WindowOrder(windows * 10 + 1 + 9, 10, 3);
  const places = Array.from({ length: windows }, () => new Array<number>(windows).fill(0));
  const offsets = new Array<number>(10).fill(0);
  let neighbours = 0;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const found = starts(order, epoch);
    const offset = Math.min(...found);
    offsets[offset]!++;
    found.forEach((start, i) => {
      places[i]![(start - offset) / 10]!++;
      if (i > 0 && start - found[i - 1]! === 10) neighbours++;
    });
  }
  // Chi-squared against the uniform distribution: 255 and 9 degrees of freedom, bounds far beyond chance (p < 1e-9).
  const chi = (counts: number[], expected: number) => counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  expect(chi(places.flat(), epochs / windows)).toBeLessThan(430);
  expect(chi(offsets, epochs / 10)).toBeLessThan(62);
  expect(neighbours / (epochs * (windows - 1))).toBeCloseTo(1 / windows, 2); // one in 16 is followed by its neighbour
});

test("exact where counts are beyond 2^32", () => {
  const block = 3;
  const order = new WindowOrder(2 ** 42 + 5, block, 7);
  expect(order.windows).toBe(Math.floor((2 ** 42 + 4) / 3));
  const seen = new Set<number>();
  const offset = order.start(0) % block;
  for (let i = 0; i < 20_000; i++) {
    const start = order.start(i);
    expect(start % block).toBe(offset);
    expect(start).toBeLessThanOrEqual(2 ** 42 + 5 - 1 - block);
    seen.add(start);
  }
  expect(seen.size).toBe(20_000);
  expect([...seen].filter((start) => start > 2 ** 41).length).toBeGreaterThan(9000);
  expect(() => order.start(-1)).toThrow(RangeError);
  expect(() => order.start(0.5)).toThrow(RangeError);
});

test("too short for a window: needed, found, and the knob to lower", () => {
  const tokens = (count: number): Tokens => ({ name: "tale.txt", count, read() {} });
  expect(failure(() => requireWindows(tokens(64), 64))).toMatchObject({
    kind: "data", message: "[data] tale.txt: a window of 64 tokens and its last target needs 65 tokens, found 64.", hint: "Give more text, or lower model.block.",
  });
  requireWindows(tokens(65), 64);
  expect(new WindowOrder(65, 64, 1).start(12)).toBe(0);
  expect(() => new WindowOrder(64, 64, 1)).toThrow(RangeError);
});
