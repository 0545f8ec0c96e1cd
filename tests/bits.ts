// Damages a checkpoint in memory, one bit at a time or by cutting it, and counts what the loader does not notice.
// Not a test. Used by verify.test.ts on some bits and by `bun tests/soak.ts bits N` on all of them.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EggError } from "../src/errors.ts";
import { readCheckpoint } from "../src/run/checkpoint.ts";
import { onlyRun, run, sets, tiny } from "./program.ts";
import { sourceOf } from "./source.ts";

export interface Damage {
  bits: number;
  truncations: number;
  /** What was loaded although it was damaged, and what failed in another way than as a corrupt checkpoint. */
  missed: string[];
}

/** Flips the bits that `chosen` names for each byte, and cuts the file to each shorter length. */
export function damageCheckpoint(bytes: Uint8Array, chosen: (byte: number) => readonly number[]): Damage {
  const damage: Damage = { bits: 0, truncations: 0, missed: [] };
  const attempt = (what: string, bytes: Uint8Array): void => {
    try {
      readCheckpoint(sourceOf(bytes), "x");
      damage.missed.push(what);
    } catch (error) {
      if (!(error instanceof EggError) || error.kind !== "corrupt") damage.missed.push(`${what}: ${String(error)}`);
    }
  };
  for (let byte = 0; byte < bytes.length; byte++) {
    for (const bit of chosen(byte)) {
      bytes[byte]! ^= 1 << bit;
      attempt(`byte ${byte}, bit ${bit}`, bytes);
      bytes[byte]! ^= 1 << bit;
      damage.bits++;
    }
  }
  for (let length = 0; length < bytes.length; length++, damage.truncations++) attempt(`cut to ${length} bytes`, bytes.subarray(0, length));
  readCheckpoint(sourceOf(bytes), "x"); // whole again
  return damage;
}

export const everyBit = [0, 1, 2, 3, 4, 5, 6, 7] as const;

/** Every bit and every length of the last checkpoint of `runs` small runs, each of another seed. @throws Error for damage that was not noticed */
export function damageRuns({ runs, folder, command, progress }: { runs: number; folder: string; command: string[]; progress(done: number): void }): object {
  const sum = { checkpoints: 0, bits: 0, truncations: 0, missed: 0 };
  for (let seed = 1; seed <= runs; seed++) {
    const out = join(folder, `bits-${seed}`);
    const ended = run(["--out", out, "--quiet", ...sets({ ...tiny, "run.seed": seed })], { cwd: folder, command });
    if (ended.code !== 0) throw new Error(`egg ended with ${ended.code}: ${ended.err}`);
    const bytes = new Uint8Array(readFileSync(join(onlyRun(out), "checkpoints", "step-00000020.safetensors")));
    const { bits, truncations, missed } = damageCheckpoint(bytes, () => everyBit);
    if (missed.length > 0) throw new Error(`seed ${seed}: ${missed.length} not noticed: ${missed.slice(0, 10).join("; ")}`);
    sum.checkpoints++;
    sum.bits += bits;
    sum.truncations += truncations;
    progress(seed);
  }
  return sum;
}
