// What a benchmark comes to: the object that --json prints, its reading back, and the comparison of two.
// Nothing is measured here. Read next: int8.ts, float.ts, ladder.ts and training.ts, which fill it; tables.ts, which shows it.
import { readFileSync } from "node:fs";
import { EggError } from "../errors.ts";
import type { Hardware } from "./machine.ts";

export const schemaVersion = 2;

/** One measured figure. */
export interface Result {
  id: string;
  /** For people. */
  label: string;
  /** Of `rate`: a second where it says so. */
  unit: string;
  threads: number;
  /** The figure: the 98th percentile, or the mean where a run of `egg bench step` is told. */
  rate: number;
  median: number;
  p98: number;
  /** Distance between the quartiles, as a share of the median; null where it is not known: of a single sample, of a sum over all. */
  spread: number | null;
  samples: number;
  /** What `rate` is measured by. */
  clock: "wall" | "cpu";
  /** `rate` as a share of what it could be: of the peak, of a step, of perfect scaling. Null where there is nothing to compare with. */
  ratio: number | null;
  /** The same by CPU time of the threads, where it was measured. */
  cpu_ratio: number | null;
  /** Least ratio, or largest, that is asked for. */
  floor: number | null;
  ceiling: number | null;
  ok: boolean | null;
  parameters: Record<string, number>;
  /** Slowest and fastest sample, where they are told. */
  min?: number;
  max?: number;
  /** Largest deviation from the same in f64, as a share of the largest value. */
  error?: number;
  /** Which code ran, as it told itself. */
  ran?: string;
}

export interface Peak {
  before: number;
  after: number;
}

/** Why a section's figures say little: the peak around them moved, or its threads had to wait for others. */
export interface Disturbance {
  section: string;
  reason: string;
}

export interface Report {
  schema_version: number;
  what: "int8" | "step" | "float" | "train" | "ladder";
  egg: string;
  commit: string | null;
  machine: Hardware;
  date: string;
  command: string;
  quick: boolean;
  /** Kernels that were measured. */
  tier: string;
  threads: number;
  clock_ghz: number;
  /** What `peak` counts a second: multiply-adds of int8 (where it is not told), or multiplications and additions of f32. */
  peak_unit?: "MAC/s" | "FLOP/s";
  /** The tier's own instruction on registers alone: first and last measurement. */
  peak: { one_thread: Peak; all_threads: Peak };
  /** Sections whose figures say little, and why; empty where the machine was steady and egg's alone. */
  disturbances: Disturbance[];
  results: Result[];
  /** What could not be measured here, and why. */
  unavailable?: { id: string; reason: string }[];
  /** `egg bench step` only: the whole of it. */
  step?: StepReport;
}

export interface StepReport {
  config: unknown;
  member_tokens_per_second: number;
  steps_per_second: number;
  data_tokens_per_second: number;
  steps: number;
  /** Shares of all threads' time; `evaluation` as often as the config asks for it, `other` is waiting, reading and the like. */
  shares: { noise: number; forward: number; update: number; evaluation: number; other: number };
  planned_bytes: number;
  peak_rss_bytes: number;
}

/** Reads what `egg bench … --json` printed. Throws EggError("usage") for anything else. */
export function readReport(file: string): Report {
  const wrong = (what: string, hint: string): never => {
    throw new EggError("usage", `[bench] ${file}: ${what}.`, { hint });
  };
  const kinds = "Name a file that egg bench int8, float, train, ladder or step wrote with --json.";
  let report: unknown = null;
  try {
    report = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    wrong(error instanceof SyntaxError ? "is not JSON" : `cannot be read: ${(error as NodeJS.ErrnoException).code}`, kinds);
  }
  if (!isObject(report) || !("schema_version" in report)) return wrong("is no benchmark", kinds);
  const { schema_version: version } = report;
  if (version !== schemaVersion) wrong(`has schema version ${JSON.stringify(version)}, this egg reads ${schemaVersion}`, "Measure again with the same version of egg on both sides.");
  const damage = missing(report);
  if (damage !== null) wrong(`is damaged: ${damage} is missing or of another kind`, "Measure again.");
  return report as unknown as Report;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The first thing that a comparison reads and that is not there; null where all is. */
function missing(report: Record<string, unknown>): string | null {
  const { machine, results, disturbances } = report;
  for (const name of ["what", "tier"]) if (typeof report[name] !== "string") return name;
  if (typeof report["threads"] !== "number") return "threads";
  for (const name of ["cpu", "arch"]) if (!isObject(machine) || typeof machine[name] !== "string") return `machine.${name}`;
  if (!Array.isArray(disturbances)) return "disturbances";
  if (!Array.isArray(results)) return "results";
  for (const [i, result] of results.entries()) {
    for (const name of ["id", "label", "unit"]) if (!isObject(result) || typeof result[name] !== "string") return `results[${i}].${name}`;
    if (!(Number.isFinite(result.rate) && result.rate > 0)) return `results[${i}].rate`;
    if (result.spread !== null && !Number.isFinite(result.spread)) return `results[${i}].spread`;
  }
  return null;
}

/** What a change is, against what the samples scatter by; of a share that is no speed, "more" and "less". */
export type Verdict = "faster" | "slower" | "more" | "less" | "within the spread" | "spread unknown";

export interface Comparison {
  rows: { id: string; label: string; unit: string; a: number; b: number; ratio: number; spread: number | null; verdict: Verdict }[];
  /** Results that only one of the two has. */
  onlyA: string[];
  onlyB: string[];
  warnings: string[];
}

/**
 * Rates of `b` as shares of those of `a`, result by result; `spread` is the larger of both, null where either is unknown.
 * @throws EggError("usage") where the two measured different things
 */
export function compareReports(a: Report, b: Report): Comparison {
  if (a.what !== b.what) {
    throw new EggError("usage", `[bench] one file is of egg bench ${a.what}, the other of egg bench ${b.what}.`, { hint: "Compare two of the same kind." });
  }
  const warnings: string[] = [];
  const differ = (what: string, ofA: string | number, ofB: string | number): void => {
    if (ofA !== ofB) warnings.push(`${what} differs: ${ofA} and ${ofB}`);
  };
  differ("the machine", `${a.machine.cpu}, ${a.machine.arch}`, `${b.machine.cpu}, ${b.machine.arch}`);
  differ("the tier", a.tier, b.tier);
  differ("the number of threads", a.threads, b.threads);
  if (JSON.stringify(a.step?.config) !== JSON.stringify(b.step?.config)) warnings.push("the config differs");
  for (const [name, report] of [["first", a], ["second", b]] as const) {
    for (const { section, reason } of report.disturbances) warnings.push(`the ${name} says little of ${section}: ${reason}`);
    if (report.quick) warnings.push(`the ${name} was measured with --quick`);
  }
  const other = new Map(b.results.map((result) => [result.id, result]));
  const mine = new Set(a.results.map(({ id }) => id));
  return {
    rows: a.results.flatMap((result) => {
      const found = other.get(result.id);
      if (found === undefined) return [];
      const { id, label, unit } = result;
      const ratio = found.rate / result.rate;
      const spread = result.spread === null || found.spread === null ? null : Math.max(result.spread, found.spread);
      return [{ id, label, unit, a: result.rate, b: found.rate, ratio, spread, verdict: verdictOf(ratio, spread, unit) }];
    }),
    onlyA: a.results.flatMap(({ id }) => (other.has(id) ? [] : [id])),
    onlyB: b.results.flatMap(({ id }) => (mine.has(id) ? [] : [id])),
    warnings,
  };
}

/** The same for both orders: what is faster one way is slower the other. */
function verdictOf(ratio: number, spread: number | null, unit: string): Verdict {
  if (spread === null) return "spread unknown";
  if (Math.max(ratio, 1 / ratio) - 1 <= spread) return "within the spread";
  if (!unit.endsWith("/s")) return ratio > 1 ? "more" : "less";
  return ratio > 1 ? "faster" : "slower";
}
