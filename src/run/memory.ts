// What memory a run will take at its peak, and whether this machine has it, before it is taken: Linux promises more than it has,
// and then kills. Not the learner's share (the learner plans it). Read next: loop.ts, and estimate.ts for time.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EggError } from "../errors.ts";
import { lessForGradients, type MemoryPlan } from "../learners/learner.ts";

/** The plan of a whole process. All in bytes. */
export interface PeakPlan {
  /** By part; `program` is the runtime with the text that it holds. They add up to `peak`. */
  parts: MemoryPlan;
  peak: number;
  /** What this process may take in all, what it has already included. */
  available: number;
}

const MiB = 2 ** 20;

/** What decides how much the program grows besides what the learner takes. */
export interface Growth {
  /** Steps that are still to do. */
  steps: number;
  /** Whether much of the code that will run has run already: a built-in text was made, and no tensors come into play. */
  warm: boolean;
}

/**
 * How much more the program itself takes from the plan to the end of a run: pages of the executable that come into use, compiled
 * code, and garbage between two collections, of which there may be more where more is held. A curve through measured runs of small
 * models, 5 to 30,000 steps, with texts from 64 KiB to 64 MiB; `bun tests/soak.ts memory 1` holds it against many shapes.
 */
function growthOf(resident: number, { steps, warm }: Growth): number {
  const start = (warm ? 3.2 : 7.2) * MiB;
  const garbage = Math.min(11, 4.5 * Math.log10(Math.max(1, steps / 60))) * MiB;
  const held = Math.min(1, Math.max(0, (resident - 48 * MiB) / (64 * MiB)));
  return start + garbage * (1 + held);
}

/**
 * The plan of this process: what it has now, what it will grow by, and what the learner is going to take. To be called with the text
 * in memory, and before the learner's memory is taken.
 * @param held bytes of the plan that are taken already
 * @throws EggError("resources") with the bytes needed and the bytes there are, by part, where it does not fit
 */
export function admitPlan(plan: MemoryPlan, growth: Growth = { steps: 1, warm: false }, held = 0): PeakPlan {
  Bun.gc(true); // what opening the text left behind makes room
  const resident = residentMemory() - held;
  const parts = { ...plan, program: Math.round(resident + growthOf(resident, growth)) };
  const peak = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  const available = availableMemory() + resident;
  if (peak <= available) return { parts, peak, available };
  const list = Object.entries(parts).map(([part, bytes]) => `${part} ${bytes.toLocaleString("en")}`).join(", ");
  throw new EggError("resources", `[run] out of memory: this run needs ${peak.toLocaleString("en")} bytes (${list}), ${available.toLocaleString("en")} are available.`, {
    hint: "gradients" in plan ? lessForGradients : "Lower model.hidden and model.layers (model.table_bits and model.order in rule egg), or what a step reads (trainer.population and trainer.sequence).",
  });
}

/** Bytes of memory that this process holds now. */
export function residentMemory(): number {
  return readNumber("/proc/self/status", /^VmRSS:\s+(\d+) kB$/m, 1024) ?? process.memoryUsage.rss();
}

/** The most that it ever held. Not getrusage's on Linux: that one begins with the memory of whoever started the process. */
export function peakMemory(): number {
  return readNumber("/proc/self/status", /^VmHWM:\s+(\d+) kB$/m, 1024) ?? process.resourceUsage().maxRSS * 1024;
}

/**
 * Bytes that this process may still take: free and reclaimable memory, within the limits of its control groups (versions 1 and 2).
 * @param root where /proc and /sys lie
 */
export function availableMemory(root = "/"): number {
  const free = readNumber(path.join(root, "proc/meminfo"), /^MemAvailable:\s+(\d+) kB$/m, 1024) ?? os.freemem();
  return Math.max(0, Math.min(free, ...controlGroups(root).map(({ limit, used }) => limit - used)));
}

/** Limit and use of the control group that the process is in, and of those above it, as far as they have a limit. */
function controlGroups(root: string): { limit: number; used: number }[] {
  const mount = path.join(root, "sys/fs/cgroup");
  // Lines "0::/path" (version 2) and "9:memory:/path" (version 1); in a container the path may be one of the host.
  const lines = (readText(path.join(root, "proc/self/cgroup")) ?? "").split("\n").map((line) => /^\d+:([^:]*):(\/.*)$/.exec(line));
  return lines.flatMap((line) => {
    const [, controllers = "", inside = "/"] = line ?? [];
    const second = controllers === "";
    if (line === null || !(second || controllers.split(",").includes("memory"))) return [];
    const folders = [];
    for (let folder = inside; ; folder = path.posix.dirname(folder)) {
      folders.push(path.join(mount, second ? "" : "memory", folder));
      if (folder === "/") break;
    }
    return folders.flatMap((folder) => {
      const limit = readNumber(path.join(folder, second ? "memory.max" : "memory.limit_in_bytes"), /^(\d+)$/m);
      const used = readNumber(path.join(folder, second ? "memory.current" : "memory.usage_in_bytes"), /^(\d+)$/m);
      if (limit === null || used === null) return [];
      // Pages of files that nobody used of late count as used, and are given up first.
      const idle = readNumber(path.join(folder, "memory.stat"), second ? /^inactive_file (\d+)$/m : /^total_inactive_file (\d+)$/m) ?? 0;
      return [{ limit, used: Math.max(0, used - idle) }];
    });
  });
}

function readNumber(file: string, pattern: RegExp, unit = 1): number | null {
  const match = pattern.exec(readText(file) ?? "");
  return match === null ? null : Number(match[1]) * unit;
}

function readText(file: string): string | null {
  try {
    return fs.readFileSync(file, "latin1");
  } catch {
    return null; // not this system's way to say it
  }
}
