// A run by rule egg.c: one stream a pair, a noise seed a step, a constant threshold, and the reference's own clean evaluation before
// every tenth step. The arithmetic: kernels/int8/egg_c.zig. Reference: d0rc/egg.c, full_trained_egg.c. Read next: nano-egg.ts.
import type { ConfigOf, Rule } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import { pairOffsets, referenceEvaluationStart, requireSequence } from "../data/streams.ts";
import { NativeEvaluator, type NativeModel, type StepOrder, type TrainerShape } from "../native/int8.ts";
import type { RuleOfRuns, RuleRun, RuleState } from "./rule.ts";

/** The reference logs a clean evaluation of its own before every tenth step. */
const referenceEvery = 10;
/** 32-bit golden ratio: spreads step numbers over seeds. */
const spread = 0x9e3779b9;

/** The noise seed of a step: the run's seed takes the place of egg.c's clock. */
export function stepSeed(seed: number, step: number): number {
  return (seed ^ Math.imul(step, spread)) >>> 0;
}

export const eggC: RuleOfRuns = {
  requireText: (config, train) => requireSequence(train, config.trainer.sequence),
  shape: ({ trainer }) => ({ pairs: trainer.population / 2, sequence: trainer.sequence, sigma_shift: trainer.sigma_shift }),
  create: (config, model, train) => new EggCRun(config, model, train),
};

class EggCRun implements RuleRun {
  readonly shape: TrainerShape;
  readonly streams: number;
  readonly trained: number;
  readonly states: readonly RuleState[];
  readonly thresholdChanges = false;
  readonly #reference: NativeEvaluator;
  readonly #train: Corpus;
  readonly #seed: number;
  readonly #threshold: number;
  /** The reference's state before its last evaluation; null where the step has none. */
  #before: Uint8Array | null = null;

  constructor(config: ConfigOf<Rule>, model: NativeModel, train: Corpus) {
    this.shape = eggC.shape(config);
    this.streams = this.shape.pairs;
    // The matrices: embedding, biases and norms stay as they are.
    this.trained = 12 * model.layers * model.hidden ** 2 + model.vocabulary * model.hidden;
    this.#train = train;
    this.#seed = config.run.seed;
    this.#threshold = config.trainer.threshold!;
    const reference = (this.#reference = new NativeEvaluator(model, 1, this.shape.sequence));
    this.states = [
      { name: "state.reference", shape: [model.layers, model.hidden], read: () => reference.readStates(), write: (bytes) => reference.writeStates(bytes) },
    ];
  }

  offsets(step: number): Float64Array {
    return pairOffsets(this.#train.bytes, this.shape.pairs, this.shape.sequence, step);
  }

  order(step: number): StepOrder {
    return { seed: stepSeed(this.#seed, step), threshold: this.#threshold };
  }

  /** Clean weights on the training text, with a state that is never reset. */
  async beforeStep(step: number): Promise<number | null | undefined> {
    this.#before = null;
    if (step % referenceEvery !== 0) return undefined;
    this.#before = this.#reference.readStates();
    const { sequence } = this.shape;
    const window = new Uint8Array(sequence + 1);
    this.#train.read(referenceEvaluationStart(this.#train.bytes, sequence, step), window);
    const result = await this.#reference.evaluate(window, sequence);
    return result === null ? null : result.loss_sum / (16 * sequence);
  }

  undo(): void {
    if (this.#before !== null) this.#reference.writeStates(this.#before);
  }

  async validate(): Promise<undefined> {
    return undefined; // the reference knows no held-out text
  }
}
