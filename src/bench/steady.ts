// Sets figures against the peak, measured in the same process just before and just after: a ratio counts only while the
// machine is what it was. Which figures: int8.ts, float.ts, ladder.ts.
import { EggError } from "../errors.ts";
import type { Context } from "../native/machine.ts";
import type { Disturbance, Peak, Result } from "./report.ts";
import { percent } from "./tables.ts";
import { measure, type BenchShape, type Measured, type Patience, type Rates } from "./windows.ts";

/** One figure, not yet set against the peak. */
export interface Figure extends Omit<Result, "rate" | "median" | "p98" | "spread" | "samples" | "min" | "max" | "ratio" | "cpu_ratio" | "ok"> {
  rates: Rates;
  /** A thread's rate by CPU time; null where the rate is that already, or is none. */
  perCpuSecond: number | null;
  /** What the peak counts, in one unit: multiply-adds, or f32 multiplications and additions; 0 where the peak is no measure. */
  macs: number;
  /** The ratio, where it is not one to the peak. */
  ratio: number | null;
  /** The same by CPU time. */
  cpuRatio?: number;
}

/** Something to measure: its id is known before. */
export interface Item {
  id: string;
  /** Whether all threads work, so that their peak matters. */
  all: boolean;
  /** Null where it turns out that it cannot be measured. */
  run(): Promise<Figure | null>;
}

export interface Section {
  name: string;
  title: string;
  items: Item[];
}

/** Peaks that differ by more say that something else was measured. */
const tolerance = 0.03;
/** All threads at once must get the CPU that they ask for, but for this share. */
const crowding = 0.05;
const attempts = 3;

export interface Peaks {
  one: Measured;
  all: Measured;
}

/** What the figures of a report are shares of: multiply-adds of int8, or f32 multiplications and additions. */
export type PeakKind = Extract<BenchShape["what"], "peak" | "multiply_add">;

/** The tier's rate on registers alone, on one thread and on all. */
export function measurePeaks(context: Context, patience: Patience, what: PeakKind = "peak"): Peaks {
  const one = measure(context, { what }, false, patience);
  return { one, all: context.threads === 1 ? one : measure(context, { what }, true, patience) };
}

/** How far two rates lie apart, as a share of the larger. */
function apart(a: number, b: number): number {
  return Math.abs(a - b) / Math.max(a, b);
}

/** Why figures between two peaks say little; null where nothing is wrong. `all`: whether all threads were measured. */
function disturbance(before: Peaks, after: Peaks, all: boolean, threads: number): string | null {
  const one = apart(before.one.wall.p98, after.one.wall.p98);
  const moved = all ? Math.max(one, apart(before.all.wall.p98, after.all.wall.p98)) : one;
  if (moved > tolerance) return `the peak moved by ${(100 * moved).toFixed(2)} % meanwhile, allowed are ${(100 * tolerance).toFixed(2)} %`;
  const got = Math.min(...[before, after].map((peaks) => peaks.all.wall.p98 / (threads * peaks.all.perCpuSecond)));
  return all && got < 1 - crowding ? `${threads} threads together got only ${percent(got)} of the CPU time that they asked for` : null;
}

export interface Listener {
  /** What is being measured now. */
  measuring(what: string): void;
  warn(message: string): void;
}

export interface Outcome {
  results: Result[];
  peak: { one_thread: Peak; all_threads: Peak };
  peaks: Peaks;
  disturbances: Disturbance[];
}

/**
 * Measures the sections in turn, each between two peaks; again where those differ by more than the tolerance.
 * @param strict after the third attempt throw EggError("resources"), or else warn after the first and go on
 */
export async function measureSections(sections: readonly Section[], context: Context, patience: Patience, strict: boolean, listener: Listener, kind: PeakKind = "peak"): Promise<Outcome> {
  const peaks = (): Peaks => {
    listener.measuring("peak");
    return measurePeaks(context, patience, kind);
  };
  const first = peaks();
  let before = first;
  const disturbances: Disturbance[] = [];
  const results: Result[] = [];
  const between = async (name: string, all: boolean, run: () => Promise<Figure[]>): Promise<void> => {
    for (let attempt = 1; ; attempt++) {
      const figures = await run();
      const after = peaks();
      const wrong = disturbance(before, after, all, context.threads);
      if (strict && wrong !== null && attempt === attempts) {
        throw new EggError("resources", `[bench] ${name}: ${wrong}, in ${attempts} attempts.`, {
          hint: "Something else uses this machine: stop it and measure again, choose fewer --threads, or take --quick, which only warns.",
        });
      }
      const done = !strict || wrong === null;
      if (done) results.push(...figures.map((figure) => finished(figure, before, after)));
      before = after;
      if (wrong !== null) listener.warn(`${name}: ${wrong}; ${done ? "the figures say little" : "measuring again"}`);
      if (done && wrong !== null) disturbances.push({ section: name, reason: wrong });
      if (done) return;
    }
  };
  for (const { name, items } of sections) {
    await between(name, items.some(({ all }) => all), async () => {
      const figures: Figure[] = [];
      for (const { id, run } of items) {
        listener.measuring(id);
        await turn();
        const figure = await run();
        if (figure !== null) figures.push(figure);
      }
      return figures;
    });
  }
  if (sections.length === 0) await between("peak", true, async () => []);
  const peak = { one_thread: { before: first.one.wall.p98, after: before.one.wall.p98 }, all_threads: { before: first.all.wall.p98, after: before.all.wall.p98 } };
  return { results, peak, peaks: first, disturbances };
}

/** A figure with its ratio to the mean of the peaks around it; to the larger where they disagree: the other was disturbed. */
function finished(figure: Figure, before: Peaks, after: Peaks): Result {
  const { rates, perCpuSecond, macs, ratio: given, cpuRatio = null, ...about } = figure;
  const peak = (of: (peaks: Peaks) => number): number =>
    apart(of(before), of(after)) > tolerance ? Math.max(of(before), of(after)) : (of(before) + of(after)) / 2;
  const many = about.threads > 1;
  const wallPeak = peak(({ one, all }) => (many ? all : one).wall.p98);
  const cpuPeak = peak(({ one, all }) => (many ? all : one).perCpuSecond);
  const ratio = macs === 0 ? given : (rates.p98 * macs) / (about.clock === "cpu" ? cpuPeak : wallPeak);
  const limited = about.floor !== null || about.ceiling !== null;
  return {
    ...about,
    // A share is no speed: what it mostly is counts, not what it is at its highest.
    rate: about.unit.endsWith("/s") ? rates.p98 : rates.median,
    ...rates,
    ratio,
    cpu_ratio: macs === 0 || perCpuSecond === null ? cpuRatio : (perCpuSecond * macs) / cpuPeak,
    ok: !limited || ratio === null ? null : ratio >= (about.floor ?? -Infinity) && ratio <= (about.ceiling ?? Infinity),
  };
}

/** Lets signals and the screen through. */
function turn(): Promise<void> {
  return new Promise((resume) => setImmediate(resume));
}
