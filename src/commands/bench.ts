// `egg bench`: how fast the kernels and whole training are on this machine, as shares of what it can do; and two such
// measurements side by side. Reads arguments and prints. What is measured: src/bench/int8.ts, float.ts, ladder.ts and training.ts.
import path from "node:path";
import { defineCommand, type CommandDef } from "citty";
import { loadConfig } from "../config/load.ts";
import { int8Sections } from "../bench/int8.ts";
import { hardware } from "../bench/machine.ts";
import { svg } from "../bench/plot.ts";
import { floatSections, hasBf16, type FloatOptions } from "../bench/float.ts";
import { ladderBars, ladderGnuplot, ladderSvg, ladderTable, unavailableText } from "../bench/ladder-plot.ts";
import { ladderSections, type Unavailable } from "../bench/ladder.ts";
import { Outputs, type Output } from "../bench/outputs.ts";
import { compareReports, readReport, schemaVersion, type Report, type Result } from "../bench/report.ts";
import { measureSections, type Listener, type Peaks, type Section } from "../bench/steady.ts";
import { bars, comparisonTable, csv, heading, known, legend, percent, table } from "../bench/tables.ts";
import { trainSections } from "../bench/gradients.ts";
import { measureTraining } from "../bench/training.ts";
import { measure, type Patience } from "../bench/windows.ts";
import { openCorpus } from "../data/corpus.ts";
import { EggError } from "../errors.ts";
import { openText } from "../learners/create.ts";
import { openContext, type Context } from "../native/machine.ts";
import { formatBytes, shellWord, summaryJson } from "../report/summary.ts";
import { formatCount } from "../report/progress.ts";
import { colorsFor, createTerminal, writeOut, type Terminal } from "../report/terminal.ts";
import { helpText, parseArguments, subcommandLine, wantsHelp, type StrictArgs } from "./arguments.ts";
import { program } from "./program.ts";
import { originFor } from "./start.ts";

const int8Args = {
  quick: { type: "boolean", description: "shorter windows and sequences; only warns where the machine is not steady" },
  seconds: { type: "string", kind: "number", min: 0.001, max: 600, description: "time for each figure; default: 1, with --quick 0.1", valueHint: "S" },
  threads: { type: "string", kind: "integer", min: 1, max: 1024, description: "threads that are meant by all threads; default: one for each core", valueHint: "N" },
  only: { type: "string", description: "measure these only, by id or its beginning, such as P1,P3/H512-L4", valueHint: "IDS" },
  json: { type: "boolean", description: "print one line of JSON, which egg bench compare reads" },
  csv: { type: "boolean", description: "print comma-separated values" },
  plot: { type: "string", description: "draw the ratios to this SVG file as well (-: print it)", valueHint: "FILE" },
} satisfies StrictArgs;
const floatArgs = {
  quick: { type: "boolean", description: "shorter samples and smaller arrays; only warns where the machine is not steady" },
  seconds: { type: "string", kind: "number", min: 0.001, max: 600, description: "time for each figure; default: 1, with --quick 0.1", valueHint: "S" },
  threads: { type: "string", kind: "integer", min: 1, max: 1024, description: "threads that are meant by all threads; default: one for each core", valueHint: "N" },
  only: { type: "string", description: "measure these only, by id or its beginning, such as P7/f32,P7/attention", valueHint: "IDS" },
  json: { type: "boolean", description: "print one line of JSON, which egg bench compare reads" },
  csv: { type: "boolean", description: "print comma-separated values" },
} satisfies StrictArgs;
const trainArgs = {
  ...floatArgs,
  quick: { ...floatArgs.quick, description: "shorter samples; only warns where the machine is not steady" },
  only: { ...floatArgs.only, description: "measure these only, by id or its beginning, such as P8/f32/nano" },
} satisfies StrictArgs;
const ladderArgs = {
  quick: { type: "boolean", description: "shorter samples, fewer sizes" },
  seconds: { type: "string", kind: "number", min: 0.001, max: 600, description: "time for each figure; default: 0.5, with --quick 0.05", valueHint: "S" },
  longest: { type: "string", kind: "number", min: 0.001, max: 3600, description: "leave out what takes longer for one run; default: 60, with --quick 1", valueHint: "S" },
  threads: { type: "string", kind: "integer", min: 1, max: 1024, description: "threads of the levels that use all; default: one for each core", valueHint: "N" },
  only: { type: "string", description: "measure these only, by id or its beginning, such as gemm/512,step", valueHint: "IDS" },
  json: { type: "string", description: "write one line of JSON, which egg bench compare reads, to this file (-: print it)", valueHint: "FILE" },
  csv: { type: "string", description: "write comma-separated values to this file (-: print them)", valueHint: "FILE" },
  svg: { type: "string", description: "draw speed over size to this SVG file (-: print it)", valueHint: "FILE" },
  gnuplot: { type: "string", description: "write a gnuplot file with the data in it (-: print it)", valueHint: "FILE" },
} satisfies StrictArgs;
const stepArgs = {
  config: { type: "string", alias: "c", description: "config file; without it the default preset", valueHint: "FILE" },
  set: { type: "string", description: "set one knob, such as trainer.population=64", valueHint: "PATH=VALUE", repeated: true },
  threads: { type: "string", kind: "integer", min: 1, max: 1024, description: "threads that compute, instead of device.threads", valueHint: "N" },
  seconds: { type: "string", kind: "number", min: 0.001, max: 3600, default: "5", description: "time for the steps", valueHint: "S" },
  json: { type: "boolean", description: "print one line of JSON, which egg bench compare reads" },
} satisfies StrictArgs;
const compareArgs = {
  first: { type: "positional", description: "JSON of an earlier measurement", valueHint: "A.json" },
  second: { type: "positional", description: "JSON of a later one", valueHint: "B.json" },
  json: { type: "boolean", description: "print one line of JSON" },
} satisfies StrictArgs;

export const commands: Record<string, { help: string; args: StrictArgs; run: (argv: string[]) => Promise<void> | void }> = {
  int8: { help: "the int8 kernels, from one matrix product to whole training steps, as shares of this CPU's peak (EGG_CPU=tier chooses other kernels)", args: int8Args, run: runInt8 },
  float: { help: "the float kernels: products against the peak and the machine's own BLAS, attention, norms against the bandwidth", args: floatArgs, run: runFloat },
  train: { help: "training by gradients: whole steps of three transformers, tokens a second and share of the f32 peak", args: trainArgs, run: runTrain },
  ladder: { help: "the same work from the textbook's loops to threads and the vendor's library: speed, share of the peak, error", args: ladderArgs, run: runLadder },
  step: { help: "your own config for a few seconds: speed, where the time goes, memory", args: stepArgs, run: runStep },
  compare: { help: "two measurements side by side: how much faster the second is", args: compareArgs, run: runCompare },
};

const root: CommandDef = { meta: { description: "measure how fast this machine trains" }, args: {} };

export async function run(argv: string[]): Promise<number> {
  const { command, rest } = subcommandLine("bench", argv, Object.keys(commands));
  const help = (name: string): string => `${helpText(`egg bench ${name}`, defineCommand({ meta: { description: commands[name]!.help }, args: commands[name]!.args }))}
Figures:
${legend(name as Report["what"] | "compare")}`;
  if (command === "help") {
    const each = Object.fromEntries(Object.entries(commands).map(([name, { help }]) => [name, help]));
    writeOut([helpText("egg bench", root, each), ...Object.keys(commands).map(help)].join("\n"));
    return 0;
  }
  if (wantsHelp(commands[command]!.args, rest)) writeOut(help(command));
  else await commands[command]!.run(rest);
  return 0;
}

/** What stands in every report, whatever was measured. */
function about(context: Context, argv: string[], what: Report["what"], quick: boolean, patience: Patience): Omit<Report, "peak" | "disturbances" | "results"> {
  return {
    schema_version: schemaVersion,
    what,
    egg: program.version,
    commit: program.commit,
    machine: hardware(),
    date: new Date().toISOString(),
    command: ["egg", "bench", what, ...argv].map(shellWord).join(" "),
    quick,
    tier: context.tier,
    threads: context.threads,
    clock_ghz: measure(context, { what: "clock" }, false, patience).wall.p98 / 1e9,
  };
}

/** Tells on the live line what is being measured. */
function listenerOn(terminal: Terminal): Listener {
  return {
    measuring: (what) => terminal.draw(`measuring ${what}`),
    warn: (message) => terminal.warn(message),
  };
}

async function runInt8(argv: string[]): Promise<void> {
  const { values } = parseArguments("bench int8", int8Args, argv);
  const { quick } = values;
  const terminal = createTerminal({ quiet: false });
  const context = openContext(values.threads ?? 0);
  const seconds = values.seconds ?? (quick ? 0.1 : 1);
  const windows = { windows: 2000, seconds };
  const options = { context, hardware: hardware(), windows, steps: { seconds: 3 * seconds, longest: Math.min(4, 4 * seconds) }, sequence: quick ? 16 : 128 };
  const sections = selected(int8Sections(options), [], values.only, ["peak"]);
  const outputs = new Outputs([...printed(values), { option: "--plot", file: values.plot, text: svg }]);
  const common = about(context, argv, "int8", quick, windows);
  const { results, peak, peaks, disturbances } = await measureSections(sections, context, windows, !quick, listenerOn(terminal));
  terminal.draw("");
  const report: Report = { ...common, peak, disturbances, results: [...peakResults(context, peaks), ...results] };
  outputs.write(report, () => sharesText(report, sections));
}

/** What --json and --csv print where they are no files. */
function printed({ json, csv: asCsv }: { json: boolean; csv: boolean }): Output[] {
  return [{ option: "--json", file: json ? "-" : undefined, text: summaryJson }, { option: "--csv", file: asCsv ? "-" : undefined, text: csv }];
}

/** Tables of a report whose figures are shares of a peak. */
function sharesText(report: Report, sections: readonly Section[]): string {
  const colors = colorsFor(1);
  const of = ({ items }: Section): Result[] => report.results.filter(({ id }) => items.some((item) => item.id === id));
  const tables = sections.map((section) => table(section.title, of(section), colors));
  return paragraphs([heading(report), ...tables, sections.length === 0 ? "" : legend(report.what), bars(sections.flatMap(of), colors), unavailableText(report, colors)]);
}

const paragraphs = (texts: readonly string[]): string => texts.filter((text) => text !== "").join("\n");

async function runFloat(argv: string[]): Promise<void> {
  await runShares("float", argv, (options) => floatSections(options));
}

async function runTrain(argv: string[]): Promise<void> {
  await runShares("train", argv, ({ one, all, seconds }) => trainSections({ one, all, seconds, bf16: hasBf16(all) }));
}

/** What is measured in shares of the f32 peak, on one thread and on all. */
async function runShares(what: "float" | "train", argv: string[], open: (options: FloatOptions) => ReturnType<typeof floatSections>): Promise<void> {
  const { values } = parseArguments(`bench ${what}`, what === "float" ? floatArgs : trainArgs, argv);
  const { quick } = values;
  const terminal = createTerminal({ quiet: false });
  const all = openContext(values.threads ?? 0);
  const seconds = values.seconds ?? (quick ? 0.1 : 1);
  const windows = { windows: 2000, seconds: seconds / 2 };
  const { sections: every, unavailable } = open({ all, one: all.threads === 1 ? all : openContext(1, all.tier), seconds, windows, quick });
  const sections = selected(every, unavailable, values.only);
  const outputs = new Outputs(printed(values));
  const common = about(all, argv, what, quick, windows);
  const { results, peak, peaks, disturbances } = await measureSections(sections, all, windows, !quick, listenerOn(terminal), "multiply_add");
  terminal.draw("");
  const report: Report = { ...common, peak, peak_unit: "FLOP/s", disturbances, results: [...peakResults(all, peaks, "FLOP/s"), ...results], unavailable: asked(unavailable, values.only) };
  outputs.write(report, () => sharesText(report, sections));
}

async function runLadder(argv: string[]): Promise<void> {
  const { values } = parseArguments("bench ladder", ladderArgs, argv);
  const { quick } = values;
  const terminal = createTerminal({ quiet: false });
  const all = openContext(values.threads ?? 0);
  const seconds = values.seconds ?? (quick ? 0.05 : 0.5);
  const windows = { windows: 500, seconds: Math.min(seconds, 0.5) };
  const { sections: every, unavailable } = ladderSections({ all, one: all.threads === 1 ? all : openContext(1, all.tier), seconds, longest: values.longest ?? (quick ? 1 : 60), quick });
  const sections = selected(every, unavailable, values.only);
  const plot = values.gnuplot === "-" ? "ladder" : path.basename(values.gnuplot ?? "");
  const outputs = new Outputs([
    { option: "--json", file: values.json, text: summaryJson },
    { option: "--csv", file: values.csv, text: csv },
    { option: "--svg", file: values.svg, text: (report) => ladderSvg(report, sections) },
    { option: "--gnuplot", file: values.gnuplot, text: (report) => ladderGnuplot(report, sections, plot) },
  ]);
  const common = about(all, argv, "ladder", quick, windows);
  const { results, peak, peaks, disturbances } = await measureSections(sections, all, windows, false, listenerOn(terminal), "multiply_add");
  terminal.draw("");
  const report: Report = { ...common, peak, peak_unit: "FLOP/s", disturbances, results: [...peakResults(all, peaks, "FLOP/s"), ...results], unavailable: asked(unavailable, values.only) };
  const colors = colorsFor(1);
  outputs.write(report, () => {
    const texts = sections.flatMap((section) => [ladderTable(section, results, colors), ladderBars(section, results, colors)]);
    return paragraphs([heading(report), ...texts, results.length === 0 ? "" : legend("ladder"), unavailableText(report, colors)]);
  });
}

const wordsOf = (only: string): string[] => only.split(",").map((word) => word.trim()).filter((word) => word !== "");
/** Whether an id is what a word of --only says, or is inside it. */
const begins = (id: string, word: string): boolean => id === word || id.startsWith(`${word}/`);
/** Levels are unavailable in all sizes: gemm/512/blas as gemm/blas. */
const sizeless = (id: string): string => id.replace(/\/\d+(?=\/|$)/g, "");

/** What of the unavailable concerns --only. */
function asked(unavailable: Unavailable, only: string | undefined): Unavailable {
  if (only === undefined) return unavailable;
  return unavailable.filter(({ id }) => wordsOf(only).map(sizeless).some((word) => begins(sizeless(id), word) || begins(word, id)));
}

/** The sections with the items that are asked for; all where nothing is. Throws EggError("usage") for what is not there, with what is. */
function selected(sections: Section[], unavailable: Unavailable, only: string | undefined, more: readonly string[] = []): Section[] {
  if (only === undefined) return sections;
  const words = wordsOf(only);
  const ids = [...more, ...sections.flatMap(({ items }) => items.map(({ id }) => id))];
  const unknown = words.find((word) => !ids.some((id) => begins(id, word)));
  if (unknown !== undefined || words.length === 0) {
    const reason = unavailable.find(({ id }) => unknown !== undefined && begins(sizeless(unknown), id))?.reason;
    if (reason !== undefined) throw new EggError("usage", `--only: ${unknown} cannot be measured here: ${reason}.`);
    throw new EggError("usage", `--only: found ${JSON.stringify(unknown ?? only)}, allowed ${choices(ids, unknown ?? "").join(", ")}.`, {
      hint: "An id or its beginning up to a /; several with commas between them.",
    });
  }
  const chosen = sections.map((section) => ({ ...section, items: section.items.filter(({ id }) => words.some((word) => begins(id, word))) }));
  return chosen.filter(({ items }) => items.length > 0);
}

/** What may stand where a word begins to be wrong. */
function choices(ids: readonly string[], word: string): string[] {
  const parts = word.split("/");
  const next = (prefix: string): string[] => [...new Set(ids.filter((id) => id.startsWith(prefix)).map((id) => prefix + id.slice(prefix.length).split("/")[0]!))];
  const found = parts.map((_, i) => next(parts.slice(0, i).map((part) => `${part}/`).join(""))).findLast((each) => each.length > 0)!;
  return found.length === 1 && !ids.includes(found[0]!) ? choices(ids, `${found[0]!}/`) : found;
}

/** The peak as results of its own, so that two machines can be compared. */
function peakResults(context: Context, { one, all }: Peaks, unit = "MAC/s"): Result[] {
  const common = { unit, clock: "wall" as const, ratio: null, cpu_ratio: null, floor: null, ceiling: null, ok: null, parameters: {} };
  const row = (id: string, label: string, threads: number, { wall }: Peaks["one"]): Result => ({ id, label, threads, ...common, rate: wall.p98, ...wall });
  const single = row("peak/1", "peak, one thread", 1, one);
  return context.threads === 1 ? [single] : [single, row("peak/all", "peak, all threads", context.threads, all)];
}

async function runStep(argv: string[]): Promise<void> {
  const { values, repeated } = parseArguments("bench step", stepArgs, argv);
  const { config } = loadConfig({
    ...(values.config === undefined ? {} : { file: values.config }),
    sets: repeated.set,
    flags: { "device.threads": { flag: "--threads", value: values.threads } },
  });
  const terminal = createTerminal({ quiet: false });
  const corpus = await openCorpus(config.data.path);
  try {
    const text = openText(config, corpus, originFor(null));
    if (text.kind !== "bytes") throw new EggError("usage", `[bench] step: measures trainer.type eggroll-int8, and this config has ${config.trainer.type}.`, { hint: "egg bench train measures training by gradients." });
    const context = openContext(config.device.threads);
    const windows = { windows: 2000, seconds: Math.min(0.5, values.seconds / 4) };
    const common = about(context, argv, "step", false, windows);
    terminal.draw("measuring steps");
    let training: Awaited<ReturnType<typeof measureTraining>>;
    const section: Section = { name: "step", title: "", items: [{ id: "step", all: true, run: async () => {
      training = await measureTraining(text, context, values.seconds);
      const { macs, results: [first] } = training;
      const { median, p98, spread, samples, ...rest } = first!;
      // The mean, not the best: this is what a run comes to.
      return { ...rest, rates: { median, p98: first!.rate, spread, samples }, perCpuSecond: null, macs };
    } }] };
    const { results, peak, peaks, disturbances } = await measureSections([section], context, windows, false, listenerOn(terminal));
    terminal.draw("");
    const { report: step, results: raw } = training!;
    const whole = { ...raw[0]!, ratio: results[0]!.ratio };
    const report: Report = { ...common, peak, disturbances, results: [...peakResults(context, peaks), whole, ...raw.slice(1)], step };
    writeOut(values.json ? summaryJson(report) : stepText(report, whole));
  } finally {
    corpus.close();
  }
}

function stepText(report: Report, whole: Result): string {
  const { step, threads } = report;
  const config = Object.entries(whole.parameters).map(([name, value]) => `${name === "members" ? "population" : name.replaceAll("_", " ")} ${value}`).join(", ");
  const shares = Object.entries(step!.shares).filter(([, share]) => share > 0).map(([phase, share]) => `${phase} ${percent(share)}`).join(", ");
  const rows = [
    ["config", config],
    ["speed", `${formatCount(whole.rate)} member-tokens/s over ${step!.steps} steps; median ${formatCount(whole.median)}, spread ${known(whole.spread)}`],
    ["", `${formatCount(step!.steps_per_second)} steps/s, ${formatCount(step!.data_tokens_per_second)} tokens of data/s`],
    ["ratio", whole.ratio === null ? "none: this model has no matrices to count" : `${percent(whole.ratio)} of the peak of ${threads} ${threads === 1 ? "thread" : "threads"}, counting the matrices' multiply-adds only`],
    ["time", shares],
    ["memory", `${formatBytes(step!.planned_bytes)} planned, ${formatBytes(step!.peak_rss_bytes)} at most in use, the program itself included`],
  ];
  return `${heading(report)}${rows.map(([label, value]) => `${label!.padEnd(9)}${value}\n`).join("")}\n${legend("step")}`;
}

function runCompare(argv: string[]): void {
  const { values } = parseArguments("bench compare", compareArgs, argv);
  const comparison = compareReports(readReport(values.first), readReport(values.second));
  const terminal = createTerminal({ quiet: false });
  for (const warning of comparison.warnings) terminal.warn(warning);
  writeOut(values.json ? summaryJson(comparison) : `${comparisonTable(comparison, [values.first, values.second], colorsFor(1))}\n${legend("compare")}`);
}
