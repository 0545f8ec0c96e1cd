// What --dry-run says: what would run, and the memory and time that it would take, as a table for people and as one line of JSON.
// Not where the figures come from: src/run/memory.ts and src/run/estimate.ts. Next: src/commands/train.ts.
import path from "node:path";
import type { Config } from "../config/knobs.ts";
import type { Unit } from "../learners/learner.ts";
import type { TimeEstimate } from "../run/estimate.ts";
import type { PeakPlan } from "../run/memory.ts";
import { formatClock, formatCount } from "./progress.ts";
import { formatBytes, summaryJson } from "./summary.ts";
import type { Colors } from "./terminal.ts";

export interface DryRun {
  folder: string;
  state: "new" | "unfinished" | "finished";
  config: Config;
  /** Null where there is nothing to do. */
  estimate: { plan: PeakPlan; time: TimeEstimate; stepsDone: number; parameters: number; tokensPerStep: number; unit: Unit } | null;
}

/** Lines for stderr. */
export function dryRunTable({ folder, state, config, estimate }: DryRun, colors: Colors): string {
  const rows: [string, string][] = [["run", `${folder}: ${state === "new" ? "a new run" : state === "finished" ? "finished, nothing to do" : "unfinished, would go on"}`]];
  if (estimate !== null) {
    const { plan, time, stepsDone, parameters, tokensPerStep, unit } = estimate;
    const left = Math.max(0, config.run.steps - stepsDone);
    rows.push(["parameters", parameters.toLocaleString("en")]);
    rows.push(["planned peak", `${formatBytes(plan.peak)} of the ${formatBytes(plan.available)} that are available`]);
    for (const [part, bytes] of Object.entries(plan.parts)) rows.push(["", `${part} ${formatBytes(bytes)}`]);
    rows.push(
      ["a step", `${seconds(time.step)}, ${formatCount(tokensPerStep / time.step)} ${unit}/s`],
      ["an evaluation", time.evaluation === null ? "longer than was waited for" : time.evaluation === 0 ? "none" : seconds(time.evaluation)],
      ["the whole", `${time.evaluation === null ? "more than " : "about "}${time.total < 60 ? seconds(time.total) : formatClock(time.total)} for ${left.toLocaleString("en")} steps${state === "unfinished" ? " that are left" : ""}${atMost(config)}`],
    );
  }
  const width = Math.max(...rows.map(([label]) => label.length));
  return `${rows.map(([label, value]) => `  ${colors.dim(label.padEnd(width))}  ${value}`).join("\n")}\n`;
}

/** One line, the same figures. */
export function dryRunJson({ folder, state, config, estimate }: DryRun): string {
  const { plan, time, stepsDone, parameters, tokensPerStep, unit } = estimate ?? {};
  return summaryJson({
    run: path.basename(folder),
    state,
    folder,
    parameters: parameters ?? null,
    memory_bytes: plan?.parts ?? null,
    planned_peak_bytes: plan?.peak ?? null,
    available_bytes: plan?.available ?? null,
    steps_left: stepsDone === undefined ? 0 : Math.max(0, config.run.steps - stepsDone),
    seconds_per_step: time?.step ?? null,
    [unit === "tokens" ? "tokens_per_second" : "member_tokens_per_second"]: time === undefined ? null : Math.round(tokensPerStep! / time.step),
    seconds_per_evaluation: time?.evaluation ?? null,
    seconds: time?.total ?? 0,
    config,
  });
}

function atMost({ run: { minutes, patience } }: Config): string {
  const ends = [...(minutes > 0 ? ["run.minutes"] : []), ...(patience > 0 ? ["run.patience"] : [])];
  return ends.length === 0 ? "" : `, or less where ${ends.join(" or ")} ends the run`;
}

function seconds(value: number): string {
  return value < 0.001 ? `${(value * 1e6).toFixed(0)} µs` : value < 1 ? `${(value * 1000).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
}
