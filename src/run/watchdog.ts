// Sees from the lines of metrics.jsonl, and from nothing else, that a run cannot learn as it is configured, and names the knob to turn.
// It changes nothing and stops nothing: stop.ts ends runs. Read next: loop.ts, which asks it after each step.
import type { Config } from "../config/knobs.ts";
import type { MetricsLine } from "./metrics.ts";

/** What can be wrong; a run is warned of each once. */
export type Trouble = "all move" | "none move" | "loss rises" | "saturated" | "no better than a guess";

export interface Warning {
  trouble: Trouble;
  /** What is seen, at which step, and what to do about it. */
  message: string;
}

/** Steps after each other that show the same before it counts. */
const steps = 50;
/** Share of the weights that move at a step, above which the step before is as good as undone. */
const nearlyAll = 0.9;
/** Evaluations after each other that are so many bits above the lowest loss: one alone may be by chance. */
const evaluations = 3;
const rise = 0.2;
/** Share of the weights at the limit of an int8, above which learning has nowhere to go. */
const mostAtLimit = 0.05;
/** Bits that a byte costs when every one is equally likely; a model that does no better after so many steps has learned nothing. */
const guess = 8;
const patience = 200;
/** Below this share of the first rate hardly anything moves, as it shall near the end. */
const leastRate = 0.05;

/** Follows a run by its lines. Give it every line since step 1, in order, each once and with its evaluation. */
export class Watchdog {
  readonly #trainer: Config["trainer"];
  readonly #seen = new Set<Trouble>();
  /** Steps after each other in which nearly all weights moved, in which none did, and whose training loss was no better than a guess. */
  #all = 0;
  #none = 0;
  #guessed = 0;
  #lowest = Infinity;
  /** Evaluations after each other far above the lowest. */
  #risen = 0;
  #heldOut: number | undefined;

  constructor({ trainer }: Pick<Config, "trainer">) {
    this.#trainer = trainer;
  }

  /** Tells it of a step. Returns what is wrong and was not wrong before. */
  tell(line: MetricsLine): Warning[] {
    const { step, updated_fraction: moved, train_bits_per_byte: train, val_bits_per_byte: heldOut, saturated_fraction: saturated, rate } = line;
    const warnings: Warning[] = [];
    const warn = (trouble: Trouble, seen: string): void => {
      if (this.#seen.has(trouble)) return;
      this.#seen.add(trouble);
      warnings.push({ trouble, message: `step ${step}: ${seen}; ${this.#advice(trouble)}` });
    };

    this.#all = moved !== undefined && moved > nearlyAll ? this.#all + 1 : 0;
    if (this.#all >= steps) warn("all move", `more than ${100 * nearlyAll} % of the weights moved in each of the last ${steps} steps, whatever they had learned, so they never settle`);
    this.#none = moved === 0 && (rate === undefined || rate >= leastRate) ? this.#none + 1 : 0;
    if (this.#none >= steps) warn("none move", `no weight moved in the last ${steps} steps, so nothing is learned`);

    if (heldOut !== undefined) {
      this.#heldOut = heldOut;
      this.#risen = heldOut > this.#lowest + rise ? this.#risen + 1 : 0;
      this.#lowest = Math.min(this.#lowest, Number.isNaN(heldOut) ? Infinity : heldOut);
      if (this.#risen >= evaluations) {
        warn("loss rises", `the held-out loss is at ${heldOut.toFixed(3)} bits/byte after a low of ${this.#lowest.toFixed(3)}, and more than ${rise} above that for ${evaluations} evaluations`);
      }
    }
    if (saturated !== undefined && saturated > mostAtLimit) warn("saturated", `${(100 * saturated).toFixed(1)} % of the weights are as large as an int8 can be and can only shrink`);

    this.#guessed = train >= guess ? this.#guessed + 1 : 0;
    // Whatever else is wrong is why.
    if (this.#seen.size === 0 && step >= patience && this.#guessed >= steps && (this.#heldOut ?? Infinity) >= guess) {
      warn("no better than a guess", `the loss is at ${(this.#heldOut ?? train).toFixed(3)} bits/byte, where equal chances for all bytes would give ${guess}`);
    }
    return warnings;
  }

  /** What to do, for this rule's knobs. */
  #advice(trouble: Trouble): string {
    const { less, more } = this.#knobs();
    switch (trouble) {
      case "all move":
        return less;
      case "none move":
        return more;
      case "loss rises":
        return `${less}, or let run.patience end the run`;
      case "saturated":
        return this.#trainer.rule === "egg" ? `${less} or trainer.decay_shift (now ${this.#trainer.decay_shift})` : less;
      case "no better than a guess":
        return `${less}; if that does not help, ${more}`;
    }
  }

  /** How fewer weights come to move, and how more do. */
  #knobs(): { less: string; more: string } {
    const { type, rule, threshold, alpha, alpha_decay_timestep, learning_rate } = this.#trainer;
    switch (type === "backprop" ? type : rule!) {
      case "backprop":
      case "egg":
        return { less: `lower trainer.learning_rate (now ${learning_rate})`, more: `raise trainer.learning_rate (now ${learning_rate})` };
      case "egg.c":
        return { less: `raise trainer.threshold (now ${threshold})`, more: `lower trainer.threshold (now ${threshold})` };
      case "nano-egg":
        return {
          less: alpha! > 1 ? `lower trainer.alpha_decay_timestep (now ${alpha_decay_timestep}), or set trainer.alpha (now ${alpha}) below 1` : `lower trainer.alpha (now ${alpha})`,
          more: alpha! > 1 ? `raise trainer.alpha_decay_timestep (now ${alpha_decay_timestep})` : `raise trainer.alpha (now ${alpha})`,
        };
    }
  }
}
