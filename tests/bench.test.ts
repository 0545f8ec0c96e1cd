// `egg bench` in its smallest form, so that no benchmark rots: every figure is there, every output can be read, wrong use is
// refused. Not how fast anything is: no test depends on time. Read next: src/bench/int8.ts.
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fromProc, fromSysctl, hardware, readSizes } from "../src/bench/machine.ts";
import { Outputs } from "../src/bench/outputs.ts";
import { compareReports, type Report, type Result, type Verdict } from "../src/bench/report.ts";
import { bars, heading } from "../src/bench/tables.ts";
import { summarize } from "../src/bench/windows.ts";
import { machine } from "../src/native/machine.ts";
import { makeColors } from "../src/report/terminal.ts";
import { failure } from "./failure.ts";
import { egg, freshFolder, run, sets, tiny } from "./program.ts";
import { expectWellFormed } from "./xml.ts";

const folder = freshFolder("bench");
const quick = ["bench", "int8", "--quick", "--seconds", "0.005", "--threads", "2"];

/** What a small run prints as JSON. */
function measured(only: string, env: Record<string, string> = {}): any {
  const { code, out, err } = run([...quick, "--only", only, "--json"], { cwd: folder, env });
  expect(err.replace(/^egg: warning: .*\n/gm, "")).toBe("");
  expect(code).toBe(0);
  expect(out.indexOf("\n")).toBe(out.length - 1);
  return JSON.parse(out);
}

/** Every figure is a number that something was measured for. */
function expectSound(report: any): void {
  for (const result of report.results) {
    for (const key of ["rate", "median", "p98"]) expect(result[key]).toBeGreaterThan(0);
    expect(result.p98).toBeGreaterThanOrEqual(result.median);
    if (result.spread !== null) expect(result.spread).toBeGreaterThanOrEqual(0);
    expect(result.samples).toBeGreaterThanOrEqual(3);
    for (const key of ["ratio", "cpu_ratio"]) if (result[key] !== null) expect(result[key]).toBeGreaterThan(0);
    expect(result.ok === null).toBe(result.floor === null && result.ceiling === null);
  }
}

test("egg bench int8 measures all that it promises", () => {
  const plot = join(folder, "ratios.svg");
  const { code, out } = run([...quick, "--json", "--plot", plot], { cwd: folder });
  expect(code).toBe(0);
  const report = JSON.parse(out);
  expectSound(report);
  const levels = readSizes(hardware(), 2).map(({ level }) => level);
  const both = (ids: string[]): string[] => [...ids, ...ids.map((id) => `${id}/all`)];
  const models = ["H128-L2", "H256-L6", "H256-L6/nano-egg", "H512-L4", "H1024-L4"];
  expect(report.results.map(({ id }: any) => id)).toEqual([
    "peak/1", "peak/all",
    ...both(levels.map((level) => `read/${level}`)),
    ...both(["512x512", "2048x512", "512x2048"].flatMap((shape) => [32, 64, 128, 512, 1024].map((members) => `P1/${shape}/N${members}`))),
    ...models.map((model) => `P2/${model}`),
    ...models.map((model) => `P3/${model}`),
    "P5/64", "P5/512",
    ...both(["P6/values"]),
    ...models.map((model) => `P6/share/${model}`),
    "P9/t1", "P9/t2",
  ]);
  for (const { id, ratio } of report.results) if (!/^(peak|read|P6\/values)/.test(id)) expect(ratio).toBeGreaterThan(0);
  // What is asked of whole sequences is not asked of short ones.
  for (const { id, floor, ceiling } of report.results) if (/^P[23]|^P6\/share/.test(id)) expect([id, floor, ceiling]).toEqual([id, null, null]);
  expect(report).toMatchObject({ schema_version: 2, what: "int8", threads: 2, quick: true, tier: machine().best, machine: { cores: hardware().cores } });
  expect(report.command).toStartWith("egg bench int8 --quick --seconds 0.005");
  expect(report.clock_ghz).toBeGreaterThan(0);
  for (const peak of ["one_thread", "all_threads"]) for (const when of ["before", "after"]) expect(report.peak[peak][when]).toBeGreaterThan(0);

  const picture = readFileSync(plot, "utf8");
  expectWellFormed(picture);
  expect(picture.match(/<rect /g)).toHaveLength(30 + 5 + 5 + 2 + 2);
  expect(picture).toContain("prefers-color-scheme: dark");
}, 60_000);

test.each(machine().tiers.filter(({ available }) => available).map(({ name }) => name))("kernels %s are measured against their own peak", (tier) => {
  const report = measured("peak,P1/512x512/N32", { EGG_CPU: tier });
  expectSound(report);
  expect(report.tier).toBe(tier);
  expect(report.results.map(({ id }: any) => id)).toEqual(["peak/1", "peak/all", "P1/512x512/N32", "P1/512x512/N32/all"]);
});

test("tables, bars and CSV show the same figures", () => {
  const table = run([...quick, "--only", "P1/512x512,P5"], { cwd: folder });
  expect(table.code).toBe(0);
  for (const text of ["GHz", "threads", "512 x 512, N 1024", "64 pairs", ">= 95.0 %", "P1/512x512/N64 x2", "┃", "98th percentile of the samples"]) {
    if (machine().best === "avx512vnni" || !text.startsWith(">=")) expect(table.out).toContain(text);
  }
  expect(table.out).not.toContain("P3");

  const lines = run([...quick, "--only", "P1/512x512/N32,P5/64", "--csv"], { cwd: folder }).out.split("\n");
  expect(lines.pop()).toBe("");
  const rows = lines.map((line) => {
    expect(line).toMatch(/^"(?:[^"]|"")*"(?:,"(?:[^"]|"")*")*$/);
    return [...line.matchAll(/"((?:[^"]|"")*)"(?:,|$)/g)].map(([, field]) => field!.replaceAll('""', '"'));
  });
  expect(rows.map((row) => row[0])).toEqual(["id", "peak/1", "peak/all", "P1/512x512/N32", "P1/512x512/N32/all", "P5/64"]);
  expect(new Set(rows.map((row) => row.length)).size).toBe(1);
  const field = (name: string): string => rows[3]![rows[0]!.indexOf(name)]!;
  expect(JSON.parse(field("parameters"))).toEqual({ rows: 512, cols: 512, members: 32 });
  expect(field("schema_version")).toBe("2");
  expect(field("commit")).toMatch(/^([0-9a-f]{40}.*)?$/);
});

test("more threads than the machine has are no measurement: refused, and with --quick warned of", () => {
  const threads = String(4 * hardware().cores);
  const asked = ["bench", "int8", "--only", "P1/512x512/N32/all", "--seconds", "0.005", "--threads", threads];
  const { code, out, err } = run(asked, { cwd: folder });
  expect(err).toMatch(/egg: error: \[bench\] P1: .*, in 3 attempts\.\n +hint: .*--quick/);
  expect([code, out]).toEqual([4, ""]);
  const warned = run([...asked, "--quick", "--json"], { cwd: folder });
  expect(warned.code).toBe(0);
  const [, reason] = /^egg: warning: P1: (.*); the figures say little$/m.exec(warned.err)!;
  const report = JSON.parse(warned.out);
  expect(report.disturbances).toEqual([{ section: "P1", reason }]);
  expect(heading(report)).toContain(`doubt    P1: ${reason}; its figures say little\n`);
}, 30_000);

describe("egg bench step", () => {
  const args = ["bench", "step", ...sets({ ...tiny, "trainer.population": 32, "trainer.sequence": 32 }), "--seconds", "0.05", "--threads", "2"];

  test("tells speed, shares and memory of a config, and leaves nothing behind", () => {
    const cwd = freshFolder("bench-step");
    const { code, out } = run([...args, "--json"], { cwd });
    expect(code).toBe(0);
    expect(readdirSync(cwd)).not.toContain("runs");
    const report = JSON.parse(out);
    expectSound({ results: report.results });
    const { step } = report;
    expect(step.steps).toBeGreaterThanOrEqual(3);
    expect(step.member_tokens_per_second / step.steps_per_second).toBeCloseTo(32 * 32, 3);
    expect(step.data_tokens_per_second / step.steps_per_second).toBeCloseTo(16 * 32, 3);
    for (const phase of ["noise", "forward", "update", "evaluation"]) expect(step.shares[phase]).toBeGreaterThan(0);
    expect(Object.values<number>(step.shares).reduce((sum, share) => sum + share)).toBeCloseTo(1, 6);
    expect(step.peak_rss_bytes).toBeGreaterThan(step.planned_bytes);
    expect(step.config.model).toMatchObject({ hidden: 16, layers: 1 });
    expect(report.results.find(({ id }: any) => id === "step/member-tokens").ratio).toBeGreaterThan(0);
  });

  test("says it in words", () => {
    const { code, out } = run(args, { cwd: folder });
    expect(code).toBe(0);
    for (const text of ["hidden 16, layers 1, population 32, sequence 32", "member-tokens/s over", "noise", "forward", "planned", "mean of all steps"]) expect(out).toContain(text);
  });

  test("says what there is of a model without matrices", () => {
    const { code, out } = run(["bench", "step", "--seconds", "0.05", "--threads", "2", "--set", "trainer.population=64"], { cwd: folder });
    expect(code).toBe(0);
    expect(out).toMatch(/^config +order 6, table bits 16, population 64, sequence 16$/m);
    expect(out).toMatch(/^ratio +none: this model has no matrices to count$/m);
  });
});

describe("egg bench compare", () => {
  const result = { label: "", unit: "MAC/s", threads: 1, rate: 100, median: 90, p98: 100, spread: 0.02, samples: 9, clock: "wall", ratio: 0.9, cpu_ratio: null, floor: null, ceiling: null, ok: null, parameters: {} };
  const base = { ...measured("peak"), disturbances: [], quick: false, results: [{ ...result, id: "P5/64" }, { ...result, id: "P5/512" }] };
  const write = (name: string, value: unknown): string => {
    writeFileSync(join(folder, name), typeof value === "string" ? value : JSON.stringify(value));
    return name;
  };
  const compare = (...words: string[]) => run(["bench", "compare", ...words], { cwd: folder });
  const first = write("first.json", base);

  test("gives ratios and spreads, and says what only one has", () => {
    const second = write("second.json", { ...base, tier: "scalar", results: [{ ...result, id: "P5/64", rate: 150, spread: 0.05 }, { ...result, id: "P1/new" }] });
    const { code, out, err } = compare(first, second);
    expect(code).toBe(0);
    expect(out).toMatch(/P5\/64 +100 MAC\/s +150 MAC\/s +x 1\.500 +5\.0 % +faster$/m);
    expect(out).toContain("faster or slower by more than the spread");
    expect(out).toContain("only in first.json: P5/512");
    expect(out).toContain("only in second.json: P1/new");
    expect(err).toContain("the tier differs");
    expect(JSON.parse(compare(first, second, "--json").out).rows).toEqual([{ id: "P5/64", label: "", unit: "MAC/s", a: 100, b: 150, ratio: 1.5, spread: 0.05, verdict: "faster" }]);
    expect(compare(first, first).err).toBe("");
  });

  test.each([
    ["faster", { rate: 106 }, "slower"],
    ["within the spread", { rate: 104 }, "within the spread"],
    ["within the spread", { rate: 150, spread: 0.6 }, "within the spread"],
    ["spread unknown", { rate: 150, spread: null, samples: 1 }, "spread unknown"],
    ["more", { rate: 106, unit: "of the step" }, "less"],
  ])("tells a change from chance: %s for %j, and the other way round %s", (there, change, back) => {
    const report = (more: object): Report => ({ ...base, results: [{ ...result, id: "P5/64", spread: 0.05, ...more }] });
    const [a, b] = [report({ unit: "unit" in change ? change.unit : "MAC/s" }), report(change)];
    expect([compareReports(a, b), compareReports(b, a)].map(({ rows }) => rows[0]!.verdict)).toEqual([there, back] as Verdict[]);
  });

  test("shows no spread where there is none to know, and why a file says little", () => {
    const single = write("single.json", { ...base, disturbances: [{ section: "P5", reason: "2 threads together got only 49 % of it" }], results: [{ ...result, id: "P5/64", spread: null, samples: 1 }] });
    const { out, err } = compare(single, first);
    expect(out).toMatch(/x 1\.000 +- +spread unknown$/m);
    expect(err).toContain("the first says little of P5: 2 threads together got only 49 % of it");
  });

  test("a measured file can be compared with itself", () => {
    const { code, out } = compare(write("a.json", measured("P6/values")), "a.json");
    expect(code).toBe(0);
    expect(out).toMatch(/P6\/values +.* x 1\.000/);
  });

  test.each([
    ["is not JSON", "{"],
    ["is no benchmark", { results: [] }],
    ["is no benchmark", null],
    ["has schema version 1", { ...base, schema_version: 1 }],
    ["is damaged: results[0].id is missing", { ...base, results: [{ id: 5 }] }],
    ["is damaged: results[1].unit is missing", { ...base, results: [{ ...result, id: "a" }, { ...result, id: "b", unit: undefined }] }],
    ["is damaged: results[0].rate is missing", { ...base, results: [{ ...result, id: "a", rate: 0 }] }],
    ["is damaged: results[0].spread is missing", { ...base, results: [{ ...result, id: "a", spread: undefined }] }],
    ["is damaged: machine.cpu is missing", { ...base, machine: null }],
    ["is no benchmark", [base]],
    ["the other of egg bench step", { ...base, what: "step" }],
  ])("refuses a wrong file: %s", (words, value) => {
    const { code, out, err } = compare(first, write("wrong.json", value));
    expect(err).toContain(words);
    expect([code, out]).toEqual([2, ""]);
  });

  test("refuses a file that is not there", () => {
    const { code, err } = compare(first, "gone.json");
    expect(err).toContain("gone.json: cannot be read: ENOENT");
    expect(code).toBe(2);
  });
});

test("wrong use is refused with a reason", () => {
  for (const [args, words] of [
    [["bench"], "egg bench needs a command"],
    [["bench", "int9"], "did you mean egg bench int8?"],
    [["bench", "int8", "--only", "P7"], "found \"P7\", allowed peak, read, P1"],
    [["bench", "float", "--only", "P1"], "found \"P1\", allowed P7/f32"],
    [["bench", "ladder", "--only", "gemm/5"], "found \"gemm/5\", allowed gemm/4, gemm/16, gemm/64, "],
    [["bench", "ladder", "--only", "gem"], "found \"gem\", allowed gemm, attention, step."],
    [["bench", "ladder", "--only", "gemm/512/metal-mps"], "gemm/512/metal-mps cannot be measured here: "],
    [["bench", "int8", "--only", "P1/512x512/N33"], "allowed P1/512x512/N32, P1/512x512/N64, "],
    [["bench", "ladder", "--json", "-", "--csv", "-"], "--json and --csv would both go to standard output"],
    [["bench", "int8", "--json", "--csv"], "--json and --csv would both go to standard output"],
    [["bench", "int8", "--csv", "--plot", "-"], "--csv and --plot would both go to standard output"],
    [["bench", "int8", "--seconds", "0"], "--seconds"],
    [["bench", "compare", "a.json"], "needs B.json"],
  ] as const) {
    const { code, err } = run(args, { cwd: folder });
    expect(err).toContain(words);
    expect(code).toBe(2);
  }
  const { code, out } = run(["bench", "--help"], { cwd: folder });
  expect(code).toBe(0);
  for (const option of ["int8", "step", "compare", "--quick", "--plot", "--config", "--csv", "98th percentile of the samples"]) expect(out).toContain(option);
});

describe("outputs", () => {
  const cwd = freshFolder("bench-outputs");
  const at = (name: string): string => join(cwd, name);
  const open = (...files: [string, string][]) => new Outputs(files.map(([option, file]) => ({ option, file, text: () => "" })));
  const small = ["bench", "int8", "--quick", "--seconds", "0.005", "--only", "P5/64"];

  test("are looked at before anything is measured, and no file is left behind", () => {
    const { code, out, err } = run([...small, "--plot", "nowhere/a.svg"], { cwd });
    expect(err).toBe("egg: error: [disk] cannot write nowhere/a.svg: no such file or folder (ENOENT).\n     hint: Name another file for --plot; its folder must be there.\n");
    expect([code, out]).toEqual([2, ""]);
    expect(failure(() => open(["--json", at("a.json")], ["--svg", cwd])).message).toContain("it is a folder, not a file");
    expect(failure(() => open(["--json", ""])).message).toBe('--json: found "", allowed the name of a file, or - for standard output.');
    symlinkSync(at("b.json"), at("to-nothing"));
    open(["--json", at("a.json")], ["--csv", at("to-nothing")]);
    expect(readdirSync(cwd)).toEqual(["to-nothing"]);
  });

  test("are different files, whatever they are called", () => {
    writeFileSync(at("old.json"), "old");
    symlinkSync(at("old.json"), at("link"));
    for (const [first, second] of [["new", "new"], ["new", "./new"], ["old.json", "link"]]) {
      expect(failure(() => open(["--json", at(first!)], ["--csv", `${cwd}/${second}`])).message).toContain("--json and --csv would both go to ");
    }
    expect(existsSync(at("new"))).toBe(false);
    expect(readFileSync(at("old.json"), "utf8")).toBe("old");
    const { code, err } = run(["-c", `"$0" "$@" > both`, egg, ...small, "--plot", "both"], { cwd, command: ["sh"] });
    expect(err).toContain("what is printed and --plot would both go to both");
    expect(code).toBe(2);
  });

  test("replace what was in a file", () => {
    writeFileSync(at("plot.svg"), "old".repeat(10_000));
    expect(run([...small, "--plot", "plot.svg"], { cwd }).code).toBe(0);
    expectWellFormed(readFileSync(at("plot.svg"), "utf8"));
  });

  test.skipIf(!existsSync("/dev/full"))("that cannot be written cost nothing else", () => {
    const { code, out, err } = run(["bench", "ladder", "--quick", "--seconds", "0.002", "--only", "gemm/4", "--json", "/dev/full", "--csv", "a.csv"], { cwd });
    expect(err).toContain("cannot write /dev/full: the disk is full");
    expect(code).toBe(4);
    expect(out).toContain("Matrix product");
    expect(readFileSync(at("a.csv"), "utf8")).toContain("gemm/4/naive");
  });
});

test("bars have one width, also where more than the whole is asked for", () => {
  const of = (ratio: number, floor: number): Result => ({ id: "P", unit: "tokens/s", ratio, floor, ceiling: null, ok: true, threads: 1 } as Result);
  const lines = bars([of(1.5, 1.4), of(0.5, 0.9), of(2, 1)], makeColors(false)).split("\n").slice(1, -1);
  expect(lines.map((line) => [line.indexOf("┃"), line.search(/\d/)])).toEqual([[44, 47], [40, 47], [44, 47]]);
});

describe("the machine", () => {
  test("is read from Linux's files", () => {
    const root = freshFolder("proc");
    const files: Record<string, string> = {
      "proc/cpuinfo": [0, 1, 2, 3].map((cpu) => `processor\t: ${cpu}\nmodel name\t: Some CPU @ 3 GHz\nphysical id\t: 0\ncore id\t\t: ${cpu >> 1}\nflags\t\t: fpu sse2 avx2 fma avx512_bf16 aes\n`).join("\n"),
      "proc/meminfo": "MemTotal:       16000 kB\nMemFree:  1 kB\n",
      "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    };
    [["1", "Data", "32K", "0-1"], ["1", "Instruction", "64K", "0-1"], ["2", "Unified", "1024K", "0-1"], ["3", "Unified", "32M", "0-3,8"]].forEach(([level, type, size, shared], i) => {
      Object.entries({ level, type, size, shared_cpu_list: shared }).forEach(([name, text]) => (files[`sys/devices/system/cpu/cpu0/cache/index${i}/${name}`] = `${text}\n`));
    });
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
    expect(fromProc(root)).toEqual({
      cpu: "Some CPU @ 3 GHz",
      physical_cores: 2,
      core_kinds: [],
      features: ["sse2", "avx2", "fma", "avx512_bf16"],
      caches: [{ level: 1, bytes: 32768, shared_by: 2 }, { level: 2, bytes: 1048576, shared_by: 2 }, { level: 3, bytes: 32 << 20, shared_by: 5 }],
      memory_bytes: 16_384_000,
      governor: "powersave",
    });
    expect(fromProc(join(root, "nowhere"))).toEqual({ cpu: "unknown", physical_cores: null, core_kinds: [], features: [], caches: [], memory_bytes: 0, governor: null });
    writeFileSync(join(root, "proc/cpuinfo"), "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n");
    expect(fromProc(root)).toMatchObject({ cpu: "ARM implementer 0x41, part 0xd0c", physical_cores: null });
    const cores = [["0xd05", "446"], ["0xd05", "446"], ["0xd41", "1024"]];
    writeFileSync(join(root, "proc/cpuinfo"), cores.map(([part], cpu) => `processor\t: ${cpu}\nFeatures\t: fp asimd asimddp crc32 i8mm\nCPU implementer\t: 0x41\nCPU part\t: ${part}\n`).join("\n"));
    cores.forEach(([, capacity], cpu) => {
      mkdirSync(join(root, `sys/devices/system/cpu/cpu${cpu}`), { recursive: true });
      writeFileSync(join(root, `sys/devices/system/cpu/cpu${cpu}/cpu_capacity`), `${capacity}\n`);
    });
    expect(fromProc(root)).toMatchObject({ core_kinds: [{ name: "part 0xd41, capacity 1024", cores: 1 }, { name: "part 0xd05, capacity 446", cores: 2 }], features: ["fp", "asimd", "asimddp", "i8mm"] });
    for (const [folder, cpus] of [["cpu_core", "0-3"], ["cpu_atom", "4-11"]]) {
      mkdirSync(join(root, `sys/devices/${folder}`), { recursive: true });
      writeFileSync(join(root, `sys/devices/${folder}/cpus`), `${cpus}\n`);
    }
    expect(fromProc(root).core_kinds).toEqual([{ name: "performance", cores: 4 }, { name: "efficiency", cores: 8 }]);
  });

  test("is read from macOS's sysctl", () => {
    const known: Record<string, string> = {
      "machdep.cpu.brand_string": "Apple M4 Pro", "hw.physicalcpu": "12", "hw.logicalcpu": "12", "hw.memsize": "25769803776",
      "hw.l1dcachesize": "65536", "hw.perflevel0.l1dcachesize": "131072", "hw.perflevel0.l2cachesize": "16777216", "hw.perflevel0.cpusperl2": "5",
      "hw.nperflevels": "2", "hw.perflevel0.name": "Performance", "hw.perflevel0.logicalcpu": "8", "hw.perflevel1.name": "Efficiency", "hw.perflevel1.logicalcpu": "4",
      "hw.optional.arm.FEAT_DotProd": "1", "hw.optional.arm.FEAT_SME": "0", "hw.optional.arm.FEAT_BF16": "1",
    };
    expect(fromSysctl((name) => known[name] ?? "")).toEqual({
      cpu: "Apple M4 Pro",
      physical_cores: 12,
      core_kinds: [{ name: "Performance", cores: 8 }, { name: "Efficiency", cores: 4 }],
      features: ["FEAT_DotProd", "FEAT_BF16"],
      caches: [{ level: 1, bytes: 131072, shared_by: 1 }, { level: 2, bytes: 16777216, shared_by: 5 }],
      memory_bytes: 25769803776,
      governor: null,
    });
  });

  test("this one is known", () => {
    const { cpu, cores, memory_bytes } = hardware();
    expect(cpu).not.toBe("");
    expect(cores).toBeGreaterThan(0);
    expect(memory_bytes).toBeGreaterThan(1 << 28);
  });
});

test("percentiles", () => {
  expect(summarize([4, 1, 3, 2, 5])).toEqual({ median: 3, p98: 4.92, spread: 2 / 3, samples: 5 });
  expect(summarize([7])).toEqual({ median: 7, p98: 7, spread: null, samples: 1 });
});
