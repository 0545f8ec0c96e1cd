// What a benchmark comes to: the object that --json prints, its reading back, and the comparison of two.
// Nothing is measured here. Read next: int8.ts, float.ts, ladder.ts and training.ts, which fill it; tables.ts, which shows it.
import { readFileSync } from "node:fs";
import { EggError } from "../errors.ts";
import type { Hardware } from "./machine.ts";

export const schemaVersion = 1;

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
  /** Distance between the quartiles, as a share of the median. */
  spread: number;
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
  /** False where the peak moved by more than the tolerance around some result. */
  steady: boolean;
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
  let report: Partial<Report> | null = null;
  try {
    report = JSON.parse(readFileSync(file, "utf8")) as Partial<Report> | null;
  } catch (error) {
    wrong(error instanceof SyntaxError ? "is not JSON" : `cannot be read: ${(error as NodeJS.ErrnoException).code}`, "Name a file that egg bench int8, float, train, ladder or step wrote with --json.");
  }
  if (typeof report !== "object" || report === null || !("schema_version" in report)) wrong("is no benchmark", "Name a file that egg bench int8, float, train, ladder or step wrote with --json.");
  const { schema_version: version, results } = report!;
  if (version !== schemaVersion) wrong(`has schema version ${JSON.stringify(version)}, this egg reads ${schemaVersion}`, "Measure again with the same version of egg on both sides.");
  const whole = Array.isArray(results) && results.every((result) => typeof result?.id === "string" && Number.isFinite(result.rate)) && typeof report!.machine === "object";
  if (!whole) wrong("is damaged: results or machine are missing", "Measure again.");
  return report as Report;
}

export interface Comparison {
  rows: { id: string; label: string; unit: string; a: number; b: number; ratio: number; spread: number }[];
  /** Results that only one of the two has. */
  onlyA: string[];
  onlyB: string[];
  warnings: string[];
}

/**
 * Rates of `b` as shares of those of `a`, result by result; `spread` is the larger of both: a change below it says little.
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
    if (!report.steady) warnings.push(`the ${name} was measured on a machine whose peak moved`);
    if (report.quick) warnings.push(`the ${name} was measured with --quick`);
  }
  const other = new Map(b.results.map((result) => [result.id, result]));
  const mine = new Set(a.results.map(({ id }) => id));
  return {
    rows: a.results.flatMap((result) => {
      const found = other.get(result.id);
      if (found === undefined) return [];
      const { id, label, unit } = result;
      return [{ id, label, unit, a: result.rate, b: found.rate, ratio: found.rate / result.rate, spread: Math.max(result.spread, found.spread) }];
    }),
    onlyA: a.results.flatMap(({ id }) => (other.has(id) ? [] : [id])),
    onlyB: b.results.flatMap(({ id }) => (mine.has(id) ? [] : [id])),
    warnings,
  };
}
