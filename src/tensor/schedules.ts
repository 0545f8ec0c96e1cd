// Learning rates by step, as pure functions: a resumed run goes on exactly where it was. Step 0 is the first update.
// Not the optimizers: set `optimizer.lr` before each step (optim.ts).
import { EggError } from "../errors.ts";

/** `warmup`: that many first steps rise linearly to `lr`; step warmup - 1 has all of it. */
export interface Constant { lr: number; warmup?: number }
/** `total`: from this step on the rate stays at `minLr` (0 where not given). */
export interface Decay extends Constant { total: number; minLr?: number }

function check(name: string, step: number, settings: Constant & Partial<Decay>): void {
  const wrong = Object.entries({ step, ...settings }).find(([, value]) => value !== undefined && !(value >= 0 && value < Infinity));
  if (wrong !== undefined) throw new EggError("usage", `[schedules] ${name}: ${wrong[0]} = ${wrong[1]} is not a number from 0.`);
  for (const length of ["warmup", "total"] as const) {
    if (!Number.isInteger(settings[length] ?? 0)) throw new EggError("usage", `[schedules] ${name}: ${length} = ${settings[length]} is not a whole number of steps.`);
  }
}

/** What lies between warm-up and end: lr where `share` is 0, minLr where it is 1. */
function decay(name: string, step: number, settings: Decay, shape: (share: number) => number): number {
  check(name, step, settings);
  const { lr, warmup = 0, total, minLr = 0 } = settings;
  if (step < warmup) return (lr * (step + 1)) / warmup;
  return step >= total ? minLr : minLr + (lr - minLr) * shape((step - warmup) / (total - warmup));
}

/** lr after the warm-up. */
export function constant(step: number, settings: Constant): number {
  check("constant", step, settings);
  const { lr, warmup = 0 } = settings;
  return step < warmup ? (lr * (step + 1)) / warmup : lr;
}

/** From lr to minLr along a line. */
export function linear(step: number, settings: Decay): number {
  return decay("linear", step, settings, (share) => 1 - share);
}

/** From lr to minLr along half a cosine (Loshchilov and Hutter 2017, one cycle). */
export function cosine(step: number, settings: Decay): number {
  return decay("cosine", step, settings, (share) => (1 + Math.cos(Math.PI * share)) / 2);
}

/** lr min((step + 1) / w, sqrt(w / (step + 1))), w = max(warmup, 1) (Vaswani et al. 2017, scaled so that the peak is lr). */
export function inverseSqrt(step: number, settings: Constant): number {
  check("inverseSqrt", step, settings);
  const warmup = Math.max(settings.warmup ?? 0, 1);
  return settings.lr * Math.min((step + 1) / warmup, Math.sqrt(warmup / (step + 1)));
}
