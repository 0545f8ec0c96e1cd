// A benchmark's report for people and for spreadsheets: tables and bars in text, CSV. Pictures: plot.ts.
// No figure is made here. Read next: report.ts.
import { formatCount } from "../report/progress.ts";
import { formatBytes } from "../report/summary.ts";
import type { Colors } from "../report/terminal.ts";
import type { Hardware } from "./machine.ts";
import type { Comparison, Report, Result } from "./report.ts";

/** What was measured on what, above the tables. */
export function heading({ egg, commit, machine, date, tier, threads, clock_ghz, peak, peak_unit = "MAC/s", disturbances, command }: Report): string {
  const moved = ({ before, after }: { before: number; after: number }): string => `${rate(before, peak_unit)} before, ${rate(after, peak_unit)} after`;
  const rows = [
    ["command", `${command}   (${date})`],
    ["egg", `${egg}${commit === null ? "" : ` (${commit.slice(0, 12)})`}`],
    ["machine", machineText(machine)],
    ["kernels", `${tier}, ${threads} ${threads === 1 ? "thread" : "threads"}`],
    ["clock", `${clock_ghz.toFixed(2)} GHz under a chain of additions`],
    ["peak", `one thread ${moved(peak.one_thread)}`],
    ...(threads === 1 ? [] : [["", `all threads ${moved(peak.all_threads)}`]]),
    ...disturbances.map(({ section, reason }, i) => [i === 0 ? "doubt" : "", `${section}: ${reason}; its figures say little`]),
  ];
  return rows.map(([label, value]) => `${label!.padEnd(9)}${value}\n`).join("");
}

export function machineText({ cpu, cores, physical_cores, core_kinds, caches, memory_bytes, os, arch }: Hardware): string {
  const kinds = core_kinds?.length > 0 ? core_kinds.map((kind) => `${kind.cores} ${kind.name}`).join(", ") : physical_cores === null || physical_cores === cores ? "" : `${physical_cores} proper`;
  const proper = kinds === "" ? "" : ` (${kinds})`;
  const levels = caches.map(({ level, bytes }) => `L${level} ${formatBytes(bytes)}`).join(", ");
  return `${cpu}, ${cores} ${cores === 1 ? "core" : "cores"}${proper}, ${levels === "" ? "" : `${levels}, `}${formatBytes(memory_bytes)}; ${os}, ${arch}`;
}

/** One table: a row for each result, in the order given. */
export function table(title: string, results: readonly Result[], colors: Colors): string {
  const rows = results.map(({ label, threads, unit, rate: headline, ratio, cpu_ratio, floor, ceiling, ok, median, p98, spread }) => [
    label,
    String(threads),
    rate(headline, unit),
    percent(ratio),
    percent(cpu_ratio),
    floor !== null ? `>= ${percent(floor)}` : ceiling !== null ? `<= ${percent(ceiling)}` : "",
    ok === null ? "" : ok ? "ok" : ceiling === null ? "below" : "above",
    short(median, unit),
    short(p98, unit),
    known(spread),
  ]);
  const header = ["", "threads", "rate", "ratio", "by CPU", "asked", "", "median", "98th", "spread"];
  const lines = grid([header, ...rows], [0, 6]);
  const paint = (line: string, i: number): string => (i === 0 ? colors.dim(line) : results[i - 1]!.ok === false ? colors.yellow(line) : line);
  return `${colors.bold(title)}\n${lines.map((line, i) => `${paint(line, i)}\n`).join("")}`;
}

/** Texts in columns, to the right except where `left` says otherwise. */
export function grid(rows: readonly string[][], left: readonly number[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) => `  ${row.map((text, column) => (left.includes(column) ? text.padEnd(widths[column]!) : text.padStart(widths[column]!))).join("  ")}`.trimEnd());
}

/** What the columns of a table are, for below it and for --help. */
export function legend(what: Report["what"] | "compare"): string {
  const headline = "98th percentile of the samples: what the code does while nothing disturbs it";
  const spread = ["spread", "distance between the quartiles, as a share of the median; - for a single sample"];
  const rows = {
    ladder: [
      ["rate", headline],
      ["of peak", "rate as a share of the peak: multiply-adds on registers, by as many threads"],
      ["error", "largest deviation from the same in f64, as a share of the largest value"],
      ["n", "samples; with few of them, look at median, min and max"],
    ],
    shares: [
      ["rate", `${headline}; where it is a share, the median`],
      ["ratio", "rate as a share of the peak, or of what the title names; by CPU: by CPU time instead of the clock"],
      ["asked", "the ratio that egg promises itself on a quiet machine"],
      spread,
    ],
    step: [
      ["speed", "mean of all steps: what a run comes to; median and spread are of single steps"],
    ],
    compare: [
      ["rates", "as each file tells them: 98th percentiles, or means of egg bench step"],
      ["spread", "the larger of both: distance between the quartiles, as a share of the median; - where one is not known"],
      ["verdict", "faster or slower by more than the spread; a single sample allows none"],
    ],
  }[what === "int8" || what === "float" || what === "train" ? "shares" : what];
  const width = Math.max(...rows.map(([name]) => name!.length));
  return rows.map(([name, text]) => `  ${name!.padEnd(width)}  ${text}\n`).join("");
}

const barCells = 40;

/** The ratios as bars; ┃ is the floor. Full width is 1, and more is cut. */
export function bars(results: readonly Result[], colors: Colors): string {
  const shown = withBars(results);
  if (shown.length === 0) return "";
  const labels = shown.map(({ id, threads }) => `${id.replace(/\/all$/, "")}${threads === 1 ? "" : ` x${threads}`}`);
  const width = Math.max(...labels.map((label) => label.length));
  const at = (share: number): number => Math.round(Math.min(share, 1) * barCells);
  const lines = shown.map(({ ratio, floor, ok }, i) => {
    const eighths = Math.round(Math.min(ratio!, 1) * barCells * 8);
    const cells = [..."█".repeat(eighths >> 3) + (eighths & 7 ? "▏▎▍▌▋▊▉"[(eighths & 7) - 1]! : "")];
    while (cells.length < barCells) cells.push(" ");
    const bar = cells.join("");
    const mark = floor === null ? bar : `${bar.slice(0, at(floor) - 1)}┃${bar.slice(at(floor))}`;
    return `  ${labels[i]!.padEnd(width)}  ${ok === false ? colors.yellow(mark) : colors.green(mark)}  ${percent(ratio)}\n`;
  });
  return `${colors.bold("Ratios (┃ what is asked for)")}\n${lines.join("")}`;
}

/** Results whose ratio says how good they are. */
export function withBars(results: readonly Result[]): Result[] {
  return results.filter(({ ratio, ceiling, unit }) => ratio !== null && ceiling === null && unit.endsWith("/s"));
}

/** A header and a line for each result, every field in quotes. */
export function csv({ schema_version, results, tier, egg, commit, date, machine }: Report): string {
  const columns = ["id", "label", "unit", "threads", "rate", "median", "p98", "spread", "samples", "clock", "ratio", "cpu_ratio", "floor", "ceiling", "ok", "min", "max", "error", "ran"] as const;
  const quoted = (values: readonly unknown[]): string => `${values.map((value) => `"${String(value ?? "").replaceAll('"', '""')}"`).join(",")}\n`;
  const rows = results.map((result) => quoted([...columns.map((column) => result[column]), JSON.stringify(result.parameters), tier, machine.cpu, schema_version, egg, commit, date]));
  return quoted([...columns, "parameters", "tier", "cpu", "schema_version", "egg", "commit", "date"]) + rows.join("");
}

/** Rates of the second file as shares of the first one's, and what to make of them. */
export function comparisonTable({ rows, onlyA, onlyB }: Comparison, names: [string, string], colors: Colors): string {
  const cells = rows.map(({ id, unit, a, b, ratio, spread, verdict }) => [id, rate(a, unit), rate(b, unit), `x ${ratio.toFixed(3)}`, known(spread), verdict]);
  const lines = grid([["", ...names, "second / first", "spread", "verdict"], ...cells], [0, 5]);
  const paint = (line: string, i: number): string => {
    const verdict = rows[i - 1]?.verdict;
    return verdict === "faster" ? colors.green(line) : verdict === "slower" ? colors.yellow(line) : verdict === "more" || verdict === "less" ? line : colors.dim(line);
  };
  const missing = [[names[0], onlyA], [names[1], onlyB]].flatMap(([name, ids]) => (ids!.length === 0 ? [] : [`  only in ${String(name)}: ${(ids as string[]).join(", ")}`]));
  return [...lines.map(paint), ...missing].map((line) => `${line}\n`).join("");
}

/** A rate with its unit: 482 GMAC/s, 34.9 k member-tokens/s, 0.031 % of the step. */
export function rate(value: number, unit: string): string {
  if (!unit.endsWith("/s")) return percent(value);
  const text = formatCount(value);
  return /^(MAC|FLOP|B)\/s$/.test(unit) && / /.test(text) ? `${text}${unit}` : `${text} ${unit}`;
}

/** A rate whose unit stands beside it already. */
function short(value: number, unit: string): string {
  return unit.endsWith("/s") ? formatCount(value) : percent(value);
}

/** A spread, which a single sample does not have. */
export function known(spread: number | null): string {
  return spread === null ? "-" : percent(spread);
}

export function percent(share: number | null): string {
  if (share === null) return "";
  return `${share !== 0 && share < 0.01 ? (100 * share).toFixed(3) : (100 * share).toFixed(1)} %`;
}
