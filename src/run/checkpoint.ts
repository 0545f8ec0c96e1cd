// Checkpoints: one safetensors file a step, saved so that a good one is always there, and found again.
// Not the container (safetensors.ts) and not the disk (files.ts); it never asks what the tensors mean.
// Read next: folder.ts, the run folder that they lie in.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import { bytesNow, piecesOf, type Bytes, type SavedTensor, type TensorEntry } from "../models/tensors.ts";
import { errorCode, ioError, makeFolder, removeFile, syncFolder, writeDurably } from "./files.ts";
import { digestSource, openSource, readPlain, type Source } from "./reading.ts";
import { encodeSafetensors, readSafetensors } from "./safetensors.ts";

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
  const { best, old } = survey(folder, step, keep);
  const latest: Latest = { name, step, sha256: sha256(chunks), best };
  writeLatest(runFolder, latest);
  deleteAll(folder, old);
  return { path: file, latest, deleted: old };
}

/**
 * For resume: carries out what a save had still to do when its process died, with the checkpoint in its place already:
 * latest.json, and the deletion of old ones. Only a look, where nothing was left to do.
 * @param newest what loadLatest found
 * @throws EggError("resources") for a full disk and the like
 */
export function finishSave(runFolder: string, newest: LoadedCheckpoint, keep: number): void {
  const folder = checkpointFolder(runFolder);
  const name = path.basename(newest.path);
  const { best, old } = survey(folder, newest.step, keep);
  if (latestName(runFolder) !== name) writeLatest(runFolder, { name, step: newest.step, sha256: hashFile(newest.path), best });
  deleteAll(folder, old);
}

/**
 * The best of the checkpoints up to a step, and the names of those that need not be kept. Files of a later step are ones
 * that loading passed over: they are no successors of this one.
 */
function survey(folder: string, step: number, keep: number): { best: Latest["best"]; old: string[] } {
  const upToHere = list(folder).filter((other) => other.step <= step);
  const best = findBest(folder, upToHere);
  return { best, old: upToHere.slice(Math.max(keep, 2)).map(({ name }) => name).filter((name) => name !== best?.name) };
}

function writeLatest(runFolder: string, latest: Latest): void {
  writeDurably(path.join(runFolder, "latest.json"), [new TextEncoder().encode(`${JSON.stringify(latest)}\n`)]);
}

function deleteAll(folder: string, names: readonly string[]): void {
  try {
    for (const name of names) removeFile(path.join(folder, name));
    if (names.length > 0) syncFolder(folder);
  } catch (error) {
    throw ioError(error, "delete an old checkpoint in", folder);
  }
}

/** SHA-256 of a file as it is: what sha256sum prints. */
export function hashFile(file: string): string {
  return digestSource(openSource(file));
}

/** The largest latest.json that is read, in bytes; egg writes less than one thousand. */
export const longestLatest = 65_536;

/**
 * The object in the bytes of latest.json. Its names are those of checkpoint files, nothing else: no path can stand there.
 * @throws EggError("corrupt") for anything else
 */
export function parseLatest(bytes: Uint8Array, file: string): Latest {
  const wrong = (what: string): EggError => new EggError("corrupt", `[run] ${file}: ${what}.`);
  const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
  const named = ({ name, step }: Record<string, unknown>): boolean => typeof name === "string" && Number(checkpointName.exec(name)?.[1] ?? NaN) === step;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw wrong("not JSON");
  }
  if (!isObject(value) || !named(value)) throw wrong(`"name" and "step" are not those of a checkpoint`);
  if (typeof value["sha256"] !== "string" || !/^[0-9a-f]{64}$/.test(value["sha256"])) throw wrong(`"sha256" is not 64 hex digits`);
  const { best } = value;
  if (best !== null && !(isObject(best) && named(best) && Number.isFinite(best["val_bits_per_byte"]))) throw wrong(`"best" is not a checkpoint with its loss`);
  return value as unknown as Latest;
}

/** The name in latest.json; null where there is none that can be read. */
function latestName(runFolder: string): string | null {
  try {
    const file = path.join(runFolder, "latest.json");
    return parseLatest(readPlain(file, longestLatest) ?? new Uint8Array(0), file).name;
  } catch {
    return null; // it is written anew
  }
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
 * Verifies every bit of one checkpoint file. Its tensors stay there until they are asked for.
 * @throws EggError("corrupt") for a damaged file and for a safetensors file of another program, "usage" when there is none
 */
export function loadCheckpoint(file: string): LoadedCheckpoint {
  return readCheckpoint(openSource(file), file);
}

/** The same for bytes from anywhere; `where` names them in errors. */
export function readCheckpoint(source: Source, where: string): LoadedCheckpoint {
  const { head, metadata, tensors } = readSafetensors(source, where);
  const text = checkMetadata(metadata, where);
  const hashAt = head.indexOf(hashField);
  if (hashAt >= 0) head.write(unhashed, hashAt + hashField.length, "latin1");
  const found = digestSource(source, new Bun.CryptoHasher("sha256").update(head), head.length);
  if (found !== text.content_sha256) {
    throw corrupt(where, `its content hash should be ${shown(text.content_sha256)}, but the content gives ${found}`);
  }
  return {
    path: where, tensors, contentSha256: found,
    step: Number(text.step), config: text.config, tokenizer: text.tokenizer, dataCursor: text.data_cursor, program: text.program,
    valBitsPerByte: score(metadata),
  };
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

/**
 * The checkpoint with the lowest held-out loss; null where none has one.
 * @throws EggError("corrupt") when that one is damaged
 */
export function loadBest(runFolder: string): LoadedCheckpoint | null {
  const folder = checkpointFolder(runFolder);
  const best = findBest(folder, list(folder));
  return best === null ? null : loadCheckpoint(path.join(folder, best.name));
}

/** The lowest loss, the earliest of equals. From the files themselves, so that a lost latest.json costs nothing. */
function findBest(folder: string, candidates: { name: string; step: number }[]): Latest["best"] {
  let best: Latest["best"] = null;
  for (const { name, step } of candidates) {
    const file = path.join(folder, name);
    let loss: number | null = null;
    try {
      loss = score(readSafetensors(openSource(file), file).metadata);
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

function checkMetadata(metadata: Record<string, string>, file: string): Record<(typeof requiredMetadata)[number], string> {
  const missing = requiredMetadata.filter((key) => !Object.hasOwn(metadata, key));
  if (missing.length > 0) {
    throw new EggError("corrupt", `[checkpoint] ${file}: no checkpoint of egg, though a safetensors file: its metadata lacks ${missing.join(", ")}.`, {
      hint: "Give a run folder or a file from its checkpoints folder. Weights of other programs cannot be loaded.",
    });
  }
  if (!/^(0|[1-9]\d{0,14})$/.test(metadata.step ?? "")) throw corrupt(file, `metadata step is ${shown(metadata.step ?? "")}, not a whole number`);
  return metadata as Record<(typeof requiredMetadata)[number], string>;
}

/** A text of the file, for a message: short, whatever it holds. */
function shown(text: string): string {
  return /^[0-9a-f]{1,64}$/.test(text) ? text : JSON.stringify(text.slice(0, 64));
}
