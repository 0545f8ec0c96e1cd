// Several runs side by side: what differs in their configs, what came out, and the held-out losses at equal time and steps.
// Plain values for tables and --json; nothing is printed here. Read next: src/commands/runs.ts.
import type { MetricsLine } from "../run/metrics.ts";
import { commonXs, curve, valueAtX, type XAxis } from "./curves.ts";
import type { RunRecord, RunStatus } from "./runs.ts";

/** A run with the lines of its metrics, read once. */
export interface ReadRun {
  record: RunRecord;
  lines: readonly MetricsLine[];
}

export interface Outcome {
  run: string;
  folder: string;
  status: RunStatus;
  steps: number;
  /** Seconds of training. */
  seconds: number;
  /** Of EGGROLL. */
  member_tokens: number | null;
  member_tokens_per_second: number | null;
  /** Of backprop. */
  tokens_per_second: number | null;
  parameters: number | null;
  train_bits_per_byte: number | null;
  /** At the last evaluation, and the lowest of all, with their steps. */
  val_bits_per_byte: number | null;
  val_step: number | null;
  best_val_bits_per_byte: number | null;
  best_val_step: number | null;
}

/** Held-out losses of all runs at one x, in the order of the runs; each is that of the last evaluation at or before it. */
export interface EqualRow {
  x: number;
  val_bits_per_byte: (number | null)[];
}

export interface Comparison {
  runs: Outcome[];
  /** Knobs whose values are not the same in all runs; undefined where a run's config lacks one. */
  config: { knob: string; values: unknown[] }[];
  seconds: EqualRow[];
  steps: EqualRow[];
}

/** Knobs that say where a run is kept, not what it is. */
const ofNoInterest = new Set(["run.out"]);

/** Compares at least one run. */
export function compareRuns(runs: readonly ReadRun[]): Comparison {
  return {
    runs: runs.map(outcome),
    config: configDifferences(runs.map(({ record }) => record)),
    seconds: equalRows(runs, "seconds"),
    steps: equalRows(runs, "steps"),
  };
}

/** Knobs in the order in which the runs' configs have them. */
export function configDifferences(records: readonly RunRecord[]): Comparison["config"] {
  const knobs = new Set(records.flatMap(({ config }) => [...config.keys()]));
  return [...knobs].flatMap((knob) => {
    const values = records.map(({ config }) => config.get(knob));
    const same = values.every((value) => JSON.stringify(value) === JSON.stringify(values[0]));
    return same || ofNoInterest.has(knob) ? [] : [{ knob, values }];
  });
}

/** Names for a legend: the run's, its folder where two have the same, and the knobs that differ where they are few. */
export function labels(records: readonly RunRecord[]): string[] {
  const differing = configDifferences(records).slice(0, 4);
  const told = differing.length <= 3 ? differing : [];
  return records.map(({ name, folder }, i) => {
    const own = records.filter((other) => other.name === name).length > 1 ? folder : name;
    const knobs = told.map(({ knob, values }) => `${knob.slice(knob.indexOf(".") + 1)} ${String(values[i])}`).filter((text) => text.length <= 40);
    return knobs.length === 0 ? own : `${own} (${knobs.join(", ")})`;
  });
}

function outcome({ record, lines }: ReadRun): Outcome {
  const evaluations = curve(record, lines, "val_bits_per_byte", "steps");
  const last = evaluations.at(-1);
  const best = evaluations.reduce<(typeof evaluations)[number] | undefined>((least, point) => (least === undefined || point.y < least.y ? point : least), undefined);
  const { summary } = record;
  return {
    run: record.name,
    folder: record.folder,
    status: record.status,
    steps: record.steps,
    seconds: record.seconds,
    member_tokens: summary?.member_tokens ?? tokens({ record, lines }),
    member_tokens_per_second: record.unit === "member-tokens" ? record.tokensPerSecond : null,
    tokens_per_second: record.unit === "tokens" ? record.tokensPerSecond : null,
    parameters: summary?.parameters ?? null,
    train_bits_per_byte: summary?.train_bits_per_byte ?? lines.at(-1)?.train_bits_per_byte ?? null,
    // A run that stopped before its first evaluation still has the one before its first step, in the summary.
    val_bits_per_byte: last?.y ?? record.lastHeldOut,
    val_step: last?.x ?? null,
    best_val_bits_per_byte: best?.y ?? record.bestHeldOut,
    best_val_step: best?.x ?? null,
  };
}

function tokens({ record, lines }: ReadRun): number | null {
  const [population, sequence] = [record.config.get("trainer.population"), record.config.get("trainer.sequence")];
  return typeof population === "number" && typeof sequence === "number" ? (lines.at(-1)?.step ?? 0) * population * sequence : null;
}

function equalRows(runs: readonly ReadRun[], axis: XAxis): EqualRow[] {
  const curves = runs.map(({ record, lines }) => curve(record, lines, "val_bits_per_byte", axis));
  return commonXs(curves, 6).map((x) => ({ x, val_bits_per_byte: curves.map((points) => valueAtX(points, x)) }));
}
