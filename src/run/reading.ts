// Opening the files of a run folder, which may come from anywhere: never a pipe that hangs, never more bytes than expected.
// Not what the bytes mean: each reader has its own parser. Read next: metrics.ts, checkpoint.ts, folder.ts.
import fs from "node:fs";
import { EggError } from "../errors.ts";
import { errorCode, ioError } from "./files.ts";

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

function exists(file: string): boolean {
  try {
    fs.lstatSync(file);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return false;
    throw ioError(error, "read", file);
  }
}
