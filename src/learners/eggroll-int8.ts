// Integer EGGROLL by the algorithm of egg.c: which streams a step reads, which seed it uses, what is reported and saved.
// The arithmetic is native (kernels/int8/eggroll.zig). Reference: d0rc/egg.c, full_trained_egg.c.
import type { Config } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import { fillBatch, pairOffsets, referenceEvaluationStart, requireSequence } from "../data/streams.ts";
import { tokenizers } from "../data/tokenizer.ts";
import { EggError } from "../errors.ts";
import { eggParameters, eggTensors, initialWeights, largestTensor, savedWeights, writeWeights } from "../models/egg.ts";
import { textLoss, textLossBytes } from "../models/evaluate.ts";
import { generate } from "../models/generate.ts";
import { expectTensors, type LazyBytes, type SavedTensor, type TensorEntry } from "../models/tensors.ts";
import { NativeEvaluator, NativeModel, NativeTrainer, type TrainerShape } from "../native/int8.ts";
import { cancel, type Context } from "../native/machine.ts";
import type { Learner, MemoryPlan, StepReport } from "./learner.ts";

/** The reference logs a clean evaluation of its own before every tenth step. */
const referenceEvery = 10;
/** States that are saved at once, in bytes: a checkpoint must not take as much memory again as the run. */
const statePiece = 8 << 20;
/** What filling the streams leaves behind between two collections of garbage, in bytes; measured at 2,048 to 524,288 pairs. */
const garbageOf = (pairs: number): number => Math.min(1200 * pairs, 6 << 20) + 110 * pairs;
/** Held-out text that an evaluation during training reads at most. */
const evaluationBytes = 65_536;
/** Sampling runs on the thread that hears signals: it stands aside this often. */
const sampleSlice_ms = 25;
/** Samples during training are cooled a little: at temperature 1 a young model writes mostly bytes that are no text. */
const sampling = { temperature: 0.7, top_k: 0, top_p: 1, min_p: 0 };
/** 32-bit golden ratio: spreads step numbers over seeds. */
const spread = 0x9e3779b9;

/** The noise seed of a step: the run's seed takes the place of egg.c's clock. */
export function stepSeed(seed: number, step: number): number {
  return (seed ^ Math.imul(step, spread)) >>> 0;
}

/** Weights that the update may move: the matrices, not embedding, biases and norms. */
function trainedWeights(model: NativeModel): number {
  return 12 * model.layers * model.hidden ** 2 + model.vocabulary * model.hidden;
}

function statesAtOnce({ stateBytes }: NativeModel): number {
  return Math.max(1, Math.floor(statePiece / stateBytes));
}

function shapeOf({ trainer }: Config): TrainerShape {
  return { pairs: trainer.population / 2, sequence: trainer.sequence, threshold: trainer.threshold, sigma_shift: trainer.sigma_shift };
}

/** What crosses into native memory at once is at most 4 GiB. */
function expectOnePiece(what: string, bytes: number, knobs: string): void {
  if (bytes < 2 ** 32) return;
  throw new EggError("resources", `[run] ${what} need ${bytes.toLocaleString("en")} bytes in one piece, more than 4 GiB.`, { hint: `Lower ${knobs}.` });
}

export class EggrollInt8 implements Learner {
  readonly parameters: number;
  readonly population: number;
  readonly memberTokensPerStep: number;
  readonly dataTokensPerStep: number;
  readonly backend: string;
  readonly threads: number;

  readonly #context: Context;
  readonly #model: NativeModel;
  readonly #trainer: NativeTrainer;
  readonly #reference: NativeEvaluator;
  readonly #train: Corpus;
  readonly #heldOut: Corpus | null;
  readonly #seed: number;
  readonly #batch: Uint8Array<ArrayBuffer>;
  /** One piece of room for whatever is saved: memory that is let go of here and there would stay with the process for a while. */
  readonly #room: Uint8Array<ArrayBuffer>;
  #cancelled = false;

  /**
   * Takes the memory that training needs.
   * @param admit is told the plan before anything large is taken, and throws where it does not fit
   * @throws EggError("data") where the text is too short, EggError("resources") where memory is
   */
  constructor(config: Config, text: { train: Corpus; heldOut: Corpus | null }, context: Context, admit: (plan: MemoryPlan) => void) {
    const { population, sequence } = config.trainer;
    const shape = shapeOf(config);
    requireSequence(text.train, sequence);
    this.#context = context;
    this.#train = text.train;
    this.#heldOut = text.heldOut;
    this.#seed = config.run.seed;
    this.#model = new NativeModel(context, { layers: config.model.layers, hidden: config.model.hidden, vocabulary: tokenizers[config.data.tokenizer].vocabulary });
    this.parameters = eggParameters(this.#model);
    this.population = population;
    this.memberTokensPerStep = population * sequence;
    this.dataTokensPerStep = shape.pairs * sequence;
    this.backend = `cpu ${context.tier}`;
    this.threads = context.threads;
    const batchBytes = shape.pairs * (sequence + 1);
    const states = population * config.model.layers * config.model.hidden;
    text.train.read(0, new Uint8Array(1)); // a text that is made when it is first read is made now, and counted as there
    const roomBytes = Math.max(largestTensor(this.#model), Math.min(statesAtOnce(this.#model), population) * this.#model.stateBytes);
    admit({
      model: this.parameters,
      training: NativeTrainer.bytesNeeded(this.#model, shape),
      streams: batchBytes + garbageOf(shape.pairs),
      saving: roomBytes,
      evaluation: text.heldOut === null || config.run.eval_every === 0 ? 0 : textLossBytes(this.#model, text.heldOut.bytes, evaluationBytes, context.threads),
    });
    expectOnePiece("the streams of a step", batchBytes, "trainer.population or trainer.sequence");
    expectOnePiece("the states of all members", states, "trainer.population, model.layers or model.hidden");
    this.#trainer = new NativeTrainer(this.#model, shape);
    this.#reference = new NativeEvaluator(this.#model, 1, sequence);
    this.#batch = new Uint8Array(batchBytes);
    this.#room = new Uint8Array(roomBytes);
  }

  initialize(): void {
    for (const [tensor, values] of initialWeights(this.#model)) this.#model.write(tensor.index, values);
  }

  async step(index: number, onProgress: (share: number) => void): Promise<StepReport | null> {
    this.#cancelled = false;
    const { pairs, sequence } = this.#trainer.shape;
    const before = index % referenceEvery === 0 ? this.#reference.readStates() : null;
    const lossInteger = before === null ? undefined : await this.#evaluateReference(index);
    if (lossInteger === null || this.#cancelled) return this.#undo(before);

    fillBatch(this.#train, pairOffsets(this.#train.bytes, pairs, sequence, index), sequence, this.#batch);
    const result = await this.#trainer.step(this.#batch, stepSeed(this.#seed, index), onProgress);
    if (result === null) return this.#undo(before);
    return {
      trainBitsPerByte: result.loss_sum / (16 * this.memberTokensPerStep),
      fitnessPlus: result.plus,
      fitnessMinus: result.minus,
      updatedFraction: result.changed / trainedWeights(this.#model),
      ...(lossInteger === undefined ? {} : { lossInteger }),
      phases: this.#trainer.phases(),
    };
  }

  /** The reference's own evaluation: clean weights on the training text, with a state that is never reset. */
  async #evaluateReference(index: number): Promise<number | null> {
    const { sequence } = this.#trainer.shape;
    const window = new Uint8Array(sequence + 1);
    this.#train.read(referenceEvaluationStart(this.#train.bytes, sequence, index), window);
    const result = await this.#reference.evaluate(window, sequence);
    return result === null ? null : result.loss_sum / (16 * sequence);
  }

  #undo(referenceStates: Uint8Array | null): null {
    if (referenceStates !== null) this.#reference.writeStates(referenceStates);
    return null;
  }

  async evaluate(): Promise<number | null> {
    if (this.#heldOut === null) return null;
    return (await textLoss(this.#model, this.#heldOut, evaluationBytes))?.bitsPerByte ?? null;
  }

  async sample(prompt: Uint8Array, tokens: number, seed: number): Promise<Uint8Array | null> {
    this.#cancelled = false;
    const text = new Uint8Array(tokens);
    let count = 0;
    let turned = performance.now();
    for (const token of generate(this.#model, prompt, tokens, sampling, seed)) {
      text[count++] = token;
      if (performance.now() - turned < sampleSlice_ms) continue;
      await new Promise((resume) => setImmediate(resume));
      turned = performance.now();
      if (this.#cancelled) return null;
    }
    return text;
  }

  cancel(): void {
    this.#cancelled = true;
    cancel(this.#context);
  }

  save(): Map<string, SavedTensor> {
    const { layers, hidden } = this.#model;
    const tensors = savedWeights(this.#model, this.#room);
    tensors.set("state.members", { dtype: "I8", shape: [this.population, layers, hidden], data: this.#memberStates() });
    tensors.set("state.reference", { dtype: "I8", shape: [layers, hidden], data: this.#reference.readStates() });
    return tensors;
  }

  /** The members' states, some at a time. */
  #memberStates(): LazyBytes[] {
    const { stateBytes } = this.#model;
    const atOnce = statesAtOnce(this.#model);
    return Array.from({ length: Math.ceil(this.population / atOnce) }, (_, i) => {
      const first = i * atOnce;
      const count = Math.min(atOnce, this.population - first);
      return { byteLength: count * stateBytes, read: () => this.#trainer.readStates(first, count, this.#room) };
    });
  }

  load(tensors: ReadonlyMap<string, TensorEntry>): void {
    const { layers, hidden } = this.#model;
    const states = [
      { name: "state.members", dtype: "I8" as const, shape: [this.population, layers, hidden] },
      { name: "state.reference", dtype: "I8" as const, shape: [layers, hidden] },
    ];
    const weights = eggTensors(this.#model).map(({ name, shape }) => ({ name, dtype: "I8" as const, shape }));
    expectTensors(tensors, [...weights, ...states]);
    writeWeights(this.#model, tensors);
    this.#trainer.writeStates(0, tensors.get("state.members")!.data);
    this.#reference.writeStates(tensors.get("state.reference")!.data);
  }
}
