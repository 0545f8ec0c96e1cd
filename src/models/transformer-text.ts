// A transformer that reads and writes text: its loss in bits per byte, and generation with a cache, each as captured programs
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

/** How many of `count` tokens fall out of a context of `block`: half of it at a time, so that going on is cheap in between. */
export function droppedOf(count: number, block: number): number {
  const half = Math.ceil(block / 2);
  return count <= block ? 0 : half * Math.ceil((count - block) / half);
}

export class TransformerText {
  readonly model: Transformer;
  readonly tokenizer: Tokenizer;
  #loss: LossProgram | null = null;
  #caches: nn.KeyValueCache[] | null = null;
  /** Logits of the last of so many tokens that follow on those in the caches: one, and what was last needed besides. */
  #one: LogitsProgram | null = null;
  #many: { length: number; program: LogitsProgram } | null = null;
  #logits: Float32Array<ArrayBuffer> | null = null;
  #cancelled = false;
  #texts = 0;

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
  }

  /** Bytes of native memory that loss and generation take, beside the model: programs and caches, taken by now. */
  get bytes(): number {
    const { block } = this.model.shape;
    const caches = this.#cache();
    const programs = [this.#lossProgram(), this.#program(1), this.#program(block + 1 - droppedOf(block + 1, block))];
    return [...new Set(programs)].reduce((sum, { bytes }) => sum + bytes, 0) + caches.reduce((sum, { keys, values }) => sum + keys.bytes + values.bytes, 0);
  }

  /** How many numbers the model's weights are, and their bytes of native memory. */
  get weights(): { count: number; bytes: number } {
    const all = this.model.namedWeights();
    return { count: all.reduce((sum, [, { numel }]) => sum + numel, 0), bytes: all.reduce((sum, [, { bytes }]) => sum + bytes, 0) };
  }

  // ---- loss

  /** As the model is without dropout; it trains on afterwards if it did. */
  #inEvaluation<T>(action: () => T): T {
    const { training } = this.model;
    this.model.eval();
    try {
      return noGrad(action);
    } finally {
      this.model.train(training);
    }
  }

  #lossProgram(): LossProgram {
    const { block } = this.model.shape;
    const ids: Ids = { shape: [Math.max(1, Math.floor(tokens_at_once / block)), block], dtype: "i32" };
    return (this.#loss ??= this.#inEvaluation(() => capture({ ids, targets: ids }, ({ ids, targets }) => ({ loss: this.model.loss(ids, targets, { ignoreIndex: ignored, reduction: "sum" }) }))));
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

  // ---- generation

  #cache(): nn.KeyValueCache[] {
    return (this.#caches ??= this.model.caches(1, this.model.shape.block));
  }

  #program(length: number): LogitsProgram {
    const known = length === 1 ? this.#one : this.#many?.length === length ? this.#many.program : null;
    if (known !== null) return known;
    const caches = this.#cache();
    const filled = caches[0]!.length;
    for (const cache of caches) cache.rewind(); // there must be room for what is captured
    const { threads, tier } = context();
    if (this.weights.bytes * length < worth_sharing) useThreads(1, tier);
    const program = this.#inEvaluation(() => capture({ ids: { shape: [1, length], dtype: "i32" } as Ids }, ({ ids }) => ({ logits: this.model.logits(ids, caches, { last: true }) })));
    useThreads(threads, tier);
    for (const cache of caches) cache.length = filled;
    if (length === 1) return (this.#one = program);
    this.#many?.program.release();
    this.#many = { length, program };
    return program;
  }

  /** Reads ids behind those in the caches. @returns logits of what may follow, good until the next call */
  #feed(ids: Int32Array): Float32Array {
    const program = this.#program(ids.length);
    program.runNow({ ids });
    const { block, offset } = program.outputs.logits.buffer!;
    const logits = (this.#logits ??= new Float32Array(new ArrayBuffer(4 * this.model.shape.vocabulary)));
    block!.arena.read(offset, logits);
    return logits.subarray(0, this.tokenizer.vocabulary);
  }

  /**
   * Continues ids token by token, for as long as one likes: the context is the last block, or at least half of one, since it
   * gives way by halves (`droppedOf`). The same seed gives the same tokens.
   * @throws EggError("usage") where `prompt` is empty, or another text was begun meanwhile
   */
  *continue(prompt: ArrayLike<number>, count: number, options: SamplingOptions, seed: number): Generator<number> {
    const { block } = this.model.shape;
    const sampler = new Sampler(options, seed, unit);
    const text = ++this.#texts;
    const context = new Int32Array(block);
    const one = new Int32Array(1);
    let length = prompt.length - droppedOf(prompt.length, block);
    if (length === 0) throw new EggError("usage", "[transformer] generation needs at least one token to begin with.");
    for (let i = 0; i < length; i++) context[i] = prompt[prompt.length - length + i]!;
    sampler.read(prompt);
    for (let written = 0; written < count; written++) {
      if (text !== this.#texts) throw new EggError("usage", "[transformer] this text cannot go on: another one was begun with the same model.");
      let logits: Float32Array;
      if (written > 0 && length < block) {
        context[length++] = one[0]!;
        logits = this.#feed(one);
      } else {
        if (written > 0) {
          const dropped = droppedOf(block + 1, block);
          context.copyWithin(0, dropped);
          length = block + 1 - dropped;
          context[length - 1] = one[0]!;
        }
        for (const cache of this.#cache()) cache.rewind();
        logits = this.#feed(context.subarray(0, length));
      }
      one[0] = sampler.next(logits);
      yield one[0]!;
    }
  }

  /** Continues a prompt: the bytes of one token after the other, up to the end of the text. The same seed gives the same text. */
  *generate(prompt: Uint8Array, count: number, options: SamplingOptions, seed: number): Generator<Uint8Array> {
    for (const id of this.continue(this.#begin(prompt), count, options, seed)) {
      if (id === this.tokenizer.endOfText) return;
      yield this.tokenizer.decode([id]);
    }
  }

  /** An empty prompt is the beginning of a text: behind the end of another, or of a line. */
  #begin(prompt: Uint8Array): ArrayLike<number> {
    if (prompt.length > 0) return this.tokenizer.encode(prompt);
    if (this.tokenizer.endOfText !== null) return [this.tokenizer.endOfText];
    try {
      return this.tokenizer.encode(Uint8Array.of(10));
    } catch {
      return [0]; // characters that have no line end
    }
  }

  /** Gives back all memory but the model's. */
  release(): void {
    for (const program of [this.#loss, this.#one, this.#many?.program]) program?.release();
    for (const cache of this.#caches ?? []) cache.release();
    this.#loss = this.#one = this.#many = this.#caches = null;
  }
}
