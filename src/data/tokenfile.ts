// The token file: a text as ids on disk, mapped into memory, with the tokenizer that made it in its head. Written once, by `egg data tokenize`.
// Not what the ids mean (tokenizer.ts) and not the split or the order of windows: tokens.ts. All numbers are little-endian:
//   "EGGTOKS\0", u32 version, u32 width of an id (2 or 4), u64 ids, u64 bytes of text, 32 bytes SHA-256 of the definition,
//   u32 length of the definition, 32 bytes SHA-256 of the ids (not in version 1), the definition, zeros up to a multiple of 64, the ids.

import fs from "node:fs";
import { basename, dirname, join } from "node:path";
import { EggError } from "../errors.ts";

const magic = new TextEncoder().encode("EGGTOKS\0");
const version = 2;
/** Bytes before the definition, by version. */
const fixedBytes = (of: number): number => (of === 1 ? 68 : 100);
const checkedAtOnce = 1 << 20;
const mostDefinition = 64 * 2 ** 20;
/** One mapping; an ArrayBuffer ends at 4 GiB. */
const segmentBytes = 2 ** 30;

const count = (value: number): string => value.toLocaleString("en-US");

export class TokenFile {
  readonly #descriptor: number;
  readonly #dataStart: number;
  readonly #width: 2 | 4;
  readonly #segments: (Uint16Array | Uint32Array | undefined)[] = [];

  private constructor(
    readonly path: string,
    descriptor: number,
    /** Length of the file. */
    readonly fileBytes: number,
    /** How many ids it holds. */
    readonly count: number,
    /** Length of the text that they stand for. */
    readonly textBytes: number,
    width: 2 | 4,
    /** Of the tokenizer, see Tokenizer.definition. */
    readonly definition: string,
    /** SHA-256 of the definition, 64 hex digits. */
    readonly hash: string,
    /** SHA-256 of the ids as the file has them, 64 hex digits; null where an older egg wrote it. */
    readonly idsHash: string | null,
    dataStart: number,
  ) {
    this.#descriptor = descriptor;
    this.#width = width;
    this.#dataStart = dataStart;
  }

  /** Bytes of each id in the file: 2 for vocabularies of up to 65,536, else 4. */
  get width(): number {
    return this.#width;
  }

  /**
   * Opens `path` where a token file is there; null for anything else, also for what cannot be read.
   * @throws EggError("data") where it begins like a token file and is not a whole one of this version
   */
  static openIf(path: string): TokenFile | null {
    let descriptor: number;
    try {
      if (!fs.statSync(path).isFile()) return null; // opening a pipe would wait for its writer
      descriptor = fs.openSync(path, "r");
    } catch {
      return null;
    }
    try {
      const head = new Uint8Array(fixedBytes(version));
      const got = fs.readSync(descriptor, head, 0, head.length, 0);
      if (got >= magic.length && magic.every((byte, i) => head[i] === byte)) return TokenFile.#open(path, descriptor, head.subarray(0, got));
    } catch (error) {
      fs.closeSync(descriptor);
      throw error;
    }
    fs.closeSync(descriptor);
    return null;
  }

  static #open(path: string, descriptor: number, head: Uint8Array): TokenFile {
    const damaged = (what: string): never => {
      throw new EggError("data", `[data] ${path}: a damaged token file: ${what}.`, { hint: "Make it again with: egg data tokenize" });
    };
    const { size } = fs.fstatSync(descriptor);
    if (head.length < fixedBytes(version)) damaged(`its head takes ${fixedBytes(version)} bytes, the file ends at ${size}`);
    const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
    const found = view.getUint32(8, true);
    if (found < 1 || found > version) {
      throw new EggError("data", `[data] ${path}: a token file of version ${found}; this egg reads 1 to ${version}.`, { hint: "Make it again with: egg data tokenize" });
    }
    const width = view.getUint32(12, true);
    if (width !== 2 && width !== 4) return damaged(`ids of ${count(width)} bytes, allowed 2 or 4`);
    const tokens = Number(view.getBigUint64(16, true));
    const textBytes = Number(view.getBigUint64(24, true));
    const length = view.getUint32(64, true);
    const fixed = fixedBytes(found);
    if (length > mostDefinition || fixed + length > size) return damaged(`a definition of ${count(length)} bytes in a file of ${count(size)}`);
    const dataStart = startOfIds(fixed + length);
    const expected = dataStart + tokens * width;
    if (!Number.isSafeInteger(textBytes) || expected !== size) damaged(`expected ${count(expected)} bytes for ${count(tokens)} tokens, it holds ${count(size)}`);
    const definition = new Uint8Array(length);
    fs.readSync(descriptor, definition, 0, length, fixed);
    const hash = new Bun.CryptoHasher("sha256").update(definition).digest("hex");
    const idsHash = found === 1 ? null : Buffer.from(head.subarray(68, 100)).toString("hex");
    if (hash !== Buffer.from(head.subarray(32, 64)).toString("hex")) damaged("the definition of its tokenizer does not have the hash in its head");
    return new TokenFile(path, descriptor, size, tokens, textBytes, width, new TextDecoder().decode(definition), hash, idsHash, dataStart);
  }

  /**
   * Fills `target` with the ids from `offset` on, all of which must be below `vocabulary`.
   * @throws EggError("data") where the file was shortened meanwhile, or holds another id
   */
  read(offset: number, target: Int32Array, vocabulary: number): void {
    if (!(Number.isInteger(offset) && offset >= 0 && offset + target.length <= this.count)) {
      throw new RangeError(`read of ${target.length} tokens at ${offset} of ${this.path}, which has ${this.count}`);
    }
    this.#requireWhole(); // to touch what is no longer there would kill the process
    const perSegment = segmentBytes / this.#width;
    const first = this.#dataStart / this.#width + offset;
    for (let done = 0; done < target.length; ) {
      const segment = Math.floor((first + done) / perSegment);
      const from = first + done - segment * perSegment;
      const ids = (this.#segments[segment] ??= this.#map(segment));
      const take = Math.min(target.length - done, ids.length - from);
      for (let i = 0; i < take; i++) {
        const id = ids[from + i]!;
        if (id >= vocabulary) {
          throw new EggError("data", `[data] ${this.path}: token ${count(offset + done + i)} is ${count(id)}, its tokenizer has ids from 0 to ${count(vocabulary - 1)}.`, {
            hint: "The file is damaged. Make it again with: egg data tokenize",
          });
        }
        target[done + i] = id;
      }
      done += take;
    }
  }

  /**
   * Reads every id, which nobody else does: that it is below `vocabulary`, and that all are those that were written.
   * @throws EggError("data") where they are not
   */
  check(vocabulary: number, onProgress: (tokens: number) => void): void {
    const hasher = new Bun.CryptoHasher("sha256");
    const ids = new Int32Array(Math.min(checkedAtOnce, this.count));
    for (let at = 0; at < this.count; at += ids.length) {
      const part = ids.subarray(0, Math.min(ids.length, this.count - at));
      this.read(at, part, vocabulary);
      hasher.update(this.#width === 2 ? Uint16Array.from(part) : part);
      onProgress(at + part.length);
    }
    if (this.idsHash === null || hasher.digest("hex") === this.idsHash) return;
    throw new EggError("data", `[data] ${this.path}: a damaged token file: its ids do not have the hash in its head.`, { hint: "Make it again with: egg data tokenize" });
  }

  close(): void {
    this.#segments.length = 0;
    fs.closeSync(this.#descriptor);
  }

  #requireWhole(): void {
    const { size } = fs.fstatSync(this.#descriptor);
    if (size >= this.fileBytes) return;
    throw new EggError("data", `[data] ${this.path}: expected ${count(this.fileBytes)} bytes, the file now ends at ${count(size)}.`, {
      hint: "It was shortened while in use. Make it again with: egg data tokenize",
    });
  }

  #map(segment: number): Uint16Array | Uint32Array {
    const start = segment * segmentBytes;
    const size = Math.min(segmentBytes, this.fileBytes - start);
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      // Through the descriptor: at the path there may be another file by now. Private: a shared mapping is one for writing.
      bytes = Bun.mmap(process.platform === "linux" ? `/proc/self/fd/${this.#descriptor}` : this.path, { shared: false, offset: start, size }) as Uint8Array<ArrayBuffer>;
    } catch (cause) {
      throw new EggError("data", `[data] ${this.path}: cannot be mapped into memory (${(cause as Error).message}).`, { hint: "Copy it to a disk of this machine.", cause });
    }
    if (bytes.length < size) this.#requireWhole();
    const length = size / this.#width;
    return this.#width === 2 ? new Uint16Array(bytes.buffer, bytes.byteOffset, length) : new Uint32Array(bytes.buffer, bytes.byteOffset, length);
  }
}

function startOfIds(headBytes: number): number {
  return Math.ceil(headBytes / 64) * 64;
}

/**
 * Writes a token file of any size piece by piece, under a temporary name until it is whole. System errors pass through as they come;
 * call abandon() after one.
 */
export class TokenFileWriter {
  #tokens = 0;
  readonly #temporary: string;
  readonly #descriptor: number;
  readonly #definition: Uint8Array;
  readonly #width: 2 | 4;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #closed = false;

  constructor(
    readonly path: string,
    readonly tokenizer: { definition: string; vocabulary: number },
  ) {
    this.#definition = new TextEncoder().encode(tokenizer.definition);
    if (this.#definition.length > mostDefinition) throw new RangeError(`a definition of ${this.#definition.length} bytes`);
    this.#width = tokenizer.vocabulary <= 65_536 ? 2 : 4;
    const random = crypto.getRandomValues(new Uint32Array(1))[0]!.toString(16).padStart(8, "0");
    this.#temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${random}.tmp`);
    this.#descriptor = fs.openSync(this.#temporary, "wx", 0o666);
    this.#write(this.#head(0)); // no count, no bytes: whoever finds it finds it damaged
  }

  get tokens(): number {
    return this.#tokens;
  }

  /** Adds ids; they are below the vocabulary, as those of its tokenizer are, and checked. */
  write(ids: Uint32Array): void {
    const { vocabulary } = this.tokenizer;
    for (let i = 0; i < ids.length; i++) if (ids[i]! >= vocabulary) throw new RangeError(`token ${this.#tokens + i} is ${ids[i]}, the vocabulary has ${vocabulary}`);
    const written = this.#width === 2 ? Uint16Array.from(ids) : ids;
    this.#hasher.update(written);
    this.#write(written);
    this.#tokens += ids.length;
  }

  /** Puts the file in its place for good: on the disk, then under its name. */
  finish(textBytes: number): void {
    this.#write(this.#head(textBytes, this.#hasher.digest()), 0);
    fs.fsyncSync(this.#descriptor);
    fs.closeSync(this.#descriptor);
    this.#closed = true;
    fs.renameSync(this.#temporary, this.path);
    const folder = fs.openSync(dirname(this.path), "r");
    try {
      fs.fsyncSync(folder);
    } catch {
      // some network file systems cannot; the file itself is safe
    } finally {
      fs.closeSync(folder);
    }
  }

  /** Takes away what was written, unless it was finished. */
  abandon(): void {
    if (this.#closed) return;
    this.#closed = true;
    fs.closeSync(this.#descriptor);
    fs.rmSync(this.#temporary, { force: true });
  }

  #head(textBytes: number, idsHash: Uint8Array = new Uint8Array(32)): Uint8Array {
    const fixed = fixedBytes(version);
    const head = new Uint8Array(startOfIds(fixed + this.#definition.length));
    const view = new DataView(head.buffer);
    head.set(magic);
    view.setUint32(8, version, true);
    view.setUint32(12, this.#width, true);
    view.setBigUint64(16, BigInt(this.#tokens), true);
    view.setBigUint64(24, BigInt(textBytes), true);
    head.set(new Bun.CryptoHasher("sha256").update(this.#definition).digest(), 32);
    view.setUint32(64, this.#definition.length, true);
    head.set(idsHash, 68);
    head.set(this.#definition, fixed);
    return head;
  }

  #write(data: Uint8Array | Uint16Array | Uint32Array, position: number | null = null): void {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    for (let done = 0; done < bytes.length; ) {
      const written = fs.writeSync(this.#descriptor, bytes, done, bytes.length - done, position === null ? null : position + done);
      if (written <= 0) throw Object.assign(new Error("nothing could be written"), { code: "ENOSPC" });
      done += written;
    }
  }
}
