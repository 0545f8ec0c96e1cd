// Integer EGGROLL on the context model, rule egg: every pair votes at every position for the rows that were read there. Takes the memory,
// runs the steps, says what is reported and saved. The arithmetic: kernels/contexts/. Read next: src/models/contexts.ts.
import type { ConfigOf } from "../config/knobs.ts";
import { requireLength, type Corpus } from "../data/corpus.ts";
import { bytesOf, ContextsModel, contextsParameters, contextsPiece } from "../models/contexts.ts";
import { collect } from "../models/generate.ts";
import type { SavedTensor, TensorEntry } from "../models/tensors.ts";
import { NativeContextsTrainer, type ContextsTrainerShape } from "../native/contexts.ts";
import { cancel, type Context } from "../native/machine.ts";
import { evaluationBytes, sampling, type Admit, type Evaluation, type Learner, type StepReport } from "./learner.ts";

/** Pairs that read the same text (kernels/contexts/ops.zig). */
const groupPairs = 16;
/** Readings of a row in one step up to which its votes count in full. */
const cap = 16;
/** Masters shrink after about so many positions. */
const decayPositions = 1 << 18;

/** Throws EggError("data") where the text is too short for a run of this config. */
export function requireContextsText({ trainer }: ConfigOf<"egg">, train: Corpus): void {
  requireLength(train, trainer.sequence + 4, `${trainer.sequence.toLocaleString("en-US")} positions and what they read`, "trainer.sequence");
}

/** The trainer's shape for a config of rule egg. */
export function contextsShape({ trainer, run }: ConfigOf<"egg">): ContextsTrainerShape {
  const groups = trainer.population / (2 * groupPairs);
  return {
    groups,
    positions: trainer.sequence,
    seed: run.seed,
    shift: 4 + trainer.sigma_shift,
    // Loss differences shrink with the perturbation: fewer of their bits are dropped then.
    fitness_shift: Math.max(0, 5 - trainer.sigma_shift),
    cap,
    decay_every: trainer.decay_shift === 0 ? 0 : Math.max(1, Math.round(decayPositions / (groups * trainer.sequence))),
    decay_shift: trainer.decay_shift!,
  };
}

/**
 * The rate of step `index` of `steps`, falling in a straight line to zero at the end: learning_rate is in units of a logit (1/16 bit)
 * for each reading and unit of the gradient. 116380 = the mean square of a product of two noise values. Steps beyond the end, which
 * only measurements take (--dry-run of a short run), have a rate of 0.
 */
export function rateAt({ trainer, run }: ConfigOf<"egg">, shape: ContextsTrainerShape, index: number): number {
  const first = Math.round((trainer.learning_rate! * 2 ** (36 + shape.shift + shape.fitness_shift)) / (groupPairs * 116_380));
  return Number((BigInt(Math.min(first, 2 ** 31 - 1)) * BigInt(Math.max(0, run.steps - index))) / BigInt(Math.max(1, run.steps)));
}

export class EggrollContexts implements Learner {
  readonly parameters: number;
  readonly weights = "int8";
  readonly unit = "member-tokens";
  readonly tokenizer = "bytes";
  readonly population: number;
  readonly tokensPerStep: number;
  readonly dataTokensPerStep: number;
  readonly backend: string;
  readonly threads: number;

  readonly #config: ConfigOf<"egg">;
  readonly #context: Context;
  readonly #model: ContextsModel;
  readonly #trainer: NativeContextsTrainer;
  readonly #shape: ContextsTrainerShape;
  readonly #train: Corpus;
  readonly #heldOut: Corpus | null;
  readonly #batch: Uint8Array;
  #cancelled = false;

  /**
   * Takes the memory that training needs.
   * @param admit is told the plan before anything large is taken, and throws where it does not fit
   * @throws EggError("data") where the text is too short, EggError("resources") where memory is
   */
  constructor(config: ConfigOf<"egg">, text: { train: Corpus; heldOut: Corpus | null }, context: Context, admit: Admit) {
    requireContextsText(config, text.train);
    const shape = (this.#shape = contextsShape(config));
    const sizes = { order: config.model.order!, table_bits: config.model.table_bits! };
    const bytes = bytesOf(text.train);
    this.#config = config;
    this.#context = context;
    this.#train = text.train;
    this.#heldOut = text.heldOut;
    this.parameters = contextsParameters(bytes, sizes);
    this.population = config.trainer.population;
    this.tokensPerStep = this.population * config.trainer.sequence;
    this.dataTokensPerStep = shape.groups * shape.positions;
    this.backend = `cpu ${context.tier}`;
    this.threads = context.threads;
    // Memory that the model does not touch yet costs nothing: the plan is admitted first.
    this.#model = new ContextsModel(context, sizes, bytes);
    const batchBytes = shape.groups * (sizes.order + shape.positions);
    admit({ model: this.#model.memory, training: NativeContextsTrainer.bytesNeeded(this.#model.native, shape), streams: batchBytes, saving: contextsPiece });
    this.#trainer = new NativeContextsTrainer(this.#model.native, shape);
    this.#batch = new Uint8Array(batchBytes);
  }

  /** All rows are zero: every byte is equally likely. */
  initialize(): void {}

  async step(index: number, onProgress: (share: number) => void): Promise<StepReport | null> {
    this.#cancelled = false;
    this.#fillBatch(index);
    const rate = rateAt(this.#config, this.#shape, index);
    const result = await this.#trainer.step(this.#batch, index, rate, onProgress);
    if (result === null) return null;
    const { plus, minus, changed, loss, noise, forward, update } = result;
    return {
      trainBitsPerByte: loss / this.tokensPerStep,
      fitnessPlus: plus,
      fitnessMinus: minus,
      updatedFraction: changed / this.parameters,
      rate: rate / rateAt(this.#config, this.#shape, 0),
      phases: { noise, forward, update },
    };
  }

  /** Group g reads from (g * ((n - T - 2) div G) + step * T) mod (n - T - 2), each position with the bytes before it. */
  #fillBatch(index: number): void {
    const { groups, positions } = this.#shape;
    const { order } = this.#model;
    const span = this.#train.bytes - positions - 2;
    const stride = Math.floor(span / groups);
    for (let g = 0; g < groups; g++) {
      const start = (g * stride + index * positions) % span;
      this.#model.readPadded(this.#train, start + 1 - order, this.#batch.subarray(g * (order + positions), (g + 1) * (order + positions)));
    }
  }

  async evaluate(): Promise<Evaluation | null> {
    if (this.#heldOut === null) return null;
    const loss = await this.#model.loss(this.#heldOut, evaluationBytes);
    return loss === null ? null : { bitsPerByte: loss.bitsPerByte };
  }

  async sample(prompt: Uint8Array, tokens: number, seed: number): Promise<Uint8Array | null> {
    this.#cancelled = false;
    return collect(this.#model.generate(prompt, tokens, sampling, seed), () => this.#cancelled);
  }

  cancel(): void {
    this.#cancelled = true;
    cancel(this.#context);
  }

  save(): Map<string, SavedTensor> {
    return this.#model.save(true);
  }

  load(tensors: ReadonlyMap<string, TensorEntry>): void {
    this.#model.load(tensors);
  }
}
