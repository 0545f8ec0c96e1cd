// Whether a plan fits this machine, before memory is taken: Linux promises more than it has, and then kills.
// Not the plan itself (the learner makes it). Read next: loop.ts.
import fs from "node:fs";
import os from "node:os";
import { EggError } from "../errors.ts";
import type { MemoryPlan } from "../learners/learner.ts";

/** What the program itself takes besides the plan: the runtime, the data, buffers of files. */
const ownShare = 96 << 20;

/** Bytes that this process may still take: free and reclaimable memory, within the control group's limit. */
export function availableMemory(): number {
  const free = readNumber("/proc/meminfo", /^MemAvailable:\s+(\d+) kB$/m);
  const available = free === null ? os.freemem() : free * 1024;
  const limit = readNumber("/sys/fs/cgroup/memory.max", /^(\d+)$/m);
  const used = readNumber("/sys/fs/cgroup/memory.current", /^(\d+)$/m);
  return limit === null || used === null ? available : Math.min(available, limit - used);
}

function readNumber(file: string, pattern: RegExp): number | null {
  try {
    const match = pattern.exec(fs.readFileSync(file, "utf8"));
    return match === null ? null : Number(match[1]);
  } catch {
    return null; // not this system's way to say it
  }
}

/** Throws EggError("resources") with the bytes needed and the bytes there are, by part, where the plan does not fit. */
export function admitPlan(plan: MemoryPlan): void {
  const needed = Object.values(plan).reduce((sum, bytes) => sum + bytes, ownShare);
  const available = availableMemory();
  if (needed <= available) return;
  const parts = Object.entries(plan).map(([part, bytes]) => `${part} ${bytes.toLocaleString("en")}`).join(", ");
  throw new EggError("resources", `[run] out of memory: this run needs ${needed.toLocaleString("en")} bytes (${parts}), ${available.toLocaleString("en")} are available.`, {
    hint: "Lower model.hidden, model.layers, trainer.population or trainer.sequence.",
  });
}
