// Checkpoints: one safetensors file a step, saved so that a good one is always there, and found again.
// Not the container (safetensors.ts) and not the disk (files.ts); it never asks what the tensors mean.
// Read next: folder.ts, the run folder that they lie in.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import { bytesNow, piecesOf, type Bytes, type SavedTensor, type TensorEntry } from "../models/tensors.ts";
import { errorCode, ioError, makeFolder, readFully, syncFolder, writeDurably } from "./files.ts";
import { encodeSafetensors, headerLength, parseHeader, type TensorPlace } from "./safetensors.ts";

/** What a checkpoint holds. All texts are stored as they are; the caller gives them their meaning. */
export interface Checkpoint {
  /** Steps done when it was saved. */
  step: number;
  /** Model tensors, and what resume needs besides under names that begin with `state.`. */
  tensors: ReadonlyMap<string, SavedTensor>;
  /** The effective config as canonical JSON (folder.ts, canonicalJson). */
  config: string;
  tokenizer: string;
  dataCursor: string;
  /** Version of the program that wrote it. */
  program: string;
  /** Held-out loss of exactly these weights, bits per byte; null where it was not measured. The lowest is the best. */
  valBitsPerByte: number | null;
}

export interface LoadedCheckpoint extends Checkpoint {
  tensors: Map<string, TensorEntry>;
  path: string;
  contentSha256: string;
}

/** latest.json, for people and scripts. Loading does not depend on it. `sha256` is what `sha256sum` prints for the file. */
export interface Latest {
  name: string;
  step: number;
  sha256: string;
  best: { name: string; step: number; val_bits_per_byte: number } | null;
}

const hashField = `"content_sha256":"`;
const unhashed = "0".repeat(64);
const requiredMetadata = ["program", "config", "step", "tokenizer", "data_cursor", "content_sha256"] as const;
/** File names of checkpoints; the group is the step. */
export const checkpointName = /^step-(\d{8,15})\.safetensors$/;

/** The folder inside a run folder. */
export const checkpointFolder = (runFolder: string): string => path.join(runFolder, "checkpoints");

/**
 * Writes `<runFolder>/checkpoints/step-<step>.safetensors`, then `latest.json`, then deletes old ones: it keeps the
 * newest `keep`, never fewer than two, and always the one with the lowest held-out loss. Each step is on disk before
 * the next begins, so whenever the process or the machine dies, a good checkpoint remains.
 *
 * The content hash is the SHA-256 of the file as it is, except that the 64 digits of the hash itself, the value of
 * metadata key `content_sha256`, count as zeros.
 * @throws EggError("resources") for a full disk and the like; what was there before is untouched
 */
export function saveCheckpoint(runFolder: string, checkpoint: Checkpoint, keep: number): { path: string; latest: Latest; deleted: string[] } {
  const { step, tensors, config, tokenizer, dataCursor, program, valBitsPerByte } = checkpoint;
  const chunks = encodeSafetensors(tensors, {
    program, config, step: String(step), tokenizer, data_cursor: dataCursor,
    ...(valBitsPerByte === null ? {} : { val_bits_per_byte: String(valBitsPerByte) }),
    content_sha256: unhashed,
  });
  const head = Buffer.from(chunks[0].buffer);
  head.write(sha256(chunks), head.indexOf(hashField) + hashField.length, "latin1");

  const folder = checkpointFolder(runFolder);
  makeFolder(folder);
  const name = `step-${String(step).padStart(8, "0")}.safetensors`;
  const file = path.join(folder, name);
  writeDurably(file, chunks);

  // Files of a later step are ones that loading passed over: they are no successors of this one.
  const upToHere = list(folder).filter((other) => other.step <= step);
  const best = findBest(folder, upToHere);
  const latest: Latest = { name, step, sha256: sha256(chunks), best };
  writeDurably(path.join(runFolder, "latest.json"), [new TextEncoder().encode(`${JSON.stringify(latest)}\n`)]);

  const old = upToHere.slice(Math.max(keep, 2)).filter((other) => other.name !== best?.name);
  try {
    for (const { name } of old) fs.rmSync(path.join(folder, name), { force: true });
    if (old.length > 0) syncFolder(folder);
  } catch (error) {
    throw ioError(error, "delete an old checkpoint in", folder);
  }
  return { path: file, latest, deleted: old.map((other) => other.name) };
}

/**
 * The newest whole checkpoint of a run, and the newer ones that it passed over with the reasons, for the user to see.
 * Null when the run has none yet. Deletes nothing.
 * @throws EggError("corrupt") naming all of them when none is whole
 */
export function loadLatest(runFolder: string): { checkpoint: LoadedCheckpoint; passedOver: { path: string; reason: string }[] } | null {
  const folder = checkpointFolder(runFolder);
  const passedOver: { path: string; reason: string }[] = [];
  for (const { name } of list(folder)) {
    const file = path.join(folder, name);
    try {
      return { checkpoint: loadCheckpoint(file), passedOver };
    } catch (error) {
      if (!(error instanceof EggError) || error.kind !== "corrupt") throw error;
      passedOver.push({ path: file, reason: error.message });
    }
  }
  if (passedOver.length === 0) return null;
  const reasons = passedOver.map(({ reason }) => `\n  ${reason}`).join("");
  throw new EggError("corrupt", `[checkpoint] ${folder}: none of the ${passedOver.length} checkpoints is whole:${reasons}`, {
    hint: "Nothing was deleted. Copy the checkpoints back from elsewhere, or start over with --force.",
  });
}

/**
 * Reads one checkpoint file and verifies every bit of it. Each tensor gets memory of its own, so views of any width fit.
 * @throws EggError("corrupt") for a damaged file and for a safetensors file of another program, "usage" when there is none
 */
export function loadCheckpoint(file: string): LoadedCheckpoint {
  return withFile(file, (descriptor) => {
    const { header, metadata, places, dataStart } = readHeader(descriptor, file);
    const text = checkMetadata(metadata, file);
    const digest = new Bun.CryptoHasher("sha256");
    const hashAt = header.indexOf(hashField);
    if (hashAt >= 0) header.write(unhashed, hashAt + hashField.length, "latin1");
    digest.update(header);
    const tensors = new Map<string, TensorEntry>();
    for (const { name, dtype, shape, begin, end } of places) {
      const data = allocate(end - begin, name, file);
      readFully(descriptor, data, dataStart + begin, file);
      digest.update(data);
      tensors.set(name, { dtype, shape, data });
    }
    const found = digest.digest("hex");
    if (found !== text.content_sha256) {
      throw corrupt(file, `its content hash should be ${text.content_sha256}, but the content gives ${found}`);
    }
    return {
      path: file, tensors, contentSha256: found,
      step: Number(text.step), config: text.config, tokenizer: text.tokenizer, dataCursor: text.data_cursor, program: text.program,
      valBitsPerByte: score(metadata),
    };
  });
}

/**
 * SHA-256, 64 lower-case hex digits, over the raw bytes of all tensors but `state.*`, in ascending order of name by
 * code unit: two runs with the same weights have the same one.
 */
export function weightsSha256(tensors: ReadonlyMap<string, SavedTensor>): string {
  const weights = [...tensors].filter(([name]) => !name.startsWith("state.")).sort(([a], [b]) => (a < b ? -1 : 1));
  return sha256(weights.flatMap(([, tensor]) => piecesOf(tensor)));
}

function sha256(chunks: readonly Bytes[]): string {
  const digest = new Bun.CryptoHasher("sha256");
  for (const chunk of chunks) digest.update(bytesNow(chunk));
  return digest.digest("hex");
}

function corrupt(file: string, what: string): EggError {
  return new EggError("corrupt", `[checkpoint] ${file}: ${what}.`, {
    hint: "The file is damaged: use an older checkpoint of the run, or copy the file again.",
  });
}

/** Newest first. */
function list(folder: string): { name: string; step: number }[] {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw ioError(error, "read folder", folder);
  }
  const checkpoints = names.flatMap((name) => {
    const step = checkpointName.exec(name)?.[1];
    return step === undefined ? [] : [{ name, step: Number(step) }];
  });
  return checkpoints.sort((a, b) => b.step - a.step);
}

/** The lowest loss, the earliest of equals. From the files themselves, so that a lost latest.json costs nothing. */
function findBest(folder: string, candidates: { name: string; step: number }[]): Latest["best"] {
  let best: Latest["best"] = null;
  for (const { name, step } of candidates) {
    const file = path.join(folder, name);
    let loss: number | null = null;
    try {
      loss = withFile(file, (descriptor) => score(readHeader(descriptor, file).metadata));
    } catch (error) {
      if (!(error instanceof EggError)) throw error; // a damaged one is not the best
    }
    if (loss !== null && (best === null || loss <= best.val_bits_per_byte)) best = { name, step, val_bits_per_byte: loss };
  }
  return best;
}

function score(metadata: Record<string, string>): number | null {
  const loss = Number(metadata.val_bits_per_byte ?? "NaN");
  return Number.isFinite(loss) ? loss : null;
}

function readHeader(descriptor: number, file: string): { header: Buffer; metadata: Record<string, string>; places: TensorPlace[]; dataStart: number } {
  const size = fs.fstatSync(descriptor).size;
  const start = Buffer.alloc(Math.min(8, size));
  readFully(descriptor, start, 0, file);
  const dataStart = 8 + headerLength(start, size, file);
  const header = Buffer.alloc(dataStart);
  readFully(descriptor, header, 0, file);
  return { header, dataStart, ...parseHeader(header.subarray(8), size - dataStart, file) };
}

function checkMetadata(metadata: Record<string, string>, file: string): Record<(typeof requiredMetadata)[number], string> {
  const missing = requiredMetadata.filter((key) => !Object.hasOwn(metadata, key));
  if (missing.length > 0) {
    throw new EggError("corrupt", `[checkpoint] ${file}: no checkpoint of egg, though a safetensors file: its metadata lacks ${missing.join(", ")}.`, {
      hint: "Give a run folder or a file from its checkpoints folder. Weights of other programs cannot be loaded.",
    });
  }
  if (!/^(0|[1-9]\d{0,14})$/.test(metadata.step ?? "")) throw corrupt(file, `metadata step is ${JSON.stringify(metadata.step)}, not a whole number`);
  return metadata as Record<(typeof requiredMetadata)[number], string>;
}

function allocate(bytes: number, tensor: string, file: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new EggError("resources", `[checkpoint] ${file}: tensor ${tensor} takes ${bytes.toLocaleString("en-US")} bytes, more than could be allocated.`, {
      hint: "Close other programs, or use a machine with more memory.", cause: error,
    });
  }
}

function withFile<T>(file: string, use: (descriptor: number) => T): T {
  let descriptor: number;
  try {
    descriptor = fs.openSync(file, "r");
  } catch (error) {
    throw ioError(error, "open checkpoint", file);
  }
  try {
    if (!fs.fstatSync(descriptor).isFile()) throw new EggError("usage", `[checkpoint] ${file}: not a file.`, { hint: "Give a checkpoint file." });
    return use(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}
