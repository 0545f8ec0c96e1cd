// Runs that end before their steps are done: run.patience and run.minutes, what they leave, and that a kill changes nothing of it.
// Not signals: signals.test.ts. Next: src/run/stop.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defaultConfig, type Config } from "../src/config/knobs.ts";
import { type MetricsLine, metricsText } from "../src/run/metrics.ts";
import { StopRule } from "../src/run/stop.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { freshFolder, onlyRun, readJson, readLines, readSafetensors, run, sets, start, tiny, until } from "./program.ts";

setDefaultTimeout(60_000);

describe("the rule", () => {
  const line = (step: number, train: number, val?: number, seconds = step): MetricsLine => ({
    step, seconds, train_bits_per_byte: train, member_tokens_per_second: 1, data_tokens: 1, fitness_plus: 1, fitness_minus: 1, updated_fraction: 0, val_bits_per_byte: val,
  });
  const rule = (run: Partial<Config["run"]>) => new StopRule({ ...defaultConfig().run, steps: 100, eval_every: 1, ...run });
  /** The first step after which the run ends, for these losses step by step. */
  const ends = (run: Partial<Config["run"]>, losses: number[]) => {
    const each = rule(run);
    return losses.findIndex((loss, i) => (each.tell(line(i + 1, 9, loss)), each.reason(i + 1, i + 1) !== null)) + 1;
  };

  test("patience counts evaluations since the best, and an improvement is more than min_delta", () => {
    expect(ends({ patience: 2 }, [5, 4, 4, 4, 1])).toBe(4);
    expect(ends({ patience: 2 }, [5, 4, 4.5, 3.9, 4.5, 3.8, 4, 4])).toBe(8);
    expect(ends({ patience: 3, min_delta: 0.5 }, [5, 4.6, 4.5, 4.4, 4.3, 4.2, 4.1])).toBe(7); // 4.4 was one: by 0.6
    expect(ends({ patience: 1, min_delta: 0.5 }, [5, 4.5])).toBe(2); // exactly min_delta is none
    expect(ends({ patience: 2 }, [5, NaN, NaN])).toBe(3);
    expect(ends({ patience: 0 }, Array(50).fill(5))).toBe(0);
    expect(ends({ steps: 7 }, Array(50).fill(5))).toBe(7);
  });

  test("only evaluations count, and of the training loss the mean since the one before", () => {
    const each = rule({ patience: 1, eval_every: 3, stop_metric: "train_bits_per_byte" });
    const losses = [9, 9, 3, 8, 8, 4, 5, 5, 11]; // means 7, 6.67, 7
    const reasons = losses.map((loss, i) => (each.tell(line(i + 1, loss)), each.reason(i + 1, 0)));
    expect(reasons).toEqual([null, null, null, null, null, null, null, null, "patience"]);
  });

  test("says the same of lines that went through the file", () => {
    const random = seededRandom(7);
    for (let round = 0; round < 200; round++) {
      const options = { patience: 1 + Math.floor(random() * 3), eval_every: 1 + Math.floor(random() * 3), min_delta: random() < 0.5 ? 0 : 1e-6, stop_metric: random() < 0.5 ? "val_bits_per_byte" : "train_bits_per_byte", minutes: 1 } as const;
      const [live, read] = [rule(options), rule(options)];
      let seconds = 0;
      for (let step = 1; step <= 30; step++) {
        seconds += random() * 4;
        const each = line(step, 4 + random() * 1e-5, step % options.eval_every === 0 ? 4 + random() * 1e-5 : undefined, seconds);
        expect(read.tell(JSON.parse(metricsText(each)))).toBe(live.tell(each));
        expect(read.reason(step, JSON.parse(metricsText(each)).seconds)).toBe(live.reason(step, seconds));
      }
    }
  });
});

// The loss of this one falls at first and then hardly any more.
const plateau = { ...tiny, "run.steps": 5000, "run.eval_every": 5, "run.checkpoint_every": 12, "run.sample_every": 0, "run.patience": 3, "run.min_delta": 0.05 };

describe("patience", () => {
  const cwd = freshFolder("stop");
  const ended = run(["--json", ...sets(plateau)], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  const summary = JSON.parse(ended.out);
  const lines = readLines(folder);
  const losses = lines.flatMap(({ step, val_bits_per_byte }) => (val_bits_per_byte === undefined ? [] : [{ step, loss: val_bits_per_byte as number }]));

  test("ends the run as finished, and says why", () => {
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code: 0, signal: null });
    expect(summary).toMatchObject({ status: "finished", stopped_by: "patience", steps: lines.length });
    expect(summary.steps).toBeLessThan(5000);
    expect(ended.err).toContain(`stopped after step ${summary.steps}: val_bits_per_byte has not improved for 3 evaluations`);
    // The rule, worked out here once more from the file.
    let [best, waited] = [Infinity, 0];
    const stop = losses.find(({ loss }) => (loss < best - 0.05 ? ([best, waited] = [loss, 0]) : waited++, waited === 3))!;
    expect(stop.step).toBe(summary.steps);
  });

  test("run again it prints the same and trains nothing", () => {
    const again = run(["--json", ...sets(plateau)], { cwd });
    expect({ code: again.code, out: again.out }).toEqual({ code: 0, out: ended.out });
    expect(again.err).toContain("has not improved for 3 evaluations");
  });

  test("keeps the weights with the lowest held-out loss, though no checkpoint was due there; eval and generate take them", () => {
    const lowest = losses.reduce((a, b) => (b.loss < a.loss ? b : a));
    const { best } = readJson(folder, "latest.json");
    expect(best).toMatchObject({ step: lowest.step, name: `step-${String(lowest.step).padStart(8, "0")}.safetensors` });
    expect(best.val_bits_per_byte).toBeCloseTo(lowest.loss, 6);
    expect(readSafetensors(join(folder, "checkpoints", best.name)).metadata["step"]).toBe(String(lowest.step));
    const evaluate = (...more: string[]) => JSON.parse(run(["eval", folder, "--json", ...more], { cwd }).out).step;
    expect([evaluate(), evaluate("--checkpoint", "newest"), evaluate("--checkpoint", "best")]).toEqual([summary.steps, summary.steps, lowest.step]);
    const text = (...more: string[]) => run(["generate", "-q", "--tokens", "40", ...more], { cwd }).out;
    expect(text(folder, "--checkpoint", "best")).toBe(text(join(folder, "checkpoints", best.name)));
    expect(run(["eval", folder, "--checkpoint", "first"], { cwd })).toMatchObject({ code: 2, err: expect.stringContaining("allowed newest, best") });
  });

  test.each([1, 2, 3])("kill -9 at any moments does not change when it ends (%d)", async (seed) => {
    const random = seededRandom(seed);
    const own = freshFolder("stop");
    const file = join(own, "runs", summary.run, "metrics.jsonl");
    const count = () => (existsSync(file) ? readFileSync(file, "latin1").split("\n").length - 1 : 0);
    let kills = 0;
    for (let target = 1; ; target = Math.min(lines.length - 1, count() + 1 + Math.floor(random() * 30))) {
      const process = start(["-q", "--json", ...sets(plateau)], { cwd: own });
      let over = false;
      void process.ended.then(() => (over = true));
      await until(`step ${target}`, () => over || count() >= target);
      if (kills < 8) process.kill("SIGKILL");
      const { code, out } = await process.ended;
      if (code !== 0) {
        kills++;
        continue;
      }
      const { seconds, member_tokens_per_second, peak_rss_bytes, ...same } = JSON.parse(out);
      expect(summary).toMatchObject(same);
      break;
    }
    expect(kills).toBeGreaterThan(2);
    const timeless = (all: any[]) => all.map(({ seconds, member_tokens_per_second, ...rest }) => rest);
    expect(timeless(readLines(onlyRun(join(own, "runs"))))).toEqual(timeless(lines));
    expect(readJson(onlyRun(join(own, "runs")), "latest.json").best).toEqual(readJson(folder, "latest.json").best);
  });

  test("on the training loss needs no held-out text", () => {
    const own = freshFolder("stop");
    const { out, code } = run(["-q", "--json", ...sets({ ...plateau, "data.validation": 0, "run.stop_metric": "train_bits_per_byte" })], { cwd: own });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ status: "finished", stopped_by: "patience", val_bits_per_byte: null });
    expect(readJson(onlyRun(join(own, "runs")), "latest.json").best).toBeNull();
    const none = run(["eval", onlyRun(join(own, "runs")), "--data", "builtin:fables:10KB", "--checkpoint", "best"], { cwd: own });
    expect(none).toMatchObject({ code: 2, err: expect.stringContaining("has no checkpoint whose held-out loss was measured") });
  });
});

describe("minutes", () => {
  const budget = { ...tiny, "run.steps": 1_000_000, "run.eval_every": 1000, "run.sample_every": 0, "run.checkpoint_every": 50, "run.minutes": 0.01 };

  test("end the run after so many seconds of training, over all resumptions, with a last evaluation", async () => {
    const cwd = freshFolder("stop");
    let kills = 0;
    for (;;) {
      const process = start(["-q", "--json", ...sets(budget)], { cwd });
      let over = false;
      void process.ended.then(() => (over = true));
      const begun = performance.now();
      await until("some steps", () => over || performance.now() - begun > 250);
      if (kills < 2) process.kill("SIGKILL");
      const { code, out } = await process.ended;
      if (code !== 0) {
        kills++;
        continue;
      }
      const summary = JSON.parse(out);
      expect(summary).toMatchObject({ status: "finished", stopped_by: "minutes" });
      const lines = readLines(onlyRun(join(cwd, "runs")));
      expect(lines.length).toBe(summary.steps);
      expect(lines.at(-1).seconds).toBeGreaterThanOrEqual(0.6);
      expect(lines.at(-2).seconds).toBeLessThan(0.6); // and not a step more
      expect(lines.at(-1).val_bits_per_byte).toBe(summary.val_bits_per_byte);
      expect(run(["-q", "--json", ...sets(budget)], { cwd }).out).toBe(out);
      break;
    }
    expect(kills).toBe(2);
  });
});

test("runs of versions without these knobs keep their ids, and their summaries are read", () => {
  const cwd = freshFolder("stop");
  const id = (values: Record<string, string | number>) => JSON.parse(run(["-q", "--json", "--dry-run", ...sets({ ...tiny, ...values })], { cwd }).out).run;
  const plain = id({});
  expect(id({ "run.patience": 0, "run.minutes": 0, "run.min_delta": 0 })).toBe(plain);
  expect(new Set([plain, id({ "run.patience": 1 }), id({ "run.minutes": 5 }), id({ "run.min_delta": 1 }), id({ "run.stop_metric": "train_bits_per_byte" })]).size).toBe(5);
  const { out } = run(["-q", "--json", ...sets(tiny)], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  const { stopped_by, ...older } = JSON.parse(out);
  expect(stopped_by).toBe("steps");
  writeFileSync(join(folder, "summary.json"), `${JSON.stringify(older)}\n`);
  expect(run(["-q", "--json", ...sets(tiny)], { cwd }).out).toBe(`${JSON.stringify(older)}\n`);
  expect(readdirSync(join(cwd, "runs")).length).toBe(1);
});
