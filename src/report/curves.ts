// Numbers for plots and comparisons: a run's losses as points, fewer or smoother points, round ticks, values at equal time.
// Nothing is drawn here: svg.ts and textplot.ts do that. Read next: compare.ts, svg.ts.
import { openCorpus } from "../data/corpus.ts";
import { EggError } from "../errors.ts";
import type { MetricsLine } from "../run/metrics.ts";
import { isFigure, type RunRecord } from "./runs.ts";

/** What stands on the x axis: steps done, seconds of training, or population x sequence x steps. */
export type XAxis = "steps" | "seconds" | "member-tokens";
export const xAxes = ["steps", "seconds", "member-tokens"] as const;

/** Held-out or training loss, in bits per byte. */
export type LossMetric = "val" | "train";
export const lossMetrics = ["val", "train"] as const;

export interface Point {
  x: number;
  y: number;
}

export interface Series {
  label: string;
  /** In ascending order of x. */
  points: readonly Point[];
  /** One value a step, each by chance off its course: pictures show the course over the pale values. */
  noisy?: boolean;
}

/** The figures of one key of the metrics against one axis, every one of them; lines that lack either are left out. */
export function curve(record: RunRecord, lines: readonly MetricsLine[], key: keyof MetricsLine, axis: XAxis): Point[] {
  const perStep = axis === "member-tokens" ? memberTokensPerStep(record) : 1;
  return lines.flatMap((line) => {
    const x = axis === "seconds" ? line.seconds : line.step * perStep;
    const y = line[key];
    return isFigure(x) && isFigure(y) ? [{ x, y }] : [];
  });
}

/** @throws EggError("usage") where neither the summary nor the config tells */
function memberTokensPerStep({ folder, summary, config }: RunRecord): number {
  if (summary !== null && summary.steps > 0 && isFigure(summary.member_tokens)) return summary.member_tokens / summary.steps;
  const [population, sequence] = [config.get("trainer.population"), config.get("trainer.sequence")];
  if (isFigure(population) && isFigure(sequence)) return population * sequence;
  throw new EggError("usage", `[runs] ${folder}: its config does not tell how many member-tokens a step has.`, { hint: "Use --x steps or --x seconds." });
}

/** The least loss that any model can reach on the run's text, in bits per byte; null where it is not known, as for every text but the built-in. */
export async function entropyFloor({ config }: RunRecord): Promise<number | null> {
  const text = config.get("data.path");
  if (typeof text !== "string" || !text.startsWith("builtin:")) return null;
  try {
    const corpus = await openCorpus(text); // the built-in text is written only when read
    corpus.close();
    return corpus.entropyBitsPerByte;
  } catch (error) {
    if (error instanceof EggError) return null; // a corpus that this version does not have
    throw error;
  }
}

/**
 * At most four points for each of `buckets` equal slices of the x range: the first, the lowest, the highest and the last, so
 * that the drawn line covers the same pixels as all points would. The very first and last point always stay.
 */
export function thin(points: readonly Point[], buckets: number): Point[] {
  if (points.length <= 4 * buckets) return [...points];
  const [low, high] = [points[0]!.x, points.at(-1)!.x];
  const slice = (point: Point): number => (high > low ? Math.min(buckets - 1, Math.floor(((point.x - low) / (high - low)) * buckets)) : 0);
  const kept: Point[] = [];
  for (let start = 0; start < points.length; ) {
    const bucket = slice(points[start]!);
    let [end, least, most] = [start, start, start];
    for (; end < points.length && slice(points[end]!) === bucket; end++) {
      if (points[end]!.y < points[least]!.y) least = end;
      if (points[end]!.y > points[most]!.y) most = end;
    }
    for (const index of [...new Set([start, least, most, end - 1])].sort((a, b) => a - b)) kept.push(points[index]!);
    start = end;
  }
  return kept;
}

/**
 * Each y as the mean of the `window` (odd) points around it. Near the start, where losses are steep, of fewer, as many on either
 * side; near the end, where they are flat, of those that there are, so that the last noisy value is no spike.
 */
export function smooth(points: readonly Point[], window: number): Point[] {
  const half = Math.floor(window / 2);
  const sums = new Float64Array(points.length + 1);
  points.forEach((point, i) => (sums[i + 1] = sums[i]! + point.y));
  return points.map(({ x }, i) => {
    const [from, to] = [i - Math.min(half, i), Math.min(i + Math.min(half, i), points.length - 1)];
    return { x, y: (sums[to + 1]! - sums[from]!) / (to + 1 - from) };
  });
}

/** The window for smooth() that shows a noisy curve's course: a fiftieth of it; 1 where there is little to smooth. */
export function courseWindow(points: readonly Point[]): number {
  return points.length < 100 ? 1 : 2 * Math.floor(points.length / 100) + 1;
}

/** The y of the last point at or before x: what was known then. Null before the first. */
export function valueAtX(points: readonly Point[], x: number): number | null {
  let low = 0;
  for (let high = points.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if (points[middle]!.x <= x) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? null : points[low - 1]!.y;
}

export interface Ticks {
  values: number[];
  /** Decimals that all of them need. */
  decimals: number;
}

/** About `count` round values (1, 2 or 5 times a power of ten apart) inside [low, high]; whole numbers only where asked for. */
export function ticks(low: number, high: number, count: number, whole = false): Ticks {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return { values: [low], decimals: Number.isInteger(low) ? 0 : 3 };
  const power = 10 ** Math.floor(Math.log10(span / count));
  const ratio = span / count / power;
  // The factor that is nearest on a logarithmic scale.
  const step = Math.max(whole ? 1 : 0, power * (ratio < Math.SQRT2 ? 1 : ratio < Math.sqrt(10) ? 2 : ratio < Math.sqrt(50) ? 5 : 10));
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const values: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(Number((i * step).toFixed(decimals)));
  return { values, decimals };
}

/** Times (or steps) at which all runs can be compared: round ones up to where the first of them ends, and that end itself. */
export function commonXs(curves: readonly (readonly Point[])[], count: number): number[] {
  if (curves.length === 0 || curves.some((points) => points.length === 0)) return [];
  const end = Math.min(...curves.map((points) => points.at(-1)!.x));
  const begin = Math.max(...curves.map((points) => points[0]!.x));
  return [...new Set([...ticks(0, end, count).values.filter((x) => x > 0 && x >= begin), end])];
}

/** How an axis is labelled: values are divided by `unit`. */
export interface AxisUnit {
  unit: number;
  label: string;
}

/** Seconds become minutes or hours, member-tokens thousands or more, where they are many. */
export function axisUnit(axis: XAxis, highest: number): AxisUnit {
  if (axis === "steps") return { unit: 1, label: "steps" };
  const units: readonly (readonly [number, string])[] =
    axis === "seconds"
      ? [[3600, "hours of training"], [60, "minutes of training"], [1, "seconds of training"]]
      : [[1e12, "member-tokens (trillions)"], [1e9, "member-tokens (billions)"], [1e6, "member-tokens (millions)"], [1e3, "member-tokens (thousands)"], [1, "member-tokens"]];
  const [unit, label] = units.find(([size]) => highest >= (size === 1 ? 0 : 3 * size)) ?? units.at(-1)!;
  return { unit, label };
}

/** A tick's text: grouped digits and its decimals. */
export function tickText(value: number, decimals: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}
