// metrics.jsonl: what a line holds, reading a torn file, cutting back on resume. The full disk is in checkpoint.test.ts.
// Not the loop that writes it: train.test.ts. Read next: src/run/metrics.ts.
import { afterAll, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type MetricsLine, metricsText, openMetrics, readMetrics, truncateAfter } from "../src/run/metrics.ts";
import { failure } from "./failure.ts";

const root = fs.mkdtempSync(path.join(os.tmpdir(), "egg-metrics-"));
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));

let files = 0;
const line = (step: number): MetricsLine => ({
  step, seconds: step * 1.5, train_bits_per_byte: 8 / step, member_tokens_per_second: 1234567.8, data_tokens: step * 3200,
  fitness_plus: 20, fitness_minus: 12, updated_fraction: 0.0123456,
});
function written(steps: number): string {
  const file = path.join(root, `metrics-${files++}.jsonl`);
  const metrics = openMetrics(file);
  for (let step = 1; step <= steps; step++) metrics.append(line(step));
  metrics.sync();
  metrics.close();
  return file;
}

const keys = ["step", "seconds", "train_bits_per_byte", "member_tokens_per_second", "data_tokens", "fitness_plus", "fitness_minus", "updated_fraction"];

test("a line has the agreed keys, compact, undefined ones left out", () => {
  const file = written(2);
  const texts = fs.readFileSync(file, "utf8").split("\n");
  expect(texts.length).toBe(3);
  expect(texts[2]).toBe("");
  expect(texts[1]).toBe(
    `{"step":2,"seconds":3,"train_bits_per_byte":4,"member_tokens_per_second":1234568,"data_tokens":6400,"fitness_plus":20,"fitness_minus":12,"updated_fraction":0.01235}`,
  );
  expect(Object.keys(JSON.parse(metricsText({ ...line(1), val_bits_per_byte: undefined })))).toEqual(keys);
  const all = { weights_sha256: "f".repeat(64), loss_integer: 1, saturated_fraction: 0.5, val_bits_per_byte: 2, rate: 1, threshold: 30, ...line(1) };
  expect(Object.keys(JSON.parse(metricsText(all)))).toEqual([...keys, "threshold", "rate", "val_bits_per_byte", "saturated_fraction", "loss_integer", "weights_sha256"]);
  expect(JSON.parse(metricsText({ ...all, rate: 0.123456789, saturated_fraction: 0.012345678 }))).toMatchObject({ threshold: 30, rate: 0.1235, saturated_fraction: 0.0123 });
});

test("a line takes at most 300 bytes, those of the weights' hash not counted", () => {
  const long: MetricsLine = {
    step: 999_999_999, seconds: 31_535_999.123456789, train_bits_per_byte: 7.0123456789, member_tokens_per_second: 999_999_999.9, data_tokens: 999_999_999_999,
    fitness_plus: 524_288, fitness_minus: 524_288, updated_fraction: 0.012345678, val_bits_per_byte: 7.123456789, loss_integer: 7.123456789,
  };
  // Of rule nano-egg in a run of four months; rule egg has a rate instead, and no loss_integer.
  const nano: MetricsLine = {
    ...long, step: 99_999_999, seconds: 9_999_999.123456789, member_tokens_per_second: 99_999_999.9, data_tokens: 99_999_999_999,
    fitness_plus: 65_536, fitness_minus: 65_536, saturated_fraction: 0.012345678, threshold: 139,
  };
  expect(metricsText(nano).length + 1).toBeLessThanOrEqual(300);
  const own: MetricsLine = { ...long, loss_integer: undefined, saturated_fraction: 0.012345678, rate: 0.123456789 };
  expect(metricsText(own).length + 1).toBeLessThanOrEqual(300);
  const hashed: MetricsLine = {
    step: 20_000, seconds: 1234.56789, train_bits_per_byte: 2.0123456789, member_tokens_per_second: 12_345_678.9, data_tokens: 400_000_000, fitness_plus: 16_000,
    fitness_minus: 16_000, updated_fraction: 0.012345678, rate: 0.123456789, val_bits_per_byte: 2.123456789, saturated_fraction: 0.012345678, weights_sha256: "a".repeat(64),
  };
  expect(metricsText(hashed).length + 1).toBeLessThanOrEqual(300 + 64);
});

test("at most 300 bytes a step: at the ends of all ranges without the hash, and on the mean of a long run that writes it at every step", () => {
  const most: MetricsLine = {
    step: 1_000_000_000, seconds: 999_999_999.994, train_bits_per_byte: 15.9876543, member_tokens_per_second: 999_999_999_999.4, data_tokens: Number.MAX_SAFE_INTEGER,
    fitness_plus: 524_288, fitness_minus: 524_288, updated_fraction: 0.123456, val_bits_per_byte: 15.9876543, loss_integer: 15.9876543,
  };
  expect(metricsText(most).length + 1).toBeLessThanOrEqual(300);
  expect(metricsText({ ...most, weights_sha256: "f".repeat(64) }).length + 1).toBeLessThanOrEqual(360); // a line of its own may be longer
  const lines = Array.from({ length: 10 }, (_, i): MetricsLine => ({
    step: 100_000 + i, seconds: 86_400.12 + i, train_bits_per_byte: 3.9876543, member_tokens_per_second: 12_345_678, data_tokens: 3_276_800_000, fitness_plus: 124, fitness_minus: 128,
    updated_fraction: 0.123456, weights_sha256: "f".repeat(64), ...(i === 0 ? { val_bits_per_byte: 3.9876543 } : {}), ...(i === 1 ? { loss_integer: 3.9876543 } : {}),
  }));
  expect(lines.reduce((sum, each) => sum + metricsText(each).length + 1, 0) / lines.length).toBeLessThanOrEqual(300);
});

test("what is not a number is null, never broken JSON", () => {
  expect(JSON.parse(metricsText({ ...line(1), train_bits_per_byte: NaN, val_bits_per_byte: Infinity }))).toMatchObject({ train_bits_per_byte: null, val_bits_per_byte: null });
});

test("reading: no file, an empty one, whole lines, a last line torn at every byte", () => {
  expect(readMetrics(path.join(root, "none"))).toEqual([]);
  const file = written(3);
  const whole = fs.readFileSync(file);
  const two = whole.indexOf(0x0a, whole.indexOf(0x0a) + 1) + 1;
  expect(readMetrics(file).map((each) => each.step)).toEqual([1, 2, 3]);
  for (let bytes = two; bytes < whole.length; bytes++) {
    fs.writeFileSync(file, whole.subarray(0, bytes));
    expect(readMetrics(file).map((each) => each.step)).toEqual([1, 2]);
  }
  fs.writeFileSync(file, "");
  expect(readMetrics(file)).toEqual([]);
});

test("reading: a broken line that is not the last is an error with its number", () => {
  const file = written(3);
  const [one, , three] = fs.readFileSync(file, "utf8").split("\n");
  for (const broken of [`{"step":2,"sec`, "5", "null", "", `{"step":1.5}`]) {
    fs.writeFileSync(file, `${one}\n${broken}\n${three}\n`);
    const error = failure(() => readMetrics(file));
    expect([error.kind, error.message]).toEqual(["corrupt", expect.stringContaining("line 2 ")]);
    expect(failure(() => truncateAfter(file, 3)).message).toContain("line 2 ");
    expect(truncateAfter(file, 1)!.step).toBe(1); // behind the cut it does not matter
    expect(fs.readFileSync(file, "utf8")).toBe(`${one}\n`);
  }
});

test("reading: each number a number, null as none, keys all there, steps that rise, lines of ours", () => {
  const file = path.join(root, "foreign.jsonl");
  const read = (second: string): MetricsLine[] => {
    fs.writeFileSync(file, `${metricsText(line(1))}\n${second}\n${metricsText(line(3))}\n`);
    return readMetrics(file);
  };
  const two = JSON.parse(metricsText(line(2)));
  expect(read(JSON.stringify({ ...two, unknown: [1], val_bits_per_byte: null }))[1]).toEqual({ ...two, val_bits_per_byte: NaN });
  for (const broken of [{ seconds: "3" }, { train_bits_per_byte: undefined }, { step: 1 }, { step: 0 }, { step: "2" }, { weights_sha256: "\u001b[2J" }, { weights_sha256: null }, { unknown: "x".repeat(4096) }]) {
    expect(failure(() => read(JSON.stringify({ ...two, ...broken }))).message).toContain("line 2 ");
  }
});

test("resume: broken lines where the checkpoint's steps should be are an error, and nothing is cut", () => {
  const file = written(3);
  const whole = fs.readFileSync(file, "utf8");
  for (const text of ["these are\nmy notes\n", `${whole}{}\n`]) {
    fs.writeFileSync(file, text);
    expect(failure(() => truncateAfter(file, 4)).kind).toBe("corrupt");
    expect(fs.readFileSync(file, "utf8")).toBe(text);
  }
  expect(truncateAfter(file, 3)!.step).toBe(3); // behind the checkpoint's step it does not matter
  expect(fs.readFileSync(file, "utf8")).toBe(whole);
});

test("resume cuts back to the checkpoint's step, and the file goes on from there as if nothing had happened", () => {
  const file = written(10);
  const whole = fs.readFileSync(file, "utf8");
  fs.appendFileSync(file, `{"step":11,"sec`);
  expect(truncateAfter(file, 6)!).toMatchObject({ step: 6, data_tokens: 19_200 });
  expect(readMetrics(file).map((each) => each.step)).toEqual([1, 2, 3, 4, 5, 6]);
  const metrics = openMetrics(file);
  for (let step = 7; step <= 10; step++) metrics.append(line(step));
  metrics.close();
  expect(fs.readFileSync(file, "utf8")).toBe(whole);
});

test("resume: a torn last line goes, whole files stay, step 0 empties, no file is no trouble", () => {
  const file = written(3);
  const whole = fs.readFileSync(file, "utf8");
  fs.appendFileSync(file, `\0\0\0`); // what a power failure can leave
  expect(truncateAfter(file, 3)!.step).toBe(3);
  expect(fs.readFileSync(file, "utf8")).toBe(whole);
  expect(truncateAfter(file, 99)!.step).toBe(3);
  expect(fs.readFileSync(file, "utf8")).toBe(whole);
  expect(truncateAfter(file, 0)).toBeNull();
  expect(fs.statSync(file).size).toBe(0);
  expect(truncateAfter(path.join(root, "none"), 5)).toBeNull();
});
