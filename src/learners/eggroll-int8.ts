// Integer EGGROLL by any rule: takes the memory, runs the steps, says what is reported and saved. What a rule does otherwise is in a
// file each (egg-c.ts, nano-egg.ts), the arithmetic is native (kernels/int8/eggroll.zig). Read next: rule.ts.
import type { ConfigOf, Rule } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import { fillBatch } from "../data/streams.ts";
import { EggError } from "../errors.ts";
import { eggParameters, eggTensors, largestTensor, savedWeights, writeWeights } from "../models/egg.ts";
import { textLoss, textLossBytes } from "../models/evaluate.ts";
import { collect, RecurrentConversation } from "../models/generate.ts";
import { bytesNow, expectTensors, partNow, type LazyBytes, type SavedTensor, type TensorEntry } from "../models/tensors.ts";
import { NativeModel, NativeTrainer } from "../native/int8.ts";
import { cancel, type Context } from "../native/machine.ts";
import { eggC } from "./egg-c.ts";
import { evaluationBytes, sampling, type Admit, type Evaluation, type Learner, type StepReport } from "./learner.ts";
import { nanoEgg } from "./nano-egg.ts";
import type { RuleOfRuns, RuleRun } from "./rule.ts";

type Int8Rule = Exclude<Rule, "egg">;
const rules: Record<Int8Rule, RuleOfRuns> = { "egg.c": eggC, "nano-egg": nanoEgg };

/** States that are saved at once, in bytes: a checkpoint must not take as much memory again as the run. */
const statePiece = 8 << 20;
/** What filling the streams leaves behind between two collections of garbage, in bytes; measured at 2,048 to 524,288 pairs. */
const garbageOf = (pairs: number): number => Math.min(1200 * pairs, 6 << 20) + 110 * pairs;
function statesAtOnce({ stateBytes }: NativeModel): number {
  return Math.max(1, Math.floor(statePiece / stateBytes));
}

/** The rule of a config that trains the GRU. */
function int8Rule({ trainer: { rule } }: ConfigOf<Rule>): Int8Rule {
  if (rule === "egg") throw new EggError("internal", "[run] rule egg has no GRU.");
  return rule;
}

/** Throws EggError("data") where the text is too short for a run of this config. */
export function requireText(config: ConfigOf<Rule>, train: Corpus): void {
  rules[int8Rule(config)].requireText(config, train);
}

/** What crosses into native memory at once is at most 4 GiB. */
function expectOnePiece(what: string, bytes: number, knobs: string): void {
  if (bytes < 2 ** 32) return;
  throw new EggError("resources", `[run] ${what} need ${bytes.toLocaleString("en")} bytes in one piece, more than 4 GiB.`, { hint: `Lower ${knobs}.` });
}

export class EggrollInt8 implements Learner {
  readonly parameters: number;
  readonly weights = "int8";
  readonly unit = "member-tokens";
  readonly tokenizer = "bytes";
  readonly population: number;
  readonly tokensPerStep: number;
  readonly dataTokensPerStep: number;
  readonly backend: string;
  readonly threads: number;

  readonly #context: Context;
  readonly #model: NativeModel;
  readonly #trainer: NativeTrainer;
  readonly #rule: RuleRun;
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
  constructor(config: ConfigOf<Rule>, text: { train: Corpus; heldOut: Corpus | null }, context: Context, admit: Admit) {
    const { population, sequence } = config.trainer;
    const rule = int8Rule(config);
    requireText(config, text.train);
    this.#context = context;
    this.#train = text.train;
    this.#heldOut = text.heldOut;
    this.#seed = config.run.seed;
    this.#model = new NativeModel(context, { rule, layers: config.model.layers!, hidden: config.model.hidden!, vocabulary: 256 });
    this.#rule = rules[rule].create(config, this.#model, text.train);
    this.parameters = eggParameters(this.#model);
    this.population = population;
    this.tokensPerStep = population * sequence;
    this.dataTokensPerStep = this.#rule.streams * sequence;
    this.backend = `cpu ${context.tier}`;
    this.threads = context.threads;
    const { shape, streams } = this.#rule;
    const batchBytes = streams * (sequence + 1);
    const states = population * config.model.layers! * config.model.hidden!;
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
    this.#batch = new Uint8Array(batchBytes);
    this.#room = new Uint8Array(roomBytes);
  }

  initialize(): void {
    this.#model.initialize(this.#seed);
  }

  async step(index: number, onProgress: (share: number) => void): Promise<StepReport | null> {
    this.#cancelled = false;
    const lossInteger = await this.#rule.beforeStep(index);
    if (lossInteger === null || this.#cancelled) return this.#undo();

    fillBatch(this.#train, this.#rule.offsets(index), this.#trainer.shape.sequence, this.#batch);
    const order = this.#rule.order(index);
    const result = await this.#trainer.step(this.#batch, order, onProgress);
    if (result === null) return this.#undo();
    return {
      trainBitsPerByte: result.loss_sum / (16 * this.tokensPerStep),
      fitnessPlus: result.plus,
      fitnessMinus: result.minus,
      updatedFraction: result.changed / this.#rule.trained,
      ...(this.#rule.thresholdChanges ? { threshold: order.threshold } : {}),
      ...(lossInteger === undefined ? {} : { lossInteger }),
      phases: this.#trainer.phases(),
    };
  }

  #undo(): null {
    this.#rule.undo();
    return null;
  }

  async evaluate(): Promise<Evaluation | null> {
    if (this.#heldOut === null) return null;
    const loss = await textLoss(this.#model, this.#heldOut, evaluationBytes);
    const lossInteger = loss === null ? null : await this.#rule.validate(this.#heldOut);
    if (loss === null || lossInteger === null) return null;
    return { bitsPerByte: loss.bitsPerByte, ...(lossInteger === undefined ? {} : { lossInteger }) };
  }

  async sample(prompt: Uint8Array, tokens: number, seed: number): Promise<Uint8Array | null> {
    this.#cancelled = false;
    return collect(new RecurrentConversation(this.#model).generate(prompt, tokens, sampling, seed), () => this.#cancelled);
  }

  cancel(): void {
    this.#cancelled = true;
    cancel(this.#context);
  }

  save(): Map<string, SavedTensor> {
    const { layers, hidden } = this.#model;
    const tensors = savedWeights(this.#model, this.#room);
    tensors.set("state.members", { dtype: "I8", shape: [this.population, layers, hidden], data: this.#memberStates() });
    for (const { name, shape, read } of this.#rule.states) tensors.set(name, { dtype: "I8", shape, data: read() });
    return tensors;
  }

  /** How the members' states go in and out: some at a time, which are so many bytes of a tensor. */
  #memberPieces(): { first: number; count: number; begin: number; end: number }[] {
    const { stateBytes } = this.#model;
    const atOnce = statesAtOnce(this.#model);
    return Array.from({ length: Math.ceil(this.population / atOnce) }, (_, i) => {
      const first = i * atOnce;
      const count = Math.min(atOnce, this.population - first);
      return { first, count, begin: first * stateBytes, end: (first + count) * stateBytes };
    });
  }

  #memberStates(): LazyBytes[] {
    return this.#memberPieces().map(({ first, count, begin, end }) => ({ byteLength: end - begin, read: () => this.#trainer.readStates(first, count, this.#room) }));
  }

  load(tensors: ReadonlyMap<string, TensorEntry>): void {
    const { layers, hidden } = this.#model;
    const states = [
      { name: "state.members", dtype: "I8" as const, shape: [this.population, layers, hidden] },
      ...this.#rule.states.map(({ name, shape }) => ({ name, dtype: "I8" as const, shape })),
    ];
    const weights = eggTensors(this.#model).map(({ name, shape }) => ({ name, dtype: "I8" as const, shape }));
    expectTensors(tensors, [...weights, ...states]);
    writeWeights(this.#model, tensors);
    const members = tensors.get("state.members")!;
    for (const { first, begin, end } of this.#memberPieces()) this.#trainer.writeStates(first, partNow(members, begin, end, this.#room));
    for (const { name, write } of this.#rule.states) write(bytesNow(tensors.get(name)!.data));
  }
}
