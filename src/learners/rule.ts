// What differs from rule to rule in a run of eggroll-int8: data of a step, its order, the reference's own measurements. One file a rule:
// egg-c.ts, nano-egg.ts. Not the arithmetic (kernels/int8/). Read next: eggroll-int8.ts, which drives a rule.
import type { ConfigOf, Rule } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import type { NativeModel, StepOrder, TrainerShape } from "../native/int8.ts";

/** Bytes that a resumed run needs besides the weights and the members' states. */
export interface RuleState {
  name: string;
  shape: number[];
  read(): Uint8Array;
  write(bytes: Uint8Array): void;
}

export interface RuleRun {
  readonly shape: TrainerShape;
  /** Streams of text that a step reads. */
  readonly streams: number;
  /** Weights that the update may move, in number. */
  readonly trained: number;
  readonly states: readonly RuleState[];
  /** First input of every stream at a step. */
  offsets(step: number): Float64Array;
  order(step: number): StepOrder;
  /** Whether the threshold of `order` changes from step to step. */
  readonly thresholdChanges: boolean;
  /** The reference's own measurement before a step in bits per byte, undefined where it makes none; null when cancelled. */
  beforeStep(step: number): Promise<number | null | undefined>;
  /** Takes back what the last `beforeStep` changed: the step did not come about. */
  undo(): void;
  /** The reference's own loss of held-out text in bits per byte, undefined where it has none; null when cancelled. */
  validate(heldOut: Corpus): Promise<number | null | undefined>;
}

export interface RuleOfRuns {
  /** Throws EggError("data") where the text is too short for the config. */
  requireText(config: ConfigOf<Rule>, train: Corpus): void;
  shape(config: ConfigOf<Rule>): TrainerShape;
  create(config: ConfigOf<Rule>, model: NativeModel, train: Corpus): RuleRun;
}
