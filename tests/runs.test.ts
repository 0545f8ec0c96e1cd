// `egg runs` on real run folders that ./egg made: every figure it shows is held against metrics.jsonl and summary.json,
// pictures are parsed and decoded, damaged folders are rows. The HTML page: reporthtml.test.ts.
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, cpSync, existsSync, linkSync, mkdirSync, readFileSync, readdirSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { inflateSync } from "node:zlib";
import { axisUnit, commonXs, smooth, thin, ticks, valueAtX, type Point } from "../src/report/curves.ts";
import { readRun } from "../src/report/runs.ts";
import { chartSvg, palette } from "../src/report/svg.ts";
import { showsUnicode, textChart } from "../src/report/textplot.ts";
import { makeColors } from "../src/report/terminal.ts";
import { freshFolder, readJson, readLines, root, run, sets, start, tiny, until } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("runs");
const runs = join(cwd, "runs");
/** Run folders by the names that they were given, relative to cwd. */
const made: Record<string, string> = {};

beforeAll(() => {
  for (const [name, more] of Object.entries({ one: { "run.seed": 1, "run.steps": 60 }, two: { "run.seed": 2, "run.steps": 40 }, three: { "run.seed": 1, "trainer.population": 32, "run.steps": 60 } })) {
    const ended = run(["--quiet", "--name", name, ...sets({ ...tiny, ...more })], { cwd });
    expect(ended).toMatchObject({ code: 0 });
    made[name] = join("runs", readdirSync(runs).find((folder) => folder.startsWith(`${name}-`))!);
  }
});

const path = (name: string): string => join(cwd, made[name]!);
const lowestOf = (lines: any[]): number => Math.min(...lines.flatMap((line) => line.val_bits_per_byte ?? []));
const evaluations = (name: string): any[] => readLines(path(name)).filter((line) => line.val_bits_per_byte !== undefined);

describe("egg runs list", () => {
  const list = (...args: string[]): any => JSON.parse(run(["runs", "list", ...args, "--json"], { cwd }).out);

  test("has one row a run, and each figure is that of the run's files", () => {
    const ended = run(["runs", "list", "--json"], { cwd });
    expect([ended.code, ended.err]).toEqual([0, ""]);
    expect(ended.out).toMatch(/^\{[^\n]*\}\n$/);
    const { runs: rows } = JSON.parse(ended.out);
    expect(rows.map((row: any) => row.folder)).toEqual(Object.values(made).sort());
    for (const name of Object.keys(made)) {
      const summary = readJson(path(name), "summary.json");
      expect(rows.find((row: any) => row.folder === made[name])).toEqual({
        run: basename(path(name)), folder: made[name], status: "finished", trouble: null, steps: summary.steps, steps_planned: summary.steps, seconds: summary.seconds,
        val_bits_per_byte: summary.val_bits_per_byte, best_val_bits_per_byte: lowestOf(readLines(path(name))), member_tokens_per_second: summary.member_tokens_per_second, tokens_per_second: null,
        changed: expect.stringMatching(/^20\d\d-/),
      });
    }
  });

  test("is a table for people, sorted as asked", () => {
    utimesSync(join(path("two"), "metrics.jsonl"), 1e9, 1e9); // long ago
    const table = (...args: string[]): string[] => run(["runs", "list", ...args], { cwd }).out.trimEnd().split("\n");
    const order = (lines: string[]): string[] => lines.slice(1).map((line) => line.split("-")[0]!);
    expect(table()[0]!.split(/ {2,}/)).toEqual(["run", "status", "steps", "best held-out", "rate", "age"]);
    expect(order(table())).toEqual(["one", "three", "two"]);
    expect(order(table("--sort", "age")).at(-1)).toBe("two");
    expect(table("runs").find((line) => line.startsWith("two"))).toMatch(/ d$/);
    const byBest = Object.keys(made).sort((a, b) => lowestOf(readLines(path(a))) - lowestOf(readLines(path(b))));
    expect(order(table("--sort", "best"))).toEqual(byBest);
    expect(table().find((line) => line.startsWith("one"))).toContain(lowestOf(readLines(path("one"))).toFixed(3));
    expect(run(["runs", "list", "--sort", "size"], { cwd }).code).toBe(2);
  });

  test("damaged and half-written folders are rows with their reasons; what is no run is no row", () => {
    const folder = join(cwd, "damaged");
    mkdirSync(folder);
    const copy = (name: string, damage: (to: string) => void): void => {
      cpSync(path("one"), join(folder, name), { recursive: true });
      damage(join(folder, name));
    };
    copy("config-cut", (to) => truncateSync(join(to, "config.json"), 30));
    copy("config-foreign", (to) => writeFileSync(join(to, "config.json"), '{"a":1}'));
    copy("summary-cut", (to) => truncateSync(join(to, "summary.json"), 30));
    copy("summary-huge", (to) => truncateSync(join(to, "summary.json"), 3_000_000_000)); // sparse
    copy("metrics-junk", (to) => appendFileSync(join(to, "metrics.jsonl"), "junk\njunk\n"));
    copy("metrics-gone", (to) => void Bun.spawnSync(["rm", join(to, "metrics.jsonl")]));
    copy("metrics-pipe", (to) => void Bun.spawnSync(["sh", "-c", 'rm "$0" && mkfifo "$0"', join(to, "metrics.jsonl")]));
    copy("metrics-torn", (to) => appendFileSync(join(to, "metrics.jsonl"), '{"step":61,"sec')); // as a killed process leaves it
    copy("summary-gone", (to) => void Bun.spawnSync(["rm", join(to, "summary.json")])); // killed before its end
    mkdirSync(join(folder, "begun", "checkpoints"), { recursive: true });
    mkdirSync(join(folder, "evil\x1b[31m\nname", "checkpoints"), { recursive: true });
    mkdirSync(join(folder, "notes"));
    writeFileSync(join(folder, "README"), "no run");
    const rows = list("damaged").runs as any[];
    expect(Object.fromEntries(rows.map((row) => [row.run, row.status === "damaged" ? row.trouble : row.status]))).toEqual({
      "config-cut": "config.json: no whole JSON",
      "config-foreign": "config.json: none of a run: it has no config in it",
      "summary-cut": "summary.json: not the summary of a run",
      "summary-huge": "summary.json: 3,000,000,000 bytes, more than 1,048,576",
      "metrics-junk": "metrics.jsonl: one of its last lines is no line of metrics",
      "metrics-gone": "metrics.jsonl is missing, though the run is finished",
      "metrics-pipe": "metrics.jsonl: not a file",
      "metrics-torn": "finished",
      "summary-gone": "interrupted",
      begun: "it has no config.json",
      "evil\x1b[31m\nname": "it has no config.json",
    });
    expect(rows.find((row) => row.run === "summary-gone")).toMatchObject({ steps: 60, val_bits_per_byte: evaluations("one").at(-1).val_bits_per_byte, best_val_bits_per_byte: lowestOf(readLines(path("one"))) });
    const { out, code } = run(["runs", "list", "damaged"], { cwd });
    expect(code).toBe(0);
    expect(out.split("\n").length).toBe(rows.length + 2);
    expect(out).not.toContain("\x1b");
    expect(run(["runs", "list", "nowhere"], { cwd })).toMatchObject({ code: 2, err: expect.stringContaining("nowhere: no such folder") });
    expect(run(["runs", "list", "damaged/notes"], { cwd })).toMatchObject({ code: 0, out: "", err: expect.stringContaining("no runs") });
  });

  test("a run is running while its process lives, and interrupted with its steps after kill -9", async () => {
    const other = join(cwd, "live");
    const process = start(["--quiet", "--name", "long", "--out", other, ...sets({ ...tiny, "run.steps": 1_000_000, "run.checkpoint_every": 0 })], { cwd });
    const metrics = (): string => join(other, readdirSync(other)[0]!, "metrics.jsonl");
    await until("a line of metrics", () => existsSync(other) && readdirSync(other).length > 0 && existsSync(metrics()) && readFileSync(metrics(), "utf8").includes("val_"));
    for (let i = 0; i < 20; i++) expect(list(other).runs[0]).toMatchObject({ status: "running", trouble: null, steps_planned: 1_000_000 });
    expect(list(other).runs[0].steps).toBeGreaterThan(0);
    process.kill("SIGKILL");
    await process.ended;
    const [row] = list(other).runs;
    const lines = readFileSync(metrics(), "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line));
    expect(row).toMatchObject({ status: "interrupted", trouble: null, steps: lines.at(-1).step, seconds: lines.at(-1).seconds, best_val_bits_per_byte: lowestOf(lines) });
    expect(row.member_tokens_per_second).toBeGreaterThan(0);
  });

  test("looking never takes the lock that a starting run would need, unless it cannot know otherwise", () => {
    const folder = join(cwd, "looked", "at");
    cpSync(path("one"), folder, { recursive: true });
    const look = (signature: string, free: boolean): { status: string; tries: number } => {
      writeFileSync(join(folder, "lock"), signature);
      let tries = 0;
      return { status: readRun(folder, () => (tries++, free)).status, tries };
    };
    const here = `${process.pid} ${hostname()}\n`;
    expect(look(here, true)).toEqual({ status: "finished", tries: 0 });
    writeFileSync(join(folder, "summary.json"), JSON.stringify({ ...readJson(folder, "summary.json"), status: "interrupted" }));
    expect(look(`${Bun.spawnSync(["true"]).pid} ${hostname()}\n`, true)).toEqual({ status: "interrupted", tries: 0 });
    for (const signature of [here, "1 another-machine\n", ""]) {
      expect([look(signature, true), look(signature, false)]).toEqual([{ status: "interrupted", tries: 1 }, { status: "running", tries: 1 }]);
    }
  });

  test("reads a thousand runs, and of long metrics only the end", () => {
    const folder = join(cwd, "thousand");
    const record = { ...readJson(path("one"), "summary.json"), status: "finished" };
    for (let i = 0; i < 1000; i++) {
      const to = join(folder, `run-${String(i).padStart(4, "0")}`);
      mkdirSync(to, { recursive: true });
      for (const name of ["config.json", "metrics.jsonl"]) linkSync(join(path("one"), name), join(to, name));
      writeFileSync(join(to, "summary.json"), JSON.stringify({ ...record, val_bits_per_byte: 8 - i / 1000 }));
    }
    const { runs: rows } = list(folder);
    expect(rows.map((row: any) => row.val_bits_per_byte)).toEqual(Array.from({ length: 1000 }, (_, i) => 8 - i / 1000));
    const long = join(cwd, "long", "one");
    cpSync(path("one"), long, { recursive: true });
    const line = readLines(path("one"))[0];
    const text = Array.from({ length: 30_000 }, (_, i) => JSON.stringify({ ...line, step: i + 1, val_bits_per_byte: i === 10 ? 0.5 : 5 }));
    writeFileSync(join(long, "metrics.jsonl"), `${text.join("\n")}\n`);
    writeFileSync(join(long, "latest.json"), JSON.stringify({ name: "x", step: 5, sha256: "", best: { name: "x", step: 5, val_bits_per_byte: 1.25 } }));
    expect(list(join(cwd, "long")).runs[0]).toMatchObject({ status: "finished", best_val_bits_per_byte: 1.25 });
  });
});

describe("egg runs compare", () => {
  test("shows only knobs that differ, and losses at equal time and steps as the metrics have them", () => {
    const ended = run(["runs", "compare", made["one"]!, made["two"]!, made["three"]!, "--json"], { cwd });
    expect([ended.code, ended.err]).toEqual([0, ""]);
    expect(ended.out).toMatch(/^\{[^\n]*\}\n$/);
    const comparison = JSON.parse(ended.out);
    const names = ["one", "two", "three"];
    expect(comparison.config).toEqual([
      { knob: "trainer.population", values: [64, 64, 32] },
      { knob: "run.steps", values: [60, 40, 60] },
      { knob: "run.seed", values: [1, 2, 1] },
    ]);
    comparison.runs.forEach((row: any, i: number) => {
      const summary = readJson(path(names[i]!), "summary.json");
      const best = evaluations(names[i]!).find((line) => line.val_bits_per_byte === lowestOf(readLines(path(names[i]!))));
      expect(row).toMatchObject({
        folder: made[names[i]!], steps: summary.steps, seconds: summary.seconds, member_tokens: summary.member_tokens, parameters: summary.parameters,
        val_bits_per_byte: evaluations(names[i]!).at(-1).val_bits_per_byte, val_step: summary.steps, best_val_bits_per_byte: best.val_bits_per_byte, best_val_step: best.step,
      });
    });
    const expected = (key: "seconds" | "step", x: number): (number | null)[] => names.map((name) => evaluations(name).findLast((line) => line[key] <= x)?.val_bits_per_byte ?? null);
    expect(comparison.at_equal_steps.at(-1).step).toBe(40);
    expect(comparison.at_equal_steps.length).toBeGreaterThan(3);
    for (const { step, val_bits_per_byte } of comparison.at_equal_steps) expect(val_bits_per_byte).toEqual(expected("step", step));
    expect(comparison.at_equal_seconds.at(-1).seconds).toBe(Math.min(...names.map((name) => evaluations(name).at(-1).seconds)));
    for (const { seconds, val_bits_per_byte } of comparison.at_equal_seconds) expect(val_bits_per_byte).toEqual(expected("seconds", seconds));
  });

  test("in words: tables and curves", () => {
    const { out, err, code } = run(["runs", "compare", made["one"]!, made["two"]!], { cwd });
    expect({ err, code }).toEqual({ err: "", code: 0 });
    for (const words of [`A  ${made["one"]}`, `B  ${made["two"]}`, "run.seed", "held-out bits/byte, best", "held-out at step", "entropy floor 0.917", `A ${made["one"]}`]) expect(out).toContain(words);
    expect(out).not.toContain("trainer.population");
    expect(run(["runs", "compare", made["one"]!, made["one"]!], { cwd }).out).toContain("The configs are the same.");
    expect(run(["runs", "compare"], { cwd })).toMatchObject({ code: 2, err: expect.stringContaining("needs") });
    expect(run(["runs", "compare", made["one"]!, "runs/nothing"], { cwd })).toMatchObject({ code: 2, err: expect.stringContaining("no such run folder") });
  });
});

/** What a picture says: its lines in the values of the axes, read off the ticks, which are text. */
function readBack(svg: string): { title: string; texts: string[]; lines: { colour: string; points: Point[] }[] } {
  const { svg: picture } = (Bun as any).XML.parse(svg);
  const all = (value: any): any[] => (value === undefined ? [] : [value].flat());
  const texts = all(picture.text).map((text) => ({ words: String(text["#text"] ?? text), x: Number(text["@x"]), y: Number(text["@y"]), anchor: text["@text-anchor"] }));
  const number = (words: string): number => (/^-?[\d,]+(\.\d+)?$/.test(words) ? Number(words.replaceAll(",", "")) : NaN);
  const scale = (marks: [number, number][]): ((pixel: number) => number) => {
    const [[p0, v0], [p1, v1]] = [marks[0]!, marks.at(-1)!];
    return (pixel) => v0 + ((pixel - p0) / (p1 - p0)) * (v1 - v0);
  };
  const yTicks = texts.filter(({ words, anchor }) => anchor === "end" && !Number.isNaN(number(words)));
  const xTicks = texts.filter(({ words, anchor }) => anchor === "middle" && !Number.isNaN(number(words)));
  const [x, y] = [scale(xTicks.map((tick) => [tick.x, number(tick.words)])), scale(yTicks.map((tick) => [tick.y - 4, number(tick.words)]))];
  const lines = all(picture.polyline).map((line) => ({
    colour: line["@stroke"] as string,
    points: (line["@points"] as string).split(" ").map((pair) => ({ x: x(Number(pair.split(",")[0])), y: y(Number(pair.split(",")[1])) })),
  }));
  return { title: String(picture.title), texts: texts.map(({ words }) => words), lines };
}

/** Pixels of a PNG (8 bits, RGB or RGBA, no interlace) by its specification, each as 0xrrggbb. */
function decodePng(bytes: Uint8Array): { width: number; height: number; pixel: (x: number, y: number) => number } {
  expect([...bytes.subarray(0, 8)]).toEqual([137, 80, 78, 71, 13, 10, 26, 10]);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const data: Uint8Array[] = [];
  let [width, height, channels] = [0, 0, 4];
  for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
    const [length, type] = [view.getUint32(at), new TextDecoder().decode(bytes.subarray(at + 4, at + 8))];
    expect(view.getUint32(at + 8 + length)).toBe(Bun.hash.crc32(bytes.subarray(at + 4, at + 8 + length)));
    if (type === "IHDR") {
      [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      expect([bytes[at + 16], bytes[at + 20]]).toEqual([8, 0]);
      channels = bytes[at + 17] === 6 ? 4 : 3;
    }
    if (type === "IDAT") data.push(bytes.subarray(at + 8, at + 8 + length));
  }
  const raw = inflateSync(Buffer.concat(data));
  const stride = width * channels;
  const image = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    for (let i = 0; i < stride; i++) {
      const [left, up] = [i < channels ? 0 : image[y * stride + i - channels]!, y === 0 ? 0 : image[(y - 1) * stride + i]!];
      const corner = i < channels || y === 0 ? 0 : image[(y - 1) * stride + i - channels]!;
      const guess = left + up - corner;
      const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
      const paeth = a <= b && a <= c ? left : b <= c ? up : corner;
      image[y * stride + i] = raw[y * (stride + 1) + 1 + i]! + [0, left, up, (left + up) >> 1, paeth][raw[y * (stride + 1)]!]!;
    }
  }
  return { width, height, pixel: (x, y) => (image[y * stride + x * channels]! << 16) | (image[y * stride + x * channels + 1]! << 8) | image[y * stride + x * channels + 2]! };
}

describe("egg runs plot", () => {
  const plot = (args: string[]) => run(["runs", "plot", ...args], { cwd });

  test("an SVG whose curves are the metrics, to a hundredth of a pixel", () => {
    for (const [axis, x] of [["steps", (line: any) => line.step], ["seconds", (line: any) => line.seconds], ["member-tokens", (line: any) => line.step * 64 * 8 / 1000]] as const) {
      expect(plot([made["one"]!, made["two"]!, "--x", axis, "--out", "a.svg"])).toMatchObject({ code: 0, out: "", err: expect.stringContaining("wrote a.svg") });
      const picture = readBack(readFileSync(join(cwd, "a.svg"), "utf8"));
      expect(picture.lines.map(({ colour }) => colour)).toEqual([palette[0], palette[1]]);
      ["one", "two"].forEach((name, i) => {
        const wanted = evaluations(name);
        const { points } = picture.lines[i]!;
        expect(points.length).toBe(wanted.length);
        points.forEach((point, j) => {
          expect(Math.abs(point.y - wanted[j].val_bits_per_byte)).toBeLessThan(0.001);
          expect(Math.abs(point.x - x(wanted[j]))).toBeLessThan(0.001 * Math.max(1, x(wanted.at(-1))));
        });
      });
      for (const words of ["Held-out loss", "held-out loss, bits per byte", "entropy floor 0.917"]) expect(picture.texts.join("\n")).toContain(words);
      expect(picture.texts.some((text) => text.startsWith(`${basename(path("one"))} (`) && text.includes("seed 1"))).toBe(true);
    }
  });

  test("training loss, a title of one's own, and markup in it is text", () => {
    const title = `</title><script>alert("x")</script> & 'so' \u0001`;
    expect(plot([join(made["one"]!, "checkpoints", "step-00000060.safetensors"), "--metric", "train", "--title", title, "--out", "b.svg"]).code).toBe(0);
    const text = readFileSync(join(cwd, "b.svg"), "utf8");
    expect(text).not.toMatch(/<script|[\x00-\x08]/);
    const picture = readBack(text);
    expect(picture.title).toBe(title.replace("\u0001", "\ufffd"));
    expect(picture.lines[0]!.points.map(({ y }) => y.toFixed(2))).toEqual(readLines(path("one")).map((line) => line.train_bits_per_byte.toFixed(2)));
  });

  test("a PNG of the same, with the curve's colours and text in it, from another folder", () => {
    const elsewhere = freshFolder("elsewhere");
    const ended = run(["runs", "plot", path("one"), path("two"), "--out", "c.png"], { cwd: elsewhere });
    expect(ended).toMatchObject({ code: 0, out: "" });
    expect(readdirSync(elsewhere)).toEqual(["c.png"]);
    const { width, height, pixel } = decodePng(readFileSync(join(elsewhere, "c.png")));
    expect([width, height]).toEqual([1520, 840]);
    const counts = new Map<number, number>();
    let dark = 0; // the title's letters
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const colour = pixel(x, y);
        counts.set(colour, (counts.get(colour) ?? 0) + 1);
        if (y < 70 && colour === 0x1f2328) dark += 1;
      }
    }
    expect(counts.get(0xffffff)! / (width * height)).toBeGreaterThan(0.8);
    for (const colour of palette.slice(0, 2)) expect(counts.get(Number.parseInt(colour.slice(1), 16)) ?? 0).toBeGreaterThan(300);
    expect(dark).toBeGreaterThan(100);
  });

  test("in the terminal: braille, or letters where the locale has none, never an escape in a pipe", () => {
    const { out } = plot([made["one"]!]);
    expect(out).toMatch(/[\u2801-\u28ff]{5}/);
    expect(out).not.toContain("\x1b");
    expect(Math.max(...out.split("\n").map((line) => Bun.stringWidth(line)))).toBeLessThanOrEqual(80);
    const plain = run(["runs", "plot", made["one"]!, made["two"]!], { cwd, env: { LC_ALL: "C" } }).out;
    expect(plain).toMatch(/^[\x0a\x20-\x7e]+$/);
    expect(plain).toMatch(/A.*\n[^]*B/);
    expect([{}, { LANG: "de_DE.UTF-8" }, { LANG: "C" }, { LANG: "de_DE.UTF-8", LC_ALL: "POSIX" }, { LANG: "C.utf8", TERM: "linux" }].map(showsUnicode)).toEqual([true, true, false, false, false]);
  });

  test("what cannot be drawn is said", () => {
    expect(plot([made["one"]!, "--out", "x.pdf"])).toMatchObject({ code: 2, err: expect.stringContaining("ends in .svg or .png") });
    expect(plot([made["one"]!, "--x", "hours"])).toMatchObject({ code: 2, err: expect.stringContaining("steps, seconds, member-tokens") });
    expect(plot([made["one"]!, "--out", "no/such/folder/x.svg"])).toMatchObject({ code: 2, err: expect.stringContaining("no such file or folder") });
    const blind = join(cwd, "blind", "one");
    cpSync(path("one"), blind, { recursive: true });
    writeFileSync(join(blind, "metrics.jsonl"), readLines(path("one")).map(({ val_bits_per_byte, ...line }) => `${JSON.stringify(line)}\n`).join(""));
    expect(plot([blind])).toMatchObject({ code: 2, out: "", err: expect.stringContaining("--metric train") });
    expect(plot([blind, made["two"]!])).toMatchObject({ code: 0, err: expect.stringContaining("left out") });
    appendFileSync(join(blind, "metrics.jsonl"), "junk\njunk\n");
    expect(plot([blind, "--metric", "train"])).toMatchObject({ code: 7, err: expect.stringContaining("line 61") });
  });

  test("the renderer of PNGs is not loaded for anything else", () => {
    for (const file of ["src/commands/runs.ts", "src/commands/report.ts", "src/report/html.ts", "src/report/svg.ts"]) expect(readFileSync(join(root, file), "utf8")).not.toMatch(/^import .*png\.ts/m);
  });
});

describe("numbers for plots", () => {
  const noise = Array.from({ length: 300_000 }, (_, i): Point => ({ x: i + 1, y: 4 + Math.sin(i / 9000) + (((i * 2_654_435_761) % 1000) - 500) / 900 }));

  test("thinning keeps ends and extremes of every slice, and little else", () => {
    const kept = thin(noise, 700);
    expect(kept.length).toBeLessThanOrEqual(2800);
    expect([kept[0], kept.at(-1)]).toEqual([noise[0], noise.at(-1)]);
    for (let slice = 0; slice < 700; slice++) {
      const of = (points: readonly Point[]) => points.filter(({ x }) => Math.min(699, Math.floor(((x - 1) / 299_999) * 700)) === slice).map(({ y }) => y);
      if (slice % 50 === 0) expect([Math.min(...of(kept)), Math.max(...of(kept))]).toEqual([Math.min(...of(noise)), Math.max(...of(noise))]);
    }
    expect(kept.every((point, i) => i === 0 || point.x > kept[i - 1]!.x)).toBe(true);
    expect(thin(noise.slice(0, 5), 700)).toEqual(noise.slice(0, 5));
    const svg = chartSvg({ title: "long", x: axisUnit("steps", 0), y: { label: "y" }, series: [{ label: "a", points: noise, noisy: true }] });
    expect(svg.length).toBeLessThan(150_000);
    const highest = noise.reduce((high, { y }) => Math.max(high, y), 0);
    expect(Math.abs(Math.max(...readBack(svg).lines[0]!.points.map(({ y }) => y)) - highest)).toBeLessThan(0.001);
  });

  test("smoothing is the mean around each point, of fewer points at the ends", () => {
    const points = noise.slice(0, 1000);
    const mean = (from: number, to: number): number => points.slice(from, to).reduce((sum, { y }) => sum + y, 0) / (to - from);
    const smoothed = smooth(points, 21).map(({ y }) => y);
    for (const [i, from, to] of [[0, 0, 1], [3, 0, 7], [10, 0, 21], [500, 490, 511], [995, 985, 1000], [999, 989, 1000]] as const) expect(smoothed[i]).toBeCloseTo(mean(from, to), 9);
  });

  test("ticks are round and inside", () => {
    expect(ticks(0, 2.83, 7)).toEqual({ values: [0, 0.5, 1, 1.5, 2, 2.5], decimals: 1 });
    expect(ticks(3.97, 8.4, 6)).toEqual({ values: [4, 5, 6, 7, 8], decimals: 0 });
    expect(ticks(4.4991, 4.5012, 5).values).toEqual([4.4995, 4.5, 4.5005, 4.501]);
    expect(ticks(0, 3, 7, true).values).toEqual([0, 1, 2, 3]);
    expect(ticks(5, 5, 7).values).toEqual([5]);
    expect(ticks(0, 1_500_000, 7).values).toEqual([0, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_200_000, 1_400_000]);
  });

  test("equal x: the last value at or before it, up to where the first run ends", () => {
    const points = [1, 2, 4, 8].map((x) => ({ x, y: 10 - x }));
    expect([0.5, 1, 3.9, 4, 100].map((x) => valueAtX(points, x))).toEqual([null, 9, 8, 6, 2]);
    expect(commonXs([points, [{ x: 2, y: 0 }, { x: 5.5, y: 0 }]], 5)).toEqual([2, 3, 4, 5, 5.5]);
    expect(commonXs([points, []], 5)).toEqual([]);
    expect([axisUnit("seconds", 100).unit, axisUnit("seconds", 1000).unit, axisUnit("seconds", 20_000).unit, axisUnit("member-tokens", 5e9).label]).toEqual([1, 60, 3600, "member-tokens (billions)"]);
  });

  test("one point, equal points and many series can be drawn too", () => {
    const drawn = (series: { label: string; points: Point[] }[]): string => {
      const svg = chartSvg({ title: "t", x: axisUnit("steps", 0), y: { label: "y" }, series, floor: { value: 1, label: "floor" } });
      expect(svg).not.toMatch(/NaN|Infinity|undefined/);
      return svg;
    };
    drawn([{ label: "a", points: [{ x: 3, y: 5 }] }]);
    drawn([{ label: "a", points: [{ x: 0, y: 0 }, { x: 0, y: 0 }] }]);
    const twenty = Array.from({ length: 20 }, (_, i) => ({ label: `run ${i}`, points: [{ x: 1, y: i }, { x: 2, y: i + 1 }] }));
    const styles = (Bun as any).XML.parse(drawn(twenty)).svg.polyline.map((line: any) => `${line["@stroke"]} ${line["@stroke-dasharray"] ?? ""}`);
    expect(new Set(styles).size).toBe(20);
    const text = textChart({ title: "t", x: axisUnit("steps", 0), yLabel: "y", series: [{ label: "a", points: [{ x: 0, y: 2 }] }], floor: null, columns: 30, rows: 5, colors: makeColors(true), unicode: true });
    expect(Bun.stripANSI(text)).toMatch(/[\u2801-\u28ff]/);
  });
});
