// A sweep by real shell loops that get in each other's way and are killed: several loops over one list of runs, kill -9 of single
// runs and of whole loops, Ctrl-C. What comes out is held against runs that nobody disturbed.
// Not a test by itself: sweep.test.ts runs a small one, soak.ts a large one. Next: README's part on sweeps.
import { existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { seededRandom } from "../src/models/sampling.ts";
import { environment, readLines, readSafetensors, sets, sha256, tiny, tinyContexts } from "./program.ts";

export interface SweepOptions {
  /** Seeds times values of trainer.sigma_shift. */
  seeds: number;
  shifts: number;
  /** "egg.c" unless given. */
  preset?: "egg" | "egg.c";
  loops: number;
  disturbances: number;
  folder: string;
  egg: string;
  seed: number;
  progress?: (text: string) => void;
}

export interface SweepFigures {
  runs: number;
  disturbances: Record<"kill_run" | "kill_loop" | "interrupt_loop", number>;
  /** Exits of runs by code, in all disturbed passes: 0, 5 (another loop had it), 137 and 130 (killed, interrupted). */
  exits: Record<string, number>;
  duplicates: number;
  lost: number;
  corrupt: number;
  /** A pass over finished runs: runs that printed anything else than before, and milliseconds a run. */
  changed: number;
  milliseconds: number;
}

const knobs = { "data.path": "builtin:fables:16KiB", "device.threads": 1, "run.steps": 3, "run.eval_every": 1, "run.sample_every": 2, "run.sample_tokens": 8, "run.checkpoint_every": 1, "run.fingerprint_every": 0 };

/** The loop that README shows: a run that another loop works on is left to it. `exits` and `lines` are for the figures. */
const loop = `
for seed in $SEEDS; do
  for shift in $SHIFTS; do
    "$EGG" --quiet --json --set run.seed=$seed --set trainer.sigma_shift=$shift "$@" >> "$LINES"
    code=$?
    echo $code >> "$EXITS"
    case $code in 0|5|137) ;; *) exit $code ;; esac
  done
done`;

export async function sweep({ seeds, shifts, preset = "egg.c", loops, disturbances, folder, egg, seed, progress = () => {} }: SweepOptions): Promise<SweepFigures> {
  const random = seededRandom(seed);
  const cwd = join(folder, "work");
  mkdirSync(cwd);
  const list = { SEEDS: Array.from({ length: seeds }, (_, i) => i + 1).join(" "), SHIFTS: Array.from({ length: shifts }, (_, i) => i).join(" ") };
  const start = (out: string, name: string) =>
    Bun.spawn(["bash", "-c", loop, "loop", "--out", out, ...sets({ ...(preset === "egg" ? tinyContexts : { ...tiny, "trainer.population": 16 }), ...knobs })], {
      cwd, env: environment(cwd, { ...list, EGG: egg, LINES: join(folder, `${name}.lines`), EXITS: join(folder, `${name}.exits`) }), detached: true, stdin: "ignore", stdout: "ignore", stderr: "ignore",
    });
  const pass = async (out: string, name: string): Promise<void> => {
    const code = await start(out, name).exited;
    if (code !== 0) throw new Error(`the pass ${name} ended with ${code}`);
  };
  const linesOf = (name: string): string[] => readFileSync(join(folder, `${name}.lines`), "utf8").split("\n").slice(0, -1);

  const done = { kill_run: 0, kill_loop: 0, interrupt_loop: 0 };
  let left = disturbances;
  // Each place is a person who starts the loop again whenever it was stopped, and again until all disturbances are over.
  const place = async (number: number): Promise<void> => {
    for (;;) {
      const shell = start("runs", `loop-${number}`);
      let over = false;
      void shell.exited.then(() => (over = true));
      while (!over) {
        await Bun.sleep(20 + random() * 300);
        if (over || left <= 0) continue;
        left--;
        const kind = (["kill_run", "kill_loop", "interrupt_loop"] as const)[Math.floor(random() * 3)]!;
        try {
          if (kind === "kill_run") process.kill(childOf(shell.pid) ?? shell.pid, "SIGKILL");
          else process.kill(-shell.pid, kind === "kill_loop" ? "SIGKILL" : "SIGINT");
          done[kind]++;
        } catch {
          // it had just ended
        }
        if (left % 10 === 0) progress(`${left} disturbances left`);
      }
      if (shell.exitCode === 0 && left <= 0) return;
    }
  };
  await Promise.all(Array.from({ length: loops }, (_, i) => place(i)));
  await pass("runs", "last");
  progress("undisturbed runs");
  await pass("alone", "alone");
  const begun = performance.now();
  await pass("runs", "second");
  const milliseconds = (performance.now() - begun) / (seeds * shifts);

  const exits: Record<string, number> = {};
  for (let i = 0; i < loops; i++) for (const code of readFileSync(join(folder, `loop-${i}.exits`), "utf8").split("\n").slice(0, -1)) exits[code] = (exits[code] ?? 0) + 1;
  const runs = readdirSync(join(cwd, "runs"));
  const expected = readdirSync(join(cwd, "alone"));
  const last = linesOf("last");
  return {
    runs: expected.length,
    disturbances: done,
    exits,
    duplicates: runs.filter((name) => !expected.includes(name)).length + (last.length - new Set(last.map((line) => JSON.parse(line).run)).size),
    lost: expected.filter((name) => !runs.includes(name) || !existsSync(join(cwd, "runs", name, "summary.json"))).length,
    corrupt: expected.filter((name) => runs.includes(name) && difference(join(cwd, "runs", name), join(cwd, "alone", name)) !== null).length,
    changed: linesOf("second").filter((line, i) => line !== last[i]).length,
    milliseconds,
  };
}

/** Null where a run is whole and equal to the other; otherwise what is not. */
function difference(run: string, alone: string): string | null {
  try {
    const [one, other] = [run, alone].map((folder) => JSON.parse(readFileSync(join(folder, "summary.json"), "utf8")));
    if (one.status !== "finished" || one.weights_sha256 !== other.weights_sha256 || one.val_bits_per_byte !== other.val_bits_per_byte) return "summary";
    const [ours, theirs] = [run, alone].map((folder) => readLines(folder).map(({ seconds, member_tokens_per_second, ...line }) => line));
    if (JSON.stringify(ours) !== JSON.stringify(theirs)) return "metrics";
    if (readFileSync(join(run, "samples.txt"), "utf8") !== readFileSync(join(alone, "samples.txt"), "utf8")) return "samples";
    const { name, sha256: told } = JSON.parse(readFileSync(join(run, "latest.json"), "utf8"));
    const file = join(run, "checkpoints", name);
    const weights = [...readSafetensors(file).tensors].filter(([tensor]) => !tensor.startsWith("state.")).sort(([a], [b]) => (a < b ? -1 : 1));
    if (sha256(readFileSync(file)) !== told || sha256(...weights.map(([, { data }]) => data)) !== one.weights_sha256) return "checkpoint";
    if (readdirSync(run, { recursive: true }).some((entry) => String(entry).endsWith(".tmp"))) return "left over";
    return null;
  } catch (error) {
    return String(error);
  }
}

/** The run that a loop is at. */
function childOf(shell: number): number | null {
  const file = `/proc/${shell}/task/${shell}/children`;
  const child = existsSync(file) ? Number(readFileSync(file, "utf8").trim().split(" ")[0]) : 0;
  return child > 0 ? child : null;
}
