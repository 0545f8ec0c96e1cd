// What a run tells about itself while it learns: the warnings that it cannot, and what its weights look like.
// The keys of metrics.jsonl: metrics.test.ts. Read next: src/run/watchdog.ts, src/run/weightstats.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { presetConfig } from "../src/config/presets.ts";
import { zThreshold } from "../src/learners/nano-egg.ts";
import type { SavedTensor } from "../src/models/tensors.ts";
import type { MetricsLine } from "../src/run/metrics.ts";
import { Watchdog } from "../src/run/watchdog.ts";
import { saturatedFraction, tensorStats } from "../src/run/weightstats.ts";
import { freshFolder, onlyRun, readLines, readSafetensors, run, sets, tiny } from "./program.ts";

setDefaultTimeout(60_000);

const healthy: MetricsLine = {
  step: 0, seconds: 1, train_bits_per_byte: 5, member_tokens_per_second: 1, data_tokens: 1, fitness_plus: 1, fitness_minus: 1, updated_fraction: 0.2,
};

/** "step: trouble" of every warning, for lines from step 1 on. */
function warned(preset: string, lines: readonly Partial<MetricsLine>[]): string[] {
  const dog = new Watchdog(presetConfig(preset));
  return lines.flatMap((line, i) => dog.tell({ ...healthy, step: i + 1, ...line }).map(({ trouble }) => `${i + 1}: ${trouble}`));
}
const times = (count: number, line: Partial<MetricsLine>): Partial<MetricsLine>[] => Array(count).fill(line);

describe("the watchdog", () => {
  test("nearly all weights moving, or none, for 50 steps on end; each said once", () => {
    const all = { updated_fraction: 0.95 };
    const none = { updated_fraction: 0 };
    expect(warned("egg.c", times(49, all))).toEqual([]);
    expect(warned("egg.c", [...times(49, all), {}, ...times(49, all)])).toEqual([]);
    expect(warned("egg.c", times(200, { updated_fraction: 0.9 }))).toEqual([]);
    expect(warned("egg.c", [...times(10, {}), ...times(500, all)])).toEqual(["60: all move"]);
    expect(warned("egg.c", times(49, none))).toEqual([]);
    expect(warned("egg.c", [...times(49, none), {}, ...times(300, none), ...times(300, all)])).toEqual(["100: none move", "400: all move"]);
  });

  test("a rate that is near its end stops the weights, as it shall", () => {
    const steps = (rate: number): Partial<MetricsLine>[] => times(200, { updated_fraction: 0, rate });
    expect(warned("egg", steps(0.04))).toEqual([]);
    expect(warned("egg", steps(0.06))).toEqual(["50: none move"]);
  });

  test("a held-out loss that stays more than 0.2 bit above its best for three evaluations", () => {
    const at = (...losses: number[]) => warned("egg", losses.flatMap((val_bits_per_byte) => [{}, { val_bits_per_byte }]));
    expect(at(5, 4, 3.5, 3.4, 3.5, 3.6, 3.6, 3.6)).toEqual([]);
    expect(at(5, 4, 4.3, 4.3, 4.1, 4.3, 4.3)).toEqual([]);
    expect(at(5, 4, 4.3, 4.3, 4.3, 4.5, 4.6)).toEqual(["10: loss rises"]);
    expect(at(5, NaN, 4, NaN, 4.3, 4.3, NaN, 4.3, 4.3)).toEqual([]);
  });

  test("more than 5 % of the weights at the limit of an int8", () => {
    expect(warned("egg", [{ saturated_fraction: 0.05 }, {}, { saturated_fraction: 0.051 }, { saturated_fraction: 0.5 }])).toEqual(["3: saturated"]);
  });

  test("no better than a guess after 200 steps, where nothing else says why", () => {
    const guess = { train_bits_per_byte: 8.1 };
    expect(warned("egg.c", times(300, guess))).toEqual(["200: no better than a guess"]);
    expect(warned("egg.c", [...times(300, guess).slice(0, 180), ...times(49, {}), ...times(60, guess)])).toEqual(["279: no better than a guess"]);
    expect(warned("egg.c", [{ val_bits_per_byte: 7.9 }, ...times(300, guess)])).toEqual([]); // the perturbed are worse, the weights are not
    expect(warned("egg.c", [{ val_bits_per_byte: 8 }, ...times(300, guess)])).toEqual(["200: no better than a guess"]);
    expect(warned("egg.c", times(300, { ...guess, updated_fraction: 0 }))).toEqual(["50: none move"]);
    expect(warned("egg.c", times(300, { train_bits_per_byte: NaN }))).toEqual([]);
  });

  test("names knobs that the rule has, and their values", () => {
    const bad = [...times(50, { updated_fraction: 1 }), ...times(50, { updated_fraction: 0 }), ...[3, 4, 4, 4].map((val_bits_per_byte) => ({ val_bits_per_byte })), { saturated_fraction: 0.2 }];
    const knobs: Record<string, string> = { egg: "trainer.learning_rate (now 0.5)", "egg.c": "trainer.threshold (now 160)", "nano-egg": "trainer.alpha_decay_timestep (now 1000)" };
    for (const [preset, knob] of Object.entries(knobs)) {
      const dog = new Watchdog(presetConfig(preset));
      const messages = bad.flatMap((line, i) => dog.tell({ ...healthy, step: i + 1, ...line })).map(({ message }) => message);
      expect(messages.length).toBe(4);
      for (const message of messages) expect(message).toContain(knob);
      expect(messages[1]).toMatch(preset === "egg.c" ? /; lower / : /; raise /);
      expect(messages[2]).toContain("run.patience");
    }
  });
});

describe("figures of weights", () => {
  const tensor = (values: number[] | Int8Array, dtype: SavedTensor["dtype"] = "I8"): SavedTensor => ({ dtype, shape: [values.length], data: new Uint8Array(Int8Array.from(values).buffer) });

  test("of tensors that are known", () => {
    const all = Int8Array.from({ length: 256 }, (_, i) => i);
    const tensors = new Map([
      ["flat", tensor([3, 3, 3, 3])], ["two", tensor([127, -127, 0, 0])], ["all", tensor(all)], ["state.members", tensor([127, 127])], ["vocabulary.bytes", tensor([127], "U8")], ["odd", tensor([127, 5, 5, 5, 5, 5, -127])],
    ]);
    expect(tensorStats(tensors)).toEqual({
      flat: { entropy_bits: 0, rms: 3, saturated_fraction: 0, zero_fraction: 0 },
      two: { entropy_bits: 1.5, rms: 89.80256, saturated_fraction: 0.5, zero_fraction: 0.5 },
      all: { entropy_bits: 8, rms: 73.90196, saturated_fraction: 0.00781, zero_fraction: 0.00391 },
      odd: { entropy_bits: 1.14883, rms: 68.01575, saturated_fraction: 0.28571, zero_fraction: 0 },
    });
    expect(saturatedFraction(tensors)).toBe((2 + 2 + 2) / (4 + 2 + 255 + 7));
    expect(saturatedFraction(new Map([["zero", tensor([0, 0])]]))).toBe(0);
  });

  test("of a large model a sample from all over, of a bounded size", () => {
    const half = new Uint8Array(1 << 20).fill(127, 0, 1 << 19).fill(1, 1 << 19);
    const read: number[] = [];
    const pieces = Array.from({ length: 400 }, (_, i) => ({ byteLength: half.length, read: () => (read.push(i), half) }));
    expect(saturatedFraction(new Map([["w", { dtype: "I8", shape: [400, half.length], data: pieces }]]))).toBe(0.5);
    expect(read.length).toBe(32);
    expect(Math.max(...read.map((place, i) => Math.abs(place - (i + 0.5) * 12.5)))).toBeLessThan(2);
  });
});

const warnings = (err: string): string[] => err.split("\n").filter((line) => line.startsWith("egg: warning:"));

describe("the program warns", () => {
  const quiet = { "run.sample_every": 0, "run.checkpoint_every": 0, "run.fingerprint_every": 0, "run.eval_every": 10 };
  const own = { preset: "egg", "data.path": "builtin:fables:16KiB", "model.table_bits": 12, "trainer.population": 512, "device.threads": 2, ...quiet };

  test.each([
    ["all weights move", { ...tiny, ...quiet, "trainer.threshold": 0, "run.steps": 60 }, /^egg: warning: step 50: more than 90 % .* raise trainer\.threshold \(now 0\)$/],
    ["none moves", { ...tiny, ...quiet, "trainer.threshold": 2_000_000_000, "run.steps": 300 }, /^egg: warning: step 50: no weight moved .* lower trainer\.threshold \(now 2000000000\)$/],
    ["none moves, in rule egg", { ...own, "trainer.learning_rate": 1e-6, "run.steps": 60 }, /^egg: warning: step 50: no weight moved .* raise trainer\.learning_rate \(now 0\.000001\)$/],
    [
      "the loss rises",
      { ...own, "model.order": 8, "model.table_bits": 8, "trainer.population": 32, "trainer.learning_rate": 16, "trainer.decay_shift": 0, "run.steps": 300, "run.eval_every": 20 },
      /^egg: warning: step \d+: the held-out loss is at .* lower trainer\.learning_rate \(now 16\), or let run\.patience end the run$/,
    ],
  ] as const)("%s", (_name, config, says) => {
    const { code, err } = run(["-q", ...sets(config)], { cwd: freshFolder("seeing") });
    expect([code, warnings(err).length]).toEqual([0, 1]);
    expect(warnings(err)[0]).toMatch(says);
  });

  test.each([
    ["egg", { ...own, "trainer.sequence": 16, "run.steps": 600, "run.eval_every": 50 }],
    ["egg.c", { preset: "egg.c", "trainer.threshold": 3700, "model.hidden": 32, "model.layers": 1, "trainer.sequence": 64, "run.steps": 250, ...quiet }],
    ["nano-egg", { preset: "nano-egg", "model.hidden": 16, "model.layers": 1, "trainer.sequence": 16, "trainer.population": 256, "run.steps": 400, ...quiet }],
  ])("of nothing where %s learns", (_preset, config) => {
    const cwd = freshFolder("seeing");
    const { code, err } = run(["-q", ...sets({ "data.path": "builtin:fables:64KiB", ...config })], { cwd });
    expect([code, err]).toEqual([0, ""]);
    const losses = readLines(onlyRun(join(cwd, "runs"))).flatMap((line) => line.val_bits_per_byte ?? []);
    expect(losses.at(-1)).toBeLessThan(losses[0] - 0.3);
  });

  test("once, also where a run goes on", () => {
    const cwd = freshFolder("seeing");
    const args = ["-q", ...sets({ ...tiny, ...quiet, "trainer.threshold": 0, "run.steps": 200, "run.checkpoint_every": 100 })];
    expect(warnings(run(args, { cwd }).err).length).toBe(1);
    backTo(onlyRun(join(cwd, "runs")), 200);
    expect(warnings(run(args, { cwd }).err)).toEqual([]);
    expect(readLines(onlyRun(join(cwd, "runs"))).length).toBe(200);
    expect(warnings(run([...args, "--force"], { cwd }).err).length).toBe(1);
  });
});

/** Makes a finished run one that was killed before its last checkpoint, the one of step `last`. */
function backTo(folder: string, last: number): void {
  rmSync(join(folder, "summary.json"));
  rmSync(join(folder, `checkpoints/step-${String(last).padStart(8, "0")}.safetensors`));
}

describe("the program tells", () => {
  test("the threshold and the rate in force, where they change", () => {
    const common = { "data.path": "builtin:fables:64KiB", "run.steps": 12, "run.eval_every": 4, "run.sample_every": 0 };
    const lines = (config: Record<string, string | number>): any[] => {
      const cwd = freshFolder("seeing");
      expect(run(["-q", ...sets({ ...common, ...config })], { cwd }).code).toBe(0);
      return readLines(onlyRun(join(cwd, "runs")));
    };
    const nano = { preset: "nano-egg", "model.hidden": 16, "model.layers": 1, "trainer.population": 64, "trainer.sequence": 8, "trainer.alpha_decay_timestep": 3 };
    expect(lines(nano).map(({ threshold }) => threshold)).toEqual(Array.from({ length: 12 }, (_, step) => zThreshold(4, 3, step)));
    for (const line of lines({ ...nano, "trainer.alpha": 0.1 })) expect(line.threshold).toBeUndefined();
    const own = lines({ preset: "egg", "model.table_bits": 10, "trainer.population": 64 });
    expect(own.map(({ rate }) => rate)).toEqual(Array.from({ length: 12 }, (_, step) => Number(((12 - step) / 12).toFixed(4))));
    for (const line of own) expect("saturated_fraction" in line).toBe(line.step % 4 === 0);
  });

  test("the share of saturated weights that the checkpoint holds, on the page and on the screen too", () => {
    const cwd = freshFolder("seeing");
    const config = { preset: "egg", "data.path": "builtin:fables:16KiB", "model.table_bits": 10, "model.order": 3, "trainer.population": 512, "trainer.learning_rate": 16, "run.steps": 100, "run.eval_every": 50, "run.sample_every": 0 };
    const { err } = run(sets(config), { cwd });
    const folder = onlyRun(join(cwd, "runs"));
    const { tensors } = readSafetensors(join(folder, "checkpoints", readdirSync(join(folder, "checkpoints"))[0]!));
    const values = [...tensors].flatMap(([name, { data }]) => (name.startsWith("contexts.") ? [...data] : [])).filter((value) => value !== 0);
    const share = values.filter((value) => value === 127 || value === 129).length / values.length;
    const last = readLines(folder).at(-1);
    expect(share).toBeGreaterThan(0.0001);
    expect(last.saturated_fraction).toBe(Number(share.toFixed(4)));
    const floor = Number(/entropy ([\d.]+) bits/.exec(err)![1]);
    const above = [...err.matchAll(/([\d.]+) bits\/byte, ([\d.]+) above the floor/g)].map(([, loss, distance]) => [Number(loss), Number(distance)] as const);
    expect(above.length).toBe(4); // before step 1, at 50 and 100, and in the table
    for (const [loss, distance] of above) expect(distance).toBeCloseTo(loss - floor, 2);
    expect(above.at(-1)![0]).toBeCloseTo(last.val_bits_per_byte, 3);
    expect(run(["report", folder, "--out", "page.html"], { cwd }).code).toBe(0);
    expect(readFileSync(join(cwd, "page.html"), "utf8")).toContain("Weights at ±127");
  });

  test("with --debug-stats figures of each tensor, the same where a run goes on; --force deletes them", () => {
    const cwd = freshFolder("seeing");
    const args = ["-q", "--debug-stats", ...sets({ ...tiny, "run.steps": 60, "run.eval_every": 10, "run.checkpoint_every": 20 })];
    expect(run(args, { cwd }).code).toBe(0);
    const folder = onlyRun(join(cwd, "runs"));
    const file = join(folder, "debug-stats.jsonl");
    const whole = readFileSync(file, "utf8");
    const lines = whole.trimEnd().split("\n").map((line) => JSON.parse(line));
    expect(lines.map(({ step }) => step)).toEqual([0, 10, 20, 30, 40, 50, 60]);
    const { tensors } = readSafetensors(join(folder, "checkpoints/step-00000060.safetensors"));
    expect(Object.keys(lines.at(-1).tensors).sort()).toEqual([...tensors.keys()].filter((name) => !name.startsWith("state.")).sort());
    for (const [name, stats] of Object.entries<any>(lines.at(-1).tensors)) {
      const values = [...new Int8Array(tensors.get(name)!.data)];
      const shares = [...new Set(values)].map((value) => values.filter((other) => other === value).length / values.length);
      expect(stats.entropy_bits).toBeCloseTo(shares.reduce((sum, share) => sum - share * Math.log2(share), 0), 4);
      expect(stats.rms).toBeCloseTo(Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length), 4);
      expect(stats.zero_fraction).toBeCloseTo(values.filter((value) => value === 0).length / values.length, 4);
    }

    // As a kill at step 50 leaves it: lines of later steps than the checkpoint's, the last one torn.
    backTo(folder, 60);
    writeFileSync(file, whole.slice(0, -100));
    expect(run(args, { cwd }).code).toBe(0);
    expect(readFileSync(file, "utf8")).toBe(whole);
    expect(run([...args.filter((word) => word !== "--debug-stats"), "--force"], { cwd }).code).toBe(0);
    expect(existsSync(file)).toBe(false);
  });
});
