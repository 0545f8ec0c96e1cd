// Checks that a range alone does not give: proofs, worked out for each config, that the integer kernels cannot overflow.
// Not the kernels' own code; the magnitudes below are the contract that the kernels and their tests keep.
// Read next: load.ts, which runs this table after all layers are merged.

import type { Config, KnobPath } from "./knobs.ts";

/** Largest magnitude of an int8 weight or activation (never -128), and of one perturbation value. */
const int8 = 127;
const noise = 31;
const int32 = 2 ** 31 - 1;

export interface Bound {
  /** The knob to which a message points. */
  path: KnobPath;
  /** What goes wrong, in the words of a problem line; undefined where all is well. Plain numbers, no rounding. */
  problem(config: Config): string | undefined;
}

export const bounds: readonly Bound[] = [
  {
    // The widest perturbed product, mlp.project: (x . b) * a over 4 x hidden columns, before its shift.
    path: "model.hidden",
    problem: ({ model: { hidden } }) =>
      overflow(`found ${hidden}`, `the widest product reaches 4 x ${hidden} x ${int8} x ${noise} x ${noise}`, 4 * hidden * int8 * noise * noise),
  },
  {
    // The votes of a step for one weight: one a * b for each mirrored pair.
    path: "trainer.population",
    problem: ({ trainer: { population } }) =>
      overflow(`found ${population}`, `the votes for a weight reach ${population} / 2 x ${noise} x ${noise}`, (population / 2) * noise * noise),
  },
];

function overflow(found: string, sum: string, value: number): string | undefined {
  return value > int32 ? `${found}, but ${sum} = ${value}, more than the ${int32} that 32 bits hold` : undefined;
}
