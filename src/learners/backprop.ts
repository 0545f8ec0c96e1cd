// Training by gradients: a transformer, windows of tokens in a seeded order, and a whole step captured as one native program.
// Not the model (src/models/transformer.ts), and not gradients or optimizers (src/tensor/). Read next: transformer.ts, src/data/tokens.ts.
import type { ConfigOf } from "../config/knobs.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { requireWindows, WindowOrder, type Tokens } from "../data/tokens.ts";
import { EggError } from "../errors.ts";
import { collect } from "../models/generate.ts";
import { bytesNow, elements, expectTensors, partNow, type LazyBytes, type SavedTensor, type TensorEntry } from "../models/tensors.ts";
import { startTransformer } from "../models/transformer-foreign.ts";
import { expectTransformer, loadTransformer, saveTransformer, savingBytes, SavingRoom } from "../models/transformer-names.ts";
import { shapeOfConfig, transformerParameters, type TransformerShape } from "../models/transformer-shape.ts";
import { TransformerText } from "../models/transformer-text.ts";
import { Transformer } from "../models/transformer.ts";
import type { Context } from "../native/machine.ts";
import * as optim from "../tensor/optim.ts";
import type { Profiler } from "../tensor/profile.ts";
import { capture, type Program } from "../tensor/program.ts";
import * as schedules from "../tensor/schedules.ts";
import { manualSeed, memory, trainingStep, useThreads } from "../tensor/device.ts";
import { computeIn, type Tensor } from "../tensor/tensor.ts";
import { evaluationBytes, lessForGradients, sampling, type Admit, type Evaluation, type Learner, type StepReport } from "./learner.ts";

type BackpropConfig = ConfigOf<"backprop">;
/** Ids and targets of one batch, (batch, block) each. */
type Batch = { ids: { shape: number[]; dtype: "i32" }; targets: { shape: number[]; dtype: "i32" } };

/** Weights of another model that a run starts from. */
export interface Start {
  shape: TransformerShape;
  tensors: ReadonlyMap<string, TensorEntry>;
  /** For messages: the path. */
  where: string;
}

/** What a run reads, and what it starts from: read when it is needed, which a resumed run does not. */
export interface TokenText {
  train: Tokens;
  heldOut: Tokens | null;
  tokenizer: Tokenizer;
  start: (() => Start) | null;
}

/** Optimizer state that is saved at once, in elements: a checkpoint must not take as much memory again as the run. */
const stateAtOnce = 1 << 20;
/** A loss so many times what guessing would cost, for so many steps after each other: nothing will come of it. */
const exploded = { times: 3, steps: 10 };

/** Throws EggError("data") where the text is too short for a run of this config. */
export function requireTokens({ model }: BackpropConfig, train: Tokens): void {
  requireWindows(train, model.block);
}

/** The optimizer that a config asks for. Adam's decay is coupled to its gradients' size, as in the paper; AdamW's is not. */
function optimizerOf({ trainer }: BackpropConfig, parameters: optim.Parameters): optim.Optimizer {
  const { learning_rate: lr, weight_decay: weightDecay, clip, beta1, beta2 } = trainer;
  const common = { lr, weightDecay, clip };
  switch (trainer.optimizer) {
    case "adamw":
      return new optim.AdamW(parameters, { ...common, betas: [beta1, beta2] });
    case "adam":
      return new optim.Adam(parameters, { ...common, betas: [beta1, beta2] });
    case "lion":
      return new optim.Lion(parameters, { ...common, betas: [beta1, beta2] });
    case "sgd":
      return new optim.SGD(parameters, { ...common, momentum: beta1 });
  }
}

/** The learning rate of step `index`, counted from 0: warm-up, then the schedule, down to min_rate at the last step. */
export function learningRateAt({ trainer, run }: BackpropConfig, index: number): number {
  const { learning_rate: lr, warmup, schedule, min_rate } = trainer;
  const settings = { lr, warmup, total: Math.max(run.steps, warmup, 1), minLr: lr * min_rate };
  switch (schedule) {
    case "constant":
      return schedules.constant(index, { lr, warmup });
    case "linear":
      return schedules.linear(index, settings);
    case "cosine":
      return schedules.cosine(index, settings);
    case "inverse_sqrt":
      return Math.max(schedules.inverseSqrt(index, { lr, warmup }), index < warmup ? 0 : lr * min_rate);
  }
}

export class Backprop implements Learner {
  readonly parameters: number;
  readonly weights = "f32";
  readonly unit = "tokens";
  readonly population = null;
  readonly tokensPerStep: number;
  readonly dataTokensPerStep: number;
  readonly backend: string;
  readonly threads: number;
  readonly tokenizer: string;

  readonly #config: BackpropConfig;
  readonly #shape: TransformerShape;
  readonly #model: Transformer;
  readonly #optimizer: optim.Optimizer;
  readonly #train: Tokens;
  readonly #heldOut: Tokens | null;
  readonly #words: Tokenizer;
  readonly #start: (() => Start) | null;
  readonly #text: TransformerText;
  readonly #order: WindowOrder;
  readonly #steps: StepPrograms;
  readonly #room = new SavingRoom();
  readonly #buffers: { ids: Int32Array; targets: Int32Array; window: Int32Array };
  #cancelled = false;
  #exploded = 0;

  /**
   * Takes the memory that training needs; pages of it that nothing has been written to yet cost nothing.
   * @param profiler is told the time of every operation of every step
   * @throws EggError("data") where the text is too short, EggError("resources") where memory is
   */
  constructor(config: BackpropConfig, text: TokenText, context: Context, admit: Admit, profiler: Profiler | null = null) {
    requireTokens(config, text.train);
    const { batch, accumulation } = config.trainer;
    useThreads(context.threads, context.tier);
    this.#config = config;
    this.#words = text.tokenizer;
    this.#start = text.start;
    this.#train = text.train;
    this.#heldOut = text.heldOut;
    this.#shape = shapeOfConfig(config, text.tokenizer.vocabulary);
    // What is far beyond the machine is refused before a single weight is made.
    const weights = 4 * transformerParameters(this.#shape);
    const states = { adamw: 2, adam: 2, lion: 1, sgd: config.trainer.beta1 > 0 ? 1 : 0 }[config.trainer.optimizer];
    admit({ model: weights, gradients: weights, optimizer: states * weights });
    manualSeed(config.run.seed);
    this.#model = new Transformer(this.#shape, { recompute: config.trainer.recompute });
    this.#optimizer = optimizerOf(config, this.#model.namedParameters());
    const size = batch * this.#shape.block;
    this.#buffers = { ids: new Int32Array(size), targets: new Int32Array(size), window: new Int32Array(this.#shape.block + 1) };
    this.#order = new WindowOrder(text.train.count, this.#shape.block, config.run.seed);
    this.#steps = planned(config, () => new StepPrograms(config, this.#shape, this.#model, this.#optimizer, profiler));
    this.#text = new TransformerText(this.#model, text.tokenizer);
    this.parameters = this.#model.parameterCount;
    this.tokensPerStep = batch * accumulation * this.#shape.block;
    this.dataTokensPerStep = this.tokensPerStep;
    this.backend = `cpu ${context.tier}`;
    this.threads = context.threads;
    this.tokenizer = text.tokenizer.definition;
    admit({
      model: memory().parameters,
      gradients: memory().gradients,
      optimizer: this.#optimizer.bytes,
      activations: this.#steps.bytes,
      evaluation: text.heldOut === null && config.run.sample_every === 0 ? 0 : this.#text.bytes,
      workspace: memory().workspace,
      saving: savingBytes(this.#shape, stateAtOnce),
    }, memory().parameters);
  }

  /** The seeded weights that the model was made with, or those that model.from names. */
  initialize(): void {
    if (this.#start !== null) startTransformer(this.#model, this.#start());
  }

  async step(index: number, onProgress: (share: number) => void): Promise<StepReport | null> {
    this.#cancelled = false;
    const { accumulation } = this.#config.trainer;
    const learningRate = (this.#optimizer.lr = learningRateAt(this.#config, index));
    let [nats, bytes] = [0, 0];
    for (let part = 0; part < accumulation; part++) {
      const { ids, targets, bytes: predicted } = this.#batch(index * accumulation + part);
      trainingStep(index * accumulation + part);
      const loss = await this.#steps.run(part, { ids, targets }, (share) => onProgress((part + share) / accumulation), () => this.#cancelled);
      if (loss === null) return null;
      nats += loss * targets.length;
      bytes += predicted;
    }
    const gradientNorm = this.#optimizer.gradientNorm();
    this.#expectFinite(index, nats / this.tokensPerStep, gradientNorm);
    return { trainBitsPerByte: nats / Math.LN2 / bytes, gradientNorm, learningRate };
  }

  /** @throws EggError("numeric") where the run has nothing more to learn from; nothing of the step is saved */
  #expectFinite(index: number, loss: number, norm: number): void {
    const { trainer } = this.#config;
    const hint = `Lower trainer.learning_rate (now ${trainer.learning_rate})${trainer.warmup < 100 ? ` or raise trainer.warmup (now ${trainer.warmup})` : ""}; what was saved before is kept.`;
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
      throw new EggError("numeric", `[train] step ${index + 1}: the loss is ${loss} and the norm of the gradients ${norm}: the numbers have overflowed.`, { hint });
    }
    const guess = Math.log(this.#shape.vocabulary);
    this.#exploded = loss > exploded.times * Math.max(guess, 1) ? this.#exploded + 1 : 0;
    if (this.#exploded < exploded.steps) return;
    throw new EggError("numeric", `[train] step ${index + 1}: the loss has exploded: ${loss.toFixed(2)} nats a token, where guessing costs ${guess.toFixed(2)}, and more than ${exploded.times} times that for ${exploded.steps} steps.`, { hint });
  }

  /** Batch `n` since the start of training, and the bytes of text that its targets stand for. */
  #batch(n: number): { ids: Int32Array; targets: Int32Array; bytes: number } {
    const { batch } = this.#config.trainer;
    const { block } = this.#shape;
    const { ids, targets, window } = this.#buffers;
    let bytes = 0;
    for (let row = 0; row < batch; row++) {
      this.#train.read(this.#order.start(n * batch + row), window);
      ids.set(window.subarray(0, block), row * block);
      targets.set(window.subarray(1), row * block);
      for (let i = 1; i <= block; i++) bytes += this.#words.lengths[window[i]!]!;
    }
    return { ids, targets, bytes };
  }

  async evaluate(): Promise<Evaluation | null> {
    if (this.#heldOut === null) return null;
    const loss = await this.#text.loss(this.#heldOut, evaluationBytes);
    return loss === null ? null : { bitsPerByte: loss.bitsPerByte };
  }

  async sample(prompt: Uint8Array, tokens: number, seed: number): Promise<Uint8Array | null> {
    this.#cancelled = false;
    return collect(this.#text.begin().generate(prompt, tokens, sampling, seed), () => this.#cancelled);
  }

  cancel(): void {
    this.#cancelled = true;
    this.#steps.cancel();
    this.#text.cancel();
  }

  save(): Map<string, SavedTensor> {
    const tensors = saveTransformer(this.#model, this.#room);
    for (const { name, shape, readRange } of this.#optimizer.moments()) tensors.set(`state.${name}`, { dtype: "F32", shape: [...shape], data: pieces(shape, readRange, this.#room) });
    tensors.set("state.steps", { dtype: "I64", shape: [1], data: new Uint8Array(BigInt64Array.of(BigInt(this.#optimizer.steps)).buffer) });
    return tensors;
  }

  load(tensors: ReadonlyMap<string, TensorEntry>): void {
    const moments = this.#optimizer.moments();
    expectTransformer(this.#shape, tensors);
    const states = new Map([...tensors].filter(([name]) => name.startsWith("state.")));
    expectTensors(states, [...moments.map(({ name, shape }) => ({ name: `state.${name}`, dtype: "F32" as const, shape })), { name: "state.steps", dtype: "I64", shape: [1] }]);
    loadTransformer(this.#model, tensors);
    for (const { name, shape, writeRange } of moments) {
      const tensor = tensors.get(`state.${name}`)!;
      const count = elements(shape);
      for (let first = 0; first < count; first += stateAtOnce) {
        const part = partNow(tensor, 4 * first, 4 * Math.min(count, first + stateAtOnce)).slice(); // tensors in memory need not be aligned
        writeRange(first, new Float32Array(part.buffer));
      }
    }
    this.#optimizer.steps = Number(new DataView(bytesNow(tensors.get("state.steps")!.data).slice().buffer).getBigInt64(0, true));
  }
}

/** Tensors know no knobs. @throws EggError("resources") in the words of these where a step is beyond this machine */
function planned({ trainer, model }: BackpropConfig, plan: () => StepPrograms): StepPrograms {
  try {
    return plan();
  } catch (error) {
    if (!(error instanceof EggError) || error.kind !== "resources") throw error;
    throw new EggError("resources", `[train] out of memory: a step reads ${trainer.batch.toLocaleString("en")} x ${model.block.toLocaleString("en")} tokens at once; ${error.message}`, { hint: lessForGradients, cause: error });
  }
}

/** A large tensor in pieces that are read when they are written to the file. */
function pieces(shape: readonly number[], readRange: (first: number, target: Float32Array) => void, room: SavingRoom): LazyBytes[] {
  const count = elements(shape);
  return Array.from({ length: Math.ceil(count / stateAtOnce) }, (_, i) => {
    const length = Math.min(stateAtOnce, count - i * stateAtOnce);
    return {
      byteLength: 4 * length,
      read: () => {
        const values = room.take(length);
        readRange(i * stateAtOnce, values);
        return new Uint8Array(values.buffer, 0, 4 * length);
      },
    };
  });
}

/**
 * The native programs of a step. Without accumulation one does it all; with it, one makes the gradients zero, one adds a batch's
 * share to them, and one updates: N batches of b windows are one of N b.
 */
class StepPrograms {
  readonly #whole: Program<Batch, { loss: Tensor }> | null = null;
  readonly #clear: Program<{}, {}> | null = null;
  readonly #add: Program<Batch, { loss: Tensor }> | null = null;
  readonly #update: Program<{}, {}> | null = null;
  readonly #parts: number;
  readonly #profiler: Profiler | null;

  constructor({ trainer }: BackpropConfig, { block }: TransformerShape, model: Transformer, optimizer: optim.Optimizer, profiler: Profiler | null) {
    this.#profiler = profiler;
    const shape = [trainer.batch, block];
    const batch: Batch = { ids: { shape, dtype: "i32" }, targets: { shape, dtype: "i32" } };
    const parts = (this.#parts = trainer.accumulation);
    model.train();
    const lossOf = ({ ids, targets }: { ids: Tensor; targets: Tensor }): Tensor => computeIn(trainer.precision, () => model.loss(ids, targets));
    if (parts === 1) {
      this.#whole = capture(batch, (inputs) => {
        optimizer.zeroGrad();
        const loss = lossOf(inputs);
        loss.backward();
        optimizer.step();
        return { loss };
      });
      return;
    }
    this.#clear = capture({}, () => {
      optimizer.zeroGrad();
      return {};
    });
    this.#add = capture(batch, (inputs) => {
      const loss = lossOf(inputs);
      loss.backward();
      return { loss };
    });
    this.#update = capture({}, () => {
      optimizer.step(1 / parts);
      return {};
    });
  }

  get #all(): Program<any, unknown>[] {
    return [this.#whole, this.#clear, this.#add, this.#update].filter((program) => program !== null);
  }

  /** Bytes of their planned memory. */
  get bytes(): number {
    return this.#all.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Carries out part `part` of a step. Null when cancelled: then no weight has changed. @returns the batch's mean loss in nats */
  async run(part: number, batch: { ids: Int32Array; targets: Int32Array }, onProgress: (share: number) => void, cancelled: () => boolean): Promise<number | null> {
    const program = this.#whole ?? this.#add!;
    const timed = this.#profiler !== null;
    if (part === 0 && this.#clear !== null) {
      this.#clear.runNow({}, { timed });
      this.#profiler?.add(this.#clear);
    }
    if (!(await program.run(batch, { onProgress, timed }))) return null;
    this.#profiler?.add(program);
    const loss = program.outputs.loss.item();
    if (part < this.#parts - 1) return loss;
    if (this.#update !== null) {
      if (cancelled() || !(await this.#update.run({}, { timed }))) return null;
      this.#profiler?.add(this.#update);
    }
    if (this.#profiler !== null) this.#profiler.steps++;
    return loss;
  }

  cancel(): void {
    (this.#whole ?? this.#add!).cancel();
  }
}
