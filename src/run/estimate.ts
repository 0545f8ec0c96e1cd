// How long a run will take, from a few steps of it in memory: nothing is written, and nothing that is there is read.
// Not its memory: memory.ts. Read next: src/commands/train.ts (--dry-run).
import type { Config } from "../config/knobs.ts";
import type { Learner } from "../learners/learner.ts";

/** All in seconds. */
export interface TimeEstimate {
  step: number;
  /** One evaluation on held-out text; 0 where there are none. Null where it takes longer than was waited. */
  evaluation: number | null;
  /** Steps and evaluations from `done` to the end of the run: at most, where run.minutes or run.patience may end it before. */
  total: number;
}

/** Steps go on for this long, but for no more than `mostSteps`. The first is left out where there is another: it meets cold memory. */
const enough_ms = 1000;
const mostSteps = 50;
/** A step that takes longer than this is broken off, and measured by the share of it that was done. */
const patience_ms = 4000;

/**
 * Carries out steps from the initial weights, and one evaluation.
 * @param done steps that the run has done already
 */
export async function estimateTime(learner: Learner, { run }: Config, done: number): Promise<TimeEstimate> {
  learner.initialize();
  const begun = performance.now();
  const steps: number[] = [];
  for (let index = 0; index < mostSteps && (index < 2 || performance.now() - begun < enough_ms); index++) {
    const whole = await timeStep(learner, index);
    steps.push(whole.seconds);
    if (whole.cut || performance.now() - begun > patience_ms) break;
    await new Promise((resume) => setImmediate(resume));
  }
  const step = median(steps.length > 1 ? steps.slice(1) : steps);

  const left = Math.max(0, run.steps - done);
  const evaluations = run.eval_every === 0 ? 0 : Math.ceil(left / run.eval_every) + (done === 0 ? 1 : 0);
  const evaluation = evaluations === 0 ? 0 : await timeEvaluation(learner);
  const total = step * left + (evaluation ?? patience_ms / 1000) * evaluations;
  return { step, evaluation, total: run.minutes > 0 ? Math.min(total, run.minutes * 60 + (evaluation ?? 0) * evaluations) : total };
}

async function timeStep(learner: Learner, index: number): Promise<{ seconds: number; cut: boolean }> {
  const begun = performance.now();
  let at = 0;
  let share = 0;
  const report = await learner.step(index, (part) => {
    at = performance.now() - begun;
    share = part;
    if (at > patience_ms && share > 0) learner.cancel();
  });
  return report === null ? { seconds: at / share / 1000, cut: true } : { seconds: (performance.now() - begun) / 1000, cut: false };
}

async function timeEvaluation(learner: Learner): Promise<number | null> {
  const begun = performance.now();
  const timer = setTimeout(() => learner.cancel(), patience_ms);
  const loss = await learner.evaluate();
  clearTimeout(timer);
  // Null also where nothing is held out: that takes no time.
  const seconds = (performance.now() - begun) / 1000;
  return loss === null && seconds * 1000 >= patience_ms ? null : seconds;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
