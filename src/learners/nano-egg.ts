// A run by rule nano-egg: groups of members on rows of the text, noise by epoch, a threshold from a z-test that falls or stands, and the
// reference's validation. The arithmetic: kernels/int8/nano_egg.zig. Reference: ESHyperscale/nano-egg, run.py.
import type { ConfigOf, Rule } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import { requireSequences, segmentOffsets, validationRows } from "../data/streams.ts";
import { eggParameters } from "../models/egg.ts";
import { streamLoss } from "../models/evaluate.ts";
import type { NativeModel, StepOrder, TrainerShape } from "../native/int8.ts";
import type { RuleOfRuns, RuleRun } from "./rule.ts";

/** The reference validates on so many rows of the held-out text, side by side. */
const rows = 1024;
/** Held-out text that a validation reads at most, the front of each row; the reference reads all of it, however long that takes. */
const validationBytes = 1 << 20;

/** Share of the weights that may move by chance at a step: alpha itself, or above 1 a schedule that begins with all. */
function shareAt(alpha: number, decay: number, step: number): number {
  return alpha <= 1 ? alpha : 1 / (((2 ** alpha - 1) * step) / decay + 1);
}

/** The complementary error function for x >= 0, to about 1e-13: a power series, and a continued fraction for large x. */
function erfc(x: number): number {
  const scale = Math.exp(-x * x) / Math.sqrt(Math.PI);
  if (x < 2) {
    let [sum, term] = [0, 2 * x];
    for (let n = 1; term > 1e-18; n++) {
      sum += term;
      term *= (2 * x * x) / (2 * n + 1);
    }
    return 1 - scale * sum;
  }
  let fraction = x;
  for (let n = 120; n > 0; n--) fraction = x + n / 2 / fraction;
  return scale / fraction;
}

/** The z-test's threshold of a step in sixteenths of a standard deviation, rounded down: floor(16 * Phi^-1(1 - share / 2)). */
export function zThreshold(alpha: number, decay: number, step: number): number {
  const share = shareAt(alpha, decay, step);
  let threshold = 0;
  while (erfc((threshold + 1) / 16 / Math.SQRT2) >= share) threshold++;
  return threshold;
}

export const nanoEgg: RuleOfRuns = {
  requireText: ({ trainer }, train) => requireSequences(train, trainer.population / trainer.group_size!, trainer.sequence),
  shape: ({ trainer, run }) => ({
    pairs: trainer.population / 2,
    sequence: trainer.sequence,
    pairs_per_stream: trainer.group_size! / 2,
    sigma_shift: trainer.sigma_shift,
    seed: run.seed,
    signs: trainer.use_clt! ? 0 : 1,
  }),
  create: (config, model, train) => new NanoEggRun(config, model, train),
};

class NanoEggRun implements RuleRun {
  readonly shape: TrainerShape;
  readonly streams: number;
  readonly trained: number;
  readonly states = [];
  readonly thresholdChanges: boolean;
  readonly #trainer: ConfigOf<Rule>["trainer"];
  readonly #model: NativeModel;
  readonly #train: Corpus;

  constructor(config: ConfigOf<Rule>, model: NativeModel, train: Corpus) {
    this.shape = nanoEgg.shape(config);
    this.streams = config.trainer.population / config.trainer.group_size!;
    this.trained = eggParameters(model);
    this.#trainer = config.trainer;
    this.thresholdChanges = config.trainer.alpha! > 1;
    this.#model = model;
    this.#train = train;
  }

  offsets(step: number): Float64Array {
    return segmentOffsets(this.#train.bytes, this.streams, this.shape.sequence, step);
  }

  order(step: number): StepOrder {
    const reuse = this.#trainer.noise_reuse!;
    return {
      seed: reuse === 0 ? 0 : Math.floor(step / reuse),
      threshold: zThreshold(this.#trainer.alpha!, this.#trainer.alpha_decay_timestep!, step),
    };
  }

  async beforeStep(): Promise<undefined> {
    return undefined;
  }

  undo(): void {}

  async validate(heldOut: Corpus): Promise<number | null | undefined> {
    const streams = validationRows(heldOut.bytes, rows);
    if (streams === null) return undefined;
    const length = Math.min(streams.length, validationBytes / rows);
    const loss = await streamLoss(this.#model, heldOut, { ...streams, length });
    return loss === null ? null : loss.lossInteger;
  }
}
