// SIGINT and SIGTERM at any moment: egg dies by that very signal, soon, with all its steps saved, and goes on from there.
// Real processes, real signals. That a resumed run equals an uninterrupted one bit for bit: train.test.ts.
// Read next: src/run/signals.ts, src/run/loop.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { seededRandom } from "../src/models/sampling.ts";
import { egg, environment, freshFolder, hasBegun, onlyRun, readJson, readLines, readSafetensors, run, sets, start, tiny, until, type Ended, type Started } from "./program.ts";

setDefaultTimeout(60_000);

/** The longest time from a signal to the end of the process. */
const reaction_ms = 2000;

/** Sends a signal and expects the process to die by it in time. */
async function stop(process: Started, signal: "SIGINT" | "SIGTERM"): Promise<Ended> {
  const sent = performance.now();
  process.kill(signal);
  const ended = await process.ended;
  expect(performance.now() - sent).toBeLessThan(reaction_ms);
  expect({ code: ended.code, signal: ended.signal }).toEqual({ code: null, signal });
  expect(ended.err).not.toContain("    at ");
  return ended;
}

/** The run folder that a stopped run left, checked: every step of the metrics is in a checkpoint. Null where it came to none. */
function stepsSaved(cwd: string): number | null {
  if (!existsSync(join(cwd, "runs"))) return null;
  const folder = onlyRun(join(cwd, "runs"));
  const names = existsSync(join(folder, "checkpoints")) ? readdirSync(join(folder, "checkpoints")) : [];
  if (names.length === 0) {
    expect(existsSync(join(folder, "metrics.jsonl")) ? readLines(folder).length : 0).toBe(0);
    return null;
  }
  const { name, step } = readJson(folder, "latest.json");
  expect(readSafetensors(join(folder, "checkpoints", name)).metadata["step"]).toBe(String(step));
  expect(readLines(folder).map((line) => line.step)).toEqual(Array.from({ length: step }, (_, i) => i + 1));
  return step;
}

// Where most of the time goes into one thing each, so that the signals come in the midst of it.
const kinds: { name: string; config: Record<string, string | number>; moments_ms: number; words?: string }[] = [
  { name: "the start and short steps", config: { ...tiny, "run.steps": 1_000_000, "run.fingerprint_every": 0, "run.eval_every": 0, "run.sample_every": 0 }, moments_ms: 150 },
  { name: "checkpoints", config: { ...tiny, "run.steps": 1_000_000, "run.checkpoint_every": 1, "run.eval_every": 0, "run.sample_every": 0 }, moments_ms: 200 },
  { name: "evaluations", config: { ...tiny, "data.path": "builtin:fables:4MiB", "model.hidden": 256, "model.layers": 4, "run.steps": 1_000_000, "run.eval_every": 1 }, moments_ms: 600 },
  { name: "samples", config: { ...tiny, "run.steps": 1_000_000, "run.sample_every": 1, "run.sample_tokens": 1_000_000 }, moments_ms: 300 },
  { name: "a step of minutes", config: { ...tiny, "data.path": "builtin:fables:2MiB", "model.hidden": 128, "model.layers": 4, "trainer.sequence": 1_000_000 }, moments_ms: 500 },
];

describe.each(kinds)("at random moments of $name", ({ name, config, moments_ms }) => {
  const random = seededRandom(name.length);
  test.each([1, 2])("%d", async (round) => {
    const cwd = freshFolder("signals");
    const signal = round % 2 === 0 ? "SIGINT" : "SIGTERM";
    const process = start(sets(config), { cwd });
    await Bun.sleep(random() * moments_ms);
    await stop(process, signal);
    const first = stepsSaved(cwd);

    // And once more, from what is there.
    const again = start(sets(config), { cwd });
    await until("the start", () => again.err().includes("int8 weights"));
    await Bun.sleep(20 + random() * moments_ms);
    const ended = await stop(again, signal);
    expect(ended.err.includes("going on from step")).toBe(first !== null);
    expect(ended.err).toContain(`${signal}: stopping; once more to stop at once`);
    const second = stepsSaved(cwd)!;
    expect(second).toBeGreaterThanOrEqual(first ?? 0);
    expect(ended.err).toContain(`stopped by ${signal} after step ${second}; the checkpoint is saved, the same command goes on from it`);
    expect(readJson(onlyRun(join(cwd, "runs")), "summary.json")).toMatchObject({ status: "interrupted", steps: second });
  });
});

test("what a signal cut short at the last step is made up for: a finished run has all its losses and samples", async () => {
  const config = { ...tiny, "data.path": "builtin:fables:1MiB", "model.hidden": 128, "model.layers": 2, "run.steps": 3, "run.eval_every": 1, "run.sample_every": 1, "run.sample_tokens": 3000 };
  const whole = freshFolder("signals");
  run(["-q", ...sets(config)], { cwd: whole });
  const cwd = freshFolder("signals");
  let stops = 0;
  for (let round = 0; ; round++) {
    const process = start(["-q", ...sets(config)], { cwd });
    let over = false;
    void process.ended.then(() => (over = true));
    await until("some work", () => over || existsSync(join(cwd, "runs")));
    await Bun.sleep(50 + 20 * round);
    process.kill("SIGINT");
    const ended = await process.ended;
    if (ended.code === 0) break;
    expect(ended.signal).toBe("SIGINT");
    stops++;
    if (round > 60) throw new Error("the run gets nowhere");
  }
  expect(stops).toBeGreaterThan(0);
  const [left, right] = [onlyRun(join(cwd, "runs")), onlyRun(join(whole, "runs"))];
  const losses = (folder: string) => readLines(folder).map(({ step, val_bits_per_byte, weights_sha256 }) => ({ step, val_bits_per_byte, weights_sha256 }));
  expect(losses(left)).toEqual(losses(right));
  for (const { val_bits_per_byte } of losses(left)) expect(val_bits_per_byte).toBeNumber();
  expect(readFileSync(join(left, "samples.txt"), "utf8")).toBe(readFileSync(join(right, "samples.txt"), "utf8"));
  expect(readJson(left, "summary.json").val_bits_per_byte).toBe(readJson(right, "summary.json").val_bits_per_byte);
  expect(readJson(left, "latest.json").best).toEqual(readJson(right, "latest.json").best);
});

test("--json prints the summary of what is done so far", async () => {
  const cwd = freshFolder("signals");
  const process = start(["-q", "--json", ...sets(kinds[0]!.config)], { cwd });
  await until("steps", () => hasBegun(cwd) && readLines(onlyRun(join(cwd, "runs"))).length > 0);
  const { out, err } = await stop(process, "SIGINT");
  expect(err).toBe("");
  expect(out).toBe(readFileSync(join(onlyRun(join(cwd, "runs")), "summary.json"), "utf8"));
  expect(JSON.parse(out)).toMatchObject({ status: "interrupted", steps: stepsSaved(cwd) });
});

test("a second signal ends at once, and what was saved before stays good", async () => {
  const cwd = freshFolder("signals");
  // A token of this model takes the plain kernels a good part of a second, and no step ends within a token.
  const config = { ...tiny, "model.hidden": 2048, "model.layers": 4, "trainer.population": 2, "trainer.sequence": 100, "run.eval_every": 0 };
  const process = start(["--threads", "1", ...sets(config)], { cwd, env: { EGG_CPU: "scalar" } });
  await until("the start", () => process.err().includes("int8 weights"));
  await Bun.sleep(100);
  process.kill("SIGINT");
  await until("the answer", () => process.err().includes("SIGINT: stopping"));
  await Bun.sleep(150);
  await stop(process, "SIGTERM"); // the first one would have had it die by SIGINT
  const folder = onlyRun(join(cwd, "runs"));
  expect(existsSync(join(folder, "summary.json"))).toBeFalse();
  for (const name of readdirSync(join(folder, "checkpoints")).filter((name) => name.startsWith("step-"))) {
    expect(readSafetensors(join(folder, "checkpoints", name)).metadata["step"]).toBe("0");
  }
});

test("a shell's loop of runs stops too", async () => {
  const cwd = freshFolder("signals");
  const loop = `for seed in 1 2 3; do "$0" -q ${sets(kinds[0]!.config).join(" ")} --set run.seed=$seed; echo "after $seed"; done`;
  const shell = Bun.spawn(["bash", "-c", loop, egg], { cwd, env: environment(cwd), detached: true, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  await until("the first run", () => hasBegun(cwd));
  process.kill(-shell.pid, "SIGINT");
  expect(await new Response(shell.stdout).text()).toBe("");
  await shell.exited;
  expect(shell.signalCode).toBe("SIGINT");
  expect(stepsSaved(cwd)).not.toBeNull(); // and there is only one run
});

describe("the other commands", () => {
  const cwd = freshFolder("signals");
  run(["-q", ...sets({ ...tiny, "model.hidden": 64, "run.steps": 1 })], { cwd });
  const folder = onlyRun(join(cwd, "runs"));

  test.each([
    ["generate", [folder, "--tokens", "100000000"]],
    ["eval", [folder, "--data", "builtin:fables:1GiB"]],
  ])("%s dies by the signal at once", async (command, args) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      const process = start([command, ...args], { cwd });
      await Bun.sleep(150);
      await stop(process, signal);
    }
  });

  test("generate stops quietly when its reader has enough", () => {
    const child = Bun.spawnSync(["bash", "-c", `"$0" generate ${folder} --tokens 100000000 --prompt 0123456789abc | head -c 10; echo " \${PIPESTATUS[0]}"`, egg], { cwd, env: environment(cwd), stdin: "ignore" });
    expect({ out: child.stdout.toString(), err: child.stderr.toString() }).toEqual({ out: "0123456789 0\n", err: "" });
  });
});
