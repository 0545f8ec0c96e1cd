// Durable writes and checked appends, with errors that say what is needed and what is there.
// Not formats: it moves bytes. A file it reports as written survives kill -9, a full disk and a power failure.
// Read next: checkpoint.ts and metrics.ts, which write through it.
import fs from "node:fs";
import path from "node:path";
import { EggError, type ErrorKind } from "../errors.ts";
import { bytesNow, type Bytes } from "../models/tensors.ts";

const count = (value: number): string => value.toLocaleString("en-US");

// Some systems refuse a single write of 2 GiB or more.
const bytesPerWrite = 64 * 1024 * 1024;

const leftover = /^\..+\.\d+\.[0-9a-f]{8}\.tmp$/;

/**
 * Replaces `file` by the concatenated `chunks`, whole or not at all: temporary file in the same folder, fsync, rename,
 * fsync of the folder. The mode comes from the umask.
 * @throws EggError("resources") when disk, quota or permissions say no; the temporary file is then gone, and `file` as before
 *   (or, where only the folder's fsync failed, whole and new but not certain to survive a power failure)
 */
export function writeDurably(file: string, chunks: readonly Bytes[]): void {
  const needed = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  const random = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.${random.toString(16).padStart(8, "0")}.tmp`);
  let descriptor: number | undefined;
  try {
    descriptor = fs.openSync(temporary, "wx", 0o666);
    for (const chunk of chunks) writeAll(descriptor, bytesNow(chunk));
    fs.fsyncSync(descriptor);
    fs.closeSync(descriptor);
    descriptor = undefined;
    fs.renameSync(temporary, file);
    syncFolder(path.dirname(file));
  } catch (error) {
    // The first error is the one to report, whatever goes wrong while tidying up.
    if (descriptor !== undefined) quietly(() => fs.closeSync(descriptor as number));
    quietly(() => removeFile(temporary));
    throw ioError(error, "write", file, needed);
  }
}

/**
 * Appends `line` and a newline with one write. A line that did not fit is taken back, so the file keeps whole lines only.
 * @param descriptor opened for appending, by nobody else
 * @throws EggError("resources") naming `file`, the bytes needed and the bytes free
 */
export function appendLine(descriptor: number, line: string, file: string): void {
  appendBytes(descriptor, Buffer.from(`${line}\n`), file);
}

/** The same for bytes of any kind: all of them, or none. */
export function appendBytes(descriptor: number, bytes: Uint8Array, file: string): void {
  let written = 0;
  try {
    written = fs.writeSync(descriptor, bytes);
    // A short count comes from a full disk: only the next write throws.
    if (written < bytes.length) writeAll(descriptor, bytes.subarray(written), (more) => void (written += more));
  } catch (error) {
    // Should this fail as well, then the reader forgives a torn last line.
    if (written > 0) quietly(() => fs.ftruncateSync(descriptor, fs.fstatSync(descriptor).size - written));
    throw ioError(error, "append to", file, bytes.length);
  }
}

/** Appends one line to a file that is opened for this alone, and puts it on the disk for good. */
export function appendDurably(file: string, line: string): void {
  let descriptor: number;
  try {
    const isNew = !fs.existsSync(file);
    descriptor = fs.openSync(file, "a", 0o666);
    if (isNew) syncFolder(path.dirname(file));
  } catch (error) {
    throw ioError(error, "open", file);
  }
  try {
    appendLine(descriptor, line, file);
    fs.fsyncSync(descriptor);
  } catch (error) {
    throw ioError(error, "append to", file);
  } finally {
    fs.closeSync(descriptor);
  }
}

function writeAll(descriptor: number, bytes: Uint8Array, onWritten: (bytes: number) => void = () => {}): void {
  for (let at = 0; at < bytes.length; ) {
    const written = fs.writeSync(descriptor, bytes, at, Math.min(bytes.length - at, bytesPerWrite));
    if (written <= 0) throw Object.assign(new Error("nothing could be written"), { code: "ENOSPC" });
    at += written;
    onWritten(written);
  }
}

/** Fills `target` from `position`, both in bytes. @throws EggError("corrupt") when the file ends before, or cannot be read there. */
export function readFully(descriptor: number, target: Uint8Array, position: number, file: string): void {
  for (let at = 0; at < target.length; ) {
    let read: number;
    try {
      read = fs.readSync(descriptor, target, at, Math.min(target.length - at, bytesPerWrite), position + at);
    } catch (error) {
      const failure = ioError(error, "read", file);
      // A part that the disk cannot give back is as good as damaged: an older file may serve.
      if (errorCode(error) === "EIO" && failure instanceof EggError) throw new EggError("corrupt", failure.message, { hint: failure.hint, cause: error });
      throw failure;
    }
    if (read === 0) {
      throw new EggError("corrupt", `[file] ${file}: expected ${count(position + target.length)} bytes, the file holds ${count(position + at)}.`);
    }
    at += read;
  }
}

/** Creates a folder and the ones above it, so that they survive a power failure. */
export function makeFolder(folder: string): void {
  try {
    const first = fs.mkdirSync(folder, { recursive: true });
    if (first === undefined) return;
    const top = path.dirname(path.resolve(first));
    for (let at = path.dirname(path.resolve(folder)); at.length >= top.length; at = path.dirname(at)) {
      syncFolder(at);
      if (at === path.dirname(at)) break;
    }
  } catch (error) {
    throw ioError(error, "create folder", folder);
  }
}

/** Makes renames and deletions in a folder last. Network file systems that cannot sync a folder are left in peace. */
export function syncFolder(folder: string): void {
  const descriptor = fs.openSync(folder, "r");
  try {
    fs.fsyncSync(descriptor);
  } catch (error) {
    if (!["EINVAL", "ENOTSUP", "EBADF"].includes(errorCode(error) ?? "")) throw error;
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Deletes temporary files that a killed process left in `folder`. Only whoever holds the run's lock may call this. */
export function removeLeftovers(folder: string): void {
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw ioError(error, "read folder", folder);
  }
  for (const name of names.filter((name) => leftover.test(name))) {
    try {
      removeFile(path.join(folder, name));
    } catch (error) {
      throw ioError(error, "delete", path.join(folder, name));
    }
  }
}

/** Deletes a file that may be gone already. Bun's rmSync would tell of another error than the one that occurred (EFAULT for EIO). */
export function removeFile(file: string): void {
  try {
    fs.unlinkSync(file);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

/** The errno name of a system error, such as "ENOENT"; undefined for anything else. */
export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

const explained: Record<string, [ErrorKind, string, string]> = {
  EROFS: ["resources", "the file system is read-only", "Choose another folder with --out."],
  EACCES: ["resources", "permission denied", "Check the owner and the mode of the folder, or choose another with --out."],
  EPERM: ["resources", "the system does not permit it", "Check the owner and the mode of the folder, or choose another with --out."],
  EFBIG: ["resources", "the file would be larger than files may be here", "Raise the limit with ulimit -f, or choose a folder on another file system with --out."],
  EIO: ["resources", "the disk reported an input/output error", "Check the disk. Nothing that was saved before has been touched."],
  EMFILE: ["resources", "this process has too many open files", "Raise the limit with ulimit -n."],
  ENFILE: ["resources", "the system has too many open files", "Close other programs."],
  ENOENT: ["usage", "no such file or folder", "Check the spelling, and whether the folder was moved or deleted meanwhile."],
  ENOTDIR: ["usage", "a part of the path is a file, not a folder", "Choose another folder with --out."],
  EEXIST: ["usage", "something else with this name is there", "Choose another folder with --out."],
  EISDIR: ["usage", "it is a folder, not a file", "Move the folder away, or choose another with --out."],
  ENAMETOOLONG: ["usage", "the name is too long for this file system", "Choose a shorter --name or --out."],
};

/**
 * The error for people behind a failed system call; anything that is not a system error comes back as it is.
 * @param action completes "cannot …", e.g. "write"
 * @param needed bytes that the write takes, for the message about a full disk; 0 for what needs a block of its own
 */
export function ioError(error: unknown, action: string, file: string, needed = 0): unknown {
  const code = errorCode(error);
  if (code === undefined || error instanceof EggError) return error;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const space = freeSpace(path.dirname(file));
    const full = code === "EDQUOT" ? "your disk quota is used up" : space.files === 0 ? "the disk has no room for another file" : "the disk is full";
    return new EggError("resources", `[disk] cannot ${action} ${file}: ${full}; ${needed === 0 ? space.block : count(needed)} bytes needed, ${space.bytes} bytes free.`, {
      hint: "Free some space and run the same command again; what was saved before is intact.",
      cause: error,
    });
  }
  const [kind, reason, hint] = explained[code] ?? ["resources", (error as Error).message, "Check the disk and the folder."];
  return new EggError(kind, `[disk] cannot ${action} ${file}: ${reason} (${code}).`, { hint, cause: error });
}

/** Of the file system that `folder` is on, or would be. */
function freeSpace(folder: string): { bytes: string; block: string; files: number | undefined } {
  try {
    const { bavail, bsize, files, ffree } = fs.statfsSync(folder);
    return { bytes: count(bavail * bsize), block: count(bsize), files: files > 0 ? ffree : undefined };
  } catch (error) {
    if (errorCode(error) === "ENOENT" && folder !== path.dirname(folder)) return freeSpace(path.dirname(path.resolve(folder)));
    return { bytes: "unknown", block: "some", files: undefined };
  }
}

function quietly(action: () => void): void {
  try {
    action();
  } catch {
    // see the caller
  }
}
