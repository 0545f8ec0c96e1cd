// What the run loop drives: one interface for every way to learn. Implementations: eggroll-int8.ts.
// Nothing here knows of screens, files or signals. Read next: src/run/loop.ts, which calls it.
import type { SavedTensor, TensorEntry } from "../models/tensors.ts";

/** What one step did. */
export interface StepReport {
  /** Mean loss of the perturbed population on its training text, bits per byte (integer loss where the learner has one). */
  trainBitsPerByte: number;
  /** Pairs whose plus side was better, and whose minus side was. */
  fitnessPlus: number;
  fitnessMinus: number;
  /** Share of the trained weights that moved, 0..1. */
  updatedFraction: number;
  /** The reference's own evaluation of this step, bits per byte, where the preset has one. */
  lossInteger?: number;
  /** CPU seconds of all threads by phase, where the learner tells. */
  phases?: { noise: number; forward: number; update: number };
}

/** What memory a learner needs, by part, in bytes. */
export type MemoryPlan = Record<string, number>;

export interface Learner {
  /** Weights of the model, in number. */
  readonly parameters: number;
  readonly population: number;
  readonly memberTokensPerStep: number;
  /** Distinct tokens of data that a step reads. */
  readonly dataTokensPerStep: number;
  readonly backend: string;
  readonly threads: number;

  /** Sets the start: seeded initial weights, zero states. */
  initialize(): void;
  /**
   * Carries out step `index`, counted from 0. Null when cancelled: then nothing has changed.
   * @param onProgress the share done, 0..1
   */
  step(index: number, onProgress: (share: number) => void): Promise<StepReport | null>;
  /** Held-out loss with clean weights in exact bits per byte; null without held-out text, or when cancelled. */
  evaluate(): Promise<number | null>;
  /** Continues `prompt` by `tokens` tokens with clean weights; the same seed gives the same text. Null when cancelled. */
  sample(prompt: Uint8Array, tokens: number, seed: number): Promise<Uint8Array | null>;
  /** Asks a running step, evaluation or sample to end early. */
  cancel(): void;

  /** Model tensors, and under `state.` what resume needs besides. */
  save(): Map<string, SavedTensor>;
  /** Takes back what `save` gave. Throws EggError("corrupt") that names what is missing, extra or of the wrong shape. */
  load(tensors: ReadonlyMap<string, TensorEntry>): void;
}
