// One process per run folder: flock(2) on the file `lock`, which the kernel lets go when the process dies.
// Not a lock between machines on a network disk that does not carry flock. The file itself stays: deleting it would let
// two processes lock two files of that name. Read next: loop.ts, which holds it for as long as a run lasts.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EggError } from "../errors.ts";
import { checkpointFolder } from "./checkpoint.ts";
import { ioError, removeLeftovers } from "./files.ts";

export interface RunLock {
  release(): void;
}

/**
 * Locks a run folder for this process and clears away the temporary files that a killed one left there.
 * @param flock tries to lock an open file without waiting: true = got it, false = another process has it
 * @throws EggError("locked") naming the process that holds it
 */
export function lockRun(folder: string, flock: (fd: number) => boolean): RunLock {
  const file = path.join(folder, "lock");
  let descriptor: number;
  try {
    descriptor = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o666);
  } catch (error) {
    throw ioError(error, "open", file);
  }
  let held = false;
  try {
    held = flock(descriptor);
    if (!held) {
      throw new EggError("locked", `[run] ${folder}: locked by ${holder(descriptor)}.`, {
        hint: "Only one process can work on a run. Wait for it, or change the config or --name for a run of its own.",
      });
    }
    sign(descriptor);
    for (const place of [folder, checkpointFolder(folder)]) removeLeftovers(place);
  } catch (error) {
    fs.closeSync(descriptor);
    throw error;
  }
  return {
    release() {
      if (!held) return;
      held = false;
      fs.closeSync(descriptor);
    },
  };
}

/** Who has it, for the other's message. The lock holds without: a full disk must not stop a run here. */
function sign(descriptor: number): void {
  try {
    fs.ftruncateSync(descriptor, 0);
    fs.writeSync(descriptor, `${process.pid} ${os.hostname()}\n`, 0);
  } catch {
    // see above
  }
}

function holder(descriptor: number): string {
  const bytes = Buffer.alloc(300);
  const text = bytes.toString("utf8", 0, fs.readSync(descriptor, bytes, 0, bytes.length, 0));
  const [, pid, host] = /^(\d+) (\S+)\n/.exec(text) ?? [];
  return pid === undefined ? "another process" : `process ${pid} on ${host}`;
}
