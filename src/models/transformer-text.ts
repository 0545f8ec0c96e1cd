// A transformer that reads and writes text: its loss in bits per byte, and conversations with a cache, each as captured programs
// that run again and again in memory planned once. Not training (src/learners/backprop.ts), not the choice of a token
// (sampling.ts). Read next: transformer.ts, text-model.ts.
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Tokens } from "../data/tokens.ts";
import { EggError } from "../errors.ts";
import type { Context } from "../native/machine.ts";
import { context } from "../tensor/device.ts";
import { capture, noGrad, useThreads, type nn, type Program, type Tensor } from "../tensor/egg.ts";
import type { TextLoss } from "./evaluate.ts";
import { Sampler, type SamplingOptions } from "./sampling.ts";
import type { TensorEntry } from "./tensors.ts";
import { expectTransformer, loadTransformer } from "./transformer-names.ts";
import type { TransformerShape } from "./transformer-shape.ts";
import { Transformer } from "./transformer.ts";

type Ids = { shape: number[]; dtype: "i32" };
type LossProgram = Program<{ ids: Ids; targets: Ids }, { loss: Tensor }>;
type LogitsProgram = Program<{ ids: Ids }, { logits: Tensor }>;

/** Tokens that one run of the loss reads, about: enough for full products, few enough that a cancellation is soon heard. */
const tokens_at_once = 2048;
/** A target that does not count. */
const ignored = -100;
/** Bytes of weights, times tokens, of a run below which one thread is faster: several would wait for each other longer than they work. */
const worth_sharing = 2 ** 25;
/** Logits are natural ones; sampling counts in bits. */
const unit = Math.LOG2E;

/**
 * The model that a checkpoint holds. int8: with int8 weights for products (TransformerOptions).
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function openTransformer({ threads, tier }: Context, shape: TransformerShape, tensors: ReadonlyMap<string, TensorEntry>, tokenizer: Tokenizer, int8 = false): TransformerText {
  expectTransformer(shape, tensors);
  useThreads(threads, tier);
  const model = new Transformer(shape, { empty: true, int8 });
  loadTransformer(model, tensors);
  return new TransformerText(model, tokenizer);
}

/** As the model is without dropout; it trains on afterwards if it did. */
function inEvaluation<T>(model: Transformer, action: () => T): T {
  const { training } = model;
  model.eval();
  try {
    return noGrad(action);
  } finally {
    model.train(training);
  }
}

function weightsOf(model: Transformer): { count: number; bytes: number } {
  const all = model.namedWeights();
  return { count: all.reduce((sum, [, { numel }]) => sum + numel, 0), bytes: all.reduce((sum, [, { bytes }]) => sum + bytes, 0) };
}

export class TransformerText {
  readonly model: Transformer;
  readonly tokenizer: Tokenizer;
  readonly #conversation: TransformerConversation;
  #loss: LossProgram | null = null;
  #cancelled = false;

  /**
   * @param model may be in training; what it computes here are its weights of the moment, without dropout
   * @throws EggError("data") where the tokenizer has more ids than the model
   */
  constructor(model: Transformer, tokenizer: Tokenizer) {
    const { vocabulary } = model.shape;
    if (tokenizer.vocabulary > vocabulary) {
      throw new EggError("data", `[transformer] the tokenizer ${tokenizer.name} has ${tokenizer.vocabulary.toLocaleString("en-US")} ids, the model ${vocabulary.toLocaleString("en-US")}.`, {
        hint: "Use the tokenizer that the model was trained with.",
      });
    }
    this.model = model;
    this.tokenizer = tokenizer;
    this.#conversation = new TransformerConversation(model, tokenizer);
  }

  /** Bytes of native memory that loss and conversations take, beside the model: programs and caches, taken by now. */
  get bytes(): number {
    return this.#lossProgram().bytes + this.#conversation.bytes;
  }

  /** How many numbers the model's weights are, and their bytes of native memory. */
  get weights(): { count: number; bytes: number } {
    return weightsOf(this.model);
  }

  /** A text from its beginning, with the weights of now. There is memory for one: the one before is forgotten. */
  begin(): TransformerConversation {
    this.#conversation.forget();
    return this.#conversation;
  }

  /** Gives back all memory but the model's. */
  release(): void {
    this.#loss?.release();
    this.#loss = null;
    this.#conversation.release();
  }

  // ---- loss

  #lossProgram(): LossProgram {
    const { block } = this.model.shape;
    const ids: Ids = { shape: [Math.max(1, Math.floor(tokens_at_once / block)), block], dtype: "i32" };
    return (this.#loss ??= inEvaluation(this.model, () => capture({ ids, targets: ids }, ({ ids, targets }) => ({ loss: this.model.loss(ids, targets, { ignoreIndex: ignored, reduction: "sum" }) }))));
  }

  /**
   * Exact softmax over windows of a block side by side, so that each token is predicted once, from up to a block of tokens
   * before it; where `maxTokens` allows only part, windows evenly spread. Null when cancelled.
   * @throws EggError("data") where there are fewer than two tokens
   */
  async loss(tokens: Tokens, maxTokens: number): Promise<TextLoss | null> {
    this.#cancelled = false;
    const predictable = tokens.count - 1; // nothing comes before the first token
    if (predictable < 1) throw new EggError("data", `[data] ${tokens.name}: evaluation needs 2 tokens, found ${tokens.count}.`, { hint: "Give more text, or raise data.validation." });
    const program = this.#lossProgram();
    const { block } = this.model.shape;
    const rows = Math.max(1, Math.floor(tokens_at_once / block));
    const [ids, targets] = [new Int32Array(rows * block), new Int32Array(rows * block)];
    const window = new Int32Array(block + 1);
    const all = Math.ceil(predictable / block);
    const windows = Math.min(all, Math.max(1, Math.floor(maxTokens / block)));
    let [nats, count, bytes] = [0, 0, 0];
    for (let first = 0; first < windows; first += rows) {
      ids.fill(0);
      targets.fill(ignored);
      for (let row = 0; row < Math.min(rows, windows - first); row++) {
        const start = Math.floor(((first + row) * all) / windows) * block;
        const length = Math.min(block, predictable - start, maxTokens - count);
        const part = window.subarray(0, length + 1);
        tokens.read(start, part);
        ids.set(part.subarray(0, length), row * block);
        targets.set(part.subarray(1), row * block);
        for (let i = 1; i <= length; i++) bytes += this.tokenizer.lengths[part[i]!] ?? 0;
        count += length;
      }
      if (!(await program.run({ ids, targets })) || this.#cancelled) return null;
      nats += program.outputs.loss.item();
    }
    return { bitsPerByte: nats / Math.LN2 / bytes, tokens: count, bytes };
  }

  /** Ends a running `loss` early. */
  cancel(): void {
    this.#cancelled = true;
    this.#loss?.cancel();
  }
}

/** How many of `count` tokens fall out of a context of `block`: half of it at a time, so that going on is cheap in between. */
export function droppedOf(count: number, block: number): number {
  const half = Math.ceil(block / 2);
  return count <= block ? 0 : half * Math.ceil((count - block) / half);
}

/**
 * A text that a model reads and continues, again and again as it grows: what it has in common with the tokens in the caches is not
 * read again. The weights must be the same all the while.
 */
export class TransformerConversation {
  /** Tokens that were read before the first one was written, the last time. */
  read = 0;
  readonly #model: Transformer;
  readonly #tokenizer: Tokenizer;
  #caches: nn.KeyValueCache[] | null = null;
  /** The tokens in the caches: as many of these as are filled there. */
  readonly #held: Int32Array;
  /** Logits of the last of so many tokens that follow on those in the caches: one, and what was last needed besides. */
  #one: LogitsProgram | null = null;
  #many: { length: number; program: LogitsProgram } | null = null;
  #logits: Float32Array<ArrayBuffer> | null = null;
  #turns = 0;

  constructor(model: Transformer, tokenizer: Tokenizer) {
    this.#model = model;
    this.#tokenizer = tokenizer;
    this.#held = new Int32Array(model.shape.block);
  }

  /** Bytes of native memory, taken by now: programs and caches. */
  get bytes(): number {
    const { block } = this.#model.shape;
    const caches = this.#cache();
    const programs = [this.#program(1), this.#program(block + 1 - droppedOf(block + 1, block))];
    return [...new Set(programs)].reduce((sum, { bytes }) => sum + bytes, 0) + caches.reduce((sum, { keys, values }) => sum + keys.bytes + values.bytes, 0);
  }

  /**
   * Continues ids token by token, for as long as one likes: the context is the last block, or at least half of one, since it
   * gives way by halves (`droppedOf`). The same seed gives the same tokens.
   * @throws EggError("usage") where `text` is empty, or it was begun to be continued again meanwhile
   */
  *continue(text: ArrayLike<number>, count: number, options: SamplingOptions, seed: number): Generator<number> {
    const { block } = this.#model.shape;
    const sampler = new Sampler(options, seed, unit);
    const turn = ++this.#turns;
    const context = Int32Array.from(text).subarray(droppedOf(text.length, block));
    if (context.length === 0) throw new EggError("usage", "[transformer] generation needs at least one token to begin with.");
    sampler.read(text);
    let token = 0;
    for (let written = 0; written < count; written++) {
      if (turn !== this.#turns) throw new EggError("usage", "[transformer] this text cannot go on: another one was begun with the same model.");
      const logits = written === 0 ? this.#begin(context) : this.#follow(token);
      token = sampler.next(logits);
      yield token;
    }
  }

  /** The same for bytes: those of one token after the other, up to the end of the text. */
  *generate(text: Uint8Array, count: number, options: SamplingOptions, seed: number): Generator<Uint8Array> {
    for (const id of this.continue(this.#encode(text), count, options, seed)) {
      if (id === this.#tokenizer.endOfText) return;
      yield this.#tokenizer.decode([id]);
    }
  }

  /** An empty text is the beginning of one: behind the end of another, or of a line. */
  #encode(text: Uint8Array): ArrayLike<number> {
    if (text.length > 0) return this.#tokenizer.encode(text);
    if (this.#tokenizer.endOfText !== null) return [this.#tokenizer.endOfText];
    try {
      return this.#tokenizer.encode(Uint8Array.of(10));
    } catch {
      return [0]; // characters that have no line end
    }
  }

  /** Reads what differs from the tokens in the caches, and always the last token: its logits are wanted. */
  #begin(context: Int32Array): Float32Array {
    const most = Math.min(this.#cache()[0]!.length, context.length - 1);
    let common = 0;
    while (common < most && this.#held[common] === context[common]) common++;
    this.read = context.length - common;
    return this.#feed(common, context.subarray(common));
  }

  /** Reads one token more. Half of a full context falls out, and the rest is read anew: its positions are others. */
  #follow(token: number): Float32Array {
    const { block } = this.#model.shape;
    const filled = this.#cache()[0]!.length;
    if (filled < block) return this.#feed(filled, Int32Array.of(token));
    return this.#feed(0, Int32Array.from([...this.#held.subarray(droppedOf(block + 1, block)), token]));
  }

  /** Reads ids behind the first `from` in the caches. @returns logits of what may follow, good until the next call */
  #feed(from: number, ids: Int32Array): Float32Array {
    const program = this.#program(ids.length);
    for (const cache of this.#cache()) cache.rewind(from);
    program.runNow({ ids });
    this.#held.set(ids, from);
    const { block, offset } = program.outputs.logits.buffer!;
    const logits = (this.#logits ??= new Float32Array(new ArrayBuffer(4 * this.#model.shape.vocabulary)));
    block!.arena.read(offset, logits);
    return logits.subarray(0, this.#tokenizer.vocabulary);
  }

  #cache(): nn.KeyValueCache[] {
    return (this.#caches ??= this.#model.caches(1, this.#model.shape.block));
  }

  #program(length: number): LogitsProgram {
    const known = length === 1 ? this.#one : this.#many?.length === length ? this.#many.program : null;
    if (known !== null) return known;
    const caches = this.#cache();
    const filled = caches[0]!.length;
    for (const cache of caches) cache.rewind(); // there must be room for what is captured
    const { threads, tier } = context();
    if (weightsOf(this.#model).bytes * length < worth_sharing) useThreads(1, tier);
    const program = inEvaluation(this.#model, () => capture({ ids: { shape: [1, length], dtype: "i32" } as Ids }, ({ ids }) => ({ logits: this.#model.logits(ids, caches, { last: true }) })));
    useThreads(threads, tier);
    for (const cache of caches) cache.length = filled;
    if (length === 1) return (this.#one = program);
    this.#many?.program.release();
    this.#many = { length, program };
    return program;
  }

  /** What comes next is read from its beginning: the weights may be others. */
  forget(): void {
    this.#turns++;
    for (const cache of this.#caches ?? []) cache.rewind();
  }

  release(): void {
    for (const program of [this.#one, this.#many?.program]) program?.release();
    for (const cache of this.#caches ?? []) cache.release();
    this.#one = this.#many = this.#caches = null;
  }
}
