// The context model, its training step and its evaluation, as objects over native memory. Shapes are checked on both sides.
// Not the algorithm (kernels/contexts/) and not the choice of text (src/learners/eggroll-contexts.ts).
import { EggError } from "../errors.ts";
import { call, emptyRecord, emptyWord, pack, unpack, type RecordOf } from "./abi.ts";
import { join, type Context } from "./machine.ts";

export interface ContextsShape {
  /** Tokens: bytes are mapped to them. */
  vocabulary: number;
  /** Longest context in bytes. */
  order: number;
  /** Rows of a table of three and more bytes: 2^table_bits. */
  table_bits: number;
}

/** A part of the tables: int8 weights that predictions read, int32 masters that training moves. */
export type Part = "weights" | "masters";
const parts: Record<Part, { number: number; bytes: number }> = { weights: { number: 0, bytes: 1 }, masters: { number: 1, bytes: 4 } };

export type ContextsResult = RecordOf<"ContextsResult">;

/** Tables of rows of logits in native memory; table k is for contexts of k + 1 bytes. */
export class NativeContexts {
  readonly context: Context;
  readonly handle: number;
  readonly shape: ContextsShape;

  /**
   * A model of zeros.
   * @param tokens the token of each byte (256)
   * @throws EggError("resources") that names the bytes needed
   */
  constructor(context: Context, shape: ContextsShape, tokens: Uint8Array) {
    this.context = context;
    this.shape = shape;
    const out = emptyWord();
    call("egg_contexts_create", [context.handle, pack("ContextsShape", { ...shape, reserved: 0 }), tokens, tokens.byteLength, out]);
    this.handle = out.getUint32(0, true);
  }

  /** Rows `first` .. `first + count` of a table: [count][vocabulary]; in the front of `room` where given. */
  read(table: number, part: Part, first: number, count: number, room?: Uint8Array): Uint8Array {
    const bytes = count * this.shape.vocabulary * parts[part].bytes;
    const rows = room?.subarray(0, bytes) ?? new Uint8Array(bytes);
    call("egg_contexts_read", [this.handle, table, parts[part].number, first, count, rows, rows.byteLength]);
    return rows;
  }

  write(table: number, part: Part, first: number, rows: Uint8Array): void {
    const count = rows.byteLength / (this.shape.vocabulary * parts[part].bytes);
    call("egg_contexts_write", [this.handle, table, parts[part].number, first, count, rows, rows.byteLength]);
  }

  /**
   * Bits of all bytes of `text` but the first `order`, which are only context; exact softmax. Null when cancelled.
   * @param other a token that stands for several bytes, each of which costs `penalty` bits besides; null where there is none
   */
  async evaluate(text: Uint8Array, other: number | null, penalty: number): Promise<number | null> {
    call("egg_contexts_evaluate_start", [this.handle, other ?? 256, penalty, text, text.byteLength]);
    await join(this.context);
    const bits = emptyWord();
    return call("egg_contexts_evaluate_finish", [this.handle, bits], ["cancelled"]) === "ok" ? bits.getFloat64(0, true) : null;
  }

  /** Logits of all tokens behind a context of `order` bytes, in 1/16 bit. */
  logits(text: Uint8Array): Int32Array {
    const logits = new Int32Array(this.shape.vocabulary);
    call("egg_contexts_logits", [this.handle, text, text.byteLength, logits, logits.byteLength]);
    return logits;
  }

  release(): void {
    call("egg_release", [this.handle]);
  }
}

export type ContextsTrainerShape = RecordOf<"ContextsTrainerShape">;

/** A population on a context model: text in, one step. */
export class NativeContextsTrainer {
  readonly model: NativeContexts;
  readonly shape: ContextsTrainerShape;
  readonly handle: number;

  /** @throws EggError("resources") that names the bytes needed */
  constructor(model: NativeContexts, shape: ContextsTrainerShape) {
    this.model = model;
    this.shape = shape;
    const out = emptyWord();
    call("egg_contexts_trainer_create", [model.handle, pack("ContextsTrainerShape", shape), out]);
    this.handle = out.getUint32(0, true);
  }

  /** Memory that a trainer of this shape takes besides its model, in bytes. */
  static bytesNeeded(model: NativeContexts, shape: ContextsTrainerShape): number {
    const out = emptyWord();
    call("egg_contexts_trainer_bytes", [model.handle, pack("ContextsTrainerShape", shape), out]);
    return out.getFloat64(0, true);
  }

  /**
   * One training step. Resolves to null when it was cancelled, and then nothing has changed.
   * @param batch text of the groups, groups x (order + positions) bytes
   * @param rate how far votes move a row, kernels/contexts/ops.zig
   */
  async step(batch: Uint8Array, step: number, rate: number, onProgress?: (share: number) => void): Promise<ContextsResult | null> {
    const bytes = this.shape.groups * (this.model.shape.order + this.shape.positions);
    if (batch.byteLength !== bytes) throw new EggError("internal", `[native] batch: expected ${bytes} bytes, found ${batch.byteLength}.`);
    call("egg_contexts_step_start", [this.handle, step, rate, batch, batch.byteLength]);
    await join(this.model.context, onProgress);
    const result = emptyRecord("ContextsResult");
    return call("egg_contexts_step_finish", [this.handle, result], ["cancelled"]) === "ok" ? unpack("ContextsResult", result) : null;
  }

  /** Loss differences of the last step, minus side less plus side: [groups][positions][16 pairs], in 1/256 bit. */
  differences(): Int32Array {
    const differences = new Int32Array(this.shape.groups * this.shape.positions * 16);
    call("egg_contexts_step_differences", [this.handle, differences, differences.byteLength]);
    return differences;
  }

  release(): void {
    call("egg_release", [this.handle]);
  }
}
