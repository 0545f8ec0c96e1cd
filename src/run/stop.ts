// When a run ends: after its steps, after its minutes, or when it no longer gets better. Decided from what metrics.jsonl holds and
// from nothing else, so a run that was killed and resumed ends where it would have ended.
// Not signals (signals.ts). Read next: loop.ts.
import type { Config } from "../config/knobs.ts";
import { secondsWritten, written, type MetricsLine } from "./metrics.ts";

/** What ended a finished run. */
export type StoppedBy = "steps" | "minutes" | "patience";

/** Follows a run by its lines. Give it every line since step 1, in order, each once and with its evaluation. */
export class StopRule {
  readonly #run: Config["run"];
  /** Training losses since the last evaluation: their sum and their number. */
  #train = 0;
  #trained = 0;
  #best = Infinity;
  /** Evaluations since the best one. */
  #waited = 0;
  #lowest = Infinity;

  constructor(run: Config["run"]) {
    this.#run = run;
  }

  /** Tells it of a step. Returns whether its held-out loss is the lowest so far. */
  tell(line: MetricsLine): boolean {
    const { eval_every, stop_metric, min_delta } = this.#run;
    const { step, train_bits_per_byte: train, val_bits_per_byte: heldOut } = written(line);
    this.#train += train;
    this.#trained += 1;
    // The last step of a run may be evaluated out of turn; nothing comes after it.
    if (eval_every === 0 || step % eval_every !== 0) return false;
    const loss = stop_metric === "train_bits_per_byte" ? this.#train / this.#trained : heldOut;
    [this.#train, this.#trained] = [0, 0];
    if (loss !== undefined) {
      const better = loss < this.#best - min_delta;
      this.#waited = better ? 0 : this.#waited + 1;
      if (better) this.#best = loss;
    }
    const lowest = heldOut !== undefined && heldOut < this.#lowest;
    if (lowest) this.#lowest = heldOut;
    return lowest;
  }

  /** Why a run ends after `step`; null where it goes on. `seconds` of training, over all resumptions. */
  reason(step: number, seconds: number): StoppedBy | null {
    const { steps, patience } = this.#run;
    if (step >= steps) return "steps";
    if (patience > 0 && this.#waited >= patience) return "patience";
    return this.isLast(step, seconds) ? "minutes" : null;
  }

  /** Whether a run ends after `step` whatever its losses are: then it is evaluated there. */
  isLast(step: number, seconds: number): boolean {
    const { steps, minutes } = this.#run;
    return step >= steps || (minutes > 0 && secondsWritten(seconds) >= minutes * 60);
  }
}
