// Opening the files of a run folder, which may come from anywhere: never a pipe that hangs, never more bytes than expected, and
// large ones piece by piece. Not what the bytes mean: each reader has its own parser. Read next: metrics.ts, safetensors.ts, folder.ts.
import fs from "node:fs";
import { EggError } from "../errors.ts";
import { errorCode, ioError, readFully } from "./files.ts";

/**
 * Opens a plain file for reading. Pipes, folders and devices are refused, and nothing is waited for.
 * @throws EggError("corrupt") for what is no plain file, "usage" where there is none, "resources" where it must not be read
 */
export function openPlain(file: string): number {
  let descriptor: number;
  try {
    descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    throw ioError(error, "open", file);
  }
  if (fs.fstatSync(descriptor).isFile()) return descriptor;
  fs.closeSync(descriptor);
  throw new EggError("corrupt", `[file] ${file}: not a file.`, { hint: "Something else lies where egg keeps a file of its own: move it away." });
}

/**
 * The whole of a plain file; null where there is none.
 * @param most bytes that the file may have
 * @throws EggError("corrupt") for a larger file and for what is no plain file
 */
export function readPlain(file: string, most = Infinity): Buffer | null {
  if (!exists(file)) return null;
  const descriptor = openPlain(file);
  try {
    const { size } = fs.fstatSync(descriptor);
    if (size > most) {
      throw new EggError("corrupt", `[file] ${file}: ${size.toLocaleString("en-US")} bytes, at most ${most.toLocaleString("en-US")} are read.`, {
        hint: "Egg writes nothing that large there: the file is damaged or comes from elsewhere.",
      });
    }
    return fs.readFileSync(descriptor);
  } catch (error) {
    throw ioError(error, "read", file);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Bytes that can be read in any order, now and later. */
export interface Source {
  readonly size: number;
  /** Fills all of `target` from a place in the file, or throws. */
  fill(target: Uint8Array, position: number): void;
}

/**
 * A plain file as a source. It is opened for each read, so that there is nothing to close, and must stay as it is.
 * @throws EggError as openPlain does; `fill` throws "corrupt" where the file ends before, or was changed since
 */
export function openSource(file: string): Source {
  const use = <T>(action: (descriptor: number, state: string, size: number) => T): T => {
    const descriptor = openPlain(file);
    try {
      const { dev, ino, size, mtimeMs } = fs.fstatSync(descriptor);
      return action(descriptor, [dev, ino, size, mtimeMs].join(), size);
    } finally {
      fs.closeSync(descriptor);
    }
  };
  return use((_, before, size) => ({
    size,
    fill: (target, position) =>
      use((descriptor, now) => {
        if (now !== before) throw new EggError("corrupt", `[file] ${file}: was changed while it was being read.`, { hint: "Run the same command again when nobody writes it." });
        readFully(descriptor, target, position, file);
      }),
  }));
}

/** SHA-256 of what lies behind `begin`, which `digest` may have taken up already. */
export function digestSource(source: Source, digest = new Bun.CryptoHasher("sha256"), begin = 0): string {
  const room = new Uint8Array(Math.min(source.size - begin, 1 << 20));
  for (let at = begin; at < source.size; at += room.length) {
    const part = room.subarray(0, source.size - at);
    source.fill(part, at);
    digest.update(part);
  }
  return digest.digest("hex");
}

function exists(file: string): boolean {
  try {
    fs.lstatSync(file);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return false;
    throw ioError(error, "read", file);
  }
}
