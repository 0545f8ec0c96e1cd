// Checks the ad-hoc signature of a Mach-O file: recomputes every page hash that its CodeDirectory holds.
// Apple silicon kills a program, or refuses a library, with one wrong page; this finds that without a Mac.
// Not a check of who signed it. Layout: Apple's xnu, osfmk/kern/cs_blobs.h and EXTERNAL_HEADERS/mach-o/loader.h.
import { createHash } from "node:crypto";

export interface SignatureCheck {
  pages: number; // hashes compared, over all CodeDirectories
  problems: string[]; // empty = valid
}

const magic64 = 0xfeedfacf;
const cpuArm64 = 0x0100000c;
const codeSignatureCommand = 0x1d; // LC_CODE_SIGNATURE
const superBlobMagic = 0xfade0cc0; // CSMAGIC_EMBEDDED_SIGNATURE
const directoryMagic = 0xfade0c02; // CSMAGIC_CODEDIRECTORY
const alternateSlots = 0x1000; // CSSLOT_ALTERNATE_CODEDIRECTORIES .. +5
const hashNames: Record<number, string> = { 1: "sha1", 2: "sha256", 3: "sha256", 4: "sha384" }; // 3: sha256 cut to 20 bytes

/**
 * Checks one thin 64-bit arm64 Mach-O file.
 *
 * @param bytes the whole file
 * @returns the number of page hashes compared and everything that is wrong; never throws on a damaged file
 */
export function checkSignature(bytes: Uint8Array): SignatureCheck {
  const problems: string[] = [];
  let pages = 0;
  try {
    pages = check(bytes, problems);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    problems.push("the file ends in the middle of its signature");
  }
  return { pages, problems };
}

function check(bytes: Uint8Array, problems: string[]): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== magic64) return problem(problems, "not a 64-bit Mach-O file");
  if (view.getUint32(4, true) !== cpuArm64) return problem(problems, "not for arm64");

  const place = findSignature(view);
  if (place === null) return problem(problems, "has no code signature");
  if (place.offset + place.size !== bytes.length) problems.push(`the signature ends at byte ${place.offset + place.size}, the file at ${bytes.length}`);
  if (view.getUint32(place.offset) !== superBlobMagic) return problem(problems, "the signature is not one (wrong magic)");

  const blobs = new Map<number, number>(); // slot -> offset in the file
  for (let i = 0, count = view.getUint32(place.offset + 8); i < count; i++) {
    const entry = place.offset + 12 + 8 * i;
    blobs.set(view.getUint32(entry), place.offset + view.getUint32(entry + 4));
  }

  let pages = 0;
  let directories = 0;
  for (const [slot, offset] of blobs) {
    if (slot !== 0 && (slot < alternateSlots || slot > alternateSlots + 5)) continue;
    directories++;
    pages += checkDirectory(view, bytes, offset, place.offset, blobs, problems);
  }
  if (directories === 0) problems.push("the signature holds no CodeDirectory");
  return pages;
}

/** Offset and size of the signature, from the load commands. */
function findSignature(view: DataView): { offset: number; size: number } | null {
  let at = 32; // behind the header
  for (let i = 0, count = view.getUint32(16, true); i < count; i++) {
    if (view.getUint32(at, true) === codeSignatureCommand) {
      return { offset: view.getUint32(at + 8, true), size: view.getUint32(at + 12, true) };
    }
    at += view.getUint32(at + 4, true);
  }
  return null;
}

/** Compares one CodeDirectory's hashes of pages and of the other blobs. Numbers in it are big-endian. */
function checkDirectory(view: DataView, bytes: Uint8Array, at: number, signature: number, blobs: Map<number, number>, problems: string[]): number {
  if (view.getUint32(at) !== directoryMagic) return problem(problems, "a CodeDirectory has the wrong magic");
  const version = view.getUint32(at + 8);
  const hashes = at + view.getUint32(at + 16);
  const specials = view.getUint32(at + 24);
  const pages = view.getUint32(at + 28);
  const limit32 = view.getUint32(at + 32);
  const hashSize = view.getUint8(at + 36);
  const algorithm = hashNames[view.getUint8(at + 37)];
  const shift = view.getUint8(at + 39);
  // Files past 4 GiB keep their limit in a later field.
  const limit = limit32 === 0 && version >= 0x20300 ? Number(view.getBigUint64(at + 56)) : limit32;
  if (algorithm === undefined) return problem(problems, `unknown hash type ${view.getUint8(at + 37)}`);
  if (limit !== signature) problems.push(`the hashes cover ${limit} bytes, the signature starts at byte ${signature}`);
  const pageSize = 2 ** shift;
  if (pages !== Math.ceil(limit / pageSize)) problems.push(`${pages} page hashes for ${limit} bytes in pages of ${pageSize}`);

  const matches = (start: number, end: number, hashAt: number): boolean => {
    if (end > bytes.length || hashAt + hashSize > bytes.length) throw new RangeError();
    const found = createHash(algorithm).update(bytes.subarray(start, end)).digest().subarray(0, hashSize);
    return Buffer.compare(found, bytes.subarray(hashAt, hashAt + hashSize)) === 0;
  };

  const bad: number[] = [];
  for (let page = 0; page < pages; page++) {
    const start = page * pageSize;
    if (!matches(start, Math.min(start + pageSize, limit), hashes + page * hashSize)) bad.push(page);
  }
  if (bad.length > 0) problems.push(`${bad.length} of ${pages} pages differ from their hash, the first is page ${bad[0]} (byte ${bad[0]! * pageSize})`);

  // Slot -n is the hash of blob n (requirements, entitlements, ...); all zero = no such blob.
  for (let slot = 1; slot <= specials; slot++) {
    const hashAt = hashes - slot * hashSize;
    const blob = blobs.get(slot);
    const empty = bytes.subarray(hashAt, hashAt + hashSize).every((byte) => byte === 0);
    // 1 and 3 are hashes of files beside the program (Info.plist, resources), which a bare program has not.
    if (blob === undefined ? !empty && slot !== 1 && slot !== 3 : !matches(blob, blob + view.getUint32(blob + 4), hashAt)) {
      problems.push(`the hash of signature blob ${slot} differs`);
    }
  }
  return pages;
}

function problem(problems: string[], text: string): number {
  problems.push(text);
  return 0;
}
