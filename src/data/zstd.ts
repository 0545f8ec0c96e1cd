// Reading a .zst file into memory, never more of it than there is room for.
// Not a decoder: Bun has one. It takes no limit, so the size is worked out from the headers first. See corpus.ts.

import { readFileSync } from "node:fs";
import { EggError } from "../errors.ts";

const magic = 0xfd2fb528;
const largestBlock = 128 * 1024;

/**
 * The decompressed bytes of the file at `path`. EggError "data" where it is broken or cut off, "resources" where it
 * would need more than `limit` bytes.
 */
export function readZstd(path: string, limit: number): Uint8Array {
  return unpackZstd(readFileSync(path), limit, path);
}

/** The same for a file that is in memory already; `path` names it in errors. */
export function unpackZstd(packed: Uint8Array<ArrayBuffer>, limit: number, path: string): Uint8Array {
  const broken = (why: string, cause?: unknown) =>
    new EggError("data", `[data] ${path}: not a whole zstd file (${why}).`, { hint: "Check it with: zstd -t FILE", cause });
  const bytes = decompressedBound(packed, broken);
  if (bytes > limit) {
    const found = bytes.toLocaleString("en-US");
    throw new EggError("resources", `[data] ${path}: decompressed it needs up to ${found} bytes of memory, ${limit.toLocaleString("en-US")} are allowed.`, {
      hint: "Decompress it first (zstd -d FILE) and name the plain file: that one is read from disk piece by piece.",
    });
  }
  try {
    return Bun.zstdDecompressSync(packed);
  } catch (cause) {
    throw broken("damaged contents", cause);
  }
}

/**
 * An upper bound of the decompressed size: exact where the frames declare it, else 128 KiB a block. Walks the frame and
 * block headers only (RFC 8878, sections 3.1.1 and 3.1.2).
 */
function decompressedBound(packed: Uint8Array, broken: (why: string) => EggError): number {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const need = (at: number) => {
    if (at > packed.length) throw broken("it is cut off");
  };
  let total = 0;
  let at = 0;
  need(4);
  while (at < packed.length) {
    need(at + 4);
    const word = view.getUint32(at, true);
    at += 4;
    if (word >>> 4 === 0x184d2a5) {
      // a skippable frame: its length, then anything
      need(at + 4);
      at += 4 + view.getUint32(at, true);
      need(at);
      continue;
    }
    if (word !== magic) throw broken("it does not begin like one, or something follows its end");
    need(at + 1);
    const descriptor = packed[at]!;
    const single = (descriptor & 0x20) !== 0;
    const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
    at += 1 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
    need(at + sizeBytes);
    let declared: number | null = null;
    if (sizeBytes === 1) declared = packed[at]!;
    if (sizeBytes === 2) declared = view.getUint16(at, true) + 256;
    if (sizeBytes === 4) declared = view.getUint32(at, true);
    if (sizeBytes === 8) declared = Number(view.getBigUint64(at, true));
    at += sizeBytes;
    let blocks = 0;
    for (let last = false; !last; ) {
      need(at + 3);
      const header = packed[at]! | (packed[at + 1]! << 8) | (packed[at + 2]! << 16);
      const size = header >>> 3;
      const runLength = ((header >>> 1) & 3) === 1;
      last = (header & 1) === 1;
      at += 3 + (runLength ? 1 : size);
      need(at);
      blocks += runLength ? size : largestBlock;
    }
    if ((descriptor & 4) !== 0) at += 4; // checksum
    need(at);
    total += declared ?? blocks;
  }
  return total;
}
