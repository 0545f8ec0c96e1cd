// The machine as the kernel library sees it: CPU tiers, threads and file locks. Not the kernels' work: int8.ts.
// Read next: abi.ts, kernels/cpu.zig.
import { availableParallelism } from "node:os";
import { EggError } from "../errors.ts";
import { call, emptyRecord, emptyWord, unpack } from "./abi.ts";

/** CPU tiers by their number in kernels/cpu.zig, with what each asks of the machine. */
export const tiers = [
  { name: "scalar", needs: [] },
  { name: "avx2", needs: ["avx2", "bmi2", "fma"] },
  { name: "avxvnni", needs: ["avx2", "bmi2", "fma", "avx_vnni"] },
  { name: "avx512vnni", needs: ["avx2", "bmi2", "fma", "avx512", "avx512vnni"] },
  { name: "neon", needs: ["neon"] },
  { name: "dotprod", needs: ["neon", "dotprod"] },
] as const;

/** CPU features by their bit in kernels/cpu.zig. */
const features = ["avx2", "bmi2", "fma", "avx512", "avx512vnni", "avx_vnni", "avx512_bf16", "neon", "dotprod"] as const;

export type TierName = (typeof tiers)[number]["name"];

export interface TierState {
  name: TierName;
  available: boolean;
  /** Why it is not available; empty where it is. */
  reason: string;
}

export interface Machine {
  /** Features of this CPU that egg knows of and the operating system supports. */
  features: string[];
  tiers: TierState[];
  best: TierName;
}

/** Asks the library what this CPU can do. */
export function machine(): Machine {
  const record = emptyRecord("CpuInfo");
  call("egg_cpu", [record]);
  const info = unpack("CpuInfo", record);
  const found = features.filter((_, bit) => (info.features >>> bit) & 1);
  return {
    features: [...found],
    best: tiers[info.best]!.name,
    tiers: tiers.map(({ name, needs }, bit) => {
      const available = ((info.available >>> bit) & 1) === 1;
      const missing = (needs as readonly (typeof features)[number][]).filter((feature) => !found.includes(feature));
      const reason = available ? "" : ((info.built >>> bit) & 1) === 0 ? `not built for ${process.arch}` : `this CPU or system lacks ${missing.join(", ")}`;
      return { name, available, reason };
    }),
  };
}

/** The tier to use: EGG_CPU where set, else the fastest that this machine can run. */
export function chooseTier(): TierName {
  const forced = process.env["EGG_CPU"];
  const { tiers: states, best } = machine();
  if (forced === undefined || forced === "") return best;
  const usable = states.filter((tier) => tier.available).map((tier) => tier.name);
  const tier = states.find((state) => state.name === forced);
  if (tier === undefined || !tier.available) {
    throw new EggError("usage", `EGG_CPU: found ${JSON.stringify(forced)}, allowed ${usable.join(", ")}${tier === undefined ? "" : ` (${tier.reason})`}.`, {
      hint: "`egg info` lists the tiers of this machine. Unset EGG_CPU to use the fastest.",
    });
  }
  return tier.name;
}

/** A pool of native threads with one tier's kernels. Lives as long as the process. */
export interface Context {
  readonly handle: number;
  readonly threads: number;
  readonly tier: TierName;
}

/**
 * Starts `threads` workers (0: one for each core that this process may use).
 * @throws EggError("usage") for a tier this machine cannot run, EggError("resources") where threads cannot be started
 */
export function openContext(threads: number, tier: TierName = chooseTier()): Context {
  const count = threads === 0 ? availableParallelism() : threads;
  const handle = emptyWord();
  call("egg_open", [count, tiers.findIndex((entry) => entry.name === tier), handle]);
  return { handle: handle.getUint32(0, true), threads: count, tier };
}

/** flock(2) on an open file, without waiting: true where it is ours now, false where another process holds it. */
export function tryLockFile(fd: number): boolean {
  return call("egg_lock_file", [fd], ["held"]) === "ok";
}

/** A slice of waiting: long enough that short jobs need no second one, short enough that signals and timers stay alive. */
const slice_ms = 25;

/**
 * Waits for the context's job while the event loop runs on.
 * @param onProgress called at most about 20 times a second with the share done, 0..1
 */
export async function join(context: Context, onProgress?: (share: number) => void): Promise<void> {
  const record = emptyRecord("Progress");
  for (;;) {
    call("egg_wait", [context.handle, slice_ms, record]);
    const progress = unpack("Progress", record);
    if (progress.finished === 1) return;
    onProgress?.(progress.share / 65536);
    await new Promise((resume) => setImmediate(resume));
  }
}

/** Waits for the context's job and holds the event loop up meanwhile. */
export function wait(context: Context): void {
  const record = emptyRecord("Progress");
  do call("egg_wait", [context.handle, 2 ** 31, record]);
  while (unpack("Progress", record).finished === 0);
}

/** Asks the context's job to end early. */
export function cancel(context: Context): void {
  call("egg_cancel", [context.handle]);
}
