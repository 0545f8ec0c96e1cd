// The contract of sweeps with real shell loops: a small one of `bun tests/soak.ts sweep N`, and what README shows of xargs and Slurm.
// Not one run by itself: train.test.ts and signals.test.ts. Next: sweep.ts.
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { egg, environment, freshFolder, readJson, sets, tiny } from "./program.ts";
import { sweep } from "./sweep.ts";

setDefaultTimeout(120_000);

const small = { ...tiny, "run.steps": 2, "run.sample_every": 0 };

test.each([["egg.c", 4], ["egg", 2]] as const)("four loops over one list of %s, killed and interrupted: nothing twice, nothing lost, nothing damaged; once more does nothing", async (preset, seeds) => {
  const { disturbances, exits, milliseconds, ...figures } = await sweep({ seeds, shifts: 4, preset, loops: 4, disturbances: 4 * seeds, folder: freshFolder("sweep"), egg, seed: 20261120 });
  expect(figures).toEqual({ runs: 4 * seeds, duplicates: 0, lost: 0, corrupt: 0, changed: 0 });
  const done = Object.values(disturbances).reduce((sum, count) => sum + count, 0);
  expect(done).toBeGreaterThan(2 * seeds); // the others met a loop that had just ended
  expect(Object.keys(exits).every((code) => ["0", "5", "137", "130"].includes(code))).toBeTrue();
});

const shell = (script: string, cwd: string, env: Record<string, string> = {}) => {
  mkdirSync(join(cwd, "bin"));
  symlinkSync(egg, join(cwd, "bin/egg"));
  const child = Bun.spawnSync(["bash", "-c", script], { cwd, env: environment(cwd, { PATH: `${join(cwd, "bin")}:${process.env["PATH"]}`, ...env }), stdin: "ignore" });
  return { code: child.exitCode, out: child.stdout.toString(), err: child.stderr.toString() };
};
const summaries = (cwd: string): any[] => readdirSync(join(cwd, "runs")).map((name) => readJson(cwd, "runs", name, "summary.json"));

test("the line with xargs runs them side by side", () => {
  const cwd = freshFolder("sweep");
  const settings = Object.entries(small).map(([knob, value]) => `${knob}=${value}`).join(",");
  const { code, err } = shell("printf '%s\\n' run.seed={1..4},trainer.sigma_shift={3,4} | xargs -P 4 -I @ env EGG_SET=$EGG_SET,@ egg --quiet", cwd, { EGG_SET: settings });
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(summaries(cwd).map(({ status }) => status)).toEqual(Array(8).fill("finished"));
  expect(new Set(summaries(cwd).map(({ weights_sha256 }) => weights_sha256)).size).toBe(8);
});

test("the line of a Slurm array makes one run of each index", () => {
  const cwd = freshFolder("sweep");
  // As README has it, with what Slurm would set.
  const line = `egg --quiet ${sets(small).join(" ")} --set run.seed=$((SLURM_ARRAY_TASK_ID % 4)) --set trainer.sigma_shift=$((SLURM_ARRAY_TASK_ID / 4))`;
  const { code, err } = shell(`for SLURM_ARRAY_TASK_ID in {0..7} 3; do ${line} || exit; done`, cwd);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(summaries(cwd).map(({ status }) => status)).toEqual(Array(8).fill("finished"));
});
