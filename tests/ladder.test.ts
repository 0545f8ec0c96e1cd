// `egg bench ladder` and `egg bench float` in their smallest form: every level is there or says why not, runs the code it names, and
// is right; every output can be read back. Not how fast anything is. Read next: src/bench/levels.ts, kernels/float/ladder.zig.
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { attentions, describeRan, lanesOf, products, type Level, type Workload } from "../src/bench/levels.ts";
import { attentionRows, deviation, operand, productRows } from "../src/bench/reference.ts";
import { sampleInTurn } from "../src/bench/samples.ts";
import { trainingSteps } from "../src/bench/step-levels.ts";
import { openBlas } from "../src/native/blas.ts";
import { plainLevels, runLevel, type PlainLevel } from "../src/native/ladder.ts";
import { machine, openContext } from "../src/native/machine.ts";
import { failure } from "./failure.ts";
import { freshFolder, root, run } from "./program.ts";
import { expectWellFormed } from "./xml.ts";

const folder = freshFolder("ladder");
const blas = typeof openBlas() === "string" ? [] : ["blas"];
const vectors = machine().best === "scalar" ? [] : ["simd", "threads"];
const quick = ["bench", "ladder", "--quick", "--seconds", "0.002", "--longest", "60", "--threads", "2"];

/** Fields of each line, quotes undone. */
function parseCsv(text: string): string[][] {
  return text.trimEnd().split("\n").map((line) => {
    expect(line).toMatch(/^"(?:[^"]|"")*"(?:,"(?:[^"]|"")*")*$/);
    return [...line.matchAll(/"((?:[^"]|"")*)"(?:,|$)/g)].map(([, field]) => field!.replaceAll('""', '"'));
  });
}

describe("egg bench ladder", () => {
  const files = Object.fromEntries(["json", "csv", "svg", "gnuplot"].map((kind) => [kind, join(folder, `ladder.${kind}`)]));
  const { code, out, err } = run([...quick, "--only", "gemm/4,gemm/64,attention/16,step/16", ...Object.entries(files).flatMap(([kind, file]) => [`--${kind}`, file])], { cwd: folder });
  const text = (kind: string): string => readFileSync(files[kind]!, "utf8");
  const ids = [
    ...[4, 64].flatMap((n) => ["naive", "reordered", "blocked", ...vectors, ...blas].map((level) => `gemm/${n}/${level}`)),
    ...["scores", "online", ...vectors, ...blas].map((level) => `attention/16/${level}`),
    ...["plain", ...vectors].map((level) => `step/16/${level}`),
  ];

  test("measures every level that there is, and finds all of them right", () => {
    expect(err.replace(/^egg: warning: .*\n/gm, "")).toBe("");
    expect(code).toBe(0);
    const report = JSON.parse(text("json"));
    expect(text("json").indexOf("\n")).toBe(text("json").length - 1);
    expect(report).toMatchObject({ schema_version: 2, what: "ladder", threads: 2, tier: machine().best, peak_unit: "FLOP/s" });
    expect(report).toHaveProperty("commit");
    expect(report.machine.cpu).not.toBe("");
    for (const key of ["features", "caches", "core_kinds"]) expect(report.machine[key]).toBeArray();
    const levels = report.results.filter(({ id }: any) => !id.startsWith("peak/"));
    expect(levels.map(({ id }: any) => id)).toEqual(ids);
    for (const { id, rate, median, min, max, samples, ratio, error, ran, threads } of levels) {
      expect(min).toBeGreaterThan(0);
      expect(median).toBeWithin(min, max * (1 + 1e-9));
      expect(rate).toBeWithin(min, max * (1 + 1e-9));
      expect(samples).toBeGreaterThan(0);
      expect(ratio).toBeGreaterThan(0);
      expect(error).toBeLessThan(1e-5);
      expect(ran).not.toBe("");
      expect(threads).toBe(/threads|blas/.test(id) ? 2 : 1);
    }
    const step = levels.find(({ id }: any) => id === "step/16/plain");
    expect(step.parameters.planned_bytes).toBeGreaterThan(16 * step.parameters.weights);
  });

  test("lists the levels that this machine lacks with the reason", () => {
    const { unavailable } = JSON.parse(text("json"));
    const metal = unavailable.filter(({ id }: any) => id.includes("metal"));
    expect(metal.map(({ id }: any) => id)).toContain("gemm/metal-mps");
    for (const { reason } of metal) expect(reason).toContain("Metal");
    for (const { id, reason } of unavailable) for (const word of [id, reason]) expect(out).toContain(word);
  });

  test("prints tables and bars", () => {
    for (const words of ["Matrix product", "naive: rows times columns", "of peak", "error", "median", "█", "Attention", "tokens/s", "Not measured", "98th percentile of the samples"]) expect(out).toContain(words);
  });

  test("CSV and JSON hold the same figures", () => {
    const { results } = JSON.parse(text("json"));
    const [columns, ...rows] = parseCsv(text("csv"));
    expect(rows.map((row) => row.length)).toEqual(rows.map(() => columns!.length));
    const column = (name: string): string[] => rows.map((row) => row[columns!.indexOf(name)]!);
    for (const name of ["rate", "median", "min", "max", "error"]) expect(column(name).map((field) => (field === "" ? undefined : Number(field)))).toEqual(results.map((result: any) => result[name]));
    for (const name of ["id", "label", "ran"]) expect(column(name)).toEqual(results.map((result: any) => result[name] ?? ""));
    expect(column("parameters").map((field) => JSON.parse(field))).toEqual(results.map(({ parameters }: any) => parameters));
  });

  test("SVG and gnuplot draw a line for each level", () => {
    const picture = text("svg");
    expectWellFormed(picture);
    const lines = new Set(ids.map((id) => id.replace(/\/\d+\//, "/"))).size;
    expect(picture.match(/<polyline /g)).toHaveLength(lines);
    expect(picture.match(/<circle /g)).toHaveLength(ids.length);
    const plot = text("gnuplot");
    expect(plot.match(/^\$\w+ << EOD$/gm)).toHaveLength(lines);
    expect(plot.match(/^EOD$/gm)).toHaveLength(lines);
    expect(plot.match(/^[\d.]+(?: [\d.e-]+){4}$/gm)).toHaveLength(ids.length);
    expect(plot).toContain('set output "ladder.gnuplot.svg"');
    if (Bun.which("gnuplot") !== null) {
      expect(Bun.spawnSync(["gnuplot", files["gnuplot"]!], { cwd: folder }).exitCode).toBe(0);
    }
  });

  test("egg bench compare reads it", () => {
    const { code, out } = run(["bench", "compare", files["json"]!, files["json"]!], { cwd: folder });
    expect(code).toBe(0);
    expect(out).toMatch(/gemm\/64\/naive +.*FLOP\/s.* x 1\.000/);
    expect(JSON.parse(run(["bench", "compare", files["json"]!, files["json"]!, "--json"], { cwd: folder }).out).rows).toHaveLength(ids.length + 2);
  });
});

test("a BLAS that cannot be loaded, and runs that would take too long, are told with the reason", () => {
  const { code, out } = run([...quick.slice(0, 5), "--longest", "0.001", "--only", "gemm/4,gemm/512/naive", "--json", "-"], { cwd: folder, env: { EGG_BLAS: "/nowhere/libblas.so" } });
  expect(code).toBe(0);
  const { results, unavailable } = JSON.parse(out);
  expect(unavailable.find(({ id }: any) => id === "gemm/blas").reason).toStartWith("EGG_BLAS: /nowhere/libblas.so could not be loaded: ");
  expect(unavailable.find(({ id }: any) => id === "gemm/512/naive").reason).toMatch(/one run would take about \d+ s, allowed are 0.001 s \(--longest\)/);
  expect(results.map(({ id }: any) => id)).not.toContain("gemm/4/blas");
  expect(unavailable.filter(({ id }: any) => !id.startsWith("gemm/"))).toEqual([]); // nobody asked for them
}, 20_000);

test("a run that would take too long is not begun, also where no smaller one was measured", () => {
  const { code, out } = run([...quick.slice(0, 2), "--longest", "0.001", "--only", "gemm/2048/naive", "--json", "-"], { cwd: folder });
  expect(code).toBe(0);
  expect(JSON.parse(out).unavailable.map(({ id }: any) => id)).toEqual(["gemm/2048/naive"]);
});

test("a BLAS that cannot be told its threads is compared with all of them only", () => {
  const [source, library] = [join(folder, "blas.c"), join(folder, "libblas.so")];
  writeFileSync(source, "void cblas_sgemm(void) {}\n");
  const installed = join(root, `node_modules/@zigc/${process.platform}-${process.arch}/bin/zig`);
  expect(Bun.spawnSync([existsSync(installed) ? installed : "zig", "cc", "-shared", "-nostdlib", "-o", library, source]).exitCode).toBe(0);
  const { code, out } = run(["bench", "float", "--quick", "--seconds", "0.002", "--threads", "2", "--only", "P7/blas/256", "--json"], { cwd: folder, env: { EGG_BLAS: library } });
  expect(code).toBe(0);
  const { results, unavailable } = JSON.parse(out);
  expect(results.map(({ id }: any) => id)).toEqual(["peak/1", "peak/all", "P7/blas/256/all"]);
  expect(unavailable).toEqual([{ id: "P7/blas", reason: `${library} cannot be told to use one thread` }]);
});

describe("the guard", () => {
  const one = openContext(1);
  const all = openContext(2);
  const workloads: [Workload, number][] = [[products(one, all), 33], [attentions(one, all), 33], [trainingSteps(one, all), 16]];
  const levels = workloads.flatMap(([workload, size]) => workload.levels.filter(({ missing }) => missing === null).map((level): [string, Level, Workload, number] => [`${workload.name}/${level.name}`, level, workload, size]));
  const words: Record<string, RegExp> = {
    naive: /^naive: 1089 inner loops$/, reordered: /^reordered: 1089 inner loops$/, blocked: /^blocked: 81 inner loops$/, scores: /^scores: 2673 inner loops$/, online: /^online: 561 inner loops$/,
    plain: /^scalar: plain twins on 1 thread$/, simd: new RegExp(`^${one.tier}: vectors of ${lanesOf(one.tier)} on 1 thread$`), threads: new RegExp(`^${one.tier}: vectors of ${lanesOf(one.tier)} on [12] threads?$`), blas: / from /,
  };

  test.each(levels)("%s tells what ran, and is right", (_, level, workload, size) => {
    const running = level.open(size);
    const before = running.output();
    expect(before.every(Number.isNaN)).toBe(true);
    running.run(1);
    expect(running.ran()).toMatch(words[level.name]!);
    const rows = workload.name === "step" ? [0] : [0, 1, size - 1];
    const { width, expected } = workload.reference(size, rows);
    expect(deviation(running.output(), width, rows, expected)).toBeLessThan(1e-5);
    running.release();
  });

  test("plain levels return their own numbers, and counts that no other level has", () => {
    const data = operand(8 * 6 + 6 * 4 + 8 * 4, 1);
    const counts: Partial<Record<PlainLevel, number>> = { naive: 32, reordered: 48, blocked: 2 };
    for (const [level, count] of Object.entries(counts)) {
      expect(runLevel(level as PlainLevel, { m: 8, n: 4, k: 6 }, data, 3)).toMatchObject({ level: plainLevels[level as PlainLevel], inner: count });
    }
    expect(failure(() => runLevel("naive", { m: 8, n: 4, k: 5 }, data, 1)).message).toContain("data: expected");
    expect(failure(() => runLevel("naive", { m: 0, n: 4, k: 5 }, data, 1)).message).toContain("found 0, 4, 5");
  });

  test("other code than a level names is an error", () => {
    const tier = "avx2";
    expect(describeRan("simd", tier, { lanes: 8, threads: 1 }, 1)).toBe("avx2: vectors of 8 on 1 thread");
    for (const found of [{ lanes: 1, threads: 1 }, { lanes: 16, threads: 1 }, { lanes: 8, threads: 2 }, { lanes: 8, threads: 0 }]) {
      expect(failure(() => describeRan("simd", tier, found, 1)).message).toMatch(/^\[ladder\] simd: expected vectors of 8 on 1 thread, but .* ran\.$/);
    }
    const running = products(one, all).levels[0]!.open(4);
    expect(failure(() => running.ran()).message).toContain("nothing ran");
  });

  test.skipIf(vectors.length === 0)("all threads take part in a large product", () => {
    const running = products(one, all).levels.find(({ name }) => name === "threads")!.open(768); // long enough for a thread that wakes late
    for (let i = 0; i === 0 || (i < 500 && !running.ran().endsWith("2 threads")); i++) running.run(1);
    expect(running.ran()).toEndWith("on 2 threads");
    running.release();
  });

  test("each tier's vectors are its own", () => {
    for (const { name } of machine().tiers.filter(({ available }) => available)) {
      const context = openContext(1, name);
      expect(products(context, context).levels.find((each) => each.name === "threads")!.missing).toContain("one thread only");
      const level = products(context, context).levels.find((each) => each.name === "simd")!;
      expect(level.missing === null).toBe(name !== "scalar");
      if (level.missing !== null) continue;
      const running = level.open(20);
      running.run(1);
      expect(running.ran()).toBe(`${name}: vectors of ${lanesOf(name)} on 1 thread`);
      running.release();
    }
  });
});

test("references and deviations are what they say", () => {
  const [rows] = [productRows(Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8), 2, 2, [1])];
  expect([...rows[0]!]).toEqual([43, 50]);
  const [first, second] = attentionRows([1, 1], [0, Math.log(3)], [2, 6], 1, [0, 1]);
  expect(first![0]).toBe(2);
  expect(second![0]).toBeCloseTo(5, 12);
  expect(deviation(Float32Array.of(1, 2, 5), 3, [0], [Float64Array.of(1, 2, 4)])).toBe(0.25);
  expect(deviation(Float32Array.of(1, NaN, 4), 3, [0], [Float64Array.of(1, 2, 4)])).toBeNaN();
});

test("samples: short runs are repeated, long ones run once, several take turns", () => {
  const calls: string[] = [];
  const fake = (name: string, seconds: number) => ({ work: 6, run: (repeats: number) => (calls.push(`${name}${repeats}`), seconds * repeats) });
  const [short, long] = sampleInTurn([fake("a", 0.001), fake("b", 3)], 0.005);
  expect(short!.rates).toMatchObject({ median: 6000, min: 6000, max: 6000, samples: 3 });
  expect(long!.rates).toMatchObject({ median: 2, samples: 1 });
  expect(calls).toEqual(["a1", "a1", "a2", "b1", "a2", "a2", "a2"]);
});

test("egg bench float measures what P7 asks for", () => {
  const bf16 = machine().best === "avx512vnni" && machine().features.includes("avx512_bf16") ? ["P7/bf16/256"] : [];
  const only = ["P7/f32/256", "P7/f32/dx-384", ...blas.map((name) => `P7/${name}/256`), ...bf16, "P7/attention", "P7/memory"];
  const { code, out, err } = run(["bench", "float", "--quick", "--seconds", "0.002", "--threads", "2", "--only", only.join(","), "--json"], { cwd: folder });
  expect(err.replace(/^egg: warning: .*\n/gm, "")).toBe("");
  expect(code).toBe(0);
  const { results } = JSON.parse(out);
  for (const { id, rate, ratio, floor } of results.filter(({ id }: any) => !id.startsWith("peak/"))) {
    expect([id, rate > 0, ratio > 0, floor > 0]).toEqual([id, true, true, true]);
  }
  const ids = results.map(({ id }: any) => id);
  for (const id of ["P7/f32/256", "P7/f32/dx-384/all", "P7/attention/forward", "P7/attention/backward-causal/all", "P7/memory/add", "P7/memory/layernorm-backward/all"]) expect(ids).toContain(id);
  for (const word of only) expect(ids.some((id: string) => id.startsWith(word))).toBe(true);
}, 60_000);
