// `egg runs`: the runs in a folder as a table, several side by side, and their curves as text, SVG or PNG.
// Not the reading (src/report/runs.ts), the numbers (compare.ts, curves.ts) or the pictures (svg.ts, png.ts, textplot.ts).
import fs from "node:fs";
import path from "node:path";
import { defineCommand, type CommandDef } from "citty";
import { EggError } from "../errors.ts";
import { tryLockFile } from "../native/machine.ts";
import { compareRuns, labels, type Comparison, type EqualRow, type ReadRun } from "../report/compare.ts";
import { axisUnit, curve, entropyFloor, lossMetrics, xAxes, type LossMetric, type Series, type XAxis } from "../report/curves.ts";
import { formatClock, formatCount, formatLoss } from "../report/progress.ts";
import { findRuns, readRun, type RunRecord } from "../report/runs.ts";
import { chartSvg } from "../report/svg.ts";
import { colorsFor, createTerminal, isTerminal, writeOut } from "../report/terminal.ts";
import { cell, showsUnicode, table, textChart } from "../report/textplot.ts";
import { writeDurably } from "../run/files.ts";
import { resolveRun } from "../run/folder.ts";
import { helpText, parseArguments, subcommandLine, wantsHelp, type StrictArgs } from "./arguments.ts";

const sorts = ["name", "age", "best", "steps", "rate"] as const;
const json = { type: "boolean", description: "print one line of JSON" } as const;
const many = { type: "positional", description: "run folders, or checkpoint files in them", valueHint: "RUN", repeated: true } as const;
const listArgs = {
  folder: { type: "positional", description: "folder in which the runs lie", default: "runs" },
  sort: { type: "enum", options: [...sorts], description: "what comes first: by name, newest, lowest held-out loss, most steps, fastest", default: "name" },
  json,
} satisfies StrictArgs;
const compareArgs = { runs: many, json } satisfies StrictArgs;
const plotArgs = {
  runs: many,
  out: { type: "string", description: "file to write, .svg or .png; without it the curves are drawn here in text", valueHint: "FILE" },
  x: { type: "enum", options: [...xAxes], description: "what stands on the x axis", default: "steps" },
  metric: { type: "enum", options: [...lossMetrics], description: "held-out or training loss", default: "val" },
  title: { type: "string", description: "title of the picture, instead of one that says what it shows", valueHint: "TEXT" },
} satisfies StrictArgs;

export const commands: Record<string, { help: string; args: StrictArgs; run: (argv: string[]) => void | Promise<void> }> = {
  list: { help: "list the runs in a folder", args: listArgs, run: list },
  compare: { help: "set runs side by side: configs, results, losses at equal time", args: compareArgs, run: compare },
  plot: { help: "draw loss curves, in text or as SVG or PNG", args: plotArgs, run: plot },
};

const root: CommandDef = { meta: { description: "list, compare and plot runs" }, args: {} };

export async function run(argv: string[]): Promise<number> {
  const { command, rest } = subcommandLine("runs", argv, Object.keys(commands));
  if (command === "help") {
    writeOut(helpText("egg runs", root, Object.fromEntries(Object.entries(commands).map(([name, { help }]) => [name, help]))));
    return 0;
  }
  const { help, args, run: perform } = commands[command]!;
  if (wantsHelp(args, rest)) writeOut(helpText(`egg runs ${command}`, defineCommand({ meta: { description: help }, args })));
  else await perform(rest);
  return 0;
}

/** The run folder that RUN stands for. @throws EggError("usage") where it is none, nor a checkpoint that lies in one */
export function runFolderOf(text: string): string {
  const { kind, path: found } = resolveRun(text);
  if (kind === "folder") return found;
  const folder = path.dirname(path.dirname(path.resolve(found)));
  if (fs.existsSync(path.join(folder, "config.json"))) return folder;
  throw new EggError("usage", `[run] ${text}: a file that lies in no run folder.`, { hint: "Give a run folder: curves and samples are there." });
}

// ---- list

function list(argv: string[]): void {
  const { values } = parseArguments("runs list", listArgs, argv);
  const sort = values.sort as (typeof sorts)[number];
  const records = findRuns(values.folder).map((folder) => readRun(folder, tryLockFile)).sort(orders[sort]);
  if (values.json) {
    const runs = records.map((record) => ({
      run: record.name,
      folder: record.folder,
      status: record.status,
      trouble: record.trouble,
      steps: record.steps,
      steps_planned: record.stepsPlanned,
      seconds: record.seconds,
      val_bits_per_byte: record.lastHeldOut,
      best_val_bits_per_byte: record.bestHeldOut,
      member_tokens_per_second: record.unit === "member-tokens" ? record.tokensPerSecond : null,
      tokens_per_second: record.unit === "tokens" ? record.tokensPerSecond : null,
      changed: record.changed === 0 ? null : new Date(record.changed).toISOString(),
    }));
    writeOut(`${JSON.stringify({ folder: values.folder, runs })}\n`);
    return;
  }
  if (records.length === 0) {
    createTerminal({ quiet: false }).info(`${values.folder}: no runs`);
    return;
  }
  const now = Date.now();
  const rows = records.map((record) => [
    cell(record.name, 80), record.status, stepsText(record), formatLoss(record.bestHeldOut) || "-", rateText(record),
    record.changed === 0 ? "-" : age((now - record.changed) / 1000), record.status === "damaged" ? cell(record.trouble ?? "", 200) : "",
  ]);
  writeOut(table([["run", "status", "steps", "best held-out", "rate", "age", ""], ...rows], [2, 3, 4, 5], colorsFor(1)));
}

const byName = (a: RunRecord, b: RunRecord): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
const orders: Record<(typeof sorts)[number], (a: RunRecord, b: RunRecord) => number> = {
  name: byName,
  age: (a, b) => b.changed - a.changed || byName(a, b),
  best: (a, b) => (a.bestHeldOut ?? Infinity) - (b.bestHeldOut ?? Infinity) || byName(a, b),
  steps: (a, b) => b.steps - a.steps || byName(a, b),
  rate: (a, b) => (b.tokensPerSecond ?? -1) - (a.tokensPerSecond ?? -1) || byName(a, b),
};

/** The two units are not compared: each stands beside its figure. */
function rateText({ tokensPerSecond, unit }: RunRecord): string {
  const rate = formatCount(tokensPerSecond);
  return rate === "" ? "-" : `${rate} ${unit}/s`;
}

function stepsText({ steps, stepsPlanned }: RunRecord): string {
  const done = steps.toLocaleString("en-US");
  return stepsPlanned === null || stepsPlanned === steps ? done : `${done} of ${stepsPlanned.toLocaleString("en-US")}`;
}

function age(seconds: number): string {
  const [size, unit] = ([[86_400, "d"], [3600, "h"], [60, "min"]] as const).find(([each]) => seconds >= each) ?? [1, "s"];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

// ---- compare

function readAll(command: string, texts: readonly string[]): ReadRun[] {
  if (texts.length === 0) throw new EggError("usage", `egg runs ${command} needs a RUN`, { hint: `egg runs ${command} --help shows what it takes` });
  return texts.map((text) => {
    const record = readRun(runFolderOf(text), tryLockFile);
    return { record, lines: record.metrics() };
  });
}

async function compare(argv: string[]): Promise<void> {
  const { values, repeated } = parseArguments("runs compare", compareArgs, argv);
  const runs = readAll("compare", repeated.runs);
  const comparison = compareRuns(runs);
  if (values.json) {
    const { config, seconds, steps } = comparison;
    writeOut(`${JSON.stringify({
      runs: comparison.runs,
      config: config.map((row) => ({ knob: row.knob, values: row.values.map((value) => value ?? null) })),
      at_equal_seconds: seconds.map(({ x, val_bits_per_byte }) => ({ seconds: x, val_bits_per_byte })),
      at_equal_steps: steps.map(({ x, val_bits_per_byte }) => ({ step: x, val_bits_per_byte })),
    })}\n`);
    return;
  }
  const colors = colorsFor(1);
  const letters = runs.map((_, i) => letter(i));
  const right = letters.map((_, i) => i + 1);
  const names = table([["", "run"], ...runs.map(({ record }, i) => [letters[i]!, cell(record.folder, 120)])], [], colors);
  const config = comparison.config.map(({ knob, values: each }) => [cell(knob), ...each.map((value) => cell(value === undefined ? "-" : typeof value === "string" ? JSON.stringify(value) : String(value), 32))]);
  const parts = [
    names,
    config.length === 0 ? "The configs are the same.\n" : table([["config", ...letters], ...config], right, colors),
    table([["result", ...letters], ...results(comparison)], right, colors),
  ];
  if (runs.length > 1) {
    const axis = axisUnit("seconds", 0);
    if (comparison.seconds.length > 0) parts.push(equalTable(`held-out at ${axis.label}`, comparison.seconds, (x) => String(Number(x.toFixed(2))), letters));
    if (comparison.steps.length > 0) parts.push(equalTable("held-out at step", comparison.steps, (x) => x.toLocaleString("en-US"), letters));
  }
  if (parts.length > 3) parts.push("Losses are those of the last evaluation at or before; * marks the lowest of a row.\n");
  const drawn = await textCurves(runs, runs.map(({ record }) => record.folder), "seconds", "val");
  if (drawn !== null) parts.push(drawn);
  writeOut(parts.join("\n"));
}

function letter(index: number): string {
  return index < 26 ? String.fromCharCode(65 + index) : `${letter(Math.floor(index / 26) - 1)}${letter(index % 26)}`;
}

function results({ runs }: Comparison): string[][] {
  const at = (loss: number | null, step: number | null): string => (loss === null ? "-" : `${formatLoss(loss)}${step === null ? "" : ` (step ${step.toLocaleString("en-US")})`}`);
  const rows: [string, (run: Comparison["runs"][number]) => string][] = [
    ["status", (run) => run.status],
    ["held-out bits/byte, last", (run) => at(run.val_bits_per_byte, run.val_step)],
    ["held-out bits/byte, best", (run) => at(run.best_val_bits_per_byte, run.best_val_step)],
    ["training bits/byte, last", (run) => formatLoss(run.train_bits_per_byte) || "-"],
    ["steps", (run) => run.steps.toLocaleString("en-US")],
    ["time of training", (run) => (run.seconds < 60 ? `${run.seconds.toFixed(1)} s` : formatClock(run.seconds))],
    ["member-tokens", (run) => formatCount(run.member_tokens) || "-"],
    ["member-tokens/s", (run) => formatCount(run.member_tokens_per_second) || "-"],
    ["tokens/s, by backprop", (run) => formatCount(run.tokens_per_second) || "-"],
    ["parameters", (run) => run.parameters?.toLocaleString("en-US") ?? "-"],
  ];
  return rows.map(([label, show]) => [label, ...runs.map(show)]).filter(([label, ...cells]) => !label!.includes("tokens") || cells.some((text) => text !== "-"));
}

/** The lowest of each row is marked, where there is one. */
function equalTable(head: string, rows: readonly EqualRow[], show: (x: number) => string, letters: readonly string[]): string {
  const body = rows.map(({ x, val_bits_per_byte: losses }) => {
    const known = losses.filter((loss) => loss !== null);
    const least = Math.min(...known);
    const alone = known.length > 1 && known.filter((loss) => loss === least).length === 1;
    return [show(x), ...losses.map((loss) => `${formatLoss(loss) || "-"}${alone && loss === least ? "*" : " "}`)];
  });
  return table([[head, ...letters.map((each) => `${each} `)], ...body], letters.map((_, i) => i + 1), colorsFor(1));
}

// ---- plot

const metricKeys = { val: "val_bits_per_byte", train: "train_bits_per_byte" } as const;
const metricNames = { val: "held-out loss", train: "training loss" } as const;

async function plot(argv: string[]): Promise<void> {
  const { values, repeated } = parseArguments("runs plot", plotArgs, argv);
  const [axis, metric] = [values.x as XAxis, values.metric as LossMetric];
  const kind = values.out === undefined ? "text" : /\.(svg|png)$/i.exec(values.out)?.[1]?.toLowerCase();
  if (kind === undefined) {
    throw new EggError("usage", `--out: found ${JSON.stringify(values.out)}, allowed a name that ends in .svg or .png.`, { hint: "The ending decides what is written." });
  }
  const runs = readAll("plot", repeated.runs);
  const names = labels(runs.map(({ record }) => record));
  const terminal = createTerminal({ quiet: false });
  runs.forEach(({ record, lines }) => {
    if (curve(record, lines, metricKeys[metric], "steps").length === 0) terminal.warn(`${record.folder}: left out, no ${metricNames[metric]} is recorded`);
  });
  const drawn = kind === "text" ? await textCurves(runs, names, axis, metric, values.title) : await pictured(runs, names, axis, metric, values.title);
  if (drawn === null) {
    throw new EggError("usage", `[runs] no ${metricNames[metric]} is recorded in ${runs.map(({ record }) => record.folder).join(", ")}.`, {
      hint: metric === "val" ? "Use --metric train; run.eval_every decides how often held-out text is measured." : "Wait for the first step.",
    });
  }
  if (values.out === undefined) {
    writeOut(drawn);
    return;
  }
  const bytes = kind === "svg" ? new TextEncoder().encode(drawn) : await (await import("../report/png.ts")).renderPng(drawn, 2);
  writeDurably(values.out, [bytes]);
  terminal.success(`wrote ${values.out}`);
}

/** What a plot is made of; null where no run has a point. */
async function plotted(runs: readonly ReadRun[], names: readonly string[], axis: XAxis, metric: LossMetric) {
  const series: Series[] = runs.map(({ record, lines }, i) => ({ label: names[i]!, points: curve(record, lines, metricKeys[metric], axis), noisy: metric === "train" })).filter(({ points }) => points.length > 0);
  if (series.length === 0) return null;
  // One line for all only where all learn from the same text.
  const floors = [...new Set(await Promise.all(runs.map(({ record }) => entropyFloor(record))))];
  const floor = floors.length === 1 ? floors[0]! : null;
  const last = Math.max(...series.map(({ points }) => points.at(-1)!.x));
  return { series, x: axisUnit(axis, last), floor: floor === null ? null : { value: floor, label: `entropy floor ${formatLoss(floor)}` } };
}

const sentence = (text: string): string => text[0]!.toUpperCase() + text.slice(1);

async function pictured(runs: readonly ReadRun[], names: readonly string[], axis: XAxis, metric: LossMetric, title?: string): Promise<string | null> {
  const parts = await plotted(runs, names, axis, metric);
  if (parts === null) return null;
  const own = sentence(metricNames[metric]) + (parts.series.length === 1 ? `, ${parts.series[0]!.label}` : "");
  return chartSvg({ title: title ?? own, y: { label: `${metricNames[metric]}, bits per byte` }, ...parts });
}

async function textCurves(runs: readonly ReadRun[], names: readonly string[], axis: XAxis, metric: LossMetric, title?: string): Promise<string | null> {
  const parts = await plotted(runs, names, axis, metric);
  if (parts === null) return null;
  const { floor, series, x } = parts;
  const own = sentence(metricNames[metric]) + (series.length === 1 ? `, ${series[0]!.label.trim()}` : "");
  const columns = isTerminal(1) ? createTerminal({ quiet: false }).width() : 80;
  return textChart({
    title: title ?? own, x, yLabel: "bits per byte", series, floor: floor?.label ?? null,
    columns: Math.min(columns, 160), rows: 16, colors: colorsFor(1), unicode: showsUnicode(),
  });
}
