// `egg bench step`: the user's own config, with its own data and learner, for a few seconds. Nothing is saved, no run folder
// is made. Not the kernels alone: int8.ts. Read next: src/learners/learner.ts.
import { createLearner, type RunText } from "../learners/create.ts";
import type { Context } from "../native/machine.ts";
import { admitPlan } from "../run/memory.ts";
import type { Result, StepReport } from "./report.ts";
import { matrixMacs } from "./steps.ts";
import { summarize } from "./windows.ts";

/** What a config comes to; ratios to the peak are the caller's to add. */
export interface Training {
  report: StepReport;
  results: Result[];
  /** Multiply-adds of the matrices, per member-token; 0 for a model without matrices. */
  macs: number;
}

const fewest = 3;

/**
 * Steps for `seconds`, after one to warm up; then one evaluation, where the config has any.
 * @throws EggError as a run of this config would
 */
export async function measureTraining(text: Extract<RunText, { kind: "bytes" }>, context: Context, seconds: number): Promise<Training> {
  const { config } = text;
  let planned = 0;
  const learner = createLearner(text, context, (plan) => {
    planned = Object.values(plan).reduce((sum, bytes) => sum + bytes, 0);
    admitPlan(plan);
  });
  learner.initialize();
  const timed = async <T>(run: () => Promise<T>): Promise<{ took: number; value: T }> => {
    const begun = performance.now();
    const value = await run();
    return { took: (performance.now() - begun) / 1000, value };
  };
  let index = 0;
  await learner.step(index++, () => {});
  const walls: number[] = [];
  const cpu = { noise: 0, forward: 0, update: 0 };
  const end = performance.now() + seconds * 1000;
  while (walls.length < fewest || performance.now() < end) {
    const { took, value } = await timed(() => learner.step(index++, () => {}));
    walls.push(took);
    for (const phase of ["noise", "forward", "update"] as const) cpu[phase] += value!.phases![phase]; // nobody cancels it
    await new Promise((resume) => setImmediate(resume));
  }
  const every = config.run.eval_every;
  const evaluation = every === 0 || text.heldOut === null ? 0 : (await timed(() => learner.evaluate())).took / every;

  const steps = walls.length;
  const wall = walls.reduce((sum, took) => sum + took, 0);
  // All threads' time of a run: the steps, and as much of an evaluation as falls to each.
  const total = context.threads * (wall + steps * evaluation);
  const shares = {
    noise: cpu.noise / total,
    forward: cpu.forward / total,
    update: cpu.update / total,
    evaluation: (context.threads * steps * evaluation) / total,
  };
  const rates = summarize(walls.map((took) => learner.tokensPerStep / took));
  const perSecond = (count: number): number => (count * steps) / wall;
  const report: StepReport = {
    config,
    member_tokens_per_second: perSecond(learner.tokensPerStep),
    steps_per_second: perSecond(1),
    data_tokens_per_second: perSecond(learner.dataTokensPerStep),
    steps,
    shares: { ...shares, other: Math.max(0, 1 - Object.values(shares).reduce((sum, share) => sum + share, 0)) },
    planned_bytes: planned,
    peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
  };
  const common = { threads: context.threads, clock: "wall" as const, cpu_ratio: null, floor: null, ceiling: null, ok: null };
  const { population, sequence } = config.trainer;
  const { hidden, layers } = config.model;
  const sizes = Object.fromEntries(Object.entries(config.model).filter((entry): entry is [string, number] => typeof entry[1] === "number"));
  const result: Result = {
    ...common, ...rates, id: "step/member-tokens", label: "whole steps", unit: "member-tokens/s", rate: report.member_tokens_per_second, ratio: null,
    parameters: { ...sizes, members: population, sequence },
  };
  const part = (phase: keyof StepReport["shares"]): Result => {
    const share = report.shares[phase];
    return { ...common, id: `step/${phase}`, label: phase, unit: "of the time", rate: share, median: share, p98: share, spread: null, samples: steps, ratio: null, parameters: {} };
  };
  return { report, results: [result, ...(["noise", "forward", "update", "evaluation", "other"] as const).map(part).filter(({ rate }) => rate > 0)], macs: hidden === undefined || layers === undefined ? 0 : matrixMacs({ hidden, layers }) };
}
