// Corpora, splits and batch cursors, on real files in a fresh folder.
// Not the words of the built-in text: that is fables.test.ts. Read src/data/corpus.ts next.

import { afterAll, expect, test } from "bun:test";
import {
  chmodSync, closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, truncateSync, writeFileSync, writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { constants as zlib, zstdCompressSync } from "node:zlib";
import { type Corpus, openCorpus, requireLength, splitCorpus } from "../src/data/corpus.ts";
import { fables, fablesEntropy } from "../src/data/fables.ts";
import { evaluationStreams, fillBatch, pairOffsets, referenceEvaluationStart, requireSequence } from "../src/data/streams.ts";
import { readZstd } from "../src/data/zstd.ts";
import { EggError } from "../src/errors.ts";
import golden from "./golden/egg-c.json" with { type: "json" };

const folder = mkdtempSync(join(tmpdir(), "egg-data-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

function readAll(corpus: Corpus, from = 0, bytes = corpus.bytes - from): Uint8Array {
  const target = new Uint8Array(bytes);
  corpus.read(from, target);
  return target;
}

const asText = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function failure(action: () => unknown): Promise<EggError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof EggError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

// Bytes that do not repeat with any period that a mistake might have.
const pattern = (bytes: number, seed: number) => fables(bytes, seed);

// ---- opening ----

test("a file of any name is read as it is", async () => {
  const content = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
  const corpus = await openCorpus(write("plain.bin", content));
  expect(corpus.bytes).toBe(1000);
  expect(corpus.entropyBitsPerByte).toBeNull();
  expect(readAll(corpus)).toEqual(content);
  expect(readAll(corpus, 990, 10)).toEqual(content.slice(990));
  expect(() => corpus.read(991, new Uint8Array(10))).toThrow(RangeError);
  expect(() => corpus.read(-1, new Uint8Array(1))).toThrow(RangeError);
});

test("a folder: its texts by path in code unit order, byte 0 between, the rest left out", async () => {
  write("books/b.txt", "B");
  write("books/a/z.md", "AZ");
  write("books/a.text", "A.");
  write("books/B.TXT", "upper");
  write("books/\u00e9.txt", "e");
  write("books/c.txt.zst", Bun.zstdCompressSync("packed"));
  write("books/empty.txt", "");
  write("books/.hidden.txt", "no");
  write("books/.git/x.txt", "no");
  write("books/picture.png", "no");
  write("books/archive.tar.zst", "no");
  symlinkSync("..", join(folder, "books/a/up"));
  const corpus = await openCorpus(join(folder, "books"));
  expect(asText(readAll(corpus))).toBe(["upper", "A.", "AZ", "B", "packed", "e"].join("\0"));
});

test("zst: a single file, several frames, without a declared size", async () => {
  const content = pattern(300_000, 3);
  const packed = Bun.zstdCompressSync(content);
  expect(readAll(await openCorpus(write("one.txt.zst", packed)))).toEqual(content);
  const twice = await openCorpus(write("two.txt.zst", Buffer.concat([packed, packed])));
  expect(twice.bytes).toBe(600_000);
  expect(readAll(twice, 300_000)).toEqual(content);
  // What `zstd < pipe` writes: no content size, a window descriptor instead. One raw block, the last.
  const piped = Uint8Array.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, (3 << 3) | 1, 0, 0, 0x68, 0x65, 0x6e]);
  expect(asText(readAll(await openCorpus(write("piped.zst", piped))))).toBe("hen");
});

test("zst: cut off, damaged, no zst at all, more than the memory allowed", async () => {
  const packed = Bun.zstdCompressSync(pattern(300_000, 4));
  const path = write("cut.txt.zst", packed.subarray(0, packed.length - 5));
  expect(await failure(() => openCorpus(path))).toMatchObject({ kind: "data", message: expect.stringContaining("cut off") });
  const checked = new Uint8Array(zstdCompressSync(pattern(300_000, 4), { params: { [zlib.ZSTD_c_checksumFlag]: 1 } }));
  write("cut.txt.zst", checked);
  expect((await openCorpus(path)).bytes).toBe(300_000);
  write("cut.txt.zst", checked.map((byte, i) => (i === 1000 ? byte ^ 0x55 : byte)));
  expect(await failure(() => openCorpus(path))).toMatchObject({ kind: "data", message: expect.stringContaining("not a whole zstd file") });
  write("cut.txt.zst", "just some words");
  expect(await failure(() => openCorpus(path))).toMatchObject({ kind: "data", message: expect.stringContaining(path) });
  write("cut.txt.zst", "");
  expect((await failure(() => openCorpus(path))).kind).toBe("data");
  write("cut.txt.zst", Buffer.concat([packed, Buffer.from("more")]));
  expect((await failure(() => openCorpus(path))).kind).toBe("data");

  write("cut.txt.zst", packed);
  const error = await failure(() => readZstd(path, 299_999));
  expect(error).toMatchObject({ kind: "resources", hint: expect.stringContaining("zstd -d") });
  expect(error.message).toContain("300,000");
  expect(readZstd(path, 300_000)).toHaveLength(300_000);
  // 180 PiB, declared in a frame of 20 bytes: refused by its header, never allocated
  const bomb = Uint8Array.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1 | (3 << 3), 0, 0, 0x68, 0x65, 0x6e]);
  expect((await failure(() => openCorpus(write("bomb.txt.zst", bomb)))).kind).toBe("resources");
});

test("wrong paths say what is there and what to do", async () => {
  const missing = await failure(() => openCorpus(join(folder, "nowhere.txt")));
  expect(missing).toMatchObject({ kind: "data", exitCode: 3, message: `[data] ${folder}/nowhere.txt: there is no such file or folder.` });
  expect(await failure(() => openCorpus(write("void.txt", "")))).toMatchObject({ kind: "data", message: expect.stringContaining("empty") });
  write("pictures/a.png", "x");
  const none = await failure(() => openCorpus(join(folder, "pictures")));
  expect(none).toMatchObject({ kind: "data", hint: expect.stringContaining(".txt, .text or .md") });
  write("voids/a.txt", "");
  expect((await failure(() => openCorpus(join(folder, "voids")))).message).toContain("empty");
  expect(await failure(() => openCorpus("/dev/null"))).toMatchObject({ kind: "data", message: expect.stringContaining("a device") });
  const fifo = join(folder, "pipe");
  expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
  expect(await failure(() => openCorpus(fifo))).toMatchObject({ kind: "data", message: expect.stringContaining("a pipe") });
});

const root = process.getuid?.() === 0;
test.skipIf(root)(`permission denied${root ? " (skipped: root may read everything)" : ""}`, async () => {
  const file = write("secret.txt", "x");
  chmodSync(file, 0);
  expect(await failure(() => openCorpus(file))).toMatchObject({ kind: "data", message: expect.stringContaining("no permission") });
  write("locked/a.txt", "x");
  chmodSync(join(folder, "locked"), 0);
  expect((await failure(() => openCorpus(join(folder, "locked")))).message).toContain("no permission");
  chmodSync(join(folder, "locked"), 0o700);
});

test("builtin: default, sizes, seeds", async () => {
  const plain = await openCorpus("builtin:fables");
  expect(plain.name).toBe("builtin:fables");
  expect(plain.bytes).toBe(2 * 2 ** 20);
  expect(plain.entropyBitsPerByte).toBe(fablesEntropy());
  expect(readAll(plain, 12_345, 1000)).toEqual(fables(2 * 2 ** 20, 1).slice(12_345, 13_345));
  for (const [size, bytes] of [["777", 777], ["500KB", 500_000], ["64MiB", 64 * 2 ** 20], ["1.5kib", 1536], ["1GB", 1e9]] as const) {
    expect((await openCorpus(`builtin:fables:${size}`)).bytes).toBe(bytes); // not written before it is read
  }
  expect(readAll(await openCorpus("builtin:fables:900:7"))).toEqual(fables(900, 7));
});

test("builtin: unknown names, bad sizes and seeds", async () => {
  expect((await failure(() => openCorpus("builtin:fabels"))).message).toContain("Did you mean builtin:fables?");
  expect((await failure(() => openCorpus("builtin:shakespeare"))).message).toContain("There is one: fables.");
  for (const size of ["", "0", "-1", "2 MiBs", "MiB", "2TiB", "5GiB", "0.5", "1e6"]) {
    expect(await failure(() => openCorpus(`builtin:fables:${size}`))).toMatchObject({ kind: "data", message: expect.stringContaining("size") });
  }
  for (const seed of ["", "x", "-1", "1.5", "4294967296", "1:2"]) {
    expect(await failure(() => openCorpus(`builtin:fables:1KB:${seed}`))).toMatchObject({ kind: "data", message: expect.stringContaining("seed") });
  }
});

// ---- large texts ----

test("a file of 5 GiB is read at its end without being held in memory", async () => {
  const bytes = 5 * 2 ** 30;
  const path = join(folder, "large.txt");
  const file = openSync(path, "w");
  ftruncateSync(file, bytes); // sparse: takes no room on disk
  writeSync(file, "the last hen", bytes - 12);
  writeSync(file, "beyond 32 bits", 2 ** 32 + 1);
  closeSync(file);
  const before = process.memoryUsage().rss;
  const corpus = await openCorpus(path);
  expect(corpus.bytes).toBe(bytes);
  expect(asText(readAll(corpus, bytes - 12))).toBe("the last hen");
  expect(asText(readAll(corpus, 2 ** 32 + 1, 14))).toBe("beyond 32 bits");
  expect(corpus.fingerprint()).toMatch(/^[0-9a-f]{32}$/);
  const { train, heldOut } = splitCorpus(corpus, 0.1);
  expect(train.bytes).toBe(Math.floor(bytes * 0.9));
  expect(asText(readAll(heldOut!, heldOut!.bytes - 12))).toBe("the last hen");
  expect(process.memoryUsage().rss - before).toBeLessThan(256 * 2 ** 20);

  truncateSync(path, 2 ** 32);
  const shrunk = await failure(() => readAll(corpus, bytes - 12));
  expect(shrunk).toMatchObject({ kind: "data", message: expect.stringContaining("the file now ends at") });
  corpus.close();
  rmSync(path);
});

test("a folder too large for memory: reads across many files and separators, byte for byte", async () => {
  // 80 files, more than are held open at a time: small ones around, one sparse in the middle.
  const pieces: Uint8Array[] = [];
  for (let i = 0; i < 80; i++) {
    const piece = pattern(1 + ((i * 7919) % 500), i);
    const name = `many/${String(i).padStart(3, "0")}.txt`;
    if (i % 9 === 4) write(`${name}.zst`, Bun.zstdCompressSync(piece));
    else write(name, piece);
    pieces.push(piece);
  }
  const middle = join(folder, "many/040m.txt");
  writeFileSync(middle, "");
  truncateSync(middle, 70 * 2 ** 20);
  pieces.splice(41, 0, new Uint8Array(70 * 2 ** 20));
  const expected = Buffer.concat(pieces.flatMap((piece, i) => (i === 0 ? [piece] : [Uint8Array.of(0), piece])));

  const corpus = await openCorpus(join(folder, "many"));
  expect(corpus.bytes).toBe(expected.length);
  const same = (from: number, bytes: number) => Buffer.compare(readAll(corpus, from, bytes), expected.subarray(from, from + bytes)) === 0;
  const lead = pieces.slice(0, 41).reduce((sum, piece) => sum + piece.length + 1, 0);
  for (const bytes of [1, 2, 3, 500, 5000]) {
    for (let from = 0; from < lead; from += 997) expect(same(from, bytes)).toBe(true);
    for (let from = expected.length - 8000; from + bytes <= expected.length; from += 991) expect(same(from, bytes)).toBe(true);
    expect(same(lead - 3, bytes)).toBe(true);
    expect(same(expected.length - bytes, bytes)).toBe(true);
  }
  for (let from = 0; from < 3000; from++) if (!same(from, 3)) throw new Error(`bytes at ${from} differ`);
  expect(same(0, expected.length)).toBe(true);
  // The same bytes in one file have the same fingerprint, above 64 MiB too.
  const joined = await openCorpus(write("joined.txt", expected));
  expect(corpus.fingerprint()).toBe(joined.fingerprint());
  corpus.close();
  joined.close();
  rmSync(join(folder, "many"), { recursive: true });
  rmSync(join(folder, "joined.txt"));
});

test("a large corpus whose file disappears before it is read", async () => {
  const path = join(folder, "gone.txt");
  writeFileSync(path, "");
  truncateSync(path, 65 * 2 ** 20);
  const corpus = await openCorpus(path);
  rmSync(path);
  expect((await failure(() => readAll(corpus, 0, 10))).kind).toBe("data");
});

// ---- fingerprints and splits ----

test("fingerprint: of the content, not of the path; every byte counts; the same on every machine", async () => {
  const content = pattern(5000, 9);
  const one = await openCorpus(write("f1.txt", content));
  const packed = await openCorpus(write("f2.txt.zst", Bun.zstdCompressSync(content)));
  expect(one.fingerprint()).toBe(packed.fingerprint());
  const changed = content.slice();
  changed[4321]! ^= 1;
  expect((await openCorpus(write("f3.txt", changed))).fingerprint()).not.toBe(one.fingerprint());
  expect((await openCorpus(write("f4.txt", "hen"))).fingerprint()).toBe("068e3c77cc14dc41291831d3e4293c3f");
  const prints = await Promise.all(["", ":2MiB", ":2MiB:1", ":2MiB:2", ":3MiB"].map(async (rest) => (await openCorpus(`builtin:fables${rest}`)).fingerprint()));
  expect(prints[1]).toBe(prints[0]!);
  expect(prints[2]).toBe(prints[0]!);
  expect(new Set(prints).size).toBe(3);
});

test("split: the two parts are the whole, the entropy carries over, 0 holds nothing out", async () => {
  const content = pattern(1003, 2);
  const corpus = await openCorpus(write("split.txt", content));
  for (const validation of [0.1, 0.25, 0.5, 0.0001]) {
    const { train, heldOut } = splitCorpus(corpus, validation);
    expect(train.bytes).toBe(Math.floor(1003 * (1 - validation)));
    expect(Buffer.concat([readAll(train), readAll(heldOut!)])).toEqual(Buffer.from(content));
    expect(() => train.read(train.bytes, new Uint8Array(1))).toThrow(RangeError);
    expect(train.fingerprint()).not.toBe(heldOut!.fingerprint());
  }
  const whole = splitCorpus(corpus, 0);
  expect(whole.heldOut).toBeNull();
  expect(readAll(whole.train)).toEqual(content);
  const { train, heldOut } = splitCorpus(await openCorpus("builtin:fables:10KB"), 0.1);
  expect([train.entropyBitsPerByte, heldOut!.entropyBitsPerByte]).toEqual([fablesEntropy(), fablesEntropy()]);
});

test("too short for the sequence: found, needed, and the knob to lower", async () => {
  const corpus = await openCorpus(write("short.txt", "x".repeat(64)));
  const error = await failure(() => requireSequence(corpus, 64));
  expect(error).toMatchObject({ kind: "data", hint: "Give more text, or lower trainer.sequence." });
  expect(error.message).toContain("needs 65 bytes, found 64 bytes.");
  expect(() => requireSequence(corpus, 63)).not.toThrow();
  expect(() => requireLength(corpus, 64, "a test", "nothing")).not.toThrow();
});

// ---- the batch cursor ----

test("pair offsets and evaluation windows are those of egg.c", () => {
  let checked = 0;
  for (const { name, config, corpus, steps } of golden.cases) {
    for (const step of steps) {
      const at = `${name} step ${step.step}`;
      expect([at, ...pairOffsets(corpus.bytes, config.population / 2, config.sequence, step.step)]).toEqual([at, ...step.stream_starts]);
      if ("eval_start" in step) {
        expect([at, referenceEvaluationStart(corpus.bytes, config.sequence, step.step)]).toEqual([at, step.eval_start!]);
      }
      checked += 1;
    }
  }
  expect(checked).toBeGreaterThan(60);
});

test("offsets are exact where products are huge, and the last target stays inside the text", () => {
  const cases: [n: number, pairs: number, sequence: number, step: number][] = [
    [7 * 2 ** 30 + 13, 524_288, 1_048_576, 999_999_999],
    [1_048_577, 3, 1_048_576, 1_000_000_000],
    [5_368_709_121, 65_535, 999_983, 123_456_789],
    [2, 5, 1, 17],
    [53, 3, 37, 1000],
  ];
  for (const [n, pairs, sequence, step] of cases) {
    const offsets = pairOffsets(n, pairs, sequence, step);
    const stride = BigInt(n) / BigInt(pairs);
    for (const p of [0, 1, 2, pairs >> 1, pairs - 1]) {
      const exact = (BigInt(step) * BigInt(sequence) + BigInt(p) * stride) % BigInt(n - sequence);
      expect(BigInt(offsets[p]!)).toBe(exact);
      expect(offsets[p]! + sequence).toBeLessThanOrEqual(n - 1);
    }
  }
  expect(() => pairOffsets(64, 2, 64, 0)).toThrow(RangeError);
  expect(() => pairOffsets(2 ** 40, 2, 2 ** 20, 2 ** 34)).toThrow(RangeError);
});

test("a batch holds each pair's inputs and, shifted by one, its targets", async () => {
  const content = pattern(5000, 11);
  const corpus = await openCorpus(write("batch.txt", content));
  const offsets = pairOffsets(5000, 7, 33, 123);
  const batch = new Uint8Array(7 * 34);
  fillBatch(corpus, offsets, 33, batch);
  offsets.forEach((offset, p) => expect(batch.slice(p * 34, (p + 1) * 34)).toEqual(content.slice(offset, offset + 34)));
  expect(() => fillBatch(corpus, offsets, 33, new Uint8Array(7 * 33))).toThrow(RangeError);
});

test("evaluation streams predict no byte twice, stay inside, and lose less than one byte a stream", () => {
  for (const bytes of [2, 3, 64, 65, 66, 129, 1000, 2049, 209_716]) {
    for (const streams of [1, 3, 32, 64]) {
      for (const most of [1, 100, 5000, Infinity]) {
        const { offsets, length, predicted } = evaluationStreams(bytes, streams, most);
        const seen = new Uint8Array(bytes);
        for (const offset of offsets) for (let t = 1; t <= length; t++) seen[offset + t]! += 1;
        expect(Math.max(...seen.subarray(0, 1), 0)).toBe(0);
        expect(seen.every((count) => count <= 1)).toBe(true);
        expect(seen.reduce((sum, count) => sum + count, 0)).toBe(predicted);
        const wanted = Math.min(bytes - 1, most);
        expect(predicted).toBeLessThanOrEqual(wanted);
        expect(wanted - predicted).toBeLessThan(offsets.length);
        expect(offsets.at(-1)! + length).toBeLessThanOrEqual(bytes - 1);
        if (wanted >= 64 * streams) expect(offsets.length).toBe(streams);
        if (offsets.length > 1) expect(length).toBeGreaterThanOrEqual(64);
      }
    }
  }
  expect(() => evaluationStreams(1)).toThrow(EggError);
});
