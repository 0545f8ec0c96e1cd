// A corpus: one long run of bytes, from a file, a folder, a .zst file, or the built-in fables; and its split in two.
// Not memory-mapped: a file that someone shortens meanwhile is an error here, where it would kill a mapped process.
// Nothing about tokens or batches: read tokenizer.ts and streams.ts next. The built-in text is in fables.ts.

import { closeSync, openSync, readdirSync, readSync, realpathSync, statSync, type Stats } from "node:fs";
import { freemem, totalmem } from "node:os";
import { join } from "node:path";
import { EggError } from "../errors.ts";
import { fables, fablesEntropy, fablesVersion } from "./fables.ts";
import { TokenFile } from "./tokenfile.ts";
import { readZstd } from "./zstd.ts";

export interface Corpus {
  /** For people: the path as given, or builtin:fables. */
  readonly name: string;
  /** Length; may be beyond 4 GiB. */
  readonly bytes: number;
  /** Where the text is there as tokens only, the file that holds them. Its bytes cannot be read: read() throws EggError "data". */
  readonly tokenFile?: TokenFile;
  /** The exact entropy of the text, where it is known: no model can do better in the long run. */
  readonly entropyBitsPerByte: number | null;
  /** Fills `target` exactly, from `offset`. EggError "data" where the file has shrunk since it was opened. */
  read(offset: number, target: Uint8Array): void;
  /**
   * 32 hex digits, the same on every machine: xxHash3-64 with two seeds. Up to 64 MiB over all bytes; above that over
   * the length and 256 evenly spaced blocks of 64 KiB. For the built-in corpus over its name, size, seed and version.
   */
  fingerprint(): string;
  /** Closes its files. Views from splitCorpus end with it. */
  close(): void;
}

const MiB = 2 ** 20;
const inMemory = 64 * MiB;
const mostInMemory = 4 * 2 ** 30;
const openFiles = 64;
const textNames = /\.(?:txt|text|md)(?:\.zst)?$/i;

/**
 * Opens `path`: a file of any name; a folder, whose .txt .text .md files (each also with .zst) are joined in order of
 * their paths with one byte 0 between them, dot files and empty files left out; a .zst file; or
 * `builtin:fables[:SIZE[:SEED]]`. Small texts are held in memory, large ones read from disk as needed. A token file, known by how it
 * begins, is a corpus too: of the text that its tokens stand for.
 */
export async function openCorpus(path: string): Promise<Corpus> {
  if (path.startsWith("builtin:")) return openBuiltin(path);
  const tokens = TokenFile.openIf(path);
  if (tokens !== null) return tokenCorpus(path, tokens);
  const parts = partsOf(path);
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0) + Math.max(0, parts.length - 1);
  if (bytes === 0) {
    throw new EggError("data", `[data] ${path}: it is empty.`, { hint: "Name a file or folder with text in it." });
  }
  const onDisk = new DiskCorpus(path, bytes, parts);
  if (bytes > inMemory) return onDisk;
  const content = new Uint8Array(bytes);
  try {
    onDisk.read(0, content);
  } finally {
    onDisk.close();
  }
  return new MemoryCorpus(path, bytes, () => content);
}

/**
 * Train = the first floor(bytes * (1 - validation)), held out = the rest, null where validation is 0. Both are views of
 * `corpus`: closing it ends them, closing them does nothing.
 */
export function splitCorpus(corpus: Corpus, validation: number): { train: Corpus; heldOut: Corpus | null } {
  if (validation === 0) return { train: view(corpus, 0, corpus.bytes), heldOut: null };
  const cut = Math.floor(corpus.bytes * (1 - validation));
  return { train: view(corpus, 0, cut), heldOut: view(corpus, cut, corpus.bytes - cut) };
}

/** Throws EggError "data" unless `corpus` has `needed` bytes for `what`; `knob` is the one to lower. */
export function requireLength(corpus: Corpus, needed: number, what: string, knob: string): void {
  if (corpus.bytes >= needed) return;
  const found = `${corpus.bytes.toLocaleString("en-US")} ${corpus.bytes === 1 ? "byte" : "bytes"}`;
  throw new EggError("data", `[data] ${corpus.name}: ${what} needs ${needed.toLocaleString("en-US")} bytes, found ${found}.`, {
    hint: `Give more text, or lower ${knob}.`,
  });
}

// ---- the kinds of corpus ----

/** All of the text in memory; the built-in one is written when it is first read. */
class MemoryCorpus implements Corpus {
  #content: Uint8Array | undefined;

  constructor(
    readonly name: string,
    readonly bytes: number,
    readonly load: () => Uint8Array,
    readonly identity?: string,
  ) {}

  get entropyBitsPerByte(): number | null {
    return this.identity === undefined ? null : fablesEntropy();
  }

  read(offset: number, target: Uint8Array): void {
    checkRange(this, offset, target);
    this.#content ??= this.load();
    target.set(this.#content.subarray(offset, offset + target.length));
  }

  fingerprint(): string {
    return this.identity === undefined ? contentHash(this) : hash(new TextEncoder().encode(this.identity));
  }

  close(): void {}
}

/** The text of a token file. Its fingerprint is that of the file, as the tokens are what a run reads. */
function tokenCorpus(path: string, tokenFile: TokenFile): Corpus {
  return {
    name: path,
    bytes: tokenFile.textBytes,
    entropyBitsPerByte: null,
    tokenFile,
    read() {
      throw new EggError("data", `[data] ${path}: it holds tokens, not text, and text is needed here.`, {
        hint: "Name the text that it was made from. Token files are for trainer.type backprop.",
      });
    },
    fingerprint() {
      const file = new DiskCorpus(path, tokenFile.fileBytes, [{ path, bytes: tokenFile.fileBytes, content: null }]);
      try {
        return contentHash(file);
      } finally {
        file.close();
      }
    },
    close: () => tokenFile.close(),
  };
}

/** One document: a file on disk, or bytes that were decompressed. */
interface Part {
  path: string;
  bytes: number;
  content: Uint8Array | null;
}

/** Documents read where they lie, with one byte 0 between them; at most 64 files are open at a time. */
class DiskCorpus implements Corpus {
  readonly entropyBitsPerByte = null;
  readonly #starts: number[] = [];
  readonly #files = new Map<Part, number>();

  constructor(
    readonly name: string,
    readonly bytes: number,
    readonly parts: Part[],
  ) {
    let start = 0;
    for (const part of parts) {
      this.#starts.push(start);
      start += part.bytes + 1;
    }
  }

  read(offset: number, target: Uint8Array): void {
    checkRange(this, offset, target);
    if (target.length === 0) return;
    let low = 0;
    for (let high = this.parts.length; high - low > 1; ) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! <= offset) low = middle;
      else high = middle;
    }
    let done = 0;
    for (let i = low; done < target.length; i++) {
      const part = this.parts[i]!;
      const from = offset + done - this.#starts[i]!;
      const take = Math.min(part.bytes - from, target.length - done);
      if (take > 0) this.#readPart(part, from, target.subarray(done, done + take));
      done += take;
      if (done < target.length) target[done++] = 0;
    }
  }

  fingerprint(): string {
    return contentHash(this);
  }

  close(): void {
    for (const file of this.#files.values()) closeSync(file);
    this.#files.clear();
  }

  #readPart(part: Part, from: number, target: Uint8Array): void {
    if (part.content) {
      target.set(part.content.subarray(from, from + target.length));
      return;
    }
    const file = this.#open(part);
    for (let done = 0; done < target.length; ) {
      let got: number;
      try {
        got = readSync(file, target, done, target.length - done, from + done);
      } catch (error) {
        throw unreadable(part.path, error);
      }
      if (got === 0) {
        throw new EggError("data", `[data] ${part.path}: expected ${part.bytes.toLocaleString("en-US")} bytes, the file now ends at ${(from + done).toLocaleString("en-US")}.`, {
          hint: "It was shortened while in use. Restore it, or start a new run with the shorter text.",
        });
      }
      done += got;
    }
  }

  /** The least recently used file makes room for the next. */
  #open(part: Part): number {
    let file = this.#files.get(part);
    this.#files.delete(part);
    if (file === undefined) {
      for (const [other, opened] of this.#files) {
        if (this.#files.size < openFiles) break;
        closeSync(opened);
        this.#files.delete(other);
      }
      try {
        file = openSync(part.path, "r");
      } catch (error) {
        throw unreadable(part.path, error);
      }
    }
    this.#files.set(part, file);
    return file;
  }
}

function view(corpus: Corpus, start: number, bytes: number): Corpus {
  return {
    name: corpus.name,
    bytes,
    get entropyBitsPerByte() {
      return corpus.entropyBitsPerByte;
    },
    read(offset, target) {
      checkRange(this, offset, target);
      corpus.read(start + offset, target);
    },
    fingerprint: () => hash(new TextEncoder().encode(`${corpus.fingerprint()} ${start} ${bytes}`)),
    close() {},
  };
}

function checkRange(corpus: Corpus, offset: number, target: Uint8Array): void {
  if (Number.isInteger(offset) && offset >= 0 && offset + target.length <= corpus.bytes) return;
  throw new RangeError(`read of ${target.length} bytes at ${offset} of ${corpus.name}, which has ${corpus.bytes}`);
}

// ---- content hash ----

function hash(content: Uint8Array): string {
  return [1n, 2n].map((seed) => Bun.hash.xxHash3(content, seed).toString(16).padStart(16, "0")).join("");
}

function contentHash(corpus: Corpus): string {
  if (corpus.bytes <= inMemory) {
    const content = new Uint8Array(corpus.bytes);
    corpus.read(0, content);
    return hash(content);
  }
  const blocks = 256;
  const block = 64 * 1024;
  const sample = new Uint8Array(8 + blocks * block);
  new DataView(sample.buffer).setBigUint64(0, BigInt(corpus.bytes), true);
  for (let i = 0; i < blocks; i++) {
    const offset = Math.floor((i * (corpus.bytes - block)) / (blocks - 1));
    corpus.read(offset, sample.subarray(8 + i * block, 8 + (i + 1) * block));
  }
  return hash(sample);
}

// ---- finding the documents ----

function partsOf(path: string): Part[] {
  const stats = statOf(path);
  if (stats.isFile()) return [partOf(path, stats)];
  if (!stats.isDirectory()) {
    const kind = stats.isFIFO() ? "a pipe" : stats.isSocket() ? "a socket" : "a device";
    throw new EggError("data", `[data] ${path}: it is ${kind}; a corpus is a file or a folder.`, {
      hint: "Save the text to a file first: training reads it more than once.",
    });
  }
  const found: { name: string; stats: Stats }[] = [];
  const visited = new Set<string>();
  const visit = (folder: string, prefix: string): void => {
    let names: string[];
    try {
      const real = realpathSync(folder);
      if (visited.has(real)) return; // a link back up
      visited.add(real);
      names = readdirSync(folder);
    } catch (error) {
      throw unreadable(folder, error);
    }
    for (const name of names) {
      if (name.startsWith(".")) continue;
      const stats = statSync(join(folder, name), { throwIfNoEntry: false });
      if (stats?.isDirectory()) visit(join(folder, name), `${prefix}${name}/`);
      else if (stats?.isFile() && textNames.test(name)) found.push({ name: prefix + name, stats });
    }
  };
  visit(path, "");
  if (found.length === 0) {
    throw new EggError("data", `[data] ${path}: no text files in this folder.`, {
      hint: "Files that count end in .txt, .text or .md, or in one of these and .zst. Name a single file to use any other.",
    });
  }
  found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  let room = memoryLimit();
  const parts: Part[] = [];
  for (const { name, stats } of found) {
    const part = partOf(join(path, name), stats, room);
    if (part.content) room -= part.bytes;
    if (part.bytes > 0) parts.push(part);
  }
  return parts;
}

function partOf(path: string, stats: Stats, room = memoryLimit()): Part {
  if (!/\.zst$/i.test(path)) return { path, bytes: stats.size, content: null };
  try {
    const content = readZstd(path, room);
    return { path, bytes: content.length, content };
  } catch (error) {
    throw error instanceof EggError ? error : unreadable(path, error);
  }
}

/** What decompressed text may take: the free memory, at most 4 GiB. macOS counts its caches as used, so half of all there. */
function memoryLimit(): number {
  return Math.floor(Math.min(mostInMemory, process.platform === "linux" ? freemem() : totalmem() / 2));
}

function statOf(path: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): EggError {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new EggError("data", `[data] ${path}: there is no such file or folder.`, {
      hint: `Paths start at ${process.cwd()}. The built-in text is builtin:fables.`,
      cause: error,
    });
  }
  const why = code === "EACCES" || code === "EPERM" ? "no permission to read it" : message;
  return new EggError("data", `[data] ${path}: ${why}.`, { hint: "Check that you can read it: head -c 100 FILE", cause: error });
}

// ---- builtin:fables[:SIZE[:SEED]] ----

const units: Record<string, number> = {
  "": 1, b: 1, kb: 1e3, mb: 1e6, gb: 1e9, kib: 2 ** 10, mib: MiB, gib: 2 ** 30,
};

function openBuiltin(path: string): Corpus {
  const [, name = "", size = "2MiB", seed = "1", ...more] = path.split(":");
  const form = "The form is builtin:fables:SIZE:SEED, such as builtin:fables:64MiB:7.";
  if (name !== "fables") {
    const near = name !== "" && /^f|b.?les?$|able/i.test(name) ? " Did you mean builtin:fables?" : "";
    throw new EggError("data", `[data] ${path}: no built-in text is called "${name}". There is one: fables.${near}`, { hint: form });
  }
  const [, number, unit] = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(size) ?? [];
  const factor = unit === undefined ? undefined : units[unit.toLowerCase()];
  const bytes = factor === undefined ? NaN : Math.floor(Number(number) * factor);
  if (!(bytes >= 1 && bytes <= mostInMemory)) {
    throw new EggError("data", `[data] ${path}: size "${size}" is not a size from 1 byte to 4 GiB.`, {
      hint: `${form} Units: KB, MB, GB (thousands), KiB, MiB, GiB (1,024s), or plain bytes.`,
    });
  }
  if (!/^\d+$/.test(seed) || Number(seed) >= 2 ** 32 || more.length > 0) {
    throw new EggError("data", `[data] ${path}: seed "${[seed, ...more].join(":")}" is not a whole number from 0 to 4,294,967,295.`, { hint: form });
  }
  const draw = Number(seed);
  const load = () => {
    if (bytes > memoryLimit()) {
      throw new EggError("resources", `[data] ${path}: it needs ${bytes.toLocaleString("en-US")} bytes of memory, ${memoryLimit().toLocaleString("en-US")} are free.`, {
        hint: "Ask for a smaller size, such as builtin:fables:64MiB.",
      });
    }
    return fables(bytes, draw);
  };
  return new MemoryCorpus("builtin:fables", bytes, load, `builtin:fables ${bytes} ${draw} ${fablesVersion}`);
}
