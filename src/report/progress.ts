// How a run goes, while it goes: one live line on a terminal, a hundred plain lines anywhere else.
// Not the record of the run (metrics.jsonl is), and no arithmetic of learning: losses come in as they are.
// Next: terminal.ts, which puts the line on the screen; summary.ts for the end of the run.

import type { Unit } from "../learners/learner.ts";
import type { Colors, Terminal } from "./terminal.ts";

/** What the run says after each step. */
export interface StepReport {
  /** Steps done now, counted from the first step of the run, not of this process. */
  step: number;
  /** Loss of the step on training text in bits per byte; null where it was not measured. */
  trainBitsPerByte: number | null;
  /** Seconds that the step itself took, without evaluations and checkpoints. */
  seconds: number;
}

export interface Progress {
  /** A step has ended. */
  step(report: StepReport): void;
  /** The step under way is done to this part, 0 .. 1. Call it as often as the learner is polled. */
  within(fraction: number): void;
  /** An evaluation on held-out text has ended. */
  evaluated(heldOutBitsPerByte: number): void;
  /** Takes the live line away until resume(), so that something longer can be printed, such as a sample. */
  pause(): void;
  resume(): void;
  /** Draws the last state for good and moves below it. Nothing is shown after that. */
  finish(): void;
}

/** All that a line can show. null stands for "not known", and is left out. */
export interface ProgressState {
  step: number;
  steps: number;
  /** Part of the next step that is done, 0 .. 1; null where steps are too short to show it. */
  fraction: number | null;
  trainBitsPerByte: number | null;
  heldOutBitsPerByte: number | null;
  /** Recent training losses, oldest first; sparkline() draws them. */
  recent: readonly number[];
  tokensPerSecond: number | null;
  /** What tokens are counted in. */
  unit: Unit;
  etaSeconds: number | null;
}

const frameSeconds = 0.1;
const windowSeconds = 30; // rates and ETA look back this far,
const windowSteps = { min: 4, max: 512 }; // but over no fewer and no more steps than these
const recentLosses = 512; // a power of two, see sparkline()
const plainLines = 100;
const longStepSeconds = 2; // from here on, the live line shows the part of the step
const plainPatienceSeconds = 30; // plain lines inside a step are this far apart at least

/**
 * The progress of a run from `firstStep` steps done to `steps`. `tokensPerStep` is counted in `unit`.
 * `floor` is the least loss that any model can reach, in bits per byte, where it is known; `now` is a clock in seconds that never goes back.
 */
export function createProgress(
  terminal: Terminal,
  options: { firstStep: number; steps: number; tokensPerStep: number; unit: Unit; floor?: number | null; now: () => number },
): Progress {
  const { firstStep, steps, tokensPerStep, unit, floor = null, now } = options;
  const plainInterval = (steps - firstStep) / plainLines;
  const recent: number[] = [];
  // The latest steps, round and round: when each ended, and the seconds it took. No objects, which would be collected
  // so late that the memory of a long run rises and falls.
  const ends = new Float64Array(windowSteps.max);
  const lengths = new Float64Array(windowSteps.max);
  let [first, next] = [0, 0];
  const started = now();
  let step = firstStep;
  let fraction = 0;
  let stepStarted = started;
  let trainBitsPerByte: number | null = null;
  let heldOutBitsPerByte: number | null = null;
  let drawnAt = -Infinity;
  let printedAt = started;
  let printedPosition = firstStep;
  let paused = false;
  let finished = false;

  const state = (): ProgressState => {
    const underWay = now() - stepStarted;
    const { tokensPerSecond, secondsPerStep } = speed(underWay);
    const long = Math.max(underWay, secondsPerStep ?? 0) >= longStepSeconds;
    return {
      step,
      steps,
      fraction: long && step < steps ? fraction : null,
      trainBitsPerByte,
      heldOutBitsPerByte,
      recent,
      tokensPerSecond,
      unit,
      etaSeconds: secondsPerStep === null ? null : (steps - step - fraction) * secondsPerStep,
    };
  };

  // Before the first step has ended, what the part of it says is all there is.
  const speed = (underWay: number) => {
    const count = next - first;
    if (count === 0) {
      const known = fraction > 0 && underWay > 0;
      const secondsPerStep = known ? underWay / fraction : null;
      return { secondsPerStep, tokensPerSecond: known ? (tokensPerStep * fraction) / underWay : null };
    }
    let training = 0;
    for (let i = first; i < next; i++) training += lengths[i % lengths.length]!;
    // Wall time per step counts evaluations and checkpoints in, as the person waits for them too.
    const wall = ends[(next - 1) % ends.length]! - (ends[first % ends.length]! - lengths[first % lengths.length]!);
    return {
      secondsPerStep: Math.max(wall, training) / count,
      tokensPerSecond: training > 0 ? (tokensPerStep * count) / training : null,
    };
  };

  const show = (force: boolean) => {
    if (finished || paused) return;
    const at = now();
    if (terminal.live) {
      if (!force && at - drawnAt < frameSeconds) return;
      drawnAt = at;
      terminal.draw(liveLine(state(), terminal.width() - 1, terminal.colors));
      return;
    }
    const position = step + fraction;
    const due = fraction === 0 || at - printedAt >= plainPatienceSeconds;
    // Rounding must not push a line that is due at step 3 of 300 to step 4.
    const far = position - printedPosition >= plainInterval - 1e-9;
    if ((due && far) || (force && position > printedPosition)) printPlain(at, position);
  };

  const printPlain = (at: number, position: number) => {
    printedAt = at;
    printedPosition = position;
    terminal.print(plainLine(state()));
  };

  // What comes between two steps is not part of the next one.
  const restartStep = () => {
    if (fraction === 0) stepStarted = now();
  };

  return {
    step(report) {
      const at = now();
      step = report.step;
      fraction = 0;
      stepStarted = at;
      trainBitsPerByte = report.trainBitsPerByte;
      if (isFigure(trainBitsPerByte)) recent.push(trainBitsPerByte);
      if (recent.length > recentLosses) recent.splice(0, recentLosses / 2);
      ends[next % ends.length] = at;
      lengths[next % lengths.length] = report.seconds;
      next++;
      while (next - first > windowSteps.max || (next - first > windowSteps.min && at - ends[first % ends.length]! > windowSeconds)) first++;
      show(step === steps);
    },
    within(part) {
      fraction = Math.min(1, Math.max(0, part));
      show(false);
    },
    evaluated(bits) {
      heldOutBitsPerByte = bits;
      restartStep();
      if (terminal.live) show(false);
      else {
        const count = `${String(step).padStart(String(steps).length)}/${steps}`;
        terminal.print(`step ${count}  held-out ${formatLoss(bits) || "not a number"} bits/byte${aboveFloor(bits, floor)}`);
      }
    },
    pause() {
      terminal.draw("");
      paused = true;
    },
    resume() {
      paused = false;
      restartStep();
      if (terminal.live) show(true);
    },
    finish() {
      if (finished) return;
      paused = false;
      show(true);
      terminal.keepLine();
      finished = true;
    },
  };
}

/**
 * The live line, at most `width` columns. Where the room is short, parts give way in the order of `giveWay`;
 * what is left of the room goes to the sparkline.
 */
export function liveLine(state: ProgressState, width: number, colors: Colors): string {
  const parts = lineParts(state);
  let graphCells = Math.min(6, state.recent.length);
  const columns = () => {
    const shown = Object.values(parts).flatMap((forms) => forms[0] || []);
    const texts = shown.reduce((sum, text) => sum + text.length, 0) + gap.length * (shown.length - 1);
    return texts + (graphCells > 0 ? gap.length + graphCells : 0);
  };
  for (const name of giveWay) {
    if (columns() <= width) break;
    if (name === "graph") graphCells = 0;
    else if (parts[name].length > 1) parts[name].shift();
  }
  const plain = Object.values(parts).flatMap((forms) => forms[0] || []).join(gap);
  if (plain.length > width) return width < 1 ? "" : `${plain.slice(0, width - 1)}…`;
  if (graphCells > 0) graphCells = Math.min(40, graphCells + width - columns());
  const styled = [parts.step[0], parts.loss[0], parts.held[0], colors.dim(parts.rate[0] ?? ""), colors.dim(parts.eta[0] ?? "")];
  if (graphCells > 0) styled.push(colors.cyan(sparkline(state.recent, graphCells)));
  return styled.filter((text) => text).join(gap);
}

const gap = "  ";
const giveWay = ["rate", "loss", "held", "loss", "rate", "step", "graph", "held", "eta"] as const;

// Each part in its forms, the longest first; "" is a part left out. The order here is the order on the screen.
function lineParts(state: ProgressState): Record<"step" | "loss" | "held" | "rate" | "eta", string[]> {
  const { step, steps, fraction, trainBitsPerByte, heldOutBitsPerByte, tokensPerSecond, unit, etaSeconds } = state;
  const percent = isFigure(fraction) ? ` ${String(Math.floor(fraction * 100)).padStart(2)}%` : "";
  const count = `${String(step).padStart(String(steps).length)}/${steps}${percent}`;
  const train = formatLoss(trainBitsPerByte);
  const held = formatLoss(heldOutBitsPerByte);
  const rate = formatCount(tokensPerSecond);
  return {
    step: [`step ${count}`, count],
    loss: train === "" ? [""] : [`train ${train} bits/byte`, `${train} bits/byte`, train],
    held: held === "" ? [""] : [`held-out ${held}`, `held ${held}`, ""],
    rate: rate === "" ? [""] : [`${rate} ${unit}/s`, `${rate}/s`, ""],
    eta: isFigure(etaSeconds) && step < steps ? [`ETA ${formatClock(etaSeconds)}`, ""] : [""],
  };
}

/** A line for files and pipes: no escape sequences, units in words. Evaluations have lines of their own. */
export function plainLine(state: ProgressState): string {
  const { step, loss, rate, eta } = lineParts({ ...state, fraction: state.fraction || null });
  return [step[0], loss[0], rate[0], eta[0]].filter((text) => text).join(gap);
}

/**
 * The last values as at most `cells` bars of eight levels, the lowest value lowest. Where there are more than twice as
 * many values, several share a bar by their mean: always a power of two, so that old bars stay while new ones come.
 */
export function sparkline(values: readonly number[], cells: number): string {
  if (values.length === 0 || cells < 1) return "";
  let share = 1;
  while (Math.ceil(values.length / share) > 2 * cells) share *= 2;
  const means: number[] = [];
  for (let start = 0; start < values.length; start += share) {
    const group = values.slice(start, start + share);
    means.push(group.reduce((sum, value) => sum + value, 0) / group.length);
  }
  const bars = means.slice(-cells);
  const low = Math.min(...bars);
  const span = Math.max(Math.max(...bars) - low, 0.02); // 0.02 bits and less are noise: drawn flat, not as mountains
  return bars.map((bar) => "▁▂▃▄▅▆▇█"[Math.min(7, Math.floor(((bar - low) / span) * 8))]).join("");
}

/** Bits per byte with three decimals; "" where it is not known. */
export function formatLoss(bits: number | null): string {
  return isFigure(bits) ? bits.toFixed(3) : "";
}

/** How far a loss is above the floor, for behind it: ", 0.123 above the floor"; "" where either is not known. */
export function aboveFloor(bits: number | null, floor: number | null): string {
  return isFigure(bits) && isFigure(floor) ? `, ${(bits - floor).toFixed(3)} above the floor` : "";
}

/** A count in three digits and a short unit: 950, 12.3 k, 1.23 M, 4.56 G, 7.89 T; "" where it is not known. */
export function formatCount(count: number | null): string {
  if (!isFigure(count)) return "";
  if (count < 999.5) return String(count < 10 && !Number.isInteger(count) ? Number(count.toFixed(1)) : Math.round(count));
  const units = ["k", "M", "G", "T"];
  let value = count / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 ? Math.round(value) : value.toPrecision(3)} ${units[unit]}`;
}

/** A duration as a clock: 0:07, 2:31, 1:02:03, and from a day on 3 d 04 h; "" where it is not known. */
export function formatClock(seconds: number | null): string {
  if (!isFigure(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  const two = (part: number) => String(part).padStart(2, "0");
  if (days > 0) return `${days} d ${two(hours)} h`;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// Not null, not NaN, not Infinity: fit to be shown.
function isFigure(value: number | null): value is number {
  return value !== null && Number.isFinite(value);
}
