// The context model: which bytes have a token of their own, names of its tensors, its loss on text, and how it writes. Each next byte is
// predicted from rows of logits for the last 1, 2 ... bytes, added up. The arithmetic: kernels/contexts/. Read next: src/native/contexts.ts.
import { EggError } from "../errors.ts";
import type { Corpus } from "../data/corpus.ts";
import { evaluationStreams } from "../data/streams.ts";
import { NativeContexts, type Part } from "../native/contexts.ts";
import type { Context } from "../native/machine.ts";
import type { TextLoss } from "./evaluate.ts";
import { Sampler, type SamplingOptions } from "./sampling.ts";
import { bytesNow, expectTensors, partNow, type LazyBytes, type SavedTensor, type TensorEntry } from "./tensors.ts";

/** Logits are in 1/16 bit: the probability of a token goes with 2^(logit/16). */
const logitUnit = 1 / 16;
/** Bits that a byte costs besides its token where one token stands for all bytes that training never saw. */
const otherPenalty = 8;
/** Streams of an evaluation that reads only a part of the text, and bytes that one native job reads. */
const streams = 64;
const windowBytes = 1 << 18;
/** Largest magnitude of a master: 127 in units of 2^-20; as in kernels/contexts/ops.zig. */
const masterLimit = 127 * 2 ** 20;
/** Rows that are saved at once, in bytes: a checkpoint must not take as much memory again as the model. */
export const contextsPiece = 4 << 20;

export interface ContextsConfig {
  order: number;
  table_bits: number;
}

/** The distinct bytes of a text, ascending. */
export function bytesOf(text: Corpus): Uint8Array {
  const seen = new Uint8Array(256);
  const room = new Uint8Array(Math.min(text.bytes, 1 << 20));
  for (let at = 0; at < text.bytes; at += room.length) {
    const part = room.subarray(0, Math.min(room.length, text.bytes - at));
    text.read(at, part);
    for (const byte of part) seen[byte] = 1;
  }
  return Uint8Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => seen[byte] === 1);
}

/** Rows of the table for contexts of `length` bytes; as in kernels/contexts/model.zig. */
function rowsOf(vocabulary: number, { table_bits }: ContextsConfig, length: number): number {
  return length <= 2 ? vocabulary ** length : 2 ** table_bits;
}

/** Tokens of a model that has seen these bytes: one each, and one for all others where there are any. */
function vocabularyOf(bytes: Uint8Array): number {
  return Math.min(bytes.length + 1, 256);
}

/** Weights, in number. */
export function contextsParameters(bytes: Uint8Array, config: ContextsConfig): number {
  const vocabulary = vocabularyOf(bytes);
  let rows = 0;
  for (let length = 1; length <= config.order; length++) rows += rowsOf(vocabulary, config, length);
  return rows * vocabulary;
}

export class ContextsModel {
  readonly native: NativeContexts;
  /** Bytes with a token of their own, ascending; token i is bytes[i]. */
  readonly bytes: Uint8Array;
  readonly #config: ContextsConfig;
  /** The token of all other bytes; null where there are none. */
  readonly #other: number | null;
  /** By byte. */
  readonly #tokens: Uint8Array;
  #room: Uint8Array | null = null;

  /** A model of zeros: every byte is equally likely. */
  constructor(context: Context, config: ContextsConfig, bytes: Uint8Array) {
    const vocabulary = vocabularyOf(bytes);
    this.bytes = bytes;
    this.#config = config;
    this.#other = bytes.length < 256 ? bytes.length : null;
    this.#tokens = new Uint8Array(256).fill(this.#other ?? 0);
    bytes.forEach((byte, token) => (this.#tokens[byte] = token));
    this.native = new NativeContexts(context, { vocabulary, order: config.order, table_bits: config.table_bits }, this.#tokens);
  }

  /**
   * The model that saved these tensors.
   * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
   */
  static from(context: Context, config: ContextsConfig, tensors: ReadonlyMap<string, TensorEntry>): ContextsModel {
    expectContexts(config, tensors);
    const model = new ContextsModel(context, config, savedBytes(tensors));
    model.load(tensors);
    return model;
  }

  get parameters(): number {
    return contextsParameters(this.bytes, this.#config);
  }

  /** Bytes in native memory: rows are padded to whole vectors, and each weight has a master of four bytes. */
  get memory(): number {
    const { vocabulary } = this.native.shape;
    return (this.parameters / vocabulary) * Math.ceil(vocabulary / 16) * 16 * 5;
  }

  get order(): number {
    return this.#config.order;
  }

  /** What stands before the beginning of a text: the byte of token 0. */
  get padding(): number {
    return this.bytes[0] ?? 0;
  }

  /** Reads `target.length` bytes of a text from `offset`, which may lie before its beginning. */
  readPadded(text: Corpus, offset: number, target: Uint8Array): void {
    const before = Math.min(Math.max(0, -offset), target.length);
    target.fill(this.padding, 0, before);
    if (before < target.length) text.read(offset + before, target.subarray(before));
  }

  /** Weights, the bytes that tokens stand for, and with `masters` what training goes on from. */
  save(masters: boolean): Map<string, SavedTensor> {
    const tensors = new Map<string, SavedTensor>([["vocabulary.bytes", { dtype: "U8", shape: [this.bytes.length], data: this.bytes }]]);
    for (const { name, table, shape } of entriesOf(this.bytes, this.#config, "weights")) tensors.set(name, { dtype: "I8", shape, data: this.#rows(table, "weights", shape[0]!) });
    if (masters) for (const { name, table, shape } of entriesOf(this.bytes, this.#config, "masters")) tensors.set(name, { dtype: "I32", shape, data: this.#rows(table, "masters", shape[0]!) });
    return tensors;
  }

  /** How a table's rows go in and out: some at a time, which are so many bytes of a tensor. */
  #pieces(part: Part, rows: number): { first: number; count: number; begin: number; end: number }[] {
    const rowBytes = this.native.shape.vocabulary * (part === "weights" ? 1 : 4);
    const atOnce = Math.max(1, Math.floor(contextsPiece / rowBytes));
    return Array.from({ length: Math.ceil(rows / atOnce) }, (_, i) => {
      const first = i * atOnce;
      const count = Math.min(atOnce, rows - first);
      return { first, count, begin: first * rowBytes, end: (first + count) * rowBytes };
    });
  }

  /** Room for all pieces, one after the other: memory that is let go of here and there would stay with the process for a while. */
  #pieceRoom(): Uint8Array {
    return (this.#room ??= new Uint8Array(contextsPiece));
  }

  #rows(table: number, part: Part, rows: number): LazyBytes[] {
    const room = this.#pieceRoom();
    return this.#pieces(part, rows).map(({ first, count, begin, end }) => ({ byteLength: end - begin, read: () => this.native.read(table, part, first, count, room) }));
  }

  /**
   * Takes back weights, and masters where they are there.
   * @throws EggError("corrupt") that names what is missing, extra, of the wrong shape, or a master that is none
   */
  load(tensors: ReadonlyMap<string, TensorEntry>): void {
    expectContexts(this.#config, tensors);
    const room = this.#pieceRoom();
    for (const { name } of entriesOf(this.bytes, this.#config, "masters")) expectMasters(name, tensors.get(name), room);
    for (const part of ["weights", "masters"] as const) {
      for (const { name, table } of entriesOf(this.bytes, this.#config, part)) {
        const tensor = tensors.get(name);
        if (tensor === undefined) continue;
        for (const { first, begin, end } of this.#pieces(part, tensor.shape[0]!)) this.native.write(table, part, first, partNow(tensor, begin, end, room));
      }
    }
  }

  /**
   * Exact softmax, clean weights; at most `maxBytes`, spread over the text. Null when cancelled.
   * @throws EggError("data") where the text is too short to predict anything
   */
  async loss(text: Corpus, maxBytes: number): Promise<TextLoss | null> {
    const { offsets, length } = evaluationStreams(text.bytes, streams, maxBytes);
    let bits = 0;
    for (const offset of offsets) {
      for (let done = 0; done < length; done += windowBytes) {
        const count = Math.min(windowBytes, length - done);
        const window = new Uint8Array(this.order + count);
        this.readPadded(text, offset + 1 + done - this.order, window);
        const sum = await this.native.evaluate(window, this.#other, otherPenalty);
        if (sum === null) return null;
        bits += sum;
      }
    }
    const tokens = offsets.length * length;
    return { bitsPerByte: bits / tokens, tokens, bytes: tokens };
  }

  /** Bytes that are read before the first one is written: the longest context, however long the text. So there is no state to keep. */
  get read(): number {
    return this.order;
  }

  /** Continues a text byte by byte; the same seed gives the same bytes. Bytes that training never saw are not written. */
  *generate(text: Uint8Array, tokens: number, options: SamplingOptions, seed: number): Generator<Uint8Array> {
    const sampler = new Sampler(options, seed, logitUnit);
    const context = new Uint8Array(this.order).fill(this.padding);
    const last = text.length === 0 ? Uint8Array.of(10) : text.subarray(-this.order);
    context.set(last, this.order - last.length);
    sampler.read((text.length === 0 ? last : text).map((byte) => this.#tokens[byte]!));
    for (let i = 0; i < tokens; i++) {
      const logits = Float32Array.from(this.native.logits(context));
      if (this.#other !== null) logits[this.#other] = -Infinity;
      const byte = this.bytes[sampler.next(logits)]!;
      yield Uint8Array.of(byte);
      context.copyWithin(0, 1);
      context[this.order - 1] = byte;
    }
  }
}

/** Names and shapes of one part of the tables. */
function entriesOf(bytes: Uint8Array, config: ContextsConfig, part: Part): { name: string; table: number; shape: number[] }[] {
  const vocabulary = vocabularyOf(bytes);
  return Array.from({ length: config.order }, (_, table) => ({
    name: part === "weights" ? `contexts.${table + 1}.weight` : `state.contexts.${table + 1}.master`,
    table,
    shape: [rowsOf(vocabulary, config, table + 1), vocabulary],
  }));
}

/**
 * Looks whether `tensors` are such a model's, with or without masters. To be asked before memory is taken for the model: the sizes may
 * come from a file that claims anything.
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function expectContexts(config: ContextsConfig, tensors: ReadonlyMap<string, TensorEntry>): void {
  const bytes = savedBytes(tensors);
  const weights = entriesOf(bytes, config, "weights").map(({ name, shape }) => ({ name, dtype: "I8" as const, shape }));
  const masters = entriesOf(bytes, config, "masters").map(({ name, shape }) => ({ name, dtype: "I32" as const, shape }));
  const all = [...tensors.keys()].some((name) => name.startsWith("state."));
  expectTensors(tensors, [{ name: "vocabulary.bytes", dtype: "U8", shape: [bytes.length] }, ...weights, ...(all ? masters : [])]);
}

/** Training's sums fit into 32 bits for masters within their limits; a file may claim anything. */
function expectMasters(name: string, tensor: TensorEntry | undefined, room: Uint8Array): void {
  if (tensor === undefined) return;
  const { byteLength } = tensor.data;
  for (let at = 0; at < byteLength; at += contextsPiece) {
    const part = partNow(tensor, at, Math.min(byteLength, at + contextsPiece), room);
    const { buffer, byteOffset } = part.byteOffset % 4 === 0 ? part : part.slice();
    const masters = new Int32Array(buffer, byteOffset, part.byteLength / 4);
    const wrong = masters.find((master) => master > masterLimit || master < -masterLimit);
    if (wrong === undefined) continue;
    throw new EggError("corrupt", `[checkpoint] tensor ${name}: holds ${wrong}, allowed -${masterLimit} to ${masterLimit}.`, { hint: "The file was not written by training." });
  }
}

function savedBytes(tensors: ReadonlyMap<string, TensorEntry>): Uint8Array {
  const entry = tensors.get("vocabulary.bytes");
  const bytes = entry?.dtype === "U8" && entry.data.byteLength <= 256 ? bytesNow(entry.data) : new Uint8Array(0);
  if (bytes.length === 0 || bytes.some((byte, i) => i > 0 && byte <= bytes[i - 1]!)) {
    throw new EggError("corrupt", "[checkpoint] tensor vocabulary.bytes: expected 1 to 256 different bytes (U8), ascending.", { hint: "The file is of no context model." });
  }
  return bytes;
}
