// What the run loop drives: one interface for every way to learn. create.ts finds the one that a config asks for.
// Nothing here knows of screens, files or signals. Read next: src/run/loop.ts, which calls it.
import type { SavedTensor, TensorEntry } from "../models/tensors.ts";

/** What one step did. */
export interface StepReport {
  /** Mean loss on the step's training text, bits per byte: of the perturbed population (integer loss where the learner has one), or of the weights before the step. */
  trainBitsPerByte: number;
  /** EGGROLL: pairs whose plus side was better, and whose minus side was. */
  fitnessPlus?: number;
  fitnessMinus?: number;
  /** EGGROLL: share of the trained weights that moved, 0..1. */
  updatedFraction?: number;
  /** Backprop: norm of all gradients before clipping, and the learning rate of the step. */
  gradientNorm?: number;
  learningRate?: number;
  /** What a weight's votes were measured against, where it changes from step to step, in the rule's own unit. */
  threshold?: number;
  /** How far votes moved a weight, as a share of the first step's, where it changes from step to step. */
  rate?: number;
  /** The reference's own evaluation of this step, bits per byte, where the preset has one. */
  lossInteger?: number;
  /** CPU seconds of all threads by phase, where the learner tells. */
  phases?: { noise: number; forward: number; update: number };
}

/** What an evaluation found, in bits per byte. */
export interface Evaluation {
  /** Held-out loss with clean weights, exact softmax. */
  bitsPerByte: number;
  /** The reference's own loss of the same text, where the preset has one. */
  lossInteger?: number;
}

/** Held-out text that an evaluation during training reads at most. */
export const evaluationBytes = 65_536;
/** Samples during training are cooled a little: at temperature 1 a young model writes mostly bytes that are no text. */
export const sampling = { temperature: 0.7, top_k: 0, top_p: 1, min_p: 0 };

/** What memory a learner needs, by part, in bytes. */
export type MemoryPlan = Record<string, number>;

/**
 * Throws where a plan does not fit into the machine.
 * @param held bytes of it that the process has in memory already
 */
export type Admit = (plan: MemoryPlan, held?: number) => void;

/** What to turn where a run by gradients is beyond the machine. */
export const lessForGradients = "Lower trainer.batch or model.block, or set trainer.recompute=true (activations); lower model.width or model.layers (weights, gradients, optimizer).";

export type Unit = "member-tokens" | "tokens";

export interface Learner {
  /** Weights of the model, in number, and what they are stored as. */
  readonly parameters: number;
  readonly weights: "int8" | "f32";
  /** What is counted: a member that reads a token, or a token with its gradients. The two are never compared. */
  readonly unit: Unit;
  /** In that unit. */
  readonly tokensPerStep: number;
  /** Members; null where there is one model only. */
  readonly population: number | null;
  /** As it is saved with the weights (src/data/tokenizer.ts). */
  readonly tokenizer: string;
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
  /** Null without held-out text, or when cancelled. */
  evaluate(): Promise<Evaluation | null>;
  /** Continues `prompt` by `tokens` tokens with clean weights; the same seed gives the same text. Null when cancelled. */
  sample(prompt: Uint8Array, tokens: number, seed: number): Promise<Uint8Array | null>;
  /** Asks a running step, evaluation or sample to end early. */
  cancel(): void;

  /** Model tensors, and under `state.` what resume needs besides. */
  save(): Map<string, SavedTensor>;
  /** Takes back what `save` gave. Throws EggError("corrupt") that names what is missing, extra or of the wrong shape. */
  load(tensors: ReadonlyMap<string, TensorEntry>): void;
}
